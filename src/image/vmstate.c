// SPDX-License-Identifier: MIT
// The VM state of the active state: it is mapped behind the guest disk (qcow2 format:
// "Snapshots").
#include "image/image.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

// Where it begins: at the first L1 entry that the guest disk does not need.
static int locate(const struct q2_image *img, uint64_t pos, size_t n_bytes,
                  uint64_t *guest_offset, struct q2_error *err)
{
    uint64_t start =
        q2_image_l1_entries(img->header.size, img->cluster_bits, img->l2_bits) *
        q2_image_l2_span(img);
    uint64_t end;
    if (q2_add_u64(start, pos, guest_offset) &&
        q2_add_u64(*guest_offset, n_bytes, &end) && end <= INT64_MAX)
        return 0;
    return q2_fail(err, -EFBIG,
                   "'%s': %zu bytes at offset %" PRIu64
                   " of the VM state lie too far out",
                   img->disk.path, n_bytes, pos);
}

int q2_image_read_vmstate(struct q2_image *img, uint64_t pos, void *buf, size_t n_bytes,
                          struct q2_error *err)
{
    uint64_t guest_offset = 0;
    int ret = locate(img, pos, n_bytes, &guest_offset, err);
    return ret < 0 ? ret : q2_image_read(&img->disk, guest_offset, buf, n_bytes, err);
}

// Whole clusters as they are; a part of one with the old content around it, which is
// copied here: the disk's own way to do it ends where the guest disk does.
static int write_piece(struct q2_image *img, uint64_t guest_offset, const void *buf,
                       size_t n_bytes, uint8_t *whole, struct q2_error *err)
{
    size_t in_cluster = (size_t)(guest_offset & (img->cluster_size - 1));
    uint64_t start = guest_offset - in_cluster;
    if (q2_is_aligned(n_bytes, img->cluster_size))
        return q2_disk_put(&img->disk, start, buf, n_bytes, err);
    int ret = q2_image_read(&img->disk, start, whole, img->cluster_size, err);
    memcpy(whole + in_cluster, buf, n_bytes);
    return ret < 0 ? ret : q2_disk_put(&img->disk, start, whole, img->cluster_size, err);
}

// How much of n_bytes from guest_offset on makes a piece.
static size_t piece_length(const struct q2_image *img, uint64_t guest_offset,
                           size_t n_bytes)
{
    uint64_t in_cluster = guest_offset & (img->cluster_size - 1);
    if (in_cluster == 0 && n_bytes >= img->cluster_size)
        return (size_t)q2_align_down(n_bytes, img->cluster_size);
    return (size_t)q2_min_u64(n_bytes, img->cluster_size - in_cluster);
}

// Room in the L1 table for VM state up to end: as much again as half of what is there, as
// the state comes in small pieces.
static int make_room(struct q2_image *img, uint64_t end, struct q2_error *err)
{
    uint64_t needed = q2_image_l1_entries(end, img->cluster_bits, img->l2_bits);
    pthread_mutex_lock(&img->lock);
    uint64_t spare = (uint64_t)img->l1_size + img->l1_size / 2;
    uint64_t wanted = q2_max_u64(needed, q2_min_u64(spare, Q2_MAX_L1_BYTES / 8));
    int ret = q2_image_refuse_write(img, false, err);
    if (ret == 0 && needed > img->l1_size)
        ret = q2_image_grow_l1(img, wanted, err);
    pthread_mutex_unlock(&img->lock);
    return ret;
}

int q2_image_write_vmstate(struct q2_image *img, uint64_t pos, const void *buf,
                           size_t n_bytes, struct q2_error *err)
{
    const uint8_t *at = buf;
    uint64_t guest_offset = 0;
    int ret = locate(img, pos, n_bytes, &guest_offset, err);
    if (ret == 0)
        ret = make_room(img, guest_offset + n_bytes, err);
    uint8_t *whole = ret < 0 ? NULL : malloc(img->cluster_size);
    if (ret == 0 && !whole)
        ret = q2_fail_memory(err, img->cluster_size);
    while (n_bytes > 0 && ret == 0) {
        size_t n = piece_length(img, guest_offset, n_bytes);
        ret = write_piece(img, guest_offset, at, n, whole, err);
        guest_offset += n;
        at += n;
        n_bytes -= n;
    }
    free(whole);
    return ret;
}
