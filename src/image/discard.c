// SPDX-License-Identifier: MIT
// Discarding guest ranges: whole clusters are let go of and read as zeros from then on,
// parts of clusters stay as they are.
#include "image/image.h"

#include "base/checked.h"
#include "image/bitmaps.h"
#include "image/data_file.h"

// Zeros that the format can say where a backing file would show through, or where the
// guest may have relied on old content: version 3 marks what was allocated. What was
// never written stays unallocated where nothing lies below.
static void discard_entry(const struct q2_image *img, struct q2_l2_entry *e,
                          uint32_t mask, unsigned flags)
{
    const struct q2_l2_entry none = {.kind = Q2_CLUSTER_UNALLOCATED};
    const struct q2_l2_entry zero = {.kind = Q2_CLUSTER_ZERO, .zero = UINT32_MAX};
    (void)mask; // whole clusters only
    (void)flags;
    if (e->kind == Q2_CLUSTER_ZERO || (e->kind == Q2_CLUSTER_UNALLOCATED &&
                                       !e->has_cluster && !q2_image_has_backing(img)))
        return;
    if (img->header.version < 3) {
        *e = none;
    } else if (img->discard_no_unref && e->has_cluster) {
        e->allocated = 0; // the space stays with the cluster
        e->zero = UINT32_MAX;
    } else {
        *e = zero;
    }
}

// Clusters that stay allocated behind their zero flag: once that flag is durable, the
// file may drop what is in them, as long as nobody writes there again.
static int punch_kept(struct q2_image *img, uint64_t guest_offset, uint64_t n_bytes,
                      struct q2_error *err)
{
    struct q2_error ignored = Q2_ERROR_INIT; // the space stays, that is all
    pthread_mutex_lock(&img->lock);
    int ret = q2_image_commit(img, err);
    if (ret == 0)
        ret = q2_io_flush(img->disk.file, err);
    while (n_bytes > 0 && ret == 0) {
        struct q2_run run;
        ret = q2_mapping_lookup(img, guest_offset, n_bytes, &run, err);
        if (ret < 0)
            break;
        uint64_t count = 0;
        if (run.kind == Q2_CLUSTER_ZERO_ALLOCATED)
            ret = q2_refcount_get(img, run.host_offset >> img->cluster_bits, &count, err);
        uint64_t n = q2_min_u64(run.n_bytes, img->cluster_size);
        if (count == 1)
            q2_io_discard(img->disk.file, run.host_offset, n, &ignored);
        n = run.kind == Q2_CLUSTER_ZERO_ALLOCATED ? n : run.n_bytes;
        guest_offset += n;
        n_bytes -= n;
    }
    pthread_mutex_unlock(&img->lock);
    return ret;
}

int q2_image_discard(struct q2_disk *d, uint64_t guest_offset, uint64_t n_bytes,
                     struct q2_error *err)
{
    struct q2_image *img = q2_image_of(d);
    const struct q2_marking marking = {.change = discard_entry,
                                       .why = Q2_FREE_REQUEST,
                                       .keep_holes = !q2_image_has_backing(img)};
    uint64_t end = guest_offset + n_bytes;
    uint64_t first = q2_align_up(guest_offset, img->cluster_size);
    // The disk's last cluster is whole when the request reaches the disk's end.
    uint64_t last = end == d->size ? end : q2_align_down(end, img->cluster_size);
    int ret = q2_image_refuse_write(img, false, err);
    if (ret == 0)
        ret = q2_bitmaps_note(img, guest_offset, n_bytes, err);
    // Version 2 cannot hide a backing file: there, discarded clusters stay.
    if (ret < 0 || first >= last ||
        (img->header.version < 3 && q2_image_has_backing(img)))
        return ret;
    if (q2_data_file_is_raw(img))
        return q2_data_file_zero(img, first, last - first,
                                 img->pass_discard[Q2_FREE_REQUEST], err);
    q2_data_file_discard(img, first, last - first, Q2_FREE_REQUEST);
    ret = q2_image_mark_clusters(img, first, last - first, &marking, err);
    if (ret == 0 && img->discard_no_unref && !q2_image_has_data_file(img) &&
        img->pass_discard[Q2_FREE_REQUEST])
        ret = punch_kept(img, first, last - first, err);
    return ret;
}
