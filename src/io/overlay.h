// SPDX-License-Identifier: MIT
// Writes that stay in memory, over a file that is only read. They are logged in order,
// with the flushes between them, so that they can be shown, or done to the file for real.
// Writes to one sector that follow each other are one.
#ifndef Q2_IO_OVERLAY_H
#define Q2_IO_OVERLAY_H

#include "io/io.h"

enum q2_overlay_kind { Q2_OVERLAY_WRITE, Q2_OVERLAY_FLUSH, Q2_OVERLAY_SET_SIZE };

struct q2_overlay_entry {
    enum q2_overlay_kind kind;
    uint64_t offset; // the new size for Q2_OVERLAY_SET_SIZE
    size_t n_bytes;
    uint8_t *data; // n_bytes; owned by the overlay
};

// below stays the caller's and must outlive the overlay.
int q2_overlay_open(struct q2_io *below, struct q2_io **out, struct q2_error *err);

// The log, oldest entry first; good until the next write.
const struct q2_overlay_entry *q2_overlay_log(const struct q2_io *overlay, size_t *n);

#endif
