// SPDX-License-Identifier: MIT
// XFS: allocation groups have numbers, and most blocks of version 5 say where they are.
#include <string.h>

#include "base/endian.h"
#include "recover/marks.h"

#define MODE_FILE 0x8000U
#define MODE_KIND 0xf000U
#define FORMAT_EXTENTS 2
#define EXTENT_BYTES 16U
#define INODE_CORE_BYTES 176U
#define WIDE_COUNTS 0x10U // of extents

// Where a block's own place stands (in sectors of 512 bytes), and its file system's id.
static const struct kind {
    char magic[5];
    unsigned place, id;
} kinds[] = {
    {"AB3B", 16, 32}, {"AB3C", 16, 32}, {"IAB3", 16, 32}, {"FIB3", 16, 32},
    {"R3FC", 16, 32}, {"RMB3", 16, 32}, {"BMA3", 24, 40}, {"XDB3", 8, 24},
    {"XDD3", 8, 24},  {"XDF3", 8, 24},
};

static bool is_zero(const uint8_t id[16])
{
    static const uint8_t zeros[16] = {0};
    return memcmp(id, zeros, 16) == 0;
}

// The superblock, or a copy of it: does not say which, but how the others count.
static int look_superblock(struct q2_marks *m, const uint8_t *s, struct q2_error *err)
{
    size_t v;
    struct q2_volume g = {.ag_blocks = q2_load_be32(s + 84),
                          .block_log = s[120],
                          .inode_log = s[122],
                          .inodes_log = s[123],
                          .ag_log = s[124]};
    if (g.block_log < 9 || g.block_log > 16 || g.ag_log > 31 || g.ag_blocks == 0 ||
        g.inode_log < 8 || g.inode_log > g.block_log ||
        g.inodes_log != g.block_log - g.inode_log || is_zero(s + 32))
        return 0;
    int ret = q2_marks_volume(m, s + 32, &v, err);
    if (ret < 0 || v == 0)
        return ret;
    struct q2_volume *volume = &m->volumes[v];
    uint64_t n_blocks = q2_load_be64(s + 8);
    if (n_blocks <= (uint64_t)INT64_MAX >> g.block_log)
        volume->size = n_blocks << g.block_log;
    volume->ag_blocks = g.ag_blocks;
    volume->block_log = g.block_log;
    volume->inode_log = g.inode_log;
    volume->inodes_log = g.inodes_log;
    volume->ag_log = g.ag_log;
    return 0;
}

// The volume of that id, if its superblock was seen.
static const struct q2_volume *known(struct q2_marks *m, const uint8_t *id, size_t *v)
{
    for (*v = 1; *v < m->n_volumes; (*v)++) {
        if (memcmp(m->volumes[*v].id, id, 16) == 0 && m->volumes[*v].ag_blocks > 0)
            return &m->volumes[*v];
    }
    m->n_unknown++;
    return NULL;
}

// The headers of free space and inodes: sectors 1 and 2 of their group.
static int look_group(struct q2_marks *m, const struct q2_mark_place *p, unsigned sector,
                      unsigned id_at, struct q2_error *err)
{
    size_t v;
    const struct q2_volume *volume = known(m, p->sector + id_at, &v);
    if (!volume)
        return 0;
    uint64_t group = q2_load_be32(p->sector + 8);
    return q2_marks_add(m, p, v,
                        ((group * volume->ag_blocks) << volume->block_log) +
                            (uint64_t)sector * Q2_MARK_SECTOR,
                        err);
}

// Of a file whose extents are in its inode, where it ends.
static int look_extents(struct q2_marks *m, const struct q2_mark_place *p, size_t v,
                        struct q2_error *err)
{
    const struct q2_volume *volume = &m->volumes[v];
    const uint8_t *s = p->sector;
    size_t inode_bytes = (size_t)1 << volume->inode_log;
    size_t room = s[82] ? (size_t)s[82] * 8 : inode_bytes - INODE_CORE_BYTES;
    bool is_wide = q2_load_be64(s + 120) & WIDE_COUNTS;
    uint64_t n = is_wide ? q2_load_be64(s + 24) : q2_load_be32(s + 76);
    uint64_t size = q2_load_be64(s + 56);
    if ((q2_load_be16(s + 2) & MODE_KIND) != MODE_FILE || s[5] != FORMAT_EXTENTS ||
        size == 0 || size > INT64_MAX || n > room / EXTENT_BYTES ||
        INODE_CORE_BYTES + n * EXTENT_BYTES > inode_bytes || inode_bytes > p->n_bytes)
        return 0;
    uint64_t last = (size - 1) >> volume->block_log;
    for (size_t i = 0; i < n; i++) {
        const uint8_t *e = s + INODE_CORE_BYTES + i * EXTENT_BYTES;
        uint64_t high = q2_load_be64(e), low = q2_load_be64(e + 8);
        uint64_t first = high >> 9 & ((UINT64_C(1) << 54) - 1), length = low & 0x1fffff;
        uint64_t start = (high & 0x1ff) << 43 | low >> 21;
        if (high >> 63 || last < first || last - first >= length)
            continue;
        start += last - first;
        uint64_t group = start >> volume->ag_log;
        uint64_t in_group = start & ((UINT64_C(1) << volume->ag_log) - 1);
        if (group > UINT32_MAX || in_group >= volume->ag_blocks)
            return 0;
        return q2_clues_add_end(
            &m->clues, v, (group * volume->ag_blocks + in_group) << volume->block_log,
            size, volume->block_log, err);
    }
    return 0;
}

static int look_inode(struct q2_marks *m, const struct q2_mark_place *p,
                      struct q2_error *err)
{
    const uint8_t *s = p->sector;
    size_t v;
    const struct q2_volume *volume = s[4] == 3 ? known(m, s + 160, &v) : NULL;
    if (!volume)
        return 0;
    uint64_t ino = q2_load_be64(s + 152);
    unsigned in_group = volume->ag_log + volume->inodes_log;
    if (ino >> in_group > UINT32_MAX)
        return 0;
    uint64_t group = ino >> in_group, rest = ino & ((UINT64_C(1) << in_group) - 1);
    int ret = q2_marks_add(m, p, v,
                           ((group * volume->ag_blocks) << volume->block_log) +
                               (rest << volume->inode_log),
                           err);
    return ret < 0 ? ret : look_extents(m, p, v, err);
}

int q2_marks_look_xfs(struct q2_marks *m, const struct q2_mark_place *p,
                      struct q2_error *err)
{
    const uint8_t *s = p->sector;
    size_t v;
    if (memcmp(s, "XFSB", 4) == 0)
        return look_superblock(m, s, err);
    if (memcmp(s, "XAGF", 4) == 0)
        return look_group(m, p, 1, 64, err);
    if (memcmp(s, "XAGI", 4) == 0)
        return look_group(m, p, 2, 296, err);
    if (s[0] == 'I' && s[1] == 'N')
        return look_inode(m, p, err);
    if (s[0] != 'A' && s[0] != 'I' && s[0] != 'F' && s[0] != 'R' && s[0] != 'B' &&
        s[0] != 'X')
        return 0;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (memcmp(s, kinds[i].magic, 4) != 0 || is_zero(s + kinds[i].id) ||
            !known(m, s + kinds[i].id, &v))
            continue;
        uint64_t place = q2_load_be64(s + kinds[i].place);
        return place < UINT64_C(1) << 50 ? q2_marks_add(m, p, v, place * 512, err) : 0;
    }
    return 0;
}
