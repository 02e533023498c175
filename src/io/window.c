// SPDX-License-Identifier: MIT
// A part of a file. The calls of io.c have checked the ranges before they come here.
#include "io/window.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

struct window_io {
    struct q2_io io;
    struct q2_io *below;
    struct q2_window window;
};

static struct window_io *window_of(struct q2_io *io)
{
    return (struct window_io *)io;
}

static int window_read(struct q2_io *io, uint64_t offset, void *buf, size_t n_bytes,
                       struct q2_error *err)
{
    const struct window_io *w = window_of(io);
    return q2_io_read_exact(w->below, w->window.start + offset, buf, n_bytes, err);
}

// A range that is to be there must end inside of a window that cannot grow.
static int check_room(const struct window_io *w, uint64_t offset, uint64_t n_bytes,
                      struct q2_error *err)
{
    if (!w->window.has_size || offset + n_bytes <= w->window.size)
        return 0;
    return q2_fail_errno(
        err, -ENOSPC, "Could not write %" PRIu64 " bytes at offset %" PRIu64 " of '%s'",
        n_bytes, offset, w->io.name);
}

static int window_write(struct q2_io *io, uint64_t offset, const void *buf,
                        size_t n_bytes, struct q2_error *err)
{
    const struct window_io *w = window_of(io);
    int ret = check_room(w, offset, n_bytes, err);
    return ret ? ret : q2_io_write(w->below, w->window.start + offset, buf, n_bytes, err);
}

static int window_flush(struct q2_io *io, struct q2_error *err)
{
    return q2_io_flush(window_of(io)->below, err);
}

static int window_set_size(struct q2_io *io, uint64_t size, struct q2_error *err)
{
    const struct window_io *w = window_of(io);
    uint64_t end;
    if (w->window.has_size)
        return q2_fail(err, -ENOTSUP, "Cannot resize fixed-size raw disks");
    if (!q2_add_u64(w->window.start, size, &end))
        return q2_fail(err, -EINVAL, "Disk size too large for the chosen offset");
    return q2_io_set_size(w->below, end, err);
}

static int window_get_size(struct q2_io *io, uint64_t *size, struct q2_error *err)
{
    const struct window_io *w = window_of(io);
    uint64_t whole;
    int ret = q2_io_get_size(w->below, &whole, err);
    if (ret < 0)
        return ret;
    *size = whole > w->window.start ? whole - w->window.start : 0;
    if (w->window.has_size)
        *size = q2_min_u64(*size, w->window.size);
    return 0;
}

static int window_zero(struct q2_io *io, uint64_t offset, uint64_t n_bytes, bool unmap,
                       struct q2_error *err)
{
    const struct window_io *w = window_of(io);
    return q2_io_zero(w->below, w->window.start + offset, n_bytes, unmap, err);
}

static int window_discard(struct q2_io *io, uint64_t offset, uint64_t n_bytes,
                          struct q2_error *err)
{
    const struct window_io *w = window_of(io);
    return q2_io_discard(w->below, w->window.start + offset, n_bytes, err);
}

static int window_allocate(struct q2_io *io, uint64_t offset, uint64_t n_bytes,
                           struct q2_error *err)
{
    const struct window_io *w = window_of(io);
    int ret = check_room(w, offset, n_bytes, err);
    return ret ? ret : q2_io_allocate(w->below, w->window.start + offset, n_bytes, err);
}

static int window_extent(struct q2_io *io, uint64_t offset, uint64_t *n_bytes, bool *data,
                         struct q2_error *err)
{
    const struct window_io *w = window_of(io);
    return q2_io_extent(w->below, w->window.start + offset, n_bytes, data, err);
}

static int window_disk_usage(struct q2_io *io, uint64_t *n_bytes, struct q2_error *err)
{
    return q2_io_disk_usage(window_of(io)->below, n_bytes, err);
}

static void window_close(struct q2_io *io)
{
    q2_io_close(window_of(io)->below);
    free(io->name);
    free(io);
}

static const struct q2_io_ops window_ops = {
    .read = window_read,
    .write = window_write,
    .flush = window_flush,
    .set_size = window_set_size,
    .get_size = window_get_size,
    .zero = window_zero,
    .discard = window_discard,
    .allocate = window_allocate,
    .extent = window_extent,
    .disk_usage = window_disk_usage,
    .close = window_close,
};

static int check_window(struct q2_io *io, const struct q2_window *window,
                        struct q2_error *err)
{
    uint64_t size;
    int ret = q2_io_get_size(io, &size, err);
    if (ret < 0)
        return ret;
    size = q2_align_up(size, 512); // QEMU counts the size of a file in sectors
    if (window->start > size)
        return q2_fail(err, -EINVAL,
                       "Offset (%" PRIu64 ") cannot be greater than size of the "
                       "containing file (%" PRIu64 ")",
                       window->start, size);
    if (window->has_size && window->size > size - window->start)
        return q2_fail(err, -EINVAL,
                       "The sum of offset (%" PRIu64 ") and size (%" PRIu64
                       ") has to be smaller or equal to the  actual size of the "
                       "containing file (%" PRIu64 ")",
                       window->start, window->size, size);
    if (window->has_size && window->size % 512)
        return q2_fail(err, -EINVAL, "Specified size is not multiple of 512");
    return 0;
}

int q2_window_open(struct q2_io *io, const struct q2_window *window, struct q2_io **out,
                   struct q2_error *err)
{
    int ret = check_window(io, window, err);
    if (ret < 0)
        return ret;
    struct window_io *w = calloc(1, sizeof(*w));
    char *name = strdup(window->name ? window->name : io->name);
    if (!w || !name) {
        free(w);
        free(name);
        return q2_fail_memory(err, sizeof(*w));
    }
    *w = (struct window_io){.io = {.ops = &window_ops,
                                   .name = name,
                                   .writable = io->writable,
                                   .sparse_growth = io->sparse_growth},
                            .below = io,
                            .window = *window};
    *out = &w->io;
    return 0;
}

struct q2_io *q2_window_below(const struct q2_io *io)
{
    return io->ops == &window_ops ? ((const struct window_io *)io)->below : NULL;
}

struct q2_io *q2_window_file(struct q2_io *io, uint64_t *start)
{
    struct q2_io *below;
    *start = 0;
    for (; (below = q2_window_below(io)) != NULL; io = below)
        *start += window_of(io)->window.start;
    return io;
}

int q2_window_open_file(const char *path, const struct q2_file_options *options,
                        const struct q2_windows *windows, struct q2_io **out,
                        struct q2_error *err)
{
    struct q2_io *io;
    int ret = q2_file_open(path, options, &io, err);
    if (ret < 0)
        return ret;
    for (unsigned i = 0; windows && ret == 0 && i < windows->n; i++)
        ret = q2_window_open(io, &windows->list[i], &io, err);
    if (ret < 0)
        q2_io_close(io);
    else
        *out = io;
    return ret;
}
