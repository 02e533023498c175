// SPDX-License-Identifier: MIT
// Writing metadata back. New things are durable before anything points to them, and
// pointers are gone from the disk before what they pointed to is free: guest data and
// refcounts, then L2 tables, then the L1 table, then what has become free.
//
// With lazy refcounts the image is marked dirty, durably, before the first change of the
// mapping, and the refcounts wait: a repair counts them anew from the mapping, which is
// as sound as without. What is freed is still not handed out before the pointers are
// gone.
#include "image/image.h"

#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "image/bitmaps.h"
#include "image/data_file.h"

// Order does not matter in an image that has no header yet.
static int barrier(struct q2_image *img, struct q2_error *err)
{
    return img->unpublished ? 0 : q2_io_flush(img->disk.file, err);
}

// Writes the entries of span to their place in the table at table_offset. Big-endian
// copies of whole 512-byte sectors are written, as a disk would tear nothing smaller.
static int write_span(struct q2_image *img, const uint64_t *table, uint64_t n_entries,
                      uint64_t table_offset, struct q2_dirty_span *span,
                      struct q2_error *err)
{
    uint64_t first = q2_align_down(span->first, 64);
    uint64_t end = q2_min_u64(q2_align_up(span->end, 64), n_entries);
    uint64_t padded = q2_align_up(end, 64); // the table's last sector is zero-padded
    uint8_t *buf = calloc(q2_to_size(padded - first), 8);
    if (!buf)
        return q2_fail_memory(err, (padded - first) * 8);
    q2_table_encode(table + first, buf, q2_to_size(end - first));
    int ret = q2_io_write(img->disk.file, table_offset + first * 8, buf,
                          q2_to_size((padded - first) * 8), err);
    free(buf);
    if (ret == 0)
        *span = (struct q2_dirty_span){0};
    return ret;
}

// The one write after which the grown refcount table counts.
static int switch_refcount_table(struct q2_image *img, struct q2_error *err)
{
    struct q2_error leaks = Q2_ERROR_INIT;
    int ret = q2_image_switch_refcount_table(img, err);
    if (!img->refcount_table_moved)
        q2_alloc_free_later(img, img->old_refcount_table_offset,
                            (uint64_t)img->old_refcount_table_clusters
                                << img->cluster_bits,
                            Q2_FREE_OTHER, &leaks);
    return ret;
}

static int commit_refcounts(struct q2_image *img, struct q2_error *err)
{
    int ret = q2_cache_write_back(img->refcount_cache, img->disk.file, err);
    if (ret < 0)
        return ret;
    struct q2_dirty_span *span = &img->refcount_table_dirty;
    if (img->refcount_table_moved)
        *span = (struct q2_dirty_span){.first = 0, .end = img->refcount_table_size};
    if (span->first == span->end)
        return 0;
    ret = barrier(img, err);
    if (ret == 0)
        ret = write_span(img, img->refcount_table, img->refcount_table_size,
                         img->header.refcount_table_offset, span, err);
    if (ret == 0 && img->refcount_table_moved) {
        ret = barrier(img, err);
        if (ret == 0)
            ret = switch_refcount_table(img, err);
    }
    return ret;
}

// An image file ends with its last cluster, so that no reference reaches beyond it.
static int extend_file(struct q2_image *img, struct q2_error *err)
{
    uint64_t size;
    int ret = q2_io_get_size(img->disk.file, &size, err);
    if (ret < 0 || size >= img->data_end)
        return ret;
    uint64_t end = img->data_end;
    // Compressed data is the last thing in the file: it ends with a sector.
    if (img->compressed_next != 0 &&
        q2_align_up(img->compressed_next, img->cluster_size) == img->data_end)
        end = q2_align_up(img->compressed_next, 512);
    return size < end ? q2_io_set_size(img->disk.file, end, err) : 0;
}

static int commit_mapping(struct q2_image *img, struct q2_error *err)
{
    int ret = q2_cache_write_back(img->l2_cache, img->disk.file, err);
    if (ret < 0 || img->l1_dirty.first == img->l1_dirty.end)
        return ret;
    ret = barrier(img, err);
    return ret < 0 ? ret
                   : write_span(img, img->l1, img->l1_size, img->header.l1_table_offset,
                                &img->l1_dirty, err);
}

static bool refcounts_wait(const struct q2_image *img)
{
    return q2_cache_has_dirty(img->refcount_cache) || img->refcount_table_moved ||
           img->refcount_table_dirty.first != img->refcount_table_dirty.end;
}

static bool mapping_waits(const struct q2_image *img)
{
    return q2_cache_has_dirty(img->l2_cache) ||
           img->l1_dirty.first != img->l1_dirty.end || img->n_pending_free > 0;
}

static int refuse_corrupt(const struct q2_image *img, struct q2_error *err)
{
    return q2_fail(err, -EIO, "'%s': the image is marked as corrupt and is not written",
                   img->disk.path);
}

static int commit(struct q2_image *img, bool with_refcounts, struct q2_error *err)
{
    if (img->corrupt)
        return refuse_corrupt(img, err);
    int ret = extend_file(img, err);
    if (ret == 0)
        ret = with_refcounts
                  ? commit_refcounts(img, err)
                  : q2_image_set_incompatible(
                        img, img->header.incompatible_features | Q2_INCOMPAT_DIRTY, err);
    // Its clusters must not be mapped before what is in them is there.
    if (ret == 0 && !img->unpublished)
        ret = q2_data_file_flush(img, err);
    if (ret == 0)
        ret = barrier(img, err);
    if (ret == 0)
        ret = commit_mapping(img, err);
    if (ret < 0 || img->n_pending_free == 0)
        return ret;
    ret = barrier(img, err);
    if (ret == 0)
        ret = q2_alloc_free_waiting(img, err);
    return ret < 0 || !with_refcounts ? ret : commit_refcounts(img, err);
}

static bool defers_refcounts(const struct q2_image *img)
{
    return img->lazy_refcounts && !img->unpublished;
}

int q2_image_commit(struct q2_image *img, struct q2_error *err)
{
    bool lazy = defers_refcounts(img);
    if (!img->disk.writable || !(mapping_waits(img) || (!lazy && refcounts_wait(img))))
        return 0;
    return commit(img, !lazy, err);
}

int q2_image_commit_all(struct q2_image *img, struct q2_error *err)
{
    if (!img->disk.writable || !(mapping_waits(img) || refcounts_wait(img)))
        return 0;
    return commit(img, true, err);
}

int q2_image_finish(struct q2_disk *d, struct q2_error *err)
{
    struct q2_image *img = q2_image_of(d);
    uint64_t clean = img->header.incompatible_features & ~Q2_INCOMPAT_DIRTY;
    struct q2_error later = Q2_ERROR_INIT;
    pthread_mutex_lock(&img->lock);
    // Bitmaps that cannot be stored stay in use; the guest's data does not suffer for it.
    int stored = q2_bitmaps_store(img, &later);
    int ret = q2_image_commit_all(img, err);
    if (ret == 0 && d->writable)
        ret = q2_data_file_flush(img, err);
    if (ret == 0 && d->writable)
        ret = q2_io_flush(d->file, err);
    if (ret == 0 && d->writable)
        ret = q2_image_set_incompatible(img, clean, err);
    pthread_mutex_unlock(&img->lock);
    if (ret == 0 && stored < 0) {
        *err = later;
        ret = stored;
    }
    return ret;
}

static void trim_caches(struct q2_image *img)
{
    q2_cache_trim(img->l2_cache);
    q2_cache_trim(img->refcount_cache);
}

int q2_image_trim(struct q2_image *img, struct q2_error *err)
{
    int ret = 0;
    if (img->corrupt)
        return refuse_corrupt(img, err);
    if (q2_cache_wants_writing(img->refcount_cache))
        ret = q2_image_commit_all(img, err);
    else if (q2_cache_wants_writing(img->l2_cache) || q2_alloc_free_is_due(img))
        ret = q2_image_commit(img, err);
    trim_caches(img);
    return ret;
}

void q2_image_shrink_caches(struct q2_image *img)
{
    struct q2_error ignored = Q2_ERROR_INIT; // reading works whether or not writing does
    trim_caches(img);
    // Full of what is to be written: each read would search it for something to drop.
    if (q2_cache_full(img->l2_cache) && img->disk.writable && !img->corrupt &&
        q2_image_commit(img, &ignored) == 0)
        trim_caches(img);
}
