// SPDX-License-Identifier: MIT
// What an ext file system uses of the ranges of indexes that have no table yet, held
// against what the tables without a place map.
#ifndef Q2_RECOVER_USES_H
#define Q2_RECOVER_USES_H

#include "recover/place.h"

// How a table and the range of an index differ.
struct q2_fit {
    bool known;
    uint32_t n_used, n_mapped;
    uint32_t missing; // in use, and not mapped
    uint32_t surplus; // mapped, and not in use
};

struct q2_uses {
    struct q2_ext *fs;
    uint64_t span;
    struct q2_lost *list; // the tables, in the order of the file
    size_t n;
    size_t *row;       // of each table among those that are open
    uint64_t *indexes; // that are open, and of whose range something is in use
    size_t n_indexes, max_indexes;
    size_t n_bytes;      // of a map: a bit for each cluster of a table's range
    uint8_t *maps;       // of the tables, one behind the other
    uint8_t *used;       // by the file system, in the range of one index
    uint8_t *unsure;     // inode tables there: in use, but perhaps never written
    struct q2_fit *fits; // by table and index
    uint64_t n_loads;    // left
};

static inline struct q2_fit *q2_uses_fit(const struct q2_uses *u, size_t i, size_t k)
{
    return &u->fits[u->row[i] * u->n_indexes + k];
}

static inline uint64_t q2_fit_distance(const struct q2_fit *f)
{
    return (uint64_t)f->missing + f->surplus;
}

static inline bool q2_uses_is_open(const struct q2_uses *u, size_t k)
{
    return q2_work_is_open_index(u->fs->w, u->indexes[k]);
}

// What is left, as it fits best in the order of the file.
int q2_place_aligned(const struct q2_uses *u, struct q2_recovery *r,
                     struct q2_error *err);

#endif
