// SPDX-License-Identifier: MIT
// Which states a power cut may leave: behind each call of the record, with all of what
// was not flushed, none of it, or any sectors of it.
#ifndef Q2_TESTS_CRASH_CUTS_H
#define Q2_TESTS_CRASH_CUTS_H

#include "tests/crash/fixture.h"

struct cuts {
    struct q2_io *fault;
    uint64_t random;
    // Judges a state, which is closed afterwards.
    bool (*judge)(void *opaque, struct q2_io *state);
    void *opaque;
    size_t call; // the cut is behind it
    const char *kept;
};

// False as soon as a state is judged so. max_calls: of those that do not stand beside a
// flush.
bool cuts_try(struct cuts *c, size_t max_calls);

#endif
