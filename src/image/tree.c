// SPDX-License-Identifier: MIT
// References of whole trees of the mapping.
#include "image/tree.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/checked.h"
#include "image/overlap.h"
#include "image/tree_tables.h"

// --- what changes --------------------------------------------------------------------

void q2_tree_clear(struct q2_tree_change *c)
{
    free(c->tables);
    q2_counters_free(c->gained);
    q2_counters_free(c->lost);
    q2_counters_free(c->raised);
    *c = (struct q2_tree_change){0};
}

static int make_counters(struct q2_tree_change *c, struct q2_error *err)
{
    if (!c->gained)
        c->gained = q2_counters_new();
    if (!c->lost)
        c->lost = q2_counters_new();
    return c->gained && c->lost ? 0 : q2_fail_memory(err, sizeof(*c));
}

static int check_host_range(const struct q2_image *img, const char *what, uint64_t offset,
                            uint64_t n_bytes, struct q2_error *err)
{
    uint64_t end, limit = q2_align_up(img->data_end, img->cluster_size);
    if (q2_add_u64(offset, n_bytes, &end) && end <= limit)
        return 0;
    return q2_fail(err, -EIO,
                   "%s at host offset 0x%" PRIx64
                   " lies beyond the end of the file; check the image",
                   what, offset);
}

static int add_table(struct q2_tree_change *c, uint64_t offset, bool gain,
                     struct q2_error *err)
{
    if (c->n_tables == c->max_tables) {
        size_t max = c->max_tables ? c->max_tables * 2 : 256;
        struct q2_tree_table *t = realloc(c->tables, max * sizeof(*t));
        if (!t)
            return q2_fail_memory(err, max * sizeof(*t));
        c->tables = t;
        c->max_tables = max;
    }
    c->tables[c->n_tables++] =
        (struct q2_tree_table){.offset = offset, .gained = gain, .lost = !gain};
    return 0;
}

int q2_tree_add_l1(const struct q2_image *img, struct q2_tree_change *c,
                   const uint64_t *l1, uint64_t n_entries, bool gain,
                   struct q2_error *err)
{
    int ret = make_counters(c, err);
    for (uint64_t i = 0; i < n_entries && ret == 0; i++) {
        uint64_t offset = l1[i] & Q2_OFFSET_MASK;
        if (offset == 0)
            continue;
        if (!q2_is_aligned(offset, img->cluster_size))
            return q2_fail(err, -EIO,
                           "L1 entry %" PRIu64 ": L2 table offset 0x%" PRIx64
                           " is not cluster aligned; check the image",
                           i, offset);
        ret = check_host_range(img, "L2 table", offset, img->cluster_size, err);
        if (ret == 0)
            ret = add_table(c, offset, gain, err);
    }
    return ret;
}

// --- counting ------------------------------------------------------------------------

// Adds what t gains and loses for a range of host clusters.
static int count_clusters(struct q2_tree_change *c, const struct q2_tree_table *t,
                          uint64_t first, uint64_t n, struct q2_error *err)
{
    int ret = 0;
    if (t->gained > 0)
        ret = q2_counters_add(c->gained, first, n, t->gained, err);
    if (ret == 0 && t->lost > 0)
        ret = q2_counters_add(c->lost, first, n, t->lost, err);
    return ret;
}

// The host clusters of an entry; *n is 0 where it has none.
static int entry_clusters(const struct q2_image *img, const struct q2_l2_entry *e,
                          uint64_t *first, uint64_t *n, struct q2_error *err)
{
    bool packed = e->kind == Q2_CLUSTER_COMPRESSED;
    uint64_t n_bytes = packed ? e->n_bytes : img->cluster_size;
    *n = 0;
    if (e->host_offset == 0)
        return 0;
    if (!packed && !q2_is_aligned(e->host_offset, img->cluster_size))
        return q2_fail(err, -EIO,
                       "L2 entry: host offset 0x%" PRIx64
                       " is not cluster aligned; check the image",
                       e->host_offset);
    *first = e->host_offset >> img->cluster_bits;
    *n = ((e->host_offset + n_bytes - 1) >> img->cluster_bits) - *first + 1;
    return check_host_range(img, "A cluster", e->host_offset, n_bytes, err);
}

static int count_table(struct q2_image *img, struct q2_tree_table *t, uint64_t *l2,
                       bool *changed, void *opaque, struct q2_error *err)
{
    struct q2_tree_change *c = opaque;
    const unsigned stride = q2_tree_stride(img);
    uint64_t first = t->offset >> img->cluster_bits, n = 1; // the run so far
    (void)changed;
    for (uint64_t i = 0; i < img->cluster_size / 8; i += stride) {
        if (l2[i] == 0)
            continue;
        struct q2_l2_entry e =
            q2_l2_decode(l2[i], img->cluster_bits, img->header.version);
        uint64_t at = 0, n_here;
        int ret = entry_clusters(img, &e, &at, &n_here, err);
        t->copied = t->copied || e.copied;
        if (ret == 0 && n_here > 0 && at != first + n) {
            ret = count_clusters(c, t, first, n, err);
            first = at;
            n = 0;
        }
        if (ret < 0)
            return ret;
        n += n_here;
    }
    return count_clusters(c, t, first, n, err);
}

// What is both gained and lost does not change; so its refcount needs no room to rise.
static void cancel_clusters(struct q2_tree_change *c)
{
    uint64_t at = 0, start, n, value;
    while (q2_counters_next(c->gained, at, &start, &n, &value)) {
        for (uint64_t i = start; i < start + n; i++) {
            for (uint64_t k = q2_min_u64(value, q2_counters_get(c->lost, i)); k > 0;
                 k--) {
                q2_counters_take(c->gained, i);
                q2_counters_take(c->lost, i);
            }
        }
        at = start + n;
    }
}

// A table that is in both trees need not even be read.
static bool cancel_tables(struct q2_tree_change *c)
{
    bool gains = false, loses = false;
    size_t n = 0;
    for (size_t i = 0; i < c->n_tables; i++) {
        struct q2_tree_table t = c->tables[i];
        uint32_t both = t.gained < t.lost ? t.gained : t.lost;
        t.gained -= both;
        t.lost -= both;
        if (t.gained == 0 && t.lost == 0)
            continue;
        gains = gains || t.gained > 0;
        loses = loses || t.lost > 0;
        c->tables[n++] = t;
    }
    c->n_tables = n;
    return gains && loses;
}

int q2_tree_count(struct q2_image *img, struct q2_tree_change *c,
                  const struct q2_monitor *mon, struct q2_error *err)
{
    int ret = make_counters(c, err);
    if (ret < 0)
        return ret;
    q2_tree_sort(c);
    bool both = cancel_tables(c);
    ret = q2_tree_walk(img, c->tables, c->n_tables, count_table, c, mon, err);
    if (ret == 0 && both)
        cancel_clusters(c);
    return ret;
}

int q2_tree_lose(const struct q2_image *img, struct q2_tree_change *c, uint64_t offset,
                 uint64_t n_bytes, struct q2_error *err)
{
    if (n_bytes == 0)
        return 0;
    int ret = make_counters(c, err);
    if (ret == 0 && !q2_is_aligned(offset, img->cluster_size))
        ret = q2_fail(err, -EIO, "A table at host offset 0x%" PRIx64 " is not aligned",
                      offset);
    if (ret == 0)
        ret = check_host_range(img, "A table", offset, n_bytes, err);
    return ret < 0 ? ret
                   : q2_counters_add(c->lost, offset >> img->cluster_bits,
                                     q2_div_round_up(n_bytes, img->cluster_size), 1, err);
}

// --- refcounts -----------------------------------------------------------------------

// Calls each for runs of counters, cut at refcount blocks; block is NULL where there is
// none.
typedef int (*run_visit)(struct q2_image *img, const void *block, uint64_t index,
                         uint64_t cluster, uint64_t n, uint64_t value, void *opaque,
                         struct q2_error *err);

static int visit_counts(struct q2_image *img, struct q2_counters *counters,
                        run_visit each, void *opaque, struct q2_error *err)
{
    const uint64_t per_block = UINT64_C(1) << q2_refcount_block_bits(img);
    uint64_t at = 0, start, n, value;
    while (counters && q2_counters_next(counters, at, &start, &n, &value)) {
        struct q2_table *t;
        uint64_t index = start & (per_block - 1);
        n = q2_min_u64(n, per_block - index);
        int ret = q2_refcount_block(img, start, &t, err);
        if (ret == 0)
            ret = each(img, t ? t->data : NULL, index, start, n, value, opaque, err);
        if (ret == 0 && q2_cache_full(img->refcount_cache)) {
            ret = q2_cache_write_back(img->refcount_cache, img->disk.file, err);
            q2_cache_trim(img->refcount_cache);
        }
        if (ret < 0)
            return ret;
        at = start + n;
    }
    return 0;
}

// Where the run of counts ends that are as the one at index, counted from there.
static uint64_t run_length(const struct q2_image *img, const void *block, uint64_t index,
                           uint64_t n)
{
    return block ? q2_refcount_run_end(img->refcounts, block, index, index + n) - index
                 : n;
}

static int check_gain(struct q2_image *img, const void *block, uint64_t index,
                      uint64_t cluster, uint64_t n, uint64_t value, void *opaque,
                      struct q2_error *err)
{
    (void)opaque;
    for (uint64_t i = 0; i < n; i += run_length(img, block, index + i, n - i)) {
        uint64_t count = block ? img->refcounts->get(block, index + i) : 0;
        if (count == 0)
            return q2_fail(err, -EIO,
                           "host cluster %" PRIu64
                           " is in use, but its refcount is 0; check the image",
                           cluster + i);
        if (value > img->refcounts->max - count)
            return q2_fail(err, -EINVAL,
                           "refcount of host cluster %" PRIu64 " is %" PRIu64
                           ", and refcounts of %u bits cannot be larger than %" PRIu64,
                           cluster + i, count, 1U << img->refcounts->order,
                           img->refcounts->max);
    }
    return 0;
}

static int check_loss(struct q2_image *img, const void *block, uint64_t index,
                      uint64_t cluster, uint64_t n, uint64_t value, void *opaque,
                      struct q2_error *err)
{
    (void)opaque;
    for (uint64_t i = 0; i < n; i += run_length(img, block, index + i, n - i)) {
        uint64_t count = block ? img->refcounts->get(block, index + i) : 0;
        if (count < value)
            return q2_fail(err, -EIO,
                           "refcount of host cluster %" PRIu64 " is %" PRIu64
                           ", less than its references; check the image",
                           cluster + i, count);
    }
    return 0;
}

int q2_tree_check(struct q2_image *img, const struct q2_tree_change *c,
                  struct q2_error *err)
{
    int ret = visit_counts(img, c->gained, check_gain, NULL, err);
    return ret < 0 ? ret : visit_counts(img, c->lost, check_loss, NULL, err);
}

static int change_counts(struct q2_image *img, const void *block, uint64_t index,
                         uint64_t cluster, uint64_t n, uint64_t value, void *opaque,
                         struct q2_error *err)
{
    const int *delta = opaque;
    int ret = 0;
    (void)block;
    (void)index;
    for (uint64_t i = 0; i < value && ret == 0; i++)
        ret = q2_refcount_add(img, cluster, n, *delta, err);
    return ret;
}

static int raise_counts(struct q2_image *img, const void *block, uint64_t index,
                        uint64_t cluster, uint64_t n, uint64_t value, void *opaque,
                        struct q2_error *err)
{
    struct q2_tree_change *c = opaque;
    int delta = 1;
    int ret = change_counts(img, block, index, cluster, n, value, &delta, err);
    return ret < 0 ? ret : q2_counters_add(c->raised, cluster, n, value, err);
}

int q2_tree_raise(struct q2_image *img, struct q2_tree_change *c, struct q2_error *err)
{
    c->raised = q2_counters_new();
    return c->raised ? visit_counts(img, c->gained, raise_counts, c, err)
                     : q2_fail_memory(err, sizeof(*c));
}

void q2_tree_take_back(struct q2_tree_change *c)
{
    q2_counters_free(c->lost);
    c->lost = c->raised;
    c->raised = NULL;
}

int q2_tree_lower(struct q2_image *img, struct q2_tree_change *c, struct q2_error *err)
{
    int delta = -1;
    return visit_counts(img, c->lost, change_counts, &delta, err);
}

static void punch(struct q2_image *img, uint64_t offset, uint64_t n_bytes)
{
    struct q2_error ignored = Q2_ERROR_INIT; // the space stays, that is all
    if (!q2_overlap_any(img, offset, n_bytes))
        q2_io_discard(img->disk.file, offset, n_bytes, &ignored);
}

static int punch_free(struct q2_image *img, const void *block, uint64_t index,
                      uint64_t cluster, uint64_t n, uint64_t value, void *opaque,
                      struct q2_error *err)
{
    (void)value;
    (void)opaque;
    (void)err;
    for (uint64_t i = 0, run; i < n && block; i += run) {
        run = q2_refcount_next_used(img->refcounts, block, index + i, index + n) -
              (index + i);
        if (run > 0)
            punch(img, (cluster + i) << img->cluster_bits, run << img->cluster_bits);
        else
            run = q2_refcount_next_zero(img->refcounts, block, index + i, index + n) -
                  (index + i);
    }
    return 0;
}

void q2_tree_punch(struct q2_image *img, struct q2_tree_change *c)
{
    struct q2_error ignored = Q2_ERROR_INIT;
    if (img->pass_discard[Q2_FREE_SNAPSHOT])
        visit_counts(img, c->lost, punch_free, NULL, &ignored);
}

// --- COPIED flags --------------------------------------------------------------------

static bool may_be_copied(const struct q2_l2_entry *e)
{
    return e->host_offset != 0 && e->kind != Q2_CLUSTER_COMPRESSED;
}

static int clear_flags(struct q2_image *img, struct q2_tree_table *t, uint64_t *l2,
                       bool *changed, void *opaque, struct q2_error *err)
{
    (void)t;
    (void)opaque;
    (void)err;
    for (uint64_t i = 0; i < img->cluster_size / 8; i += q2_tree_stride(img)) {
        *changed = *changed || (l2[i] & Q2_FLAG_COPIED) != 0;
        l2[i] &= ~Q2_FLAG_COPIED;
    }
    return 0;
}

int q2_tree_clear_copied(struct q2_image *img, const struct q2_tree_change *c,
                         struct q2_error *err)
{
    size_t n = 0;
    struct q2_tree_table *tables = malloc((c->n_tables + 1) * sizeof(*tables));
    if (!tables)
        return q2_fail_memory(err, c->n_tables * sizeof(*tables));
    for (size_t i = 0; i < c->n_tables; i++) {
        if (c->tables[i].copied && c->tables[i].gained > 0)
            tables[n++] = c->tables[i];
    }
    int ret = q2_tree_walk(img, tables, n, clear_flags, NULL, NULL, err);
    free(tables);
    return ret;
}

static int note_single(struct q2_image *img, const void *block, uint64_t index,
                       uint64_t cluster, uint64_t n, uint64_t value, void *opaque,
                       struct q2_error *err)
{
    struct q2_counters *single = opaque;
    int ret = 0;
    (void)value;
    for (uint64_t i = 0, run; i < n && block && ret == 0; i += run) {
        bool one = img->refcounts->get(block, index + i) == 1;
        run = run_length(img, block, index + i, n - i);
        if (one)
            ret = q2_counters_add(single, cluster + i, run, 1, err);
    }
    return ret;
}

static int set_flags(struct q2_image *img, struct q2_tree_table *t, uint64_t *l2,
                     bool *changed, void *opaque, struct q2_error *err)
{
    const struct q2_counters *single = opaque;
    (void)t;
    (void)err;
    for (uint64_t i = 0; i < img->cluster_size / 8; i += q2_tree_stride(img)) {
        if (l2[i] == 0 || (l2[i] & Q2_FLAG_COPIED) != 0)
            continue;
        struct q2_l2_entry e =
            q2_l2_decode(l2[i], img->cluster_bits, img->header.version);
        if (!may_be_copied(&e) ||
            q2_counters_get(single, e.host_offset >> img->cluster_bits) == 0)
            continue;
        l2[i] |= Q2_FLAG_COPIED;
        *changed = true;
    }
    return 0;
}

static void set_l1_flags(struct q2_image *img, const struct q2_counters *single)
{
    for (uint64_t i = 0; i < img->l1_size; i++) {
        uint64_t offset = img->l1[i] & Q2_OFFSET_MASK;
        if (offset == 0 || (img->l1[i] & Q2_FLAG_COPIED) != 0 ||
            q2_counters_get(single, offset >> img->cluster_bits) == 0)
            continue;
        img->l1[i] |= Q2_FLAG_COPIED;
        q2_span_add(&img->l1_dirty, i);
    }
}

int q2_tree_set_copied(struct q2_image *img, struct q2_tree_change *c,
                       struct q2_error *err)
{
    struct q2_tree_change active = {0};
    struct q2_counters *single = q2_counters_new();
    int ret = single ? 0 : q2_fail_memory(err, sizeof(active));
    if (ret == 0)
        ret = visit_counts(img, c->lost, note_single, single, err);
    if (ret == 0 && q2_counters_any(single, 0, (img->data_end >> img->cluster_bits) + 1))
        ret = q2_tree_add_l1(img, &active, img->l1, img->l1_size, true, err);
    if (ret == 0) {
        q2_tree_sort(&active);
        ret = q2_tree_walk(img, active.tables, active.n_tables, set_flags, single, NULL,
                           err);
    }
    if (ret == 0)
        set_l1_flags(img, single);
    q2_tree_clear(&active);
    q2_counters_free(single);
    return ret;
}
