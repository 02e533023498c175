// SPDX-License-Identifier: MIT
// Raw disks.
#include "image/raw.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/checked.h"
#include "io/window.h"

static int raw_read(struct q2_disk *d, uint64_t guest_offset, void *buf, size_t n_bytes,
                    struct q2_error *err)
{
    return q2_disk_load(d, guest_offset, guest_offset, buf, n_bytes, err);
}

static int raw_status(struct q2_disk *d, uint64_t guest_offset, uint64_t n_bytes,
                      struct q2_extent *e, struct q2_error *err)
{
    uint64_t file_size, start, n = n_bytes;
    struct q2_io *file = q2_window_file(d->file, &start);
    bool data = false; // the last sector's rest behind the end of the file
    int ret = q2_io_get_size(d->file, &file_size, err);
    if (ret == 0 && q2_align_up(file_size, 512) < d->size)
        ret = q2_fail(err, -EIO,
                      "'%s' has become shorter (%" PRIu64 " bytes) while it was read",
                      d->path, file_size);
    if (ret < 0)
        return ret;
    if (guest_offset < file_size) {
        ret = q2_io_extent(d->file, guest_offset, &n, &data, err);
        n = q2_min_u64(n, file_size - guest_offset);
    }
    *e = (struct q2_extent){.n_bytes = q2_min_u64(n, n_bytes),
                            .allocated = true,
                            .zero = !data,
                            .data = data,
                            .has_offset = true,
                            .host_offset = start + guest_offset,
                            .file = file};
    return ret;
}

static int raw_write_begin(struct q2_disk *d, uint64_t guest_offset, size_t n_bytes,
                           struct q2_write *w, struct q2_error *err)
{
    (void)err;
    *w = (struct q2_write){.guest_offset = guest_offset,
                           .n_bytes = n_bytes,
                           .host_offset = guest_offset,
                           .fresh = d->file->new_content && d->file->sparse_growth};
    return 0;
}

static int raw_write_finish(struct q2_disk *d, const struct q2_write *w,
                            struct q2_error *err)
{
    (void)d;
    (void)w;
    (void)err;
    return 0;
}

static void raw_write_cancel(struct q2_disk *d, const struct q2_write *w)
{
    (void)d;
    (void)w;
}

static int raw_write_zeroes(struct q2_disk *d, uint64_t guest_offset, uint64_t n_bytes,
                            unsigned flags, struct q2_error *err)
{
    uint64_t file_size;
    int ret = q2_io_get_size(d->file, &file_size, err);
    if (ret < 0 || guest_offset >= file_size)
        return ret;
    return q2_io_zero(d->file, guest_offset,
                      q2_min_u64(n_bytes, file_size - guest_offset),
                      (flags & Q2_ZERO_UNMAP) != 0, err);
}

static int raw_discard(struct q2_disk *d, uint64_t guest_offset, uint64_t n_bytes,
                       struct q2_error *err)
{
    uint64_t file_size;
    if (!d->discard_unmap)
        return 0;
    int ret = q2_io_get_size(d->file, &file_size, err);
    if (ret < 0 || guest_offset >= file_size)
        return ret;
    return q2_io_discard(d->file, guest_offset,
                         q2_min_u64(n_bytes, file_size - guest_offset), err);
}

static int raw_flush(struct q2_disk *d, struct q2_error *err)
{
    return d->writable ? q2_io_flush(d->file, err) : 0;
}

static void raw_release(struct q2_disk *d)
{
    free(d);
}

static const struct q2_disk_ops raw_ops = {
    .format = "raw",
    .read = raw_read,
    .status = raw_status,
    .write_begin = raw_write_begin,
    .write_finish = raw_write_finish,
    .write_cancel = raw_write_cancel,
    .write_zeroes = raw_write_zeroes,
    .discard = raw_discard,
    .flush = raw_flush,
    .release = raw_release,
};

int q2_raw_open(struct q2_io *io, bool writable, struct q2_disk **out,
                struct q2_error *err)
{
    uint64_t size;
    int ret = q2_io_get_size(io, &size, err);
    if (ret < 0)
        return ret;
    struct q2_disk *d = calloc(1, sizeof(*d));
    if (!d)
        return q2_fail_memory(err, sizeof(*d));
    *d = (struct q2_disk){.ops = &raw_ops,
                          .file = io,
                          .data = io,
                          .data_align = 1,
                          .size = q2_align_up(size, 512),
                          .writable = writable};
    *out = d;
    return 0;
}
