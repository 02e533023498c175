// SPDX-License-Identifier: MIT
// From passphrases to keys and back (LUKS1): PBKDF2, the anti-forensic splitter, a master
// key wrapped in the material of a key slot.
#ifndef Q2_IMAGE_CRYPT_KEY_H
#define Q2_IMAGE_CRYPT_KEY_H

#include <stdint.h>

#include "base/secret.h"
#include "image/crypt_suite.h"

#define Q2_KEY_MIN_ITERATIONS 1000U

// How long unlocking is to take, in iterations of PBKDF2. `share` of the time: the check
// of the master key gets an eighth of what a slot does. n_bytes is what is derived.
int q2_key_iterations(int hash, size_t n_bytes, uint64_t iter_time_ms, unsigned share,
                      uint32_t *out, struct q2_error *err);

// The digest of a master key that the header's salt and iterations give.
int q2_key_digest(const struct q2_crypt_suite *suite, const struct q2_luks_header *h,
                  const void *master_key, uint8_t digest[20], struct q2_error *err);

// Bytes of a slot's key material.
size_t q2_key_material_bytes(const struct q2_crypt_suite *suite);

// slot: salt, iterations and stripes are used. material: q2_key_material_bytes.
int q2_key_wrap(const struct q2_crypt_suite *suite, const struct q2_luks_slot *slot,
                const struct q2_secret *passphrase, const void *master_key,
                void *material, struct q2_error *err);
// What comes out of a wrong passphrase is some other key: see q2_key_digest.
int q2_key_unwrap(const struct q2_crypt_suite *suite, const struct q2_luks_slot *slot,
                  const struct q2_secret *passphrase, const void *material,
                  void *master_key, struct q2_error *err);

// For keys.
int q2_key_random(void *buf, size_t n_bytes, struct q2_error *err);

#endif
