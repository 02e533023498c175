// SPDX-License-Identifier: MIT
// The bitmap directory (qcow2 format: "Bitmaps").
#ifndef Q2_DISK_BITMAP_H
#define Q2_DISK_BITMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define Q2_BITMAP_IN_USE (1U << 0)
#define Q2_BITMAP_AUTO (1U << 1)
#define Q2_BITMAP_TYPE_DIRTY 1U
#define Q2_MAX_BITMAP_NAME 1023U

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
size_t q2_bitmap_bytes(const struct q2_bitmap *b);
void q2_bitmap_encode(const struct q2_bitmap *b, void *buf);
void q2_bitmap_clear(struct q2_bitmap *b);

#endif
