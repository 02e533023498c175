// SPDX-License-Identifier: MIT
// Sparse counters: as many as there are numbers, all zero at first. Memory follows those
// that are counted: two bits each while counts are small, more only in the neighbourhood
// of larger ones.
#ifndef Q2_BASE_COUNTERS_H
#define Q2_BASE_COUNTERS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct q2_counters;

struct q2_counters *q2_counters_new(void); // NULL: no memory
// The same for a few numbers far from each other: less memory for each of them, more for
// long runs.
struct q2_counters *q2_counters_new_scattered(void);
void q2_counters_free(struct q2_counters *c);

// Adds amount to each of the n counters from index on. A counter that would overflow 64
// bits stays at the largest value.
int q2_counters_add(struct q2_counters *c, uint64_t index, uint64_t n, uint64_t amount,
                    struct q2_error *err);

// Takes 1 from a counter that is not zero.
void q2_counters_take(struct q2_counters *c, uint64_t index);

uint64_t q2_counters_get(const struct q2_counters *c, uint64_t index);

// Is any of the n counters from index on not zero? Costs a step for a
// page: 16384 of them, 256 if scattered.
bool q2_counters_any(const struct q2_counters *c, uint64_t index, uint64_t n);

// Are all of the n counters from index on 1?
bool q2_counters_all_one(const struct q2_counters *c, uint64_t index, uint64_t n);

// The next run of equal counts that are not zero, at or after from: *start, *n, *value.
// False: there is none. The run may end early (at a page); ask again from *start + *n.
// Not while counters are added to pages that did not exist.
bool q2_counters_next(struct q2_counters *c, uint64_t from, uint64_t *start, uint64_t *n,
                      uint64_t *value);

#endif
