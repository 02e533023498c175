// SPDX-License-Identifier: MIT
// Growing the active L1 table: the new one is whole and durable before one write to the
// header makes it count; the old one is free after that.
#include "image/image.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

static int write_table(struct q2_image *img, uint64_t offset, uint64_t n_bytes,
                       struct q2_error *err)
{
    uint8_t *buf = calloc(1, q2_to_size(n_bytes));
    if (!buf)
        return q2_fail_memory(err, n_bytes);
    q2_table_encode(img->l1, buf, img->l1_size);
    int ret = q2_io_write(img->disk.file, offset, buf, q2_to_size(n_bytes), err);
    free(buf);
    return ret;
}

// The table in memory, as it stands in the file now, goes to offset; then the header
// says so.
static int move_table(struct q2_image *img, uint64_t offset, uint32_t n_entries,
                      uint64_t n_bytes, struct q2_error *err)
{
    uint64_t old_offset = img->header.l1_table_offset;
    uint64_t old_bytes = (uint64_t)img->header.l1_size * 8;
    int ret = write_table(img, offset, n_bytes, err);
    if (ret == 0)
        ret = q2_image_commit_all(img, err); // its refcounts
    if (ret == 0 && !img->unpublished)
        ret = q2_io_flush(img->disk.file, err);
    if (ret < 0) {
        q2_alloc_undo(img, offset, n_bytes);
        return ret;
    }
    ret = q2_image_switch_l1(img, offset, n_entries, err);
    if (img->header.l1_table_offset != offset)
        return ret; // nobody knows what the file says: the new place leaks
    img->l1_size = n_entries;
    if (old_bytes > 0) {
        struct q2_error leaks = Q2_ERROR_INIT;
        q2_alloc_free_later(img, old_offset, old_bytes, Q2_FREE_OTHER, &leaks);
    }
    return ret;
}

int q2_image_grow_l1(struct q2_image *img, uint64_t n_entries, struct q2_error *err)
{
    uint64_t offset;
    if (n_entries <= img->l1_size)
        return 0;
    if (n_entries > Q2_MAX_L1_BYTES / 8)
        return q2_fail(err, -EFBIG,
                       "'%s': an L1 table of %" PRIu64 " entries would be too large",
                       img->disk.path, n_entries);
    uint64_t n_bytes = q2_align_up(n_entries * 8, img->cluster_size);
    uint64_t *l1 = realloc(img->l1, q2_to_size(n_bytes));
    if (!l1)
        return q2_fail_memory(err, n_bytes);
    memset(l1 + img->l1_size, 0, q2_to_size(n_bytes - (uint64_t)img->l1_size * 8));
    img->l1 = l1;
    // What the new table will say must be true in the file.
    int ret = q2_image_commit_all(img, err);
    if (ret == 0)
        ret = q2_alloc_exact(img, n_bytes >> img->cluster_bits, "L1 table", &offset, err);
    return ret != 0 ? ret : move_table(img, offset, (uint32_t)n_entries, n_bytes, err);
}
