// SPDX-License-Identifier: MIT
// Which index the marks in an L2 table say. A file system that keeps two copies of
// something may have both at the same place of the range of a table: then of two tables
// each could be either, which does not matter if they hold the same.
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/search.h"
#include "recover/place.h"

#define MAX_INDEXES 32U
#define COMPARE_BYTES ((size_t)65536)

struct votes {
    uint64_t index[MAX_INDEXES];
    uint32_t n[MAX_INDEXES];
    size_t n_indexes;
};

struct poll {
    struct q2_work *w;
    struct q2_recovery *r;
    struct q2_lost *list;
    size_t n;
    const struct q2_marks *m;
    uint64_t span;
};

static bool is_open(const struct poll *p, uint64_t index)
{
    return index < Q2_MAX_L1_BYTES / 8 && q2_work_is_open_index(p->w, index);
}

// With more than there is room for, those with most votes stay.
static void count(struct votes *v, uint64_t index)
{
    size_t i = 0;
    while (i < v->n_indexes && v->index[i] != index)
        i++;
    if (i < v->n_indexes) {
        v->n[i]++;
    } else if (i < MAX_INDEXES) {
        v->index[v->n_indexes] = index;
        v->n[v->n_indexes++] = 1;
    } else {
        for (v->n_indexes = 0, i = 0; i < MAX_INDEXES; i++) {
            if (v->n[i] > 1) {
                v->index[v->n_indexes] = v->index[i];
                v->n[v->n_indexes++] = v->n[i] - 1;
            }
        }
    }
}

static bool find_index(const struct poll *p, const struct q2_mark *k, uint64_t position,
                       uint64_t *index)
{
    uint64_t at;
    if (!q2_marks_locate(p->m, k->volume, position, &at) || at % p->span != k->in_table)
        return false;
    *index = at / p->span;
    return true;
}

static void count_mark(const struct poll *p, const struct q2_mark *k, struct votes *v)
{
    uint64_t first = 0, second = 0;
    bool has = find_index(p, k, k->position, &first);
    bool has_other =
        k->other != k->position && find_index(p, k, k->other, &second) && first != second;
    // Of two copies one may have its table.
    if (has && has_other) {
        bool is_first_open = is_open(p, first), is_second_open = is_open(p, second);
        has = is_first_open || !is_second_open;
        has_other = is_second_open || !is_first_open;
    }
    if (has)
        count(v, first);
    if (has_other)
        count(v, second);
}

// The marks of table i; they are in the order of the tables.
static void poll_table(const struct poll *p, size_t table, struct votes *v)
{
    size_t low = q2_search_from(p->m->list, p->m->n, sizeof(*p->m->list),
                                offsetof(struct q2_mark, table), table);
    v->n_indexes = 0;
    for (; low < p->m->n && p->m->list[low].table == table; low++)
        count_mark(p, &p->m->list[low], v);
}

// The index with most votes, and another that has as many: the same if there is none.
static bool find_winner(const struct votes *v, uint64_t *index, uint64_t *other)
{
    uint32_t most = 0;
    for (size_t i = 0; i < v->n_indexes; i++) {
        if (v->n[i] > most) {
            most = v->n[i];
            *index = *other = v->index[i];
        } else if (v->n[i] == most) {
            *other = v->index[i];
        }
    }
    return most > 0;
}

static int put(const struct poll *p, size_t i, uint64_t index,
               enum q2_certainty certainty, struct q2_error *err)
{
    return q2_place_take(p->w, p->r, &p->list[i], index, certainty, err);
}

static int place_clear(const struct poll *p, struct q2_error *err)
{
    struct votes v;
    uint64_t index = 0, other = 0;
    int ret = 0;
    for (size_t i = 0; i < p->n && ret == 0; i++) {
        if (!q2_place_is_open(&p->list[i]))
            continue;
        poll_table(p, i, &v);
        if (find_winner(&v, &index, &other) && index == other && is_open(p, index))
            ret = put(p, i, index, Q2_PLACED_SURELY, err);
    }
    return ret;
}

int q2_place_are_alike(struct q2_work *w, uint64_t x, uint64_t y, bool *alike,
                       struct q2_error *err)
{
    uint64_t end = UINT64_C(1) << q2_work_span_bits(w), cluster = q2_work_cluster_size(w);
    size_t n = cluster < COMPARE_BYTES ? (size_t)cluster : COMPARE_BYTES;
    uint8_t *buf = malloc(2 * n);
    int ret = buf ? 0 : q2_fail_memory(err, 2 * n);
    *alike = true;
    for (uint64_t at = 0; at < end && *alike && ret == 0; at += n) {
        bool has = false, has_other = false;
        ret = q2_work_read_in_table(w, x, at, buf, n, &has, err);
        if (ret == 0)
            ret = q2_work_read_in_table(w, y, at, buf + n, n, &has_other, err);
        *alike = has == has_other && (!has || memcmp(buf, buf + n, n) == 0);
    }
    free(buf);
    return ret;
}

// A table that could be of either of two indexes.
struct twin {
    uint64_t low, high, offset;
    size_t i;
};

static int by_indexes(const void *a, const void *b)
{
    const struct twin *x = a, *y = b;
    if (x->low != y->low)
        return x->low < y->low ? -1 : 1;
    if (x->high != y->high)
        return x->high < y->high ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static size_t find_twins(const struct poll *p, struct twin *list)
{
    struct votes v;
    uint64_t x = 0, y = 0;
    size_t n = 0;
    for (size_t i = 0; i < p->n; i++) {
        if (!q2_place_is_open(&p->list[i]))
            continue;
        poll_table(p, i, &v);
        if (find_winner(&v, &x, &y) && x != y && is_open(p, x) && is_open(p, y))
            list[n++] = (struct twin){q2_min_u64(x, y), q2_max_u64(x, y),
                                      p->list[i].table->offset, i};
    }
    if (n > 0)
        qsort(list, n, sizeof(*list), by_indexes);
    return n;
}

// The first in the file comes first on the disk.
static int place_pair(const struct poll *p, const struct twin *pair, struct q2_error *err)
{
    bool alike;
    if (!is_open(p, pair->low) || !is_open(p, pair->high))
        return 0;
    int ret = q2_place_are_alike(p->w, pair[0].offset, pair[1].offset, &alike, err);
    enum q2_certainty how = alike ? Q2_PLACED_SURELY : Q2_PLACED_IN_ORDER;
    if (ret == 0)
        ret = put(p, pair[0].i, pair->low, how, err);
    return ret < 0 ? ret : put(p, pair[1].i, pair->high, how, err);
}

static int place_twins(const struct poll *p, struct q2_error *err)
{
    struct twin *list = malloc((p->n + 1) * sizeof(*list));
    if (!list)
        return q2_fail_memory(err, (p->n + 1) * sizeof(*list));
    size_t n = find_twins(p, list);
    int ret = 0;
    for (size_t i = 0, end; i < n && ret == 0; i = end) {
        for (end = i;
             end < n && list[end].low == list[i].low && list[end].high == list[i].high;)
            end++;
        if (end - i == 2)
            ret = place_pair(p, list + i, err);
    }
    free(list);
    return ret;
}

int q2_place_by_votes(struct q2_work *w, struct q2_recovery *r, struct q2_lost *list,
                      size_t n, const struct q2_marks *m, struct q2_error *err)
{
    struct poll p = {w, r, list, n, m, UINT64_C(1) << q2_work_span_bits(w)};
    size_t before = SIZE_MAX;
    int ret = 0;
    // What has a place makes others clear.
    for (unsigned i = 0; i < 8 && before != r->n_placed && ret == 0; i++) {
        before = r->n_placed;
        ret = place_clear(&p, err);
    }
    return ret < 0 ? ret : place_twins(&p, err);
}
