// SPDX-License-Identifier: MIT
// Clusters that no L2 table leads to: which there are.
#include "recover/orphans.h"

#include <stdlib.h>

#include "base/checked.h"
#include "base/zero.h"
#include "check/scan.h"

void q2_orphans_clear(struct q2_orphans *o)
{
    free(o->list);
    free(o->cluster);
    q2_counters_free(o->taken);
    *o = (struct q2_orphans){0};
}

static int note_table(struct q2_work *w, uint64_t offset, bool leads,
                      struct q2_counters *c, struct q2_error *err)
{
    const struct q2_layout *l = &w->found.layout;
    int ret = q2_counters_add(c, offset >> l->cluster_bits, 1, 1, err);
    if (ret == 0 && leads)
        ret = q2_work_read(w, offset, err);
    for (size_t i = 0; leads && i < q2_layout_entries(l) && ret == 0; i++) {
        struct q2_reading r = q2_layout_judge(l, w->survey.file_size, w->table, i);
        if (r.kind == Q2_READS_PLACE)
            ret = q2_counters_add(c, r.offset >> l->cluster_bits, 1, 1, err);
    }
    return ret;
}

// All that a table leads to, and the tables.
static int note_used(struct q2_work *w, struct q2_counters *c, struct q2_error *err)
{
    int ret = q2_counters_add(c, 0, 1, 1, err);
    for (size_t i = 0; i < w->found.n && ret == 0; i++) {
        const struct q2_found_table *t = &w->found.list[i];
        if (!t->stale)
            ret = note_table(w, t->offset, !t->is_l1 && !t->counts, c, err);
    }
    return ret;
}

static int add_run(struct q2_orphans *o, const struct q2_counters *used, uint64_t from,
                   uint64_t to, struct q2_error *err)
{
    void *list = o->list;
    int ret = 0;
    for (uint64_t host = from; host < to && ret == 0; host++) {
        if (q2_counters_get(used, host) > 0)
            continue;
        ret = q2_scan_grow(&list, &o->max, o->n, sizeof(*o->list), err);
        o->list = list;
        if (ret == 0)
            o->list[o->n++] = (struct q2_orphan){host, UINT64_MAX, 0};
    }
    return ret;
}

static int collect(struct q2_orphans *o, struct q2_counters *used, struct q2_error *err)
{
    struct q2_work *w = o->w;
    unsigned bits = w->found.layout.cluster_bits;
    bool data;
    int ret = note_used(w, used, err);
    // The last one may be cut off.
    uint64_t end = q2_align_down(w->survey.file_size, q2_work_cluster_size(w)), next = 0;
    for (uint64_t at = 0, n; at < end && ret == 0; at += n) {
        n = end - at;
        ret = q2_io_extent(w->io, at, &n, &data, err);
        n = q2_min_u64(n, end - at);
        if (ret < 0 || !data)
            continue;
        // A part of a cluster is enough: the rest may be a hole.
        uint64_t to = q2_div_round_up(at + n, q2_work_cluster_size(w));
        ret = add_run(o, used, q2_max_u64(at >> bits, next), to, err);
        next = to;
    }
    return ret;
}

int q2_orphans_collect(struct q2_work *w, struct q2_orphans *o, struct q2_error *err)
{
    struct q2_counters *used = q2_counters_new();
    *o = (struct q2_orphans){.w = w};
    o->taken = q2_counters_new_scattered();
    o->cluster = malloc((size_t)q2_work_cluster_size(w));
    int ret = used && o->taken && o->cluster
                  ? collect(o, used, err)
                  : q2_fail_memory(err, (size_t)q2_work_cluster_size(w));
    q2_counters_free(used);
    if (ret < 0)
        q2_orphans_clear(o);
    return ret;
}

bool q2_orphans_is_open(const struct q2_orphans *o, uint64_t guest)
{
    unsigned bits = q2_work_span_bits(o->w) - o->w->found.layout.cluster_bits;
    uint64_t size = o->w->disk_size ? o->w->disk_size : INT64_MAX;
    return guest < q2_div_round_up(size, q2_work_cluster_size(o->w)) &&
           guest >> bits < Q2_MAX_L1_BYTES / 8 && q2_work_lacks(o->w, guest >> bits) &&
           q2_counters_get(o->taken, guest) == 0;
}

int q2_orphans_put(struct q2_orphans *o, size_t i, uint64_t guest, struct q2_error *err)
{
    o->list[i].guest = guest;
    return q2_counters_add(o->taken, guest, 1, 1, err);
}
