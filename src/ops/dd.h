// SPDX-License-Identifier: MIT
// Which part of a disk a copy by blocks is about.
#ifndef Q2_OPS_DD_H
#define Q2_OPS_DD_H

#include <stdbool.h>
#include <stdint.h>

struct q2_dd_blocks {
    uint64_t block; // bytes, > 0
    bool count_given;
    uint64_t count; // blocks from the disk's start on, those that are skipped among them
    uint64_t skip;  // blocks
};

// Of a disk of that size. False: so much cannot be skipped, nothing is left.
bool q2_dd_part(const struct q2_dd_blocks *blocks, uint64_t size, uint64_t *start,
                uint64_t *n_bytes);

#endif
