// SPDX-License-Identifier: MIT
// Writing metadata back. New things are durable before anything points to them, and
// pointers are gone from the disk before what they pointed to is free: guest data and
// refcounts, then L2 tables, then the L1 table, then what has become free.
#include "image/image.h"

#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/endian.h"

// Deferred frees that make a commit due.
#define MAX_PENDING_FREE 65536U
// Offset and length of the refcount table stand side by side in the header.
#define HEADER_REFCOUNT_TABLE 48U

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
    uint8_t *buf = calloc(padded - first, 8);
    if (!buf)
        return q2_fail_memory(err, (padded - first) * 8);
    q2_table_encode(table + first, buf, end - first);
    int ret = q2_io_write(img->disk.file, table_offset + first * 8, buf,
                          (padded - first) * 8, err);
    free(buf);
    if (ret == 0)
        *span = (struct q2_dirty_span){0};
    return ret;
}

// The one write after which the grown refcount table counts.
static int switch_refcount_table(struct q2_image *img, struct q2_error *err)
{
    uint8_t field[12];
    q2_store_be64(field, img->header.refcount_table_offset);
    q2_store_be32(field + 8, img->header.refcount_table_clusters);
    int ret = img->unpublished ? 0
                               : q2_io_write(img->disk.file, HEADER_REFCOUNT_TABLE, field,
                                             sizeof(field), err);
    if (ret == 0)
        ret = barrier(img, err);
    if (ret < 0)
        return ret;
    img->refcount_table_moved = false;
    return q2_alloc_free_later(
        img, img->old_refcount_table_offset,
        (uint64_t)img->old_refcount_table_clusters << img->cluster_bits, err);
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

static int apply_pending_free(struct q2_image *img, struct q2_error *err)
{
    int ret = 0;
    for (size_t i = 0; i < img->n_pending_free && ret == 0; i++)
        ret = q2_refcount_add(img, img->pending_free[i].cluster,
                              img->pending_free[i].n_clusters, -1, err);
    img->n_pending_free = 0;
    return ret;
}

static bool nothing_to_write(const struct q2_image *img)
{
    return !q2_cache_has_dirty(img->l2_cache) &&
           !q2_cache_has_dirty(img->refcount_cache) &&
           img->l1_dirty.first == img->l1_dirty.end &&
           img->refcount_table_dirty.first == img->refcount_table_dirty.end &&
           !img->refcount_table_moved && img->n_pending_free == 0;
}

int q2_image_commit(struct q2_image *img, struct q2_error *err)
{
    if (!img->disk.writable || nothing_to_write(img))
        return 0;
    int ret = extend_file(img, err);
    if (ret == 0)
        ret = commit_refcounts(img, err);
    if (ret == 0)
        ret = barrier(img, err);
    if (ret == 0)
        ret = commit_mapping(img, err);
    if (ret < 0 || img->n_pending_free == 0)
        return ret;
    ret = barrier(img, err);
    if (ret == 0)
        ret = apply_pending_free(img, err);
    return ret < 0 ? ret : commit_refcounts(img, err);
}

int q2_image_trim(struct q2_image *img, struct q2_error *err)
{
    bool full = q2_cache_full(img->l2_cache) || q2_cache_full(img->refcount_cache);
    if (!full && img->n_pending_free < MAX_PENDING_FREE)
        return 0;
    int ret = q2_image_commit(img, err);
    q2_cache_trim(img->l2_cache);
    q2_cache_trim(img->refcount_cache);
    return ret;
}
