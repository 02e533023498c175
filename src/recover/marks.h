// SPDX-License-Identifier: MIT
// Marks in the guest's data that tell their own place: what file systems and partition
// tables write about where they are.
#ifndef Q2_RECOVER_MARKS_H
#define Q2_RECOVER_MARKS_H

#include "recover/clues.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define Q2_MARK_SECTOR 512U

// Something on the disk that counts places from its own start: the disk itself, or a file
// system.
struct q2_volume {
    uint8_t id[16]; // its UUID; zeros: the disk
    uint64_t size;  // in bytes, as it says; 0: not known
    uint64_t start; // on the disk, once known
    bool placed;
    bool is_ext;      // ext2, ext3, ext4
    bool is_physical; // a physical volume of LVM
    uint32_t
        device; // LVM: it is the logical volume of that number; 0: it is in one piece
    // XFS: log2 of bytes of a block, of blocks of an allocation group, of inodes of a
    // block, of bytes of an inode; blocks of an allocation group.
    unsigned block_log, ag_log, inodes_log, inode_log;
    uint32_t ag_blocks;
    // btrfs, beside log2 of bytes of a block: bytes of a block of its trees (else 0), the
    // number of this disk, whether its checksums are CRC-32C.
    uint32_t node_bytes;
    uint64_t disk_number;
    bool has_crc32c;
};

// This sector is at that place of the volume, or at the other.
struct q2_mark {
    uint64_t table;    // number of the L2 table that maps it
    uint64_t in_table; // offset in the range that the table maps
    size_t volume;
    uint64_t position, other; // in the volume; the same: there is but one
};

// btrfs: n_bytes of its addresses lie there in the volume, twice if there are two copies.
struct q2_chunk {
    size_t volume;
    uint64_t logical, n_bytes, physical[2];
    unsigned n_copies;
    uint64_t generation; // of what says so
};

// LVM: n_bytes from from on of the logical volume lie at at of the physical one.
struct q2_lvm_piece {
    uint8_t group[16], physical[16]; // ids
    uint32_t device, seqno;
    size_t volume; // the physical one, once they are settled; 0: not seen
    uint64_t from, at, n_bytes;
    uint64_t physical_size;
};

// A partition, by a partition table; in bytes. position: where on the disk the table says
// that it is itself, in_table: where it was found.
struct q2_partition {
    uint64_t start, size, position, in_table;
    enum { Q2_PARTITION, Q2_PARTITION_CONTAINER, Q2_PARTITION_DISK } kind;
};

// The table of a logical partition, in sectors: the partition as seen from it, and the
// next one as seen from the container of all, with its partition; 0: there is none.
struct q2_partition_link {
    uint64_t in_table;
    uint32_t first, n, next, next_n;
};

struct q2_marks {
    struct q2_volume *volumes; // [0]: the disk
    size_t n_volumes, max_volumes;
    struct q2_mark *list;
    size_t n, max;
    struct q2_partition *partitions;
    size_t n_partitions, max_partitions;
    uint64_t least_size; // of the disk, by its partitions; 0: it has none
    struct q2_partition_link *links;
    size_t n_links, max_links;
    struct q2_clues clues;
    struct q2_chunk *chunks; // by volume and address
    size_t n_chunks, max_chunks;
    struct q2_lvm_piece *pieces; // of a logical volume side by side, in its order
    size_t n_pieces, max_pieces;
    size_t n_unknown; // marks of volumes that were not known yet
    bool start_lost;  // of the image; a partition table may have been there
    enum {
        Q2_MARKS_SURE,
        Q2_MARKS_LIKELY,
        Q2_MARKS_GUESSED
    } doubt; // of where volumes are
};

int q2_marks_init(struct q2_marks *m, struct q2_error *err);
void q2_marks_clear(struct q2_marks *m);

// What n_bytes (whole sectors, at least 4096) of a guest's disk tell, which are at
// in_table of what a table maps. Comes in the order of the table.
int q2_marks_look(struct q2_marks *m, size_t table, uint64_t in_table, const uint8_t *buf,
                  size_t n_bytes, struct q2_error *err);

// Finds out where the volumes start: span bytes are mapped by a table. Returns by placed
// and start in each.
int q2_marks_settle(struct q2_marks *m, uint64_t span, struct q2_error *err);

// Where on the disk that place of a volume is. False: it is not known.
bool q2_marks_locate(const struct q2_marks *m, size_t volume, uint64_t position,
                     uint64_t *at);

// How large the disk is: as its partition table says, or the file system that it is. 0:
// not known.
uint64_t q2_marks_disk_size(const struct q2_marks *m);

// --- for the readers of formats --------------------------------------------------------

// Where the reader is: n_bytes at sector, to the end of what was read.
struct q2_mark_place {
    size_t table;
    uint64_t in_table;
    const uint8_t *sector;
    size_t n_bytes, n_before; // n_before: to the beginning of what was read
};

// The volume of that id, which is made if it is new.
int q2_marks_volume(struct q2_marks *m, const uint8_t id[16], size_t *volume,
                    struct q2_error *err);
int q2_marks_add(struct q2_marks *m, const struct q2_mark_place *p, size_t volume,
                 uint64_t position, struct q2_error *err);
int q2_marks_add_either(struct q2_marks *m, const struct q2_mark_place *p, size_t volume,
                        uint64_t position, uint64_t other, struct q2_error *err);
int q2_marks_add_partition(struct q2_marks *m, const struct q2_partition *p,
                           struct q2_error *err);

int q2_marks_look_ext(struct q2_marks *m, const struct q2_mark_place *p,
                      struct q2_error *err);
int q2_marks_look_xfs(struct q2_marks *m, const struct q2_mark_place *p,
                      struct q2_error *err);
int q2_marks_look_btrfs(struct q2_marks *m, const struct q2_mark_place *p,
                        struct q2_error *err);
int q2_marks_look_lvm(struct q2_marks *m, const struct q2_mark_place *p,
                      struct q2_error *err);
int q2_marks_look_ntfs(struct q2_marks *m, const struct q2_mark_place *p,
                       struct q2_error *err);
int q2_marks_look_swap(struct q2_marks *m, const struct q2_mark_place *p,
                       struct q2_error *err);
int q2_marks_look_gpt(struct q2_marks *m, const struct q2_mark_place *p,
                      struct q2_error *err);
int q2_marks_look_mbr(struct q2_marks *m, const struct q2_mark_place *p,
                      struct q2_error *err);
// Adds the logical partitions of a container, as far as it can be told where they are.
int q2_marks_follow_links(struct q2_marks *m, uint64_t container, uint64_t span,
                          struct q2_error *err);

#endif
