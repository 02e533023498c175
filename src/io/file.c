// SPDX-License-Identifier: MIT
// A file or block device of the system: opening, making and removing it. Reading and
// writing are in transfer.c, space in space.c.
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <linux/magic.h>

#include "io/file_private.h"
#include "io/lock.h"

static void file_close(struct q2_io *io)
{
    struct q2_file *f = q2_file_of(io);
    close(f->fd);
    pthread_mutex_destroy(&f->edge_lock);
    pthread_mutex_destroy(&f->extent_lock);
    free(io->name);
    free(f);
}

static const struct q2_io_ops file_ops = {
    .read = q2_file_read,
    .write = q2_file_write,
    .flush = q2_file_flush,
    .set_size = q2_file_set_size,
    .get_size = q2_file_get_size,
    .zero = q2_file_zero,
    .discard = q2_file_discard,
    .allocate = q2_file_allocate,
    .extent = q2_file_extent,
    .copy = q2_file_copy,
    .disk_usage = q2_file_disk_usage,
    .close = file_close,
};

static int open_flags(const struct q2_file_options *options)
{
    // O_NONBLOCK: a pipe with nobody at its other end must not hold us up.
    int flags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    flags |= options->writable ? O_RDWR : O_RDONLY;
    if (options->sync_writes)
        flags |= O_DSYNC;
    return flags;
}

static int open_path(const char *path, int flags)
{
    int fd;

    do
        fd = open(path, flags, 0644);
    while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : fd;
}

// What is set on the open file. O_DIRECT only now: refused in open, by a file system that
// does not know it, it would leave the new file behind. *direct says whether it is on.
static int set_flags(int fd, bool *direct)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0)
        return -errno;
    flags &= ~O_NONBLOCK;
    if (*direct && fcntl(fd, F_SETFL, flags | O_DIRECT) == 0)
        return 0;
    *direct = false;
    return fcntl(fd, F_SETFL, flags) < 0 ? -errno : 0;
}

// File systems that have no way of their own: the kernel reads and writes for them, one
// thread at a time and no faster than we do.
static bool has_own_copy(int fd)
{
    static const unsigned long plain[] = {
        EXT4_SUPER_MAGIC,  TMPFS_MAGIC,       RAMFS_MAGIC,
        MSDOS_SUPER_MAGIC, EXFAT_SUPER_MAGIC, F2FS_SUPER_MAGIC,
    };
    struct statfs st;

    if (fstatfs(fd, &st) < 0)
        return true;
    for (size_t i = 0; i < sizeof(plain) / sizeof(*plain); i++) {
        if ((unsigned long)st.f_type == plain[i])
            return false;
    }
    return true;
}

static int check_type(int fd, const char *path, struct stat *st, struct q2_error *err)
{
    if (fstat(fd, st) < 0)
        return q2_fail_errno(err, -errno, "Could not open '%s'", path);
    if (S_ISREG(st->st_mode) || S_ISBLK(st->st_mode) || S_ISCHR(st->st_mode))
        return 0;
    return q2_fail(err, S_ISDIR(st->st_mode) ? -EISDIR : -EINVAL,
                   "'file' driver requires '%s' to be a regular file", path);
}

// Locks and wraps fd, which stays the caller's when this fails.
static int wrap(int fd, const char *path, const struct q2_file_options *options,
                struct q2_io **out, struct q2_error *err)
{
    struct stat st;
    bool direct = options->direct;

    int ret = check_type(fd, path, &st, err);
    if (ret == 0)
        ret = q2_lock_take(fd, options->lock, options->locking, path, err);
    if (ret < 0)
        return ret;
    ret = set_flags(fd, &direct);
    if (ret < 0)
        return q2_fail_errno(err, ret, "Could not open '%s'", path);

    struct q2_file *f = calloc(1, sizeof(*f));
    char *name = strdup(path);
    if (!f || !name) {
        free(f);
        free(name);
        return q2_fail_memory(err, sizeof(*f) + strlen(path) + 1);
    }
    f->io.ops = &file_ops;
    f->io.name = name;
    f->io.writable = options->writable;
    f->io.sparse_growth = S_ISREG(st.st_mode);
    f->io.copies = options->writable && has_own_copy(fd);
    f->fd = fd;
    f->kind = S_ISREG(st.st_mode)   ? Q2_FILE_REGULAR
              : S_ISBLK(st.st_mode) ? Q2_FILE_BLOCK
                                    : Q2_FILE_CHARACTER;
    f->direct = direct;
    f->no_flush = options->no_flush;
    pthread_mutex_init(&f->edge_lock, NULL);
    pthread_mutex_init(&f->extent_lock, NULL);
    if (options->sequential)
        posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    *out = &f->io;
    return 0;
}

int q2_file_open(const char *path, const struct q2_file_options *options,
                 struct q2_io **out, struct q2_error *err)
{
    if (!*path)
        return q2_fail(err, -EINVAL, "The 'file' block driver requires a file name");
    int fd = open_path(path, open_flags(options));
    if (fd == -EISDIR && !options->writable)
        return q2_fail(err, fd, "'file' driver requires '%s' to be a regular file", path);
    if (fd < 0)
        return q2_fail_errno(err, fd, "Could not open '%s'", path);

    int ret = wrap(fd, path, options, out, err);
    if (ret < 0)
        close(fd);
    return ret;
}

// A descriptor or a negative code. Whether the file was there is known for sure only when
// it is made with O_EXCL. O_CREAT alone serves links that lead to no file yet, and is
// otherwise avoided: in shared directories the kernel may refuse it for others' files.
static int open_new(const char *path, int flags, bool exclusive, bool *made)
{
    *made = true;
    int fd = open_path(path, flags | O_CREAT | O_EXCL);
    if (fd != -EEXIST || exclusive)
        return fd;

    *made = false;
    fd = open_path(path, flags);
    return fd == -ENOENT ? open_path(path, flags | O_CREAT) : fd;
}

// An empty file is not truncated: ext4 would take its new content for a replacement, and
// put all of it on the disk when it is closed.
static int make_empty(struct q2_io *io, struct q2_error *err)
{
    struct q2_file *f = q2_file_of(io);
    struct stat st;

    if (f->kind != Q2_FILE_REGULAR)
        return 0;
    bool empty = fstat(f->fd, &st) == 0 && st.st_size == 0 && st.st_blocks == 0;
    if (!empty && ftruncate(f->fd, 0) < 0)
        return q2_fail_errno(err, -errno, "Could not create '%s'", io->name);
    io->new_content = true;
    return 0;
}

// Removes path if that name (a link is not followed) still is the file that is open as
// fd.
static void remove_name(int fd, const char *path)
{
    struct stat file;
    struct stat named;

    if (fstat(fd, &file) == 0 && lstat(path, &named) == 0 &&
        named.st_dev == file.st_dev && named.st_ino == file.st_ino)
        unlink(path);
}

int q2_file_create(const char *path, const struct q2_file_options *options,
                   struct q2_io **out, bool *made, struct q2_error *err)
{
    struct q2_file_options writable = *options;

    writable.writable = true;
    int fd = open_new(path, open_flags(&writable), options->exclusive, made);
    if (fd < 0)
        return q2_fail_errno(err, fd, "Could not create '%s'", path);

    struct q2_io *io = NULL;
    int ret = wrap(fd, path, &writable, &io, err);
    if (ret == 0)
        ret = make_empty(io, err);
    if (ret == 0) {
        *out = io;
        return 0;
    }
    // With a lock on it already the new file is in somebody else's hands.
    if (*made && ret != -EAGAIN)
        remove_name(fd, path);
    if (io)
        file_close(io);
    else
        close(fd);
    return ret;
}

void q2_file_abandon(struct q2_io *io, bool made)
{
    int fd = q2_file_descriptor(io);

    if (fd < 0 || q2_file_of(io)->kind != Q2_FILE_REGULAR)
        return;
    // Emptied in any case: the file may have other names by now.
    if (ftruncate(fd, 0) == 0)
        io->known_size = 0;
    if (made)
        remove_name(fd, io->name);
}

int q2_file_descriptor(const struct q2_io *io)
{
    return io->ops == &file_ops ? ((const struct q2_file *)io)->fd : -1;
}

bool q2_file_same(const struct q2_io *a, const struct q2_io *b)
{
    struct stat x, y;
    int fd_a = q2_file_descriptor(a), fd_b = q2_file_descriptor(b);

    if (fd_a < 0 || fd_b < 0 || fstat(fd_a, &x) < 0 || fstat(fd_b, &y) < 0)
        return false;
    if (S_ISBLK(x.st_mode) && S_ISBLK(y.st_mode))
        return x.st_rdev == y.st_rdev;
    return x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

bool q2_file_is_device(const struct q2_io *io)
{
    return io->ops == &file_ops && ((const struct q2_file *)io)->kind != Q2_FILE_REGULAR;
}
