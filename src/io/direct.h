// SPDX-License-Identifier: MIT
// pread and pwrite for files opened with O_DIRECT, at any alignment.
#ifndef Q2_IO_DIRECT_H
#define Q2_IO_DIRECT_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

// What the kernel and every usual disk are content with.
#define Q2_DIRECT_ALIGN 4096U

// True if the request can be passed on as it is.
bool q2_direct_aligned(const void *buf, size_t n_bytes, off_t offset);

// As pread and pwrite: how much was done (maybe less than asked, 0 at the end of the
// file), or -1 and errno. A write that is not aligned reads and writes back the blocks
// around it: the caller serialises these writes, and all that make the file longer.
ssize_t q2_direct_pread(int fd, void *buf, size_t n_bytes, off_t offset);
ssize_t q2_direct_pwrite(int fd, const void *buf, size_t n_bytes, off_t offset);

#endif
