// SPDX-License-Identifier: MIT
// The key slots of a LUKS header in an image's file. The disk's lock is not needed: the
// header's clusters are nobody else's.
#ifndef Q2_IMAGE_CRYPT_SLOTS_H
#define Q2_IMAGE_CRYPT_SLOTS_H

#include "image/crypt.h"
#include "image/image.h"

// The slots' master key: at most one of them is looked at for each call.
// *matches: the passphrase opens this (active) slot, and master_key (of suite.key_bytes,
// secure) is the key.
int q2_slot_try(struct q2_image *img, const struct q2_luks_header *h,
                const struct q2_crypt_suite *suite, unsigned index,
                const struct q2_secret *passphrase, void *master_key, bool *matches,
                struct q2_error *err);

// A slot for the image's key (img->crypt) under a passphrase. A power cut leaves a slot
// that is inactive, or whole. An active slot is erased before, once another one holds the
// new passphrase if there is a free one.
int q2_slot_put(struct q2_image *img, unsigned index, const struct q2_secret *passphrase,
                uint64_t iter_time_ms, struct q2_error *err);

// Makes the slot inactive, for certain, then overwrites its key material.
int q2_slot_erase(struct q2_image *img, unsigned index, struct q2_error *err);

#endif
