// SPDX-License-Identifier: MIT
// L2 tables that no L1 table names: which of them are old copies; and where the others
// belong, when the L1 table is lost.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "disk/snapshot.h"
#include "recover/place.h"

// What is known of a host cluster by the tables that have a place: 1 + the index of its
// L2 table in the L1 table. A host cluster belongs to one place of the disk, in all
// states.
struct known {
    struct q2_counters *index;
};

static int learn(struct q2_work *w, uint64_t table, uint64_t index, struct known *k,
                 struct q2_error *err)
{
    const struct q2_layout *l = &w->found.layout;
    int ret = q2_work_read(w, table, err);
    for (size_t i = 0; i < q2_layout_entries(l) && ret == 0; i++) {
        struct q2_reading r = q2_layout_judge(l, w->survey.file_size, w->table, i);
        uint64_t cluster = r.offset >> l->cluster_bits;
        if ((r.kind == Q2_READS_PLACE || r.kind == Q2_READS_PACKED) &&
            q2_counters_get(k->index, cluster) == 0)
            ret = q2_counters_add(k->index, cluster, 1, index + 1, err);
    }
    return ret;
}

static int learn_l1(struct q2_work *w, const uint64_t *l1, uint64_t n, struct known *k,
                    struct q2_error *err)
{
    int ret = 0;
    for (uint64_t i = 0; i < n && ret == 0; i++) {
        const struct q2_found_table *t = q2_found_at(&w->found, l1[i] & Q2_OFFSET_MASK);
        if (t && !t->is_l1)
            ret = learn(w, t->offset, i, k, err);
    }
    return ret;
}

// The L1 table of a snapshot. The caller frees *l1.
static int load_snapshot(struct q2_work *w, const struct q2_snapshot *sn, uint64_t **l1,
                         struct q2_error *err)
{
    size_t n_bytes = (size_t)sn->l1_size * 8;
    *l1 = malloc(n_bytes);
    int ret = *l1 ? q2_io_read(w->io, sn->l1_table_offset, *l1, n_bytes, err)
                  : q2_fail_memory(err, n_bytes);
    if (ret == 0)
        q2_table_decode(*l1, *l1, sn->l1_size);
    return ret;
}

static int learn_all(struct q2_work *w, struct known *k, struct q2_error *err)
{
    int ret = learn_l1(w, w->l1, w->n_l1, k, err);
    for (unsigned i = 0; i < w->n_snapshots && ret == 0; i++) {
        uint64_t *l1;
        ret = load_snapshot(w, &w->snapshots[i], &l1, err);
        if (ret == 0)
            ret = learn_l1(w, l1, w->snapshots[i].l1_size, k, err);
        free(l1);
    }
    return ret;
}

// The index that most of its clusters have elsewhere. *n: how many of *n_all.
static int vote(struct q2_work *w, struct q2_lost *x, const struct known *k, size_t *n,
                size_t *n_all, struct q2_error *err)
{
    const struct q2_layout *l = &w->found.layout;
    uint64_t best = 0;
    int ret = q2_work_read(w, x->table->offset, err);
    *n = *n_all = 0;
    for (size_t i = 0; i < q2_layout_entries(l) && ret == 0; i++) {
        struct q2_reading r = q2_layout_judge(l, w->survey.file_size, w->table, i);
        if (r.kind != Q2_READS_PLACE && r.kind != Q2_READS_PACKED)
            continue;
        uint64_t index = q2_counters_get(k->index, r.offset >> l->cluster_bits);
        (*n_all)++;
        if (index == 0)
            continue;
        // The majority, if there is one.
        if (*n == 0)
            best = index;
        *n = best == index ? *n + 1 : *n - 1;
    }
    x->index = *n > 0 ? best - 1 : UINT64_MAX;
    return ret;
}

static int collect(struct q2_work *w, struct q2_lost **list, size_t *n,
                   struct q2_error *err)
{
    struct q2_found *f = &w->found;
    int ret = 0;
    *n = 0;
    *list = calloc(f->n + 1, sizeof(**list));
    if (!*list)
        return q2_fail_memory(err, (f->n + 1) * sizeof(**list));
    for (size_t i = 0; i < f->n && ret == 0; i++) {
        struct q2_found_table *t = &f->list[i];
        uint64_t count;
        if (t->linked || t->is_l1 || t->counts)
            continue;
        ret = q2_work_refcount(w, t->offset, &count, err);
        t->stale |= count == 0 && !w->l1_gone;
        (*list)[(*n)++] =
            (struct q2_lost){t, UINT64_MAX, count > 0 && count != UINT64_MAX};
    }
    return ret;
}

// Tables that are in use by their refcounts first, then in the order of the file.
static int by_use(const void *a, const void *b)
{
    const struct q2_lost *x = a, *y = b;
    if (x->in_use != y->in_use)
        return x->in_use ? -1 : 1;
    return x->table->offset < y->table->offset ? -1 : 1;
}

static int by_place(const void *a, const void *b)
{
    const struct q2_lost *x = a, *y = b;
    return x->table->offset < y->table->offset ? -1 : 1;
}

static int by_index(const void *a, const void *b)
{
    const struct q2_placed_table *x = a, *y = b;
    return x->index < y->index ? -1 : x->index > y->index;
}

// An L2 table that was made when the guest wrote to a shared one has clusters in common
// with that one, at the same places.
static int place_kin(struct q2_work *w, struct q2_recovery *r, struct q2_lost *list,
                     size_t n, struct known *k, struct q2_error *err)
{
    struct q2_counters *taken = q2_counters_new_scattered();
    int ret = taken ? 0 : q2_fail_memory(err, sizeof(*list));
    qsort(list, n, sizeof(*list), by_use);
    for (size_t i = 0; i < n && ret == 0; i++) {
        struct q2_lost *x = &list[i];
        size_t n_known, n_all;
        ret = vote(w, x, k, &n_known, &n_all, err);
        if (ret < 0 || x->index == UINT64_MAX)
            continue;
        // A second one is an older copy; one that shares nearly all without being in use
        // as well.
        x->table->stale = q2_counters_get(taken, x->index) > 0 ||
                          !q2_work_is_lost(w, x->index) ||
                          (w->n_snapshots == 0 && n_known * 2 > n_all);
        if (x->table->stale)
            continue;
        ret = q2_place_put(w, r, x->index, x->table->offset, Q2_PLACED_SURELY, err);
        if (ret == 0)
            ret = q2_counters_add(taken, x->index, 1, 1, err);
        if (ret == 0)
            ret = learn(w, x->table->offset, x->index, k, err);
    }
    q2_counters_free(taken);
    return ret;
}

// Those that are in use have been seen first: of two that share most of their clusters,
// the other one is old.
static int drop_stale(struct q2_work *w, struct q2_lost *list, size_t n, struct known *k,
                      struct q2_error *err)
{
    int ret = 0;
    for (size_t i = 0; i < n && ret == 0; i++) {
        size_t n_known, n_all;
        if (list[i].index != UINT64_MAX || list[i].table->stale)
            continue;
        ret = vote(w, &list[i], k, &n_known, &n_all, err);
        list[i].table->stale = n_known * 2 > n_all;
        list[i].index = UINT64_MAX;
        if (ret == 0 && !list[i].table->stale)
            ret = learn(w, list[i].table->offset, i, k, err);
    }
    return ret;
}

// Entries that the disk has, if the user says so, a header that is right otherwise, or a
// mark in its data.
static uint64_t end_of_disk(const struct q2_work *w)
{
    const struct q2_hints *h = &w->hints;
    uint64_t size = w->options->size, span = UINT64_C(1) << q2_work_span_bits(w);
    bool same_size = h->has_magic && h->has_cluster_bits &&
                     h->cluster_bits == w->found.layout.cluster_bits;
    // Two fields that say the same are right, too.
    if (size == 0 && h->has_size &&
        (same_size || q2_div_round_up(h->size, span) == h->l1_size))
        size = h->size;
    if (size == 0)
        size = w->disk_size;
    uint64_t n = q2_div_round_up(size, span);
    return size > 0 ? q2_min_u64(n, Q2_MAX_L1_BYTES / 8) : Q2_MAX_L1_BYTES / 8;
}

// UINT64_MAX: there is none.
static uint64_t next_gap(const struct q2_work *w, uint64_t index)
{
    uint64_t end =
        w->l1_gone ? end_of_disk(w) : w->n_l1_lost * (q2_work_cluster_size(w) / 8);
    while (index < end && !q2_work_is_open_index(w, index))
        index++;
    return index < end ? index : UINT64_MAX;
}

// Are there exactly n gaps from index on, before the next table that has a place, which
// is the one at offset?
static bool fills_gaps(const struct q2_work *w, uint64_t index, size_t n, uint64_t offset)
{
    for (size_t i = 0; i < n; i++, index++) {
        if (!q2_work_is_open_index(w, index))
            return false;
    }
    return index < w->n_l1 && (w->l1[index] & Q2_OFFSET_MASK) == offset;
}

// The tables that are left between two that have a place, in the order of the file.
static int place_group(struct q2_work *w, struct q2_recovery *r, struct q2_lost *list,
                       size_t n, uint64_t *index, uint64_t next, struct q2_error *err)
{
    bool alone = r->n_placed == 0 && w->n_l1 == 0 && n == 1 && next == 0;
    bool between = next != 0 && fills_gaps(w, *index, n, next);
    int ret = 0;
    for (size_t i = 0; i < n && ret == 0; i++) {
        *index = next_gap(w, *index);
        if (*index == UINT64_MAX)
            *index = next_gap(w, 0);
        if (*index == UINT64_MAX)
            return 0; // left over
        list[i].index = *index;
        ret = q2_place_put(w, r, *index, list[i].table->offset,
                           alone || between ? Q2_PLACED_LIKELY : Q2_PLACED_IN_ORDER, err);
    }
    return ret;
}

// Nothing is guessed of what may be no L2 table: takes these out of the list.
static int drop_doubtful(struct q2_work *w, struct q2_lost *list, size_t *n,
                         struct q2_error *err)
{
    size_t kept = 0;
    int ret = 0;
    for (size_t i = 0; i < *n && ret == 0; i++) {
        bool doubtful = false;
        if (q2_place_is_open(&list[i]))
            ret = q2_work_is_doubtful(w, list[i].table, &doubtful, err);
        if (!doubtful)
            list[kept++] = list[i];
    }
    *n = kept;
    return ret;
}

// What is left, behind the table that lies before it in the file: programs that write a
// disk from its start to its end allocate tables in this order.
static int place_in_order(struct q2_work *w, struct q2_recovery *r, struct q2_lost *list,
                          size_t n, struct q2_error *err)
{
    uint64_t index = 0;
    int ret = 0;
    qsort(list, n, sizeof(*list), by_place);
    bool ordered = q2_place_is_ordered(list, n);
    for (size_t i = 0; i < n && ret == 0;) {
        if (list[i].table->stale) {
            i++;
            continue;
        }
        if (list[i].index != UINT64_MAX) {
            index = list[i++].index + 1;
            continue;
        }
        // Those that are left, side by side, to the front.
        size_t end = i, n_group = 0;
        for (; end < n && (list[end].table->stale || list[end].index == UINT64_MAX);
             end++) {
            if (!list[end].table->stale) {
                struct q2_lost x = list[i + n_group];
                list[i + n_group++] = list[end];
                list[end] = x;
            }
        }
        uint64_t next = ordered && end < n ? list[end].table->offset : 0;
        ret = place_group(w, r, list + i, n_group, &index, next, err);
        i = end;
    }
    return ret;
}

// What the last snapshot had is what the disk has, where nothing newer is found.
static int begin_with_snapshot(struct q2_work *w, struct q2_error *err)
{
    if (w->n_snapshots == 0)
        return 0;
    const struct q2_snapshot *sn = &w->snapshots[w->n_snapshots - 1];
    uint64_t *l1;
    int ret = load_snapshot(w, sn, &l1, err);
    if (ret == 0)
        ret = q2_work_grow_l1(w, sn->l1_size, err);
    for (uint64_t i = 0; i < sn->l1_size && ret == 0; i++) {
        if (q2_work_is_lost(w, i))
            w->l1[i] = l1[i] & Q2_OFFSET_MASK;
    }
    while (w->n_l1 > 0 && w->l1[w->n_l1 - 1] == 0)
        w->n_l1--;
    free(l1);
    return ret;
}

// With an external data file, the offsets in a table say where it belongs. Of two for the
// same place the one with more entries is taken.
static int place_by_offset(struct q2_work *w, struct q2_recovery *r,
                           const struct q2_lost *x, struct q2_error *err)
{
    const struct q2_layout *l = &w->found.layout;
    size_t i = 0, n = q2_layout_entries(l);
    struct q2_reading e = {.kind = Q2_READS_EMPTY};
    int ret = q2_work_read(w, x->table->offset, err);
    for (; i < n && e.kind != Q2_READS_PLACE && ret == 0; i++)
        e = q2_layout_judge(l, w->survey.file_size, w->table, i);
    if (ret < 0 || e.kind != Q2_READS_PLACE)
        return ret;
    uint64_t index = e.offset >> q2_work_span_bits(w);
    const struct q2_found_table *other =
        index < w->n_l1 ? q2_found_at(&w->found, w->l1[index]) : NULL;
    x->table->stale = other && other->n_used >= x->table->n_used;
    return x->table->stale
               ? 0
               : q2_place_put(w, r, index, x->table->offset, Q2_PLACED_SURELY, err);
}

static int place_by_offsets(struct q2_work *w, struct q2_recovery *r,
                            const struct q2_lost *list, size_t n, struct q2_error *err)
{
    int ret = 0;
    for (size_t i = 0; i < n && ret == 0; i++)
        ret = place_by_offset(w, r, &list[i], err);
    return ret;
}

static int place(struct q2_work *w, struct q2_recovery *r, struct q2_lost *list, size_t n,
                 struct q2_error *err)
{
    struct known k = {q2_counters_new()};
    int ret = k.index ? 0 : q2_fail_memory(err, sizeof(k));
    r->placed = calloc(n + 1, sizeof(*r->placed));
    if (ret == 0 && !r->placed)
        ret = q2_fail_memory(err, (n + 1) * sizeof(*r->placed));
    if (ret == 0 && w->found.layout.data_size > 0) {
        q2_counters_free(k.index);
        return place_by_offsets(w, r, list, n, err);
    }
    if (ret == 0 && q2_work_has_lost(w))
        ret = begin_with_snapshot(w, err);
    if (ret == 0 && q2_work_has_lost(w))
        ret = q2_place_drop_data(w, err);
    if (ret == 0)
        ret = learn_all(w, &k, err);
    if (ret == 0)
        ret = place_kin(w, r, list, n, &k, err);
    if (ret == 0 && q2_work_has_lost(w))
        ret = drop_stale(w, list, n, &k, err);
    if (ret == 0 && q2_work_has_lost(w))
        ret = q2_place_marked(w, r, list, n, err);
    if (ret == 0 && q2_work_has_lost(w))
        ret = drop_doubtful(w, list, &n, err);
    if (ret == 0 && q2_work_has_lost(w))
        ret = place_in_order(w, r, list, n, err);
    if (ret == 0)
        qsort(r->placed, r->n_placed, sizeof(*r->placed), by_index);
    q2_counters_free(k.index);
    return ret;
}

int q2_work_place(struct q2_work *w, struct q2_recovery *r, struct q2_error *err)
{
    struct q2_lost *list;
    size_t n;
    int ret = collect(w, &list, &n, err);
    if (ret == 0)
        ret = place(w, r, list, n, err);
    free(list);
    for (size_t i = 0; i < w->found.n; i++)
        r->n_linked += w->found.list[i].linked && !w->found.list[i].is_l1;
    r->n_linked += r->n_placed;
    for (size_t i = 0; i < w->found.n; i++) {
        const struct q2_found_table *t = &w->found.list[i];
        r->n_left += !t->linked && !t->is_l1 && !t->counts && !t->stale;
    }
    r->n_left -= r->n_placed;
    return ret;
}
