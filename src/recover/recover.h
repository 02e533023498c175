// SPDX-License-Identifier: MIT
// Bringing back an image that nothing can open: a new header and a new L1 table, over a
// file that is only read, from what the tables in it tell.
#ifndef Q2_RECOVER_RECOVER_H
#define Q2_RECOVER_RECOVER_H

#include "recover/layout.h"

struct q2_recover_options {
    uint64_t size;                             // of the guest's disk; 0: not given
    unsigned cluster_bits;                     // 0: as found
    uint32_t version;                          // 0: as found
    const char *backing_file, *backing_format; // NULL: as found
    const char *data_file;                     // the external one; NULL: there is none
    uint64_t data_size;                        // of it
    unsigned candidate; // the n-th L1 table of the list, from 1 on; 0: the best one
    bool no_l1;         // none: those that are there are another image's, and their
                        // L2 tables and the refcounts, too
};

// An L1 table that was found, as a run of clusters.
struct q2_l1_found {
    uint64_t offset;
    uint64_t n_entries; // up to the last that is used
    uint64_t n_links, n_copied;
    bool in_snapshot; // the snapshot table names it
    bool in_header;   // what is left of the header names it
    bool guessed;     // where it begins
};

// Where an L2 table that no L1 table names was put.
enum q2_certainty {
    Q2_PLACED_SURELY,   // by a mark in the guest's data that tells its own place
    Q2_PLACED_LIKELY,   // between two that were
    Q2_PLACED_IN_ORDER, // by its place in the file
};
struct q2_placed_table {
    uint64_t offset, index; // of the table in the file; of its entry in the L1 table
    enum q2_certainty certainty;
};

// An L2 table that was lost itself, made anew from clusters that nothing leads to.
struct q2_remade_table {
    uint64_t index, n_clusters;
};

// Where something that a header says comes from.
enum q2_source {
    Q2_FROM_HEADER,   // what is left of the old one
    Q2_FROM_TABLES,   // found in the file
    Q2_FROM_USER,     // given by an option
    Q2_FROM_SNAPSHOT, // as a snapshot says
    Q2_FROM_GUEST,    // as the guest's partition table or file system says
    Q2_FROM_DATA,     // as long as the external data file
    Q2_FROM_REACH,    // as far as anything is mapped: a guess
    Q2_FROM_NOTHING,  // taken to be so
    Q2_FROM_END
};
struct q2_sources {
    enum q2_source cluster_size, version, size, backing, snapshots;
};

// What was made of the file.
struct q2_recovery {
    struct q2_io *image; // an overlay over the file: an image that can be opened; owned
    struct q2_header header; // of it
    struct q2_layout layout;
    struct q2_hints hints;
    uint64_t n_tables, n_l1_tables;
    struct q2_l1_found *l1s;        // best first
    size_t n_l1s, chosen;           // chosen == n_l1s: none, the L1 table was lost
    struct q2_placed_table *placed; // in the order of their indexes
    size_t n_placed;
    struct q2_remade_table *remade; // in the order of their indexes
    size_t n_remade;
    uint64_t n_linked, n_left; // L2 tables that are mapped, and that are not
    // Of the active state, behind the end of the file, which was cut off: these read as
    // zeros.
    uint64_t n_cut_tables, n_cut_clusters;
    unsigned n_snapshots;
    struct q2_sources from;
    bool has_luks;
    struct q2_found found;         // all tables
    struct q2_counts_place counts; // table 0: no refcount table was found
};

// io stays the caller's, and must outlive the recovery. On success the caller clears it.
// -ENOENT: there is nothing of an image in the file.
int q2_recover_make(struct q2_io *io, const struct q2_recover_options *options,
                    const struct q2_monitor *mon, struct q2_recovery *out,
                    struct q2_error *err);
void q2_recover_clear(struct q2_recovery *r);

#endif
