// SPDX-License-Identifier: MIT
// All L1 tables' entries and the L2 tables that they name. A table that several name
// (snapshots share them) is read once.
#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "check/scan.h"

// Neighbouring L2 tables are read together, up to this many bytes.
#define READ_BYTES (UINT32_C(512) << 10)

// One L1 entry that names a usable L2 table.
struct link {
    uint64_t l2_offset;
    uint32_t l1, index; // the L1 table, the entry in it
    uint32_t times;     // how many links name this table
    uint32_t active_times;
};

struct links {
    struct link *list;
    size_t n, max;
};

static int add_link(struct links *k, const struct link *l, struct q2_error *err)
{
    if (k->n == k->max) {
        size_t max = k->max ? k->max * 2 : 256;
        struct link *list = realloc(k->list, max * sizeof(*list));
        if (!list)
            return q2_fail_memory(err, max * sizeof(*list));
        k->list = list;
        k->max = max;
    }
    k->list[k->n++] = *l;
    return 0;
}

enum q2_problem q2_scan_judge_l1(const struct q2_scan *s, uint64_t entry)
{
    uint64_t offset = entry & Q2_OFFSET_MASK;
    if (entry & Q2_L1_RESERVED)
        return Q2_PROBLEM_L1_RESERVED;
    if (offset == 0)
        return Q2_PROBLEM_L1_NO_OFFSET;
    if (!q2_is_aligned(offset, s->cluster_size))
        return Q2_PROBLEM_L1_UNALIGNED;
    if (!q2_scan_in_file(s, offset, s->cluster_size))
        return Q2_PROBLEM_REFERENCE_OUTSIDE;
    if (q2_scan_is_metadata(s, offset, s->cluster_size) &&
        q2_counters_get(s->tables, offset >> s->cluster_bits) == 0)
        return Q2_PROBLEM_L1_ON_METADATA;
    return Q2_N_PROBLEMS;
}

int q2_scan_claim_table(struct q2_scan *s, uint64_t l2_offset, struct q2_error *err)
{
    if (q2_counters_get(s->tables, l2_offset >> s->cluster_bits) > 0)
        return 0;
    int ret = q2_counters_add(s->tables, l2_offset >> s->cluster_bits, 1, 1, err);
    return ret < 0 ? ret : q2_scan_claim(s, l2_offset, s->cluster_size, err);
}

static int report_entry(struct q2_scan *s, const struct q2_scan_l1 *l1, uint32_t index,
                        enum q2_problem problem, struct q2_error *err)
{
    uint64_t entry = l1->entries[index];
    uint64_t span = UINT64_C(1) << (s->l2_bits + s->cluster_bits);
    if (q2_scan_is_full(s) && problem != Q2_PROBLEM_REFERENCE_OUTSIDE) {
        s->corruptions++; // all that would become of it
        return 0;
    }
    struct q2_finding f = {
        .problem = problem,
        .has = Q2_HAS_OFFSET | Q2_HAS_SIZE | Q2_HAS_INDEX | Q2_HAS_ENTRY |
               Q2_HAS_SNAPSHOT | Q2_HAS_GUEST,
        .offset = entry & Q2_OFFSET_MASK,
        .size = s->cluster_size,
        .index = index,
        .entry = entry,
        .snapshot = l1->snapshot,
        .snapshot_name = l1->name,
        .guest_offset = index * span,
        .guest_bytes = span,
        .edit_offset = l1->offset + (uint64_t)index * 8,
        .in_l1 = true,
    };
    struct q2_suspect suspect = {
        .is_l1 = true, .entry = entry, .guest_offset = f.guest_offset};
    suspect.finding = q2_scan_report(s, &s->findings, &f);
    int ret = problem == Q2_PROBLEM_REFERENCE_OUTSIDE
                  ? q2_scan_dangles(s, f.offset, f.size, err)
                  : 0;
    return ret < 0 ? ret : q2_scan_suspect(s, &suspect, err);
}

static int note_hunted(struct q2_scan *s, const struct q2_scan_l1 *l1, uint32_t index,
                       struct q2_error *err)
{
    uint64_t entry = l1->entries[index];
    if (!q2_scan_hunts(s, entry & Q2_OFFSET_MASK))
        return 0;
    return q2_scan_referrer(
        s,
        &(struct q2_referrer){
            .is_l1 = true,
            .snapshot = l1->snapshot,
            .name = l1->name,
            .index = index,
            .entry = entry,
            .previous = index > 0 ? l1->entries[index - 1] : 0,
            .next = index + 1 < l1->n_entries ? l1->entries[index + 1] : 0,
            .host_offset = l1->offset + (uint64_t)index * 8,
            .guest_offset = (uint64_t)index << (s->l2_bits + s->cluster_bits),
            .times = 1},
        err);
}

// The COPIED flag of the active state's entry says: the table's refcount is one.
static int check_copied(struct q2_scan *s, const struct q2_scan_l1 *l1, uint32_t index,
                        struct q2_error *err)
{
    uint64_t entry = l1->entries[index], stored;
    if (l1->snapshot >= 0)
        return 0;
    int ret =
        q2_scan_stored(s, (entry & Q2_OFFSET_MASK) >> s->cluster_bits, &stored, err);
    if (ret < 0 || (stored == 1) == ((entry & Q2_FLAG_COPIED) != 0))
        return ret;
    q2_scan_report(s, &s->late,
                   &(struct q2_finding){
                       .problem = Q2_PROBLEM_COPIED_L2,
                       .has = Q2_HAS_OFFSET | Q2_HAS_INDEX | Q2_HAS_ENTRY |
                              Q2_HAS_REFCOUNT | Q2_HAS_EDIT,
                       .offset = entry & Q2_OFFSET_MASK,
                       .index = index,
                       .entry = entry,
                       .refcount = stored,
                       .snapshot = -1,
                       .snapshot_name = "",
                       .guest_offset = (uint64_t)index << (s->l2_bits + s->cluster_bits),
                       .edit_offset = l1->offset + (uint64_t)index * 8,
                       .edit_value = entry ^ Q2_FLAG_COPIED});
    return 0;
}

static int good_link(struct q2_scan *s, struct links *k, unsigned l1_number,
                     uint32_t index, struct q2_error *err)
{
    const struct q2_scan_l1 *l1 = &s->l1s[l1_number];
    const struct link link = {.l2_offset = l1->entries[index] & Q2_OFFSET_MASK,
                              .l1 = l1_number,
                              .index = index};
    int ret = add_link(k, &link, err);
    if (ret == 0)
        ret = note_hunted(s, l1, index, err);
    return ret < 0 ? ret : check_copied(s, l1, index, err);
}

static int collect(struct q2_scan *s, struct links *k, struct q2_error *err)
{
    int ret = 0;
    for (unsigned t = 0; t < s->n_l1s; t++) {
        const struct q2_scan_l1 *l1 = &s->l1s[t];
        for (uint32_t i = 0; l1->entries && i < l1->n_entries && ret == 0; i++) {
            if (l1->entries[i] == 0)
                continue;
            enum q2_problem problem = q2_scan_judge_l1(s, l1->entries[i]);
            ret = problem != Q2_N_PROBLEMS ? report_entry(s, l1, i, problem, err)
                                           : good_link(s, k, t, i, err);
        }
    }
    return ret;
}

static int by_offset_then_place(const void *a, const void *b)
{
    const struct link *x = a, *y = b;
    if (x->l2_offset != y->l2_offset)
        return x->l2_offset < y->l2_offset ? -1 : 1;
    if (x->l1 != y->l1)
        return x->l1 < y->l1 ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static int by_place(const void *a, const void *b)
{
    const struct link *x = a, *y = b;
    if (x->l1 != y->l1)
        return x->l1 < y->l1 ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

// Mostly they are in order, or nearly, and there may be millions.
static void sort(struct links *k, int (*order)(const void *, const void *))
{
    size_t i = 1;
    while (i < k->n && order(&k->list[i - 1], &k->list[i]) <= 0)
        i++;
    if (i < k->n)
        qsort(k->list, k->n, sizeof(*k->list), order);
}

// Keeps one link for each table, the first, and claims the table's cluster.
static int merge(struct q2_scan *s, struct links *k, struct q2_error *err)
{
    size_t n = 0;
    int ret = 0;
    sort(k, by_offset_then_place);
    for (size_t i = 0; i < k->n && ret == 0; n++) {
        size_t same = 1;
        while (i + same < k->n && k->list[i + same].l2_offset == k->list[i].l2_offset)
            same++;
        const struct link first = k->list[i];
        uint32_t active_times = 0;
        for (size_t m = i; m < i + same; m++)
            active_times += k->list[m].l1 == 0;
        k->list[n] = first;
        k->list[n].times = (uint32_t)same;
        k->list[n].active_times = active_times;
        ret = q2_scan_claim_table(s, k->list[n].l2_offset, err);
        if (ret == 0)
            ret = q2_scan_reference(s, k->list[n].l2_offset, s->cluster_size, same, err);
        i += same;
    }
    k->n = n;
    sort(k, by_place);
    return ret;
}

// A table that is a hole of the file maps nothing: how many of them there are need not
// cost anything. *n_bytes: of the hole from there on.
static int find_hole(struct q2_scan *s, uint64_t offset, uint64_t *n_bytes,
                     struct q2_error *err)
{
    bool data = true;
    *n_bytes = offset < s->file_size ? s->file_size - offset : 0;
    int ret = *n_bytes >= s->cluster_size
                  ? q2_io_extent(s->io, offset, n_bytes, &data, err)
                  : 0;
    if (data || *n_bytes < s->cluster_size)
        *n_bytes = 0;
    return ret;
}

static struct q2_scan_link link_of(const struct q2_scan *s, const struct link *k)
{
    return (struct q2_scan_link){.l1 = &s->l1s[k->l1],
                                 .index = k->index,
                                 .times = k->times,
                                 .active_times = k->active_times};
}

// Reads and scans n tables that lie side by side.
static int scan_run(struct q2_scan *s, const struct link *links, size_t n, uint64_t *buf,
                    struct q2_error *err)
{
    size_t per_table = s->cluster_size / 8;
    int ret = q2_io_read(s->io, links[0].l2_offset, buf, n * s->cluster_size, err);
    if (ret < 0)
        return q2_context(err, "Could not read L2 table");
    q2_table_decode(buf, buf, n * per_table);
    for (size_t i = 0; i < n && ret == 0; i++) {
        const struct q2_scan_link link = link_of(s, &links[i]);
        ret = q2_scan_l2_table(s, &link, buf + i * per_table, err);
    }
    return ret;
}

// L2 tables and refcount blocks; data as much as the file can hold, since how much of it
// is named is not known before the end.
static void plan_work(struct q2_scan *s, size_t n_tables)
{
    uint64_t n = n_tables;
    for (uint64_t i = 0; i < s->refcount_table_size; i++)
        n += s->refcount_table[i] != 0;
    s->data_left = s->read_data ? s->file_size : 0;
    s->work = 0;
    if (!q2_mul_u64(n, s->cluster_size, &s->work_total) ||
        !q2_add_u64(s->work_total, s->data_left, &s->work_total))
        s->work_total = UINT64_MAX;
}

static int scan_links(struct q2_scan *s, const struct links *k, struct q2_error *err)
{
    size_t most = q2_to_size(q2_max_u64(READ_BYTES / s->cluster_size, 1));
    uint64_t *buf =
        malloc(q2_to_size(q2_min_u64(most, q2_max_u64(k->n, 1)) * s->cluster_size));
    if (!buf)
        return q2_fail_memory(err, most * s->cluster_size);
    int ret = 0;
    uint64_t hole_start = 0, hole_bytes = 0;
    plan_work(s, k->n);
    for (size_t i = 0; i < k->n && ret == 0;) {
        size_t n = 1;
        uint64_t at = k->list[i].l2_offset;
        if (at < hole_start || at - hole_start >= hole_bytes) {
            hole_start = at;
            ret = find_hole(s, at, &hole_bytes, err);
            if (ret < 0)
                break;
        }
        if (at - hole_start + s->cluster_size <= hole_bytes) {
            const struct q2_scan_link link = link_of(s, &k->list[i++]);
            q2_scan_note_empty(s, &link);
            ret = q2_scan_worked(s, s->cluster_size, err);
            continue;
        }
        while (n < most && i + n < k->n &&
               k->list[i + n].l2_offset == k->list[i].l2_offset + n * s->cluster_size)
            n++;
        ret = scan_run(s, k->list + i, n, buf, err);
        i += n;
        if (ret == 0)
            ret = q2_scan_worked(s, n * s->cluster_size, err);
    }
    free(buf);
    // Not all of the file is data, and snapshots share it.
    return ret < 0 ? ret : q2_scan_worked(s, s->data_left, err);
}

// A region that the header or a snapshot names.
int q2_scan_region(struct q2_scan *s, uint64_t offset, uint64_t n_bytes,
                   struct q2_error *err)
{
    if (n_bytes == 0)
        return 0;
    if (q2_scan_in_file(s, offset, n_bytes))
        return q2_scan_reference(s, offset, n_bytes, 1, err);
    q2_scan_report(s, &s->findings,
                   &(struct q2_finding){.problem = Q2_PROBLEM_REFERENCE_OUTSIDE,
                                        .has = Q2_HAS_OFFSET | Q2_HAS_SIZE,
                                        .offset = offset,
                                        .size = n_bytes});
    return 0;
}

int q2_scan_mapping(struct q2_scan *s, struct q2_error *err)
{
    struct links k = {0};
    int ret = collect(s, &k, err);
    if (ret == 0)
        ret = merge(s, &k, err);
    if (ret == 0)
        ret = scan_links(s, &k, err);
    free(k.list);
    return ret < 0 ? ret
                   : q2_scan_region(s, s->header.snapshots_offset,
                                    s->snapshot_table_bytes, err);
}
