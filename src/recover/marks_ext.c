// SPDX-License-Identifier: MIT
// ext2, ext3, ext4: each copy of the superblock has the number of its block group.
#include <string.h>

#include "base/endian.h"
#include "recover/marks.h"

#define SUPERBLOCK_BYTES 1024U
#define MAGIC 0xef53U
#define AT_FIRST 1024U // of the first one, in the volume

int q2_marks_look_ext(struct q2_marks *m, const struct q2_mark_place *p,
                      struct q2_error *err)
{
    const uint8_t *s = p->sector;
    if (p->n_bytes < SUPERBLOCK_BYTES || q2_load_le16(s + 56) != MAGIC)
        return 0;
    uint32_t block_log = q2_load_le32(s + 24), group_blocks = q2_load_le32(s + 32);
    uint32_t first = q2_load_le32(s + 20), inodes = q2_load_le32(s + 0);
    uint16_t group = q2_load_le16(s + 90);
    uint64_t n_blocks = q2_load_le32(s + 4);
    if (block_log > 6 || group_blocks == 0 || group_blocks > (8192U << block_log) * 8 ||
        first > 1 || inodes == 0 || n_blocks == 0)
        return 0;
    if (q2_load_le32(s + 96) & 0x80) // 64bit
        n_blocks |= (uint64_t)q2_load_le32(s + 0x150) << 32;
    size_t volume;
    int ret = q2_marks_volume(m, s + 104, &volume, err);
    if (ret < 0 || volume == 0)
        return ret;
    unsigned bits = 10 + block_log;
    if (n_blocks <= (uint64_t)INT64_MAX >> bits)
        m->volumes[volume].size = n_blocks << bits;
    m->volumes[volume].is_ext = true;
    uint64_t at = ((uint64_t)group * group_blocks + first) << bits;
    return q2_marks_add(m, p, volume, group == 0 ? AT_FIRST : at, err);
}
