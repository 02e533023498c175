// SPDX-License-Identifier: MIT
// The active L1 table where some of its clusters are lost: where it began, and which
// entries are not known.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/zero.h"
#include "disk/snapshot.h"
#include "recover/work.h"

// So many clusters that are lost may lie side by side.
#define MAX_LOST 4096U
// Header, refcount table and one block of it lie before the first L1 table of an image.
#define FIRST_L1_CLUSTER 3U

struct frame {
    struct q2_work *w;
    struct q2_l1_found *l;
    struct q2_counters *used; // host clusters that linked tables lead to
    uint64_t start, end;      // offsets in the file
    bool hinted;              // by the header
    bool missed;              // L2 tables are
};

static int note_used(struct frame *f, const struct q2_found_table *t,
                     struct q2_error *err)
{
    const struct q2_layout *l = &f->w->found.layout;
    int ret = q2_work_read(f->w, t->offset, err);
    for (size_t i = 0; i < q2_layout_entries(l) && ret == 0; i++) {
        struct q2_reading e = q2_layout_judge(l, f->w->survey.file_size, f->w->table, i);
        if (e.kind == Q2_READS_PLACE || e.kind == Q2_READS_PACKED)
            ret = q2_counters_add(f->used, e.offset >> l->cluster_bits, 1, 1, err);
    }
    return ret;
}

static bool is_l2(const struct q2_found_table *t)
{
    return !t->is_l1 && !t->counts;
}

static int note_all_used(struct frame *f, struct q2_error *err)
{
    int ret = 0;
    for (size_t i = 0; i < f->w->found.n && ret == 0; i++) {
        const struct q2_found_table *t = &f->w->found.list[i];
        if (t->linked && is_l2(t))
            ret = note_used(f, t, err);
    }
    return ret;
}

// An L2 table that is in use, and no older copy of one that is linked.
static int is_missed(struct frame *f, const struct q2_found_table *t, bool *yes,
                     struct q2_error *err)
{
    const struct q2_layout *l = &f->w->found.layout;
    size_t n = 0, n_shared = 0;
    uint64_t count;
    bool doubtful = false;
    *yes = false;
    if (t->linked || !is_l2(t))
        return 0;
    int ret = q2_work_refcount(f->w, t->offset, &count, err);
    if (ret == 0)
        ret = q2_work_is_doubtful(f->w, t, &doubtful, err);
    if (ret < 0 || count == 0 || doubtful)
        return ret;
    ret = q2_work_read(f->w, t->offset, err);
    for (size_t i = 0; i < q2_layout_entries(l) && ret == 0; i++) {
        struct q2_reading e = q2_layout_judge(l, f->w->survey.file_size, f->w->table, i);
        if (e.kind != Q2_READS_PLACE && e.kind != Q2_READS_PACKED)
            continue;
        n++;
        n_shared += q2_counters_get(f->used, e.offset >> l->cluster_bits) > 0;
    }
    *yes = n_shared * 2 < n;
    return ret;
}

static int any_missed(struct frame *f, struct q2_error *err)
{
    int ret = 0;
    for (size_t i = 0; i < f->w->found.n && !f->missed && ret == 0; i++)
        ret = is_missed(f, &f->w->found.list[i], &f->missed, err);
    return ret;
}

// Nothing that is known lies there: what was is overwritten.
static int is_junk(struct frame *f, uint64_t offset, bool *yes, struct q2_error *err)
{
    *yes = false;
    if (offset >= f->w->survey.file_size || q2_found_at(&f->w->found, offset) ||
        q2_counters_get(f->used, offset >> f->w->found.layout.cluster_bits) > 0)
        return 0;
    int ret = q2_work_read(f->w, offset, err);
    *yes = ret == 0 && !q2_is_zero(f->w->table, (size_t)q2_work_cluster_size(f->w));
    return ret;
}

// By the entry of a snapshot's L1 table that leads to the same L2 table as the first of
// this one. *n: entries that lie before it; unchanged where no snapshot tells.
static int ask_snapshot(struct q2_work *w, const struct q2_snapshot *sn, uint64_t to,
                        uint64_t from, uint64_t *n, bool *told, struct q2_error *err)
{
    size_t per = (size_t)(q2_work_cluster_size(w) / 8);
    int ret = 0;
    for (uint64_t at = 0; at < sn->l1_size && !*told && ret == 0; at += per) {
        ret = q2_work_read(w, sn->l1_table_offset + at * 8, err);
        for (size_t i = 0; i < per && at + i < sn->l1_size && !*told && ret == 0; i++) {
            if ((w->table[i] & Q2_OFFSET_MASK) != to || at + i < from)
                continue;
            *n = at + i - from;
            *told = *n % per == 0;
        }
    }
    return ret;
}

static int ask_snapshots(struct frame *f, bool *told, struct q2_error *err)
{
    struct q2_work *w = f->w;
    uint64_t n = 0;
    int ret = 0;
    for (uint64_t k = 0; k < w->n_l1 && !*told && ret == 0; k++) {
        uint64_t to = w->l1[k] & Q2_OFFSET_MASK;
        for (unsigned s = 0; s < w->n_snapshots && to != 0 && !*told && ret == 0; s++)
            ret = ask_snapshot(w, &w->snapshots[s], to, k, &n, told, err);
    }
    if (*told && n * 8 <= f->start)
        f->start -= n * 8;
    return ret;
}

// What lies before the first L1 table of an image.
static uint64_t least_start(const struct q2_work *w)
{
    uint64_t cluster_size = q2_work_cluster_size(w);
    uint64_t least = FIRST_L1_CLUSTER * cluster_size;
    if (w->luks_offset == least)
        least = q2_align_up(least + w->luks_bytes, cluster_size);
    return least;
}

// Nothing that is known lies there, and the cluster is not free. *counted: a refcount
// says so.
static int is_unknown(struct frame *f, uint64_t offset, bool *yes, bool *counted,
                      struct q2_error *err)
{
    uint64_t count;
    *yes = *counted = false;
    if (q2_found_at(&f->w->found, offset) ||
        q2_counters_get(f->used, offset >> f->w->found.layout.cluster_bits) > 0)
        return 0;
    int ret = q2_work_refcount(f->w, offset, &count, err);
    *yes = ret == 0 && count != 0;
    *counted = ret == 0 && count == 1;
    return ret;
}

// What is overwritten, or names nothing, from where the L1 table of a new image begins:
// that is it. And zeros alone that are in use, with nothing that leads to them, are its
// beginning wherever they are; without refcounts that is a guess.
static int ask_layout(struct frame *f, struct q2_error *err)
{
    uint64_t cluster_size = q2_work_cluster_size(f->w), first = least_start(f->w);
    uint64_t zeros = q2_work_zeros_before(f->w, f->start), zero_start = f->start;
    bool unknown = true, counted, all_counted = true;
    int ret = 0;
    uint64_t at = f->start;
    while (at > first && f->start - at < Q2_MAX_L1_BYTES && ret == 0) {
        bool zero = at - cluster_size >= zeros;
        ret = is_unknown(f, at - cluster_size, &unknown, &counted, err);
        if (!unknown || (!zero && at - first > MAX_LOST * cluster_size))
            break;
        at -= cluster_size;
        all_counted &= counted || !zero;
        zero_start = zero ? at : zero_start;
    }
    if (ret < 0)
        return ret;
    f->l->guessed = at != first && zero_start < f->start && !all_counted;
    f->start = at == first ? first : zero_start;
    return 0;
}

static int find_start(struct frame *f, struct q2_error *err)
{
    const struct q2_hints *h = &f->w->hints;
    bool told = false;
    f->start = f->l->offset;
    if (f->hinted) {
        f->start = h->l1_table_offset;
        return 0;
    }
    int ret = ask_snapshots(f, &told, err);
    return ret < 0 || told ? ret : ask_layout(f, err);
}

// Behind what was found: clusters that are lost, and such that go on with it.
static int find_end(struct frame *f, struct q2_error *err)
{
    struct q2_work *w = f->w;
    uint64_t cluster_size = q2_work_cluster_size(w), n_lost = 0;
    uint64_t at = f->l->offset + q2_align_up(f->l->n_entries * 8, cluster_size);
    f->end = at;
    if (!f->missed)
        return 0;
    if (f->hinted) {
        f->end = f->start + q2_align_up((uint64_t)w->hints.l1_size * 8, cluster_size);
        return 0;
    }
    for (bool junk; n_lost < MAX_LOST && at - f->start < Q2_MAX_L1_BYTES;
         at += cluster_size) {
        const struct q2_found_table *t = q2_found_at(&w->found, at);
        if (t && t->is_l1 && !t->linked) {
            f->end = at + cluster_size;
            continue;
        }
        int ret = is_junk(f, at, &junk, err);
        if (ret < 0 || !junk)
            return ret;
        f->end = at + cluster_size;
        n_lost++;
    }
    return 0;
}

// Takes what is there of the table's cluster at offset, whose entries begin with l1[0].
static int take_cluster(struct frame *f, uint64_t offset, uint64_t *l1, bool *lost,
                        struct q2_error *err)
{
    struct q2_work *w = f->w;
    size_t per = (size_t)(q2_work_cluster_size(w) / 8);
    const struct q2_found_table *t = q2_found_at(&w->found, offset);
    int ret = 0;
    if (!t || !t->is_l1) {
        ret = is_junk(f, offset, lost, err);
        // Zeros where the header says that entries are: who knows?
        *lost |= f->hinted && f->missed && !t &&
                 q2_counters_get(f->used, offset >> w->found.layout.cluster_bits) == 0;
        return ret;
    }
    ret = q2_work_read(w, offset, err);
    for (size_t i = 0; i < per && ret == 0; i++) {
        struct q2_found_table *to = q2_found_at(&w->found, w->table[i] & Q2_OFFSET_MASK);
        l1[i] = w->table[i];
        if (to)
            to->linked = true;
    }
    return ret;
}

static int take_all(struct frame *f, struct q2_error *err)
{
    struct q2_work *w = f->w;
    uint64_t cluster_size = q2_work_cluster_size(w), per = cluster_size / 8;
    uint64_t n = (f->end - f->start) / cluster_size;
    uint64_t *l1 = calloc(q2_to_size(n * per), 8);
    bool *lost = calloc(q2_to_size(n), sizeof(*lost));
    int ret = l1 && lost ? 0 : q2_fail_memory(err, n * cluster_size);
    for (uint64_t i = 0; i < n && ret == 0; i++)
        ret = take_cluster(f, f->start + i * cluster_size, l1 + i * per, &lost[i], err);
    if (ret < 0) {
        free(l1);
        free(lost);
        return ret;
    }
    free(w->l1);
    w->l1 = l1;
    w->n_l1 = n * per;
    w->l1_lost = lost;
    w->n_l1_lost = n;
    while (w->n_l1 > 0 && w->l1[w->n_l1 - 1] == 0)
        w->n_l1--;
    return 0;
}

static bool is_in_header(const struct q2_work *w, const struct q2_l1_found *l)
{
    const struct q2_hints *h = &w->hints;
    return h->has_l1 && q2_is_aligned(h->l1_table_offset, q2_work_cluster_size(w)) &&
           l->offset >= h->l1_table_offset &&
           l->offset - h->l1_table_offset < (uint64_t)h->l1_size * 8;
}

int q2_work_complete_l1(struct q2_work *w, struct q2_l1_found *l, struct q2_error *err)
{
    struct frame f = {.w = w, .l = l, .hinted = is_in_header(w, l)};
    f.used = q2_counters_new();
    int ret = f.used ? note_all_used(&f, err) : q2_fail_memory(err, sizeof(f));
    if (ret == 0)
        ret = any_missed(&f, err);
    if (ret == 0)
        ret = find_start(&f, err);
    if (ret == 0)
        ret = find_end(&f, err);
    if (ret == 0 && (f.missed || f.start < l->offset) &&
        f.end - f.start <= Q2_MAX_L1_BYTES) {
        ret = take_all(&f, err);
        l->n_entries += (l->offset - f.start) / 8;
        l->offset = f.start;
    }
    q2_counters_free(f.used);
    return ret;
}
