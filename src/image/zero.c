// SPDX-License-Identifier: MIT
// Making guest ranges read as zeros without writing them, where the format can say so.
#include "image/image.h"

#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"

// Real zeros are written in pieces of this size.
#define ZERO_PIECE_BYTES (UINT32_C(1) << 20)

// Does the guest range read as zeros without this layer's help?
static bool backing_is_zero(const struct q2_disk *d, uint64_t guest_offset)
{
    return !d->backing || guest_offset >= d->backing->size;
}

// Version 2 knows no zero clusters: there a cluster may only be dropped, where nothing
// shows through.
static bool can_mark(const struct q2_image *img)
{
    return img->header.version >= 3 || !q2_image_has_backing(img);
}

static uint64_t zero_entry(const struct q2_image *img, uint64_t old, unsigned flags)
{
    struct q2_l2_entry e = q2_l2_decode(old, img->cluster_bits, img->header.version);
    if (img->header.version < 3)
        return 0;
    bool has_cluster = e.kind == Q2_CLUSTER_NORMAL || e.kind == Q2_CLUSTER_ZERO_ALLOCATED;
    if (has_cluster && !(flags & Q2_ZERO_UNMAP))
        return old | Q2_FLAG_ZERO;
    return Q2_FLAG_ZERO;
}

// Marks n entries from index on; what they let go of is given back.
static int mark_entries(struct q2_image *img, struct q2_table *t, uint64_t index,
                        uint64_t n, const struct q2_marking *m, struct q2_error *err)
{
    uint64_t *l2 = t->data;
    for (uint64_t i = index; i < index + n; i++) {
        uint64_t raw = m->entry(img, l2[i], m->flags);
        if (raw == l2[i])
            continue;
        if ((raw & Q2_OFFSET_MASK) == 0) {
            int ret = q2_image_release_entry(img, l2[i], m->why, err);
            if (ret < 0)
                return ret;
        }
        l2[i] = raw;
        q2_cache_mark_dirty(img->l2_cache, t);
    }
    return 0;
}

// May unallocated clusters stay what they are? Version 2 has no other zeros.
static bool reads_zero_anyway(const struct q2_image *img, unsigned flags)
{
    return img->header.version < 3 ||
           ((flags & Q2_ZERO_UNMAP) && !q2_image_has_backing(img));
}

// Whole clusters inside one L2 table's range.
static int mark_in_table(struct q2_image *img, uint64_t guest_offset, uint64_t n_clusters,
                         const struct q2_marking *m, struct q2_error *err)
{
    struct q2_table *t;
    struct q2_run run;
    int ret = q2_image_trim(img, err);
    if (ret == 0)
        ret = q2_mapping_lookup(img, guest_offset, n_clusters << img->cluster_bits, &run,
                                err);
    if (ret < 0)
        return ret;
    // Nothing to drop and nothing to say: no table is made for it.
    if (m->keep_holes && run.kind == Q2_CLUSTER_UNALLOCATED &&
        run.n_bytes == n_clusters << img->cluster_bits)
        return 0;
    ret = q2_mapping_l2_for_write(img, guest_offset, &t, err);
    if (ret < 0)
        return ret;
    return mark_entries(img, t, q2_mapping_l2_index(img, guest_offset), n_clusters, m,
                        err);
}

int q2_image_mark_clusters(struct q2_image *img, uint64_t guest_offset, uint64_t n_bytes,
                           const struct q2_marking *m, struct q2_error *err)
{
    uint64_t span = q2_image_l2_span(img);
    int ret = 0;
    while (n_bytes > 0 && ret == 0) {
        uint64_t n = q2_min_u64(n_bytes, span - (guest_offset & (span - 1)));
        pthread_mutex_lock(&img->lock);
        ret = mark_in_table(img, guest_offset, q2_div_round_up(n, img->cluster_size), m,
                            err);
        pthread_mutex_unlock(&img->lock);
        guest_offset += n;
        n_bytes -= n;
    }
    return ret;
}

static int write_real_zeroes(struct q2_disk *d, uint64_t guest_offset, uint64_t n_bytes,
                             struct q2_error *err)
{
    size_t piece = (size_t)q2_min_u64(n_bytes, ZERO_PIECE_BYTES);
    void *zeros = calloc(1, piece > 0 ? piece : 1);
    int ret = zeros ? 0 : q2_fail_memory(err, piece);
    while (n_bytes > 0 && ret == 0) {
        size_t n = (size_t)q2_min_u64(n_bytes, piece);
        ret = q2_disk_put(d, guest_offset, zeros, n, err);
        guest_offset += n;
        n_bytes -= n;
    }
    free(zeros);
    return ret;
}

static int lookup(struct q2_image *img, uint64_t guest_offset, uint64_t n_bytes,
                  struct q2_run *run, struct q2_error *err)
{
    pthread_mutex_lock(&img->lock);
    int ret = q2_mapping_lookup(img, guest_offset, n_bytes, run, err);
    pthread_mutex_unlock(&img->lock);
    return ret;
}

static bool reads_zero(const struct q2_image *img, uint64_t guest_offset,
                       const struct q2_run *run)
{
    return run->kind == Q2_CLUSTER_ZERO || run->kind == Q2_CLUSTER_ZERO_ALLOCATED ||
           (run->kind == Q2_CLUSTER_UNALLOCATED &&
            backing_is_zero(&img->disk, guest_offset));
}

static int zero_run(struct q2_image *img, uint64_t guest_offset, uint64_t n_bytes,
                    uint64_t *n_done, struct q2_error *err)
{
    struct q2_run run;
    int ret = lookup(img, guest_offset, n_bytes, &run, err);
    if (ret < 0)
        return ret;
    *n_done = run.n_bytes;
    return reads_zero(img, guest_offset, &run)
               ? 0
               : write_real_zeroes(&img->disk, guest_offset, run.n_bytes, err);
}

// Where the format has no mark for it: what reads as zeros already is left alone.
static int zero_by_writing(struct q2_image *img, uint64_t guest_offset, uint64_t n_bytes,
                           struct q2_error *err)
{
    uint64_t n_done = 0;
    int ret = 0;
    for (uint64_t at = 0; at < n_bytes && ret == 0; at += n_done)
        ret = zero_run(img, guest_offset + at, n_bytes - at, &n_done, err);
    return ret;
}

// Does all of the cluster that begins at guest_offset read as zeros?
static int is_zero_cluster(struct q2_image *img, uint64_t guest_offset, bool *zero,
                           struct q2_error *err)
{
    struct q2_run run;
    uint64_t n = q2_min_u64(img->cluster_size, img->disk.size - guest_offset);
    int ret = lookup(img, guest_offset, n, &run, err);
    *zero = ret == 0 && run.n_bytes == n && reads_zero(img, guest_offset, &run);
    return ret;
}

// The clusters to mark for a request: those that it covers, and those at its ends whose
// rest is zeros, too. *first == *last: none.
static int whole_clusters(struct q2_image *img, uint64_t start, uint64_t end,
                          uint64_t *first, uint64_t *last, struct q2_error *err)
{
    uint64_t cluster = img->cluster_size;
    uint64_t below = q2_align_down(start, cluster), behind = q2_align_down(end, cluster);
    bool zero = below == start;
    int ret = zero ? 0 : is_zero_cluster(img, below, &zero, err);
    *first = zero ? below : below + cluster;
    if (ret < 0)
        return ret;
    // The disk's last cluster is whole when the request reaches the disk's end.
    zero = end == img->disk.size;
    if (!zero && behind < end)
        ret = is_zero_cluster(img, behind, &zero, err);
    *last = zero ? q2_min_u64(q2_align_up(end, cluster), img->disk.size) : behind;
    *last = q2_max_u64(*first, *last);
    return ret;
}

int q2_image_write_zeroes(struct q2_disk *d, uint64_t guest_offset, uint64_t n_bytes,
                          unsigned flags, struct q2_error *err)
{
    struct q2_image *img = q2_image_of(d);
    const struct q2_marking marking = {.entry = zero_entry,
                                       .flags = flags,
                                       .why = Q2_FREE_REQUEST,
                                       .keep_holes = reads_zero_anyway(img, flags)};
    uint64_t end = guest_offset + n_bytes, first, last;
    int ret = q2_image_refuse_write(img, false, err);
    if (ret < 0)
        return ret;
    if (!can_mark(img))
        return zero_by_writing(img, guest_offset, n_bytes, err);
    ret = whole_clusters(img, guest_offset, end, &first, &last, err);
    if (ret < 0)
        return ret;
    if (first == last)
        return zero_by_writing(img, guest_offset, n_bytes, err);
    if (guest_offset < first)
        ret = zero_by_writing(img, guest_offset, first - guest_offset, err);
    if (ret == 0)
        ret = q2_image_mark_clusters(img, first, last - first, &marking, err);
    if (ret == 0 && last < end)
        ret = zero_by_writing(img, last, end - last, err);
    return ret;
}
