// SPDX-License-Identifier: MIT
// For the files that find places for L2 tables.
#ifndef Q2_RECOVER_PLACE_H
#define Q2_RECOVER_PLACE_H

#include "recover/ext.h"
#include "recover/work.h"

// An L2 table that no L1 table names.
struct q2_lost {
    struct q2_found_table *table;
    uint64_t index; // in the L1 table; UINT64_MAX: not known yet
    bool in_use;    // by its refcount
};

static inline bool q2_place_is_open(const struct q2_lost *x)
{
    return x->index == UINT64_MAX && !x->table->stale;
}

// Makes the table at host offset table the one of that index. r->placed has room.
int q2_place_put(struct q2_work *w, struct q2_recovery *r, uint64_t index, uint64_t table,
                 enum q2_certainty certainty, struct q2_error *err);

// The same for a table of the list.
static inline int q2_place_take(struct q2_work *w, struct q2_recovery *r,
                                struct q2_lost *x, uint64_t index,
                                enum q2_certainty certainty, struct q2_error *err)
{
    x->index = index;
    return q2_place_put(w, r, index, x->table->offset, certainty, err);
}

// Do tables that have a place follow each other in the file, in the order of which the
// list is, as they do on the disk?
bool q2_place_is_ordered(const struct q2_lost *list, size_t n);

// place_data.c: tables that are none, but guest data, or parts of another image that was
// written over this one, become stale.
int q2_place_drop_data(struct q2_work *w, struct q2_error *err);

// Each places what it can of the list, and sets index there.
int q2_place_marked(struct q2_work *w, struct q2_recovery *r, struct q2_lost *list,
                    size_t n, struct q2_error *err);
// Has the guest the same in the ranges of the two tables?
int q2_place_are_alike(struct q2_work *w, uint64_t x, uint64_t y, bool *alike,
                       struct q2_error *err);

// By the marks alone, of the volumes that have a place.
int q2_place_by_votes(struct q2_work *w, struct q2_recovery *r, struct q2_lost *list,
                      size_t n, const struct q2_marks *m, struct q2_error *err);
// By the marks' clues, of the volumes that have a place.
int q2_place_by_clues(struct q2_work *w, struct q2_recovery *r, struct q2_lost *list,
                      size_t n, const struct q2_marks *m, struct q2_error *err);
// By the ext file system of that volume. Its clues go into m, in place of others.
int q2_place_by_ext(struct q2_work *w, struct q2_recovery *r, struct q2_lost *list,
                    size_t n, size_t volume, struct q2_marks *m, struct q2_error *err);

// The same by what it uses.
int q2_place_by_use(struct q2_ext *fs, struct q2_recovery *r, struct q2_lost *list,
                    size_t n, struct q2_error *err);

#endif
