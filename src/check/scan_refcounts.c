// SPDX-License-Identifier: MIT
// The refcount structures: judged after the mapping, because they can be computed anew
// and the mapping cannot; then every stored count against the references that were found.
#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/zero.h"
#include "check/scan.h"

static unsigned block_bits(const struct q2_scan *s)
{
    return s->cluster_bits + 3 - s->format->order;
}

static uint64_t table_bytes(const struct q2_scan *s)
{
    return (uint64_t)s->header.refcount_table_clusters << s->cluster_bits;
}

int q2_scan_load_refcount_table(struct q2_scan *s, struct q2_error *err)
{
    uint64_t offset = s->header.refcount_table_offset;
    uint64_t there = offset < s->file_size ? s->file_size - offset : 0;
    size_t n = q2_to_size(q2_min_u64(table_bytes(s), q2_align_up(there, 8)) / 8);
    s->refcount_table = calloc(q2_to_size(q2_max_u64(n, 1)), 8);
    if (!s->refcount_table)
        return q2_fail_memory(err, n * 8);
    int ret = q2_io_read(s->io, offset, s->refcount_table, n * 8, err);
    if (ret < 0)
        return q2_context(err, "Could not read the refcount table");
    q2_table_decode(s->refcount_table, s->refcount_table, n);
    s->refcount_table_size = n;
    return 0;
}

static struct q2_finding about_block(const struct q2_scan *s, uint64_t index,
                                     enum q2_problem problem)
{
    uint64_t entry = s->refcount_table[index];
    return (struct q2_finding){
        .problem = problem,
        .has = Q2_HAS_INDEX | Q2_HAS_ENTRY | Q2_HAS_OFFSET,
        .index = index,
        .entry = entry,
        .offset = entry & Q2_OFFSET_MASK,
        .edit_offset = s->header.refcount_table_offset + index * 8,
    };
}

// Stray bits: without them the entry is a block, if that place is nobody else's.
static void report_reserved(struct q2_scan *s, uint64_t index)
{
    struct q2_finding f = about_block(s, index, Q2_PROBLEM_REFTABLE_RESERVED);
    uint64_t clean = q2_align_down(f.offset, s->cluster_size);
    if (clean != 0 && q2_scan_in_file(s, clean, s->cluster_size) &&
        q2_counters_get(s->references, clean >> s->cluster_bits) == 0) {
        f.has |= Q2_HAS_EDIT;
        f.edit_value = clean;
    } else {
        s->rebuild = true;
    }
    q2_scan_report(s, &s->findings, &f);
}

// Counts are compared in stretches of this many bytes of a block; where all are zero, and
// nothing is referenced, there is nothing to compare.
#define STRETCH_BYTES Q2_SCAN_STRETCH

static uint64_t stretch_counts(const struct q2_scan *s)
{
    return (STRETCH_BYTES * UINT64_C(8)) >> s->format->order;
}

// The stretch of the block that begins with count i; first: the cluster of count 0.
static bool is_empty_stretch(const struct q2_scan *s, const struct q2_table *t,
                             uint64_t first, uint64_t i)
{
    const uint8_t *bytes = t->data;
    return q2_is_zero(bytes + (i << s->format->order) / 8, STRETCH_BYTES) &&
           !q2_counters_any(s->references, first + i, stretch_counts(s));
}

// All that is in it is in use once: nothing is wrong.
static bool is_plain_stretch(const struct q2_scan *s, const struct q2_table *t,
                             uint64_t first, uint64_t i)
{
    return q2_scan_are_ones(s, t, i, stretch_counts(s)) &&
           q2_counters_all_one(s->references, first + i, stretch_counts(s));
}

// The block and the table that are being judged: their references are not counted yet, or
// are those of others.
static bool is_judged(const struct q2_scan *s, uint64_t index, uint64_t cluster)
{
    uint64_t table = s->header.refcount_table_offset >> s->cluster_bits;
    return cluster == (s->refcount_table[index] & Q2_OFFSET_MASK) >> s->cluster_bits ||
           (cluster >= table && cluster - table < s->header.refcount_table_clusters);
}

// Behind the end of the file, and of all that is referenced, no count says anything: a
// refcount table may be a million times as long as what it counts.
static bool is_idle_block(const struct q2_scan *s, uint64_t index)
{
    uint64_t first = index << block_bits(s);
    return first >= s->file_clusters &&
           !q2_counters_any(s->references, first, UINT64_C(1) << block_bits(s));
}

// Do the counts in this block fit what was found? Then it is a block, and whoever else
// points to its cluster is wrong.
static int makes_sense(struct q2_scan *s, uint64_t index, bool *sense,
                       struct q2_error *err)
{
    struct q2_table *t;
    uint64_t first = index << block_bits(s), per_block = UINT64_C(1) << block_bits(s);
    uint64_t n_used = 0, n_wrong = 0;
    if (is_idle_block(s, index))
        return 0;
    int ret = q2_scan_block(s, first, &t, err);
    if (ret < 0 || !t)
        return ret;
    for (uint64_t i = 0; i < per_block; i++) {
        if (i % stretch_counts(s) == 0 && is_empty_stretch(s, t, first, i)) {
            i += stretch_counts(s) - 1;
            continue;
        }
        uint64_t stored = s->format->get(t->data, i);
        uint64_t counted = q2_counters_get(s->references, first + i);
        if (is_judged(s, index, first + i))
            continue;
        n_used += stored > 0 || counted > 0;
        n_wrong += stored != counted;
    }
    *sense = n_used > 0 && n_wrong * 4 <= n_used;
    return 0;
}

int q2_scan_preclaim(struct q2_scan *s, uint64_t cluster, struct q2_error *err)
{
    for (size_t i = 0; i < s->n_preclaimed; i++) {
        if (s->preclaimed[i] == cluster)
            return 0;
    }
    void *list = s->preclaimed;
    int ret =
        q2_scan_grow(&list, &s->max_preclaimed, s->n_preclaimed, sizeof(uint64_t), err);
    if (ret < 0)
        return ret;
    s->preclaimed = list;
    s->preclaimed[s->n_preclaimed++] = cluster;
    s->again = true;
    return 0;
}

static int shared_block(struct q2_scan *s, uint64_t index, uint64_t n_references,
                        struct q2_error *err)
{
    struct q2_finding f = about_block(s, index, Q2_PROBLEM_REFBLOCK_SHARED);
    bool sense = false;
    f.has |= Q2_HAS_REFERENCE;
    f.reference = n_references;
    q2_scan_report(s, &s->findings, &f);
    s->rebuild = true;
    int ret = makes_sense(s, index, &sense, err);
    if (ret == 0 && sense)
        ret = q2_scan_preclaim(s, f.offset >> s->cluster_bits, err);
    return ret;
}

static int judge_block(struct q2_scan *s, uint64_t index, struct q2_error *err)
{
    uint64_t entry = s->refcount_table[index];
    enum q2_problem problem;
    if (entry & (Q2_REFCOUNT_TABLE_RESERVED | ~(Q2_OFFSET_MASK | 0x1ff))) {
        report_reserved(s, index);
        return 0;
    }
    if (!q2_is_aligned(entry, s->cluster_size))
        problem = Q2_PROBLEM_REFBLOCK_UNALIGNED;
    else if (!q2_scan_in_file(s, entry, s->cluster_size))
        problem = Q2_PROBLEM_REFBLOCK_OUTSIDE;
    else {
        int ret = q2_scan_reference(s, entry, s->cluster_size, 1, err);
        uint64_t n = q2_counters_get(s->references, entry >> s->cluster_bits);
        return ret < 0 || n == 1 ? ret : shared_block(s, index, n, err);
    }
    struct q2_finding f = about_block(s, index, problem);
    q2_scan_report(s, &s->findings, &f);
    s->rebuild = true;
    return 0;
}

static void report_table(struct q2_scan *s)
{
    q2_scan_report(s, &s->findings,
                   &(struct q2_finding){.problem = Q2_PROBLEM_REFTABLE_OUTSIDE,
                                        .has = Q2_HAS_OFFSET | Q2_HAS_SIZE,
                                        .offset = s->header.refcount_table_offset,
                                        .size = table_bytes(s)});
    s->rebuild = true;
}

// So many blocks are looked at.
#define MAX_SAMPLE 64U

// A table whose entries are blocks that make sense is the table; else its place is
// somebody else's.
static int table_is_real(struct q2_scan *s, bool *real, struct q2_error *err)
{
    uint64_t n_used = 0, n_good = 0;
    for (uint64_t i = 0; i < s->refcount_table_size && n_used < MAX_SAMPLE; i++) {
        bool sense = false;
        if (s->refcount_table[i] == 0)
            continue;
        n_used++;
        int ret = makes_sense(s, i, &sense, err);
        if (ret < 0)
            return ret;
        n_good += sense;
    }
    *real = n_good > 0 && n_good * 2 > n_used;
    return 0;
}

static int judge_table(struct q2_scan *s, bool *usable, struct q2_error *err)
{
    uint64_t offset = s->header.refcount_table_offset, n_bytes = table_bytes(s);
    uint64_t first = offset >> s->cluster_bits;
    *usable = q2_scan_in_file(s, offset, n_bytes);
    if (!*usable) {
        report_table(s);
        return 0;
    }
    bool shared = false, real = false;
    for (uint64_t c = first; c < first + s->header.refcount_table_clusters; c++)
        shared |= q2_counters_get(s->references, c) > 0;
    if (!shared)
        return q2_scan_reference(s, offset, n_bytes, 1, err);
    report_table(s);
    int ret = table_is_real(s, &real, err);
    for (uint64_t c = first;
         real && ret == 0 && c < first + s->header.refcount_table_clusters; c++) {
        if (q2_counters_get(s->references, c) > 0)
            ret = q2_scan_preclaim(s, c, err);
    }
    *usable = real;
    return ret;
}

int q2_scan_refcount_table(struct q2_scan *s, struct q2_error *err)
{
    bool usable;
    int ret = judge_table(s, &usable, err);
    for (uint64_t i = 0; ret == 0 && usable && i < s->refcount_table_size; i++) {
        if (s->refcount_table[i] == 0)
            continue;
        ret = judge_block(s, i, err);
        if (ret == 0 && s->rebuild)
            ret = q2_scan_worked(s, 0, err);
    }
    return ret;
}

// A run of clusters with the same counts, not yet reported.
struct run {
    uint64_t cluster, n, stored, counted;
};

static void report_run(struct q2_scan *s, struct run *r)
{
    bool leak = r->stored > r->counted;
    if (r->n > 0)
        q2_scan_report(s, &s->findings,
                       &(struct q2_finding){.problem = leak ? Q2_PROBLEM_REFCOUNT_TOO_HIGH
                                                            : Q2_PROBLEM_REFCOUNT_TOO_LOW,
                                            .has = Q2_HAS_CLUSTER | Q2_HAS_REFCOUNT |
                                                   Q2_HAS_REFERENCE,
                                            .cluster = r->cluster,
                                            .count = r->n,
                                            .refcount = r->stored,
                                            .reference = r->counted});
    r->n = 0;
}

static int add_orphan(struct q2_scan *s, uint64_t cluster, struct q2_error *err)
{
    void *list = s->orphans;
    if (s->n_orphans >= Q2_MAX_ORPHANS) {
        s->too_many_orphans = true;
        return 0;
    }
    int ret = q2_scan_grow(&list, &s->max_orphans, s->n_orphans, sizeof(uint64_t), err);
    if (ret < 0)
        return ret;
    s->orphans = list;
    s->orphans[s->n_orphans++] = cluster;
    return 0;
}

static int compare_one(struct q2_scan *s, struct run *r, uint64_t cluster,
                       uint64_t stored, uint64_t counted, struct q2_error *err)
{
    // What is counted behind the end of the file is nowhere, so it wastes nothing.
    if (counted == 0 && cluster >= s->file_clusters)
        return 0;
    s->highest_cluster = q2_max_u64(s->highest_cluster, cluster);
    if (stored == counted)
        return 0;
    if (stored > counted)
        s->surplus += stored - counted;
    if (stored > counted && counted > 0)
        s->shared_surplus += stored - counted;
    if (stored < counted)
        s->deficit += counted - stored;
    if (r->n == 0 || r->cluster + r->n != cluster || r->stored != stored ||
        r->counted != counted) {
        report_run(s, r);
        *r = (struct run){.cluster = cluster, .stored = stored, .counted = counted};
    }
    r->n++;
    if (counted > s->format->max)
        s->rebuild = true; // wider entries are needed
    return counted == 0 ? add_orphan(s, cluster, err) : 0;
}

static int compare_block(struct q2_scan *s, struct run *r, uint64_t first,
                         const struct q2_table *t, struct q2_error *err)
{
    uint64_t per_block = UINT64_C(1) << block_bits(s);
    int ret = 0;
    for (uint64_t k = 0; k < per_block && ret == 0; k += stretch_counts(s)) {
        if (is_empty_stretch(s, t, first, k))
            continue;
        if (is_plain_stretch(s, t, first, k)) {
            s->highest_cluster =
                q2_max_u64(s->highest_cluster, first + k + stretch_counts(s) - 1);
            continue;
        }
        for (uint64_t i = k; i < k + stretch_counts(s) && ret == 0; i++) {
            uint64_t stored = s->format->get(t->data, i);
            uint64_t counted = q2_counters_get(s->references, first + i);
            if (stored > 0 || counted > 0)
                ret = compare_one(s, r, first + i, stored, counted, err);
        }
    }
    return ret;
}

// References in a range that no block describes: a block is missing.
static int compare_hole(struct q2_scan *s, struct run *r, uint64_t from, uint64_t to,
                        struct q2_error *err)
{
    uint64_t start, n, counted;
    int ret = 0;
    while (ret == 0 && q2_counters_next(s->references, from, &start, &n, &counted) &&
           start < to) {
        n = q2_min_u64(n, to - start);
        s->rebuild = true;
        for (uint64_t i = 0; i < n && ret == 0; i++)
            ret = compare_one(s, r, start + i, 0, counted, err);
        from = start + n;
    }
    return ret;
}

int q2_scan_compare(struct q2_scan *s, struct q2_error *err)
{
    struct run r = {0};
    uint64_t hole = 0; // first cluster not yet compared
    int ret = 0;
    for (uint64_t i = 0; i < s->refcount_table_size && ret == 0; i++) {
        struct q2_table *t;
        uint64_t first = i << block_bits(s);
        if (s->refcount_table[i] == 0 || is_idle_block(s, i))
            continue;
        ret = q2_scan_block(s, first, &t, err);
        if (ret < 0 || !t)
            continue;
        ret = compare_hole(s, &r, hole, first, err);
        if (ret == 0)
            ret = compare_block(s, &r, first, t, err);
        if (ret == 0)
            ret = q2_scan_worked(s, s->cluster_size, err);
        hole = (i + 1) << block_bits(s);
    }
    if (ret == 0)
        ret = compare_hole(s, &r, hole, UINT64_MAX, err);
    report_run(s, &r);
    return ret;
}
