// SPDX-License-Identifier: MIT
// Entries that name a cluster of somebody else: one more entry than the refcount says,
// and somewhere an orphan. Which entry is wrong is told by how near it is to the orphan:
// one bit, or the cluster that continues its neighbours.
#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "check/scan.h"

// More than these are no single damage.
#define MAX_HUNTED 64U
#define MAX_REFERRERS 4096U

static bool is_hunted_table(const struct q2_scan *s, const struct q2_finding *f)
{
    return f->problem == Q2_PROBLEM_REFCOUNT_TOO_LOW &&
           q2_counters_get(s->tables, f->cluster) > 0;
}

int q2_scan_hunt(struct q2_scan *s, struct q2_error *err)
{
    size_t n = 0;
    if (s->n_orphans == 0 || s->too_many_orphans ||
        (s->header.incompatible_features & Q2_INCOMPAT_DIRTY))
        return 0;
    s->hunted = q2_counters_new();
    if (!s->hunted)
        return q2_fail_memory(err, sizeof(*s));
    // A table that is named too often makes its clusters look so, too: tables come first.
    bool tables = false;
    for (size_t i = 0; i < s->findings.n && !tables; i++)
        tables = is_hunted_table(s, &s->findings.list[i]);
    for (size_t i = 0; i < s->findings.n && n < MAX_HUNTED; i++) {
        const struct q2_finding *f = &s->findings.list[i];
        if (f->problem != Q2_PROBLEM_REFCOUNT_TOO_LOW || f->refcount == 0 ||
            f->count > 4 || is_hunted_table(s, f) != tables)
            continue;
        int ret = q2_counters_add(s->hunted, f->cluster, f->count, 1, err);
        if (ret < 0)
            return ret;
        n += f->count;
    }
    s->again |= n > 0;
    return 0;
}

int q2_scan_referrer(struct q2_scan *s, const struct q2_referrer *r, struct q2_error *err)
{
    void *list = s->referrers;
    if (s->n_referrers >= MAX_REFERRERS)
        return 0;
    int ret = q2_scan_grow(&list, &s->max_referrers, s->n_referrers, sizeof(*r), err);
    if (ret < 0)
        return ret;
    s->referrers = list;
    s->referrers[s->n_referrers++] = *r;
    return 0;
}

// The one entry and the one orphan that belong together.
struct match {
    const struct q2_referrer *r;
    uint64_t offset, stored;
    unsigned n;
};

static int try_orphan(struct q2_scan *s, const struct q2_referrer *r, uint64_t offset,
                      struct match *m, struct q2_error *err)
{
    uint64_t stored = 0;
    bool yes;
    int ret = q2_scan_is_orphan(s, offset, &stored, &yes, err);
    if (ret == 0 && yes && r->is_l1)
        ret = q2_scan_reads_like_l2(s, offset, &yes, err);
    if (ret == 0 && yes && (m->n == 0 || m->r != r || m->offset != offset)) {
        *m = (struct match){.r = r, .offset = offset, .stored = stored, .n = m->n + 1};
    }
    return ret;
}

static uint64_t offset_of(uint64_t raw)
{
    return raw & Q2_OFFSET_MASK;
}

// L2 tables are made one after the other: an L1 entry that breaks the order of its
// neighbours, and an orphan one bit away that keeps it.
static int try_l1_order(struct q2_scan *s, const struct q2_referrer *r, struct match *m,
                        struct q2_error *err)
{
    uint64_t own = offset_of(r->entry), low = offset_of(r->previous);
    uint64_t high = r->next ? offset_of(r->next) : UINT64_MAX;
    int ret = 0;
    if (low < own && own < high)
        return 0;
    for (unsigned bit = s->cluster_bits; bit < 56 && ret == 0; bit++) {
        uint64_t offset = own ^ (UINT64_C(1) << bit);
        if (low < offset && offset < high)
            ret = try_orphan(s, r, offset, m, err);
    }
    return ret;
}

// The cluster that continues the entry's neighbours. One that continues them already is
// not the wrong one.
static int try_neighbours(struct q2_scan *s, const struct q2_referrer *r, struct match *m,
                          struct q2_error *err)
{
    struct q2_l2_entry before =
        q2_l2_decode(r->previous, s->cluster_bits, s->header.version);
    struct q2_l2_entry behind = q2_l2_decode(r->next, s->cluster_bits, s->header.version);
    uint64_t own = offset_of(r->entry);
    int ret = 0;
    if ((before.kind == Q2_CLUSTER_NORMAL &&
         before.host_offset + s->cluster_size == own) ||
        (behind.kind == Q2_CLUSTER_NORMAL && behind.host_offset == own + s->cluster_size))
        return 0;
    if (before.kind == Q2_CLUSTER_NORMAL)
        ret = try_orphan(s, r, before.host_offset + s->cluster_size, m, err);
    if (ret == 0 && behind.kind == Q2_CLUSTER_NORMAL &&
        behind.host_offset > s->cluster_size)
        ret = try_orphan(s, r, behind.host_offset - s->cluster_size, m, err);
    return ret;
}

static void report(struct q2_scan *s, const struct match *m)
{
    const struct q2_referrer *r = m->r;
    uint64_t span =
        r->is_l1 ? UINT64_C(1) << (s->l2_bits + s->cluster_bits) : s->cluster_size;
    uint64_t kept = r->is_l1 ? 0 : r->entry & Q2_FLAG_ZERO;
    q2_scan_report(
        s, &s->findings,
        &(struct q2_finding){
            .problem = r->is_l1 ? Q2_PROBLEM_L1_MISDIRECTED : Q2_PROBLEM_L2_MISDIRECTED,
            .has = Q2_HAS_OFFSET | Q2_HAS_INDEX | Q2_HAS_ENTRY | Q2_HAS_SNAPSHOT |
                   Q2_HAS_GUEST | Q2_HAS_EDIT,
            .offset = m->offset,
            .index = r->index,
            .entry = r->entry,
            .snapshot = r->snapshot,
            .snapshot_name = r->name,
            .guest_offset = r->guest_offset,
            .guest_bytes = span,
            .edit_offset = r->host_offset,
            .edit_value = m->offset | kept | (m->stored == 1 ? Q2_FLAG_COPIED : 0),
            .in_l1 = r->is_l1,
            .recovered = true});
}

static int resolve(struct q2_scan *s, uint64_t cluster, struct q2_error *err)
{
    struct match m = {0};
    size_t n_rivals = 0;
    int ret = 0;
    for (size_t i = 0; i < s->n_referrers && ret == 0; i++) {
        const struct q2_referrer *r = &s->referrers[i];
        if (offset_of(r->entry) >> s->cluster_bits != cluster)
            continue;
        n_rivals++;
        ret = r->is_l1 ? try_l1_order(s, r, &m, err) : try_neighbours(s, r, &m, err);
    }
    if (ret == 0 && m.n == 1 && n_rivals > 1)
        report(s, &m);
    return ret;
}

int q2_scan_misdirected(struct q2_scan *s, struct q2_error *err)
{
    uint64_t at = 0, start, n, value;
    int ret = 0;
    // With entries that are damaged for all to see, an orphan is rather theirs.
    if (s->n_suspects > 0)
        return 0;
    while (ret == 0 && q2_counters_next(s->hunted, at, &start, &n, &value)) {
        for (uint64_t c = start; c < start + n && ret == 0; c++)
            ret = resolve(s, c, err);
        at = start + n;
    }
    return ret;
}
