// SPDX-License-Identifier: MIT
// Extended L2 entries: two words, the second of which tells apart 32 subclusters (qcow2
// format: "Extended L2 Entries").
#ifndef Q2_DISK_SUBCLUSTER_H
#define Q2_DISK_SUBCLUSTER_H

#include <stdbool.h>
#include <stdint.h>

#include "disk/entry.h"

#define Q2_SUBCLUSTERS 32U
#define Q2_SUBCLUSTER_BITS 5U // log2 of their number

// What is wrong with an entry; bits, several may hold.
enum q2_subcluster_fault {
    // Some subclusters are allocated and read as zeros, too.
    Q2_SUBCLUSTER_BOTH = 1,
    // Some subclusters are allocated, but there is no host cluster.
    Q2_SUBCLUSTER_NOWHERE = 2,
    // A compressed cluster has no subclusters, but bits are set.
    Q2_SUBCLUSTER_PACKED = 4,
    // The zero flag of plain entries, which is reserved here (and ignored).
    Q2_SUBCLUSTER_ZERO_FLAG = 8,
};

// With the first two the entry cannot be told what it means (kind Q2_CLUSTER_INVALID),
// the others do no harm.
#define Q2_SUBCLUSTER_FATAL ((unsigned)Q2_SUBCLUSTER_BOTH | Q2_SUBCLUSTER_NOWHERE)

// The two words of an entry, in the order in which they stand. data_file: the image has
// an external data file, where 0 is a host offset like any other if the COPIED flag is
// set.
struct q2_l2_entry q2_l2_decode_extended(uint64_t raw, uint64_t bitmap,
                                         unsigned cluster_bits, bool data_file);
unsigned q2_subcluster_faults(uint64_t raw, uint64_t bitmap, bool data_file);

// Of a decoded entry, extended or not; not for kind Q2_CLUSTER_INVALID.
uint64_t q2_l2_encode_extended(const struct q2_l2_entry *e, unsigned cluster_bits);
static inline uint64_t q2_subcluster_bitmap(const struct q2_l2_entry *e)
{
    return (uint64_t)e->zero << Q2_SUBCLUSTERS | e->allocated;
}

// Sets the kind of a standard entry, extended or not, by what the rest of it says.
void q2_subcluster_settle(struct q2_l2_entry *e);

// The kind of one subcluster: never Q2_CLUSTER_MIXED.
enum q2_cluster_kind q2_subcluster_kind(const struct q2_l2_entry *e, unsigned index);
// How many subclusters from index on are of one kind (1 .. 32 - index).
unsigned q2_subcluster_run(const struct q2_l2_entry *e, unsigned index);

// n (1 .. 32 - first) bits from first on.
static inline uint32_t q2_subcluster_mask(unsigned first, unsigned n)
{
    return (UINT32_MAX >> (Q2_SUBCLUSTERS - n)) << first;
}

#endif
