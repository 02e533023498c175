// SPDX-License-Identifier: MIT
// Fields of bitmap directory entries that cannot be right. The lengths must lead from one
// entry to the next and end where the directory ends; the others have few values, and the
// disk's size says how long a table is.
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "check/bitmaps.h"

#define FIXED_BYTES 24U
#define AT_TABLE_SIZE 8U
#define AT_FLAGS 12U
#define AT_TYPE 16U
#define AT_GRANULARITY 17U
#define AT_NAME_BYTES 18U
#define AT_EXTRA_BYTES 20U
#define DEFAULT_GRANULARITY_BITS 16U
// In a longer directory no length is looked for.
#define MAX_MENDED 64U

// Names are text without an end mark.
static bool is_name(const uint8_t *p, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++) {
        if (p[i] < 0x20)
            return false;
    }
    return n_bytes > 0 && n_bytes <= Q2_MAX_BITMAP_NAME;
}

bool q2_directory_entry_at(const struct q2_directory *d, size_t at,
                           struct q2_directory_entry *e)
{
    if (at > d->n_bytes || d->n_bytes - at < FIXED_BYTES)
        return false;
    const uint8_t *p = d->bytes + at;
    size_t name_bytes = q2_load_be16(p + AT_NAME_BYTES),
           length = FIXED_BYTES + name_bytes;
    *e = (struct q2_directory_entry){.at = at,
                                     .n_bytes = (unsigned)q2_align_up(length, 8),
                                     .name_at = at + FIXED_BYTES,
                                     .name_bytes = name_bytes};
    // No program has extra data yet.
    if (q2_load_be32(p + AT_EXTRA_BYTES) != 0 || e->n_bytes > d->n_bytes - at ||
        !is_name(p + FIXED_BYTES, name_bytes))
        return false;
    for (size_t i = length; i < e->n_bytes; i++) {
        if (p[i] != 0)
            return false;
    }
    return true;
}

unsigned q2_directory_walk(const struct q2_directory *d, size_t *end)
{
    struct q2_directory_entry e;
    unsigned n = 0;
    *end = 0;
    for (; n < d->n && q2_directory_entry_at(d, *end, &e); n++)
        *end += e.n_bytes;
    return n;
}

static bool is_whole(const struct q2_directory *d)
{
    size_t end;
    return q2_directory_walk(d, &end) == d->n && end == d->n_bytes;
}

// Tries one value of a length; *n counts those that fit, the last one is in *found.
static void try_length(struct q2_directory *d, size_t at, unsigned n_bytes,
                       uint64_t value, const struct q2_directory_length *as,
                       struct q2_directory_length *found, unsigned *n)
{
    uint8_t *p = d->bytes + at, old[4];
    memcpy(old, p, n_bytes);
    uint64_t now = n_bytes == 2 ? q2_load_be16(p) : q2_load_be32(p);
    if (n_bytes == 2)
        q2_store_be16(p, (uint16_t)value);
    else
        q2_store_be32(p, (uint32_t)value);
    if (now != value && is_whole(d)) {
        *found = *as;
        found->value = now;
        found->wanted = value;
        ++*n;
    }
    memcpy(p, old, n_bytes);
}

bool q2_directory_mend_lengths(struct q2_directory *d, struct q2_directory_length *found)
{
    struct q2_directory_entry e;
    unsigned n = 0, index = 0;
    size_t at = 0;
    for (; index < d->n && index < MAX_MENDED && d->n_bytes - at >= FIXED_BYTES;
         index++) {
        const struct q2_directory_length extra = {
            .field = "extra_data_size", .index = index, .entry_at = at};
        const struct q2_directory_length name = {
            .field = "name_size", .index = index, .entry_at = at};
        try_length(d, at + AT_EXTRA_BYTES, 4, 0, &extra, found, &n);
        for (uint64_t v = 1; v <= Q2_MAX_BITMAP_NAME; v++)
            try_length(d, at + AT_NAME_BYTES, 2, v, &name, found, &n);
        if (!q2_directory_entry_at(d, at, &e))
            break;
        at += e.n_bytes;
    }
    if (n != 1)
        return false;
    uint8_t *p = d->bytes + found->entry_at;
    if (strcmp(found->field, "name_size") == 0)
        q2_store_be16(p + AT_NAME_BYTES, (uint16_t)found->wanted);
    else
        q2_store_be32(p + AT_EXTRA_BYTES, (uint32_t)found->wanted);
    return true;
}

// The only granularity with which the table has the right length; else the usual one.
static uint8_t find_granularity(uint32_t table_size, uint64_t disk_size,
                                unsigned cluster_bits, bool *sure)
{
    unsigned n = 0;
    uint8_t found = DEFAULT_GRANULARITY_BITS;
    for (unsigned g = Q2_MIN_BITMAP_GRANULARITY_BITS; g <= Q2_MAX_BITMAP_GRANULARITY_BITS;
         g++) {
        if (q2_bitmap_table_entries(disk_size, g, cluster_bits) != table_size)
            continue;
        found = (uint8_t)g;
        n++;
    }
    *sure = n == 1;
    return *sure ? found : DEFAULT_GRANULARITY_BITS;
}

static bool mend_granularity(uint8_t *e, uint64_t disk_size, unsigned cluster_bits,
                             struct q2_directory_field *f)
{
    uint8_t bits = e[AT_GRANULARITY];
    bool sure;
    if (bits >= Q2_MIN_BITMAP_GRANULARITY_BITS && bits <= Q2_MAX_BITMAP_GRANULARITY_BITS)
        return false;
    e[AT_GRANULARITY] =
        find_granularity(q2_load_be32(e + AT_TABLE_SIZE), disk_size, cluster_bits, &sure);
    *f = (struct q2_directory_field){"granularity_bits", 2, bits, e[AT_GRANULARITY],
                                     !sure};
    return true;
}

// As many entries as the disk's size asks for. One that is in use may be of another size,
// but not of any.
static bool mend_table_size(uint8_t *e, uint64_t disk_size, unsigned cluster_bits,
                            struct q2_directory_field *f)
{
    uint32_t n = q2_load_be32(e + AT_TABLE_SIZE);
    uint64_t wanted = q2_max_u64(
        q2_bitmap_table_entries(disk_size, e[AT_GRANULARITY], cluster_bits), 1);
    bool in_use = (q2_load_be32(e + AT_FLAGS) & Q2_BITMAP_IN_USE) != 0;
    bool fits = in_use ? n > 0 && (uint64_t)n << cluster_bits <= Q2_MAX_BITMAP_BYTES
                       : n == wanted;
    if (fits || wanted > Q2_MAX_BITMAP_BYTES >> cluster_bits)
        return false;
    q2_store_be32(e + AT_TABLE_SIZE, (uint32_t)wanted);
    *f = (struct q2_directory_field){"bitmap_table_size", 1, n, wanted, false};
    return true;
}

bool q2_directory_mend_field(uint8_t *e, uint64_t disk_size, unsigned cluster_bits,
                             struct q2_directory_field *found)
{
    uint32_t flags = q2_load_be32(e + AT_FLAGS);
    const uint32_t known = Q2_BITMAP_IN_USE | Q2_BITMAP_AUTO;
    if (flags & ~known) {
        *found = (struct q2_directory_field){"flags", 1, flags, flags & known, false};
        q2_store_be32(e + AT_FLAGS, flags & known);
        return true;
    }
    if (e[AT_TYPE] != Q2_BITMAP_TYPE_DIRTY) {
        *found = (struct q2_directory_field){"type", 2, e[AT_TYPE], Q2_BITMAP_TYPE_DIRTY,
                                             false};
        e[AT_TYPE] = Q2_BITMAP_TYPE_DIRTY;
        return true;
    }
    return mend_granularity(e, disk_size, cluster_bits, found) ||
           mend_table_size(e, disk_size, cluster_bits, found);
}
