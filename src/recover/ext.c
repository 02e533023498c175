// SPDX-License-Identifier: MIT
// Reading as much of an ext file system as is needed to tell where its parts belong.
#include "recover/ext.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"

#define MAGIC 0xef53U
#define EXTENT_MAGIC 0xf30aU
#define INCOMPAT_META_BG 0x10U
#define INCOMPAT_64BIT 0x80U
#define INCOMPAT_SEED 0x2000U
#define RO_COMPAT_CHECKSUMS 0x400U
#define INODE_EXTENTS 0x80000U
#define MODE_FOLDER 0x4000U
#define MODE_KIND 0xf000U
#define MAX_GROUPS ((uint64_t)1 << 20)
#define MAX_CLUES ((size_t)1 << 18)

static uint32_t crc32c(uint32_t crc, const void *data, size_t n_bytes)
{
    const uint8_t *p = data;
    while (n_bytes-- > 0) {
        crc ^= *p++;
        for (unsigned bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (0x82f63b78U & (0U - (crc & 1)));
    }
    return crc;
}

void q2_ext_clear(struct q2_ext *fs)
{
    free(fs->groups);
    free(fs->block);
    *fs = (struct q2_ext){0};
}

static bool take_superblock(struct q2_ext *fs, const uint8_t *s)
{
    uint32_t log = q2_load_le32(s + 24), incompat = q2_load_le32(s + 96);
    if (q2_load_le16(s + 56) != MAGIC || log > 6 || (incompat & INCOMPAT_META_BG))
        return false;
    fs->block_bits = 10 + log;
    fs->block_size = 1024U << log;
    fs->first_block = q2_load_le32(s + 20);
    fs->group_blocks = q2_load_le32(s + 32);
    fs->group_inodes = q2_load_le32(s + 40);
    fs->inode_bytes = q2_load_le32(s + 76) > 0 ? q2_load_le16(s + 88) : 128;
    fs->n_blocks = q2_load_le32(s + 4);
    fs->desc_bytes = 32;
    if (incompat & INCOMPAT_64BIT) {
        fs->n_blocks |= (uint64_t)q2_load_le32(s + 0x150) << 32;
        fs->desc_bytes = q2_load_le16(s + 254);
    }
    fs->checks_inodes = (q2_load_le32(s + 100) & RO_COMPAT_CHECKSUMS) != 0;
    fs->seed = incompat & INCOMPAT_SEED ? q2_load_le32(s + 0x270)
                                        : crc32c(UINT32_MAX, s + 104, 16);
    bool sane = fs->group_blocks > 0 && fs->group_blocks <= 8 * fs->block_size &&
                fs->group_inodes > 0 && fs->group_inodes <= 8 * fs->block_size &&
                fs->inode_bytes >= 128 && fs->inode_bytes <= fs->block_size &&
                q2_is_power_of_2(fs->inode_bytes) && fs->first_block <= 1 &&
                fs->desc_bytes >= 32 && fs->desc_bytes <= 1024 &&
                fs->n_blocks > fs->first_block &&
                fs->n_blocks <= (uint64_t)INT64_MAX >> fs->block_bits;
    if (!sane)
        return false;
    fs->n_groups = q2_div_round_up(fs->n_blocks - fs->first_block, fs->group_blocks);
    return fs->n_groups <= MAX_GROUPS;
}

static uint64_t group_start(const struct q2_ext *fs, uint64_t group)
{
    return fs->start + ((group * fs->group_blocks + fs->first_block) << fs->block_bits);
}

// The copy of the descriptors behind the superblock of this group.
static int read_groups(struct q2_ext *fs, uint64_t group, bool *ok, struct q2_error *err)
{
    size_t n_bytes = (size_t)(fs->n_groups * fs->desc_bytes);
    free(fs->groups);
    fs->groups = malloc(n_bytes);
    if (!fs->groups)
        return q2_fail_memory(err, n_bytes);
    return q2_work_read_guest(fs->w, group_start(fs, group) + fs->block_size, fs->groups,
                              n_bytes, ok, err);
}

static bool is_power_of(uint64_t n, uint64_t base)
{
    while (n > 1 && n % base == 0)
        n /= base;
    return n == 1;
}

// Groups that have copies.
static bool has_copy(uint64_t group)
{
    return is_power_of(group, 3) || is_power_of(group, 5) || is_power_of(group, 7);
}

int q2_ext_open(struct q2_work *w, uint64_t start, struct q2_ext *fs, bool *ok,
                struct q2_error *err)
{
    uint8_t s[1024];
    bool has;
    *ok = false;
    *fs = (struct q2_ext){.w = w, .start = start};
    int ret = q2_work_read_guest(w, start + 1024, s, sizeof(s), &has, err);
    if (ret == 0 && has && take_superblock(fs, s))
        ret = read_groups(fs, 0, ok, err);
    // Copies lie where a group starts: of blocks of 4 KiB, or of 1 KiB.
    for (unsigned log = 0; log < 3 && ret == 0 && !*ok; log++) {
        uint64_t size = 1024U << log, per = 8 * size * size;
        for (uint64_t group = 1; group < 2048 && ret == 0 && !*ok; group++) {
            if (!has_copy(group))
                continue;
            ret = q2_work_read_guest(w, start + group * per + (log == 0 ? 1024 : 0), s,
                                     sizeof(s), &has, err);
            if (ret == 0 && has && take_superblock(fs, s) && fs->block_size == size)
                ret = read_groups(fs, group, ok, err);
        }
    }
    if (ret == 0 && *ok) {
        fs->block = malloc(fs->block_size);
        if (!fs->block)
            ret = q2_fail_memory(err, fs->block_size);
    }
    if (ret < 0 || !*ok)
        q2_ext_clear(fs);
    return ret;
}

// A block number of a descriptor, as a place on the disk.
static uint64_t place(const struct q2_ext *fs, uint64_t group, unsigned low,
                      unsigned high)
{
    const uint8_t *d = fs->groups + group * fs->desc_bytes;
    uint64_t n = q2_load_le32(d + low);
    if (fs->desc_bytes >= 64)
        n |= (uint64_t)q2_load_le32(d + high) << 32;
    return n > fs->first_block && n < fs->n_blocks ? fs->start + (n << fs->block_bits)
                                                   : 0;
}

uint64_t q2_ext_inode_table(const struct q2_ext *fs, uint64_t group)
{
    return place(fs, group, 8, 40);
}

uint64_t q2_ext_block_bitmap(const struct q2_ext *fs, uint64_t group)
{
    return place(fs, group, 0, 32);
}

static bool has_checksum(const struct q2_ext *fs, uint32_t number, const uint8_t *inode)
{
    static const uint8_t zeros[2] = {0};
    uint8_t le[4] = {(uint8_t)number, (uint8_t)(number >> 8), (uint8_t)(number >> 16),
                     (uint8_t)(number >> 24)};
    bool wide = fs->inode_bytes > 128 && q2_load_le16(inode + 128) >= 4;
    uint32_t crc = crc32c(fs->seed, le, sizeof(le));
    crc = crc32c(crc, inode + 100, 4);
    crc = crc32c(crc, inode, 124);
    crc = crc32c(crc, zeros, 2);
    if (wide) {
        crc = crc32c(crc, inode + 126, 4);
        crc = crc32c(crc, zeros, 2);
        crc = crc32c(crc, inode + 132, fs->inode_bytes - 132);
    } else {
        crc = crc32c(crc, inode + 126, fs->inode_bytes - 126);
    }
    return (crc & 0xffff) == q2_load_le16(inode + 124) &&
           (!wide || crc >> 16 == q2_load_le16(inode + 130));
}

void q2_ext_check_inodes(const struct q2_ext *fs, uint64_t group, uint64_t n,
                         const uint8_t *block, unsigned *n_good, unsigned *n_bad)
{
    unsigned per = fs->block_size / fs->inode_bytes;
    for (unsigned i = 0; i < per; i++) {
        const uint8_t *inode = block + (size_t)i * fs->inode_bytes;
        uint64_t number = group * fs->group_inodes + n * per + i + 1;
        if (q2_load_le16(inode) == 0)
            continue;
        bool good = has_checksum(fs, (uint32_t)number, inode);
        *n_good += good;
        *n_bad += !good;
    }
}

bool q2_ext_is_folder(const uint8_t *block, uint32_t inode)
{
    return q2_load_le32(block) == inode && q2_load_le16(block + 4) == 12 &&
           block[6] == 1 && block[8] == '.' && block[9] == 0 && block[12 + 6] == 2 &&
           block[12 + 8] == '.' && block[12 + 9] == '.';
}

// The first block of a folder; 0: it cannot be told here.
static uint64_t first_block(const uint8_t *inode)
{
    const uint8_t *e = inode + 40;
    if (!(q2_load_le32(inode + 32) & INODE_EXTENTS))
        return q2_load_le32(e);
    if (q2_load_le16(e) != EXTENT_MAGIC || q2_load_le16(e + 2) == 0 ||
        q2_load_le16(e + 6) != 0 || q2_load_le32(e + 12) != 0)
        return 0;
    return q2_load_le32(e + 20) | (uint64_t)q2_load_le16(e + 18) << 32;
}

struct clues {
    struct q2_ext_clue *list;
    size_t n, max;
};

static int add_clue(struct clues *c, uint64_t position, uint32_t inode,
                    struct q2_error *err)
{
    if (c->n >= MAX_CLUES)
        return 0;
    if (c->n == c->max) {
        size_t max = c->max ? c->max * 2 : 256;
        struct q2_ext_clue *list = realloc(c->list, max * sizeof(*list));
        if (!list)
            return q2_fail_memory(err, max * sizeof(*list));
        c->list = list;
        c->max = max;
    }
    c->list[c->n++] = (struct q2_ext_clue){position, inode};
    return 0;
}

static int look_at_inodes(const struct q2_ext *fs, uint64_t group, uint64_t n,
                          struct clues *c, struct q2_error *err)
{
    unsigned per = fs->block_size / fs->inode_bytes, span = q2_work_span_bits(fs->w);
    int ret = 0;
    for (unsigned i = 0; i < per && ret == 0; i++) {
        const uint8_t *inode = fs->block + (size_t)i * fs->inode_bytes;
        uint64_t number = group * fs->group_inodes + n * per + i + 1;
        if ((q2_load_le16(inode) & MODE_KIND) != MODE_FOLDER)
            continue;
        uint64_t block = first_block(inode);
        uint64_t at = fs->start + (block << fs->block_bits);
        if (block == 0 || block >= fs->n_blocks || number > UINT32_MAX ||
            (at >> span < fs->w->n_l1 && fs->w->l1[at >> span] != 0))
            continue;
        ret = add_clue(c, at, (uint32_t)number, err);
    }
    return ret;
}

static int by_position(const void *a, const void *b)
{
    const struct q2_ext_clue *x = a, *y = b;
    return x->position < y->position ? -1 : x->position > y->position;
}

int q2_ext_clues(struct q2_ext *fs, struct q2_ext_clue **list, size_t *n,
                 struct q2_error *err)
{
    uint64_t n_blocks =
        q2_div_round_up((uint64_t)fs->group_inodes * fs->inode_bytes, fs->block_size);
    struct clues c = {0};
    int ret = 0;
    for (uint64_t group = 0; group < fs->n_groups && ret == 0; group++) {
        uint64_t table = q2_ext_inode_table(fs, group);
        for (uint64_t i = 0; table != 0 && i < n_blocks && ret == 0; i++) {
            bool has;
            ret = q2_work_read_guest(fs->w, table + (i << fs->block_bits), fs->block,
                                     fs->block_size, &has, err);
            if (ret == 0 && has)
                ret = look_at_inodes(fs, group, i, &c, err);
        }
    }
    if (ret < 0) {
        free(c.list);
        return ret;
    }
    if (c.n > 0)
        qsort(c.list, c.n, sizeof(*c.list), by_position);
    *list = c.list;
    *n = c.n;
    return 0;
}
