// SPDX-License-Identifier: MIT
// Which part of a disk a copy by blocks is about.
#include "ops/dd.h"

#include "base/checked.h"

bool q2_dd_part(const struct q2_dd_blocks *blocks, uint64_t size, uint64_t *start,
                uint64_t *n_bytes)
{
    uint64_t end;
    if (blocks->count_given && q2_mul_u64(blocks->count, blocks->block, &end))
        size = q2_min_u64(size, end);
    bool fits = q2_mul_u64(blocks->skip, blocks->block, start) && *start <= size;
    if (!fits)
        *start = size;
    *n_bytes = size - *start;
    return fits;
}
