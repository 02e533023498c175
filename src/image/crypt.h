// SPDX-License-Identifier: MIT
// The encryption of an open image: unlocking it, guest data in and out, making the
// encryption of a new image. LUKS1 (qcow2 format: "Full disk encryption header pointer")
// and the old AES-128-CBC.
#ifndef Q2_IMAGE_CRYPT_H
#define Q2_IMAGE_CRYPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/secret.h"
#include "disk/header.h"
#include "disk/luks.h"

// The encryption of an image to be made. Names as QEMU's options take them ("aes-256",
// "xts", "plain64", "sha256"); NULL: the default.
struct q2_crypt_options {
    const char *format;     // "luks" or "aes"; NULL: missing
    const char *key_secret; // an id in secrets; NULL: missing
    const struct q2_secrets *secrets;
    // What follows is for LUKS alone.
    const char *cipher_alg, *cipher_mode, *ivgen_alg, *ivgen_hash_alg, *hash_alg;
    bool set_iter_time;
    uint64_t iter_time; // milliseconds that unlocking is to take
};

// Everything that can be said before anything is made: names, combinations, the secret.
int q2_crypt_validate(const struct q2_crypt_options *o, struct q2_error *err);

#endif
