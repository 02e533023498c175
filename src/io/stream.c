// SPDX-License-Identifier: MIT
// Streams, and temporary files for them.
#include "io/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

#include "base/zero.h"

#define PIECE_BYTES (256U << 10)
#define HOLE_GRAIN 4096U

int q2_stream_write(int fd, const void *buf, size_t n_bytes, struct q2_error *err)
{
    const char *at = buf;
    while (n_bytes > 0) {
        ssize_t n = write(fd, at, n_bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return q2_fail_errno(err, -errno, "Could not write to the stream");
        at += n;
        n_bytes -= (size_t)n;
    }
    return 0;
}

// As much as there is, up to a piece, or to max_bytes; *n_bytes is 0 at the end.
static int read_piece(int fd, char *buf, uint64_t max_bytes, size_t *n_bytes,
                      const struct q2_monitor *mon, struct q2_error *err)
{
    size_t most = max_bytes < PIECE_BYTES ? (size_t)max_bytes : PIECE_BYTES;
    *n_bytes = 0;
    while (*n_bytes < most) {
        if (q2_monitor_cancelled(mon))
            return q2_fail(err, -ECANCELED, "Stopped");
        ssize_t n = read(fd, buf + *n_bytes, most - *n_bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return q2_fail_errno(err, -errno, "Could not read from the stream");
        if (n == 0)
            break;
        *n_bytes += (size_t)n;
    }
    return 0;
}

int q2_spool_open(struct q2_spool *spool, struct q2_error *err)
{
    const char *folder = getenv("TMPDIR");
    char *name;
    if (asprintf(&name, "%s/qcow2-XXXXXX", folder && *folder ? folder : "/var/tmp") < 0)
        return q2_fail_memory(err, 32);
    spool->fd = mkostemp(name, O_CLOEXEC);
    int ret = spool->fd < 0 ? q2_fail_errno(err, -errno,
                                            "Could not make a temporary file '%s'", name)
                            : 0;
    if (ret == 0)
        unlink(name);
    snprintf(spool->path, sizeof(spool->path), "/proc/self/fd/%d", spool->fd);
    free(name);
    return ret;
}

static int lost(int code, struct q2_error *err)
{
    return q2_fail_errno(err, code, "Could not use a temporary file");
}

// At the end of what is there; zeros make it longer without being written.
static int append(int fd, off_t *end, const char *buf, size_t n_bytes,
                  struct q2_error *err)
{
    while (n_bytes > 0) {
        bool zero;
        size_t n = q2_zero_run(buf, n_bytes, HOLE_GRAIN, &zero);
        ssize_t done = zero ? (ssize_t)n : pwrite(fd, buf, n, *end);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return lost(-errno, err);
        *end += done;
        buf += done;
        n_bytes -= (size_t)done;
    }
    return 0;
}

int q2_spool_fill(struct q2_spool *spool, int fd, uint64_t max_bytes,
                  const struct q2_monitor *mon, struct q2_error *err)
{
    off_t end = 0;
    size_t n = 1;
    char *buf = malloc(PIECE_BYTES);
    int ret = buf ? 0 : q2_fail_memory(err, PIECE_BYTES);
    while (ret == 0 && n > 0) {
        ret = read_piece(fd, buf, max_bytes - (uint64_t)end, &n, mon, err);
        if (ret == 0)
            ret = append(spool->fd, &end, buf, n, err);
    }
    free(buf);
    if (ret == 0 && ftruncate(spool->fd, end) < 0)
        ret = lost(-errno, err);
    return ret;
}

int q2_spool_drain(const struct q2_spool *spool, int fd, const struct q2_monitor *mon,
                   struct q2_error *err)
{
    size_t n = 1;
    char *buf = malloc(PIECE_BYTES);
    int ret = buf ? 0 : q2_fail_memory(err, PIECE_BYTES);
    if (ret == 0 && lseek(spool->fd, 0, SEEK_SET) < 0)
        ret = lost(-errno, err);
    while (ret == 0 && n > 0) {
        ret = read_piece(spool->fd, buf, UINT64_MAX, &n, mon, err);
        if (ret == 0)
            ret = q2_stream_write(fd, buf, n, err);
    }
    free(buf);
    return ret;
}

void q2_spool_close(struct q2_spool *spool)
{
    if (spool->fd >= 0)
        close(spool->fd);
    spool->fd = -1;
}
