// SPDX-License-Identifier: MIT
// L2 entries of every kind, in every cluster size.
#include "disk/entry.h"

#include "test.h"

static void kinds(void)
{
    const uint64_t at = UINT64_C(0x123450000);
    const struct {
        uint64_t raw;
        uint32_t version;
        enum q2_cluster_kind kind;
        bool copied;
        uint64_t host_offset;
        const char *name;
    } cases[] = {
        {0, 3, Q2_CLUSTER_UNALLOCATED, false, 0, "unallocated"},
        {1, 3, Q2_CLUSTER_ZERO, false, 0, "zero"},
        {at | 1, 3, Q2_CLUSTER_ZERO_ALLOCATED, false, at, "zero, shared cluster"},
        {at | 1 | Q2_FLAG_COPIED, 3, Q2_CLUSTER_ZERO_ALLOCATED, true, at, "zero, kept"},
        {at, 3, Q2_CLUSTER_NORMAL, false, at, "normal, shared"},
        {at | Q2_FLAG_COPIED, 3, Q2_CLUSTER_NORMAL, true, at, "normal"},
        {Q2_OFFSET_MASK | Q2_FLAG_COPIED, 3, Q2_CLUSTER_NORMAL, true, Q2_OFFSET_MASK,
         "highest offset"},
        {0, 2, Q2_CLUSTER_UNALLOCATED, false, 0, "version 2, unallocated"},
        {at, 2, Q2_CLUSTER_NORMAL, false, at, "version 2, normal"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct q2_l2_entry e = q2_l2_decode(cases[i].raw, 16, cases[i].version);
        is_int((int)e.kind, (int)cases[i].kind, "%s: kind", cases[i].name);
        is_int(e.copied, cases[i].copied, "%s: copied", cases[i].name);
        is_u64(e.host_offset, cases[i].host_offset, "%s: offset", cases[i].name);
        is_u64(e.n_bytes, 0, "%s: no length", cases[i].name);
        is_u64(q2_l2_encode(&e, 16), cases[i].raw, "%s: encodes again", cases[i].name);
    }
}

static void version_2(void)
{
    struct q2_l2_entry e = q2_l2_decode(UINT64_C(0x10001), 16, 2);
    is_int((int)e.kind, (int)Q2_CLUSTER_NORMAL, "version 2 knows no zero flag");
    is_u64(e.host_offset, 0x10000, "and the bit is no part of the offset");
    e = q2_l2_decode(1, 16, 2);
    is_int((int)e.kind, (int)Q2_CLUSTER_UNALLOCATED, "the flag alone is nothing there");
}

// The format's own example: 64 KiB clusters have 54 bits of offset and 8 of sectors.
static void compressed_layout(void)
{
    struct q2_l2_entry e = {
        .kind = Q2_CLUSTER_COMPRESSED, .host_offset = 0x50200, .n_bytes = 600};
    uint64_t raw = q2_l2_encode(&e, 16);
    is_u64(raw, Q2_FLAG_COMPRESSED | UINT64_C(0x50200) | (UINT64_C(1) << 54),
           "two sectors are one additional sector");
    e.n_bytes = 512;
    is_u64(q2_l2_encode(&e, 16), Q2_FLAG_COMPRESSED | UINT64_C(0x50200),
           "one sector is no additional one");
    e.host_offset = 0x503ff;
    e.n_bytes = 2;
    is_u64(q2_l2_encode(&e, 16),
           Q2_FLAG_COMPRESSED | UINT64_C(0x503ff) | (UINT64_C(1) << 54),
           "two bytes across a border are two sectors");
    e = q2_l2_decode(Q2_FLAG_COMPRESSED | UINT64_C(0x503ff), 16, 3);
    is_u64(e.n_bytes, 1, "up to the end of its sector");
}

static bool round_trips(uint64_t offset, uint32_t n_bytes, unsigned bits)
{
    struct q2_l2_entry e = {
        .kind = Q2_CLUSTER_COMPRESSED, .host_offset = offset, .n_bytes = n_bytes};
    struct q2_l2_entry d = q2_l2_decode(q2_l2_encode(&e, bits), bits, 3);
    uint64_t end = offset + n_bytes;

    return d.kind == Q2_CLUSTER_COMPRESSED && !d.copied && d.host_offset == offset &&
           d.n_bytes == ((end + 511) & ~UINT64_C(511)) - offset;
}

static void compressed_sizes(void)
{
    for (unsigned bits = 9; bits <= 21; bits++) {
        uint32_t cluster = 1U << bits;
        uint64_t limit = q2_l2_compressed_limit(bits);
        bool good = true;
        for (uint64_t at = 0; at < 520; at += 7) {
            good = good && round_trips(4096 + at, 1, bits);
            good = good && round_trips(4096 + at, cluster, bits);
            good = good && round_trips(4096 + at, cluster / 2 + 1, bits);
            good = good && round_trips(limit - 1 - at, 1, bits);
        }
        ok(good, "compressed entries of 2^%u byte clusters", bits);
        is_u64(limit, UINT64_C(1) << (70 - bits), "their offsets have %u bits",
               70 - bits);
    }
}

static void tables(void)
{
    uint64_t entries[3] = {1, Q2_FLAG_COPIED | 0x10000, UINT64_MAX};
    uint64_t back[3];
    uint8_t disk[24];

    q2_table_encode(entries, disk, 3);
    ok(memcmp(disk, "\0\0\0\0\0\0\0\1\x80\0\0\0\0\1\0\0", 16) == 0, "tables: big-endian");
    q2_table_decode(disk, back, 3);
    ok(memcmp(entries, back, sizeof(back)) == 0, "tables: and back");
    q2_table_encode(back, back, 3);
    ok(memcmp(back, disk, sizeof(disk)) == 0, "tables: in place");
    q2_table_decode(back, back, 3);
    ok(memcmp(entries, back, sizeof(back)) == 0, "tables: in place and back");
}

int main(void)
{
    kinds();
    version_2();
    compressed_layout();
    compressed_sizes();
    tables();
    return done_testing();
}
