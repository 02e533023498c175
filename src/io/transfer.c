// SPDX-License-Identifier: MIT
// Reading, writing and flushing a file of the system.
#include <errno.h>
#include <inttypes.h>
#include <unistd.h>

#include "base/checked.h"
#include "io/direct.h"
#include "io/file.h"
#include "io/file_private.h"

// Of one system call; the kernel would cut at a little less than 2 GiB.
#define MAX_PIECE ((size_t)1 << 30)

static int read_failed(const struct q2_io *io, int code, size_t n_bytes, uint64_t offset,
                       struct q2_error *err)
{
    return q2_fail_errno(err, code,
                         "Could not read %zu bytes at offset %" PRIu64 " of '%s'",
                         n_bytes, offset, io->name);
}

int q2_file_read(struct q2_io *io, uint64_t offset, void *buf, size_t n_bytes,
                 struct q2_error *err)
{
    struct q2_file *f = q2_file_of(io);
    size_t done = 0;

    while (done < n_bytes) {
        char *p = (char *)buf + done;
        off_t at = (off_t)(offset + done);
        size_t n = (size_t)q2_min_u64(n_bytes - done, MAX_PIECE);

        ssize_t got =
            f->direct ? q2_direct_pread(f->fd, p, n, at) : pread(f->fd, p, n, at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return read_failed(io, -errno, n_bytes, offset, err);
        if (got == 0)
            return q2_fail(err, -EIO,
                           "'%s' ended at byte %" PRIu64
                           " while reading at offset %" PRIu64
                           ": it has become shorter while it was read",
                           io->name, offset + done, offset);
        done += (size_t)got;
    }
    return 0;
}

static int write_all(struct q2_file *f, uint64_t offset, const void *buf, size_t n_bytes)
{
    size_t done = 0;

    while (done < n_bytes) {
        const char *p = (const char *)buf + done;
        off_t at = (off_t)(offset + done);
        size_t n = (size_t)q2_min_u64(n_bytes - done, MAX_PIECE);

        ssize_t put =
            f->direct ? q2_direct_pwrite(f->fd, p, n, at) : pwrite(f->fd, p, n, at);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return -errno;
        // Devices end this way.
        if (put == 0)
            return -ENOSPC;
        done += (size_t)put;
    }
    return 0;
}

int q2_file_write(struct q2_io *io, uint64_t offset, const void *buf, size_t n_bytes,
                  struct q2_error *err)
{
    struct q2_file *f = q2_file_of(io);
    bool alone = f->direct && (!q2_direct_aligned(buf, n_bytes, (off_t)offset) ||
                               offset + n_bytes > io->known_size);

    if (alone)
        pthread_mutex_lock(&f->edge_lock);
    int ret = write_all(f, offset, buf, n_bytes);
    if (alone)
        pthread_mutex_unlock(&f->edge_lock);

    if (ret < 0)
        return q2_fail_errno(err, ret,
                             "Could not write %zu bytes at offset %" PRIu64 " of '%s'",
                             n_bytes, offset, io->name);
    return 0;
}

// Nothing is forced onto the disk. But file systems of other machines say only when a
// file is closed that they had no room for what was written: it is heard here, on a
// descriptor more, where there is still somebody to tell it to.
static int hear_late_errors(const struct q2_file *f, struct q2_error *err)
{
    if (f->kind != Q2_FILE_REGULAR || !f->io.writable)
        return 0;
    int fd = dup(f->fd);
    if (fd < 0 || (close(fd) < 0 && errno != EINTR))
        return q2_fail_errno(err, -errno, "Could not write to '%s'", f->io.name);
    return 0;
}

int q2_file_flush(struct q2_io *io, struct q2_error *err)
{
    struct q2_file *f = q2_file_of(io);

    if (f->no_flush)
        return hear_late_errors(f, err);
    if (f->kind == Q2_FILE_CHARACTER)
        return 0;

    int failed = f->flush_error;
    while (failed == 0 && fdatasync(f->fd) < 0) {
        if (errno == EINTR)
            continue;
        failed = -errno;
        f->flush_error = failed;
    }
    if (failed)
        return q2_fail_errno(err, failed, "Could not flush '%s' to disk", io->name);
    return 0;
}

// What the kernel says where such files, or their file systems, cannot.
static bool is_unsupported(int code)
{
    return code == -EXDEV || code == -ENOSYS || code == -EOPNOTSUPP || code == -EINVAL ||
           code == -EBADF || code == -ETXTBSY;
}

int q2_file_copy(struct q2_io *io, uint64_t offset, const struct q2_io *from,
                 uint64_t from_offset, uint64_t n_bytes, struct q2_error *err)
{
    int source = q2_file_descriptor(from);
    off_t in = (off_t)from_offset, out = (off_t)offset;

    if (source < 0 || q2_file_of(io)->direct)
        return q2_fail(err, -ENOTSUP, "'%s' takes no copy of '%s'", io->name, from->name);
    while (n_bytes > 0) {
        size_t n = (size_t)q2_min_u64(n_bytes, MAX_PIECE);
        ssize_t done = copy_file_range(source, &in, q2_file_of(io)->fd, &out, n, 0);
        int code = done < 0 ? -errno : 0;
        if (code == -EINTR)
            continue;
        if (done == 0) // it ends here
            code = -EIO;
        if (code < 0)
            return q2_fail_errno(err, is_unsupported(code) ? -ENOTSUP : code,
                                 "Could not copy %" PRIu64 " bytes at offset %lld of "
                                 "'%s' to offset %lld of '%s'",
                                 n_bytes, (long long)in, from->name, (long long)out,
                                 io->name);
        n_bytes -= (uint64_t)done;
    }
    return 0;
}
