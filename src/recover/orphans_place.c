// SPDX-License-Identifier: MIT
// Clusters that no L2 table leads to: where they belong. Some say it themselves; those
// between two that lie at the same distance in the file and on the disk lie so, too.
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "check/scan.h"
#include "recover/orphans.h"

#define MAX_FILE_SYSTEMS 8U
#define MAX_ROUNDS 8U

struct systems {
    struct q2_ext list[MAX_FILE_SYSTEMS];
    size_t n;
};

static int open_systems(struct q2_work *w, const struct q2_marks *m, struct systems *s,
                        struct q2_error *err)
{
    int ret = 0;
    s->n = 0;
    for (size_t v = 1; v < m->n_volumes && s->n < MAX_FILE_SYSTEMS && ret == 0; v++) {
        bool ok = false;
        if (m->volumes[v].placed && m->volumes[v].is_ext)
            ret = q2_ext_open(w, m, v, &s->list[s->n], &ok, err);
        if (ret == 0 && ok)
            ret = q2_ext_list_bitmaps(&s->list[s->n], err);
        s->n += ok;
    }
    return ret;
}

void q2_orphans_vote(const struct q2_orphans *o, struct q2_orphan *x, uint64_t at,
                     uint64_t in_cluster)
{
    uint64_t cluster_size = q2_work_cluster_size(o->w);
    uint64_t guest = at / cluster_size;
    if (at % cluster_size != in_cluster || !q2_orphans_is_open(o, guest))
        return;
    // The majority.
    if (x->votes == 0)
        x->guest = guest;
    x->votes = x->guest == guest ? x->votes + 1 : x->votes - 1;
}

// What a cluster says of its place. The marks see it as one that is not the disk's first.
static int ask(struct q2_orphans *o, struct q2_orphan *x, struct q2_marks *m,
               const struct systems *s, struct q2_error *err)
{
    size_t n_bytes = (size_t)q2_work_cluster_size(o->w);
    int ret = q2_io_read(o->w->io, x->host * n_bytes, o->cluster, n_bytes, err);
    m->n = 0;
    if (ret == 0)
        ret = q2_marks_look(m, 0, n_bytes, o->cluster, n_bytes, err);
    for (size_t i = 0; i < m->n && ret == 0; i++) {
        const struct q2_mark *k = &m->list[i];
        uint64_t at;
        bool has = q2_marks_locate(m, k->volume, k->position, &at);
        if (has && !q2_orphans_is_open(o, at / n_bytes))
            has = q2_marks_locate(m, k->volume, k->other, &at);
        if (has)
            q2_orphans_vote(o, x, at, k->in_table - n_bytes);
    }
    for (size_t i = 0; i < s->n && ret == 0; i++) {
        const struct q2_ext *fs = &s->list[i];
        for (size_t at = 0; at + fs->block_size <= n_bytes; at += fs->block_size) {
            uint64_t place = q2_ext_find_inodes(fs, o->cluster + at);
            if (place == 0)
                place = q2_ext_find_bitmap_like(fs, o->cluster + at);
            if (place > 0)
                q2_orphans_vote(o, x, place, at);
        }
    }
    if (x->votes == 0)
        x->guest = UINT64_MAX;
    return ret;
}

static uint64_t shift_of(const struct q2_orphan *x)
{
    return x->guest - x->host; // modulo 2^64
}

// Of those that claim one place the one with the most votes, and of such the one whose
// neighbours lie at the same distance.
static int drop_rivals(struct q2_orphans *o, struct q2_error *err)
{
    const struct q2_orphan *last = NULL;
    int ret = 0;
    for (size_t i = 0; i < o->n; i++) {
        struct q2_orphan *x = &o->list[i];
        if (x->votes == 0)
            continue;
        if (last && shift_of(last) == shift_of(x))
            x->votes += last->votes; // of the run so far
        last = x;
    }
    // The votes of a run's end go to all of it.
    struct q2_orphan *next = NULL;
    for (size_t i = o->n; i-- > 0;) {
        struct q2_orphan *x = &o->list[i];
        if (x->votes == 0)
            continue;
        if (next && shift_of(next) == shift_of(x))
            x->votes = next->votes;
        next = x;
    }
    for (size_t i = 0; i < o->n && ret == 0; i++) {
        struct q2_orphan *x = &o->list[i];
        uint64_t best = x->votes ? q2_counters_get(o->taken, x->guest) : 0;
        if (x->votes > best)
            ret = q2_counters_add(o->taken, x->guest, 1, x->votes - best, err);
    }
    for (size_t i = 0; i < o->n; i++) {
        struct q2_orphan *x = &o->list[i];
        if (x->votes > 0 && x->votes < q2_counters_get(o->taken, x->guest)) {
            x->votes = 0;
            x->guest = UINT64_MAX;
        }
    }
    return ret;
}

// Those between two of the same distance.
static int fill_runs(struct q2_orphans *o, struct q2_error *err)
{
    const struct q2_orphan *last = NULL;
    int ret = 0;
    for (size_t i = 0, from = 0; i < o->n && ret == 0; i++) {
        const struct q2_orphan *x = &o->list[i];
        if (x->guest == UINT64_MAX)
            continue;
        for (size_t k = from; last && shift_of(last) == shift_of(x) && k < i && ret == 0;
             k++) {
            uint64_t guest = o->list[k].host + shift_of(x);
            if (q2_orphans_is_open(o, guest))
                ret = q2_orphans_put(o, k, guest, err);
        }
        last = x;
        from = i + 1;
    }
    return ret;
}

static int compare(const void *a, const void *b)
{
    const struct q2_orphan *x = a, *y = b;
    return x->guest < y->guest ? -1 : x->guest > y->guest;
}

// A table of n clusters, in the order of the disk, behind the file.
static int write_table(struct q2_work *w, uint64_t index, const struct q2_orphan *list,
                       size_t n, struct q2_error *err)
{
    unsigned bits = w->found.layout.cluster_bits;
    size_t n_entries = q2_layout_entries(&w->found.layout);
    int ret = 0;
    if (q2_work_is_open_index(w, index)) {
        ret = q2_work_set_l1(w, index, w->end, err);
        w->end += q2_work_cluster_size(w);
    }
    if (ret < 0)
        return ret;
    memset(w->table, 0, (size_t)q2_work_cluster_size(w));
    for (size_t i = 0; i < n; i++)
        w->table[list[i].guest % n_entries] = list[i].host << bits | Q2_FLAG_COPIED;
    q2_table_encode(w->table, w->table, n_entries);
    return q2_io_write(w->io, w->l1[index] & Q2_OFFSET_MASK, w->table,
                       (size_t)q2_work_cluster_size(w), err);
}

static int write_tables(struct q2_orphans *o, struct q2_recovery *r, struct q2_error *err)
{
    size_t n_entries = q2_layout_entries(&o->w->found.layout), n = 0, max = 0;
    struct q2_orphan *list = malloc((o->n + 1) * sizeof(*list));
    int ret = list ? 0 : q2_fail_memory(err, (o->n + 1) * sizeof(*list));
    for (size_t i = 0; i < o->n && ret == 0; i++) {
        if (o->list[i].guest != UINT64_MAX)
            list[n++] = o->list[i];
    }
    if (ret == 0 && n > 0)
        qsort(list, n, sizeof(*list), compare);
    free(r->remade);
    r->remade = NULL;
    r->n_remade = 0;
    o->n_placed = n;
    for (size_t i = 0, end; i < n && ret == 0; i = end) {
        uint64_t index = list[i].guest / n_entries;
        void *remade = r->remade;
        for (end = i; end < n && list[end].guest / n_entries == index;)
            end++;
        ret = q2_scan_grow(&remade, &max, r->n_remade, sizeof(*r->remade), err);
        r->remade = remade;
        if (ret < 0)
            break;
        r->remade[r->n_remade++] = (struct q2_remade_table){index, end - i};
        ret = write_table(o->w, index, list + i, end - i, err);
    }
    free(list);
    return ret;
}

static int place_all(struct q2_orphans *o, struct q2_recovery *r, struct q2_marks *m,
                     const struct systems *s, struct q2_error *err)
{
    size_t before = SIZE_MAX;
    int ret = 0;
    for (size_t i = 0; i < o->n && ret == 0; i++)
        ret = ask(o, &o->list[i], m, s, err);
    if (ret == 0)
        ret = q2_orphans_by_sums(o, m, err);
    if (ret == 0)
        ret = drop_rivals(o, err);
    // What has a place lets more of the file systems be read.
    for (unsigned i = 0; i < MAX_ROUNDS && ret == 0 && (i < 2 || before != o->n_placed);
         i++) {
        before = o->n_placed;
        for (size_t k = 0; k < s->n && i > 0 && ret == 0; k++)
            ret = q2_orphans_by_ext(o, &s->list[k], err);
        if (ret == 0)
            ret = fill_runs(o, err);
        if (ret == 0)
            ret = write_tables(o, r, err);
    }
    return ret;
}

int q2_orphans_place(struct q2_work *w, struct q2_recovery *r, struct q2_marks *m,
                     struct q2_error *err)
{
    struct q2_orphans o;
    struct systems s;
    // Compressed clusters do not begin where clusters do; subclusters that are stored
    // are told by the table alone; an external data file has nothing that is lost.
    if (w->found.layout.has_compressed || w->found.layout.extended ||
        w->found.layout.data_size > 0)
        return 0;
    int ret = q2_orphans_collect(w, &o, err);
    if (ret < 0)
        return ret;
    if (o.n > 0) {
        ret = open_systems(w, m, &s, err);
        if (ret == 0)
            ret = place_all(&o, r, m, &s, err);
        for (size_t i = 0; i < s.n; i++)
            q2_ext_clear(&s.list[i]);
    }
    q2_orphans_clear(&o);
    return ret;
}
