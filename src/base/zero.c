// SPDX-License-Identifier: MIT
// Looking for zeros as fast as memory can be read.
#include "base/zero.h"

#include <stdint.h>
#include <string.h>

// A vector of the compiler: one load on machines that have such registers, two or four
// plain ones on others.
typedef uint64_t vector __attribute__((vector_size(32)));

// Read per step; a step that is not all zero ends the search.
#define STEP (8 * sizeof(vector))

static bool is_zero_step(const unsigned char *p)
{
    vector v[8];
    memcpy(v, p, sizeof(v));
    vector all = (v[0] | v[1]) | (v[2] | v[3]) | ((v[4] | v[5]) | (v[6] | v[7]));
    return (all[0] | all[1] | all[2] | all[3]) == 0;
}

static bool is_zero_short(const unsigned char *p, size_t n)
{
    uint64_t all = 0;
    size_t i = 0;
    for (; i + sizeof(all) <= n; i += sizeof(all)) {
        uint64_t word;
        memcpy(&word, p + i, sizeof(word));
        all |= word;
    }
    for (; i < n; i++)
        all |= p[i];
    return all == 0;
}

bool q2_is_zero(const void *buf, size_t n_bytes)
{
    const unsigned char *p = buf;

    if (n_bytes == 0)
        return true;
    // Data shows itself mostly here.
    if (p[0] | p[n_bytes / 2] | p[n_bytes - 1])
        return false;

    size_t i = 0;
    for (; i + STEP <= n_bytes; i += STEP)
        if (!is_zero_step(p + i))
            return false;
    return is_zero_short(p + i, n_bytes - i);
}

size_t q2_zero_run(const void *buf, size_t n_bytes, size_t grain, bool *is_zero)
{
    const unsigned char *p = buf;
    size_t first = n_bytes < grain ? n_bytes : grain;
    size_t run = first;

    *is_zero = q2_is_zero(p, first);
    while (run < n_bytes) {
        size_t n = n_bytes - run < grain ? n_bytes - run : grain;
        if (q2_is_zero(p + run, n) != *is_zero)
            break;
        run += n;
    }
    return run;
}
