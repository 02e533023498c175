// SPDX-License-Identifier: MIT
// Which algorithms an encryption is made of, under the names of QEMU's options and under
// those of the LUKS header.
#ifndef Q2_IMAGE_CRYPT_SUITE_H
#define Q2_IMAGE_CRYPT_SUITE_H

#include <stddef.h>

#include "base/error.h"
#include "disk/luks.h"

#define Q2_MAX_CIPHER_BLOCK 16U

enum q2_ivgen { Q2_IVGEN_PLAIN, Q2_IVGEN_PLAIN64, Q2_IVGEN_ESSIV };

struct q2_crypt_suite {
    int cipher, mode;   // libgcrypt's numbers
    size_t key_bytes;   // both keys of XTS together
    size_t block_bytes; // of the cipher
    enum q2_ivgen ivgen;
    int essiv_cipher, essiv_hash; // libgcrypt's numbers, for Q2_IVGEN_ESSIV
    int hash;                     // of keys and passphrases
};

// As the options of a new image name them; NULL: QEMU's default.
struct q2_crypt_names {
    const char *cipher_alg;  // "aes-256"
    const char *cipher_mode; // "xts"
    const char *ivgen_alg;   // "plain64"
    const char *ivgen_hash_alg;
    const char *hash_alg; // "sha256"
};

// The name number i that such a parameter may have; NULL: there are no more.
enum q2_crypt_parameter { Q2_CIPHER_ALG, Q2_CIPHER_MODE, Q2_IVGEN_ALG, Q2_HASH_ALG };
const char *q2_crypt_suite_name(enum q2_crypt_parameter parameter, size_t i);

// Fills header's names and key length, too.
int q2_crypt_suite_choose(const struct q2_crypt_names *names,
                          struct q2_luks_header *header, struct q2_crypt_suite *out,
                          struct q2_error *err);
// -ENOTSUP for what is not known here.
int q2_crypt_suite_read(const struct q2_luks_header *header, struct q2_crypt_suite *out,
                        struct q2_error *err);
// crypt_method 1: AES-128-CBC.
void q2_crypt_suite_legacy(struct q2_crypt_suite *out);

#endif
