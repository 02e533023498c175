// SPDX-License-Identifier: MIT
// Entries that name a cluster of somebody else: one more entry than the refcount says,
// and somewhere an orphan. Which entry is wrong is told by how near it is to the orphan:
// one bit, or the cluster that continues its neighbours.
#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "check/l2.h"

// More than these are no single damage.
#define MAX_HUNTED 64U
#define MAX_RUN 64U
#define MAX_REFERRERS 4096U
#define MAX_RIVALS 64U
#define MAX_WRONG 4U
#define MAX_LOOKED_AT 4096U

static bool is_hunted_table(const struct q2_scan *s, const struct q2_finding *f)
{
    return f->problem == Q2_PROBLEM_REFCOUNT_TOO_LOW && f->refcount > 0 &&
           q2_counters_any(s->tables, f->cluster, f->count);
}

int q2_scan_hunt(struct q2_scan *s, struct q2_error *err)
{
    size_t n = 0;
    if (s->too_many_orphans || (s->header.incompatible_features & Q2_INCOMPAT_DIRTY))
        return 0;
    s->hunted = q2_counters_new_scattered();
    if (!s->hunted)
        return q2_fail_memory(err, sizeof(*s));
    // A table that is named too often makes its clusters look so, too: tables come first.
    bool tables = false;
    for (size_t i = 0; i < s->findings.n && !tables; i++)
        tables = is_hunted_table(s, &s->findings.list[i]);
    for (size_t i = 0; i < s->findings.n && n < MAX_HUNTED; i++) {
        const struct q2_finding *f = &s->findings.list[i];
        if (f->problem != Q2_PROBLEM_REFCOUNT_TOO_LOW || f->refcount == 0 ||
            f->count > MAX_RUN)
            continue;
        int ret = 0;
        for (uint64_t c = f->cluster; c < f->cluster + f->count && ret == 0; c++) {
            if ((q2_counters_get(s->tables, c) > 0) != tables ||
                q2_counters_get(s->hunted, c) > 0)
                continue;
            ret = q2_counters_add(s->hunted, c, 1, 1, err);
            n++;
        }
        if (ret < 0)
            return ret;
    }
    s->again |= n > 0;
    return 0;
}

// A hunted cluster counts one, and one more for each compressed entry.
int q2_scan_hunted_packed(struct q2_scan *s, const struct q2_l2_entry *e,
                          struct q2_error *err)
{
    uint64_t first = e->host_offset >> s->cluster_bits;
    uint64_t last = (e->host_offset + e->n_bytes - 1) >> s->cluster_bits;
    int ret = 0;
    for (uint64_t c = first; c <= last && ret == 0; c++) {
        if (q2_counters_get(s->hunted, c) > 0)
            ret = q2_counters_add(s->hunted, c, 1, 1, err);
    }
    return ret;
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
        ret = q2_scan_reads_like_l2(s, offset, r->guest_offset, &yes, err);
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
    struct q2_l2_entry before = q2_scan_decode(s, r->previous);
    struct q2_l2_entry behind = q2_scan_decode(s, r->next);
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

static void report(struct q2_scan *s, const struct q2_referrer *r, uint64_t value,
                   bool lossy)
{
    uint64_t span =
        r->is_l1 ? UINT64_C(1) << (s->l2_bits + s->cluster_bits) : s->cluster_size;
    struct q2_l2_entry e = q2_scan_decode(s, value);
    struct q2_l2_words zeros = q2_scan_zeros(s, (struct q2_l2_words){0, r->bitmap});
    struct q2_finding f = {.problem = r->is_l1 ? Q2_PROBLEM_L1_MISDIRECTED
                                               : Q2_PROBLEM_L2_MISDIRECTED,
                           .has = Q2_HAS_OFFSET | Q2_HAS_INDEX | Q2_HAS_ENTRY |
                                  Q2_HAS_SNAPSHOT | Q2_HAS_GUEST | Q2_HAS_EDIT,
                           .offset = r->is_l1 ? value & Q2_OFFSET_MASK : e.host_offset,
                           .index = r->index,
                           .entry = r->entry,
                           .snapshot = r->snapshot,
                           .snapshot_name = r->name,
                           .guest_offset = r->guest_offset,
                           .guest_bytes = span,
                           .edit_offset = r->host_offset,
                           .edit_value = value,
                           .edit_bitmap = lossy   ? zeros.bitmap
                                          : value ? r->bitmap
                                                  : r->bitmap & Q2_BITMAP_ZEROS,
                           .edit_wide = s->extended && !r->is_l1,
                           .lost_bits = (uint32_t)r->bitmap,
                           .bitmap = r->bitmap,
                           .in_l1 = r->is_l1,
                           .lossy = lossy,
                           .recovered = !lossy,
                           .needs_zero_cluster = lossy && s->header.backing_file &&
                                                 (r->is_l1 || s->header.version < 3)};
    q2_scan_report(s, &s->findings, &f);
}

// The referrers of one hunted cluster.
struct rivals {
    const struct q2_referrer *list[MAX_RIVALS];
    bool wrong[MAX_RIVALS];
    unsigned n, n_wrong;
    uint64_t stored, counted;
    uint64_t n_packed; // references by compressed entries
};

static int collect(struct q2_scan *s, uint64_t cluster, struct rivals *v,
                   struct q2_error *err)
{
    *v = (struct rivals){.counted = q2_counters_get(s->references, cluster),
                         .n_packed = q2_counters_get(s->hunted, cluster) - 1};
    for (size_t i = 0; i < s->n_referrers; i++) {
        const struct q2_referrer *r = &s->referrers[i];
        if (offset_of(r->entry) >> s->cluster_bits != cluster)
            continue;
        if (v->n == MAX_RIVALS) {
            v->n = 0; // no single damage
            break;
        }
        v->list[v->n++] = r;
    }
    return q2_scan_stored(s, cluster, &v->stored, err);
}

// Entries of the active state whose COPIED flag contradicts the stored count.
static void judge_by_flags(struct rivals *v)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < v->n; i++) {
        const struct q2_referrer *r = v->list[i];
        v->wrong[i] =
            r->snapshot < 0 && ((r->entry & Q2_FLAG_COPIED) != 0) != (v->stored == 1);
        v->n_wrong += v->wrong[i];
        n += v->wrong[i] ? r->times : 0;
    }
    if (n > v->counted - v->stored)
        v->n_wrong = 0;
}

// States share a cluster at one place of the guest's disk: where the entries of one place
// are as many as the stored count, the others are wrong.
static void judge_by_place(struct rivals *v)
{
    unsigned n_right = 0;
    uint64_t right = 0;
    for (unsigned i = 0; i < v->n; i++) {
        uint64_t times = 0;
        bool first = true;
        for (unsigned k = 0; k < v->n; k++) {
            if (v->list[k]->guest_offset != v->list[i]->guest_offset)
                continue;
            times += v->list[k]->times;
            first &= k >= i;
        }
        if (first && times == v->stored) {
            n_right++;
            right = v->list[i]->guest_offset;
        }
    }
    for (unsigned i = 0; i < v->n && n_right == 1; i++) {
        v->wrong[i] = v->list[i]->guest_offset != right;
        v->n_wrong += v->wrong[i];
    }
}

// Are all of them at one place of the guest's disk? Then it is the count that is wrong.
static bool at_one_place(const struct rivals *v)
{
    for (unsigned i = 1; i < v->n; i++) {
        if (v->list[i]->guest_offset != v->list[0]->guest_offset)
            return false;
    }
    return true;
}

// A cluster of compressed data is named by compressed entries alone.
static void judge_by_kind(struct rivals *v)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < v->n; i++)
        n += v->list[i]->times;
    for (unsigned i = 0; i < v->n && v->n_packed > 0 && n == v->counted - v->stored;
         i++) {
        v->wrong[i] = true;
        v->n_wrong++;
    }
}

// With an external data file an L2 table says itself which place it is for.
static int judge_by_content(struct q2_scan *s, struct rivals *v, struct q2_error *err)
{
    bool right[MAX_RIVALS] = {false};
    unsigned n_right = 0;
    int ret = 0;
    for (unsigned i = 0; i < v->n && ret == 0; i++) {
        ret = q2_scan_reads_like_l2(s, offset_of(v->list[i]->entry),
                                    v->list[i]->guest_offset, &right[i], err);
        n_right += right[i];
    }
    for (unsigned i = 0; i < v->n && ret == 0 && n_right > 0; i++) {
        v->wrong[i] = !right[i];
        v->n_wrong += v->wrong[i];
    }
    return ret;
}

// An L2 table that shares clusters with those of other states at one place belongs there.
static int judge_by_kin(struct q2_scan *s, struct rivals *v, struct q2_error *err)
{
    bool kin[MAX_RIVALS] = {false};
    unsigned n_kin = 0, n_strange = 0;
    int ret = 0;
    for (unsigned i = 0; i < v->n && ret == 0; i++) {
        ret = q2_scan_is_kin(s, v->list[i]->entry & Q2_OFFSET_MASK,
                             v->list[i]->guest_offset, &kin[i], err);
        n_kin += kin[i];
        n_strange += !kin[i];
    }
    for (unsigned i = 0; i < v->n && ret == 0 && n_kin > 0 && n_strange > 0; i++) {
        v->wrong[i] = !kin[i];
        v->n_wrong += v->wrong[i];
    }
    return ret;
}

// An L2 table that nobody names, and that belongs where one of them is.
static int judge_by_orphan(struct q2_scan *s, struct rivals *v, struct q2_error *err)
{
    unsigned n = 0, which = 0;
    int ret = 0;
    for (size_t k = 0; k < s->n_orphans && k < MAX_LOOKED_AT && ret == 0; k++) {
        uint64_t offset = s->orphans[k] << s->cluster_bits;
        bool yes = false;
        for (unsigned i = 0; i < v->n && ret == 0; i++) {
            bool kin = false;
            if (i == 0 || s->data_file)
                ret =
                    q2_scan_reads_like_l2(s, offset, v->list[i]->guest_offset, &yes, err);
            if (ret == 0 && yes)
                ret = q2_scan_is_kin(s, offset, v->list[i]->guest_offset, &kin, err);
            n += kin;
            which = kin ? i : which;
        }
    }
    v->wrong[which] = n == 1;
    v->n_wrong = n == 1;
    return ret;
}

// What the referrer should have named, if other states know.
static int shared_value(struct q2_scan *s, const struct q2_referrer *r, uint64_t *value,
                        bool *found, struct q2_error *err)
{
    struct q2_values v;
    int ret = r->is_l1 ? q2_scan_shared_l1(s, r->host_offset, r->guest_offset, &v, err)
                       : q2_scan_shared_l2(s, r->host_offset, r->guest_offset, &v, err);
    *found = ret == 0 && v.n == 1;
    *value = *found ? v.list[0] : 0;
    return ret;
}

// The value of an entry that is known to be wrong; lossy when it cannot be found.
static int heal_wrong(struct q2_scan *s, const struct q2_referrer *r, bool alone,
                      struct q2_error *err)
{
    uint64_t value, stored = 0;
    bool found, yes;
    int ret = shared_value(s, r, &value, &found, err);
    for (size_t i = 0; i < s->n_orphans && ret == 0 && !found && alone; i++) {
        uint64_t offset = s->orphans[i] << s->cluster_bits;
        ret = q2_scan_is_orphan(s, offset, &stored, &yes, err);
        if (ret == 0 && yes && r->is_l1)
            ret = q2_scan_reads_like_l2(s, offset, r->guest_offset, &yes, err);
        if (ret < 0 || !yes)
            continue;
        found = value == 0;
        value = offset | (r->is_l1 || !s->zero_flag ? 0 : r->entry & Q2_FLAG_ZERO) |
                (stored == 1 ? Q2_FLAG_COPIED : 0);
        if (!found) // the second one
            break;
    }
    if (ret < 0)
        return ret;
    // Nothing is missing: it named nothing.
    bool empty = s->surplus == 0 && (r->is_l1 || !s->header.backing_file);
    if (!found)
        value = !r->is_l1 && s->zero_flag && !empty ? Q2_FLAG_ZERO : 0;
    report(s, r, value, !found && !empty);
    return 0;
}

// Nothing says which one is wrong: one that other states know better is.
static int heal_by_sharing(struct q2_scan *s, const struct rivals *v, bool *done,
                           struct q2_error *err)
{
    const struct q2_referrer *known = NULL;
    uint64_t value = 0, other;
    int ret = 0;
    *done = false;
    for (unsigned i = 0; i < v->n && ret == 0; i++) {
        bool found;
        ret = shared_value(s, v->list[i], &other, &found, err);
        if (ret < 0 || !found)
            continue;
        if (known)
            return 0; // two of them
        known = v->list[i];
        value = other;
    }
    if (ret == 0 && known) {
        report(s, known, value, false);
        *done = true;
    }
    return ret;
}

// Last: an orphan that is near to one of them.
static int heal_by_nearness(struct q2_scan *s, const struct rivals *v,
                            struct q2_error *err)
{
    struct match m = {0};
    int ret = 0;
    for (unsigned i = 0; i < v->n && ret == 0; i++) {
        const struct q2_referrer *r = v->list[i];
        ret = r->is_l1 ? try_l1_order(s, r, &m, err) : try_neighbours(s, r, &m, err);
    }
    if (ret == 0 && m.n == 1)
        report(s, m.r,
               m.offset | (m.r->is_l1 || !s->zero_flag ? 0 : m.r->entry & Q2_FLAG_ZERO) |
                   (m.stored == 1 ? Q2_FLAG_COPIED : 0),
               false);
    return ret;
}

static int resolve(struct q2_scan *s, uint64_t cluster, bool alone, struct q2_error *err)
{
    struct rivals v;
    bool done = false;
    int ret = collect(s, cluster, &v, err);
    if (ret < 0 || v.n == 0 || v.counted <= v.stored)
        return ret;
    judge_by_kind(&v);
    if (v.n_wrong == 0 && at_one_place(&v))
        return 0;
    if (v.n_wrong == 0 && s->data_file && v.list[0]->is_l1)
        ret = judge_by_content(s, &v, err);
    if (v.n_wrong == 0)
        judge_by_flags(&v);
    if (v.n_wrong == 0)
        judge_by_place(&v);
    if (ret == 0 && v.n_wrong == 0 && v.list[0]->is_l1)
        ret = judge_by_kin(s, &v, err);
    if (ret == 0 && v.n_wrong == 0 && v.list[0]->is_l1)
        ret = judge_by_orphan(s, &v, err);
    for (unsigned i = 0; i < v.n && v.n_wrong > 0 && ret == 0; i++) {
        if (v.wrong[i])
            ret = heal_wrong(s, v.list[i], alone && v.n_wrong == 1, err);
    }
    if (ret < 0 || v.n_wrong > 0)
        return ret;
    ret = heal_by_sharing(s, &v, &done, err);
    return ret < 0 || done ? ret : heal_by_nearness(s, &v, err);
}

int q2_scan_misdirected(struct q2_scan *s, struct q2_error *err)
{
    uint64_t at = 0, start, n, value, n_hunted = 0;
    int ret = 0;
    // With entries that are damaged for all to see, an orphan is rather theirs.
    if (s->n_suspects > 0 || s->rebuild)
        return 0;
    while (q2_counters_next(s->hunted, at, &start, &n, &value)) {
        n_hunted += n;
        at = start + n;
    }
    at = 0;
    if (n_hunted > MAX_WRONG) // the counts are wrong
        return 0;
    while (ret == 0 && q2_counters_next(s->hunted, at, &start, &n, &value)) {
        for (uint64_t c = start; c < start + n && ret == 0; c++)
            ret = resolve(s, c, n_hunted == 1, err);
        at = start + n;
    }
    return ret;
}
