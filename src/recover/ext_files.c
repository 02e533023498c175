// SPDX-License-Identifier: MIT
// What the inodes of an ext file system tell of other blocks: where folders and the
// journal begin, and where files end.
#include <stdlib.h>

#include "base/checked.h"
#include "base/endian.h"
#include "check/scan.h"
#include "recover/ext.h"

#define EXTENT_MAGIC 0xf30aU
#define EXTENT_BYTES 12U // headers, too
#define MAX_DEPTH 5U
// Blocks of inodes that are looked for, whatever a superblock claims; more in a large
// file.
#define MAX_MISSES ((uint64_t)1 << 20)
#define MAX_EXTENT 32768U // longer ones are not written yet
#define INODE_EXTENTS 0x80000U
#define INODE_INLINE 0x10000000U
#define MODE_FOLDER 0x4000U
#define MODE_FILE 0x8000U
#define MODE_KIND 0xf000U
#define MAX_STARTS ((size_t)1 << 18)
// Blocks of inodes that are looked at, besides as many as the file could hold.
#define MIN_BUDGET ((uint64_t)1 << 18)

void q2_ext_files_clear(struct q2_ext_files *f)
{
    free(f->starts);
    q2_clues_clear(&f->ends);
    *f = (struct q2_ext_files){0};
}

// Of a node with room bytes the last entry that begins at block or before it. NULL: none.
static const uint8_t *find_entry(const uint8_t *node, size_t room, uint64_t block)
{
    const uint8_t *found = NULL;
    unsigned n = q2_load_le16(node + 2);
    if (q2_load_le16(node) != EXTENT_MAGIC)
        return NULL;
    for (size_t i = 1; i <= n && (i + 1) * EXTENT_BYTES <= room; i++) {
        const uint8_t *e = node + i * EXTENT_BYTES;
        if (q2_load_le32(e) > block)
            break;
        found = e;
    }
    return found;
}

// The place in the file system of a file's n-th block, in *out; 0: it cannot be told.
static int find_block(const struct q2_ext *fs, const uint8_t *inode, uint64_t n,
                      uint64_t *out, struct q2_error *err)
{
    uint8_t *node = fs->node;
    const uint8_t *e = find_entry(inode + 40, 60, n);
    unsigned depth = q2_load_le16(inode + 46);
    int ret = 0;
    *out = 0;
    if (!(q2_load_le32(inode + 32) & INODE_EXTENTS)) {
        *out = n < 12 ? q2_load_le32(inode + 40 + 4 * n) : 0;
        return 0;
    }
    for (; e && depth > 0 && depth <= MAX_DEPTH && ret == 0; depth--) {
        uint64_t child = q2_load_le32(e + 4) | (uint64_t)q2_load_le16(e + 8) << 32;
        bool has = false;
        if (child < fs->n_blocks)
            ret = q2_ext_read(fs, child, node, fs->block_size, &has, err);
        has = has && q2_load_le16(node + 6) == depth - 1;
        e = ret == 0 && has ? find_entry(node, fs->block_size, n) : NULL;
    }
    if (!e || depth > 0)
        return ret;
    uint64_t first = q2_load_le32(e), length = q2_load_le16(e + 4);
    if (length <= MAX_EXTENT && n - first < length)
        *out = (q2_load_le32(e + 8) | (uint64_t)q2_load_le16(e + 6) << 32) + n - first;
    return 0;
}

static int add_start(struct q2_ext_files *f, uint64_t position, uint32_t inode,
                     struct q2_error *err)
{
    void *list = f->starts;
    if (f->n_starts >= MAX_STARTS)
        return 0;
    int ret = q2_scan_grow(&list, &f->max_starts, f->n_starts, sizeof(*f->starts), err);
    f->starts = list;
    if (ret == 0)
        f->starts[f->n_starts++] = (struct q2_ext_start){position, inode};
    return ret;
}

// Of a folder and the journal the first block, of a file the last.
static int look_at_inode(const struct q2_ext *fs, const uint8_t *inode, uint32_t number,
                         struct q2_ext_files *f, struct q2_error *err)
{
    unsigned kind = q2_load_le16(inode) & MODE_KIND;
    uint64_t size = q2_load_le32(inode + 4) | (uint64_t)q2_load_le32(inode + 108) << 32;
    bool starts = kind == MODE_FOLDER || number == Q2_EXT_JOURNAL;
    uint64_t block;
    if ((kind != MODE_FILE && !starts) || size == 0 || size > INT64_MAX ||
        (q2_load_le32(inode + 32) & INODE_INLINE))
        return 0;
    int ret =
        find_block(fs, inode, starts ? 0 : (size - 1) >> fs->block_bits, &block, err);
    uint64_t at = q2_ext_block_place(fs, block);
    if (ret < 0 || at == UINT64_MAX || block <= fs->first_block ||
        block >= fs->n_blocks || !q2_work_lacks(fs->w, at >> q2_work_span_bits(fs->w)))
        return ret;
    return starts ? add_start(f, at, number, err)
                  : q2_clues_add_end(&f->ends, 0, at, size, fs->block_bits, err);
}

static int look_at_inodes(const struct q2_ext *fs, uint64_t group, uint64_t n,
                          struct q2_ext_files *f, struct q2_error *err)
{
    unsigned per = fs->block_size / fs->inode_bytes;
    int ret = 0;
    for (unsigned i = 0; i < per && ret == 0; i++) {
        const uint8_t *inode = fs->block + (size_t)i * fs->inode_bytes;
        uint64_t number = group * fs->group_inodes + n * per + i + 1;
        if (q2_load_le16(inode) != 0 && q2_load_le16(inode + 26) != 0 &&
            number <= UINT32_MAX)
            ret = look_at_inode(fs, inode, (uint32_t)number, f, err);
    }
    return ret;
}

static int by_position(const void *a, const void *b)
{
    const struct q2_ext_start *x = a, *y = b;
    return x->position < y->position ? -1 : x->position > y->position;
}

// The first block of the inode table behind the n-th that an L2 table could map: none
// maps that one.
static uint64_t skip_hole(const struct q2_ext *fs, uint64_t table, uint64_t n)
{
    unsigned span = q2_work_span_bits(fs->w);
    uint64_t at = table + (n << fs->block_bits);
    uint64_t end = ((at >> span) + 1) << span;
    return n + q2_max_u64((end - at) >> fs->block_bits, 1);
}

static bool is_mapped(const struct q2_ext *fs, uint64_t at)
{
    uint64_t index = at >> q2_work_span_bits(fs->w);
    return index < fs->w->n_l1 && fs->w->l1[index] != 0;
}

// Those of a group. *budget: blocks that may be looked at.
static int read_group(const struct q2_ext *fs, uint64_t group, uint64_t *budget,
                      struct q2_ext_files *f, struct q2_error *err)
{
    uint64_t table = q2_ext_inode_table(fs, group);
    uint64_t n =
        q2_div_round_up((uint64_t)fs->group_inodes * fs->inode_bytes, fs->block_size);
    int ret = 0;
    for (uint64_t i = 0; table != 0 && i<n && * budget> 0 && ret == 0;) {
        uint64_t at = table + (i << fs->block_bits);
        bool has;
        if (!is_mapped(fs, at)) {
            i = skip_hole(fs, table, i);
            continue;
        }
        (*budget)--;
        ret = q2_work_read_guest(fs->w, at, fs->block, fs->block_size, &has, err);
        if (ret == 0 && has)
            ret = look_at_inodes(fs, group, i, f, err);
        i++;
    }
    return ret;
}

int q2_ext_read_files(const struct q2_ext *fs, struct q2_ext_files *f,
                      struct q2_error *err)
{
    uint64_t budget = MIN_BUDGET + fs->w->survey.file_size / fs->block_size;
    int ret = 0;
    *f = (struct q2_ext_files){0};
    for (uint64_t group = 0; group < fs->n_groups && ret == 0; group++)
        ret = read_group(fs, group, &budget, f, err);
    if (ret < 0)
        q2_ext_files_clear(f);
    else if (f->n_starts > 0)
        qsort(f->starts, f->n_starts, sizeof(*f->starts), by_position);
    return ret;
}
