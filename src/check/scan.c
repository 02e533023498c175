// SPDX-License-Identifier: MIT
// A scan from its beginning to its end, and what all scanners need.
#include "check/scan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "check/uses.h"

// Refcount blocks are mostly asked for in order; the larger cache is for images in which
// they are read again and again.
#define BLOCK_CACHE_BYTES (UINT64_C(512) << 10)
#define LARGE_BLOCK_CACHE_BYTES (UINT64_C(4) << 20)

void q2_scan_shrink(struct q2_scan *s)
{
    for (unsigned i = 0; i < s->n_snapshots; i++)
        q2_snapshot_clear(&s->snapshots[i]);
    for (unsigned i = 0; i < s->n_l1s; i++)
        free(s->l1s[i].entries);
    free(s->snapshots);
    free(s->snapshot_offsets);
    free(s->l1s);
    for (size_t i = 0; i < s->n_bitmap_names; i++)
        free(s->bitmap_names[i]);
    free(s->bitmap_names);
    free(s->refcount_table);
    free(s->findings.list);
    free(s->late.list);
    free(s->suspects);
    free(s->orphans);
    free(s->streams);
    free(s->preclaimed);
    free(s->referrers);
    q2_counters_free(s->hunted);
    q2_cache_free(s->blocks);
    q2_counters_free(s->references);
    q2_counters_free(s->metadata);
    q2_counters_free(s->tables);
    q2_counters_free(s->dangling);
    struct q2_scan kept = {
        .io = s->io,
        .header = s->header,
        .cluster_bits = s->cluster_bits,
        .cluster_size = s->cluster_size,
        .corruptions = s->corruptions,
        .leaks = s->leaks,
        .check_errors = s->check_errors,
        .total_clusters = s->total_clusters,
        .allocated_clusters = s->allocated_clusters,
        .fragmented_clusters = s->fragmented_clusters,
        .compressed_clusters = s->compressed_clusters,
        .highest_cluster = s->highest_cluster,
    };
    *s = kept;
}

void q2_scan_clear(struct q2_scan *s)
{
    q2_scan_shrink(s);
    q2_header_clear(&s->header);
    *s = (struct q2_scan){0};
}

int q2_scan_grow(void **list, size_t *max, size_t n, size_t item, struct q2_error *err)
{
    if (n < *max)
        return 0;
    size_t more = *max ? *max * 2 : 32;
    void *p = realloc(*list, more * item);
    if (!p)
        return q2_fail_memory(err, more * item);
    *list = p;
    *max = more;
    return 0;
}

void q2_scan_end_with_disk(const struct q2_scan *s, struct q2_finding *f)
{
    uint64_t size = s->header.size;
    if ((f->has & Q2_HAS_GUEST) && f->snapshot < 0 && f->guest_offset < size &&
        f->guest_bytes > size - f->guest_offset)
        f->guest_bytes = size - f->guest_offset;
}

static bool keep_finding(struct q2_scan *s, struct q2_findings *to,
                         const struct q2_finding *f)
{
    struct q2_error ignored = Q2_ERROR_INIT; // large: not made for those that are counted
    void *list = to->list;
    if (q2_scan_grow(&list, &to->max, to->n, sizeof(*to->list), &ignored) < 0)
        return false;
    to->list = list;
    to->list[to->n] = *f;
    q2_scan_end_with_disk(s, &to->list[to->n++]);
    return true;
}

size_t q2_scan_report(struct q2_scan *s, struct q2_findings *to,
                      const struct q2_finding *f)
{
    uint64_t n = f->has & Q2_HAS_CLUSTER ? f->count : 1;
    if (q2_problem_info(f->problem)->severity == Q2_SEVERITY_LEAK)
        s->leaks += n;
    else
        s->corruptions += n;
    if (to->n >= Q2_MAX_FINDINGS)
        return SIZE_MAX;
    if (!keep_finding(s, to, f)) {
        s->check_errors++; // it is counted, but cannot be told
        return SIZE_MAX;
    }
    return to->n - 1;
}

int q2_scan_suspect(struct q2_scan *s, const struct q2_suspect *suspect,
                    struct q2_error *err)
{
    void *list = s->suspects;
    if (s->n_suspects >= Q2_MAX_FINDINGS)
        return 0;
    int ret =
        q2_scan_grow(&list, &s->max_suspects, s->n_suspects, sizeof(*s->suspects), err);
    if (ret < 0)
        return ret;
    s->suspects = list;
    s->suspects[s->n_suspects++] = *suspect;
    return 0;
}

bool q2_scan_in_file(const struct q2_scan *s, uint64_t offset, uint64_t n_bytes)
{
    uint64_t end;
    if (!q2_add_u64(offset, n_bytes, &end) || end >= s->file_size + s->cluster_size)
        return false;
    uint64_t last = n_bytes > 0 ? (end - 1) >> s->cluster_bits : 0;
    if (!s->bounds || last < s->bounds->file_clusters)
        return true;
    for (uint64_t c = q2_max_u64(offset >> s->cluster_bits, s->bounds->file_clusters);
         c <= last; c++) {
        if (q2_counters_get(s->bounds->appended, c) == 0)
            return false;
    }
    return true;
}

uint64_t q2_scan_end(const struct q2_scan *s, uint64_t offset)
{
    uint64_t cluster = offset >> s->cluster_bits;
    bool whole = !s->bounds || q2_counters_get(s->bounds->appended, cluster) > 0;
    return whole ? s->file_size : q2_min_u64(s->file_size, s->bounds->file_size);
}

// So many clusters behind the end are of interest: a repair adds no more.
#define DANGLING_CLUSTERS 65536U

int q2_scan_dangles(struct q2_scan *s, uint64_t offset, uint64_t n_bytes,
                    struct q2_error *err)
{
    uint64_t first = offset >> s->cluster_bits;
    uint64_t limit = 2 * s->file_clusters + DANGLING_CLUSTERS;
    if (n_bytes == 0 || first >= limit)
        return 0;
    uint64_t last = q2_min_u64((offset + n_bytes - 1) >> s->cluster_bits, limit);
    return q2_counters_add(s->dangling, first, last - first + 1, 1, err);
}

int q2_scan_reference(struct q2_scan *s, uint64_t offset, uint64_t n_bytes,
                      uint64_t times, struct q2_error *err)
{
    if (n_bytes == 0)
        return 0;
    uint64_t first = offset >> s->cluster_bits;
    uint64_t last = (offset + n_bytes - 1) >> s->cluster_bits;
    return q2_counters_add(s->references, first, last - first + 1, times, err);
}

int q2_scan_claim(struct q2_scan *s, uint64_t offset, uint64_t n_bytes,
                  struct q2_error *err)
{
    if (n_bytes == 0)
        return 0;
    uint64_t first = offset >> s->cluster_bits;
    uint64_t last = (offset + n_bytes - 1) >> s->cluster_bits;
    return q2_counters_add(s->metadata, first, last - first + 1, 1, err);
}

bool q2_scan_is_metadata(const struct q2_scan *s, uint64_t offset, uint64_t n_bytes)
{
    uint64_t first = offset >> s->cluster_bits;
    uint64_t last = (offset + n_bytes - 1) >> s->cluster_bits;
    return q2_counters_any(s->metadata, first, last - first + 1);
}

int q2_scan_block(struct q2_scan *s, uint64_t cluster, struct q2_table **out,
                  struct q2_error *err)
{
    unsigned block_bits = s->cluster_bits + 3 - s->format->order;
    uint64_t index = cluster >> block_bits;
    *out = NULL;
    if (!s->refcount_table || index >= s->refcount_table_size)
        return 0;
    uint64_t offset = s->refcount_table[index] & Q2_OFFSET_MASK;
    if (offset == 0 || !q2_is_aligned(offset, s->cluster_size) || offset >= s->file_size)
        return 0;
    if (q2_cache_full(s->blocks))
        q2_cache_trim(s->blocks);
    if (!q2_cache_holds(s->blocks, offset) &&
        s->n_block_reads++ == 2 * s->refcount_table_size)
        q2_cache_set_size(s->blocks, LARGE_BLOCK_CACHE_BYTES);
    return q2_cache_get(s->blocks, s->io, offset, "refcount block", out, err);
}

int q2_scan_stored(struct q2_scan *s, uint64_t cluster, uint64_t *value,
                   struct q2_error *err)
{
    struct q2_table *t;
    unsigned block_bits = s->cluster_bits + 3 - s->format->order;
    int ret = q2_scan_block(s, cluster, &t, err);
    *value = 0;
    if (ret == 0 && t)
        *value = s->format->get(t->data, cluster & ((UINT64_C(1) << block_bits) - 1));
    return ret;
}

bool q2_scan_are_ones(const struct q2_scan *s, const struct q2_table *t, uint64_t i,
                      uint64_t n)
{
    const uint8_t *bytes = t->data;
    uint64_t bits = n << s->format->order, begin = i << s->format->order;
    return (bits | begin) % 8 == 0 && bits / 8 <= sizeof(s->ones) &&
           memcmp(bytes + begin / 8, s->ones, q2_to_size(bits / 8)) == 0;
}

int q2_scan_stored_ones(struct q2_scan *s, uint64_t cluster, uint64_t n, bool *yes,
                        struct q2_error *err)
{
    struct q2_table *t;
    unsigned block_bits = s->cluster_bits + 3 - s->format->order;
    uint64_t i = cluster & ((UINT64_C(1) << block_bits) - 1);
    int ret = q2_scan_block(s, cluster, &t, err);
    *yes = ret == 0 && t && i + n <= UINT64_C(1) << block_bits &&
           q2_scan_are_ones(s, t, i, n);
    return ret;
}

int q2_scan_worked(struct q2_scan *s, uint64_t n_bytes, struct q2_error *err)
{
    s->work = q2_min_u64(s->work + n_bytes, s->work_total);
    q2_monitor_progress(s->mon, s->work, s->work_total);
    if (q2_monitor_cancelled(s->mon))
        return q2_fail(err, -ECANCELED, "The check was stopped");
    if (s->enough > 0 && s->corruptions >= s->enough)
        return q2_fail(err, -EUCLEAN, "More is wrong than is worth looking at");
    return 0;
}

int q2_scan_header(struct q2_io *io, struct q2_header *header, struct q2_error *err)
{
    uint8_t start[Q2_HEADER_V3_MIN_BYTES];
    uint64_t file_size;
    int ret = q2_io_get_size(io, &file_size, err);
    if (ret == 0)
        ret = q2_io_read(io, 0, start, sizeof(start), err);
    if (ret < 0)
        return ret;
    size_t n =
        (size_t)q2_min_u64(file_size, q2_header_bytes_needed(start, sizeof(start)));
    uint8_t *buf = malloc(n > 0 ? n : 1);
    if (!buf)
        return q2_fail_memory(err, n);
    ret = q2_io_read(io, 0, buf, n, err);
    if (ret == 0)
        ret = q2_header_decode(buf, n, header, err);
    free(buf);
    return ret;
}

static int prepare(struct q2_scan *s, struct q2_error *err)
{
    int ret = q2_io_get_size(s->io, &s->file_size, err);
    if (ret == 0)
        ret = q2_scan_header(s->io, &s->header, err);
    if (ret < 0)
        return ret;
    const struct q2_header *h = &s->header;
    s->cluster_bits = h->cluster_bits;
    s->cluster_size = UINT32_C(1) << h->cluster_bits;
    s->extended = (h->incompatible_features & Q2_INCOMPAT_EXTENDED_L2) != 0;
    s->data_file = (h->incompatible_features & Q2_INCOMPAT_DATA_FILE) != 0;
    s->zero_flag = h->version >= 3 && !s->extended;
    s->l2_words = s->extended ? 2 : 1;
    s->data = s->io;
    if (s->data_file)
        s->data = s->read_data ? s->read_data->file : NULL;
    s->l2_bits = h->cluster_bits - (s->extended ? 4 : 3);
    s->file_clusters = q2_div_round_up(s->file_size, s->cluster_size);
    s->format = q2_refcount_format(h->refcount_order);
    q2_refcount_fill(s->format, s->ones, 0, (sizeof(s->ones) * 8) >> h->refcount_order,
                     1);
    s->total_clusters = q2_div_round_up(h->size, s->cluster_size);
    s->references = q2_counters_new();
    s->metadata = q2_counters_new_scattered();
    s->tables = q2_counters_new_scattered();
    s->dangling = q2_counters_new_scattered();
    s->blocks = q2_cache_new(Q2_CACHE_RAW, s->cluster_size, BLOCK_CACHE_BYTES);
    if (!s->references || !s->metadata || !s->tables || !s->dangling || !s->blocks)
        return q2_fail_memory(err, sizeof(*s));
    return 0;
}

// The order is that of the claims: what the header names, then tables, then data.
static int scan_mapped(struct q2_scan *s, struct q2_error *err)
{
    int ret = prepare(s, err);
    if (ret == 0)
        ret = q2_scan_load_refcount_table(s, err);
    if (ret == 0)
        ret = q2_scan_active(s, err);
    if (ret == 0)
        ret = q2_scan_snapshots(s, err);
    if (ret == 0)
        ret = q2_scan_snapshot_tables(s, err);
    if (ret == 0)
        ret = q2_scan_mapping(s, err);
    return ret < 0 ? ret : q2_scan_bitmaps(s, err);
}

// Flags are told in guest order, a table's before those in it, as QEMU does.
static int by_guest_offset(const void *a, const void *b)
{
    const struct q2_finding *x = a, *y = b;
    if (x->guest_offset != y->guest_offset)
        return x->guest_offset < y->guest_offset ? -1 : 1;
    return (y->problem == Q2_PROBLEM_COPIED_L2) - (x->problem == Q2_PROBLEM_COPIED_L2);
}

static int scan_all(struct q2_scan *s, struct q2_error *err)
{
    int ret = scan_mapped(s, err);
    if (ret == 0)
        ret = q2_scan_refcount_table(s, err);
    if (ret == 0)
        ret = q2_scan_compare(s, err);
    if (ret == 0)
        ret = s->hunted ? q2_scan_misdirected(s, err) : q2_scan_hunt(s, err);
    if (ret == 0)
        ret = q2_scan_resolve(s, err);
    if (s->late.n > 1)
        qsort(s->late.list, s->late.n, sizeof(*s->late.list), by_guest_offset);
    return ret;
}

int q2_scan_references(struct q2_scan *s, struct q2_io *io,
                       const struct q2_scan_bounds *bounds, const struct q2_monitor *mon,
                       struct q2_error *err)
{
    *s = (struct q2_scan){.io = io, .bounds = bounds, .mon = mon};
    int ret = scan_mapped(s, err);
    if (ret < 0)
        q2_scan_clear(s);
    return ret;
}

// Starts over, knowing what must be claimed first.
static void restart(struct q2_scan *s)
{
    struct q2_scan fresh = {.io = s->io,
                            .bounds = s->bounds,
                            .mon = s->mon,
                            .read_data = s->read_data,
                            .uses = s->uses,
                            .inflate = s->inflate,
                            .enough = s->enough,
                            .no_hollow_tables = s->no_hollow_tables,
                            .disbelieved = s->disbelieved,
                            .preclaimed = s->preclaimed,
                            .n_preclaimed = s->n_preclaimed,
                            .max_preclaimed = s->max_preclaimed,
                            .hunted = s->hunted};
    s->preclaimed = NULL;
    s->hunted = NULL;
    q2_scan_clear(s);
    *s = fresh;
    if (s->uses)
        q2_scan_uses_reset(s->uses);
}

// Could any damaged entry's value not be found?
static bool has_losses(const struct q2_scan *s)
{
    for (size_t i = 0; i < s->n_suspects; i++) {
        size_t k = s->suspects[i].finding;
        if (k != SIZE_MAX && s->findings.list[k].lossy)
            return true;
    }
    return false;
}

// What a scan's view of the image costs: what would be lost of the active state, of all,
// and how much is wrong.
struct cost {
    uint64_t active, all, wrong;
};

static struct cost cost_of(const struct q2_scan *s)
{
    struct cost c = {.wrong = s->corruptions + s->surplus};
    for (size_t i = 0; i < s->findings.n; i++) {
        c.active += s->findings.list[i].lossy && s->findings.list[i].snapshot < 0;
        c.all += s->findings.list[i].lossy;
    }
    return c;
}

static bool loses_less(const struct cost *a, const struct cost *b)
{
    return a->active != b->active ? a->active < b->active : a->all < b->all;
}

static bool is_cheaper(const struct cost *a, const struct cost *b)
{
    if (a->active == b->active && a->all == b->all)
        return a->wrong < b->wrong;
    return loses_less(a, b);
}

// An active L1 entry and a snapshot claim one place: the view that loses less is right.
static int settle_contest(struct q2_scan *s, struct q2_error *err)
{
    uint64_t cluster = s->contested;
    struct cost before = cost_of(s);
    int ret = q2_scan_preclaim(s, cluster, err);
    if (ret < 0)
        return ret;
    restart(s);
    ret = scan_all(s, err);
    if (ret < 0)
        return ret;
    struct cost after = cost_of(s);
    if (is_cheaper(&after, &before))
        return 0;
    s->n_preclaimed--; // the newest
    restart(s);
    return scan_all(s, err);
}

// So many snapshots are doubted, one after the other.
#define MAX_DOUBTED 8U

// Snapshots with damage in their L1 tables; the first MAX_DOUBTED of them.
static unsigned list_doubtful(const struct q2_scan *s, unsigned out[MAX_DOUBTED])
{
    unsigned n = 0;
    for (size_t i = 0; i < s->findings.n && n < MAX_DOUBTED; i++) {
        const struct q2_finding *f = &s->findings.list[i];
        bool in_snapshot = (f->has & Q2_HAS_SNAPSHOT) && f->snapshot >= 0 &&
                           (f->in_l1 || f->problem == Q2_PROBLEM_SNAPSHOT_FIELD);
        for (unsigned k = 0; k < n && in_snapshot; k++)
            in_snapshot = out[k] != (unsigned)f->snapshot + 1;
        if (in_snapshot)
            out[n++] = (unsigned)f->snapshot + 1;
    }
    return n;
}

// Would less be lost if a snapshot's L1 table, as it is named, were none? What is wrong
// beside that is no reason: without a snapshot fewer refcounts are too low.
static int doubt_snapshots(struct q2_scan *s, struct q2_error *err)
{
    unsigned list[MAX_DOUBTED], n = list_doubtful(s, list), best = 0;
    struct cost least = cost_of(s);
    int ret = 0;
    if (least.all == 0 || n == 0)
        return 0;
    for (unsigned i = 0; i <= n && ret == 0; i++) {
        unsigned last = s->disbelieved;
        s->disbelieved = i < n ? list[i] : best;
        if (i == n && last == best)
            break;
        restart(s);
        ret = scan_all(s, err);
        struct cost c = cost_of(s);
        if (i < n && loses_less(&c, &least)) {
            least = c;
            best = list[i];
        }
    }
    return ret;
}

static int run(struct q2_scan *s, bool for_repair, struct q2_error *err)
{
    const struct q2_monitor *mon = s->mon;
    int ret = scan_all(s, err);
    // Counts that do not fit, and compressed clusters: one of these may lead astray.
    if (ret == 0 && for_repair && s->compressed_clusters + s->n_packed > 0 &&
        !q2_scan_clean(s))
        s->again = s->inflate = true;
    if (ret == 0 && s->again) {
        restart(s);
        ret = scan_all(s, err);
    }
    if (ret == 0 && s->contested)
        ret = settle_contest(s, err);
    if (ret == 0 && for_repair && !q2_scan_clean(s))
        ret = doubt_snapshots(s, err);
    // L2 tables without a sound entry, and more is lost than these entries could name.
    if (ret == 0 && q2_scan_hollow(s) && has_losses(s)) {
        s->no_hollow_tables = true;
        restart(s);
        ret = scan_all(s, err);
    }
    // Entries that are right although their data is broken count as references.
    if (ret == 0 && s->inflate && s->keep_packed) {
        s->inflate = false;
        restart(s);
        ret = scan_all(s, err);
    }
    if (ret == 0 && q2_monitor_cancelled(mon))
        ret = q2_fail(err, -ECANCELED, "The check was stopped");
    // Half of what is wrong is no plan.
    if (ret == 0 && for_repair && s->check_errors > 0)
        ret = q2_fail_memory(err, sizeof(*s->findings.list));
    if (ret < 0)
        q2_scan_clear(s);
    return ret;
}

int q2_scan_run(struct q2_scan *s, struct q2_io *io, const struct q2_scan_data *data,
                const struct q2_monitor *mon, struct q2_error *err)
{
    *s = (struct q2_scan){.io = io, .mon = mon, .read_data = data};
    return run(s, false, err);
}

int q2_scan_run_until(struct q2_scan *s, struct q2_io *io,
                      const struct q2_scan_data *data, uint64_t enough,
                      const struct q2_monitor *mon, struct q2_error *err)
{
    *s = (struct q2_scan){.io = io, .mon = mon, .read_data = data, .enough = enough};
    return run(s, false, err);
}

int q2_scan_run_uses(struct q2_scan *s, struct q2_io *io, struct q2_scan_uses *uses,
                     const struct q2_monitor *mon, struct q2_error *err)
{
    *s = (struct q2_scan){.io = io, .mon = mon, .uses = uses};
    return run(s, false, err);
}

int q2_scan_for_repair(struct q2_scan *s, struct q2_io *io,
                       const struct q2_scan_bounds *bounds, bool inflate,
                       const struct q2_monitor *mon, struct q2_error *err)
{
    *s = (struct q2_scan){.io = io, .bounds = bounds, .mon = mon, .inflate = inflate};
    return run(s, true, err);
}
