// SPDX-License-Identifier: MIT
// Mutations by somebody who knows the format: one entry or field gets a value that means
// something. What makes all further reading end at once (the magic, sizes of clusters
// that no small file holds) is put right again, mostly.
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "disk/entry.h"
#include "disk/header.h"
#include "tests/fuzz/fuzz.h"

#define MAGIC 0x514649fbU
#define MAX_SNAPSHOTS 16U
#define MAX_L1_SIZE (UINT32_C(1) << 22)

struct mutation {
    uint8_t *p;
    size_t n;
    uint64_t random;
};

static uint64_t draw(struct mutation *m, uint64_t below)
{
    m->random ^= m->random << 13;
    m->random ^= m->random >> 7;
    m->random ^= m->random << 17;
    return below > 0 ? m->random % below : 0;
}

static bool chance(struct mutation *m, unsigned one_in)
{
    return draw(m, one_in) == 0;
}

// What the header says, as far as it can be believed.
static unsigned cluster_bits(const struct mutation *m)
{
    uint32_t bits = q2_load_be32(m->p + 20);
    return bits >= 9 && bits <= 21 ? bits : 9;
}

static uint64_t word(const struct mutation *m, uint64_t at)
{
    return m->n >= 8 && at <= m->n - 8 ? q2_load_be64(m->p + at) : 0;
}

// --- places --------------------------------------------------------------------------

// Fields of the header; widths in bytes.
static const struct {
    uint8_t at, width;
} fields[] = {
    {4, 4},  {8, 8},  {16, 4}, {20, 4}, {24, 8}, {32, 4}, {36, 4}, {40, 8},  {48, 8},
    {56, 4}, {60, 4}, {64, 8}, {72, 8}, {80, 8}, {88, 8}, {96, 4}, {100, 4}, {104, 1},
};

struct place {
    uint64_t at;
    unsigned width;
};

static uint64_t entry_of(struct mutation *m, uint64_t table, uint64_t n)
{
    return table + 8 * draw(m, n);
}

// Most entries in use are the first ones.
static uint64_t few(struct mutation *m)
{
    return chance(m, 4) ? UINT64_C(1) << (cluster_bits(m) - 3) : 8;
}

static uint64_t l1_of(struct mutation *m)
{
    uint64_t snapshots = q2_load_be64(m->p + 64);
    bool active = snapshots == 0 || !chance(m, 3);
    return active ? q2_load_be64(m->p + 40) : word(m, snapshots);
}

static uint64_t extension(const struct mutation *m, uint32_t type)
{
    uint64_t at = q2_load_be32(m->p + 4) == 2 ? 72 : q2_load_be32(m->p + 100);
    for (unsigned i = 0; i < 16 && m->n >= 32 && at <= m->n - 32; i++) {
        if (q2_load_be32(m->p + at) == type)
            return at + 8;
        at += 8 + q2_align_up(q2_load_be32(m->p + at + 4), 8);
    }
    return 0;
}

static uint64_t in_bitmaps(struct mutation *m)
{
    uint64_t at = extension(m, Q2_EXT_BITMAPS);
    if (at == 0 || chance(m, 4))
        return at + 4 * draw(m, 6);
    uint64_t directory = word(m, at + 16);
    return chance(m, 2) ? directory + 4 * draw(m, 16)
                        : entry_of(m, word(m, directory), 4);
}

static uint64_t in_luks(struct mutation *m)
{
    uint64_t at = word(m, extension(m, Q2_EXT_CRYPTO));
    return chance(m, 2) ? at + 4 * draw(m, 52) : at + 208 + 4 * draw(m, 96);
}

static struct place choose_place(struct mutation *m)
{
    uint64_t table;
    size_t f;
    switch (draw(m, 12)) {
    case 0:
        f = (size_t)draw(m, sizeof(fields) / sizeof(fields[0]));
        return (struct place){fields[f].at, fields[f].width};
    case 1:
        return (struct place){entry_of(m, l1_of(m), 8), 8};
    case 2:
    case 3:
    case 4:
        table = word(m, entry_of(m, l1_of(m), 4)) & Q2_OFFSET_MASK;
        return (struct place){entry_of(m, table, few(m)), 8};
    case 5:
        return (struct place){entry_of(m, q2_load_be64(m->p + 48), 4), 8};
    case 6:
        table = word(m, q2_load_be64(m->p + 48)) & Q2_OFFSET_MASK;
        return (struct place){table + 2 * draw(m, m->n >> cluster_bits(m)), 2};
    case 7:
        return (struct place){q2_load_be64(m->p + 64) + 4 * draw(m, 40), 4};
    case 8:
        return (struct place){104 + 4 * draw(m, 64), 4};
    case 9:
        return (struct place){in_bitmaps(m), 4};
    case 10:
        return (struct place){in_luks(m), 4};
    default:
        return (struct place){m->n - 1 - draw(m, FUZZ_OPERATION_BYTES), 1};
    }
}

// --- values --------------------------------------------------------------------------

static uint64_t entry_value(struct mutation *m)
{
    static const uint64_t flags[] = {0,
                                     Q2_FLAG_COPIED,
                                     Q2_FLAG_COPIED,
                                     Q2_FLAG_ZERO,
                                     Q2_FLAG_COPIED | Q2_FLAG_ZERO,
                                     Q2_FLAG_COMPRESSED,
                                     UINT64_C(1) << 61};
    uint64_t n_clusters = (m->n >> cluster_bits(m)) + 2;
    uint64_t flag = flags[draw(m, sizeof(flags) / sizeof(flags[0]))];
    uint64_t offset = draw(m, n_clusters) << cluster_bits(m);
    if (flag == Q2_FLAG_COMPRESSED)
        offset += draw(m, 1024) | draw(m, 8) << (70 - cluster_bits(m));
    return offset | flag;
}

static uint64_t telling_value(struct mutation *m)
{
    static const uint64_t values[] = {
        0,          1,          2,          3,          7,           8,
        9,          16,         24,         64,         104,         112,
        511,        512,        513,        4096,       65535,       65536,
        INT32_MAX,  UINT32_MAX, INT64_MAX,  UINT64_MAX, 1ULL << 63,  1ULL << 62,
        1ULL << 61, 1ULL << 40, 1ULL << 55, 1ULL << 56, 0x6803f857U, Q2_EXT_BITMAPS,
    };
    return values[draw(m, sizeof(values) / sizeof(values[0]))];
}

static uint64_t load(const struct mutation *m, struct place p)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < p.width; i++)
        v = v << 8 | m->p[p.at + i];
    return v;
}

static void store(struct mutation *m, struct place p, uint64_t v)
{
    for (unsigned i = p.width; i > 0; i--, v >>= 8)
        m->p[p.at + i - 1] = (uint8_t)v;
}

static bool is_inside(const struct mutation *m, struct place p)
{
    return p.at < m->n && p.width <= m->n - p.at;
}

static void change_one(struct mutation *m)
{
    struct place p = choose_place(m), other;
    if (!is_inside(m, p))
        return;
    uint64_t v = load(m, p);
    switch (draw(m, 8)) {
    case 0:
    case 1:
    case 2:
        v = p.width == 8 ? entry_value(m) : telling_value(m);
        break;
    case 3:
        v = telling_value(m);
        break;
    case 4:
        v ^= UINT64_C(1) << draw(m, 8 * p.width);
        break;
    case 5:
        v += draw(m, 5) - 2;
        break;
    case 6:
        other = choose_place(m);
        other.width = p.width;
        if (is_inside(m, other))
            v = load(m, other);
        break;
    default:
        v = draw(m, 0);
    }
    store(m, p, v);
}

// --- whole clusters ------------------------------------------------------------------

// One becomes a copy of another, or zeros; the operations stay at the end.
static void change_cluster(struct mutation *m)
{
    size_t size = (size_t)1 << cluster_bits(m), n = m->n >> cluster_bits(m);
    if (n < 2)
        return;
    uint8_t *to = m->p + draw(m, n) * size, *from = m->p + draw(m, n) * size;
    if (to == from)
        memset(to, 0, size);
    else
        memcpy(to, from, size);
}

static void change_length(struct mutation *m, size_t max_bytes)
{
    size_t size = (size_t)1 << cluster_bits(m);
    if (chance(m, 2) && m->n > 2 * size) {
        m->n -= (size_t)draw(m, size) + 1;
    } else if (m->n + size <= max_bytes) {
        memset(m->p + m->n, 0, size);
        m->n += size;
    }
}

static void put_right(struct mutation *m)
{
    if (chance(m, 32))
        return;
    q2_store_be32(m->p, MAGIC);
    uint32_t version = q2_load_be32(m->p + 4), bits = q2_load_be32(m->p + 20);
    if (version != 2 && version != 3)
        q2_store_be32(m->p + 4, 3);
    if (bits < 9 || bits > 16)
        q2_store_be32(m->p + 20, 9 + bits % 4);
    // Behind the end of the file are zeros, which are empty snapshots; they take time.
    uint32_t n_snapshots = q2_load_be32(m->p + 60);
    if (n_snapshots > MAX_SNAPSHOTS)
        q2_store_be32(m->p + 60, n_snapshots % MAX_SNAPSHOTS);
    uint32_t l1_size = q2_load_be32(m->p + 36);
    if (l1_size > MAX_L1_SIZE)
        q2_store_be32(m->p + 36, l1_size % MAX_L1_SIZE);
}

size_t fuzz_mutate_image(uint8_t *data, size_t n_bytes, size_t max_bytes, unsigned seed)
{
    struct mutation m = {
        .p = data, .n = n_bytes, .random = seed * UINT64_C(0x9e3779b97f4a7c15) | 1};
    if (max_bytes < Q2_HEADER_V3_BYTES + FUZZ_OPERATION_BYTES)
        return n_bytes;
    if (m.n < Q2_HEADER_V3_BYTES + FUZZ_OPERATION_BYTES) {
        memset(data + m.n, 0, Q2_HEADER_V3_BYTES + FUZZ_OPERATION_BYTES - m.n);
        m.n = Q2_HEADER_V3_BYTES + FUZZ_OPERATION_BYTES;
    }
    draw(&m, 0);
    for (uint64_t left = 1 + draw(&m, 3); left > 0; left--) {
        if (chance(&m, 20))
            change_length(&m, max_bytes);
        else if (chance(&m, 12))
            change_cluster(&m);
        else
            change_one(&m);
    }
    put_right(&m);
    return m.n;
}
