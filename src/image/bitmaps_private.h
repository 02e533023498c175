// SPDX-License-Identifier: MIT
// What the two halves of the bitmaps' code share: bitmaps.c and bitmaps_store.c.
#ifndef Q2_IMAGE_BITMAPS_PRIVATE_H
#define Q2_IMAGE_BITMAPS_PRIVATE_H

#include "image/bitmaps.h"

struct q2_bitmaps {
    struct q2_live_bitmap *list; // in the directory's order, new ones behind
    unsigned n;
    struct q2_live_bitmap *removed; // with what they still take in the file
    unsigned n_removed;
    bool changed; // more than bits: names or flags
};

// The directory as it is to be, with room for whole sectors; malloced, NULL: no memory.
uint8_t *q2_bitmaps_encode(const struct q2_bitmaps *all, uint64_t *n_bytes);

// Reads and validates b->table.
int q2_bitmaps_read_table(struct q2_image *img, struct q2_live_bitmap *b,
                          struct q2_error *err);

// Frees what it has in memory.
void q2_bitmaps_clear_one(struct q2_live_bitmap *b);

#endif
