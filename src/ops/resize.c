// SPDX-License-Identifier: MIT
// Changing the size of a disk. One write to the header makes the new size count.
//
// Growing: a longer L1 table first; what an earlier, longer disk or the machine's state
// left behind the old end goes; a backing file that reaches further is hidden by zeros;
// preallocation. All of that lies behind the end of the disk as it still is. Then the
// switch.
//
// A data file is made longer before the switch, and shorter last of all.
//
// Shrinking: the switch first, so that no power cut leaves a disk of the old size without
// its end; then what is behind the new end is unmapped, and free after that.
#include "ops/resize.h"

#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "image/bitmaps.h"
#include "image/data_file.h"
#include "image/resize.h"
#include "image/update.h"
#include "ops/preallocate.h"

// --- raw -----------------------------------------------------------------------------

static int refuse_raw(const struct q2_disk *d, uint64_t size, enum q2_preallocation mode,
                      struct q2_error *err)
{
    if (mode == Q2_PREALLOC_METADATA)
        return q2_fail(err, -ENOTSUP, "Unsupported preallocation mode: metadata");
    if (!d->file->sparse_growth && size != d->size)
        return q2_fail(err, -ENOTSUP, "Cannot resize device files");
    return 0;
}

static int resize_raw(struct q2_disk *d, uint64_t size, enum q2_preallocation mode,
                      const struct q2_monitor *mon, struct q2_error *err)
{
    struct q2_error ignored = Q2_ERROR_INIT;
    uint64_t old;
    int ret = refuse_raw(d, size, mode, err);
    if (ret == 0)
        ret = q2_io_get_size(d->file, &old, err);
    if (ret < 0 || !d->file->sparse_growth)
        return ret;
    ret = q2_io_set_size(d->file, size, err);
    if (ret == 0 && size > old) {
        ret = q2_preallocate_file(d->file, old, size - old, mode, mon, err);
        if (ret < 0)
            q2_io_set_size(d->file, old, &ignored);
    }
    if (ret == 0)
        d->size = q2_align_up(size, 512);
    return ret;
}

// --- qcow2 ---------------------------------------------------------------------------

int q2_resize_try(const struct q2_image *img, uint64_t size, uint32_t version,
                  struct q2_error *err)
{
    if (!q2_is_aligned(size, 512))
        return q2_fail(err, -EINVAL, "The new size must be a multiple of 512");
    // A version 2 snapshot need not say what size the disk had.
    if (img->header.nb_snapshots > 0 && version < 3)
        return q2_fail(err, -ENOTSUP, "Can't resize a v2 image which has snapshots");
    if (q2_image_l1_entries(size, img->cluster_bits, img->l2_bits) > Q2_MAX_L1_BYTES / 8)
        return q2_fail(err, -EFBIG, "Failed to grow the L1 table: File too large");
    int ret = q2_image_refuse_write(img, false, err);
    return ret < 0 || size == img->disk.size ? ret
                                             : q2_bitmaps_try_resize(img, size, err);
}

// Bitmaps are stored anew for the new size at the end; if it does not come to that, the
// file says so.
static int begin(struct q2_image *img, uint64_t size, enum q2_preallocation mode,
                 struct q2_error *err)
{
    pthread_mutex_lock(&img->lock);
    int ret = q2_resize_try(img, size, img->header.version, err);
    if (ret == 0 && size < img->disk.size && mode != Q2_PREALLOC_OFF)
        ret = q2_fail(err, -EINVAL, "Preallocation can't be used for shrinking an image");
    if (ret == 0 && size != img->disk.size)
        ret = q2_bitmaps_begin(img, true, err);
    pthread_mutex_unlock(&img->lock);
    return ret;
}

static int switch_size(struct q2_image *img, uint64_t size, struct q2_error *err)
{
    pthread_mutex_lock(&img->lock);
    int ret = q2_image_switch_size(img, size, err);
    if (ret == 0)
        ret = q2_bitmaps_resize(img, size, err);
    pthread_mutex_unlock(&img->lock);
    return ret < 0 ? q2_context(err, "Failed to update the image size") : ret;
}

static int grow_l1(struct q2_image *img, uint64_t size, struct q2_error *err)
{
    uint64_t n = q2_image_l1_entries(size, img->cluster_bits, img->l2_bits);
    pthread_mutex_lock(&img->lock);
    int ret = q2_image_grow_l1(img, n, err);
    pthread_mutex_unlock(&img->lock);
    return ret < 0 ? q2_context(err, "Failed to grow the L1 table") : ret;
}

// The disk is larger in memory alone.
static int fill_new_space(struct q2_disk *d, uint64_t old, enum q2_preallocation mode,
                          const struct q2_monitor *mon, struct q2_error *err)
{
    uint64_t zeros = q2_min_u64(q2_align_up(old, d->cluster_size), d->size);
    uint64_t from = zeros;
    // Where subclusters exist, preallocation hides nothing.
    if (d->backing && (mode == Q2_PREALLOC_OFF || q2_image_of(d)->extended_l2))
        zeros = q2_max_u64(zeros, q2_min_u64(d->backing->size, d->size));
    int ret = q2_disk_write_zeroes(d, old, zeros - old, 0, err);
    if (ret < 0)
        return q2_context(err, "Failed to zero out new area");
    return q2_preallocate_from(d, from, mode, mon, err);
}

static int grow(struct q2_image *img, uint64_t size, enum q2_preallocation mode,
                const struct q2_monitor *mon, struct q2_error *err)
{
    struct q2_disk *d = &img->disk;
    struct q2_error ignored = Q2_ERROR_INIT;
    uint64_t old = d->size, behind = q2_align_up(old, d->cluster_size);
    int ret = grow_l1(img, size, err);
    if (ret == 0)
        ret = q2_image_unmap_behind(img, behind, err);
    if (ret == 0)
        ret = q2_data_file_cut(img, old, err);
    if (ret < 0)
        return ret;
    d->size = size;
    ret = fill_new_space(d, old, mode, mon, err);
    if (ret == 0)
        ret = q2_data_file_set_size(img, size, err);
    if (ret == 0)
        ret = q2_disk_flush(d, err);
    if (ret == 0)
        ret = switch_size(img, size, err);
    if (ret < 0 && img->header.size != size) {
        d->size = old;
        if (q2_image_unmap_behind(img, behind, &ignored) == 0 &&
            q2_disk_flush(d, &ignored) == 0)
            q2_image_cut_file(img, &ignored);
        q2_data_file_cut(img, old, &ignored);
    }
    return ret;
}

static int shrink(struct q2_image *img, uint64_t size, struct q2_error *err)
{
    struct q2_disk *d = &img->disk;
    int ret = q2_disk_flush(d, err);
    if (ret == 0)
        ret = switch_size(img, size, err);
    if (img->header.size != size)
        return ret;
    d->size = size;
    if (ret == 0)
        ret = q2_image_unmap_behind(img, q2_align_up(size, d->cluster_size), err);
    if (ret < 0)
        return q2_context(err, "Failed to discard cropped clusters");
    ret = q2_disk_flush(d, err);
    if (ret == 0)
        ret = q2_data_file_cut(img, size, err);
    return ret < 0 ? ret : q2_image_cut_file(img, err);
}

int q2_resize(struct q2_disk *d, uint64_t size, enum q2_preallocation mode,
              const struct q2_monitor *mon, struct q2_error *err)
{
    if (!d->writable)
        return q2_fail(err, -EACCES, "'%s' is open for reading only", d->path);
    if (d->ops != &q2_image_disk_ops)
        return resize_raw(d, size, mode, mon, err);
    struct q2_image *img = q2_image_of(d);
    int ret = begin(img, size, mode, err);
    if (ret < 0)
        return ret;
    // A raw data file must be mapped as a whole.
    if (size > d->size && mode == Q2_PREALLOC_OFF && q2_data_file_is_raw(img))
        mode = Q2_PREALLOC_METADATA;
    // A size that was no multiple of 512 becomes one.
    if (size == d->size)
        return switch_size(img, size, err);
    return size > d->size ? grow(img, size, mode, mon, err) : shrink(img, size, err);
}

int q2_disk_resize(struct q2_disk *d, uint64_t size, struct q2_error *err)
{
    return q2_resize(d, size, Q2_PREALLOC_OFF, NULL, err);
}
