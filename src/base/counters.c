// SPDX-License-Identifier: MIT
// Sparse counters: pages of equal width in a hash table.
#include "base/counters.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

#define PAGE_BITS 14U
#define SCATTERED_PAGE_BITS 8U
#define LOWEST_OF_TWO UINT64_C(0x5555555555555555)

struct page {
    uint64_t number; // index >> page_bits
    unsigned width;  // bits of a counter: 2, 8, 32 or 64
    uint64_t *words;
};

struct q2_counters {
    unsigned page_bits;  // a page has 1 << page_bits counters
    struct page **slots; // open addressing; NULL: empty
    size_t n_slots, n_pages;
    struct page *last;    // found last time
    struct page **sorted; // by number; NULL: to be made
};

static struct q2_counters *new_counters(unsigned page_bits)
{
    struct q2_counters *c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->page_bits = page_bits;
    c->n_slots = 64;
    c->slots = calloc(c->n_slots, sizeof(struct page *));
    if (!c->slots) {
        free(c);
        return NULL;
    }
    return c;
}

struct q2_counters *q2_counters_new(void)
{
    return new_counters(PAGE_BITS);
}

struct q2_counters *q2_counters_new_scattered(void)
{
    return new_counters(SCATTERED_PAGE_BITS);
}

void q2_counters_free(struct q2_counters *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->n_slots; i++) {
        if (c->slots[i])
            free(c->slots[i]->words);
        free(c->slots[i]);
    }
    free(c->slots);
    free(c->sorted);
    free(c);
}

static size_t slot_of(struct page *const *slots, size_t n_slots, uint64_t number)
{
    size_t i = (size_t)((number * UINT64_C(0x9e3779b97f4a7c15)) >> 20) & (n_slots - 1);
    while (slots[i] && slots[i]->number != number)
        i = (i + 1) & (n_slots - 1);
    return i;
}

static uint32_t page_counters(const struct q2_counters *c)
{
    return UINT32_C(1) << c->page_bits;
}

static size_t page_bytes(const struct q2_counters *c, unsigned width)
{
    return (size_t)page_counters(c) * width / 8;
}

// Where a counter stands in its page.
static uint32_t place_of(const struct q2_counters *c, uint64_t index)
{
    return (uint32_t)(index & (page_counters(c) - 1));
}

// How many of the n counters from there on are in the same page.
static uint32_t rest_of_page(const struct q2_counters *c, uint32_t i, uint64_t n)
{
    return (uint32_t)q2_min_u64(n, page_counters(c) - i);
}

static int grow_slots(struct q2_counters *c, struct q2_error *err)
{
    size_t n = c->n_slots * 2;
    struct page **slots = calloc(n, sizeof(struct page *));
    if (!slots)
        return q2_fail_memory(err, n * sizeof(struct page *));
    for (size_t i = 0; i < c->n_slots; i++) {
        if (c->slots[i])
            slots[slot_of(slots, n, c->slots[i]->number)] = c->slots[i];
    }
    free(c->slots);
    c->slots = slots;
    c->n_slots = n;
    return 0;
}

static struct page *find_page(const struct q2_counters *c, uint64_t number)
{
    if (c->last && c->last->number == number)
        return c->last;
    return c->slots[slot_of(c->slots, c->n_slots, number)];
}

static int make_page(struct q2_counters *c, uint64_t number, struct page **out,
                     struct q2_error *err)
{
    struct page *p = find_page(c, number);
    if (!p) {
        int ret = c->n_pages * 2 >= c->n_slots ? grow_slots(c, err) : 0;
        if (ret < 0)
            return ret;
        p = calloc(1, sizeof(*p));
        uint64_t *words = calloc(1, page_bytes(c, 2));
        if (!p || !words) {
            free(p);
            free(words);
            return q2_fail_memory(err, page_bytes(c, 2));
        }
        *p = (struct page){.number = number, .width = 2, .words = words};
        c->slots[slot_of(c->slots, c->n_slots, number)] = p;
        c->n_pages++;
        free(c->sorted);
        c->sorted = NULL;
    }
    c->last = p;
    *out = p;
    return 0;
}

static uint64_t width_max(unsigned width)
{
    return width == 64 ? UINT64_MAX : (UINT64_C(1) << width) - 1;
}

static uint64_t get(const struct page *p, uint32_t i)
{
    unsigned per_word = 64 / p->width;
    return (p->words[i / per_word] >> (i % per_word * p->width)) & width_max(p->width);
}

static void set(struct page *p, uint32_t i, uint64_t value)
{
    unsigned per_word = 64 / p->width, shift = i % per_word * p->width;
    uint64_t *w = &p->words[i / per_word];
    *w = (*w & ~(width_max(p->width) << shift)) | value << shift;
}

static int widen(const struct q2_counters *c, struct page *p, struct q2_error *err)
{
    unsigned width = p->width == 2 ? 8 : p->width == 8 ? 32 : 64;
    uint64_t *words = calloc(1, page_bytes(c, width)), *old = p->words;
    if (!words)
        return q2_fail_memory(err, page_bytes(c, width));
    struct page wide = {.width = width, .words = words};
    for (uint32_t i = 0; i < page_counters(c); i++)
        set(&wide, i, get(p, i));
    p->words = words;
    p->width = width;
    free(old);
    return 0;
}

static int add_one(const struct q2_counters *c, struct page *p, uint32_t i,
                   uint64_t amount, struct q2_error *err)
{
    uint64_t value;
    if (!q2_add_u64(get(p, i), amount, &value))
        value = UINT64_MAX;
    while (value > width_max(p->width)) {
        int ret = widen(c, p, err);
        if (ret < 0)
            return ret;
    }
    set(p, i, value);
    return 0;
}

// Raises two-bit counters by one, a word of them at a time; stops before a word that has
// a full one. Returns how many counters that were.
static uint32_t raise_words(struct page *p, uint32_t i, uint32_t n)
{
    uint32_t done = 0;
    while (done < n) {
        uint32_t first = (i + done) % 32;
        uint32_t here = n - done < 32 - first ? n - done : 32 - first;
        uint64_t *w = &p->words[(i + done) / 32];
        uint64_t ones = (LOWEST_OF_TWO >> (64 - 2 * here)) << (2 * first);
        if (*w & (*w >> 1) & ones)
            break;
        *w += ones;
        done += here;
    }
    return done;
}

static int add_in_page(const struct q2_counters *c, struct page *p, uint32_t i,
                       uint32_t n, uint64_t amount, struct q2_error *err)
{
    while (n > 0) {
        uint32_t done = 0;
        if (p->width == 2 && amount == 1)
            done = raise_words(p, i, n);
        if (done == 0) {
            int ret = add_one(c, p, i, amount, err);
            if (ret < 0)
                return ret;
            done = 1;
        }
        i += done;
        n -= done;
    }
    return 0;
}

int q2_counters_add(struct q2_counters *c, uint64_t index, uint64_t n, uint64_t amount,
                    struct q2_error *err)
{
    while (n > 0) {
        uint32_t i = place_of(c, index);
        uint32_t here = rest_of_page(c, i, n);
        struct page *p = NULL;
        int ret = make_page(c, index >> c->page_bits, &p, err);
        if (ret == 0)
            ret = add_in_page(c, p, i, here, amount, err);
        if (ret < 0)
            return ret;
        index += here;
        n -= here;
    }
    return 0;
}

void q2_counters_take(struct q2_counters *c, uint64_t index)
{
    struct page *p = find_page(c, index >> c->page_bits);
    uint32_t i = place_of(c, index);
    if (p && get(p, i) > 0)
        set(p, i, get(p, i) - 1);
}

uint64_t q2_counters_get(const struct q2_counters *c, uint64_t index)
{
    const struct page *p = find_page(c, index >> c->page_bits);
    return p ? get(p, place_of(c, index)) : 0;
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = (*(struct page *const *)a)->number,
             y = (*(struct page *const *)b)->number;
    return (x > y) - (x < y);
}

// Without memory for the sorted list the search is slow, not wrong.
static void sort_pages(struct q2_counters *c)
{
    if (c->sorted || c->n_pages == 0)
        return;
    c->sorted = malloc(c->n_pages * sizeof(struct page *));
    size_t n = 0;
    for (size_t i = 0; c->sorted && i < c->n_slots; i++) {
        if (c->slots[i])
            c->sorted[n++] = c->slots[i];
    }
    if (c->sorted)
        qsort(c->sorted, n, sizeof(struct page *), by_number);
}

// The page with the smallest number that is at least `number`.
static struct page *page_from(struct q2_counters *c, uint64_t number)
{
    sort_pages(c);
    struct page *best = NULL;
    for (size_t i = 0; !c->sorted && i < c->n_slots; i++) {
        struct page *p = c->slots[i];
        if (p && p->number >= number && (!best || p->number < best->number))
            best = p;
    }
    size_t low = 0, high = c->sorted ? c->n_pages : 0;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (c->sorted[mid]->number < number)
            low = mid + 1;
        else
            high = mid;
    }
    return c->sorted ? low < c->n_pages ? c->sorted[low] : NULL : best;
}

// The first counter from i on that is not zero; end or more: there is none before end.
static uint32_t skip_zeros(const struct page *p, uint32_t i, uint32_t end)
{
    unsigned per_word = 64 / p->width;
    while (i < end && get(p, i) == 0)
        i = i % per_word == 0 && p->words[i / per_word] == 0 ? i + per_word : i + 1;
    return i;
}

bool q2_counters_any(const struct q2_counters *c, uint64_t index, uint64_t n)
{
    while (n > 0) {
        uint32_t i = place_of(c, index);
        uint32_t here = rest_of_page(c, i, n);
        const struct page *p = find_page(c, index >> c->page_bits);
        if (p && skip_zeros(p, i, i + here) < i + here)
            return true;
        index += here;
        n -= here;
    }
    return false;
}

// The first counter from i on that differs from it; end or more: there is none before
// end.
static uint32_t run_end(const struct page *p, uint32_t i, uint32_t end)
{
    unsigned per_word = 64 / p->width;
    uint64_t value = get(p, i), pattern = 0;
    for (unsigned k = 0; k < per_word; k++)
        pattern |= value << (k * p->width);
    while (i < end && get(p, i) == value)
        i = i % per_word == 0 && p->words[i / per_word] == pattern ? i + per_word : i + 1;
    return i;
}

bool q2_counters_all_one(const struct q2_counters *c, uint64_t index, uint64_t n)
{
    while (n > 0) {
        uint32_t i = place_of(c, index);
        uint32_t here = rest_of_page(c, i, n);
        const struct page *p = find_page(c, index >> c->page_bits);
        if (!p || get(p, i) != 1 || run_end(p, i, i + here) < i + here)
            return false;
        index += here;
        n -= here;
    }
    return true;
}

bool q2_counters_next(struct q2_counters *c, uint64_t from, uint64_t *start, uint64_t *n,
                      uint64_t *value)
{
    uint32_t i = place_of(c, from);
    uint64_t number = from >> c->page_bits;
    for (struct page *p = page_from(c, number); p; p = page_from(c, p->number + 1)) {
        if (p->number != number)
            i = 0;
        i = skip_zeros(p, i, page_counters(c));
        if (i < page_counters(c)) {
            *start = (p->number << c->page_bits) + i;
            *value = get(p, i);
            *n = run_end(p, i, page_counters(c)) - i;
            return true;
        }
    }
    return false;
}
