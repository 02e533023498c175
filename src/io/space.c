// SPDX-License-Identifier: MIT
// Size, holes and disk space of a file of the system.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/checked.h"
#include "io/file_private.h"

#define PIECE ((size_t)1 << 20)

static bool is_unsupported(int code)
{
    return code == -EOPNOTSUPP || code == -ENOSYS || code == -ENODEV || code == -ENOTTY;
}

int q2_file_get_size(struct q2_io *io, uint64_t *size, struct q2_error *err)
{
    struct q2_file *f = q2_file_of(io);
    struct stat st;
    uint64_t n;
    off_t end;

    if (f->kind == Q2_FILE_REGULAR) {
        if (fstat(f->fd, &st) < 0)
            return q2_fail_errno(err, -errno, "Could not get the size of '%s'", io->name);
        *size = (uint64_t)st.st_size;
        return 0;
    }
    if (f->kind == Q2_FILE_BLOCK && ioctl(f->fd, BLKGETSIZE64, &n) == 0) {
        *size = n;
        return 0;
    }
    end = lseek(f->fd, 0, SEEK_END);
    if (end < 0)
        return q2_fail_errno(err, -errno, "Could not get the size of '%s'", io->name);
    *size = (uint64_t)end;
    return 0;
}

static int truncate_to(struct q2_file *f, uint64_t size)
{
    int ret;

    if (f->direct)
        pthread_mutex_lock(&f->edge_lock);
    do
        ret = ftruncate(f->fd, (off_t)size);
    while (ret < 0 && errno == EINTR);
    ret = ret < 0 ? -errno : 0;
    if (f->direct)
        pthread_mutex_unlock(&f->edge_lock);
    return ret;
}

// A device has the size it has: fails when it is too small.
static int check_device_size(struct q2_io *io, uint64_t size, struct q2_error *err)
{
    uint64_t have;

    int ret = q2_file_get_size(io, &have, err);
    if (ret == 0 && size > have)
        ret = q2_fail(err, -EINVAL, "Cannot grow device files");
    return ret;
}

int q2_file_set_size(struct q2_io *io, uint64_t size, struct q2_error *err)
{
    struct q2_file *f = q2_file_of(io);

    if (f->kind != Q2_FILE_REGULAR)
        return check_device_size(io, size, err);

    int ret = truncate_to(f, size);
    if (ret < 0)
        return q2_fail_errno(err, ret, "Could not resize '%s' to %" PRIu64 " bytes",
                             io->name, size);
    return 0;
}

static int fallocate_range(struct q2_file *f, int mode, uint64_t offset, uint64_t n_bytes)
{
    int ret;
    do
        ret = fallocate(f->fd, mode, (off_t)offset, (off_t)n_bytes);
    while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : 0;
}

// As fallocate_range, once the way is known not to work -EOPNOTSUPP at once. -EINVAL of a
// device means that this very range is not aligned to its blocks.
static int try_fallocate(struct q2_file *f, int mode, _Atomic bool *unsupported,
                         uint64_t offset, uint64_t n_bytes)
{
    if (*unsupported)
        return -EOPNOTSUPP;
    int ret = fallocate_range(f, mode, offset, n_bytes);
    if (is_unsupported(ret))
        *unsupported = true;
    return is_unsupported(ret) || ret == -EINVAL || ret == -EPERM ? -EOPNOTSUPP : ret;
}

static int write_zeros(struct q2_io *io, uint64_t offset, uint64_t n_bytes,
                       struct q2_error *err)
{
    size_t piece = (size_t)q2_min_u64(n_bytes, PIECE);
    int ret = 0;

    // aligned for O_DIRECT
    void *zeros;
    if (posix_memalign(&zeros, 4096, piece) != 0)
        return q2_fail_memory(err, piece);
    memset(zeros, 0, piece);
    while (n_bytes && ret == 0) {
        size_t n = (size_t)q2_min_u64(n_bytes, piece);
        ret = q2_file_write(io, offset, zeros, n, err);
        offset += n;
        n_bytes -= n;
    }
    free(zeros);
    return ret;
}

static int zero_inside(struct q2_io *io, uint64_t offset, uint64_t n_bytes, bool unmap,
                       struct q2_error *err)
{
    struct q2_file *f = q2_file_of(io);
    int ret = -EOPNOTSUPP;

    if (f->kind != Q2_FILE_CHARACTER) {
        if (unmap)
            ret = try_fallocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                &f->no_punch, offset, n_bytes);
        if (ret == -EOPNOTSUPP)
            ret = try_fallocate(f, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                                &f->no_zero_range, offset, n_bytes);
    }
    if (ret == -EOPNOTSUPP)
        return write_zeros(io, offset, n_bytes, err);
    if (ret < 0)
        return q2_fail_errno(
            err, ret, "Could not zero %" PRIu64 " bytes at offset %" PRIu64 " of '%s'",
            n_bytes, offset, io->name);
    return 0;
}

// Makes the file end at end or later; from (at or behind the old end) to end is ours and
// stays a hole. Not with ftruncate: another thread may make the file longer meanwhile.
static int grow(struct q2_io *io, uint64_t from, uint64_t end, struct q2_error *err)
{
    struct q2_file *f = q2_file_of(io);

    int ret = q2_file_write(io, end - 1, "", 1, err);
    if (ret == 0)
        try_fallocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, &f->no_punch, from,
                      end - from);
    return ret;
}

int q2_file_zero(struct q2_io *io, uint64_t offset, uint64_t n_bytes, bool unmap,
                 struct q2_error *err)
{
    uint64_t end = offset + n_bytes;
    uint64_t size;

    if (q2_file_of(io)->kind != Q2_FILE_REGULAR)
        return zero_inside(io, offset, n_bytes, unmap, err);

    int ret = q2_file_get_size(io, &size, err);
    if (ret == 0 && offset < size)
        ret = zero_inside(io, offset, q2_min_u64(n_bytes, size - offset), unmap, err);
    if (ret == 0 && end > size)
        ret = grow(io, q2_max_u64(offset, size), end, err);
    return ret;
}

int q2_file_discard(struct q2_io *io, uint64_t offset, uint64_t n_bytes,
                    struct q2_error *err)
{
    struct q2_file *f = q2_file_of(io);
    uint64_t range[2] = {offset, n_bytes};
    int ret = 0;

    if (f->kind == Q2_FILE_REGULAR)
        ret = try_fallocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, &f->no_punch,
                            offset, n_bytes);
    else if (f->kind == Q2_FILE_BLOCK && ioctl(f->fd, BLKDISCARD, range) < 0)
        ret = errno == EIO ? -EIO : 0;

    if (ret < 0 && ret != -EOPNOTSUPP)
        return q2_fail_errno(
            err, ret, "Could not discard %" PRIu64 " bytes at offset %" PRIu64 " of '%s'",
            n_bytes, offset, io->name);
    return 0;
}

// Where the file system cannot allocate without writing: write what is there, again.
static int rewrite(struct q2_io *io, uint64_t offset, uint64_t n_bytes,
                   struct q2_error *err)
{
    uint64_t size;
    void *buf;

    int ret = q2_file_get_size(io, &size, err);
    if (ret < 0)
        return ret;
    if (posix_memalign(&buf, 4096, PIECE) != 0)
        return q2_fail_memory(err, PIECE);
    while (n_bytes && ret == 0) {
        size_t n = (size_t)q2_min_u64(n_bytes, PIECE);
        size_t old = offset < size ? (size_t)q2_min_u64(n, size - offset) : 0;
        memset((char *)buf + old, 0, n - old);
        if (old)
            ret = q2_file_read(io, offset, buf, old, err);
        if (ret == 0)
            ret = q2_file_write(io, offset, buf, n, err);
        offset += n;
        n_bytes -= n;
    }
    free(buf);
    return ret;
}

int q2_file_allocate(struct q2_io *io, uint64_t offset, uint64_t n_bytes,
                     struct q2_error *err)
{
    struct q2_file *f = q2_file_of(io);

    if (f->kind != Q2_FILE_REGULAR)
        return check_device_size(io, offset + n_bytes, err);

    if (f->direct)
        pthread_mutex_lock(&f->edge_lock);
    int ret = fallocate_range(f, 0, offset, n_bytes);
    if (f->direct)
        pthread_mutex_unlock(&f->edge_lock);

    if (is_unsupported(ret))
        return rewrite(io, offset, n_bytes, err);
    if (ret < 0)
        return q2_fail_errno(err, ret,
                             "Could not allocate %" PRIu64 " bytes at offset %" PRIu64
                             " of '%s'",
                             n_bytes, offset, io->name);
    return 0;
}

// Is offset in the extent of data that was last seen? (What has become a hole since then
// is read as what it is.)
static bool recall_data(struct q2_file *f, uint64_t offset, uint64_t *n_bytes)
{
    if (f->io.writable)
        return false;
    pthread_mutex_lock(&f->extent_lock);
    bool inside = offset >= f->data_start && offset < f->data_end;
    if (inside)
        *n_bytes = f->data_end - offset;
    pthread_mutex_unlock(&f->extent_lock);
    return inside;
}

static void remember_data(struct q2_file *f, uint64_t offset, uint64_t n_bytes)
{
    pthread_mutex_lock(&f->extent_lock);
    f->data_start = offset;
    f->data_end = offset + n_bytes;
    pthread_mutex_unlock(&f->extent_lock);
}

int q2_file_extent(struct q2_io *io, uint64_t offset, uint64_t *n_bytes, bool *data,
                   struct q2_error *err)
{
    struct q2_file *f = q2_file_of(io);
    uint64_t size;

    int ret = q2_io_get_size(io, &size, err);
    if (ret < 0)
        return ret;
    if (offset >= size)
        return q2_fail(err, -EIO,
                       "'%s' ended at byte %" PRIu64 " while reading at offset %" PRIu64
                       ": it has become shorter while it was read",
                       io->name, size, offset);

    *data = true;
    *n_bytes = size - offset;
    if (f->kind != Q2_FILE_REGULAR)
        return 0;
    if (recall_data(f, offset, n_bytes)) {
        *n_bytes = q2_min_u64(*n_bytes, size - offset);
        return 0;
    }

    off_t next = lseek(f->fd, (off_t)offset, SEEK_DATA);
    if (next == (off_t)offset)
        next = lseek(f->fd, (off_t)offset, SEEK_HOLE);
    else
        // ENXIO: no data up to the end
        *data = next < 0 && errno != ENXIO;
    if (next > (off_t)offset)
        *n_bytes = q2_min_u64((uint64_t)next, size) - offset;
    if (*data)
        remember_data(f, offset, *n_bytes);
    return 0;
}

int q2_file_disk_usage(struct q2_io *io, uint64_t *n_bytes, struct q2_error *err)
{
    struct stat st;

    if (fstat(q2_file_of(io)->fd, &st) < 0)
        return q2_fail_errno(err, -errno, "Could not get the disk usage of '%s'",
                             io->name);
    *n_bytes = (uint64_t)st.st_blocks * 512;
    return 0;
}
