// SPDX-License-Identifier: MIT
// Refcount entries. Widths below a byte share it: the entry with the lowest index is in
// the lowest bits. Wider ones are big-endian numbers.
#include "disk/refcount.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "base/endian.h"

#define WORD_BITS 64U

static uint64_t get_bits(const void *block, uint64_t index, unsigned order)
{
    const uint8_t *p = block;
    uint64_t bit = index << order;
    unsigned mask = (1U << (1U << order)) - 1;
    return (unsigned)(p[bit / 8] >> (bit % 8)) & mask;
}

static void set_bits(void *block, uint64_t index, uint64_t value, unsigned order)
{
    uint8_t *p = block;
    uint64_t bit = index << order;
    unsigned mask = ((1U << (1U << order)) - 1) << (bit % 8);
    p[bit / 8] = (uint8_t)((p[bit / 8] & ~mask) | ((unsigned)value << (bit % 8) & mask));
}

static uint64_t get_1(const void *block, uint64_t index)
{
    return get_bits(block, index, 0);
}

static void set_1(void *block, uint64_t index, uint64_t value)
{
    set_bits(block, index, value, 0);
}

static uint64_t get_2(const void *block, uint64_t index)
{
    return get_bits(block, index, 1);
}

static void set_2(void *block, uint64_t index, uint64_t value)
{
    set_bits(block, index, value, 1);
}

static uint64_t get_4(const void *block, uint64_t index)
{
    return get_bits(block, index, 2);
}

static void set_4(void *block, uint64_t index, uint64_t value)
{
    set_bits(block, index, value, 2);
}

static uint64_t get_8(const void *block, uint64_t index)
{
    return ((const uint8_t *)block)[index];
}

static void set_8(void *block, uint64_t index, uint64_t value)
{
    ((uint8_t *)block)[index] = (uint8_t)value;
}

static uint64_t get_16(const void *block, uint64_t index)
{
    return q2_load_be16((const char *)block + index * 2);
}

static void set_16(void *block, uint64_t index, uint64_t value)
{
    q2_store_be16((char *)block + index * 2, (uint16_t)value);
}

static uint64_t get_32(const void *block, uint64_t index)
{
    return q2_load_be32((const char *)block + index * 4);
}

static void set_32(void *block, uint64_t index, uint64_t value)
{
    q2_store_be32((char *)block + index * 4, (uint32_t)value);
}

static uint64_t get_64(const void *block, uint64_t index)
{
    return q2_load_be64((const char *)block + index * 8);
}

static void set_64(void *block, uint64_t index, uint64_t value)
{
    q2_store_be64((char *)block + index * 8, value);
}

static const struct q2_refcount_format formats[] = {
    {0, 1, get_1, set_1},
    {1, 3, get_2, set_2},
    {2, 15, get_4, set_4},
    {3, UINT8_MAX, get_8, set_8},
    {4, UINT16_MAX, get_16, set_16},
    {5, UINT32_MAX, get_32, set_32},
    {6, UINT64_MAX, get_64, set_64},
};

const struct q2_refcount_format *q2_refcount_format(unsigned order)
{
    return order < sizeof(formats) / sizeof(formats[0]) ? &formats[order] : NULL;
}

static uint64_t per_word(const struct q2_refcount_format *f)
{
    assert(f->order <= 6); // counts of 64 bits
    return WORD_BITS >> f->order;
}

static uint64_t load_word(const void *block, uint64_t word)
{
    uint64_t v;
    memcpy(&v, (const char *)block + word * sizeof(v), sizeof(v));
    return v;
}

void q2_refcount_fill(const struct q2_refcount_format *f, void *block, uint64_t index,
                      uint64_t n, uint64_t value)
{
    uint64_t step = per_word(f);
    uint64_t end = index + n;

    assert(value <= f->max && step > 0);
    while (index < end && index % step)
        f->set(block, index++, value);

    if (end - index >= step) {
        uint64_t first = index / step;
        uint64_t last = end / step;
        for (; index < (first + 1) * step; index++)
            f->set(block, index, value);
        // The first whole word is the pattern of all others: twice as many are copied
        // each time.
        char *start = (char *)block + first * sizeof(uint64_t);
        for (uint64_t have = 1, n_words = last - first; have < n_words;) {
            uint64_t more = have < n_words - have ? have : n_words - have;
            memcpy(start + have * sizeof(uint64_t), start,
                   (size_t)more * sizeof(uint64_t));
            have += more;
        }
        index = last * step;
    }
    while (index < end)
        f->set(block, index++, value);
}

// Is some entry of the word zero? (Which one does not matter, nor does byte order.)
static bool has_zero(uint64_t word, unsigned order)
{
    static const uint64_t lowest_bits[] = {
        UINT64_MAX,
        UINT64_C(0x5555555555555555),
        UINT64_C(0x1111111111111111),
        UINT64_C(0x0101010101010101),
        UINT64_C(0x0001000100010001),
        UINT64_C(0x0000000100000001),
        UINT64_C(1),
    };
    uint64_t low = lowest_bits[order];
    uint64_t high = low << ((1U << order) - 1);
    // Taking one from each entry borrows into its highest bit where it was zero, and
    // then only above such an entry.
    return ((word - low) & ~word & high) != 0;
}

static bool word_hit(uint64_t word, unsigned order, bool zero)
{
    return zero ? has_zero(word, order) : word != 0;
}

static uint64_t find_next(const struct q2_refcount_format *f, const void *block,
                          uint64_t index, uint64_t limit, bool zero)
{
    uint64_t step = per_word(f);

    while (index < limit) {
        if (index % step == 0)
            while (limit - index >= step &&
                   !word_hit(load_word(block, index / step), f->order, zero))
                index += step;
        if (index >= limit || (f->get(block, index) == 0) == zero)
            break;
        index++;
    }
    return index;
}

uint64_t q2_refcount_next_zero(const struct q2_refcount_format *f, const void *block,
                               uint64_t index, uint64_t limit)
{
    return find_next(f, block, index, limit, true);
}

uint64_t q2_refcount_next_used(const struct q2_refcount_format *f, const void *block,
                               uint64_t index, uint64_t limit)
{
    return find_next(f, block, index, limit, false);
}

uint64_t q2_refcount_run_end(const struct q2_refcount_format *f, const void *block,
                             uint64_t index, uint64_t limit)
{
    uint64_t step = per_word(f), value = f->get(block, index), pattern = 0;

    q2_refcount_fill(f, &pattern, 0, step, value);
    while (index < limit) {
        if (index % step == 0)
            while (limit - index >= step && load_word(block, index / step) == pattern)
                index += step;
        if (index >= limit || f->get(block, index) != value)
            break;
        index++;
    }
    return index;
}
