// SPDX-License-Identifier: MIT
// btrfs: each block of its trees has its own logical address. Chunks say where that is on
// the disk; and one of the trees has the checksums of all data.
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "check/scan.h"
#include "recover/marks.h"

#define SUPERBLOCK_BYTES 4096U
#define MAGIC "_BHRfS_M"
#define INCOMPAT_METADATA_UUID 0x400U
#define SUMS_CRC32C 0U
#define CHUNK_ARRAY_AT 0x32bU
#define CHUNK_ARRAY_BYTES 2048U

// Of a block of a tree; its checksum comes first.
#define SUM_BYTES 32U
#define HEADER_BYTES 101U
#define ITEM_BYTES 25U // a key, and where the item is
#define KEY_BYTES 17U
#define MAX_LEVEL 7U
#define BACKREF_REVISION 1U

#define CHUNK_BYTES 48U
#define STRIPE_BYTES 32U
#define ITEM_CHUNK 228U
#define ITEM_SUMS 128U
#define OBJECT_SUMS ((uint64_t)-10)
// RAID0, RAID10, RAID5, RAID6: on several disks, or in turns.
#define CHUNK_STRIPED 0x1c8U

// What an image can be full of. One block of so many gives a clue.
#define MAX_CHUNKS ((size_t)1 << 14)
#define SUM_STEP 16U

static const struct q2_volume *known(const struct q2_marks *m, const uint8_t *id,
                                     size_t *v)
{
    for (*v = 1; *v < m->n_volumes; (*v)++) {
        if (m->volumes[*v].node_bytes > 0 && memcmp(m->volumes[*v].id, id, 16) == 0)
            return &m->volumes[*v];
    }
    return NULL;
}

// The number of the first chunk that begins behind that address.
static size_t find_chunk(const struct q2_marks *m, size_t volume, uint64_t logical)
{
    size_t low = 0, high = m->n_chunks;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct q2_chunk *c = &m->chunks[middle];
        if (c->volume < volume || (c->volume == volume && c->logical <= logical))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// Addresses are not used again: two chunks of one address are the same, or one was moved.
static int add_chunk(struct q2_marks *m, const struct q2_chunk *c, struct q2_error *err)
{
    size_t at = find_chunk(m, c->volume, c->logical);
    struct q2_chunk *before = at > 0 ? &m->chunks[at - 1] : NULL;
    void *list = m->chunks;
    if (before && before->volume == c->volume && before->logical == c->logical) {
        if (before->generation < c->generation)
            *before = *c;
        return 0;
    }
    if (m->n_chunks >= MAX_CHUNKS)
        return 0;
    int ret = q2_scan_grow(&list, &m->max_chunks, m->n_chunks, sizeof(*m->chunks), err);
    m->chunks = list;
    if (ret < 0)
        return ret;
    memmove(m->chunks + at + 1, m->chunks + at, (m->n_chunks - at) * sizeof(*m->chunks));
    m->chunks[at] = *c;
    m->n_chunks++;
    return 0;
}

// *n_used: bytes of it, with all its stripes; 0: it is none.
static int look_chunk(struct q2_marks *m, size_t v, uint64_t logical, uint64_t generation,
                      const uint8_t *s, size_t n_bytes, size_t *n_used,
                      struct q2_error *err)
{
    struct q2_chunk c = {.volume = v, .logical = logical, .generation = generation};
    *n_used = 0;
    if (n_bytes < CHUNK_BYTES)
        return 0;
    size_t n_stripes = q2_load_le16(s + 44);
    c.n_bytes = q2_load_le64(s);
    if (n_stripes == 0 || n_stripes > (n_bytes - CHUNK_BYTES) / STRIPE_BYTES ||
        c.n_bytes == 0 || c.n_bytes > INT64_MAX || logical > INT64_MAX)
        return 0;
    *n_used = CHUNK_BYTES + n_stripes * STRIPE_BYTES;
    for (size_t i = 0; i < n_stripes && c.n_copies < 2; i++) {
        const uint8_t *stripe = s + CHUNK_BYTES + i * STRIPE_BYTES;
        uint64_t at = q2_load_le64(stripe + 8);
        if (q2_load_le64(stripe) == m->volumes[v].disk_number && at <= INT64_MAX)
            c.physical[c.n_copies++] = at;
    }
    return c.n_copies == 0 || (q2_load_le64(s + 24) & CHUNK_STRIPED)
               ? 0
               : add_chunk(m, &c, err);
}

// The chunks by which the chunk tree is found stand in the superblock.
static int look_chunk_array(struct q2_marks *m, size_t v, const uint8_t *s,
                            struct q2_error *err)
{
    size_t n = q2_min_size(q2_load_le32(s + 0xa0), CHUNK_ARRAY_BYTES), n_used = 1;
    int ret = 0;
    s += CHUNK_ARRAY_AT;
    for (size_t at = 0; at + KEY_BYTES < n && n_used > 0 && ret == 0;
         at += KEY_BYTES + n_used) {
        uint64_t logical = q2_load_le64(s + at + 9);
        n_used = 0;
        if (s[at + 8] == ITEM_CHUNK)
            ret = look_chunk(m, v, logical, 0, s + at + KEY_BYTES, n - at - KEY_BYTES,
                             &n_used, err);
    }
    return ret;
}

// Each copy of the superblock has its own place.
static int look_superblock(struct q2_marks *m, const struct q2_mark_place *p,
                           struct q2_error *err)
{
    const uint8_t *s = p->sector;
    uint32_t sector = q2_load_le32(s + 0x90), node = q2_load_le32(s + 0x94);
    size_t v;
    if (p->n_bytes < SUPERBLOCK_BYTES || !q2_is_power_of_2(sector) || sector < 512 ||
        sector > Q2_CLUE_MAX_BLOCK || !q2_is_power_of_2(node) || node < sector ||
        node > Q2_CLUE_MAX_BLOCK)
        return 0;
    bool own_id = q2_load_le64(s + 0xbc) & INCOMPAT_METADATA_UUID;
    int ret = q2_marks_volume(m, s + (own_id ? 0x23b : 0x20), &v, err);
    if (ret < 0 || v == 0)
        return ret;
    struct q2_volume *volume = &m->volumes[v];
    volume->size = q2_load_le64(s + 0xc9 + 8); // of this disk, of perhaps several
    volume->disk_number = q2_load_le64(s + 0xc9);
    volume->block_log = q2_log2(sector);
    volume->node_bytes = node;
    volume->has_crc32c = q2_load_le16(s + 0xc4) == SUMS_CRC32C;
    ret = look_chunk_array(m, v, s, err);
    return ret < 0 ? ret : q2_marks_add(m, p, v, q2_load_le64(s + 0x30), err);
}

// Places of an address in its volume. 0: its chunk is not known.
static unsigned find_places(const struct q2_marks *m, size_t v, uint64_t logical,
                            uint64_t places[2])
{
    size_t at = find_chunk(m, v, logical);
    const struct q2_chunk *c = at > 0 ? &m->chunks[at - 1] : NULL;
    if (!c || c->volume != v || logical - c->logical >= c->n_bytes)
        return 0;
    for (unsigned i = 0; i < c->n_copies; i++)
        places[i] = c->physical[i] + (logical - c->logical);
    return c->n_copies;
}

static int look_sums(struct q2_marks *m, size_t v, uint64_t logical, const uint8_t *sums,
                     size_t n, struct q2_error *err)
{
    struct q2_clue clue = {
        .volume = v, .kind = Q2_CLUE_SUM, .block_bits = m->volumes[v].block_log};
    int ret = 0;
    for (size_t i = 0; i < n && ret == 0;
         i++, logical += UINT64_C(1) << clue.block_bits) {
        uint64_t places[2];
        // A block within is in the same grid for all items: they meet in runs of clues.
        if (i > 0 && (logical >> clue.block_bits) % SUM_STEP != 0)
            continue;
        unsigned n_places = find_places(m, v, logical, places);
        m->n_unknown += n_places == 0;
        clue.value = q2_load_le32(sums + 4 * i);
        for (unsigned k = 0; k < n_places && ret == 0; k++) {
            clue.position = places[k];
            ret = q2_clues_add(&m->clues, &clue, err);
        }
    }
    return ret;
}

static int look_items(struct q2_marks *m, size_t v, const uint8_t *node, size_t n_bytes,
                      struct q2_error *err)
{
    uint64_t generation = q2_load_le64(node + 0x50);
    size_t n = q2_load_le32(node + 0x60), room = n_bytes - HEADER_BYTES;
    int ret = 0;
    for (size_t i = 0; i < n && (i + 1) * ITEM_BYTES <= room && ret == 0; i++) {
        const uint8_t *key = node + HEADER_BYTES + i * ITEM_BYTES;
        uint64_t offset = q2_load_le64(key + 9);
        size_t at = q2_load_le32(key + 17), size = q2_load_le32(key + 21), n_used;
        if (at > room || size > room - at)
            continue;
        const uint8_t *data = node + HEADER_BYTES + at;
        if (key[8] == ITEM_CHUNK)
            ret = look_chunk(m, v, offset, generation, data, size, &n_used, err);
        else if (key[8] == ITEM_SUMS && q2_load_le64(key) == OBJECT_SUMS)
            ret = look_sums(m, v, offset, data, size / 4, err);
    }
    return ret;
}

// A block of a tree of that volume, as its header says.
static int look_node(struct q2_marks *m, const struct q2_mark_place *p, size_t v,
                     struct q2_error *err)
{
    const struct q2_volume *volume = &m->volumes[v];
    const uint8_t *s = p->sector;
    uint64_t places[2];
    unsigned n = find_places(m, v, q2_load_le64(s + 0x30), places);
    int ret = n > 0 ? q2_marks_add_either(m, p, v, places[0], places[n - 1], err) : 0;
    m->n_unknown += n == 0;
    // Nothing is read from one that is not there as a whole.
    size_t n_bytes = volume->node_bytes;
    if (ret < 0 || s[0x64] != 0 || n_bytes > p->n_bytes || !volume->has_crc32c ||
        ~q2_crc32c(UINT32_MAX, s + SUM_BYTES, n_bytes - SUM_BYTES) != q2_load_le32(s))
        return ret;
    return look_items(m, v, s, n_bytes, err);
}

// Would be one, if there is a superblock for it.
static bool is_likely_node(const uint8_t *s)
{
    uint64_t logical = q2_load_le64(s + 0x30), generation = q2_load_le64(s + 0x50);
    uint32_t n = q2_load_le32(s + 0x60);
    return logical != 0 && logical < INT64_MAX && logical % 4096 == 0 && s[0x38] == 1 &&
           generation != 0 && generation >> 40 == 0 && n != 0 &&
           n <= Q2_CLUE_MAX_BLOCK / ITEM_BYTES;
}

int q2_marks_look_btrfs(struct q2_marks *m, const struct q2_mark_place *p,
                        struct q2_error *err)
{
    const uint8_t *s = p->sector;
    size_t v;
    if (memcmp(s + 64, MAGIC, 8) == 0)
        return look_superblock(m, p, err);
    if (s[0x3f] != BACKREF_REVISION || s[0x64] > MAX_LEVEL)
        return 0;
    if (known(m, s + 0x20, &v))
        return look_node(m, p, v, err);
    m->n_unknown += is_likely_node(s);
    return 0;
}
