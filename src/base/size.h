// SPDX-License-Identifier: MIT
// Sizes as people write and read them.
#ifndef Q2_BASE_SIZE_H
#define Q2_BASE_SIZE_H

#include <stddef.h>
#include <stdint.h>

// Room for what q2_size_format prints.
#define Q2_SIZE_TEXT_MAX 32

// Parses what qemu-img takes for a size: decimal digits, an optional fraction (only with
// a suffix), or 0x hex digits (no fraction, no suffix but those that cannot be hex); a
// suffix b B k K m M g G t T p P e E, powers of 1024; none means default_unit bytes (a
// power of two). Returns 0, -EINVAL (not such a number, or anything behind it), -ERANGE
// (does not fit in 64 bits). *end (if end is not NULL) is set to the first byte not read,
// and then trailing text is not an error.
int q2_size_parse(const char *text, uint64_t default_unit, const char **end,
                  uint64_t *value);

// "64 MiB", "1.32 MiB", "512 B": three significant digits, as qemu-img prints them
// (%0.3g of the value in the largest unit of which it is at least 1; from 1000 on the
// next unit is taken).
void q2_size_format(uint64_t n_bytes, char out[Q2_SIZE_TEXT_MAX]);

#endif
