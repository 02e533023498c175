// SPDX-License-Identifier: MIT
// The bitmaps of an ext file system, of blocks and of inodes: the descriptors of groups
// have their checksums.
#include <stddef.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/endian.h"
#include "base/search.h"
#include "recover/ext.h"

#define GROUP_INODES_UNUSED 1U
#define GROUP_BLOCKS_UNUSED 2U

// Of blocks: the descriptor's first number and its first flag, and so on.
bool q2_ext_find_bitmap(const struct q2_ext *fs, uint64_t group, unsigned which,
                        struct q2_ext_bitmap *out)
{
    const uint8_t *d = fs->groups + group * fs->desc_bytes;
    unsigned uninit = which == 0 ? GROUP_BLOCKS_UNUSED : GROUP_INODES_UNUSED;
    out->n_bytes = (which == 0 ? fs->group_blocks : fs->group_inodes) / 8;
    out->place = q2_ext_place_of(fs, group, 4 * which, 32 + 4 * which);
    out->unused = q2_load_le16(d + 18) & uninit;
    if (!fs->checks_inodes || out->unused || fs->desc_bytes < 64 || out->place == 0)
        return false;
    const uint8_t *sum = d + 2 * (size_t)which;
    out->sum = q2_load_le16(sum + 24) | (uint32_t)q2_load_le16(sum + 56) << 16;
    return true;
}

bool q2_ext_is_bitmap(const struct q2_ext *fs, const struct q2_ext_bitmap *b,
                      const uint8_t *block)
{
    static const uint8_t zeros[256] = {0};
    uint32_t crc = fs->seed;
    if (block)
        return q2_crc32c(crc, block, b->n_bytes) == b->sum;
    for (size_t n, left = b->n_bytes; left > 0; left -= n) {
        n = q2_min_size(left, sizeof(zeros));
        crc = q2_crc32c(crc, zeros, n);
    }
    return crc == b->sum;
}

static int by_sum(const void *a, const void *b)
{
    const struct q2_ext_bitmap *x = a, *y = b;
    if (x->sum != y->sum)
        return x->sum < y->sum ? -1 : 1;
    return x->place < y->place ? -1 : x->place > y->place;
}

int q2_ext_list_bitmaps(struct q2_ext *fs, struct q2_error *err)
{
    size_t n = Q2_EXT_GROUP_BITMAPS * (size_t)fs->n_groups;
    fs->bitmaps = malloc(n * sizeof(*fs->bitmaps));
    if (!fs->bitmaps)
        return q2_fail_memory(err, n * sizeof(*fs->bitmaps));
    for (uint64_t group = 0; group < fs->n_groups; group++) {
        for (unsigned i = 0; i < Q2_EXT_GROUP_BITMAPS; i++)
            fs->n_bitmaps +=
                q2_ext_find_bitmap(fs, group, i, &fs->bitmaps[fs->n_bitmaps]);
    }
    if (fs->n_bitmaps > 0)
        qsort(fs->bitmaps, fs->n_bitmaps, sizeof(*fs->bitmaps), by_sum);
    return 0;
}

uint64_t q2_ext_find_bitmap_like(const struct q2_ext *fs, const uint8_t *block)
{
    uint32_t sizes[] = {fs->group_blocks / 8, fs->group_inodes / 8};
    for (size_t i = 0; i < 2 && fs->n_bitmaps > 0; i++) {
        uint32_t sum = q2_crc32c(fs->seed, block, sizes[i]);
        size_t low = q2_search_from(fs->bitmaps, fs->n_bitmaps, sizeof(*fs->bitmaps),
                                    offsetof(struct q2_ext_bitmap, sum), sum);
        const struct q2_ext_bitmap *b = &fs->bitmaps[low];
        if (low < fs->n_bitmaps && b->sum == sum && b->n_bytes == sizes[i] &&
            (low + 1 == fs->n_bitmaps || b[1].sum != sum))
            return b->place;
    }
    return 0;
}
