// SPDX-License-Identifier: MIT
// Values that a damaged header field may have had.
#ifndef Q2_CHECK_HEAL_HEADER_H
#define Q2_CHECK_HEAL_HEADER_H

#include "base/error.h"
#include "io/io.h"

// One field of the header, another value for it.
struct q2_candidate {
    const char *field;
    unsigned at, n_bytes; // place in the header
    uint64_t value;
};

struct q2_candidates {
    struct q2_candidate *list;
    size_t n, max;
};

// All values worth trying for the image in io, the likeliest of a field first. The caller
// frees list.
int q2_candidates_collect(struct q2_io *io, struct q2_candidates *c,
                          struct q2_error *err);

#endif
