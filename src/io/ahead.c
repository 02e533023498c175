// SPDX-License-Identifier: MIT
// Reading ahead: the next read is eight times as long as the last one.
#include "io/ahead.h"

#include <assert.h>
#include <stdlib.h>

#include "base/checked.h"

#define FIRST_BYTES ((size_t)4 << 10)

int q2_ahead_read(struct q2_ahead *a, uint64_t offset, size_t n_bytes,
                  const uint8_t **out, struct q2_error *err)
{
    assert(n_bytes <= Q2_AHEAD_BYTES);
    uint64_t skip = offset - a->offset;
    if (offset < a->offset || skip > a->n_bytes || n_bytes > a->n_bytes - skip) {
        size_t n = q2_min_size(a->n_bytes * 8, Q2_AHEAD_BYTES);
        n = n < n_bytes ? n_bytes : n;
        n = n < FIRST_BYTES ? FIRST_BYTES : n;
        uint8_t *buf = realloc(a->buf, n);
        if (!buf)
            return q2_fail_memory(err, n);
        a->buf = buf;
        a->offset = offset;
        a->n_bytes = 0;
        int ret = q2_io_read(a->io, offset, buf, n, err);
        if (ret < 0)
            return ret;
        a->n_bytes = n;
        skip = 0;
    }
    *out = a->buf + (size_t)skip;
    return 0;
}

void q2_ahead_clear(struct q2_ahead *a)
{
    free(a->buf);
    *a = (struct q2_ahead){.io = a->io};
}
