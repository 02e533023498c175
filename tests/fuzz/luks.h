// SPDX-License-Identifier: MIT
// What makes an encrypted image one that opens.
#ifndef Q2_TESTS_FUZZ_LUKS_H
#define Q2_TESTS_FUZZ_LUKS_H

#include <stddef.h>
#include <stdint.h>

// Few iterations, and the digest of the key that the first active slot has, if the image
// is encrypted.
void fuzz_luks_fit(uint8_t *data, size_t n_bytes);

#endif
