// SPDX-License-Identifier: MIT
// Extended L2 entries: what each subcluster is, and which entries contradict themselves.
#include "disk/subcluster.h"

#include "test.h"

#define AT UINT64_C(0x123450000)
#define ZERO(bits) ((uint64_t)(bits) << 32)
#define ALL UINT32_MAX

static void kinds(void)
{
    const struct {
        uint64_t raw, bitmap;
        enum q2_cluster_kind kind;
        bool has_cluster;
        const char *name;
    } cases[] = {
        {0, 0, Q2_CLUSTER_UNALLOCATED, false, "unallocated"},
        {AT | Q2_FLAG_COPIED, 0, Q2_CLUSTER_UNALLOCATED, true, "preallocated"},
        {0, ZERO(ALL), Q2_CLUSTER_ZERO, false, "zero"},
        {AT, ZERO(ALL), Q2_CLUSTER_ZERO_ALLOCATED, true, "zero, keeps its cluster"},
        {AT, ALL, Q2_CLUSTER_NORMAL, true, "normal"},
        {AT, 1, Q2_CLUSTER_MIXED, true, "one subcluster"},
        {AT, ZERO(1U << 31), Q2_CLUSTER_MIXED, true, "one zero subcluster"},
        {0, ZERO(1), Q2_CLUSTER_MIXED, false, "one zero subcluster, nothing else"},
        {AT, ZERO(0xffff0000) | 0xffff, Q2_CLUSTER_MIXED, true, "half and half"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct q2_l2_entry e =
            q2_l2_decode_extended(cases[i].raw, cases[i].bitmap, 16, false);
        is_int((int)e.kind, (int)cases[i].kind, "%s: kind", cases[i].name);
        is_int(e.has_cluster, cases[i].has_cluster, "%s: host cluster", cases[i].name);
        is_u64(e.host_offset, cases[i].raw & Q2_OFFSET_MASK, "%s: offset", cases[i].name);
        is_u64(q2_l2_encode_extended(&e, 16), cases[i].raw, "%s: encodes again",
               cases[i].name);
        is_u64(q2_subcluster_bitmap(&e), cases[i].bitmap, "%s: its bitmap too",
               cases[i].name);
        is_u64(q2_subcluster_faults(cases[i].raw, cases[i].bitmap, false), 0, "%s: sound",
               cases[i].name);
    }
}

static void faults(void)
{
    const struct {
        uint64_t raw, bitmap;
        unsigned faults;
        const char *name;
    } cases[] = {
        {AT, ZERO(4) | 6, Q2_SUBCLUSTER_BOTH, "allocated and zero"},
        {Q2_FLAG_COPIED, 2, Q2_SUBCLUSTER_NOWHERE, "allocated nowhere"},
        {0, ZERO(2) | 2, Q2_SUBCLUSTER_BOTH | Q2_SUBCLUSTER_NOWHERE, "both"},
        {AT | Q2_FLAG_ZERO, 2, Q2_SUBCLUSTER_ZERO_FLAG, "zero flag"},
        {Q2_FLAG_COMPRESSED | AT, 1, Q2_SUBCLUSTER_PACKED, "bits on a compressed one"},
        {Q2_FLAG_COMPRESSED | AT | 1, ZERO(1), Q2_SUBCLUSTER_PACKED,
         "an odd place is no zero flag"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct q2_l2_entry e =
            q2_l2_decode_extended(cases[i].raw, cases[i].bitmap, 16, false);
        is_u64(q2_subcluster_faults(cases[i].raw, cases[i].bitmap, false),
               cases[i].faults, "%s: told", cases[i].name);
        is_int(e.kind == Q2_CLUSTER_INVALID, (cases[i].faults & Q2_SUBCLUSTER_FATAL) != 0,
               "%s: decoded", cases[i].name);
    }
}

static void data_file(void)
{
    struct q2_l2_entry e = q2_l2_decode_extended(Q2_FLAG_COPIED, ALL, 16, true);
    is_int((int)e.kind, (int)Q2_CLUSTER_NORMAL, "a data file has an offset 0");
    is_int(e.has_cluster, true, "which is a cluster");
    e = q2_l2_decode_extended(0, ALL, 16, true);
    is_int((int)e.kind, (int)Q2_CLUSTER_INVALID, "if the COPIED flag says so");
}

static void compressed(void)
{
    struct q2_l2_entry plain = {
        .kind = Q2_CLUSTER_COMPRESSED, .host_offset = 0x50200, .n_bytes = 600};
    uint64_t raw = q2_l2_encode_extended(&plain, 16);
    struct q2_l2_entry e = q2_l2_decode_extended(raw, 0, 16, false);
    is_u64(raw, q2_l2_encode(&plain, 16), "compressed entries stay what they are");
    is_int((int)e.kind, (int)Q2_CLUSTER_COMPRESSED, "compressed: kind");
    is_u64(e.host_offset, 0x50200, "compressed: offset");
    is_int(e.has_cluster, false, "compressed: no cluster of its own");
    is_u64(q2_subcluster_run(&e, 0), 32, "compressed: all of one kind");
}

static void subclusters(void)
{
    struct q2_l2_entry e = q2_l2_decode_extended(AT, ZERO(0xf0) | 0x8000000f, 16, false);
    is_int((int)q2_subcluster_kind(&e, 0), (int)Q2_CLUSTER_NORMAL, "0 is stored");
    is_u64(q2_subcluster_run(&e, 0), 4, "up to 3");
    is_u64(q2_subcluster_run(&e, 2), 2, "from 2 on: two");
    is_int((int)q2_subcluster_kind(&e, 4), (int)Q2_CLUSTER_ZERO_ALLOCATED, "4 is zero");
    is_u64(q2_subcluster_run(&e, 4), 4, "up to 7");
    is_int((int)q2_subcluster_kind(&e, 8), (int)Q2_CLUSTER_UNALLOCATED, "8 is nothing");
    is_u64(q2_subcluster_run(&e, 8), 23, "up to 30");
    is_int((int)q2_subcluster_kind(&e, 31), (int)Q2_CLUSTER_NORMAL, "31 is stored");
    is_u64(q2_subcluster_run(&e, 31), 1, "the last one");
    e = q2_l2_decode_extended(AT, ALL, 16, false);
    is_u64(q2_subcluster_run(&e, 5), 27, "of one kind: up to the end");
    is_u64(q2_subcluster_mask(0, 32), ALL, "mask of all");
    is_u64(q2_subcluster_mask(31, 1), 0x80000000, "mask of the last");
    is_u64(q2_subcluster_mask(4, 8), 0xff0, "mask of some");
}

int main(void)
{
    kinds();
    faults();
    data_file();
    compressed();
    subclusters();
    return done_testing();
}
