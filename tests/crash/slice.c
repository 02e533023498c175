// SPDX-License-Identifier: MIT
// The end of a file, as a file of its own.
#include "tests/crash/slice.h"

#include <stdlib.h>

struct slice {
    struct q2_io io;
    struct q2_io *whole;
    uint64_t start;
};

static const struct slice *slice_of(const struct q2_io *io)
{
    return (const struct slice *)io;
}

static int slice_read(struct q2_io *io, uint64_t offset, void *buf, size_t n_bytes,
                      struct q2_error *err)
{
    const struct slice *s = slice_of(io);
    return q2_io_read(s->whole, s->start + offset, buf, n_bytes, err);
}

static int slice_write(struct q2_io *io, uint64_t offset, const void *buf, size_t n_bytes,
                       struct q2_error *err)
{
    const struct slice *s = slice_of(io);
    return q2_io_write(s->whole, s->start + offset, buf, n_bytes, err);
}

static int slice_flush(struct q2_io *io, struct q2_error *err)
{
    return q2_io_flush(slice_of(io)->whole, err);
}

static int slice_set_size(struct q2_io *io, uint64_t size, struct q2_error *err)
{
    return q2_io_set_size(slice_of(io)->whole, slice_of(io)->start + size, err);
}

static int slice_get_size(struct q2_io *io, uint64_t *size, struct q2_error *err)
{
    uint64_t whole = 0, start = slice_of(io)->start;
    int ret = q2_io_get_size(slice_of(io)->whole, &whole, err);
    *size = whole > start ? whole - start : 0;
    return ret;
}

static int slice_zero(struct q2_io *io, uint64_t offset, uint64_t n_bytes, bool unmap,
                      struct q2_error *err)
{
    const struct slice *s = slice_of(io);
    return q2_io_zero(s->whole, s->start + offset, n_bytes, unmap, err);
}

static int slice_discard(struct q2_io *io, uint64_t offset, uint64_t n_bytes,
                         struct q2_error *err)
{
    const struct slice *s = slice_of(io);
    return q2_io_discard(s->whole, s->start + offset, n_bytes, err);
}

static int slice_allocate(struct q2_io *io, uint64_t offset, uint64_t n_bytes,
                          struct q2_error *err)
{
    const struct slice *s = slice_of(io);
    return q2_io_allocate(s->whole, s->start + offset, n_bytes, err);
}

static int slice_extent(struct q2_io *io, uint64_t offset, uint64_t *n_bytes, bool *data,
                        struct q2_error *err)
{
    const struct slice *s = slice_of(io);
    return q2_io_extent(s->whole, s->start + offset, n_bytes, data, err);
}

static int slice_disk_usage(struct q2_io *io, uint64_t *n_bytes, struct q2_error *err)
{
    return q2_io_disk_usage(slice_of(io)->whole, n_bytes, err);
}

static void slice_close(struct q2_io *io)
{
    free(io);
}

static const struct q2_io_ops slice_ops = {
    .read = slice_read,
    .write = slice_write,
    .flush = slice_flush,
    .set_size = slice_set_size,
    .get_size = slice_get_size,
    .zero = slice_zero,
    .discard = slice_discard,
    .allocate = slice_allocate,
    .extent = slice_extent,
    .disk_usage = slice_disk_usage,
    .close = slice_close,
};

int slice_open(struct q2_io *whole, uint64_t start, struct q2_io **out,
               struct q2_error *err)
{
    struct slice *s = calloc(1, sizeof(*s));
    if (!s)
        return q2_fail_memory(err, sizeof(*s));
    *s = (struct slice){
        .io = {.ops = &slice_ops, .name = whole->name, .writable = whole->writable},
        .whole = whole,
        .start = start};
    s->io.sparse_growth = true;
    *out = &s->io;
    return 0;
}
