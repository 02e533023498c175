// SPDX-License-Identifier: MIT
// Blocks of which a file system says, elsewhere, what they look like: where a file ends
// in its last block, or the checksum of what is in one. A table that has such blocks
// where they should be is at its place.
#ifndef Q2_RECOVER_CLUES_H
#define Q2_RECOVER_CLUES_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define Q2_CLUE_MAX_BLOCK 65536U
// At the end of a file, of its own: many have some.
#define Q2_CLUE_ZEROS 15U

enum q2_clue_kind {
    Q2_CLUE_END, // value: bytes before the zeros at the block's end
    Q2_CLUE_SUM, // value: the CRC-32C of the block
};

struct q2_clue {
    uint64_t position; // in the volume
    size_t volume;     // of the marks' list; 0: the disk
    uint32_t value;
    enum q2_clue_kind kind;
    unsigned block_bits;
};

struct q2_clues {
    struct q2_clue *list;
    size_t n, max;
};

// More than some are dropped.
int q2_clues_add(struct q2_clues *c, const struct q2_clue *clue, struct q2_error *err);
// The last block of a file of n_bytes, if it does not fill it.
int q2_clues_add_end(struct q2_clues *c, size_t volume, uint64_t position,
                     uint64_t n_bytes, unsigned block_bits, struct q2_error *err);
void q2_clues_clear(struct q2_clues *c);

// What the value of a clue would be that fits this block.
uint32_t q2_clue_value(enum q2_clue_kind kind, const uint8_t *block, size_t n_bytes);

bool q2_clue_fits(const struct q2_clue *clue, uint32_t value);

uint32_t q2_crc32c(uint32_t crc, const void *data, size_t n_bytes);
// What crc was before n_bytes zeros.
uint32_t q2_crc32c_undo_zeros(uint32_t crc, size_t n_bytes);

#endif
