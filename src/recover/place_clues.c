// SPDX-License-Identifier: MIT
// L2 tables that get their place by clues: those that have, where a file system says so,
// blocks that look as it says.
#include <stdlib.h>
#include <string.h>

#include "recover/place.h"

// So many clues are used for the range of one table, of different values.
#define MAX_OF_RANGE 128U
// Fewer that fit may do so by chance.
#define MIN_SURE 4U
#define MIN_LIKELY 3U

// A clue, by its place in the range of a table.
struct item {
    uint64_t index, in_table;
    uint32_t n_of_range; // blocks of the index
    const struct q2_clue *clue;
};

// So many blocks of a table are as the clues of an index say.
struct claim {
    size_t table;
    uint64_t index;
    uint32_t n_fit, n_values, n_all; // n_values: different ones that fit
};

// Items side by side that ask for the same of the same block, in the order of their
// values.
struct run {
    size_t first, n;
};

struct trial {
    struct q2_work *w;
    struct q2_lost *list;
    size_t n;
    struct item *items;
    struct run *runs; // by in_table
    size_t n_items, n_runs;
    struct item **fits; // room for all, of one table
    struct claim *claims;
    size_t n_claims, max_claims;
};

static int compare(uint64_t x, uint64_t y)
{
    return x < y ? -1 : x > y;
}

static int by_index(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    int order = compare(x->index, y->index);
    if (order == 0)
        order = compare(x->in_table, y->in_table);
    return order ? order : compare(x->clue->value, y->clue->value);
}

// 0: of one run.
static int by_question(const struct item *x, const struct item *y)
{
    int order = compare(x->in_table, y->in_table);
    if (order == 0)
        order = compare(x->clue->block_bits, y->clue->block_bits);
    return order ? order : compare(x->clue->kind, y->clue->kind);
}

static int by_run(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    int order = by_question(x, y);
    return order ? order : compare(x->clue->value, y->clue->value);
}

static int by_value(const void *a, const void *b)
{
    const struct item *x = *(struct item *const *)a, *y = *(struct item *const *)b;
    if (x->index != y->index)
        return x->index < y->index ? -1 : 1;
    return x->clue->value < y->clue->value ? -1 : x->clue->value > y->clue->value;
}

// The clues of indexes that are open.
static size_t find_items(struct trial *t, const struct q2_marks *m)
{
    unsigned bits = q2_work_span_bits(t->w);
    uint64_t span = UINT64_C(1) << bits;
    size_t n = 0;
    for (size_t i = 0; i < m->clues.n; i++) {
        const struct q2_clue *c = &m->clues.list[i];
        uint64_t at;
        if (q2_marks_locate(m, c->volume, c->position, &at) &&
            at >> bits < Q2_MAX_L1_BYTES / 8 &&
            at % span + (UINT64_C(1) << c->block_bits) <= span &&
            q2_work_is_open_index(t->w, at >> bits))
            t->items[n++] =
                (struct item){.index = at >> bits, .in_table = at % span, .clue = c};
    }
    return n;
}

static bool is_same_block(const struct item *x, const struct item *y)
{
    return x->index == y->index && x->in_table == y->in_table;
}

static size_t count_blocks(const struct item *items, size_t n)
{
    size_t n_blocks = 0;
    for (size_t i = 0; i < n; i++)
        n_blocks += i == 0 || !is_same_block(&items[i], &items[i - 1]);
    return n_blocks;
}

// Not too many blocks of the n items of an index; of each what several clues say, some of
// which may be old, but nothing twice.
static void take_some(struct trial *t, const struct item *items, size_t n)
{
    size_t n_blocks = count_blocks(items, n), block = 0;
    size_t step = (n_blocks + MAX_OF_RANGE - 1) / MAX_OF_RANGE;
    for (size_t i = 0; i < n; i++) {
        bool same = i > 0 && is_same_block(&items[i], &items[i - 1]);
        block += i > 0 && !same;
        if (block % step != 0 ||
            (same && items[i].clue->value == items[i - 1].clue->value))
            continue;
        struct item x = items[i];
        x.n_of_range = (uint32_t)((n_blocks + step - 1) / step);
        t->items[t->n_items++] = x;
    }
}

static void take_items(struct trial *t, const struct q2_marks *m)
{
    size_t n = find_items(t, m);
    if (n > 0)
        qsort(t->items, n, sizeof(*t->items), by_index);
    for (size_t i = 0, end; i < n; i = end) {
        for (end = i; end < n && t->items[end].index == t->items[i].index;)
            end++;
        take_some(t, t->items + i, end - i);
    }
}

static void make_runs(struct trial *t)
{
    if (t->n_items > 0)
        qsort(t->items, t->n_items, sizeof(*t->items), by_run);
    for (size_t i = 0; i < t->n_items; i++) {
        if (i == 0 || by_question(&t->items[i], &t->items[i - 1]) != 0)
            t->runs[t->n_runs++].first = i;
        t->runs[t->n_runs - 1].n++;
    }
}

static int add_claims(struct trial *t, size_t table, size_t n, struct q2_error *err)
{
    qsort(t->fits, n, sizeof(*t->fits), by_value);
    for (size_t i = 0, end; i < n; i = end) {
        struct claim c = {
            .table = table, .index = t->fits[i]->index, .n_all = t->fits[i]->n_of_range};
        for (end = i; end < n && t->fits[end]->index == c.index; end++) {
            c.n_fit++;
            c.n_values +=
                end == i || t->fits[end]->clue->value != t->fits[end - 1]->clue->value;
        }
        if (c.n_values < MIN_LIKELY)
            continue;
        if (t->n_claims == t->max_claims) {
            size_t max = t->max_claims ? t->max_claims * 2 : 64;
            struct claim *list = realloc(t->claims, max * sizeof(*list));
            if (!list)
                return q2_fail_memory(err, max * sizeof(*list));
            t->claims = list;
            t->max_claims = max;
        }
        t->claims[t->n_claims++] = c;
    }
    return 0;
}

// Of the items of a run those that fit to this value, of each index one.
static size_t find_fits(struct trial *t, const struct run *run, uint32_t value, size_t n)
{
    size_t low = run->first, high = run->first + run->n, from = n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (t->items[middle].clue->value < value)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < run->first + run->n && q2_clue_fits(t->items[low].clue, value); low++) {
        size_t k = from;
        while (k < n && t->fits[k]->index != t->items[low].index)
            k++;
        if (k == n)
            t->fits[n++] = &t->items[low];
    }
    return n;
}

static int try_table(struct trial *t, size_t table, uint8_t *block, struct q2_error *err)
{
    size_t n = 0;
    int ret = 0;
    for (size_t i = 0; i < t->n_runs && ret == 0; i++) {
        const struct item *x = &t->items[t->runs[i].first];
        size_t n_bytes = (size_t)1 << x->clue->block_bits;
        bool has;
        ret = q2_work_read_in_table(t->w, t->list[table].table->offset, x->in_table,
                                    block, n_bytes, &has, err);
        if (ret == 0 && has)
            n = find_fits(t, &t->runs[i], q2_clue_value(x->clue->kind, block, n_bytes),
                          n);
    }
    return ret < 0 || n == 0 ? ret : add_claims(t, table, n, err);
}

// Most of its index's clues fit, and no other table or index comes near.
static bool is_clear(const struct trial *t, const struct claim *c)
{
    if (c->n_fit * 2 < c->n_all)
        return false;
    for (size_t i = 0; i < t->n_claims; i++) {
        const struct claim *x = &t->claims[i];
        if (x != c && (x->table == c->table || x->index == c->index) &&
            x->n_fit * 4 > c->n_fit)
            return false;
    }
    return true;
}

static int settle(struct trial *t, struct q2_recovery *r, struct q2_error *err)
{
    int ret = 0;
    for (size_t i = 0; i < t->n_claims && ret == 0; i++) {
        const struct claim *c = &t->claims[i];
        struct q2_lost *x = &t->list[c->table];
        if (!q2_place_is_open(x) || !q2_work_is_open_index(t->w, c->index) ||
            !is_clear(t, c))
            continue;
        ret = q2_place_take(t->w, r, x, c->index,
                            c->n_values >= MIN_SURE ? Q2_PLACED_SURELY : Q2_PLACED_LIKELY,
                            err);
    }
    return ret;
}

int q2_place_by_clues(struct q2_work *w, struct q2_recovery *r, struct q2_lost *list,
                      size_t n, const struct q2_marks *m, struct q2_error *err)
{
    struct trial t = {.w = w, .list = list, .n = n};
    if (m->clues.n == 0)
        return 0;
    t.items = malloc(m->clues.n * sizeof(*t.items));
    t.runs = calloc(m->clues.n, sizeof(*t.runs));
    t.fits = malloc(m->clues.n * sizeof(*t.fits));
    uint8_t *block = malloc(Q2_CLUE_MAX_BLOCK);
    int ret = t.items && t.runs && t.fits && block
                  ? 0
                  : q2_fail_memory(err, m->clues.n * sizeof(*t.items));
    if (ret == 0) {
        take_items(&t, m);
        make_runs(&t);
    }
    for (size_t i = 0; i < n && ret == 0; i++) {
        if (q2_place_is_open(&list[i]))
            ret = try_table(&t, i, block, err);
    }
    if (ret == 0)
        ret = settle(&t, r, err);
    free(t.items);
    free(t.runs);
    free(t.fits);
    free(t.claims);
    free(block);
    return ret;
}
