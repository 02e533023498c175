// SPDX-License-Identifier: MIT
// Clusters that no L2 table leads to, and that nothing near them tells: where many files
// end as they should at one distance between file and disk, the clusters lie at that
// distance.
#include <stdlib.h>
#include <string.h>

#include "recover/orphans.h"

#define MAX_PAIRS ((size_t)1 << 21)
// So many more files that end there than do not.
#define MIN_SUM 3

// This file could end in this orphan.
struct pair {
    uint64_t shift; // from the orphan to where the file says
    size_t end, orphan;
};

struct search {
    struct q2_orphans *o;
    const struct q2_clues *ends; // by position
    uint32_t *by_value;          // numbers of these
    struct pair *pairs;
    size_t n, max;
};

static int by_shift(const void *a, const void *b)
{
    const struct pair *x = a, *y = b;
    if (x->shift != y->shift)
        return x->shift < y->shift ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static int by_value(const void *a, const void *b, void *opaque)
{
    const struct q2_clue *list = opaque;
    uint32_t x = list[*(const uint32_t *)a].value, y = list[*(const uint32_t *)b].value;
    return x < y ? -1 : x > y;
}

static int add_pair(struct search *s, const struct pair *pair, struct q2_error *err)
{
    if (s->n >= MAX_PAIRS)
        return 0;
    if (s->n == s->max) {
        size_t max = s->max ? s->max * 2 : 1024;
        struct pair *list = realloc(s->pairs, max * sizeof(*list));
        if (!list)
            return q2_fail_memory(err, max * sizeof(*list));
        s->pairs = list;
        s->max = max;
    }
    s->pairs[s->n++] = *pair;
    return 0;
}

// The files that could end in a block of that value, at of its cluster.
static int find_ends(struct search *s, size_t orphan, size_t at, uint32_t value,
                     struct q2_error *err)
{
    const struct q2_clue *list = s->ends->list;
    uint64_t cluster_size = q2_work_cluster_size(s->o->w);
    size_t low = 0, high = s->ends->n;
    int ret = 0;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (list[s->by_value[middle]].value < value)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < s->ends->n && q2_clue_fits(&list[s->by_value[low]], value) && ret == 0;
         low++) {
        const struct q2_clue *c = &list[s->by_value[low]];
        uint64_t guest = c->position / cluster_size;
        const struct pair pair = {guest - s->o->list[orphan].host, s->by_value[low],
                                  orphan};
        if (c->position % cluster_size == at && q2_orphans_is_open(s->o, guest))
            ret = add_pair(s, &pair, err);
    }
    return ret;
}

static int look_at(struct search *s, size_t orphan, struct q2_error *err)
{
    size_t n_bytes = (size_t)q2_work_cluster_size(s->o->w);
    size_t block_size = (size_t)1 << s->ends->list[0].block_bits;
    int ret = q2_io_read(s->o->w->io, s->o->list[orphan].host * n_bytes, s->o->cluster,
                         n_bytes, err);
    for (size_t at = 0; at + block_size <= n_bytes && ret == 0; at += block_size) {
        uint32_t value = q2_clue_value(Q2_CLUE_END, s->o->cluster + at, block_size);
        if (value > 0 && value < block_size)
            ret = find_ends(s, orphan, at, value, err);
    }
    return ret;
}

// Of the pairs of one distance those side by side for which most speaks: each file
// that ends as it should counts one, each between them that does not, one less.
static size_t best_part(const struct pair *list, size_t n, size_t *from)
{
    long sum = 0, best = MIN_SUM - 1;
    size_t start = 0, length = 0;
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            sum -= (long)(list[i].end - list[i - 1].end) - 1;
        if (i == 0 || sum < 0) {
            sum = 0;
            start = i;
        }
        sum++;
        if (sum > best) {
            best = sum;
            *from = start;
            length = i + 1 - start;
        }
    }
    return length;
}

static int settle(struct search *s, struct q2_error *err)
{
    int ret = 0;
    for (size_t i = 0, end; i < s->n && ret == 0; i = end) {
        size_t from = 0;
        for (end = i; end < s->n && s->pairs[end].shift == s->pairs[i].shift;)
            end++;
        size_t n = best_part(s->pairs + i, end - i, &from);
        for (size_t k = i + from; k < i + from + n && ret == 0; k++) {
            struct q2_orphan *x = &s->o->list[s->pairs[k].orphan];
            uint64_t guest = x->host + s->pairs[k].shift;
            if (x->guest == UINT64_MAX && q2_orphans_is_open(s->o, guest))
                ret = q2_orphans_put(s->o, s->pairs[k].orphan, guest, err);
        }
    }
    return ret;
}

int q2_orphans_by_ends(struct q2_orphans *o, const struct q2_clues *ends,
                       struct q2_error *err)
{
    struct search s = {.o = o, .ends = ends};
    if (ends->n == 0)
        return 0;
    s.by_value = malloc(ends->n * sizeof(*s.by_value));
    int ret = s.by_value ? 0 : q2_fail_memory(err, ends->n * sizeof(*s.by_value));
    for (size_t i = 0; i < ends->n && ret == 0; i++)
        s.by_value[i] = (uint32_t)i;
    if (ret == 0)
        qsort_r(s.by_value, ends->n, sizeof(*s.by_value), by_value, ends->list);
    for (size_t i = 0; i < o->n && ret == 0; i++) {
        if (o->list[i].guest == UINT64_MAX)
            ret = look_at(&s, i, err);
    }
    if (ret == 0 && s.n > 0)
        qsort(s.pairs, s.n, sizeof(*s.pairs), by_shift);
    if (ret == 0)
        ret = settle(&s, err);
    free(s.by_value);
    free(s.pairs);
    return ret;
}
