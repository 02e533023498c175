// SPDX-License-Identifier: MIT
// What a guest may read: a plain byte array, and for each sector what it has been since
// it was last made durable.
#ifndef Q2_TESTS_CRASH_MODEL_H
#define Q2_TESTS_CRASH_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SECTOR 512U

struct value {
    uint64_t hash; // of the sector
    uint32_t op;   // that wrote it
};

struct history {
    struct value *values; // oldest first; the last one is what is read now
    uint32_t n, max;
    uint32_t durable; // index: a power cut may leave this one or any later one
};

struct model {
    uint8_t *bytes; // what is read now
    size_t n_bytes; // whole sectors
    struct history *sectors;
};

void model_new(struct model *m, const uint8_t *bytes, size_t n_bytes);
void model_clear(struct model *m);

// Operation number op makes this of the range. buf NULL: zeros.
void model_write(struct model *m, uint64_t offset, const uint8_t *buf, size_t n_bytes,
                 uint32_t op);
// All that was written is durable.
void model_flush(struct model *m);
// A power cut happened, and this is what is there.
void model_become(struct model *m, const uint8_t *bytes);

// May a power cut leave these bytes? If not, why gets the first sector that is wrong.
bool model_allows(const struct model *m, const uint8_t *bytes, char *why, size_t room);
// Is it what must be read now?
bool model_equals(const struct model *m, uint64_t offset, const uint8_t *bytes,
                  size_t n_bytes, char *why, size_t room);

#endif
