// SPDX-License-Identifier: MIT
// Values that a damaged header field may have had.
#ifndef Q2_CHECK_HEAL_HEADER_H
#define Q2_CHECK_HEAL_HEADER_H

#include "base/error.h"
#include "io/io.h"

// One field of the header, another value for it.
struct q2_candidate {
    const char *field;
    unsigned at, n_bytes; // place in the header
    uint64_t value;
};

struct q2_candidates {
    struct q2_candidate *list;
    size_t n, max;
};

// All values worth trying for the image in io, the likeliest of a field first. The caller
// frees list.
int q2_candidates_collect(struct q2_io *io, struct q2_candidates *c,
                          struct q2_error *err);

// --- for candidates*.c ---

// The header as it stands, damaged or not.
struct q2_raw_header {
    uint8_t bytes[4096];
    uint64_t file_size;
    unsigned cluster_bits;
    uint64_t size;
    uint32_t version, l1_size, crypt_method;
    uint64_t features, autoclear;
    // Where the extensions that name places have their data; 0: they are not there.
    unsigned bitmaps, crypto;
};

// Adds a value, unless the field has it already.
int q2_candidates_add(struct q2_candidates *c, const struct q2_raw_header *r,
                      const char *field, unsigned at, unsigned n_bytes, uint64_t value,
                      struct q2_error *err);

// Finds the extensions.
void q2_candidates_find_extensions(struct q2_raw_header *r);
// Types, and numbers in what they say, that can be told without a search.
int q2_candidates_extensions(struct q2_io *io, struct q2_candidates *c,
                             const struct q2_raw_header *r, struct q2_error *err);
// Could these be the first bytes of what an extension names? Then their place is added.
int q2_candidates_extension_place(struct q2_candidates *c, const struct q2_raw_header *r,
                                  uint64_t offset, const uint8_t *buf, size_t n_bytes,
                                  struct q2_error *err);

#endif
