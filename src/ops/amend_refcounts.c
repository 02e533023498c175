// SPDX-License-Identifier: MIT
// Another width for refcounts: a new refcount table and new blocks are built beside the
// old ones.
//
// The sequence: room for the new structures is found in the counts in memory, which are
// never written back; new blocks and the new table go to clusters that were free, or
// behind the end of the file, and are flushed; then one write in the header's first
// sector changes place and width at once. Before it the old structures count, and what
// was written lies in free clusters. After it the new ones do, in which the clusters of
// the old ones are free already. So a power cut leaves no leak either.
#include "ops/amend_steps.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include <string.h>

#include "base/checked.h"
#include "image/metadata.h"

#define WRITE_BYTES (UINT32_C(4) << 20)
// Blocks for clusters behind the end of the file that are put up with.
#define MAX_BLOCKS_BEHIND 4096U

struct list {
    uint64_t *values;
    size_t n, max;
};

struct rebuild {
    struct q2_image *img;
    const struct q2_refcount_format *to;
    unsigned block_bits; // clusters that a new block describes, log2
    struct list indexes; // of the new blocks that there must be, ascending
    struct list places;  // their host offsets
    struct list gone;    // clusters of the old structures, ascending
    uint64_t table_offset, table_clusters;
    uint64_t file_size; // before
    const struct q2_monitor *mon;
};

static int append(struct list *l, uint64_t value, struct q2_error *err)
{
    if (l->n == l->max) {
        size_t max = l->max ? l->max * 2 : 256;
        uint64_t *values = realloc(l->values, max * sizeof(*values));
        if (!values)
            return q2_fail_memory(err, max * sizeof(*values));
        l->values = values;
        l->max = max;
    }
    l->values[l->n++] = value;
    return 0;
}

// --- the old counts ------------------------------------------------------------------

// Given an old block and the first cluster that it describes.
typedef int (*visit_block)(void *opaque, uint64_t first_cluster, const void *block,
                           struct q2_error *err);

static int visit_blocks(struct q2_image *img, visit_block visit, void *opaque,
                        struct q2_error *err)
{
    for (uint64_t i = 0; i < img->refcount_table_size; i++) {
        struct q2_table *t;
        uint64_t first = i << q2_refcount_block_bits(img);
        if (img->refcount_table[i] == 0)
            continue;
        int ret = q2_refcount_block(img, first, &t, err);
        if (ret == 0)
            ret = visit(opaque, first, t->data, err);
        if (ret < 0)
            return ret;
        if (q2_cache_full(img->refcount_cache))
            q2_cache_trim(img->refcount_cache);
    }
    return 0;
}

struct fitting {
    const struct q2_image *img;
    const struct q2_refcount_format *to;
};

static int fit_block(void *opaque, uint64_t first_cluster, const void *block,
                     struct q2_error *err)
{
    const struct fitting *f = opaque;
    const struct q2_refcount_format *from = f->img->refcounts;
    uint64_t n = UINT64_C(1) << q2_refcount_block_bits(f->img);
    for (uint64_t i = q2_refcount_next_used(from, block, 0, n); i < n;
         i = q2_refcount_next_used(from, block, i + 1, n)) {
        uint64_t count = from->get(block, i);
        if (count > f->to->max)
            return q2_fail(err, -EINVAL,
                           "Cannot decrease refcount entry width to %u bits: Cluster at "
                           "offset 0x%" PRIx64 " has a refcount of %" PRIu64,
                           1U << f->to->order,
                           (first_cluster + i) << f->img->cluster_bits, count);
    }
    return 0;
}

int q2_amend_fit_refcounts(struct q2_image *img, unsigned order, struct q2_error *err)
{
    struct fitting f = {.img = img, .to = q2_refcount_format(order)};
    return f.to->max >= img->refcounts->max ? 0 : visit_blocks(img, fit_block, &f, err);
}

// --- room for the new structures -----------------------------------------------------

// Nothing of a sound image lies far behind its end; a table of nonsense is not rebuilt.
static int check_bound(const struct rebuild *r, struct q2_error *err)
{
    uint64_t end = q2_max_u64(r->img->data_end, r->file_size) >> r->img->cluster_bits;
    if (r->indexes.n <= (end >> r->block_bits) + MAX_BLOCKS_BEHIND)
        return 0;
    return q2_fail(
        err, -EFBIG,
        "The refcounts name clusters far beyond the end of the file; check the "
        "image first");
}

static int need_block(struct rebuild *r, uint64_t index, struct q2_error *err)
{
    struct list *l = &r->indexes;
    if (l->n > 0 && l->values[l->n - 1] == index)
        return 0;
    int ret = append(l, index, err);
    return ret < 0 ? ret : check_bound(r, err);
}

// Which new blocks take up what is in this old one.
static int count_block(void *opaque, uint64_t first_cluster, const void *block,
                       struct q2_error *err)
{
    struct rebuild *r = opaque;
    uint64_t n = UINT64_C(1) << q2_refcount_block_bits(r->img);
    uint64_t step = q2_min_u64(n, UINT64_C(1) << r->block_bits);
    int ret = 0;
    for (uint64_t i = 0; i < n && ret == 0; i += step) {
        if (q2_refcount_next_used(r->img->refcounts, block, i, i + step) < i + step)
            ret = need_block(r, (first_cluster + i) >> r->block_bits, err);
    }
    return ret;
}

static int add_places(struct rebuild *r, uint64_t n, struct q2_error *err)
{
    uint64_t at;
    int ret = q2_alloc_exact(r->img, n, "refcount block", &at, err);
    for (uint64_t i = 0; i < n && ret == 0; i++)
        ret = append(&r->places, at + (i << r->img->cluster_bits), err);
    return ret;
}

static int place_table(struct rebuild *r, uint64_t n_clusters, struct q2_error *err)
{
    int ret = 0;
    if (n_clusters << r->img->cluster_bits > Q2_MAX_REFCOUNT_TABLE_BYTES)
        return q2_fail(err, -EFBIG,
                       "Cannot change the refcount width to %u bits: the refcount table "
                       "would be larger than %u bytes",
                       1U << r->to->order, Q2_MAX_REFCOUNT_TABLE_BYTES);
    if (r->table_clusters > 0)
        ret = q2_refcount_add(r->img, r->table_offset >> r->img->cluster_bits,
                              r->table_clusters, -1, err);
    r->table_clusters = n_clusters;
    return ret < 0 ? ret
                   : q2_alloc_exact(r->img, n_clusters, "refcount table",
                                    &r->table_offset, err);
}

// What is given a place needs counts itself, and perhaps blocks for them: until all is
// described.
static int find_room(struct rebuild *r, struct q2_error *err)
{
    for (;;) {
        r->indexes.n = 0;
        int ret = visit_blocks(r->img, count_block, r, err);
        if (ret < 0)
            return ret;
        size_t n = r->indexes.n;
        uint64_t entries = n > 0 ? r->indexes.values[n - 1] + 1 : 1;
        uint64_t clusters = q2_div_round_up(entries * 8, r->img->cluster_size);
        if (clusters > r->table_clusters)
            ret = place_table(r, clusters, err);
        else if (n > r->places.n)
            ret = add_places(r, n - r->places.n, err);
        else
            return 0;
        if (ret < 0)
            return ret;
    }
}

// --- what becomes free ---------------------------------------------------------------

static int leave_run(struct rebuild *r, uint64_t host_offset, uint64_t n,
                     struct q2_error *err)
{
    int ret = 0;
    for (uint64_t i = 0; i < n && ret == 0; i++)
        ret = append(&r->gone, (host_offset >> r->img->cluster_bits) + i, err);
    return ret;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

// The clusters of the old structures, in memory or in the file, and places that turned
// out not to be needed.
static int list_gone(struct rebuild *r, struct q2_error *err)
{
    const struct q2_image *img = r->img;
    int ret = leave_run(r, img->header.refcount_table_offset,
                        img->header.refcount_table_clusters, err);
    if (ret == 0 && img->refcount_table_moved)
        ret = leave_run(r, img->old_refcount_table_offset,
                        img->old_refcount_table_clusters, err);
    for (uint64_t i = 0; i < img->refcount_table_size && ret == 0; i++) {
        if (img->refcount_table[i] != 0)
            ret = leave_run(r, img->refcount_table[i], 1, err);
    }
    for (size_t i = r->indexes.n; i < r->places.n && ret == 0; i++)
        ret = leave_run(r, r->places.values[i], 1, err);
    if (r->gone.n > 0)
        qsort(r->gone.values, r->gone.n, sizeof(uint64_t), by_value);
    return ret;
}

// --- building ------------------------------------------------------------------------

// Copies the counts of clusters first .. first+n, which one old block describes.
static int copy_counts(struct rebuild *r, uint64_t first, uint64_t n, uint64_t to_index,
                       void *block, struct q2_error *err)
{
    const struct q2_refcount_format *from = r->img->refcounts;
    struct q2_table *t;
    int ret = q2_refcount_block(r->img, first, &t, err);
    if (ret < 0 || !t)
        return ret;
    uint64_t start = first & ((UINT64_C(1) << q2_refcount_block_bits(r->img)) - 1);
    uint64_t end = start + n;
    for (uint64_t i = q2_refcount_next_used(from, t->data, start, end); i < end;
         i = q2_refcount_next_used(from, t->data, i + 1, end)) {
        uint64_t count = from->get(t->data, i);
        if (count > r->to->max)
            return q2_fail(err, -EINVAL,
                           "The refcount %" PRIu64 " does not fit in %u bits", count,
                           1U << r->to->order);
        r->to->set(block, to_index + (i - start), count);
    }
    return 0;
}

// Takes the references of the old structures away; *at goes through the sorted list.
static int leave_old(struct rebuild *r, uint64_t first, uint64_t n, size_t *at,
                     void *block, struct q2_error *err)
{
    for (; *at < r->gone.n && r->gone.values[*at] < first + n; ++*at) {
        uint64_t cluster = r->gone.values[*at];
        uint64_t count = cluster < first ? 0 : r->to->get(block, cluster - first);
        if (count == 0)
            return q2_fail(err, -EIO,
                           "'%s': host cluster %" PRIu64
                           " holds refcounts but has no reference; check the image first",
                           r->img->disk.path, cluster);
        r->to->set(block, cluster - first, count - 1);
    }
    return 0;
}

static int build_block(struct rebuild *r, uint64_t index, size_t *gone, void *block,
                       struct q2_error *err)
{
    uint64_t first = index << r->block_bits, n = UINT64_C(1) << r->block_bits;
    uint64_t step = q2_min_u64(n, UINT64_C(1) << q2_refcount_block_bits(r->img));
    int ret = 0;
    memset(block, 0, r->img->cluster_size);
    for (uint64_t i = 0; i < n && ret == 0; i += step)
        ret = copy_counts(r, first + i, step, i, block, err);
    if (q2_cache_full(r->img->refcount_cache))
        q2_cache_trim(r->img->refcount_cache);
    return ret < 0 ? ret : leave_old(r, first, n, gone, block, err);
}

// How many blocks from the i-th on go to neighbouring places, at most max.
static size_t run_length(const struct rebuild *r, size_t i, size_t max)
{
    size_t n = 1;
    while (n < max && i + n < r->indexes.n &&
           r->places.values[i + n] ==
               r->places.values[i] + ((uint64_t)n << r->img->cluster_bits))
        n++;
    return n;
}

static int build_blocks(struct rebuild *r, uint8_t *buf, size_t room,
                        struct q2_error *err)
{
    size_t gone = 0;
    int ret = 0;
    for (size_t i = 0; i < r->indexes.n && ret == 0;) {
        size_t n = run_length(r, i, room);
        for (size_t k = 0; k < n && ret == 0; k++)
            ret = build_block(r, r->indexes.values[i + k], &gone,
                              buf + (k << r->img->cluster_bits), err);
        if (ret == 0)
            ret = q2_io_write(r->img->disk.file, r->places.values[i], buf,
                              n << r->img->cluster_bits, err);
        i += n;
        q2_monitor_progress(r->mon, i, r->indexes.n);
        if (ret == 0 && q2_monitor_cancelled(r->mon))
            ret = q2_fail(err, -ECANCELED, "Interrupted");
    }
    return ret;
}

static int write_blocks(struct rebuild *r, struct q2_error *err)
{
    size_t room = q2_to_size(q2_max_u64(1, WRITE_BYTES >> r->img->cluster_bits));
    uint8_t *buf;
    if (posix_memalign((void **)&buf, 4096, room << r->img->cluster_bits) != 0)
        return q2_fail_memory(err, room << r->img->cluster_bits);
    int ret = build_blocks(r, buf, room, err);
    free(buf);
    return ret;
}

static int write_table(struct rebuild *r, uint64_t **out, struct q2_error *err)
{
    uint64_t n_bytes = r->table_clusters << r->img->cluster_bits;
    uint64_t *table = calloc(1, q2_to_size(n_bytes));
    uint8_t *encoded = malloc(q2_to_size(n_bytes));
    int ret = table && encoded ? 0 : q2_fail_memory(err, n_bytes);
    if (ret == 0) {
        for (size_t i = 0; i < r->indexes.n; i++)
            table[r->indexes.values[i]] = r->places.values[i];
        q2_table_encode(table, encoded, q2_to_size(n_bytes / 8));
        ret = q2_io_write(r->img->disk.file, r->table_offset, encoded,
                          q2_to_size(n_bytes), err);
    }
    if (ret == 0)
        ret = q2_io_flush(r->img->disk.file, err);
    free(encoded);
    if (ret < 0)
        free(table);
    else
        *out = table;
    return ret;
}

static int rebuild(struct rebuild *r, struct q2_error *err)
{
    uint64_t *table = NULL;
    int ret = find_room(r, err);
    if (ret == 0)
        ret = list_gone(r, err);
    if (ret < 0)
        return ret;
    ret = write_blocks(r, err);
    if (ret == 0)
        ret = write_table(r, &table, err);
    if (ret < 0) { // what was added behind the end is of no use
        struct q2_error ignored = Q2_ERROR_INIT;
        q2_io_set_size(r->img->disk.file, r->file_size, &ignored);
        return ret;
    }
    return q2_image_switch_refcounts(r->img, r->table_offset, (uint32_t)r->table_clusters,
                                     r->to->order, table, err);
}

int q2_amend_refcount_width(struct q2_image *img, unsigned order,
                            const struct q2_monitor *mon, struct q2_error *err)
{
    struct rebuild r = {.img = img,
                        .to = q2_refcount_format(order),
                        .block_bits = img->cluster_bits + 3 - order,
                        .mon = mon};
    int ret = q2_io_get_size(img->disk.file, &r.file_size, err);
    if (ret == 0)
        ret = rebuild(&r, err);
    free(r.indexes.values);
    free(r.places.values);
    free(r.gone.values);
    return ret;
}
