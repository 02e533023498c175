// SPDX-License-Identifier: MIT
// The metadata cache: tables of one cluster each, found by their host offset. A pointer
// that get or add returned stays good until the next trim, so nothing needs to be pinned:
// an operation trims once, before it looks at its first table. Not locked: the image's
// lock is.
#ifndef Q2_IMAGE_CACHE_H
#define Q2_IMAGE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "io/io.h"

// How a table is kept in memory.
enum q2_cache_form {
    Q2_CACHE_RAW,     // as it stands in the file (refcount blocks)
    Q2_CACHE_ENTRIES, // 64-bit entries, host-endian (L2 tables)
};

struct q2_cache;

struct q2_table {
    uint64_t host_offset;
    void *data;                     // one cluster; uint64_t[] for Q2_CACHE_ENTRIES
    uint32_t dirty_from, dirty_end; // bytes that the file does not have yet; equal: none
};

// Keeps up to about max_bytes; at least eight tables.
struct q2_cache *q2_cache_new(enum q2_cache_form form, uint32_t cluster_size,
                              uint64_t max_bytes);
void q2_cache_free(struct q2_cache *c);
// Another bound, kept from the next trim on.
void q2_cache_set_size(struct q2_cache *c, uint64_t max_bytes);

// The table at host_offset, read from io if it is not in memory. what names it in errors.
int q2_cache_get(struct q2_cache *c, struct q2_io *io, uint64_t host_offset,
                 const char *what, struct q2_table **out, struct q2_error *err);

// A table that is new at host_offset: zeros, dirty; an old one of that place is dropped.
int q2_cache_add(struct q2_cache *c, uint64_t host_offset, struct q2_table **out,
                 struct q2_error *err);

// Forgets the table at host_offset, dirty or not.
void q2_cache_drop(struct q2_cache *c, uint64_t host_offset);

// The table is to be written, all of it, or (with what was marked before, and what is in
// between) n_bytes > 0 of it.
void q2_cache_mark_dirty(struct q2_cache *c, struct q2_table *t);
void q2_cache_mark_range(struct q2_cache *c, struct q2_table *t, uint64_t from,
                         uint64_t n_bytes);
bool q2_cache_has_dirty(const struct q2_cache *c);
bool q2_cache_full(const struct q2_cache *c);
// It is, and there is too little in it that trim could drop: write back first.
bool q2_cache_wants_writing(const struct q2_cache *c);
bool q2_cache_holds(const struct q2_cache *c, uint64_t host_offset);

// Writes what is dirty, in the order of offsets, neighbours in one write, in whole blocks
// of 4096 bytes where tables are no smaller.
int q2_cache_write_back(struct q2_cache *c, struct q2_io *io, struct q2_error *err);

// Drops the clean tables used longest ago until the cache is within its size. What is
// dirty stays: write back first.
void q2_cache_trim(struct q2_cache *c);

#endif
