// SPDX-License-Identifier: MIT
// What must not leave the process: passphrases and keys. They live in memory that is
// locked where the system allows it (libgcrypt's secure memory), and are wiped when
// freed.
#ifndef Q2_BASE_SECRET_H
#define Q2_BASE_SECRET_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

// Makes libgcrypt ready; every function below and whoever uses libgcrypt has called it.
// Cheap from the second time on, safe from any thread.
int q2_secret_init(struct q2_error *err);

// n_bytes of zeroed secure memory; NULL: there is none.
void *q2_secret_alloc(size_t n_bytes);
// Wipes and frees. p may be NULL.
void q2_secret_free(void *p);
// Overwrites memory that was not had from here (a line that was read, a stack buffer).
void q2_secret_wipe(void *p, size_t n_bytes);

// A passphrase, or whatever else is secret: bytes.
struct q2_secret {
    char *id;
    uint8_t *data; // secure memory; a NUL stands behind it
    size_t n_bytes;
};

// The passphrases that a command was given, by id.
struct q2_secrets;

int q2_secrets_new(struct q2_secrets **out, struct q2_error *err);
// Copies data; the caller wipes its own. -EEXIST: the id is taken.
int q2_secrets_add(struct q2_secrets *store, const char *id, const void *data,
                   size_t n_bytes, struct q2_error *err);
// "No secret with id 'x'". store may be NULL: nothing in it. *out belongs to the store.
int q2_secrets_find(const struct q2_secrets *store, const char *id,
                    const struct q2_secret **out, struct q2_error *err);
// The same for what is used as a text: "Data from secret x is not valid UTF-8". There is
// no NUL in it.
int q2_secrets_find_text(const struct q2_secrets *store, const char *id,
                         const struct q2_secret **out, struct q2_error *err);
// Wipes all. store may be NULL.
void q2_secrets_free(struct q2_secrets *store);

#endif
