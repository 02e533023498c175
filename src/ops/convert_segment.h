// SPDX-License-Identifier: MIT
// The segments of a window: which parts of it are data, zeros, or the backing file's.
#ifndef Q2_OPS_CONVERT_SEGMENT_H
#define Q2_OPS_CONVERT_SEGMENT_H

#include "ops/convert_window.h"

// The source that holds offset, and the offset in it.
struct q2_disk *q2_segment_source(const struct q2_convert_job *job, uint64_t offset,
                                  uint64_t *in_source);

// Reads n_bytes at offset of the sources (with salvage: as far as they can be read).
int q2_segment_read(const struct q2_convert_job *job, uint64_t offset, uint8_t *buf,
                    size_t n_bytes, struct q2_error *err);

// What the sources say of the range at offset: one kind, *n_bytes of it (> 0, at most
// max_bytes), in one source.
int q2_segment_status(const struct q2_convert_job *job, uint64_t offset,
                      uint64_t max_bytes, enum q2_segment_kind *kind, uint64_t *n_bytes,
                      struct q2_error *err);

// Appends to the window's segments; joins with the last one when they are alike.
int q2_segment_add(struct q2_window *w, enum q2_segment_kind kind, size_t start,
                   size_t n_bytes, struct q2_error *err);

#endif
