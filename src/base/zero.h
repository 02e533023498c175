// SPDX-License-Identifier: MIT
// Is this memory all zeros? Tuned: convert asks it of every byte that it copies.
#ifndef Q2_BASE_ZERO_H
#define Q2_BASE_ZERO_H

#include <stdbool.h>
#include <stddef.h>

bool q2_is_zero(const void *buf, size_t n_bytes);

// Length of the run at the start of buf whose grains (n_bytes cut in pieces of grain
// bytes, the last may be shorter) are all zero, or all not; *is_zero says which. n_bytes
// > 0.
size_t q2_zero_run(const void *buf, size_t n_bytes, size_t grain, bool *is_zero);

#endif
