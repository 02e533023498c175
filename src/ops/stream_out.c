// SPDX-License-Identifier: MIT
// Disks out into a stream, front to back.
#include "ops/stream_out.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "io/stream.h"

#define PIECE_BYTES (UINT32_C(1) << 20)
#define BUFFER_ALIGN 4096U

struct stream {
    int fd;
    uint64_t at, size;
    const struct q2_monitor *mon;
    uint8_t *buf; // PIECE_BYTES
};

// n bytes of the source from offset on; NULL: zeros.
static int put_piece(struct stream *s, struct q2_disk *source, uint64_t offset, size_t n,
                     struct q2_error *err)
{
    int ret = 0;
    if (q2_monitor_cancelled(s->mon))
        return q2_fail(err, -ECANCELED, "Stopped");
    if (source)
        ret = q2_disk_read(source, offset, s->buf, n, err);
    else
        memset(s->buf, 0, n);
    if (ret < 0)
        return q2_context(err, "error while reading at byte %" PRIu64, s->at);
    ret = q2_stream_write(s->fd, s->buf, n, err);
    s->at += n;
    q2_monitor_progress(s->mon, s->at, s->size);
    return ret;
}

static int put(struct stream *s, struct q2_disk *source, uint64_t n_bytes,
               struct q2_error *err)
{
    int ret = 0;
    n_bytes = q2_min_u64(n_bytes, s->size - s->at);
    for (uint64_t at = 0, n; at < n_bytes && ret == 0; at += n) {
        n = q2_min_u64(n_bytes - at, PIECE_BYTES);
        ret = put_piece(s, source, at, (size_t)n, err);
    }
    return ret;
}

int q2_stream_out(struct q2_disk *const *sources, unsigned n_sources, uint64_t size,
                  int fd, const struct q2_monitor *mon, struct q2_error *err)
{
    struct stream s = {.fd = fd,
                       .size = size,
                       .mon = mon,
                       .buf = aligned_alloc(BUFFER_ALIGN, PIECE_BYTES)};
    int ret = s.buf ? 0 : q2_fail_memory(err, PIECE_BYTES);
    for (unsigned i = 0; i < n_sources && ret == 0; i++)
        ret = put(&s, sources[i], sources[i]->size, err);
    if (ret == 0)
        ret = put(&s, NULL, UINT64_MAX, err);
    free(s.buf);
    return ret;
}
