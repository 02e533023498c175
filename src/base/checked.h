// SPDX-License-Identifier: MIT
// Arithmetic on numbers that an image or a user supplied. The functions that return bool
// say true when the result fits; *out is then set, and untouched otherwise.
#ifndef Q2_BASE_CHECKED_H
#define Q2_BASE_CHECKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool q2_add_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    uint64_t r;
    if (__builtin_add_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

static inline bool q2_mul_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    uint64_t r;
    if (__builtin_mul_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

// align is a power of two. The caller knows that the result fits.
static inline uint64_t q2_align_down(uint64_t v, uint64_t align)
{
    return v & ~(align - 1);
}

static inline uint64_t q2_align_up(uint64_t v, uint64_t align)
{
    return (v + align - 1) & ~(align - 1);
}

static inline bool q2_is_aligned(uint64_t v, uint64_t align)
{
    return (v & (align - 1)) == 0;
}

static inline bool q2_is_power_of_2(uint64_t v)
{
    return v != 0 && (v & (v - 1)) == 0;
}

// d > 0; never overflows.
static inline uint64_t q2_div_round_up(uint64_t n, uint64_t d)
{
    return n / d + (n % d != 0);
}

static inline uint64_t q2_min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t q2_max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

// For memory. Where a size_t is narrower, what does not fit becomes the largest one,
// which no allocation grants.
static inline size_t q2_to_size(uint64_t v)
{
    return v < SIZE_MAX ? (size_t)v : SIZE_MAX;
}

static inline size_t q2_min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline size_t q2_max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

// log2 of a power of two.
static inline unsigned q2_log2(uint64_t v)
{
    return (unsigned)__builtin_ctzll(v);
}

#endif
