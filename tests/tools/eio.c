// SPDX-License-Identifier: MIT
// A library to be preloaded: reads of the 4096 bytes at offset BAD_OFFSET fail with EIO,
// as on a disk with a bad block.
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

typedef ssize_t pread_function(int fd, void *buf, size_t n_bytes, off64_t offset);

static ssize_t bad_pread(int fd, void *buf, size_t n_bytes, off64_t offset)
{
    // Looked up as an address: ISO C knows no cast from there to a function.
    union {
        void *address;
        pread_function *function;
    } next = {dlsym(RTLD_NEXT, "pread64")};
    const char *text = getenv("BAD_OFFSET");
    off64_t bad = text ? (off64_t)strtoll(text, NULL, 0) : 0;
    if (text && offset < bad + 4096 && offset + (off64_t)n_bytes > bad) {
        errno = EIO;
        return -1;
    }
    return next.function(fd, buf, n_bytes, offset);
}

ssize_t pread(int fd, void *buf, size_t n_bytes, off_t offset)
{
    return bad_pread(fd, buf, n_bytes, offset);
}

ssize_t pread64(int fd, void *buf, size_t n_bytes, off64_t offset)
{
    return bad_pread(fd, buf, n_bytes, offset);
}
