// SPDX-License-Identifier: MIT
// UTF-8: where a character ends, and whether it is one.
#ifndef Q2_BASE_UTF8_H
#define Q2_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>

// Bytes of the sequence at p, which is not the string's end (a NUL stands behind the
// string); 0 if it is none.
size_t q2_utf8_sequence(const unsigned char *p);

// True if all n_bytes are UTF-8 without a NUL among them. A NUL stands behind them.
bool q2_utf8_valid(const unsigned char *p, size_t n_bytes);

#endif
