// SPDX-License-Identifier: MIT
// Reading as much of an ext file system as is needed to tell where its parts belong.
#include "recover/ext.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"

#define MAGIC 0xef53U
#define INCOMPAT_META_BG 0x10U
#define INCOMPAT_64BIT 0x80U
#define INCOMPAT_SEED 0x2000U
#define RO_COMPAT_CHECKSUMS 0x400U
#define JOURNAL_MAGIC 0xc03b3998U
#define MAX_GROUPS ((uint64_t)1 << 20)
#define PIECE_BYTES 4096U // or more is each piece of a volume, and a multiple of that

void q2_ext_clear(struct q2_ext *fs)
{
    free(fs->groups);
    free(fs->bitmaps);
    free(fs->block);
    free(fs->node);
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
                                        : q2_crc32c(UINT32_MAX, s + 104, 16);
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

// UINT64_MAX: it is not known.
static uint64_t find_place(const struct q2_ext *fs, uint64_t position)
{
    uint64_t at;
    return position <= INT64_MAX && q2_marks_locate(fs->marks, fs->volume, position, &at)
               ? at
               : UINT64_MAX;
}

uint64_t q2_ext_block_place(const struct q2_ext *fs, uint64_t n)
{
    return n <= (uint64_t)INT64_MAX >> fs->block_bits
               ? find_place(fs, n << fs->block_bits)
               : UINT64_MAX;
}

static int read_at(const struct q2_ext *fs, uint64_t position, void *buf, size_t n_bytes,
                   bool *has, struct q2_error *err)
{
    uint8_t *out = buf;
    int ret = 0;
    *has = true;
    for (size_t n; n_bytes > 0 && *has && ret == 0;
         n_bytes -= n, position += n, out += n) {
        uint64_t at = find_place(fs, position);
        n = (size_t)q2_min_u64(n_bytes, PIECE_BYTES - position % PIECE_BYTES);
        *has = at != UINT64_MAX;
        if (*has)
            ret = q2_work_read_guest(fs->w, at, out, n, has, err);
    }
    return ret;
}

int q2_ext_read(const struct q2_ext *fs, uint64_t n, void *buf, size_t n_bytes, bool *has,
                struct q2_error *err)
{
    *has = false;
    return n <= (uint64_t)INT64_MAX >> fs->block_bits
               ? read_at(fs, n << fs->block_bits, buf, n_bytes, has, err)
               : 0;
}

// The copy of the descriptors behind the superblock of this group.
static int read_groups(struct q2_ext *fs, uint64_t group, bool *ok, struct q2_error *err)
{
    size_t n_bytes = (size_t)(fs->n_groups * fs->desc_bytes);
    // More than there is in the file is only said to be there.
    if (n_bytes > fs->w->survey.file_size)
        return 0;
    free(fs->groups);
    fs->groups = malloc(n_bytes);
    if (!fs->groups)
        return q2_fail_memory(err, n_bytes);
    return q2_ext_read(fs, group * fs->group_blocks + fs->first_block + 1, fs->groups,
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

int q2_ext_open(struct q2_work *w, const struct q2_marks *m, size_t volume,
                struct q2_ext *fs, bool *ok, struct q2_error *err)
{
    const struct q2_volume *v = &m->volumes[volume];
    uint8_t s[1024];
    bool has;
    *ok = false;
    *fs = (struct q2_ext){.w = w,
                          .marks = m,
                          .volume = volume,
                          .straight = v->device == 0,
                          .start = v->start};
    int ret = read_at(fs, 1024, s, sizeof(s), &has, err);
    if (ret == 0 && has && take_superblock(fs, s))
        ret = read_groups(fs, 0, ok, err);
    // Copies lie where a group starts: of blocks of 4 KiB, or of 1 KiB.
    for (unsigned log = 0; log < 3 && ret == 0 && !*ok; log++) {
        uint64_t size = 1024U << log, per = 8 * size * size;
        for (uint64_t group = 1; group < 2048 && ret == 0 && !*ok; group++) {
            if (!has_copy(group))
                continue;
            ret =
                read_at(fs, group * per + (log == 0 ? 1024 : 0), s, sizeof(s), &has, err);
            if (ret == 0 && has && take_superblock(fs, s) && fs->block_size == size)
                ret = read_groups(fs, group, ok, err);
        }
    }
    if (ret == 0 && *ok) {
        fs->block = malloc(fs->block_size);
        fs->node = malloc(fs->block_size);
        if (!fs->block || !fs->node)
            ret = q2_fail_memory(err, fs->block_size);
    }
    if (ret < 0 || !*ok)
        q2_ext_clear(fs);
    return ret;
}

// A block number of a descriptor, as a place on the disk.
uint64_t q2_ext_place_of(const struct q2_ext *fs, uint64_t group, unsigned low,
                         unsigned high)
{
    const uint8_t *d = fs->groups + group * fs->desc_bytes;
    uint64_t n = q2_load_le32(d + low);
    if (fs->desc_bytes >= 64)
        n |= (uint64_t)q2_load_le32(d + high) << 32;
    uint64_t at =
        n > fs->first_block && n < fs->n_blocks ? q2_ext_block_place(fs, n) : UINT64_MAX;
    return at == UINT64_MAX ? 0 : at;
}

uint64_t q2_ext_inode_table(const struct q2_ext *fs, uint64_t group)
{
    return q2_ext_place_of(fs, group, 8, 40);
}

uint64_t q2_ext_block_bitmap(const struct q2_ext *fs, uint64_t group)
{
    return q2_ext_place_of(fs, group, 0, 32);
}

static bool is_wide(const struct q2_ext *fs, const uint8_t *inode)
{
    return fs->inode_bytes > 128 && q2_load_le16(inode + 128) >= 4;
}

// Of what comes behind the number: the generation, and the inode without its checksum.
static uint32_t sum_inode(const struct q2_ext *fs, uint32_t crc, const uint8_t *inode)
{
    static const uint8_t zeros[2] = {0};
    crc = q2_crc32c(crc, inode + 100, 4);
    crc = q2_crc32c(crc, inode, 124);
    crc = q2_crc32c(crc, zeros, 2);
    if (!is_wide(fs, inode))
        return q2_crc32c(crc, inode + 126, fs->inode_bytes - 126);
    crc = q2_crc32c(crc, inode + 126, 4);
    crc = q2_crc32c(crc, zeros, 2);
    return q2_crc32c(crc, inode + 132, fs->inode_bytes - 132);
}

static bool has_checksum(const struct q2_ext *fs, uint32_t number, const uint8_t *inode)
{
    uint8_t le[4] = {(uint8_t)number, (uint8_t)(number >> 8), (uint8_t)(number >> 16),
                     (uint8_t)(number >> 24)};
    uint32_t crc = sum_inode(fs, q2_crc32c(fs->seed, le, sizeof(le)), inode);
    return (crc & 0xffff) == q2_load_le16(inode + 124) &&
           (!is_wide(fs, inode) || crc >> 16 == q2_load_le16(inode + 130));
}

// There is one number with which the checksum is what it is. What zeros have done to a
// CRC can be undone, and the rest of the inode comes in by XOR.
static uint32_t find_number(const struct q2_ext *fs, const uint8_t *inode)
{
    uint32_t crc = sum_inode(fs, 0, inode);
    crc ^= q2_load_le16(inode + 124) | (uint32_t)q2_load_le16(inode + 130) << 16;
    // The number, the generation, the inode.
    return q2_crc32c_undo_zeros(crc, 4 + 4 + (size_t)fs->inode_bytes) ^ fs->seed;
}

// A file or a folder whose extents are in place.
static bool is_likely_inode(const struct q2_ext *fs, const uint8_t *inode)
{
    unsigned kind = q2_load_le16(inode) & 0xf000;
    return (kind == 0x4000 || kind == 0x8000) && q2_load_le16(inode + 26) != 0 &&
           q2_load_le16(inode + 40) == 0xf30a && is_wide(fs, inode);
}

uint64_t q2_ext_find_inodes(const struct q2_ext *fs, const uint8_t *block)
{
    unsigned per = fs->block_size / fs->inode_bytes, n = 0;
    uint64_t first = 0;
    for (unsigned i = 0; i < per && fs->checks_inodes; i++) {
        const uint8_t *inode = block + (size_t)i * fs->inode_bytes;
        if (!is_likely_inode(fs, inode))
            continue;
        uint64_t number = find_number(fs, inode);
        if (number <= i || number > fs->n_groups * fs->group_inodes)
            continue;
        n = number - i == first ? n + 1 : 1;
        first = number - i;
        if (n == 2)
            break;
    }
    if (n < 2 || (first - 1) % fs->group_inodes % per != 0)
        return 0;
    uint64_t table = q2_ext_inode_table(fs, (first - 1) / fs->group_inodes);
    return table == 0 ? 0 : table + (first - 1) % fs->group_inodes / per * fs->block_size;
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

bool q2_ext_begins(const uint8_t block[Q2_EXT_START_BYTES], uint32_t inode)
{
    if (inode == Q2_EXT_JOURNAL)
        return q2_load_be32(block) == JOURNAL_MAGIC &&
               (q2_load_be32(block + 4) == 3 || q2_load_be32(block + 4) == 4);
    return q2_load_le32(block) == inode && q2_load_le16(block + 4) == 12 &&
           block[6] == 1 && block[8] == '.' && block[9] == 0 && block[12 + 6] == 2 &&
           block[12 + 8] == '.' && block[12 + 9] == '.';
}
