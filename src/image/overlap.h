// SPDX-License-Identifier: MIT
// Writes that would hit the image's skeleton: metadata whose place the header names.
#ifndef Q2_IMAGE_OVERLAP_H
#define Q2_IMAGE_OVERLAP_H

#include "image/image.h"

// What of the skeleton lies in host bytes start .. end; NULL: nothing.
const char *q2_overlap_find(const struct q2_image *img, uint64_t start, uint64_t end);

// Fails if n_bytes at host_offset, which an entry calls `what` ("an L2 table"), are part
// of the skeleton: a write there would destroy the image.
int q2_overlap_refuse(const struct q2_image *img, uint64_t host_offset, uint64_t n_bytes,
                      const char *what, struct q2_error *err);

#endif
