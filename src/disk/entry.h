// SPDX-License-Identifier: MIT
// L1 and L2 table entries (qcow2 format: "Cluster mapping").
#ifndef Q2_DISK_ENTRY_H
#define Q2_DISK_ENTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define Q2_FLAG_COPIED (UINT64_C(1) << 63)
#define Q2_FLAG_COMPRESSED (UINT64_C(1) << 62)
#define Q2_FLAG_ZERO (UINT64_C(1) << 0)
#define Q2_OFFSET_MASK UINT64_C(0x00fffffffffffe00)
#define Q2_L1_RESERVED UINT64_C(0x7f000000000001ff)
#define Q2_L2_RESERVED UINT64_C(0x3f000000000001fe)
#define Q2_REFCOUNT_TABLE_RESERVED UINT64_C(0x00000000000001ff)

enum q2_cluster_kind {
    Q2_CLUSTER_UNALLOCATED,
    Q2_CLUSTER_ZERO,           // reads as zeros, no host cluster
    Q2_CLUSTER_ZERO_ALLOCATED, // reads as zeros, keeps a host cluster
    Q2_CLUSTER_NORMAL,
    Q2_CLUSTER_COMPRESSED,
    // Extended entries alone (disk/subcluster.h):
    Q2_CLUSTER_MIXED,   // its subclusters are of several kinds
    Q2_CLUSTER_INVALID, // contradicts itself
};

// A decoded L2 entry.
struct q2_l2_entry {
    enum q2_cluster_kind kind;
    bool copied;
    bool has_cluster;     // a standard entry with a host cluster. (An unallocated one may
                          // have one, too, where subclusters exist.)
    uint64_t host_offset; // has_cluster: its offset; compressed: the first byte
    uint32_t n_bytes; // compressed: an upper bound of its length (up to the end of the
                      // last 512-byte sector); else 0
    // A bit per subcluster (all or none where there are no subclusters): stored in the
    // host cluster; reads as zeros. Compressed: none.
    uint32_t allocated, zero;
};

// Decodes an entry of version 2 or 3 (in version 2 there is no zero flag: bit 0 is
// reserved and ignored). Knows nothing of the file: the offset is not validated.
struct q2_l2_entry q2_l2_decode(uint64_t raw, unsigned cluster_bits, uint32_t version);

// Encodes. For compressed entries n_bytes is the exact length of the compressed data
// (1 .. cluster size); it is stored as sectors.
uint64_t q2_l2_encode(const struct q2_l2_entry *entry, unsigned cluster_bits);

// Highest host offset (exclusive) at which compressed data may start in this format.
uint64_t q2_l2_compressed_limit(unsigned cluster_bits);

// Whole tables, host-endian <-> big-endian; in and out may be the same memory.
void q2_table_decode(const void *in, uint64_t *out, size_t n_entries);
void q2_table_encode(const uint64_t *in, void *out, size_t n_entries);

#endif
