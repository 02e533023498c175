// SPDX-License-Identifier: MIT
// Targets that change images: snapshots (and guest writes between them), amend, bitmaps.
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "ops/amend.h"
#include "ops/bitmap.h"
#include "ops/resize.h"
#include "ops/snapshot.h"
#include "tests/fuzz/fuzz.h"

#define N(list) ((unsigned)(sizeof(list) / sizeof((list)[0])))

// --- snapshots -----------------------------------------------------------------------

static int create(struct q2_image *img, const uint8_t a[3], struct q2_error *err)
{
    const char name[] = {(char)('a' + a[0] % 3), '\0'};
    return q2_snapshot_create(&img->disk, name, NULL, err);
}

// One that is there, by its id or its name.
static int choose(struct q2_image *img, const uint8_t a[3], char spec[256],
                  struct q2_error *err)
{
    int ret = q2_image_load_snapshots(img, err);
    if (ret < 0)
        return ret;
    if (img->n_snapshots == 0)
        return q2_fail(err, -ENOENT, "no snapshot");
    const struct q2_snapshot *s = &img->snapshots[a[0] % img->n_snapshots];
    snprintf(spec, 256, "%s", a[1] & 1 ? s->id : s->name);
    return 0;
}

static int apply(struct q2_image *img, const uint8_t a[3], struct q2_error *err)
{
    char spec[256];
    int ret = choose(img, a, spec, err);
    return ret < 0 ? ret : q2_snapshot_apply(&img->disk, spec, NULL, err);
}

static int delete (struct q2_image *img, const uint8_t a[3], struct q2_error *err)
{
    char spec[256];
    int ret = choose(img, a, spec, err);
    return ret < 0 ? ret : q2_snapshot_delete(&img->disk, spec, NULL, err);
}

// A range of the disk, most of all at its start.
static uint64_t range(const struct q2_image *img, const uint8_t a[3], uint64_t *n_bytes)
{
    uint64_t size = img->disk.size, offset = (uint64_t)a[1] * 700;
    if (a[0] & 0x80)
        offset <<= a[1] % 40;
    offset = size > 0 ? offset % size : 0;
    *n_bytes = q2_min_u64(size - offset, 1 + (uint64_t)a[2] * 300);
    return offset;
}

static int write_data(struct q2_image *img, const uint8_t a[3], struct q2_error *err)
{
    static uint8_t buf[1 + 255 * 300];
    uint64_t n, offset = range(img, a, &n);
    memset(buf, a[0], sizeof(buf));
    if (n == 0)
        return 0;
    if (!(a[0] & 1))
        return q2_disk_write(&img->disk, offset, buf, (size_t)n, err);
    offset = q2_align_down(offset, img->cluster_size);
    n = q2_min_u64(img->disk.size - offset, img->cluster_size);
    if (n > sizeof(buf))
        return q2_fail(err, -ENOTSUP, "clusters too large to play with");
    return q2_disk_write_compressed(&img->disk, offset, buf, (size_t)n, err);
}

static int write_zeroes(struct q2_image *img, const uint8_t a[3], struct q2_error *err)
{
    uint64_t n, offset = range(img, a, &n);
    if (n == 0)
        return 0;
    if (a[0] & 1)
        return q2_disk_discard(&img->disk, offset, n, err);
    return q2_disk_write_zeroes(&img->disk, offset, n, a[0] & 2 ? Q2_ZERO_UNMAP : 0, err);
}

// Applying a snapshot changes the active state, deleting one what there is to read.
static const struct fuzz_operation snapshot_operations[] = {
    {FUZZ_METADATA, false, create},   {FUZZ_METADATA, true, apply},
    {FUZZ_METADATA, true, delete},    {FUZZ_WRITE, true, write_data},
    {FUZZ_WRITE, true, write_zeroes},
};

void fuzz_target_snapshots(const uint8_t *data, size_t n_bytes)
{
    fuzz_operate(data, n_bytes, snapshot_operations, N(snapshot_operations));
}

// --- amend, resize -------------------------------------------------------------------

static int version(struct q2_image *img, const uint8_t a[3], struct q2_error *err)
{
    const struct q2_amend_options o = {.set_version = true, .version = a[0] & 1 ? 2 : 3};
    return q2_amend(&img->disk, &o, NULL, err);
}

static int refcount_bits(struct q2_image *img, const uint8_t a[3], struct q2_error *err)
{
    const struct q2_amend_options o = {.set_refcount_bits = true,
                                       .refcount_bits = UINT64_C(1) << (a[0] % 8)};
    return q2_amend(&img->disk, &o, NULL, err);
}

static int switches(struct q2_image *img, const uint8_t a[3], struct q2_error *err)
{
    const struct q2_amend_options o = {
        .set_lazy_refcounts = a[0] & 1,
        .lazy_refcounts = a[0] & 2,
        .set_data_file_raw = a[0] & 4,
        .data_file_raw = a[0] & 8,
        .set_version = a[0] & 16,
        .version = a[0] & 32 ? 2 : 3,
    };
    return q2_amend(&img->disk, &o, NULL, err);
}

static int backing(struct q2_image *img, const uint8_t a[3], struct q2_error *err)
{
    static const char *const names[] = {"", "b", "../base.raw", "json:{}"};
    const struct q2_amend_options o = {.set_backing = true,
                                       .backing_file = names[a[0] % 4],
                                       .backing_format = a[1] & 1 ? "raw" : NULL};
    return q2_amend(&img->disk, &o, NULL, err);
}

// Up to what can be grown in no time.
static uint64_t new_size(const struct q2_image *img, const uint8_t a[3])
{
    uint64_t n = ((uint64_t)a[1] << 8 | a[2]) << (a[0] % 12), size;
    if (!(a[0] & 0x80))
        return n;
    return q2_add_u64(img->disk.size, n, &size) ? size : UINT64_MAX;
}

static int resize(struct q2_image *img, const uint8_t a[3], struct q2_error *err)
{
    return q2_resize(&img->disk, new_size(img, a), Q2_PREALLOC_OFF, NULL, err);
}

static int amend_size(struct q2_image *img, const uint8_t a[3], struct q2_error *err)
{
    const struct q2_amend_options o = {.set_size = true, .size = new_size(img, a)};
    return q2_amend(&img->disk, &o, NULL, err);
}

static const struct fuzz_operation amend_operations[] = {
    {FUZZ_METADATA, false, version},  {FUZZ_METADATA, false, refcount_bits},
    {FUZZ_METADATA, false, switches}, {FUZZ_METADATA, true, backing},
    {FUZZ_WRITE, true, resize},       {FUZZ_WRITE, true, amend_size},
};

void fuzz_target_amend(const uint8_t *data, size_t n_bytes)
{
    fuzz_operate(data, n_bytes, amend_operations, N(amend_operations));
}

// --- bitmaps -------------------------------------------------------------------------

static int change_bitmap(struct q2_image *img, const uint8_t a[3], struct q2_error *err)
{
    static const char *const names[] = {"a", "b", "c", ""};
    const struct q2_bitmap_action action = {
        .act = (enum q2_bitmap_act)(a[0] % (Q2_BITMAP_MERGE + 1)),
        .source = names[a[2] % 4],
    };
    const struct q2_bitmap_request r = {.name = names[a[1] % 4],
                                        .granularity = UINT64_C(256) << (a[1] >> 4),
                                        .actions = &action,
                                        .n_actions = 1};
    return q2_bitmap_change(&img->disk, &r, err);
}

static const struct fuzz_operation bitmap_operations[] = {
    {FUZZ_METADATA, false, change_bitmap}, {FUZZ_METADATA, false, change_bitmap},
    {FUZZ_WRITE, true, write_data},        {FUZZ_WRITE, true, resize},
    {FUZZ_METADATA, true, apply},
};

void fuzz_target_bitmaps(const uint8_t *data, size_t n_bytes)
{
    fuzz_operate(data, n_bytes, bitmap_operations, N(bitmap_operations));
}
