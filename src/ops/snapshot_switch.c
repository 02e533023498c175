// SPDX-License-Identifier: MIT
// The steps of which making, applying and deleting snapshots consist.
#include "ops/snapshot_switch.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/checked.h"

int q2_switch_settle(struct q2_image *img, struct q2_error *err)
{
    int ret = q2_image_commit_all(img, err);
    return ret < 0 ? ret : q2_io_flush(img->disk.file, err);
}

int q2_switch_begin(struct q2_image *img, struct q2_error *err)
{
    if (!img->disk.writable)
        return q2_fail(err, -EACCES, "'%s' is open for reading only", img->disk.path);
    if (img->header.incompatible_features & Q2_INCOMPAT_DATA_FILE)
        return q2_fail(err, -ENOTSUP,
                       "Operation not supported: the guest's data are in a data file, "
                       "which has no snapshots");
    int ret = q2_image_load_snapshots(img, err);
    return ret < 0 ? ret : q2_switch_settle(img, err);
}

int q2_switch_set_dirty(struct q2_image *img, struct q2_error *err)
{
    return q2_image_set_incompatible(
        img, img->header.incompatible_features | Q2_INCOMPAT_DIRTY, err);
}

int q2_switch_end(struct q2_image *img, struct q2_error *err)
{
    int ret = q2_switch_settle(img, err);
    return ret < 0
               ? ret
               : q2_image_set_incompatible(
                     img, img->header.incompatible_features & ~Q2_INCOMPAT_DIRTY, err);
}

uint64_t q2_switch_snapshots_bytes(const struct q2_image *img)
{
    uint64_t n_bytes = 0;
    for (unsigned i = 0; i < img->n_snapshots; i++)
        n_bytes += q2_snapshot_bytes(&img->snapshots[i]);
    return n_bytes;
}

static int alloc_placed(struct q2_placed *p, uint64_t n_bytes, struct q2_error *err)
{
    p->n_bytes = q2_to_size(n_bytes);
    p->bytes = n_bytes > 0 ? calloc(1, p->n_bytes) : NULL;
    return n_bytes > 0 && !p->bytes ? q2_fail_memory(err, n_bytes) : 0;
}

int q2_switch_encode_snapshots(const struct q2_image *img, int without,
                               const struct q2_snapshot *added, struct q2_placed *out,
                               struct q2_error *err)
{
    uint64_t n_bytes = q2_switch_snapshots_bytes(img);
    if (without >= 0)
        n_bytes -= q2_snapshot_bytes(&img->snapshots[without]);
    if (added)
        n_bytes += q2_snapshot_bytes(added);
    if (n_bytes > Q2_MAX_SNAPSHOT_TABLE_BYTES)
        return q2_fail(err, -EFBIG,
                       "the snapshot table would be longer than %" PRIu64 " bytes",
                       Q2_MAX_SNAPSHOT_TABLE_BYTES);
    int ret = alloc_placed(out, n_bytes, err);
    if (ret < 0)
        return ret;
    uint8_t *at = out->bytes;
    for (unsigned i = 0; i < img->n_snapshots; i++) {
        if ((int)i == without)
            continue;
        q2_snapshot_encode(&img->snapshots[i], at);
        at += q2_snapshot_bytes(&img->snapshots[i]);
    }
    if (added)
        q2_snapshot_encode(added, at);
    return 0;
}

int q2_switch_encode_l1(const uint64_t *l1, uint32_t n_entries, struct q2_placed *out,
                        struct q2_error *err)
{
    int ret = alloc_placed(out, q2_align_up((uint64_t)n_entries * 8, 512), err);
    if (ret < 0)
        return ret;
    q2_table_encode(l1, out->bytes, n_entries);
    for (uint32_t i = 0; out->bytes && i < n_entries; i++)
        out->bytes[i * (size_t)8] &= 0x7f;
    return 0;
}

int q2_switch_place(struct q2_image *img, struct q2_placed *p, const char *what,
                    struct q2_error *err)
{
    if (p->n_bytes == 0)
        return 0;
    int ret = q2_alloc_exact(img, q2_div_round_up(p->n_bytes, img->cluster_size), what,
                             &p->offset, err);
    if (ret == 0) {
        ret = q2_io_write(img->disk.file, p->offset, p->bytes, p->n_bytes, err);
        if (ret < 0)
            q2_alloc_undo(img, p->offset, p->n_bytes);
    }
    if (ret < 0)
        p->offset = 0;
    return ret;
}

void q2_switch_drop(struct q2_image *img, struct q2_placed *p, bool placed)
{
    if (placed && p->offset != 0)
        q2_alloc_undo(img, p->offset, p->n_bytes);
    free(p->bytes);
    *p = (struct q2_placed){0};
}
