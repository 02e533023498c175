// SPDX-License-Identifier: MIT
// L2 tables that fit to the ranges of several indexes: programs that write a disk from
// its start to its end allocate tables in this order, so that those between two that have
// places go where they fit best together.
#include <stdlib.h>

#include "recover/uses.h"

// So many pairs of a table and an index are weighed at a time.
#define MAX_CELLS ((size_t)1 << 22)
#define NOWHERE UINT32_MAX
// What the range of an index has and the table does not weighs more than the other way
// round: files were deleted. Between tables that lie as if they were written in one go
// there is nothing, most likely.
#define WEIGHT_MISSING 2U
#define WEIGHT_GAP 64U

// Tables side by side in the file, and the indexes that they could have.
struct group {
    size_t *tables;
    size_t n;
    size_t first, n_indexes; // of those of the uses
    uint32_t *cost; // of the tables up to one, which has this index; a row for each
    bool *follows;  // each the one before it, as if they were written in one go
};

static uint32_t weigh(const struct q2_uses *u, size_t i, size_t k)
{
    const struct q2_fit *f = q2_uses_fit(u, i, k);
    return f->known ? f->missing * WEIGHT_MISSING + f->surplus : 0;
}

static uint32_t add(uint32_t x, uint32_t y)
{
    return x > NOWHERE - y ? NOWHERE : x + y;
}

// Does the second lie directly behind what the first leads to, and what both have reach
// to the ends of their ranges?
static int is_next(struct q2_work *w, uint64_t first, uint64_t second, bool *yes,
                   struct q2_error *err)
{
    const struct q2_layout *l = &w->found.layout;
    uint64_t cluster_size = q2_work_cluster_size(w);
    int ret = q2_work_read(w, first, err);
    struct q2_reading last =
        q2_layout_judge(l, w->survey.file_size, w->table, q2_layout_entries(l) - 1);
    if (ret == 0)
        ret = q2_work_read(w, second, err);
    struct q2_reading begin = q2_layout_judge(l, w->survey.file_size, w->table, 0);
    *yes = ret == 0 && last.kind == Q2_READS_PLACE && begin.kind == Q2_READS_PLACE &&
           last.offset + cluster_size == second && begin.offset == second + cluster_size;
    return ret;
}

static bool is_near(const struct q2_uses *u, const struct group *g, size_t k)
{
    return k > 0 && u->indexes[g->first + k - 1] + 1 == u->indexes[g->first + k];
}

static void fill(const struct q2_uses *u, struct group *g)
{
    for (size_t t = 0; t < g->n; t++) {
        uint32_t *row = g->cost + t * g->n_indexes, best = NOWHERE;
        const uint32_t *before = row - (t > 0 ? g->n_indexes : 0);
        uint32_t gap = g->follows[t] ? WEIGHT_GAP : 0;
        for (size_t k = 0; k < g->n_indexes; k++) {
            uint32_t cost = t == 0 ? 0 : add(best, gap);
            if (t > 0 && is_near(u, g, k) && before[k - 1] < cost)
                cost = before[k - 1];
            if (t > 0 && before[k] < best)
                best = before[k];
            row[k] = add(cost, weigh(u, g->tables[t], g->first + k));
        }
    }
}

// Of the indexes below end the one at which the table does best, the last of several.
// gap: the weight of any but the one before end.
static size_t best_below(const struct q2_uses *u, const struct group *g, size_t t,
                         size_t end, uint32_t gap)
{
    const uint32_t *row = g->cost + t * g->n_indexes;
    uint32_t best = NOWHERE;
    size_t choice = SIZE_MAX;
    for (size_t k = end; k-- > 0;) {
        bool near = k + 1 == end && end < g->n_indexes && is_near(u, g, end);
        uint32_t cost = near ? row[k] : add(row[k], gap);
        if (cost < best) {
            best = cost;
            choice = k;
        }
    }
    return choice;
}

static int take_best(const struct q2_uses *u, struct q2_recovery *r,
                     const struct group *g, struct q2_error *err)
{
    size_t end = g->n_indexes;
    int ret = 0;
    for (size_t t = g->n; t-- > 0 && ret == 0;) {
        uint32_t gap = t + 1 < g->n && g->follows[t + 1] ? WEIGHT_GAP : 0;
        end = best_below(u, g, t, end, gap);
        if (end == SIZE_MAX)
            return 0;
        ret = q2_place_take(u->fs->w, r, &u->list[g->tables[t]],
                            u->indexes[g->first + end], Q2_PLACED_IN_ORDER, err);
    }
    return ret;
}

// As many tables as indexes, which none of those in use has to be: there is but one way.
static int take_all(const struct q2_uses *u, struct q2_recovery *r, const struct group *g,
                    uint64_t from, struct q2_error *err)
{
    int ret = 0;
    for (size_t t = 0; t < g->n && ret == 0; t++)
        ret = q2_place_take(u->fs->w, r, &u->list[g->tables[t]], from + t,
                            Q2_PLACED_LIKELY, err);
    return ret;
}

static bool are_open(const struct q2_work *w, uint64_t from, uint64_t to)
{
    while (from < to && q2_work_is_open_index(w, from))
        from++;
    return from == to;
}

static int align(const struct q2_uses *u, struct q2_recovery *r, struct group *g,
                 struct q2_error *err)
{
    int ret = 0;
    if (g->n_indexes < g->n || g->n > MAX_CELLS / g->n_indexes)
        return 0;
    g->cost = malloc(g->n * g->n_indexes * sizeof(*g->cost));
    g->follows = calloc(g->n, sizeof(*g->follows));
    if (!g->cost || !g->follows)
        ret = q2_fail_memory(err, g->n * g->n_indexes * sizeof(*g->cost));
    for (size_t t = 1; t < g->n && ret == 0; t++)
        ret = is_next(u->fs->w, u->list[g->tables[t - 1]].table->offset,
                      u->list[g->tables[t]].table->offset, &g->follows[t], err);
    if (ret == 0) {
        fill(u, g);
        ret = take_best(u, r, g, err);
    }
    free(g->cost);
    free(g->follows);
    return ret;
}

// The open tables of a part of the list, between those two indexes (from included).
static int place_group(const struct q2_uses *u, struct q2_recovery *r, size_t i,
                       size_t end, uint64_t from, uint64_t to, struct q2_error *err)
{
    struct group g = {.tables = malloc((end - i + 1) * sizeof(*g.tables))};
    int ret = g.tables ? 0 : q2_fail_memory(err, (end - i + 1) * sizeof(*g.tables));
    for (; i < end && ret == 0; i++) {
        if (q2_place_is_open(&u->list[i]))
            g.tables[g.n++] = i;
    }
    while (g.first < u->n_indexes && u->indexes[g.first] < from)
        g.first++;
    while (g.first + g.n_indexes < u->n_indexes && u->indexes[g.first + g.n_indexes] < to)
        g.n_indexes++;
    if (ret == 0 && g.n > 0 && to - from == g.n && are_open(u->fs->w, from, to))
        ret = take_all(u, r, &g, from, err);
    else if (ret == 0 && g.n > 0)
        ret = align(u, r, &g, err);
    free(g.tables);
    return ret;
}

int q2_place_aligned(const struct q2_uses *u, struct q2_recovery *r, struct q2_error *err)
{
    uint64_t from = 0;
    size_t first = 0;
    int ret = 0;
    if (!q2_place_is_ordered(u->list, u->n))
        return 0;
    for (size_t i = 0; i <= u->n && ret == 0; i++) {
        uint64_t to = i < u->n ? u->list[i].index : UINT64_MAX;
        if (i < u->n && (to == UINT64_MAX || to < from))
            continue;
        ret = place_group(u, r, first, i, from, to, err);
        from = to + 1;
        first = i + 1;
    }
    return ret;
}
