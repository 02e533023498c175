// SPDX-License-Identifier: MIT
// Making guest ranges read as zeros without writing them, where the format can say so.
#include "image/image.h"

#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "image/bitmaps.h"
#include "image/data_file.h"

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

static void zero_entry(const struct q2_image *img, struct q2_l2_entry *e, uint32_t mask,
                       unsigned flags)
{
    bool whole = mask == UINT32_MAX;
    if (img->header.version < 3) {
        *e = (struct q2_l2_entry){.kind = Q2_CLUSTER_UNALLOCATED};
    } else if (whole && (!e->has_cluster || (flags & Q2_ZERO_UNMAP))) {
        *e = (struct q2_l2_entry){.kind = Q2_CLUSTER_ZERO, .zero = mask};
    } else {
        e->allocated &= ~mask;
        e->zero |= mask;
    }
}

// Marks subclusters of an entry, which is old; what it lets go of is given back.
static int mark_entry(struct q2_image *img, struct q2_table *t, uint64_t index,
                      const struct q2_l2_entry *old, uint32_t mask,
                      const struct q2_marking *m, struct q2_error *err)
{
    struct q2_l2_entry e = *old;
    int ret = 0;
    if (old->kind == Q2_CLUSTER_COMPRESSED && mask != UINT32_MAX)
        return 0;
    m->change(img, &e, mask, m->flags);
    if (!e.has_cluster && e.kind != Q2_CLUSTER_COMPRESSED)
        ret = q2_image_release_entry(img, old, m->why, err);
    if (ret == 0)
        q2_mapping_set_entry(img, t, index, e);
    return ret;
}

static int mark_entries(struct q2_image *img, struct q2_table *t, uint64_t guest_offset,
                        uint64_t n_bytes, const struct q2_marking *m,
                        struct q2_error *err)
{
    uint64_t index = q2_mapping_l2_index(img, guest_offset);
    uint64_t from = guest_offset & (img->cluster_size - 1), to = from + n_bytes;
    uint64_t n = q2_div_round_up(to, img->cluster_size);
    int ret = 0;
    if (guest_offset + n_bytes == img->disk.size)
        to = n << img->cluster_bits; // behind it there is nothing to keep
    for (uint64_t i = 0; i < n && ret == 0; i++) {
        struct q2_l2_entry e = q2_mapping_entry(img, t->data, index + i);
        uint32_t mask = q2_mapping_touched(img, i, from, to);
        if (e.kind == Q2_CLUSTER_INVALID)
            return q2_mapping_refuse_invalid(img, guest_offset + (i << img->cluster_bits),
                                             err);
        ret = mark_entry(img, t, index + i, &e, mask, m, err);
    }
    return ret;
}

// May unallocated clusters stay what they are? Version 2 has no other zeros.
static bool reads_zero_anyway(const struct q2_image *img, unsigned flags)
{
    return img->header.version < 3 ||
           ((flags & Q2_ZERO_UNMAP) && !q2_image_has_backing(img));
}

// A range inside that of one L2 table.
static int mark_in_table(struct q2_image *img, uint64_t guest_offset, uint64_t n_bytes,
                         const struct q2_marking *m, struct q2_error *err)
{
    struct q2_table *t;
    struct q2_run run;
    int ret = q2_image_trim(img, err);
    if (ret == 0)
        ret = q2_mapping_lookup(img, guest_offset, n_bytes, &run, err);
    if (ret < 0)
        return ret;
    // Nothing to drop and nothing to say: no table is made for it.
    if (m->keep_holes && run.kind == Q2_CLUSTER_UNALLOCATED && !run.has_cluster &&
        run.n_bytes == n_bytes)
        return 0;
    ret = q2_mapping_l2_for_write(img, guest_offset, &t, err);
    if (ret < 0)
        return ret;
    return mark_entries(img, t, guest_offset, n_bytes, m, err);
}

int q2_image_mark_clusters(struct q2_image *img, uint64_t guest_offset, uint64_t n_bytes,
                           const struct q2_marking *m, struct q2_error *err)
{
    uint64_t span = q2_image_l2_span(img);
    int ret = 0;
    while (n_bytes > 0 && ret == 0) {
        uint64_t n = q2_min_u64(n_bytes, span - (guest_offset & (span - 1)));
        pthread_mutex_lock(&img->lock);
        ret = mark_in_table(img, guest_offset, n, m, err);
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

// Does all of the subcluster (or cluster) that begins at guest_offset read as zeros?
static int is_zero_grain(struct q2_image *img, uint64_t guest_offset, bool *zero,
                         struct q2_error *err)
{
    struct q2_run run;
    uint64_t n =
        q2_min_u64(UINT64_C(1) << img->grain_bits, img->disk.size - guest_offset);
    int ret = lookup(img, guest_offset, n, &run, err);
    *zero = ret == 0 && run.n_bytes == n && reads_zero(img, guest_offset, &run);
    return ret;
}

// The subclusters (or clusters) to mark for a request: those that it covers, and those at
// its ends whose rest is zeros, too. *first == *last: none.
static int whole_grains(struct q2_image *img, uint64_t start, uint64_t end,
                        uint64_t *first, uint64_t *last, struct q2_error *err)
{
    uint64_t grain = UINT64_C(1) << img->grain_bits;
    uint64_t below = q2_align_down(start, grain), behind = q2_align_down(end, grain);
    bool zero = below == start;
    int ret = zero ? 0 : is_zero_grain(img, below, &zero, err);
    *first = zero ? below : below + grain;
    if (ret < 0)
        return ret;
    // The disk's last one is whole when the request reaches the disk's end.
    zero = end == img->disk.size;
    if (!zero && behind < end)
        ret = is_zero_grain(img, behind, &zero, err);
    *last = zero ? q2_min_u64(q2_align_up(end, grain), img->disk.size) : behind;
    *last = q2_max_u64(*first, *last);
    return ret;
}

static int is_packed(struct q2_image *img, uint64_t guest_offset, bool *packed,
                     struct q2_error *err)
{
    struct q2_run run;
    int ret = lookup(img, guest_offset, 1, &run, err);
    *packed = ret == 0 && run.kind == Q2_CLUSTER_COMPRESSED;
    return ret;
}

// Takes parts of compressed clusters out of what is to be marked: they have to be
// written.
static int leave_packed(struct q2_image *img, uint64_t *first, uint64_t *last,
                        struct q2_error *err)
{
    uint64_t below = q2_align_up(*first, img->cluster_size);
    uint64_t behind = q2_align_down(*last, img->cluster_size);
    bool packed = false;
    int ret = 0;
    if (*first < below)
        ret = is_packed(img, *first, &packed, err);
    if (packed)
        *first = q2_min_u64(below, *last);
    packed = false;
    if (ret == 0 && *last != img->disk.size && *first <= behind && behind < *last)
        ret = is_packed(img, behind, &packed, err);
    if (packed)
        *last = behind;
    return ret;
}

int q2_image_write_zeroes(struct q2_disk *d, uint64_t guest_offset, uint64_t n_bytes,
                          unsigned flags, struct q2_error *err)
{
    struct q2_image *img = q2_image_of(d);
    const struct q2_marking marking = {.change = zero_entry,
                                       .flags = flags,
                                       .why = Q2_FREE_REQUEST,
                                       .keep_holes = reads_zero_anyway(img, flags)};
    uint64_t end = guest_offset + n_bytes, first, last;
    int ret = q2_image_refuse_write(img, false, err);
    if (ret == 0)
        ret = q2_bitmaps_note(img, guest_offset, n_bytes, err);
    if (ret < 0)
        return ret;
    if (q2_data_file_is_raw(img))
        return q2_data_file_zero(img, guest_offset, n_bytes, flags & Q2_ZERO_UNMAP, err);
    if (!can_mark(img))
        return zero_by_writing(img, guest_offset, n_bytes, err);
    ret = whole_grains(img, guest_offset, end, &first, &last, err);
    if (ret == 0 && img->extended_l2)
        ret = leave_packed(img, &first, &last, err);
    if (ret < 0)
        return ret;
    if (flags & Q2_ZERO_UNMAP)
        q2_data_file_discard(img, guest_offset, n_bytes, Q2_FREE_REQUEST);
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
