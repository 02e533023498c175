// SPDX-License-Identifier: MIT
// A part of a disk as a disk of its own, for reading.
#ifndef Q2_IMAGE_SLICE_H
#define Q2_IMAGE_SLICE_H

#include "image/disk.h"

// n_bytes of inner (owned by the result on success) from guest offset start on; the range
// lies inside of it. The backing chain counts as one with it.
int q2_slice_open(struct q2_disk *inner, uint64_t start, uint64_t n_bytes,
                  struct q2_disk **out, struct q2_error *err);

#endif
