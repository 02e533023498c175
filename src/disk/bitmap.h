// SPDX-License-Identifier: MIT
// The bitmap directory, bitmap tables, and how large bitmaps are (qcow2 format:
// "Bitmaps").
#ifndef Q2_DISK_BITMAP_H
#define Q2_DISK_BITMAP_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define Q2_BITMAP_IN_USE (1U << 0)
#define Q2_BITMAP_AUTO (1U << 1)
#define Q2_BITMAP_TYPE_DIRTY 1U
#define Q2_MAX_BITMAP_NAME 1023U
#define Q2_MIN_BITMAP_GRANULARITY_BITS 9U
#define Q2_MAX_BITMAP_GRANULARITY_BITS 31U
#define Q2_MAX_BITMAP_BYTES (UINT64_C(1) << 29) // of one bitmap's bits, as QEMU has it

// An entry of a bitmap table: a host offset (Q2_OFFSET_MASK of disk/entry.h), or 0 for a
// piece that is all zeros, or this for a piece that is all ones.
#define Q2_BITMAP_ALL_ONES (UINT64_C(1) << 0)
#define Q2_BITMAP_TABLE_RESERVED UINT64_C(0xff000000000001fe)

struct q2_bitmap {
    uint64_t table_offset;
    uint32_t table_size; // entries
    uint32_t flags;
    uint8_t type;
    uint8_t granularity_bits;
    char *name; // NUL-terminated, owned
    uint8_t *extra_data;
    uint32_t extra_data_bytes;
};

// As q2_snapshot_decode.
int q2_bitmap_decode(const void *buf, size_t n_bytes, unsigned index,
                     struct q2_bitmap *out, size_t *used, struct q2_error *err);
// What is said of an entry that is cut short, and of bytes behind the last one.
static inline int q2_bitmap_incomplete(unsigned index, struct q2_error *err)
{
    return q2_fail(err, -ENODATA, "Bitmap directory entry %u is incomplete", index);
}

static inline int q2_bitmap_too_many(struct q2_error *err)
{
    return q2_fail(err, -EINVAL, "More bitmaps found than specified in header extension");
}

// Makes the fixed part of an entry that of one without extra data; says how long these,
// and the name behind them, are.
#define Q2_BITMAP_FIXED_BYTES 24U
void q2_bitmap_drop_extra(uint8_t *fixed, uint64_t *extra_bytes, uint64_t *name_bytes);

size_t q2_bitmap_bytes(const struct q2_bitmap *b);
void q2_bitmap_encode(const struct q2_bitmap *b, void *buf);
void q2_bitmap_clear(struct q2_bitmap *b);

// What QEMU demands of an entry, given the disk: table aligned to a cluster, bits within
// Q2_MAX_BITMAP_BYTES, no extra data, and, unless it is in use, as many table entries as
// cover the disk. -EINVAL with QEMU's words.
int q2_bitmap_check(const struct q2_bitmap *b, uint64_t disk_size, unsigned cluster_bits,
                    struct q2_error *err);

// The whole directory: n_bitmaps entries (the header's number), no byte more or less.
// out has room for them; on failure nothing in it needs clearing.
int q2_bitmap_directory_decode(const void *buf, size_t n_bytes, unsigned n_bitmaps,
                               struct q2_bitmap *out, struct q2_error *err);

// --- bitmap tables --------------------------------------------------------------------

// False: reserved bits are set, the offset is not aligned to a cluster, or all ones are
// asked for where there is an offset. (Host-endian; q2_table_decode reads a table.)
bool q2_bitmap_table_entry_valid(uint64_t raw, unsigned cluster_bits);

// --- sizes ----------------------------------------------------------------------------

// Bytes of the bits for a disk; bit n of byte k (least significant first) stands for the
// granule k * 8 + n.
uint64_t q2_bitmap_data_bytes(uint64_t disk_size, unsigned granularity_bits);

// Entries of the table for a disk: one for each cluster of bits.
uint64_t q2_bitmap_table_entries(uint64_t disk_size, unsigned granularity_bits,
                                 unsigned cluster_bits);

#endif
