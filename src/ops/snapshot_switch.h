// SPDX-License-Identifier: MIT
// What making, applying and deleting a snapshot have in common. With the image's lock
// held.
#ifndef Q2_OPS_SNAPSHOT_SWITCH_H
#define Q2_OPS_SNAPSHOT_SWITCH_H

#include "image/image.h"

// Bytes that are to get clusters of their own.
struct q2_placed {
    uint8_t *bytes; // owned
    size_t n_bytes; // 0: nothing to place
    uint64_t offset;
};

// What is in the file is what is in memory, and the snapshots are loaded.
int q2_switch_begin(struct q2_image *img, struct q2_error *err);

// Encodes the snapshot table without number `without` (-1: with all) and with `added`
// (NULL: none).
int q2_switch_encode_snapshots(const struct q2_image *img, int without,
                               const struct q2_snapshot *added, struct q2_placed *out,
                               struct q2_error *err);
// An L1 table of n entries, nothing of it COPIED.
int q2_switch_encode_l1(const uint64_t *l1, uint32_t n_entries, struct q2_placed *out,
                        struct q2_error *err);
// Bytes of the snapshot table in the file.
uint64_t q2_switch_snapshots_bytes(const struct q2_image *img);

// Allocates clusters and writes the bytes there: nothing refers to them yet.
int q2_switch_place(struct q2_image *img, struct q2_placed *p, const char *what,
                    struct q2_error *err);
// Gives the clusters back (before anything referred to them) and the memory free.
void q2_switch_drop(struct q2_image *img, struct q2_placed *p, bool placed);

// From here on the image is dirty (version 3), durably.
int q2_switch_set_dirty(struct q2_image *img, struct q2_error *err);
// All that waits is in the file, durably.
int q2_switch_settle(struct q2_image *img, struct q2_error *err);
// The same, and the image is clean.
int q2_switch_end(struct q2_image *img, struct q2_error *err);

#endif
