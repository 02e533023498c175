// SPDX-License-Identifier: MIT
// Entries of the bitmap directory and of bitmap tables.
#include "disk/bitmap.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "disk/entry.h"

enum {
    AT_TABLE_OFFSET = 0,
    AT_TABLE_SIZE = 8,
    AT_FLAGS = 12,
    AT_TYPE = 16,
    AT_GRANULARITY_BITS = 17,
    AT_NAME_BYTES = 18,
    AT_EXTRA_BYTES = 20,
    FIXED_BYTES = Q2_BITMAP_FIXED_BYTES,
};

// Limits that QEMU keeps too.
#define MAX_TABLE_SIZE 0x8000000U
#define MAX_EXTRA_BYTES ((uint32_t)64 << 20) // of the whole directory

// Set: programs that do not know the extra data may use the bitmap all the same.
#define EXTRA_DATA_COMPATIBLE (1U << 2)
#define KNOWN_FLAGS (Q2_BITMAP_IN_USE | Q2_BITMAP_AUTO | EXTRA_DATA_COMPATIBLE)

static void decode_fixed(const uint8_t *p, struct q2_bitmap *b)
{
    *b = (struct q2_bitmap){
        .table_offset = q2_load_be64(p + AT_TABLE_OFFSET),
        .table_size = q2_load_be32(p + AT_TABLE_SIZE),
        .flags = q2_load_be32(p + AT_FLAGS),
        .type = p[AT_TYPE],
        .granularity_bits = p[AT_GRANULARITY_BITS],
        .extra_data_bytes = q2_load_be32(p + AT_EXTRA_BYTES),
    };
}

void q2_bitmap_drop_extra(uint8_t *fixed, uint64_t *extra_bytes, uint64_t *name_bytes)
{
    *extra_bytes = q2_load_be32(fixed + AT_EXTRA_BYTES);
    *name_bytes = q2_load_be16(fixed + AT_NAME_BYTES);
    q2_store_be32(fixed + AT_EXTRA_BYTES, 0);
}

static int bad(struct q2_error *err, unsigned index, const char *field, uint64_t value)
{
    return q2_fail(err, -EINVAL, "Bitmap directory entry %u: invalid %s (%" PRIu64 ")",
                   index, field, value);
}

static int check(const struct q2_bitmap *b, size_t name_bytes, unsigned index,
                 struct q2_error *err)
{
    if (b->table_offset == 0 || !q2_is_aligned(b->table_offset, 512) ||
        b->table_offset > (uint64_t)INT64_MAX - (uint64_t)MAX_TABLE_SIZE * 8)
        return bad(err, index, "bitmap table offset", b->table_offset);
    if (b->table_size == 0 || b->table_size > MAX_TABLE_SIZE)
        return bad(err, index, "bitmap table size", b->table_size);
    if (b->flags & ~KNOWN_FLAGS)
        return bad(err, index, "flags", b->flags);
    if (b->type != Q2_BITMAP_TYPE_DIRTY)
        return bad(err, index, "type", b->type);
    if (b->granularity_bits < Q2_MIN_BITMAP_GRANULARITY_BITS ||
        b->granularity_bits > Q2_MAX_BITMAP_GRANULARITY_BITS)
        return bad(err, index, "granularity_bits", b->granularity_bits);
    if (name_bytes == 0 || name_bytes > Q2_MAX_BITMAP_NAME)
        return bad(err, index, "name size", name_bytes);
    if (b->extra_data_bytes > MAX_EXTRA_BYTES)
        return bad(err, index, "extra data size", b->extra_data_bytes);
    return 0;
}

static int decode_variable(const uint8_t *p, size_t name_bytes, struct q2_bitmap *b,
                           struct q2_error *err)
{
    if (b->extra_data_bytes) {
        b->extra_data = malloc(b->extra_data_bytes);
        if (!b->extra_data)
            return q2_fail_memory(err, b->extra_data_bytes);
        memcpy(b->extra_data, p, b->extra_data_bytes);
    }
    b->name = malloc(name_bytes + 1);
    if (!b->name)
        return q2_fail_memory(err, name_bytes + 1);
    memcpy(b->name, p + b->extra_data_bytes, name_bytes);
    b->name[name_bytes] = '\0';
    return 0;
}

int q2_bitmap_decode(const void *buf, size_t n_bytes, unsigned index,
                     struct q2_bitmap *out, size_t *used, struct q2_error *err)
{
    const uint8_t *p = buf;
    struct q2_bitmap b;

    if (n_bytes < FIXED_BYTES)
        return q2_bitmap_incomplete(index, err);
    decode_fixed(p, &b);
    size_t name_bytes = q2_load_be16(p + AT_NAME_BYTES);
    int ret = check(&b, name_bytes, index, err);
    if (ret < 0)
        return ret;

    size_t length = FIXED_BYTES + (size_t)b.extra_data_bytes + name_bytes;
    if (length > n_bytes)
        return q2_bitmap_incomplete(index, err);
    ret = decode_variable(p + FIXED_BYTES, name_bytes, &b, err);
    // An empty name is none, however long the file says that it is.
    if (ret == 0 && b.name[0] == '\0')
        ret = bad(err, index, "name size", 0);
    if (ret < 0) {
        q2_bitmap_clear(&b);
        return ret;
    }
    *out = b;
    *used = (size_t)q2_align_up(length, 8);
    return 0;
}

size_t q2_bitmap_bytes(const struct q2_bitmap *b)
{
    return (size_t)q2_align_up(
        FIXED_BYTES + (uint64_t)b->extra_data_bytes + strlen(b->name), 8);
}

void q2_bitmap_encode(const struct q2_bitmap *b, void *buf)
{
    uint8_t *p = buf;
    size_t name_bytes = strlen(b->name);

    memset(p, 0, q2_bitmap_bytes(b));
    q2_store_be64(p + AT_TABLE_OFFSET, b->table_offset);
    q2_store_be32(p + AT_TABLE_SIZE, b->table_size);
    q2_store_be32(p + AT_FLAGS, b->flags);
    p[AT_TYPE] = b->type;
    p[AT_GRANULARITY_BITS] = b->granularity_bits;
    q2_store_be16(p + AT_NAME_BYTES, (uint16_t)name_bytes);
    q2_store_be32(p + AT_EXTRA_BYTES, b->extra_data_bytes);
    if (b->extra_data_bytes)
        memcpy(p + FIXED_BYTES, b->extra_data, b->extra_data_bytes);
    memcpy(p + FIXED_BYTES + b->extra_data_bytes, b->name, name_bytes);
}

void q2_bitmap_clear(struct q2_bitmap *b)
{
    free(b->name);
    free(b->extra_data);
    *b = (struct q2_bitmap){0};
}

int q2_bitmap_check(const struct q2_bitmap *b, uint64_t disk_size, unsigned cluster_bits,
                    struct q2_error *err)
{
    uint64_t bytes = (uint64_t)b->table_size << cluster_bits;
    if (b->extra_data_bytes > 0)
        return q2_fail(err, -EINVAL, "Bitmap extra data is not supported");
    if (!(b->flags & EXTRA_DATA_COMPATIBLE) &&
        q2_is_aligned(b->table_offset, UINT64_C(1) << cluster_bits) &&
        bytes <= Q2_MAX_BITMAP_BYTES &&
        ((b->flags & Q2_BITMAP_IN_USE) ||
         q2_bitmap_data_bytes(disk_size, b->granularity_bits) <= bytes))
        return 0;
    return q2_fail(err, -EINVAL, "Bitmap '%s' doesn't satisfy the constraints", b->name);
}

int q2_bitmap_directory_decode(const void *buf, size_t n_bytes, unsigned n_bitmaps,
                               struct q2_bitmap *out, struct q2_error *err)
{
    const uint8_t *p = buf;
    size_t at = 0, used = 0;
    unsigned n = 0;
    int ret = 0;
    while (n < n_bitmaps && ret == 0) {
        ret = q2_bitmap_decode(p + at, n_bytes - at, n, &out[n], &used, err);
        if (ret == 0 && used > n_bytes - at) {
            q2_bitmap_clear(&out[n]);
            ret = q2_bitmap_incomplete(n, err);
        }
        at += ret == 0 ? used : 0;
        n += ret == 0;
    }
    if (ret == 0 && at != n_bytes)
        ret = q2_bitmap_too_many(err);
    while (ret < 0 && n > 0)
        q2_bitmap_clear(&out[--n]);
    return ret;
}

bool q2_bitmap_table_entry_valid(uint64_t raw, unsigned cluster_bits)
{
    uint64_t offset = raw & Q2_OFFSET_MASK;
    return !(raw & Q2_BITMAP_TABLE_RESERVED) &&
           (offset == 0 || !(raw & Q2_BITMAP_ALL_ONES)) &&
           q2_is_aligned(offset, UINT64_C(1) << cluster_bits);
}

uint64_t q2_bitmap_data_bytes(uint64_t disk_size, unsigned granularity_bits)
{
    return q2_div_round_up(q2_div_round_up(disk_size, UINT64_C(1) << granularity_bits),
                           8);
}

uint64_t q2_bitmap_table_entries(uint64_t disk_size, unsigned granularity_bits,
                                 unsigned cluster_bits)
{
    return q2_div_round_up(q2_bitmap_data_bytes(disk_size, granularity_bits),
                           UINT64_C(1) << cluster_bits);
}
