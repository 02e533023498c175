// SPDX-License-Identifier: MIT
// L1 tables: which there are, and which is the active one.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/search.h"
#include "disk/snapshot.h"
#include "recover/work.h"

int q2_work_read(struct q2_work *w, uint64_t offset, struct q2_error *err)
{
    size_t n_bytes = (size_t)q2_work_cluster_size(w);
    int ret = q2_io_read(w->io, offset, w->table, n_bytes, err);
    if (ret == 0)
        q2_table_decode(w->table, w->table, n_bytes / 8);
    return ret;
}

// Where the header or a snapshot says that an L1 table begins, no other goes on.
static bool begins_at(const struct q2_work *w, uint64_t offset)
{
    if (w->hints.has_l1 && w->hints.l1_table_offset == offset)
        return true;
    for (unsigned i = 0; i < w->n_snapshots; i++) {
        if (w->snapshots[i].l1_table_offset == offset)
            return true;
    }
    return false;
}

uint64_t q2_work_zeros_before(const struct q2_work *w, uint64_t offset)
{
    const struct q2_survey *s = &w->survey;
    size_t low = q2_search_from(s->list, s->n, sizeof(*s->list),
                                offsetof(struct q2_stretch, start), offset);
    return low < s->n ? q2_min_u64(s->list[low].zero_from, offset) : offset;
}

// Parts of an L1 table that name nothing may lie between the two: zeros, and in use.
static int is_gap(struct q2_work *w, uint64_t from, uint64_t to, bool *yes,
                  struct q2_error *err)
{
    uint64_t first = 0, last = 0;
    *yes = q2_work_zeros_before(w, to) <= from;
    if (!*yes || from == to)
        return 0;
    int ret = q2_work_refcount(w, from, &first, err);
    if (ret == 0)
        ret = q2_work_refcount(w, to - q2_work_cluster_size(w), &last, err);
    *yes = ret == 0 && first != 0 && last != 0;
    return ret;
}

// Reads the cluster of an L1 table at offset: counts for *l, and the L2 tables that it
// names into seen; *twice when one of them is in seen already.
static int look_at(struct q2_work *w, uint64_t offset, struct q2_l1_found *l,
                   struct q2_counters *seen, bool *twice, struct q2_error *err)
{
    unsigned bits = w->found.layout.cluster_bits;
    size_t n = (size_t)1 << (bits - 3);
    int ret = q2_work_read(w, offset, err);
    *twice = false;
    for (size_t i = 0; i < n && ret == 0; i++) {
        uint64_t to = w->table[i] & Q2_OFFSET_MASK;
        *twice |= to != 0 && q2_counters_get(seen, to >> bits) > 0;
    }
    for (size_t i = 0; i < n && ret == 0 && !*twice; i++) {
        uint64_t to = w->table[i] & Q2_OFFSET_MASK;
        const struct q2_found_table *t = to ? q2_found_at(&w->found, to) : NULL;
        if (w->table[i] != 0)
            l->n_entries = (offset - l->offset) / 8 + i + 1;
        if (!t || t->is_l1)
            continue;
        l->n_links++;
        l->n_copied += (w->table[i] & Q2_FLAG_COPIED) != 0;
        ret = q2_counters_add(seen, to >> bits, 1, 1, err);
    }
    return ret;
}

// The L1 table that begins with item *i of the list; *i: the first behind it.
static int follow(struct q2_work *w, size_t *i, struct q2_l1_found *l,
                  struct q2_error *err)
{
    const struct q2_found *f = &w->found;
    struct q2_counters *seen = q2_counters_new_scattered();
    uint64_t cluster_size = q2_work_cluster_size(w);
    bool twice, gap;
    int ret = seen ? 0 : q2_fail_memory(err, sizeof(*l));
    *l = (struct q2_l1_found){.offset = f->list[*i].offset};
    l->in_header = w->hints.has_l1 && l->offset >= w->hints.l1_table_offset &&
                   l->offset - w->hints.l1_table_offset < (uint64_t)w->hints.l1_size * 8;
    for (uint64_t end = l->offset; ret == 0 && *i < f->n;) {
        uint64_t at = f->list[*i].offset;
        if (!f->list[*i].is_l1 || at - l->offset >= Q2_MAX_L1_BYTES ||
            (at > l->offset && begins_at(w, at)))
            break;
        ret = is_gap(w, end, at, &gap, err);
        if (ret < 0 || !gap)
            break;
        ret = look_at(w, at, l, seen, &twice, err);
        if (twice)
            break;
        end = at + cluster_size;
        (*i)++;
    }
    for (unsigned k = 0; k < w->n_snapshots; k++) {
        const struct q2_snapshot *sn = &w->snapshots[k];
        l->in_snapshot |= l->offset >= sn->l1_table_offset &&
                          l->offset - sn->l1_table_offset < (uint64_t)sn->l1_size * 8;
    }
    q2_counters_free(seen);
    return ret;
}

// The likelier one to be the active table first: what is shared with a snapshot has no
// COPIED flag in it, and a table that has grown left a shorter one behind.
static int by_likelihood(const void *a, const void *b)
{
    const struct q2_l1_found *x = a, *y = b;
    if (x->in_snapshot != y->in_snapshot)
        return x->in_snapshot ? 1 : -1;
    if (x->in_header != y->in_header)
        return x->in_header ? -1 : 1;
    if ((x->n_copied > 0) != (y->n_copied > 0))
        return x->n_copied > 0 ? -1 : 1;
    if (x->n_links != y->n_links)
        return x->n_links > y->n_links ? -1 : 1;
    return x->offset > y->offset ? -1 : x->offset < y->offset;
}

// Clusters that L2 tables lead to: guest data.
static int note_claimed(struct q2_work *w, struct q2_counters *claimed,
                        uint64_t *n_tables, struct q2_error *err)
{
    const struct q2_layout *l = &w->found.layout;
    int ret = 0;
    *n_tables = 0;
    for (size_t i = 0; i < w->found.n && ret == 0; i++) {
        const struct q2_found_table *t = &w->found.list[i];
        if (t->is_l1 || t->counts)
            continue;
        ++*n_tables;
        ret = q2_work_read(w, t->offset, err);
        for (size_t k = 0; k < q2_layout_entries(l) && ret == 0; k++) {
            struct q2_reading e = q2_layout_judge(l, w->survey.file_size, w->table, k);
            if (e.kind == Q2_READS_PLACE)
                ret = q2_counters_add(claimed, e.offset >> l->cluster_bits, 1, 1, err);
        }
    }
    return ret;
}

// An L1 table in the guest's data, that of an image within the image, names few of the
// L2 tables that are there.
static int drop_inner(struct q2_work *w, struct q2_recovery *r, struct q2_error *err)
{
    struct q2_counters *claimed = q2_counters_new();
    uint64_t n_tables = 0;
    size_t n = 0;
    int ret = claimed ? note_claimed(w, claimed, &n_tables, err)
                      : q2_fail_memory(err, sizeof(*r->l1s));
    for (size_t i = 0; i < r->n_l1s && ret == 0; i++) {
        const struct q2_l1_found *l = &r->l1s[i];
        bool inner = q2_counters_get(claimed, l->offset >> w->found.layout.cluster_bits);
        if (!inner || l->in_header || l->in_snapshot || l->n_links * 2 > n_tables)
            r->l1s[n++] = *l;
    }
    r->n_l1s = ret < 0 ? r->n_l1s : n;
    q2_counters_free(claimed);
    return ret;
}

int q2_work_find_l1s(struct q2_work *w, struct q2_recovery *r, struct q2_error *err)
{
    size_t max = 0;
    int ret = 0;
    for (size_t i = 0; i < w->found.n && ret == 0;) {
        if (!w->found.list[i].is_l1) {
            i++;
            continue;
        }
        if (r->n_l1s == max) {
            max = max ? max * 2 : 16;
            struct q2_l1_found *list = realloc(r->l1s, max * sizeof(*list));
            if (!list)
                return q2_fail_memory(err, max * sizeof(*list));
            r->l1s = list;
        }
        size_t before = i;
        ret = follow(w, &i, &r->l1s[r->n_l1s], err);
        r->n_l1s += r->l1s[r->n_l1s].n_links > 0;
        i += i == before;
    }
    if (ret == 0 && r->n_l1s > 0)
        ret = drop_inner(w, r, err);
    if (ret == 0 && r->n_l1s > 1)
        qsort(r->l1s, r->n_l1s, sizeof(*r->l1s), by_likelihood);
    return ret;
}

int q2_work_grow_l1(struct q2_work *w, uint64_t n, struct q2_error *err)
{
    if (n <= w->n_l1)
        return 0;
    uint64_t *l1 = realloc(w->l1, q2_to_size(n * 8));
    if (!l1)
        return q2_fail_memory(err, n * 8);
    memset(l1 + w->n_l1, 0, (size_t)((n - w->n_l1) * 8));
    w->l1 = l1;
    w->n_l1 = n;
    return 0;
}

// Which L2 tables the L1 table at offset names.
static int mark_links(struct q2_work *w, uint64_t offset, uint64_t n, uint64_t *keep,
                      struct q2_error *err)
{
    size_t per = (size_t)(q2_work_cluster_size(w) / 8);
    int ret = 0;
    for (uint64_t at = 0; at < n && ret == 0; at += per) {
        ret = q2_work_read(w, offset + at * 8, err);
        for (size_t i = 0; i < per && at + i < n && ret == 0; i++) {
            struct q2_found_table *t =
                q2_found_at(&w->found, w->table[i] & Q2_OFFSET_MASK);
            if (keep)
                keep[at + i] = w->table[i];
            if (t)
                t->linked = true;
        }
    }
    return ret;
}

// They belong to another image, which was written over this one.
static int drop_l1s(struct q2_work *w, const struct q2_recovery *r, struct q2_error *err)
{
    int ret = 0;
    for (size_t i = 0; i < r->n_l1s && ret == 0; i++) {
        if (!r->l1s[i].in_snapshot)
            ret = mark_links(w, r->l1s[i].offset, r->l1s[i].n_entries, NULL, err);
    }
    for (size_t i = 0; i < w->found.n; i++) {
        struct q2_found_table *t = &w->found.list[i];
        t->stale |= t->linked;
        t->linked = false;
        t->n_clusters = 0; // if these are refcounts, they are no longer known
    }
    return ret;
}

// An empty L1 table, or one whose L2 tables are all gone, is no candidate: then the table
// counts as lost.
int q2_work_take_l1(struct q2_work *w, struct q2_recovery *r, struct q2_error *err)
{
    unsigned wanted = w->options->candidate;
    if (wanted > r->n_l1s)
        return q2_fail(err, -EINVAL,
                       "There is no L1 table %u in '%s': %zu of them were found", wanted,
                       w->io->name, r->n_l1s);
    r->chosen = wanted > 0 ? wanted - 1 : 0;
    // A snapshot's table is the active one only when the user says so.
    if (w->options->no_l1 || (wanted == 0 && r->n_l1s > 0 && r->l1s[0].in_snapshot))
        r->chosen = r->n_l1s;
    int ret = w->options->no_l1 ? drop_l1s(w, r, err) : 0;
    for (unsigned i = 0; i < w->n_snapshots && ret == 0; i++)
        ret = mark_links(w, w->snapshots[i].l1_table_offset, w->snapshots[i].l1_size,
                         NULL, err);
    w->l1_gone = r->chosen == r->n_l1s;
    if (ret < 0 || w->l1_gone)
        return ret;
    struct q2_l1_found *l = &r->l1s[r->chosen];
    ret = q2_work_grow_l1(w, l->n_entries, err);
    if (ret == 0)
        ret = mark_links(w, l->offset, l->n_entries, w->l1, err);
    return ret < 0 ? ret : q2_work_complete_l1(w, l, err);
}

static int count_cut_entries(struct q2_work *w, uint64_t table, uint64_t *n,
                             struct q2_error *err)
{
    const struct q2_layout *l = &w->found.layout;
    int ret = q2_work_read(w, table, err);
    for (size_t i = 0; i < q2_layout_entries(l) && ret == 0; i++)
        *n +=
            q2_layout_judge(l, w->survey.file_size, w->table, i).kind == Q2_READS_BEYOND;
    return ret;
}

int q2_work_count_cut(struct q2_work *w, struct q2_recovery *r, struct q2_error *err)
{
    int ret = 0;
    for (uint64_t i = 0; i < w->n_l1 && w->found.beyond_end > 0 && ret == 0; i++) {
        uint64_t table = w->l1[i] & Q2_OFFSET_MASK;
        if (table >= w->survey.file_size)
            r->n_cut_tables += table < w->made;
        else if (table != 0)
            ret = count_cut_entries(w, table, &r->n_cut_clusters, err);
    }
    return ret;
}
