// SPDX-License-Identifier: MIT
// Calls that name files and work on them. What stdio reads and writes counts, too: its
// streams are made anew, on top of the calls here. Where files of any size take other
// functions than plain ones, these are the ones that count, whoever calls which.
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "shim.h"

#define MAX_FDS 1024

// What was written to a descriptor and not yet made durable, nor said to be in order by a
// close of another descriptor of the same open file.
static atomic_bool unsaved[MAX_FDS];
static atomic_int dup_of[MAX_FDS]; // plus one

// --- names ----------------------------------------------------------------------------

static int open_file(const char *path, int flags, mode_t permissions)
{
    if (fails(C_OPEN))
        return -1;
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags | O_LARGEFILE, permissions);
}

#define OPEN(name)                                                                     \
    int name(const char *path, int flags, ...)                                         \
    {                                                                                  \
        va_list ap;                                                                    \
        va_start(ap, flags);                                                           \
        mode_t permissions = flags & (O_CREAT | __O_TMPFILE) ? va_arg(ap, mode_t) : 0; \
        va_end(ap);                                                                    \
        return open_file(path, flags, permissions);                                    \
    }

OPEN(open)
OPEN(open64)

int mkostemp64(char *name, int flags)
{
    return fails(C_MKSTEMP) ? -1 : REAL(mkostemp64)(name, flags);
}

int mkstemp64(char *name)
{
    return fails(C_MKSTEMP) ? -1 : REAL(mkstemp64)(name);
}

int mkostemp(char *name, int flags)
{
    return mkostemp64(name, flags);
}

int mkstemp(char *name)
{
    return mkstemp64(name);
}

#define STAT(name, call, type)                          \
    int name(const char *path, struct type *st)         \
    {                                                   \
        return fails(call) ? -1 : REAL(name)(path, st); \
    }

STAT(stat, C_STAT, stat)
STAT(lstat, C_LSTAT, stat)
STAT(stat64, C_STAT, stat64)
STAT(lstat64, C_LSTAT, stat64)

#define FSTAT(name, call, type)                       \
    int name(int fd, struct type *st)                 \
    {                                                 \
        return fails(call) ? -1 : REAL(name)(fd, st); \
    }

FSTAT(fstat, C_FSTAT, stat)
FSTAT(fstat64, C_FSTAT, stat64)
FSTAT(fstatfs, C_FSTATFS, statfs)
FSTAT(fstatfs64, C_FSTATFS, statfs64)

int access(const char *path, int wanted)
{
    return fails(C_ACCESS) ? -1 : REAL(access)(path, wanted);
}

int unlink(const char *path)
{
    return fails(C_UNLINK) ? -1 : REAL(unlink)(path);
}

int rename(const char *from, const char *to)
{
    return fails(C_RENAME) ? -1 : REAL(rename)(from, to);
}

// --- descriptors ----------------------------------------------------------------------

static void mark(int fd, bool is_unsaved)
{
    if (fd >= 0 && fd < MAX_FDS)
        unsaved[fd] = is_unsaved;
}

// The descriptor that stands for the open file.
static int first_of(int fd)
{
    return fd >= 0 && fd < MAX_FDS && dup_of[fd] ? dup_of[fd] - 1 : fd;
}

// What a file system that writes late has to say when a file is closed. A file without a
// name is nobody's.
static void tell_lost(int fd)
{
    struct stat64 st;
    if (fd < 0 || fd >= MAX_FDS || !unsaved[fd] || REAL(fstat64)(fd, &st) < 0)
        return;
    if (st.st_nlink > 0 && S_ISREG(st.st_mode))
        say("lost ", "close");
}

int close(int fd)
{
    bool failed = fails(C_CLOSE);
    int code = errno, first = first_of(fd);
    if (failed) {
        inside = true;
        tell_lost(first);
        inside = false;
    } else {
        mark(first, false);
    }
    if (fd >= 0 && fd < MAX_FDS)
        dup_of[fd] = 0;
    int ret = (int)syscall(SYS_close, fd);
    if (failed)
        errno = code;
    return failed ? -1 : ret;
}

int dup(int fd)
{
    int copy = fails(C_DUP) ? -1 : (int)syscall(SYS_dup, fd);
    if (copy >= 0 && copy < MAX_FDS)
        dup_of[copy] = first_of(fd) + 1;
    return copy;
}

static size_t part_of(size_t n)
{
    return n > 1 ? n / 2 : n;
}

ssize_t read(int fd, void *buf, size_t n)
{
    int code = fault(C_READ);
    if (code > 0) {
        errno = code;
        return -1;
    }
    return REAL(read)(fd, buf, code < 0 ? part_of(n) : n);
}

ssize_t write(int fd, const void *buf, size_t n)
{
    // There is nobody to tell that messages are lost.
    int code = first_of(fd) == STDERR_FILENO ? 0 : fault(C_WRITE);
    if (code > 0) {
        errno = code;
        return -1;
    }
    mark(first_of(fd), true);
    return REAL(write)(fd, buf, code < 0 ? part_of(n) : n);
}

ssize_t pread64(int fd, void *buf, size_t n, off64_t offset)
{
    int code = fault(C_PREAD);
    if (code > 0) {
        errno = code;
        return -1;
    }
    return REAL(pread64)(fd, buf, code < 0 ? part_of(n) : n, offset);
}

ssize_t pwrite64(int fd, const void *buf, size_t n, off64_t offset)
{
    int code = fault(C_PWRITE);
    if (code > 0 && lies)
        return (ssize_t)n;
    if (code > 0) {
        errno = code;
        return -1;
    }
    mark(first_of(fd), true);
    return REAL(pwrite64)(fd, buf, code < 0 ? part_of(n) : n, offset);
}

ssize_t copy_file_range(int in, off64_t *in_offset, int out, off64_t *out_offset,
                        size_t n, unsigned flags)
{
    int code = fault(C_COPY);
    if (code > 0) {
        errno = code;
        return -1;
    }
    mark(first_of(out), true);
    return REAL(copy_file_range)(in, in_offset, out, out_offset,
                                 code < 0 ? part_of(n) : n, flags);
}

int fdatasync(int fd)
{
    if (fails(C_FDATASYNC))
        return -1;
    mark(first_of(fd), false);
    return REAL(fdatasync)(fd);
}

int fsync(int fd)
{
    if (fails(C_FSYNC))
        return -1;
    mark(first_of(fd), false);
    return REAL(fsync)(fd);
}

int ftruncate64(int fd, off64_t size)
{
    if (fails(C_FTRUNCATE))
        return -1;
    mark(first_of(fd), true);
    return REAL(ftruncate64)(fd, size);
}

int fallocate64(int fd, int how, off64_t offset, off64_t n)
{
    if (fails(C_FALLOCATE))
        return -1;
    mark(first_of(fd), true);
    return REAL(fallocate64)(fd, how, offset, n);
}

off64_t lseek64(int fd, off64_t offset, int whence)
{
    bool asks = whence == SEEK_DATA || whence == SEEK_HOLE;
    return fails(asks ? C_SEEK_DATA : C_SEEK) ? -1 : REAL(lseek64)(fd, offset, whence);
}

int posix_fadvise64(int fd, off64_t offset, off64_t n, int advice)
{
    int code = fault(C_ADVISE);
    return code ? code : REAL(posix_fadvise64)(fd, offset, n, advice);
}

static int call_of_fcntl(int command, intptr_t arg)
{
    if (command == F_SETFL && (arg & O_DIRECT))
        return C_SET_DIRECT;
    if (command == F_OFD_SETLK)
        return C_LOCK;
    if (command == F_OFD_GETLK)
        return C_TEST_LOCK;
    return command == F_SETFL ? C_SET_FLAGS : C_FCNTL;
}

// The argument of all that is asked here is a pointer, or a number that fits in one.
#define FCNTL(name)                                       \
    int name(int fd, int command, ...)                    \
    {                                                     \
        va_list ap;                                       \
        va_start(ap, command);                            \
        void *arg = va_arg(ap, void *);                   \
        va_end(ap);                                       \
        if (fails(call_of_fcntl(command, (intptr_t)arg))) \
            return -1;                                    \
        return REAL(name)(fd, command, arg);              \
    }

FCNTL(fcntl)
FCNTL(fcntl64)

int ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    va_start(ap, request);
    void *arg = va_arg(ap, void *);
    va_end(ap);
    return fails(C_IOCTL) ? -1 : REAL(ioctl)(fd, request, arg);
}

// The same functions for whom all files are small, or all numbers wide.
ssize_t pread(int fd, void *buf, size_t n, off_t offset)
{
    return pread64(fd, buf, n, offset);
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t offset)
{
    return pwrite64(fd, buf, n, offset);
}

int ftruncate(int fd, off_t size)
{
    return ftruncate64(fd, size);
}

int fallocate(int fd, int how, off_t offset, off_t n)
{
    return fallocate64(fd, how, offset, n);
}

off_t lseek(int fd, off_t offset, int whence)
{
    return (off_t)lseek64(fd, offset, whence);
}

int posix_fadvise(int fd, off_t offset, off_t n, int advice)
{
    return posix_fadvise64(fd, offset, n, advice);
}

// --- streams --------------------------------------------------------------------------

static ssize_t stream_read(void *cookie, char *buf, size_t n)
{
    ssize_t got;
    do
        got = read((int)(intptr_t)cookie, buf, n);
    while (got < 0 && errno == EINTR);
    return got;
}

// A cookie may neither do a part nor say that it was interrupted: it is libc's loop that
// is missing here.
static ssize_t stream_write(void *cookie, const char *buf, size_t n)
{
    size_t done = 0;
    while (done < n) {
        ssize_t put = write((int)(intptr_t)cookie, buf + done, n - done);
        if (put < 0 && errno != EINTR)
            break;
        done += put > 0 ? (size_t)put : 0;
    }
    return (ssize_t)done;
}

static int stream_close(void *cookie)
{
    return close((int)(intptr_t)cookie);
}

static const cookie_io_functions_t stream = {
    .read = stream_read, .write = stream_write, .close = stream_close};

FILE *fdopen(int fd, const char *how)
{
    return fopencookie((void *)(intptr_t)fd, how, stream);
}

FILE *fopen(const char *path, const char *how)
{
    int flags = O_CLOEXEC;
    flags |= how[0] == 'r' ? O_RDONLY : O_WRONLY | O_CREAT | O_TRUNC;
    int fd = open(path, flags, 0666);
    FILE *f = fd < 0 ? NULL : fdopen(fd, how);
    if (fd >= 0 && !f)
        syscall(SYS_close, fd);
    return f;
}

FILE *fopen64(const char *path, const char *how)
{
    return fopen(path, how);
}

void renew_stdout(void)
{
    stdout = fdopen(STDOUT_FILENO, "w");
}
