// SPDX-License-Identifier: MIT
// O_DIRECT wants memory, offset and length aligned. What is not goes through an aligned
// buffer, a piece at a time.
#include "io/direct.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"

#define PIECE ((size_t)1 << 20)

// The aligned blocks around a request, or around its first part.
struct window {
    unsigned char *buf;
    off_t start;
    size_t head;    // bytes of the first block before the request
    size_t n_bytes; // of the request
    size_t length;  // of the blocks
};

bool q2_direct_aligned(const void *buf, size_t n_bytes, off_t offset)
{
    return (((uintptr_t)buf | n_bytes | (uint64_t)offset) & (Q2_DIRECT_ALIGN - 1)) == 0;
}

static bool window_open(struct window *w, size_t n_bytes, off_t offset)
{
    uint64_t start = q2_align_down((uint64_t)offset, Q2_DIRECT_ALIGN);
    w->start = (off_t)start;
    w->head = (size_t)((uint64_t)offset - start);
    w->n_bytes = (size_t)q2_min_u64(n_bytes, PIECE - w->head);
    w->length = (size_t)q2_align_up(w->head + w->n_bytes, Q2_DIRECT_ALIGN);

    void *p;
    int ret = posix_memalign(&p, Q2_DIRECT_ALIGN, w->length);
    if (ret != 0) {
        errno = ret;
        return false;
    }
    w->buf = p;
    return true;
}

static void window_close(struct window *w)
{
    int saved = errno;
    free(w->buf);
    errno = saved;
}

ssize_t q2_direct_pread(int fd, void *buf, size_t n_bytes, off_t offset)
{
    struct window w;

    if (q2_direct_aligned(buf, n_bytes, offset))
        return pread(fd, buf, n_bytes, offset);
    if (!window_open(&w, n_bytes, offset))
        return -1;

    ssize_t got = pread(fd, w.buf, w.length, w.start);
    if (got > 0) {
        size_t usable = (size_t)got > w.head ? (size_t)got - w.head : 0;
        usable = (size_t)q2_min_u64(usable, w.n_bytes);
        memcpy(buf, w.buf + w.head, usable);
        got = (ssize_t)usable;
    }
    window_close(&w);
    return got;
}

// One block of old content; what lies beyond the end of the file is zero.
static int load_block(int fd, unsigned char *block, off_t offset)
{
    ssize_t got;
    do
        got = pread(fd, block, Q2_DIRECT_ALIGN, offset);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return -1;
    memset(block + got, 0, Q2_DIRECT_ALIGN - (size_t)got);
    return 0;
}

static int load_edges(int fd, const struct window *w)
{
    size_t last = w->length - Q2_DIRECT_ALIGN;
    bool tail = w->head + w->n_bytes != w->length;

    if ((w->head || (tail && last == 0)) && load_block(fd, w->buf, w->start) < 0)
        return -1;
    if (tail && last)
        return load_block(fd, w->buf + last, w->start + (off_t)last);
    return 0;
}

// Whole blocks may have made the file longer than the request does.
static int trim(int fd, off_t old_size, off_t end)
{
    struct stat st;
    off_t size = old_size > end ? old_size : end;

    if (fstat(fd, &st) < 0)
        return -1;
    if (!S_ISREG(st.st_mode) || st.st_size <= size)
        return 0;
    return ftruncate(fd, size);
}

ssize_t q2_direct_pwrite(int fd, const void *buf, size_t n_bytes, off_t offset)
{
    struct window w;
    struct stat st;

    if (q2_direct_aligned(buf, n_bytes, offset))
        return pwrite(fd, buf, n_bytes, offset);
    if (fstat(fd, &st) < 0 || !window_open(&w, n_bytes, offset))
        return -1;

    ssize_t put = -1;
    if (load_edges(fd, &w) == 0) {
        memcpy(w.buf + w.head, buf, w.n_bytes);
        put = pwrite(fd, w.buf, w.length, w.start);
    }
    if (put >= 0) {
        size_t done = (size_t)put > w.head ? (size_t)put - w.head : 0;
        done = (size_t)q2_min_u64(done, w.n_bytes);
        put = trim(fd, st.st_size, offset + (off_t)done) < 0 ? -1 : (ssize_t)done;
    }
    window_close(&w);
    return put;
}
