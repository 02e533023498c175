// SPDX-License-Identifier: MIT
// Builds headers byte by byte, with no help from what is tested.
#ifndef Q2_TESTS_UNIT_BUILT_H
#define Q2_TESTS_UNIT_BUILT_H

#include <stdlib.h>

#include "base/endian.h"
#include "disk/header.h"

// A first cluster under construction.
struct built {
    uint8_t *p;
    size_t n_bytes;
    size_t at; // where the next extension goes
};

// A valid header as qemu-img makes it for a disk of 64 MiB; no extensions yet.
static inline struct built build_header(uint32_t version, unsigned cluster_bits)
{
    struct built b = {.n_bytes = (size_t)1 << cluster_bits};
    uint64_t cluster = b.n_bytes;

    b.p = calloc(1, b.n_bytes);
    if (!b.p)
        abort();
    q2_store_be32(b.p, 0x514649fb);
    q2_store_be32(b.p + 4, version);
    q2_store_be32(b.p + 20, cluster_bits);
    q2_store_be64(b.p + 24, UINT64_C(64) << 20);
    q2_store_be32(b.p + 36, 8192); // enough for every cluster size
    q2_store_be64(b.p + 40, 3 * cluster);
    q2_store_be64(b.p + 48, cluster);
    q2_store_be32(b.p + 56, 1);
    b.at = 72;
    if (version >= 3) {
        q2_store_be32(b.p + 96, 4);
        q2_store_be32(b.p + 100, 112);
        b.at = 112;
    }
    return b;
}

static inline void build_extension(struct built *b, uint32_t type, const void *data,
                                   size_t n_bytes)
{
    q2_store_be32(b->p + b->at, type);
    q2_store_be32(b->p + b->at + 4, (uint32_t)n_bytes);
    if (n_bytes)
        memcpy(b->p + b->at + 8, data, n_bytes);
    b->at += 8 + ((n_bytes + 7) & ~(size_t)7);
}

static inline void build_backing(struct built *b, const char *name)
{
    build_extension(b, 0, NULL, 0);
    q2_store_be64(b->p + 8, b->at);
    q2_store_be32(b->p + 16, (uint32_t)strlen(name));
    memcpy(b->p + b->at, name, strlen(name));
}

static inline int decode_built(const struct built *b, struct q2_header *h,
                               struct q2_error *err)
{
    *h = (struct q2_header){0};
    *err = (struct q2_error)Q2_ERROR_INIT;
    return q2_header_decode(b->p, b->n_bytes, h, err);
}

#endif
