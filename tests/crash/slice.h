// SPDX-License-Identifier: MIT
// The end of a file, as a file of its own: an image and its data file can lie in one, so
// that a power cut comes to both at the same moment.
#ifndef Q2_TESTS_CRASH_SLICE_H
#define Q2_TESTS_CRASH_SLICE_H

#include "io/io.h"

// What of whole lies from start on. whole stays the caller's.
int slice_open(struct q2_io *whole, uint64_t start, struct q2_io **out,
               struct q2_error *err);

#endif
