// SPDX-License-Identifier: MIT
// The calls that can be made to fail, and how.
#ifndef Q2_TESTS_FAULTS_CALLS_H
#define Q2_TESTS_FAULTS_CALLS_H

#include <errno.h>

enum mode { NONE, ONCE, EVER, SHORT, EINTR_ONCE, REFUSE };
enum class { MEMORY, READ, WRITE, FLUSH, NAMES, OTHER };

// What a call can suffer besides failing.
enum { IS_SHORT = 1, IS_EINTR = 2 };

struct call {
    const char *name;
    enum class class;
    int code;    // what it fails with
    int refusal; // where it may be unknown to the system: with what; else 0
    int suffers;
};

// clang-format off
enum {
    C_MALLOC, C_CALLOC, C_REALLOC, C_MEMALIGN, C_MMAP, C_MLOCK, C_THREAD, C_FORK, C_OPEN,
    C_MKSTEMP, C_CLOSE, C_DUP, C_READ, C_PREAD, C_WRITE, C_PWRITE, C_FDATASYNC, C_FSYNC,
    C_FTRUNCATE, C_FALLOCATE, C_COPY, C_SEEK, C_SEEK_DATA, C_FSTAT, C_FSTATFS, C_STAT, C_LSTAT,
    C_ACCESS, C_LOCK, C_TEST_LOCK, C_SET_DIRECT, C_SET_FLAGS, C_FCNTL, C_IOCTL, C_ADVISE,
    C_UNLINK, C_RENAME, N_CALLS
};

static const struct call calls[N_CALLS] = {
    [C_MALLOC] = {"malloc", MEMORY, ENOMEM, 0, 0},
    [C_CALLOC] = {"calloc", MEMORY, ENOMEM, 0, 0},
    [C_REALLOC] = {"realloc", MEMORY, ENOMEM, 0, 0},
    [C_MEMALIGN] = {"memalign", MEMORY, ENOMEM, 0, 0},
    [C_MMAP] = {"mmap", MEMORY, ENOMEM, 0, 0},
    [C_MLOCK] = {"mlock", OTHER, ENOMEM, EPERM, 0},
    [C_THREAD] = {"pthread_create", OTHER, EAGAIN, EAGAIN, 0},
    [C_FORK] = {"fork", OTHER, EAGAIN, 0, 0},
    [C_OPEN] = {"open", NAMES, EMFILE, 0, IS_EINTR},
    [C_MKSTEMP] = {"mkstemp", NAMES, EMFILE, 0, 0},
    [C_CLOSE] = {"close", OTHER, EIO, 0, 0},
    [C_DUP] = {"dup", NAMES, EMFILE, 0, 0},
    [C_READ] = {"read", READ, EIO, 0, IS_SHORT | IS_EINTR},
    [C_PREAD] = {"pread", READ, EIO, 0, IS_SHORT | IS_EINTR},
    [C_WRITE] = {"write", WRITE, ENOSPC, 0, IS_SHORT | IS_EINTR},
    [C_PWRITE] = {"pwrite", WRITE, ENOSPC, 0, IS_SHORT | IS_EINTR},
    [C_FDATASYNC] = {"fdatasync", FLUSH, EIO, 0, IS_EINTR},
    [C_FSYNC] = {"fsync", FLUSH, EIO, 0, IS_EINTR},
    [C_FTRUNCATE] = {"ftruncate", WRITE, EIO, 0, IS_EINTR},
    [C_FALLOCATE] = {"fallocate", WRITE, ENOSPC, EOPNOTSUPP, IS_EINTR},
    [C_COPY] = {"copy_file_range", WRITE, EIO, EXDEV, IS_SHORT | IS_EINTR},
    [C_SEEK] = {"lseek", READ, EIO, 0, 0},
    [C_SEEK_DATA] = {"lseek-data", READ, EIO, EINVAL, 0},
    [C_FSTAT] = {"fstat", OTHER, EIO, 0, 0},
    [C_FSTATFS] = {"fstatfs", OTHER, EIO, ENOSYS, 0},
    [C_STAT] = {"stat", NAMES, EIO, 0, 0},
    [C_LSTAT] = {"lstat", NAMES, EIO, 0, 0},
    [C_ACCESS] = {"access", NAMES, EIO, 0, 0},
    [C_LOCK] = {"lock", OTHER, ENOLCK, EINVAL, IS_EINTR},
    [C_TEST_LOCK] = {"test-lock", OTHER, ENOLCK, EINVAL, 0},
    [C_SET_DIRECT] = {"set-direct", OTHER, EINVAL, EINVAL, 0},
    [C_SET_FLAGS] = {"set-flags", OTHER, EINVAL, 0, 0},
    [C_FCNTL] = {"fcntl", OTHER, EINVAL, 0, 0},
    [C_IOCTL] = {"ioctl", OTHER, EIO, ENOTTY, 0},
    [C_ADVISE] = {"fadvise", OTHER, EINVAL, EINVAL, 0},
    [C_UNLINK] = {"unlink", NAMES, EIO, 0, 0},
    [C_RENAME] = {"rename", NAMES, EIO, 0, 0},
};
// clang-format on

#endif
