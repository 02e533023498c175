// SPDX-License-Identifier: MIT
// How a file without a usable header is laid out: cluster size, kind of L2 entries; and
// the tables that are found with it.
#ifndef Q2_RECOVER_LAYOUT_H
#define Q2_RECOVER_LAYOUT_H

#include "disk/entry.h"
#include "disk/header.h"
#include "recover/survey.h"

// What is left of the header; each field stands alone, and has_... says that its value is
// one that a header could have.
struct q2_hints {
    bool has_magic, has_version, has_cluster_bits, has_size, has_l1, has_snapshots;
    bool has_refcounts, has_crypt, has_order, has_features;
    uint32_t version, cluster_bits, crypt_method, refcount_order;
    uint32_t l1_size, nb_snapshots, refcount_table_clusters;
    uint64_t size, l1_table_offset, snapshots_offset, refcount_table_offset;
    uint64_t features; // incompatible ones
};

struct q2_layout {
    unsigned cluster_bits;
    bool extended;
    uint64_t covered; // bytes of the file that entries lead to, if it is laid out so
    bool has_compressed;
    enum q2_compression compression;
    bool has_zero_flags; // version 3, then
    uint64_t data_size;  // of the external data file, where each cluster has its guest
                         // offset; 0: there is none
};

// What one entry says, under a layout.
struct q2_reading {
    // Q2_READS_BEYOND: to a place behind the end of the file, which may have been cut off
    enum {
        Q2_READS_EMPTY,
        Q2_READS_BAD,
        Q2_READS_BEYOND,
        Q2_READS_PLACE,
        Q2_READS_PACKED
    } kind;
    uint64_t offset, n_bytes;
    bool copied;
    bool plain; // no flags but COPIED: an L1 entry could be so
};

struct q2_found_table {
    uint64_t offset;
    uint32_t n_used, n_bad; // entries
    uint32_t n_tables;      // that lead to other tables
    uint32_t n_copied;
    bool plain;          // no entry has flags but COPIED
    bool is_l1;          // part of an L1 table: its entries lead to L2 tables
    bool counts;         // a refcount table
    unsigned order;      // counts: log2 of the width of its counts
    uint32_t n_clusters; // counts: of the table that begins here; 0: it goes on here
    bool named;          // by something that looks like an L1 table
    bool linked;         // by an L1 table that is used
    bool stale;          // most of what it leads to, other tables lead to
};

struct q2_found {
    struct q2_layout layout;
    struct q2_found_table *list; // by offset
    size_t n, max;
    bool any_copied;     // the flag is there in any of the L2 tables
    uint64_t beyond_end; // of what entries lead to behind the end of the file; 0: nothing
};

void q2_hints_read(const uint8_t header[Q2_HEADER_V3_BYTES], uint64_t file_size,
                   struct q2_hints *out);

struct q2_reading q2_layout_judge(const struct q2_layout *l, uint64_t file_size,
                                  const uint64_t *table, size_t index);
static inline size_t q2_layout_entries(const struct q2_layout *l)
{
    return (size_t)1 << (l->cluster_bits - (l->extended ? 4 : 3));
}

// The layout under which most of the file makes sense. Of given, cluster_bits (0: as
// found, else the user's) and data_size count. -ENOENT: there is no table in the file.
int q2_layout_find(const struct q2_survey *s, const struct q2_hints *hints,
                   const struct q2_layout *given, struct q2_layout *out,
                   struct q2_error *err);

int q2_layout_fail(const struct q2_io *io, struct q2_error *err);

// All tables, told apart. On success the caller clears them.
int q2_found_collect(const struct q2_survey *s, const struct q2_layout *layout,
                     struct q2_found *out, struct q2_error *err);
void q2_found_clear(struct q2_found *f);
// The table there; NULL: there is none. q2_found_from: the first one there or behind it.
struct q2_found_table *q2_found_from(const struct q2_found *f, uint64_t offset);
struct q2_found_table *q2_found_at(const struct q2_found *f, uint64_t offset);

// within.c: the file is none, but holds an image that begins at *offset; 0: it does not.
// f: what was found in it; NULL: nothing.
int q2_found_within(const struct q2_survey *s, const struct q2_found *f, uint64_t *offset,
                    struct q2_error *err);

// counts.c: the refcount table, if there is one; of several, the one that the header
// names.
const struct q2_found_table *q2_found_counts(const struct q2_found *f,
                                             const struct q2_hints *h);
// Where a refcount table lies, and how wide its counts are.
struct q2_counts_place {
    uint64_t table;
    uint32_t n_clusters;
    unsigned order, cluster_bits;
    uint64_t file_size;
};
struct q2_counts_place q2_found_counts_place(const struct q2_found *f,
                                             const struct q2_found_table *t,
                                             uint64_t file_size);
// The refcount of the host cluster at offset; UINT64_MAX: it has none there.
int q2_counts_read(struct q2_io *io, const struct q2_counts_place *p, uint64_t offset,
                   uint64_t *value, struct q2_error *err);

#endif
