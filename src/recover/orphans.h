// SPDX-License-Identifier: MIT
// Clusters of guest data that no L2 table leads to: L2 tables were lost themselves.
#ifndef Q2_RECOVER_ORPHANS_H
#define Q2_RECOVER_ORPHANS_H

#include "recover/ext.h"
#include "recover/work.h"

struct q2_orphan {
    uint64_t host;  // number of the cluster in the file
    uint64_t guest; // on the disk; UINT64_MAX: not known
    unsigned votes; // marks in it that say so; 0: it lies between two that have some
};

struct q2_orphans {
    struct q2_work *w;
    struct q2_orphan *list; // in the order of the file
    size_t n, max;
    size_t n_placed;
    struct q2_counters *taken; // guest clusters
    uint8_t *cluster;          // room for one
};

// What nothing leads to. On success the caller clears it.
int q2_orphans_collect(struct q2_work *w, struct q2_orphans *o, struct q2_error *err);
void q2_orphans_clear(struct q2_orphans *o);

// Could that cluster of the disk be one of these?
bool q2_orphans_is_open(const struct q2_orphans *o, uint64_t guest);
int q2_orphans_put(struct q2_orphans *o, size_t i, uint64_t guest, struct q2_error *err);

// A mark that is at in_cluster of the cluster says that it is there on the disk.
void q2_orphans_vote(const struct q2_orphans *o, struct q2_orphan *x, uint64_t at,
                     uint64_t in_cluster);

// Those that no mark tells anything of, by the checksums among the marks' clues.
int q2_orphans_by_sums(struct q2_orphans *o, const struct q2_marks *m,
                       struct q2_error *err);

// More of them, by the files of that file system: those at the end of a stretch that
// goes on as the one before it, or the one behind it.
int q2_orphans_by_ext(struct q2_orphans *o, const struct q2_ext *fs,
                      struct q2_error *err);

// The same by files that end in them, sorted by position and of one file system, wherever
// many speak for one distance.
int q2_orphans_by_ends(struct q2_orphans *o, const struct q2_clues *ends,
                       struct q2_error *err);

// Finds places, and makes L2 tables of them.
int q2_orphans_place(struct q2_work *w, struct q2_recovery *r, struct q2_marks *m,
                     struct q2_error *err);

#endif
