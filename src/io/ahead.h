// SPDX-License-Identifier: MIT
// Reading a table of unknown length front to back, in few and long reads, with little
// memory: a claim of many entries costs nothing until they are looked at.
#ifndef Q2_IO_AHEAD_H
#define Q2_IO_AHEAD_H

#include "io/io.h"

#define Q2_AHEAD_BYTES ((size_t)512 << 10) // of memory at most

// Start with all but io zero.
struct q2_ahead {
    struct q2_io *io;
    uint8_t *buf;
    uint64_t offset; // of what is in buf
    size_t n_bytes;
};

// *out: n_bytes (at most Q2_AHEAD_BYTES) at offset, good until the next call. What lies
// behind the end of the file reads as zeros.
int q2_ahead_read(struct q2_ahead *a, uint64_t offset, size_t n_bytes,
                  const uint8_t **out, struct q2_error *err);
void q2_ahead_clear(struct q2_ahead *a);

#endif
