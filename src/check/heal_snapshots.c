// SPDX-License-Identifier: MIT
// Healing the snapshot table: it is written anew at the end of the file, without what
// cannot be saved, and switched to with one write of the header.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "check/repair.h"

#define HEADER_SNAPSHOTS 60U // count (4 bytes) and offset (8)
// A damaged count may be anything: no more lost snapshots than these are listed.
#define MAX_LISTED 64U

static bool is_snapshot_problem(enum q2_problem problem)
{
    return problem == Q2_PROBLEM_SNAPSHOT_TABLE || problem == Q2_PROBLEM_SNAPSHOT_L1 ||
           problem == Q2_PROBLEM_SNAPSHOT_INCOMPLETE ||
           problem == Q2_PROBLEM_SNAPSHOT_DUPLICATE_ID;
}

// Which snapshots are lost: by index. The caller frees it.
static int list_lost(const struct q2_scan *s, bool **out, struct q2_error *err)
{
    bool *lost = calloc((size_t)s->n_snapshots + 1, sizeof(*lost));
    if (!lost)
        return q2_fail_memory(err, s->n_snapshots);
    for (unsigned i = 0; i < s->n_snapshots; i++)
        lost[i] = q2_scan_is_blank(&s->snapshots[i]);
    for (size_t i = 0; i < s->findings.n; i++) {
        const struct q2_finding *f = &s->findings.list[i];
        if (f->problem == Q2_PROBLEM_SNAPSHOT_L1 && f->index < s->n_snapshots)
            lost[f->index] = true;
    }
    *out = lost;
    return 0;
}

static uint64_t largest_id(const struct q2_scan *s)
{
    uint64_t most = 0;
    for (unsigned i = 0; i < s->n_snapshots; i++)
        most = q2_max_u64(most, strtoull(s->snapshots[i].id, NULL, 10));
    return most < UINT64_MAX ? most : 0;
}

static int give_new_id(struct q2_scan *s, unsigned index, uint64_t *next,
                       struct q2_error *err)
{
    char *id = malloc(24);
    if (!id)
        return q2_fail_memory(err, 24);
    snprintf(id, 24, "%" PRIu64, ++*next);
    free(s->snapshots[index].id);
    s->snapshots[index].id = id;
    return 0;
}

// Mends the entries in memory; what is lost is left out by the writer.
static int mend(struct q2_plan *p, struct q2_scan *s, const bool *lost,
                struct q2_error *err)
{
    uint64_t next = largest_id(s);
    int ret = 0;
    for (size_t i = 0; i < s->findings.n && ret == 0; i++) {
        struct q2_finding f = s->findings.list[i];
        if (!is_snapshot_problem(f.problem))
            continue;
        if (f.index < s->n_snapshots) {
            struct q2_snapshot *sn = &s->snapshots[f.index];
            if (f.problem == Q2_PROBLEM_SNAPSHOT_INCOMPLETE && !sn->has_disk_size) {
                sn->has_disk_size = true;
                sn->disk_size = s->header.size;
            }
            bool nameless =
                f.problem == Q2_PROBLEM_SNAPSHOT_INCOMPLETE && !*sn->id && !lost[f.index];
            if (nameless || f.problem == Q2_PROBLEM_SNAPSHOT_DUPLICATE_ID)
                ret = give_new_id(s, (unsigned)f.index, &next, err);
            f.lossy |= lost[f.index];
        }
        if (ret == 0)
            ret = q2_plan_note(p, &f, err);
        // What follows a damaged entry cannot be found: these are lost, too.
        for (uint64_t k = f.index + 1;
             f.problem == Q2_PROBLEM_SNAPSHOT_TABLE && ret == 0 &&
             k < s->header.nb_snapshots && k < f.index + MAX_LISTED;
             k++) {
            struct q2_finding other = f;
            other.index = k;
            other.snapshot = (int)k;
            ret = q2_plan_note(p, &other, err);
        }
    }
    return ret;
}

// The new table's bytes; *n_kept entries.
static int encode(const struct q2_scan *s, const bool *lost, uint8_t **out,
                  size_t *n_bytes, uint32_t *n_kept, struct q2_error *err)
{
    *n_bytes = 0;
    *n_kept = 0;
    for (unsigned i = 0; i < s->n_snapshots; i++) {
        if (!lost[i])
            *n_bytes += q2_snapshot_bytes(&s->snapshots[i]);
    }
    uint8_t *buf = calloc(1, q2_to_size(q2_align_up(*n_bytes + 1, s->cluster_size)));
    if (!buf)
        return q2_fail_memory(err, *n_bytes);
    size_t at = 0;
    for (unsigned i = 0; i < s->n_snapshots; i++) {
        if (lost[i])
            continue;
        q2_snapshot_encode(&s->snapshots[i], buf + at);
        at += q2_snapshot_bytes(&s->snapshots[i]);
        ++*n_kept;
    }
    *out = buf;
    return 0;
}

static int write_table(struct q2_plan *p, const struct q2_scan *s, const uint8_t *table,
                       size_t n_bytes, uint32_t n_kept, struct q2_error *err)
{
    uint8_t field[12] = {0};
    uint64_t offset = 0;
    int ret = 0;
    if (n_kept > 0) {
        ret = q2_plan_place(p, q2_div_round_up(n_bytes, s->cluster_size), &offset, err);
        if (ret == 0)
            ret = q2_io_write(p->overlay, offset, table,
                              q2_to_size(q2_align_up(n_bytes, s->cluster_size)), err);
        if (ret == 0)
            ret = q2_io_flush(p->overlay, err);
    }
    q2_store_be32(field, n_kept);
    q2_store_be64(field + 4, offset);
    if (ret == 0)
        ret = q2_edit_header(p->overlay, HEADER_SNAPSHOTS, field, sizeof(field), err);
    return ret < 0 ? ret : q2_io_flush(p->overlay, err);
}

int q2_heal_snapshots(struct q2_plan *p, struct q2_scan *s, bool *changed,
                      struct q2_error *err)
{
    bool any = false;
    for (size_t i = 0; i < s->findings.n; i++)
        any |= is_snapshot_problem(s->findings.list[i].problem);
    if (!any)
        return 0;
    uint8_t *table = NULL;
    size_t n_bytes = 0;
    uint32_t n_kept = 0;
    bool *lost = NULL;
    int ret = list_lost(s, &lost, err);
    if (ret == 0)
        ret = mend(p, s, lost, err);
    if (ret == 0)
        ret = encode(s, lost, &table, &n_bytes, &n_kept, err);
    free(lost);
    if (ret < 0)
        return ret;
    ret = write_table(p, s, table, n_bytes, n_kept, err);
    free(table);
    *changed = true;
    return ret;
}
