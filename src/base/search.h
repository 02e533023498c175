// SPDX-License-Identifier: MIT
// Searching sorted lists.
#ifndef Q2_BASE_SEARCH_H
#define Q2_BASE_SEARCH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

// The first of n elements of `size` bytes, sorted by the uint64_t at `offset` in each,
// whose number is at least `least`; n: there is none. The list may be NULL if n is 0.
static inline size_t q2_search_from(const void *list, size_t n, size_t size,
                                    size_t offset, uint64_t least)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        uint64_t number;
        memcpy(&number, (const char *)list + middle * size + offset, sizeof(number));
        if (number < least)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

#endif
