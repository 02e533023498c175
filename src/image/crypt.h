// SPDX-License-Identifier: MIT
// The encryption of an open image: unlocking it, guest data in and out, making the
// encryption of a new image. LUKS1 (qcow2 format: "Full disk encryption header pointer")
// and the old AES-128-CBC.
#ifndef Q2_IMAGE_CRYPT_H
#define Q2_IMAGE_CRYPT_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/secret.h"
#include "disk/header.h"
#include "image/crypt_suite.h"

struct q2_disk;
struct q2_image;
struct q2_runtime;
struct q2_crypt_worker;

// What an image was unlocked with: all that its data need.
struct q2_crypt {
    struct q2_crypt_suite suite;
    uint8_t *key;         // suite.key_bytes, secure memory
    bool sectors_by_host; // sectors are numbered by where they lie in the file (LUKS),
                          // else by guest offset
    struct q2_luks_header luks; // for crypt_method 2
    // Ciphers that no thread uses just now.
    pthread_mutex_t lock;
    struct q2_crypt_worker *idle;
};

// The encryption of an image to be made. Names as QEMU's options take them; NULL: the
// default.
struct q2_crypt_options {
    const char *format;     // "luks" or "aes"; NULL: missing
    const char *key_secret; // an id in secrets; NULL: missing
    const struct q2_secrets *secrets;
    struct q2_crypt_names names; // for LUKS alone, as is iter_time
    bool set_iter_time;
    uint64_t iter_time; // milliseconds that unlocking is to take
};

#define Q2_CRYPT_ITER_TIME 2000U // if not asked for otherwise

// Everything that can be said before anything is made: names, combinations, the secret.
int q2_crypt_validate(const struct q2_crypt_options *o, struct q2_error *err);

// What the header of a new image says of its encryption before it is made.
void q2_crypt_announce(const struct q2_crypt_options *o, struct q2_header *h);

// Makes the encryption of a new image (announced; o is valid): a key, a LUKS header in
// clusters of its own, one active slot.
int q2_crypt_make(struct q2_image *img, const struct q2_crypt_options *o,
                  struct q2_error *err);

// What the user says that the image is encrypted with, against its header.
int q2_crypt_check_format(const struct q2_image *img, const char *format,
                          struct q2_error *err);

// Finds the key of an image by what r says (NULL: nothing), before anything of its guest
// data is read or written. An image that is not encrypted has none.
int q2_crypt_unlock(struct q2_image *img, const struct q2_runtime *r,
                    struct q2_error *err);

// Wipes the key. c may be NULL.
void q2_crypt_free(struct q2_crypt *c);

// q2_disk_ops.load and store.
int q2_crypt_load(struct q2_disk *d, uint64_t guest_offset, uint64_t host_offset,
                  void *buf, size_t n_bytes, struct q2_error *err);
int q2_crypt_store(struct q2_disk *d, uint64_t guest_offset, uint64_t host_offset,
                   const void *buf, size_t n_bytes, struct q2_error *err);

#endif
