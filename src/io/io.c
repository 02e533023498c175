// SPDX-License-Identifier: MIT
// What all implementations have in common: checks of ranges, and the end of the file.
#include "io/io.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/checked.h"

// off_t is the narrowest type that a range goes through.
#define MAX_OFFSET ((uint64_t)INT64_MAX)

static int check_range(const struct q2_io *io, const char *verb, uint64_t offset,
                       uint64_t n_bytes, struct q2_error *err)
{
    uint64_t end;
    if (q2_add_u64(offset, n_bytes, &end) && end <= MAX_OFFSET)
        return 0;
    return q2_fail_errno(err, -EFBIG,
                         "Could not %s %" PRIu64 " bytes at offset %" PRIu64 " of '%s'",
                         verb, n_bytes, offset, io->name);
}

static int check_change(const struct q2_io *io, const char *verb, uint64_t offset,
                        uint64_t n_bytes, struct q2_error *err)
{
    if (!io->writable)
        return q2_fail(err, -EBADF,
                       "Could not %s %" PRIu64 " bytes at offset %" PRIu64
                       " of '%s': It is open for reading only",
                       verb, n_bytes, offset, io->name);
    return check_range(io, verb, offset, n_bytes, err);
}

static void size_seen(struct q2_io *io, uint64_t size)
{
    uint64_t known = atomic_load_explicit(&io->known_size, memory_order_relaxed);
    while (size > known &&
           !atomic_compare_exchange_weak_explicit(
               &io->known_size, &known, size, memory_order_relaxed, memory_order_relaxed))
        ;
}

// How many of n_bytes at offset lie inside the file.
static int clip(struct q2_io *io, uint64_t offset, size_t n_bytes, size_t *inside,
                struct q2_error *err)
{
    uint64_t known = atomic_load_explicit(&io->known_size, memory_order_relaxed);
    uint64_t size = known;

    if (offset + n_bytes > known) {
        int ret = q2_io_get_size(io, &size, err);
        if (ret < 0)
            return ret;
    }
    if (size < known && offset < known)
        return q2_fail(err, -EIO,
                       "'%s' ended at byte %" PRIu64 " while reading at offset %" PRIu64
                       ": it has become shorter while it was read",
                       io->name, size, offset);

    *inside = offset >= size ? 0 : (size_t)q2_min_u64(n_bytes, size - offset);
    return 0;
}

int q2_io_read(struct q2_io *io, uint64_t offset, void *buf, size_t n_bytes,
               struct q2_error *err)
{
    size_t inside;

    int ret = check_range(io, "read", offset, n_bytes, err);
    if (ret == 0)
        ret = clip(io, offset, n_bytes, &inside, err);
    if (ret == 0 && inside)
        ret = io->ops->read(io, offset, buf, inside, err);
    if (ret < 0)
        return ret;

    memset((char *)buf + inside, 0, n_bytes - inside);
    return 0;
}

int q2_io_read_exact(struct q2_io *io, uint64_t offset, void *buf, size_t n_bytes,
                     struct q2_error *err)
{
    size_t inside;

    int ret = check_range(io, "read", offset, n_bytes, err);
    if (ret == 0)
        ret = clip(io, offset, n_bytes, &inside, err);
    if (ret < 0)
        return ret;
    if (inside < n_bytes)
        return q2_fail(err, -EIO,
                       "Could not read %zu bytes at offset %" PRIu64
                       " of '%s': The file ends at byte %" PRIu64,
                       n_bytes, offset, io->name,
                       atomic_load_explicit(&io->known_size, memory_order_relaxed));
    return n_bytes ? io->ops->read(io, offset, buf, n_bytes, err) : 0;
}

int q2_io_write(struct q2_io *io, uint64_t offset, const void *buf, size_t n_bytes,
                struct q2_error *err)
{
    int ret = check_change(io, "write", offset, n_bytes, err);
    if (ret < 0 || n_bytes == 0)
        return ret;

    ret = io->ops->write(io, offset, buf, n_bytes, err);
    if (ret == 0)
        size_seen(io, offset + n_bytes);
    return ret;
}

int q2_io_flush(struct q2_io *io, struct q2_error *err)
{
    return io->ops->flush(io, err);
}

int q2_io_set_size(struct q2_io *io, uint64_t size, struct q2_error *err)
{
    if (!io->writable)
        return q2_fail(err, -EBADF,
                       "Could not resize '%s' to %" PRIu64
                       " bytes: It is open for reading only",
                       io->name, size);
    if (size > MAX_OFFSET)
        return q2_fail_errno(err, -EFBIG, "Could not resize '%s' to %" PRIu64 " bytes",
                             io->name, size);

    int ret = io->ops->set_size(io, size, err);
    if (ret == 0)
        atomic_store_explicit(&io->known_size, size, memory_order_relaxed);
    return ret;
}

int q2_io_get_size(struct q2_io *io, uint64_t *size, struct q2_error *err)
{
    int ret = io->ops->get_size(io, size, err);
    if (ret == 0)
        size_seen(io, *size);
    return ret;
}

int q2_io_zero(struct q2_io *io, uint64_t offset, uint64_t n_bytes, bool unmap,
               struct q2_error *err)
{
    int ret = check_change(io, "zero", offset, n_bytes, err);
    if (ret < 0 || n_bytes == 0)
        return ret;

    ret = io->ops->zero(io, offset, n_bytes, unmap, err);
    if (ret == 0)
        size_seen(io, offset + n_bytes);
    return ret;
}

int q2_io_discard(struct q2_io *io, uint64_t offset, uint64_t n_bytes,
                  struct q2_error *err)
{
    int ret = check_change(io, "discard", offset, n_bytes, err);
    if (ret < 0 || n_bytes == 0)
        return ret;
    return io->ops->discard(io, offset, n_bytes, err);
}

int q2_io_allocate(struct q2_io *io, uint64_t offset, uint64_t n_bytes,
                   struct q2_error *err)
{
    int ret = check_change(io, "allocate", offset, n_bytes, err);
    if (ret < 0 || n_bytes == 0)
        return ret;

    ret = io->ops->allocate(io, offset, n_bytes, err);
    if (ret == 0)
        size_seen(io, offset + n_bytes);
    return ret;
}

int q2_io_extent(struct q2_io *io, uint64_t offset, uint64_t *n_bytes, bool *data,
                 struct q2_error *err)
{
    return io->ops->extent(io, offset, n_bytes, data, err);
}

int q2_io_copy(struct q2_io *io, uint64_t offset, const struct q2_io *from,
               uint64_t from_offset, uint64_t n_bytes, struct q2_error *err)
{
    int ret = check_change(io, "write", offset, n_bytes, err);
    if (ret == 0)
        ret = check_range(from, "read", from_offset, n_bytes, err);
    if (ret < 0 || n_bytes == 0)
        return ret;
    if (!io->ops->copy)
        return q2_fail(err, -ENOTSUP, "'%s' takes no copies of ranges", io->name);

    ret = io->ops->copy(io, offset, from, from_offset, n_bytes, err);
    if (ret == 0)
        size_seen(io, offset + n_bytes);
    return ret;
}

int q2_io_disk_usage(struct q2_io *io, uint64_t *n_bytes, struct q2_error *err)
{
    return io->ops->disk_usage(io, n_bytes, err);
}

void q2_io_close(struct q2_io *io)
{
    if (io)
        io->ops->close(io);
}
