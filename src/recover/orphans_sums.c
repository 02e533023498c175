// SPDX-License-Identifier: MIT
// Clusters that no L2 table leads to, of a file system that has checksums of its data:
// where a block is that no other has the checksum of, that one says its place.
#include <stddef.h>
#include <stdlib.h>

#include "base/search.h"
#include "recover/orphans.h"

struct sum {
    uint64_t value, at; // at: on the disk
};

struct sums {
    struct sum *list; // by value; none twice
    size_t n;
    size_t block_bytes;
};

static int by_value(const void *a, const void *b)
{
    const struct sum *x = a, *y = b;
    if (x->value != y->value)
        return x->value < y->value ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

static int take_sums(struct sums *s, const struct q2_marks *m, struct q2_error *err)
{
    size_t n = 0;
    *s = (struct sums){.list = malloc((m->clues.n + 1) * sizeof(*s->list))};
    if (!s->list)
        return q2_fail_memory(err, m->clues.n * sizeof(*s->list));
    for (size_t i = 0; i < m->clues.n; i++) {
        const struct q2_clue *c = &m->clues.list[i];
        uint64_t at;
        if (c->kind != Q2_CLUE_SUM || !q2_marks_locate(m, c->volume, c->position, &at))
            continue;
        s->block_bytes = (size_t)1 << c->block_bits;
        s->list[s->n++] = (struct sum){c->value, at};
    }
    if (s->n > 0)
        qsort(s->list, s->n, sizeof(*s->list), by_value);
    for (size_t i = 0; i < s->n; i++) {
        if (i == 0 || by_value(&s->list[i], &s->list[i - 1]) != 0)
            s->list[n++] = s->list[i];
    }
    s->n = n;
    return 0;
}

// The only place that has this block. UINT64_MAX: none has, or several have.
static uint64_t find(const struct sums *s, const uint8_t *block)
{
    uint32_t value = q2_clue_value(Q2_CLUE_SUM, block, s->block_bytes);
    size_t i = q2_search_from(s->list, s->n, sizeof(*s->list),
                              offsetof(struct sum, value), value);
    bool unique = i < s->n && s->list[i].value == value &&
                  (i + 1 == s->n || s->list[i + 1].value != value);
    return unique ? s->list[i].at : UINT64_MAX;
}

static int ask(struct q2_orphans *o, struct q2_orphan *x, const struct sums *s,
               struct q2_error *err)
{
    size_t n_bytes = (size_t)q2_work_cluster_size(o->w);
    int ret = q2_io_read(o->w->io, x->host * n_bytes, o->cluster, n_bytes, err);
    for (size_t at = 0; at + s->block_bytes <= n_bytes && ret == 0;
         at += s->block_bytes) {
        uint64_t place = find(s, o->cluster + at);
        if (place != UINT64_MAX)
            q2_orphans_vote(o, x, place, at);
    }
    return ret;
}

int q2_orphans_by_sums(struct q2_orphans *o, const struct q2_marks *m,
                       struct q2_error *err)
{
    struct sums s;
    int ret = take_sums(&s, m, err);
    for (size_t i = 0; i < o->n && s.n > 0 && ret == 0; i++) {
        if (o->list[i].votes == 0)
            ret = ask(o, &o->list[i], &s, err);
        if (o->list[i].votes == 0)
            o->list[i].guest = UINT64_MAX;
    }
    free(s.list);
    return ret;
}
