// SPDX-License-Identifier: MIT
// Secrets that are encrypted themselves: AES-256-CBC, padded as PKCS #7 says.
#ifndef Q2_BASE_SEALED_H
#define Q2_BASE_SEALED_H

#include "base/secret.h"

// Decrypts data in place with the key, of 32 bytes, and iv, which is base64 (NULL: not
// given). *n_bytes becomes the length without the padding.
int q2_sealed_open(const struct q2_secret *key, const char *iv, uint8_t *data,
                   size_t *n_bytes, struct q2_error *err);

#endif
