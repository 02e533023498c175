// SPDX-License-Identifier: MIT
// Reading what an image says of itself: header, snapshots, bitmaps, LUKS header. Every
// length in them is a claim: no more is read than the file holds.
#include "ops/info.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/bitmaps.h"
#include "image/open.h"

static int read_luks(struct q2_io *io, struct q2_info *info, struct q2_error *err)
{
    const struct q2_header *h = &info->header;
    uint8_t buf[Q2_LUKS_HEADER_BYTES];
    if (h->crypt_method != Q2_CRYPT_LUKS || !h->has_crypto)
        return 0;
    int rc = q2_io_read(io, h->crypto_header_offset, buf, sizeof(buf), err);
    if (!rc)
        rc = q2_luks_decode(buf, sizeof(buf), &info->luks, err);
    info->has_luks = !rc;
    return rc;
}

// A name that is no local path (a URL, json:) stands for itself.
static int resolve_backing(const char *path, struct q2_info *info, struct q2_error *err)
{
    struct q2_error unresolved = Q2_ERROR_INIT;
    const char *name = info->header.backing_file;
    if (!name)
        return 0;
    int rc = q2_backing_path(path, name, &info->full_backing_filename, &unresolved);
    if (rc == -ENOMEM)
        return q2_fail_memory(err, strlen(name));
    if (rc)
        info->full_backing_filename = strdup(name);
    return info->full_backing_filename ? 0 : q2_fail_memory(err, strlen(name));
}

// Before anything is printed, it is known that all of them can be.
static int count_snapshot(void *opaque, struct q2_snapshot *s, struct q2_error *err)
{
    (void)s;
    (void)err;
    ++*(unsigned *)opaque;
    return 0;
}

static int count_bitmap(void *opaque, const struct q2_bitmap *b, struct q2_error *err)
{
    (void)b;
    (void)err;
    ++*(unsigned *)opaque;
    return 0;
}

int q2_info_each_snapshot(const struct q2_info *info, q2_take_snapshot *take,
                          void *opaque, struct q2_error *err)
{
    if (info->n_snapshots == 0)
        return 0;
    return q2_image_each_snapshot(q2_image_of(info->disk), take, opaque, err);
}

int q2_info_each_bitmap(const struct q2_info *info, q2_take_bitmap *take, void *opaque,
                        struct q2_error *err)
{
    if (info->n_bitmaps == 0)
        return 0;
    return q2_bitmaps_each(info->disk->file, &info->header, take, opaque, err);
}

static int read_qcow2(struct q2_disk *d, struct q2_info *info, struct q2_error *err)
{
    struct q2_image *img = q2_image_of(d);
    info->is_qcow2 = true;
    int rc = q2_header_copy(&img->header, &info->header, err);
    if (!rc)
        rc = resolve_backing(d->path, info, err);
    if (!rc)
        rc = q2_image_each_snapshot(img, count_snapshot, &info->n_snapshots, err);
    if (!rc)
        rc = q2_bitmaps_each(d->file, &info->header, count_bitmap, &info->n_bitmaps, err);
    return rc ? rc : read_luks(d->file, info, err);
}

// Of the file, and of the parts that lie over it.
static int read_sizes(struct q2_io *io, struct q2_info *info, struct q2_error *err)
{
    struct q2_io *levels[Q2_MAX_WINDOWS + 1] = {NULL};
    unsigned n = 0;
    int rc = 0;
    for (; io && n <= Q2_MAX_WINDOWS; io = q2_window_below(io))
        levels[n++] = io;
    assert(n > 0);
    info->n_parts = n - 1;
    for (unsigned i = 0; !rc && i < info->n_parts; i++)
        rc = q2_io_get_size(levels[n - 2 - i], &info->parts[i].size, err);
    return rc ? rc : q2_io_get_size(levels[n - 1], &info->file_length, err);
}

static int read_disk(struct q2_disk *d, struct q2_info *info, struct q2_error *err)
{
    info->filename = strdup(d->path);
    if (!info->filename)
        return q2_fail_memory(err, strlen(d->path));
    info->format = d->ops->format;
    info->virtual_size = d->size;
    int rc = read_sizes(d->file, info, err);
    if (!rc)
        rc = q2_io_disk_usage(d->file, &info->disk_usage, err);
    if (!rc && !strcmp(info->format, "qcow2"))
        rc = read_qcow2(d, info, err);
    return rc;
}

int q2_info_of(struct q2_disk *d, struct q2_info *out, struct q2_error *err)
{
    struct q2_info info = {.filename = NULL};
    int rc = read_disk(d, &info, err);
    if (rc) {
        q2_info_clear(&info);
        return rc;
    }
    *out = info;
    out->disk = d;
    return 0;
}

int q2_info_read(const char *path, const char *format, bool shared,
                 const struct q2_runtime *runtime, struct q2_info *out,
                 struct q2_error *err)
{
    struct q2_open_options options = {.format = format,
                                      .no_backing = true,
                                      .image_only = true,
                                      .unsafe_share = shared,
                                      .beside_writer = true,
                                      .runtime = runtime};
    struct q2_disk *d;
    int rc = q2_disk_open(path, &options, &d, err);
    if (rc)
        return rc;
    rc = q2_info_of(d, out, err);
    if (rc) {
        q2_context(err, "Could not open '%s'", path);
        q2_disk_close(d);
    }
    return rc;
}

void q2_info_clear(struct q2_info *info)
{
    q2_disk_close(info->disk);
    free(info->full_backing_filename);
    for (unsigned i = 0; i < Q2_MAX_WINDOWS; i++)
        free(info->parts[i].title);
    free(info->filename);
    free(info->title);
    if (info->is_qcow2)
        q2_header_clear(&info->header);
    *info = (struct q2_info){.filename = NULL};
}
