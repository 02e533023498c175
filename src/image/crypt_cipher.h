// SPDX-License-Identifier: MIT
// Encrypting and decrypting sectors: a key at work.
#ifndef Q2_IMAGE_CRYPT_CIPHER_H
#define Q2_IMAGE_CRYPT_CIPHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image/crypt_suite.h"

enum q2_crypt_direction { Q2_ENCRYPT, Q2_DECRYPT };

// For one thread at a time.
struct q2_cipher;

// key: suite->key_bytes.
int q2_cipher_new(const struct q2_crypt_suite *suite, const void *key,
                  struct q2_cipher **out, struct q2_error *err);
// Sectors of Q2_LUKS_SECTOR bytes from first_sector on, each with its own initial value;
// the last one may be short. from and to are one and the same buffer, or do not overlap.
int q2_cipher_run(struct q2_cipher *c, enum q2_crypt_direction direction,
                  uint64_t first_sector, const void *from, void *to, size_t n_bytes,
                  struct q2_error *err);
// c may be NULL.
void q2_cipher_free(struct q2_cipher *c);

#endif
