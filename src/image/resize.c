// SPDX-License-Identifier: MIT
// Letting go of what lies behind the end of a disk.
#include "image/resize.h"

#include <errno.h>
#include <inttypes.h>

#include "base/checked.h"
#include "image/data_file.h"
#include "image/overlap.h"

static void no_entry(const struct q2_image *img, struct q2_l2_entry *e, uint32_t mask,
                     unsigned flags)
{
    (void)img;
    (void)mask;
    (void)flags;
    *e = (struct q2_l2_entry){.kind = Q2_CLUSTER_UNALLOCATED};
}

// All of a table is sound, or none of it is given back: part of it would be free while it
// is still mapped.
static int check_table(const struct q2_image *img, const uint64_t *l2, uint64_t l1_index,
                       struct q2_error *err)
{
    for (uint64_t i = 0; i < q2_image_l2_entries(img); i++) {
        struct q2_l2_entry e = q2_mapping_entry(img, l2, i);
        if (e.has_cluster && !q2_is_aligned(e.host_offset, img->cluster_size))
            return q2_fail(err, -EIO,
                           "'%s': L2 entry %" PRIu64 "/%" PRIu64
                           ": host offset 0x%" PRIx64 " is not cluster aligned",
                           img->disk.path, l1_index, i, e.host_offset);
    }
    return 0;
}

// With the lock held: drops an L1 entry and the references of all that is behind it,
// whether the table is shared with a snapshot or not.
static int drop_table(struct q2_image *img, uint64_t l1_index, struct q2_error *err)
{
    uint64_t l2_offset = img->l1[l1_index] & Q2_OFFSET_MASK;
    struct q2_table *t;
    int ret = q2_image_trim(img, err);
    if (ret == 0 && !q2_is_aligned(l2_offset, img->cluster_size))
        ret = q2_fail(err, -EIO,
                      "'%s': L1 entry %" PRIu64 ": L2 table offset 0x%" PRIx64
                      " is not cluster aligned",
                      img->disk.path, l1_index, l2_offset);
    if (ret == 0)
        ret = q2_cache_get(img->l2_cache, img->disk.file, l2_offset, "L2 table", &t, err);
    if (ret == 0)
        ret = check_table(img, t->data, l1_index, err);
    if (ret != 0)
        return ret;
    const uint64_t *l2 = t->data;
    img->l1[l1_index] = 0;
    q2_span_add(&img->l1_dirty, l1_index);
    q2_overlap_remove(img, Q2_OVERLAP_ACTIVE_L2, l2_offset);
    for (uint64_t i = 0; i < q2_image_l2_entries(img) && ret == 0; i++) {
        struct q2_l2_entry e = q2_mapping_entry(img, l2, i);
        ret = q2_image_release_entry(img, &e, Q2_FREE_SNAPSHOT, err);
    }
    return ret < 0 ? ret
                   : q2_alloc_free_later(img, l2_offset, img->cluster_size,
                                         Q2_FREE_SNAPSHOT, err);
}

static int drop_tables(struct q2_image *img, uint64_t first, struct q2_error *err)
{
    int ret = 0;
    img->only_frees = true;
    for (uint64_t i = first; i < img->l1_size && ret == 0; i++) {
        if ((img->l1[i] & Q2_OFFSET_MASK) != 0)
            ret = drop_table(img, i, err);
    }
    img->only_frees = false;
    return ret == 0 ? q2_image_commit(img, err) : ret;
}

int q2_image_unmap_behind(struct q2_image *img, uint64_t guest_offset,
                          struct q2_error *err)
{
    // As after the deletion of a snapshot, the space goes back to the file system unless
    // that was declined.
    const struct q2_marking marking = {
        .change = no_entry, .why = Q2_FREE_SNAPSHOT, .keep_holes = true};
    uint64_t span = q2_image_l2_span(img), first = q2_div_round_up(guest_offset, span);
    uint64_t in_table = guest_offset & (span - 1);
    int ret = 0;
    if (in_table != 0)
        ret = q2_image_mark_clusters(img, guest_offset, span - in_table, &marking, err);
    if (ret < 0)
        return ret;
    pthread_mutex_lock(&img->lock);
    ret = drop_tables(img, first, err);
    pthread_mutex_unlock(&img->lock);
    // Not before it is certain that nothing is read there any more.
    if (ret == 0 && q2_image_has_data_file(img))
        ret = q2_io_flush(img->disk.file, err);
    if (ret == 0)
        q2_data_file_discard(img, guest_offset, UINT64_MAX, Q2_FREE_SNAPSHOT);
    return ret;
}

// The cluster behind the last one of the block that has a reference; 0: none has.
static uint64_t end_in_block(const struct q2_image *img, const void *block)
{
    uint64_t n = UINT64_C(1) << q2_refcount_block_bits(img), end = 0;
    while (end < n) {
        uint64_t used = q2_refcount_next_used(img->refcounts, block, end, n);
        if (used == n)
            break;
        end = q2_refcount_next_zero(img->refcounts, block, used, n);
    }
    return end;
}

// With the lock held.
static int find_end(struct q2_image *img, uint64_t file_size, uint64_t *end,
                    struct q2_error *err)
{
    unsigned block_bits = q2_refcount_block_bits(img);
    uint64_t n_clusters = q2_div_round_up(file_size, img->cluster_size);
    uint64_t index = q2_div_round_up(n_clusters, UINT64_C(1) << block_bits);
    *end = 0;
    while (index > 0 && *end == 0) {
        struct q2_table *t;
        index--;
        int ret = q2_refcount_block(img, index << block_bits, &t, err);
        if (ret < 0)
            return ret;
        uint64_t n = t ? end_in_block(img, t->data) : 0;
        if (n > 0)
            *end = ((index << block_bits) + n) << img->cluster_bits;
        if (q2_cache_full(img->refcount_cache))
            q2_cache_trim(img->refcount_cache);
    }
    return 0;
}

// With the lock held: the last refcount blocks go, as far as they are not needed. They
// are gone from the table on the disk before the file ends before them.
static int drop_last_blocks(struct q2_image *img, struct q2_error *err)
{
    uint64_t index = img->refcount_table_size;
    bool any = false, dropped = true;
    int ret = 0;
    while (ret == 0 && dropped && --index > 0) {
        if (img->refcount_table[index] == 0)
            continue;
        ret = q2_refcount_drop_block(img, index, &dropped, err);
        any = any || dropped;
        if (q2_cache_full(img->refcount_cache))
            q2_cache_trim(img->refcount_cache);
    }
    if (ret == 0 && any)
        ret = q2_image_commit_all(img, err);
    return ret == 0 && any ? q2_io_flush(img->disk.file, err) : ret;
}

static int cut_file(struct q2_image *img, struct q2_error *err)
{
    uint64_t file_size = 0, end = 0;
    int ret = drop_last_blocks(img, err);
    if (ret == 0)
        ret = q2_io_get_size(img->disk.file, &file_size, err);
    if (ret == 0)
        ret = find_end(img, file_size, &end, err);
    if (ret < 0 || end == 0 || end >= file_size)
        return ret;
    ret = q2_io_set_size(img->disk.file, end, err);
    if (ret == 0) {
        img->data_end = end;
        img->fresh_from = end;
        img->compressed_next = 0;
    }
    return ret;
}

int q2_image_cut_file(struct q2_image *img, struct q2_error *err)
{
    if (!img->disk.file->sparse_growth) // a device keeps its size
        return 0;
    pthread_mutex_lock(&img->lock);
    int ret = cut_file(img, err);
    pthread_mutex_unlock(&img->lock);
    return ret;
}
