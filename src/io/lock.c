// SPDX-License-Identifier: MIT
// QEMU's image locks: one byte per permission that is used, one per permission that is
// not shared. All of them are read locks, so that many may hold each; whoever would be in
// the way is found by asking whether a write lock were possible.
#include "io/lock.h"

#include <errno.h>
#include <fcntl.h>

#define USED_BASE 100
#define UNSHARED_BASE 200

enum { CONSISTENT_READ, WRITE, WRITE_UNCHANGED, RESIZE, N_PERMISSIONS };

#define BIT(permission) (1U << (permission))

static const char *const permission_names[N_PERMISSIONS] = {
    "consistent read",
    "write",
    "write unchanged",
    "resize",
};

struct lock_set {
    unsigned used;
    unsigned unshared;
    unsigned refused; // somebody else who uses it is in the way; not locked itself
};

static const struct lock_set lock_sets[] = {
    [Q2_LOCK_NONE] = {0, 0, 0},
    [Q2_LOCK_METADATA] = {0, BIT(WRITE) | BIT(RESIZE), 0},
    [Q2_LOCK_READ] = {BIT(CONSISTENT_READ), BIT(WRITE) | BIT(RESIZE), 0},
    [Q2_LOCK_SHARED] = {BIT(CONSISTENT_READ), 0, 0},
    [Q2_LOCK_WRITE] = {BIT(CONSISTENT_READ) | BIT(WRITE) | BIT(RESIZE),
                       BIT(WRITE) | BIT(RESIZE), 0},
    [Q2_LOCK_RAW] = {BIT(CONSISTENT_READ), 0, BIT(RESIZE)},
};

static int lock_call(int fd, int command, short type, off_t byte, struct flock *lock)
{
    *lock =
        (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

    int ret;
    do
        ret = fcntl(fd, command, lock);
    while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : 0;
}

static int lock_byte(int fd, off_t byte)
{
    struct flock lock;
    return lock_call(fd, F_OFD_SETLK, F_RDLCK, byte, &lock);
}

static void unlock_all(int fd)
{
    struct flock lock;
    for (int i = 0; i < N_PERMISSIONS; i++) {
        lock_call(fd, F_OFD_SETLK, F_UNLCK, USED_BASE + i, &lock);
        lock_call(fd, F_OFD_SETLK, F_UNLCK, UNSHARED_BASE + i, &lock);
    }
}

// 0: nobody else holds the byte, or it cannot be known.
static int test_byte(int fd, off_t byte)
{
    struct flock lock;
    if (lock_call(fd, F_OFD_GETLK, F_WRLCK, byte, &lock) < 0)
        return 0;
    return lock.l_type == F_UNLCK ? 0 : -EAGAIN;
}

static int conflict(const char *sharing, int permission, const char *name,
                    struct q2_error *err)
{
    q2_fail(err, -EAGAIN, "Failed to get %s\"%s\" lock", sharing,
            permission_names[permission]);
    return q2_hint(err, "Is another process using the image [%s]?", name);
}

// The bytes of one row. -EAGAIN: somebody holds a write lock on one, which QEMU never
// does. Any other error: the file system knows no such locks.
static int lock_row(int fd, unsigned permissions, off_t base, enum q2_locking locking,
                    const char *name, struct q2_error *err)
{
    for (int i = 0; i < N_PERMISSIONS; i++) {
        int ret = permissions & BIT(i) ? lock_byte(fd, base + i) : 0;
        if (ret == -EAGAIN || ret == -EACCES)
            return conflict("", i, name, err);
        if (ret < 0 && locking == Q2_LOCKING_ON)
            return q2_fail_errno(err, ret, "Failed to lock byte %lld",
                                 (long long)base + i);
        if (ret < 0)
            return 0;
    }
    return 0;
}

static int test_row(int fd, unsigned permissions, off_t base, const char *sharing,
                    const char *name, struct q2_error *err)
{
    for (int i = 0; i < N_PERMISSIONS; i++) {
        if ((permissions & BIT(i)) && test_byte(fd, base + i) < 0)
            return conflict(sharing, i, name, err);
    }
    return 0;
}

int q2_lock_take(int fd, enum q2_lock_mode mode, enum q2_locking locking,
                 const char *name, struct q2_error *err)
{
    const struct lock_set *set = &lock_sets[mode];
    if (locking == Q2_LOCKING_OFF)
        return 0;

    int ret = lock_row(fd, set->used, USED_BASE, locking, name, err);
    if (ret == 0)
        ret = lock_row(fd, set->unshared, UNSHARED_BASE, locking, name, err);
    if (ret == 0)
        ret = test_row(fd, set->used, UNSHARED_BASE, "", name, err);
    if (ret == 0)
        ret = test_row(fd, set->unshared | set->refused, USED_BASE, "shared ", name, err);
    if (ret < 0)
        unlock_all(fd);
    return ret;
}
