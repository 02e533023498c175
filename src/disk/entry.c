// SPDX-License-Identifier: MIT
// L1 and L2 table entries. A compressed entry packs an offset and a number of sectors
// into 62 bits; the larger the cluster, the more bits the sectors take.
#include "disk/entry.h"

#include "base/endian.h"

#define SECTOR_BITS 9
#define SECTOR (1U << SECTOR_BITS)

// Bits of the offset; the rest up to bit 61 is the number of sectors.
static unsigned offset_bits(unsigned cluster_bits)
{
    return 62 - (cluster_bits - 8);
}

uint64_t q2_l2_compressed_limit(unsigned cluster_bits)
{
    return UINT64_C(1) << offset_bits(cluster_bits);
}

static struct q2_l2_entry decode_compressed(uint64_t raw, unsigned cluster_bits)
{
    unsigned shift = offset_bits(cluster_bits);
    uint64_t offset = raw & ((UINT64_C(1) << shift) - 1);
    uint32_t additional = (uint32_t)(raw >> shift) & ((1U << (cluster_bits - 8)) - 1);

    return (struct q2_l2_entry){
        .kind = Q2_CLUSTER_COMPRESSED,
        .copied = (raw & Q2_FLAG_COPIED) != 0,
        .host_offset = offset,
        .n_bytes = (additional + 1) * SECTOR - (uint32_t)(offset & (SECTOR - 1)),
    };
}

struct q2_l2_entry q2_l2_decode(uint64_t raw, unsigned cluster_bits, uint32_t version)
{
    if (raw & Q2_FLAG_COMPRESSED)
        return decode_compressed(raw, cluster_bits);

    uint64_t host_offset = raw & Q2_OFFSET_MASK;
    bool zero = version >= 3 && (raw & Q2_FLAG_ZERO);
    struct q2_l2_entry e = {
        .copied = (raw & Q2_FLAG_COPIED) != 0,
        .has_cluster = host_offset != 0,
        .host_offset = host_offset,
        .allocated = host_offset != 0 && !zero ? UINT32_MAX : 0,
        .zero = zero ? UINT32_MAX : 0,
    };
    if (zero)
        e.kind = host_offset ? Q2_CLUSTER_ZERO_ALLOCATED : Q2_CLUSTER_ZERO;
    else
        e.kind = host_offset ? Q2_CLUSTER_NORMAL : Q2_CLUSTER_UNALLOCATED;
    return e;
}

uint64_t q2_l2_encode(const struct q2_l2_entry *entry, unsigned cluster_bits)
{
    uint64_t raw = entry->copied ? Q2_FLAG_COPIED : 0;
    uint64_t last;

    switch (entry->kind) {
    case Q2_CLUSTER_UNALLOCATED:
        return raw;
    case Q2_CLUSTER_ZERO:
        return raw | Q2_FLAG_ZERO;
    case Q2_CLUSTER_ZERO_ALLOCATED:
        return raw | entry->host_offset | Q2_FLAG_ZERO;
    case Q2_CLUSTER_NORMAL:
        return raw | entry->host_offset;
    case Q2_CLUSTER_MIXED: // never: plain entries have no such kinds
    case Q2_CLUSTER_INVALID:
        return 0;
    case Q2_CLUSTER_COMPRESSED:
        break;
    }
    last = entry->host_offset + entry->n_bytes - 1;
    return raw | Q2_FLAG_COMPRESSED | entry->host_offset |
           ((last >> SECTOR_BITS) - (entry->host_offset >> SECTOR_BITS))
               << offset_bits(cluster_bits);
}

void q2_table_decode(const void *in, uint64_t *out, size_t n_entries)
{
    const char *p = in;
    for (size_t i = 0; i < n_entries; i++)
        out[i] = q2_load_be64(p + i * sizeof(uint64_t));
}

void q2_table_encode(const uint64_t *in, void *out, size_t n_entries)
{
    char *p = out;
    for (size_t i = 0; i < n_entries; i++)
        q2_store_be64(p + i * sizeof(uint64_t), in[i]);
}
