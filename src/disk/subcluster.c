// SPDX-License-Identifier: MIT
// Extended L2 entries.
#include "disk/subcluster.h"

static bool has_cluster(uint64_t raw, bool data_file)
{
    return (raw & Q2_OFFSET_MASK) != 0 || (data_file && (raw & Q2_FLAG_COPIED) != 0);
}

unsigned q2_subcluster_faults(uint64_t raw, uint64_t bitmap, bool data_file)
{
    uint32_t allocated = (uint32_t)bitmap, zero = (uint32_t)(bitmap >> Q2_SUBCLUSTERS);
    unsigned faults = 0;
    if (raw & Q2_FLAG_COMPRESSED)
        return bitmap != 0 ? Q2_SUBCLUSTER_PACKED : 0;
    if (allocated & zero)
        faults |= Q2_SUBCLUSTER_BOTH;
    if (allocated != 0 && !has_cluster(raw, data_file))
        faults |= Q2_SUBCLUSTER_NOWHERE;
    if (raw & Q2_FLAG_ZERO)
        faults |= Q2_SUBCLUSTER_ZERO_FLAG;
    return faults;
}

void q2_subcluster_settle(struct q2_l2_entry *e)
{
    if (e->allocated == UINT32_MAX)
        e->kind = Q2_CLUSTER_NORMAL;
    else if (e->zero == UINT32_MAX)
        e->kind = e->has_cluster ? Q2_CLUSTER_ZERO_ALLOCATED : Q2_CLUSTER_ZERO;
    else
        e->kind = e->allocated || e->zero ? Q2_CLUSTER_MIXED : Q2_CLUSTER_UNALLOCATED;
}

struct q2_l2_entry q2_l2_decode_extended(uint64_t raw, uint64_t bitmap,
                                         unsigned cluster_bits, bool data_file)
{
    if (raw & Q2_FLAG_COMPRESSED)
        return q2_l2_decode(raw, cluster_bits, 3);
    struct q2_l2_entry e = {
        .copied = (raw & Q2_FLAG_COPIED) != 0,
        .has_cluster = has_cluster(raw, data_file),
        .host_offset = raw & Q2_OFFSET_MASK,
        .allocated = (uint32_t)bitmap,
        .zero = (uint32_t)(bitmap >> Q2_SUBCLUSTERS),
    };
    if (q2_subcluster_faults(raw, bitmap, data_file) & Q2_SUBCLUSTER_FATAL)
        e.kind = Q2_CLUSTER_INVALID;
    else
        q2_subcluster_settle(&e);
    return e;
}

uint64_t q2_l2_encode_extended(const struct q2_l2_entry *e, unsigned cluster_bits)
{
    if (e->kind == Q2_CLUSTER_COMPRESSED)
        return q2_l2_encode(e, cluster_bits);
    return (e->copied ? Q2_FLAG_COPIED : 0) | (e->has_cluster ? e->host_offset : 0);
}

enum q2_cluster_kind q2_subcluster_kind(const struct q2_l2_entry *e, unsigned index)
{
    if (e->kind != Q2_CLUSTER_MIXED)
        return e->kind;
    if ((e->allocated >> index) & 1)
        return Q2_CLUSTER_NORMAL;
    if ((e->zero >> index) & 1)
        return e->has_cluster ? Q2_CLUSTER_ZERO_ALLOCATED : Q2_CLUSTER_ZERO;
    return Q2_CLUSTER_UNALLOCATED;
}

unsigned q2_subcluster_run(const struct q2_l2_entry *e, unsigned index)
{
    unsigned n = 1;
    if (e->kind != Q2_CLUSTER_MIXED)
        return Q2_SUBCLUSTERS - index;
    enum q2_cluster_kind kind = q2_subcluster_kind(e, index);
    while (index + n < Q2_SUBCLUSTERS && q2_subcluster_kind(e, index + n) == kind)
        n++;
    return n;
}
