// SPDX-License-Identifier: MIT
// Entries of refcount blocks, 1 to 64 bits wide (qcow2 format: "Host cluster
// management").
#ifndef Q2_DISK_REFCOUNT_H
#define Q2_DISK_REFCOUNT_H

#include <stddef.h>
#include <stdint.h>

// Access to the entries of one block (memory as it stands in the file) of one width;
// chosen once per image by q2_refcount_format.
struct q2_refcount_format {
    unsigned order; // width is 1 << order bits
    uint64_t max;   // largest count that an entry can hold
    uint64_t (*get)(const void *block, uint64_t index);
    void (*set)(void *block, uint64_t index, uint64_t value);
};

// order 0 .. 6; NULL otherwise.
const struct q2_refcount_format *q2_refcount_format(unsigned order);

// Sets n entries from index on to value. Fast for long runs.
void q2_refcount_fill(const struct q2_refcount_format *f, void *block, uint64_t index,
                      uint64_t n, uint64_t value);

// Index (index .. limit) of the first entry from index on that is zero / that is not
// zero; limit if none.
uint64_t q2_refcount_next_zero(const struct q2_refcount_format *f, const void *block,
                               uint64_t index, uint64_t limit);
uint64_t q2_refcount_next_used(const struct q2_refcount_format *f, const void *block,
                               uint64_t index, uint64_t limit);

// Index of the first entry from index on that differs from it; limit if none. index <
// limit.
uint64_t q2_refcount_run_end(const struct q2_refcount_format *f, const void *block,
                             uint64_t index, uint64_t limit);

#endif
