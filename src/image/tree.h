// SPDX-License-Identifier: MIT
// Whole trees of the mapping (an L1 table, its L2 tables, and the clusters behind them),
// which gain or lose one reference when a snapshot is made, applied or deleted. What
// changes is collected first, from L2 tables read in long runs; then it is known whether
// all of it can be done, and refcounts change in the order of their blocks.
//
// All with the lock held. Nothing may wait in the L2 cache to be written.
#ifndef Q2_IMAGE_TREE_H
#define Q2_IMAGE_TREE_H

#include "base/counters.h"
#include "base/monitor.h"
#include "image/image.h"

struct q2_tree_table {
    uint64_t offset;
    uint32_t gained, lost; // references of it and all behind it
    bool copied;           // has entries with the COPIED flag
};

// Start with zeros; release with q2_tree_clear.
struct q2_tree_change {
    struct q2_tree_table *tables;
    size_t n_tables, max_tables;
    struct q2_counters *gained, *lost; // by host cluster
    struct q2_counters *raised;        // of what is gained, so far
};

// Everything behind this L1 table is to gain or to lose a reference.
int q2_tree_add_l1(const struct q2_image *img, struct q2_tree_change *c,
                   const uint64_t *l1, uint64_t n_entries, bool gain,
                   struct q2_error *err);

// Reads the tables and counts. What is gained and lost at once is left out.
int q2_tree_count(struct q2_image *img, struct q2_tree_change *c,
                  const struct q2_monitor *mon, struct q2_error *err);

// Clusters of a table of n_bytes lose a reference too.
int q2_tree_lose(const struct q2_image *img, struct q2_tree_change *c, uint64_t offset,
                 uint64_t n_bytes, struct q2_error *err);

// Can refcounts rise and fall as they are to? If not, nothing has changed.
int q2_tree_check(struct q2_image *img, const struct q2_tree_change *c,
                  struct q2_error *err);

// Refcounts rise by what is gained / fall by what is lost; in the cache, which is written
// back when it is full. What has been lost for good is punched out of the file by
// q2_tree_punch, once the refcounts are durable.
int q2_tree_raise(struct q2_image *img, struct q2_tree_change *c, struct q2_error *err);
int q2_tree_lower(struct q2_image *img, struct q2_tree_change *c, struct q2_error *err);
void q2_tree_punch(struct q2_image *img, struct q2_tree_change *c);
// The change is given up: what was raised so far, and nothing else, is lost from now on.
void q2_tree_take_back(struct q2_tree_change *c);

// Takes the COPIED flags out of the L2 tables that gain references. Writes to the file.
int q2_tree_clear_copied(struct q2_image *img, const struct q2_tree_change *c,
                         struct q2_error *err);

// Sets the COPIED flags of what the active state has to itself now that others have lost
// it: in L2 tables in the file, in the L1 table in memory.
int q2_tree_set_copied(struct q2_image *img, struct q2_tree_change *c,
                       struct q2_error *err);

void q2_tree_clear(struct q2_tree_change *c);

#endif
