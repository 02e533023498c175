// SPDX-License-Identifier: MIT
// Streams: bytes that come and go front to back, once. Where they are wanted at offsets
// they are kept in a temporary file.
#ifndef Q2_IO_STREAM_H
#define Q2_IO_STREAM_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/monitor.h"

// Everything, or an error.
int q2_stream_write(int fd, const void *buf, size_t n_bytes, struct q2_error *err);

// A temporary file without a name; it is gone once it is closed. path leads to it as long
// as this process has it open.
struct q2_spool {
    int fd;
    char path[32];
};

// In the folder that TMPDIR names, else in /var/tmp: images are large.
int q2_spool_open(struct q2_spool *spool, struct q2_error *err);
// Takes what comes from fd until it ends, or max_bytes of it. Zeros become holes.
int q2_spool_fill(struct q2_spool *spool, int fd, uint64_t max_bytes,
                  const struct q2_monitor *mon, struct q2_error *err);
// Writes all of it to fd.
int q2_spool_drain(const struct q2_spool *spool, int fd, const struct q2_monitor *mon,
                   struct q2_error *err);
void q2_spool_close(struct q2_spool *spool);

#endif
