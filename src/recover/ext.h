// SPDX-License-Identifier: MIT
// A guest's ext2, ext3 or ext4 file system, of which only some parts can be read yet.
#ifndef Q2_RECOVER_EXT_H
#define Q2_RECOVER_EXT_H

#include "recover/clues.h"
#include "recover/work.h"

#define Q2_EXT_MAX_BLOCK 65536U

// A bitmap that the group's descriptor has a checksum of: of blocks, or of inodes.
struct q2_ext_bitmap {
    uint64_t place; // on the disk; 0: nowhere
    bool unused;    // nothing of the group is in use
    uint64_t sum;
    uint32_t n_bytes;
};

struct q2_ext {
    struct q2_work *w;
    const struct q2_marks *marks;
    size_t volume; // of these
    bool straight; // all in one piece from start on
    uint64_t start;
    unsigned block_bits;
    uint32_t block_size, group_blocks, group_inodes, inode_bytes, desc_bytes, first_block;
    uint64_t n_blocks, n_groups;
    bool checks_inodes;            // they have checksums
    uint32_t seed;                 // of all checksums
    uint8_t *groups;               // their descriptors
    struct q2_ext_bitmap *bitmaps; // by sum; NULL: not listed yet
    size_t n_bitmaps;
    uint8_t *block; // room for one
    uint8_t *node;  // of extents, for who looks for a block
};

#define Q2_EXT_JOURNAL 8U // its inode

// A block in which a folder begins, or the journal.
struct q2_ext_start {
    uint64_t position; // on the disk
    uint32_t inode;
};
#define Q2_EXT_START_BYTES 32U // tell it

struct q2_ext_files {
    struct q2_ext_start *starts; // in the order of their positions
    size_t n_starts, max_starts;
    struct q2_clues ends; // of files, on the disk
};

// The file system of a volume, if its superblock and its group descriptors, or copies of
// them, can be read. On *ok the caller clears it. m must outlive it.
int q2_ext_open(struct q2_work *w, const struct q2_marks *m, size_t volume,
                struct q2_ext *fs, bool *ok, struct q2_error *err);
void q2_ext_clear(struct q2_ext *fs);

// Where its n-th block is on the disk. UINT64_MAX: that is not known.
uint64_t q2_ext_block_place(const struct q2_ext *fs, uint64_t n);
// Reads blocks from the n-th on. *has: they are there.
int q2_ext_read(const struct q2_ext *fs, uint64_t n, void *buf, size_t n_bytes, bool *has,
                struct q2_error *err);

// A block number of a group's descriptor, in two parts, as a place on the disk; 0: none.
uint64_t q2_ext_place_of(const struct q2_ext *fs, uint64_t group, unsigned low,
                         unsigned high);
// Where the inode table and the block bitmap of a group are, on the disk. 0: nowhere.
uint64_t q2_ext_inode_table(const struct q2_ext *fs, uint64_t group);
uint64_t q2_ext_block_bitmap(const struct q2_ext *fs, uint64_t group);

#define Q2_EXT_GROUP_BITMAPS 2U // of a group
// False: it was never written, or has no checksum.
bool q2_ext_find_bitmap(const struct q2_ext *fs, uint64_t group, unsigned which,
                        struct q2_ext_bitmap *out);
// block: NULL: zeros.
bool q2_ext_is_bitmap(const struct q2_ext *fs, const struct q2_ext_bitmap *b,
                      const uint8_t *block);

// Where on the disk the bitmap is that this block is, if there is but one such. 0: it is
// none. They must have been listed.
uint64_t q2_ext_find_bitmap_like(const struct q2_ext *fs, const uint8_t *block);
int q2_ext_list_bitmaps(struct q2_ext *fs, struct q2_error *err);

// Has this block of the group's inode table, the n-th, an inode whose checksum says that
// it is there? *n_good, *n_bad: inodes in use that are right, and that are not.
void q2_ext_check_inodes(const struct q2_ext *fs, uint64_t group, uint64_t n,
                         const uint8_t *block, unsigned *n_good, unsigned *n_bad);

// Where on the disk this block of inodes belongs, as the checksums of at least two of
// them say. 0: it is none.
uint64_t q2_ext_find_inodes(const struct q2_ext *fs, const uint8_t *block);

// Does the folder or journal of that inode begin in this block?
bool q2_ext_begins(const uint8_t block[Q2_EXT_START_BYTES], uint32_t inode);

// Of all inodes that can be read, what lies in ranges whose L2 table is lost. On
// success the caller clears it.
int q2_ext_read_files(const struct q2_ext *fs, struct q2_ext_files *f,
                      struct q2_error *err);
void q2_ext_files_clear(struct q2_ext_files *f);

#endif
