// SPDX-License-Identifier: MIT
// The snapshot table.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "check/scan.h"

#define ENTRY_STRING_SIZES 12U // of id and name, two bytes each

static void report(struct q2_scan *s, enum q2_problem problem, unsigned index,
                   const char *name)
{
    q2_scan_report(s, &s->findings,
                   &(struct q2_finding){.problem = problem,
                                        .has = Q2_HAS_INDEX | Q2_HAS_SNAPSHOT,
                                        .index = index,
                                        .snapshot = (int)index,
                                        .snapshot_name = name,
                                        .lossy = problem == Q2_PROBLEM_SNAPSHOT_TABLE});
}

// Decodes the entry at offset, with the eight bytes that m has put right (NULL: as it
// stands). What lies behind the end of the file reads as zeros.
static int read_entry(struct q2_scan *s, uint64_t offset, unsigned index,
                      const struct q2_mended *m, struct q2_snapshot *out, size_t *used,
                      struct q2_error *err)
{
    const size_t most = 40 + Q2_MAX_SNAPSHOT_EXTRA_BYTES + 2 * 65535 + 8;
    int ret = -ENODATA;
    for (size_t want = 512; ret == -ENODATA; want = most) {
        uint8_t *buf = malloc(want);
        if (!buf)
            return q2_fail_memory(err, want);
        ret = q2_io_read(s->io, offset, buf, want, err);
        if (ret == 0 && m && m->field)
            memcpy(buf + (m->at & ~7U), m->bytes, sizeof(m->bytes));
        if (ret == 0)
            ret = q2_snapshot_decode(buf, want, index, out, used, err);
        free(buf);
        if (want == most)
            break;
    }
    return ret;
}

// The snapshot at an index, for sorting by id.
struct by_id {
    const char *id;
    unsigned index;
};

static int compare_ids(const void *a, const void *b)
{
    const struct by_id *x = a, *y = b;
    int order = strcmp(x->id, y->id);
    return order ? order : (x->index > y->index) - (x->index < y->index);
}

static int report_duplicates(struct q2_scan *s, struct q2_error *err)
{
    struct by_id *list = malloc((s->n_snapshots + 1) * sizeof(*list));
    if (!list)
        return q2_fail_memory(err, (s->n_snapshots + 1) * sizeof(*list));
    for (unsigned i = 0; i < s->n_snapshots; i++)
        list[i] = (struct by_id){s->snapshots[i].id, i};
    qsort(list, s->n_snapshots, sizeof(*list), compare_ids);
    for (unsigned i = 1; i < s->n_snapshots; i++) {
        if (*list[i].id && strcmp(list[i - 1].id, list[i].id) == 0)
            report(s, Q2_PROBLEM_SNAPSHOT_DUPLICATE_ID, list[i].index,
                   s->snapshots[list[i].index].name);
    }
    free(list);
    return 0;
}

static int grow(struct q2_scan *s, unsigned *max, struct q2_error *err)
{
    if (s->n_snapshots < *max)
        return 0;
    unsigned n = *max ? *max * 2 : 16;
    struct q2_snapshot *list = realloc(s->snapshots, n * sizeof(*list));
    if (list)
        s->snapshots = list;
    uint64_t *offsets = realloc(s->snapshot_offsets, n * sizeof(*offsets));
    if (offsets)
        s->snapshot_offsets = offsets;
    if (!list || !offsets)
        return q2_fail_memory(err, n * sizeof(*list));
    *max = n;
    return 0;
}

// The entry's strings are as long as it says: no zero bytes in them.
static int has_whole_strings(struct q2_scan *s, uint64_t at, const struct q2_snapshot *sn,
                             bool *yes, struct q2_error *err)
{
    uint8_t sizes[4];
    int ret = q2_io_read(s->io, at + ENTRY_STRING_SIZES, sizes, sizeof(sizes), err);
    *yes = ret == 0 && q2_load_be16(sizes) == strlen(sn->id) &&
           q2_load_be16(sizes + 2) == strlen(sn->name);
    return ret;
}

// Does the entry describe a snapshot that can be?
static bool is_sane(const struct q2_scan *s, const struct q2_snapshot *sn)
{
    return *sn->id && sn->l1_table_offset != 0 &&
           q2_is_aligned(sn->l1_table_offset, s->cluster_size) &&
           q2_scan_in_file(s, sn->l1_table_offset, (uint64_t)sn->l1_size * 8);
}

// An entry must not lie on what the active state owns. Where an active L1 entry names the
// place of an entry that makes sense, it is the L1 entry that is wrong.
static int believable(struct q2_scan *s, uint64_t at, size_t used,
                      const struct q2_snapshot *sn, bool *yes, struct q2_error *err)
{
    uint64_t first = at >> s->cluster_bits;
    int ret = has_whole_strings(s, at, sn, yes, err);
    if (ret < 0 || !*yes || !q2_scan_is_metadata(s, at, used))
        return ret;
    *yes = q2_scan_is_preclaimed(s, at);
    if (!*yes && is_sane(s, sn) && q2_counters_get(s->tables, first) > 0)
        ret = q2_scan_preclaim(s, first, err);
    return ret;
}

static void report_field(struct q2_scan *s, uint64_t at, unsigned index, const char *name,
                         const struct q2_mended *m)
{
    q2_scan_report(s, &s->findings,
                   &(struct q2_finding){.problem = Q2_PROBLEM_SNAPSHOT_FIELD,
                                        .has = Q2_HAS_INDEX | Q2_HAS_SNAPSHOT |
                                               Q2_HAS_OFFSET | Q2_HAS_VALUE |
                                               Q2_HAS_WANTED | Q2_HAS_EDIT,
                                        .offset = at + m->at,
                                        .index = index,
                                        .snapshot = (int)index,
                                        .snapshot_name = name,
                                        .field = m->field,
                                        .value = m->value,
                                        .wanted = m->wanted,
                                        .edit_offset = at + (m->at & ~7U),
                                        .edit_value = q2_load_be64(m->bytes)});
}

// Decodes the entry if it can be believed. -EINVAL: it cannot.
static int sound_entry(struct q2_scan *s, unsigned index, uint64_t at,
                       struct q2_snapshot *sn, size_t *used, struct q2_error *err)
{
    struct q2_error why = Q2_ERROR_INIT;
    bool believe = true;
    int ret = read_entry(s, at, index, NULL, sn, used, &why);
    if (ret == -ENOMEM || ret == -EIO) {
        *err = why;
        return ret;
    }
    if (ret != 0)
        return -EINVAL;
    ret = believable(s, at, *used, sn, &believe, err);
    if (ret == 0 && !believe)
        ret = -EINVAL;
    if (ret < 0)
        q2_snapshot_clear(sn);
    return ret;
}

// Decodes an entry that cannot be believed as it stands. *stop: nor with any one field
// changed; what follows cannot be found either.
static int damaged_entry(struct q2_scan *s, unsigned index, uint64_t at,
                         struct q2_snapshot *sn, size_t *used, bool *stop,
                         struct q2_error *err)
{
    struct q2_mended m;
    bool mended;
    int ret = q2_scan_mend_entry(s, at, s->header.nb_snapshots - index, &m, &mended, err);
    if (ret == 0 && mended)
        ret = read_entry(s, at, index, &m, sn, used, err);
    if (ret != 0)
        return ret;
    *stop = !mended;
    if (!mended)
        report(s, Q2_PROBLEM_SNAPSHOT_TABLE, index, "");
    else if (m.field)
        report_field(s, at, index, sn->name, &m);
    else
        report(s, Q2_PROBLEM_SNAPSHOT_INCOMPLETE, index, sn->name);
    return 0;
}

// An entry that could be, but that no program would make: would it make more sense with
// one length changed?
static int odd_entry(struct q2_scan *s, unsigned index, uint64_t at,
                     struct q2_snapshot *sn, size_t *used, struct q2_error *err)
{
    struct q2_snapshot other;
    struct q2_mended m;
    bool mended;
    int ret = q2_scan_mend_entry(s, at, s->header.nb_snapshots - index, &m, &mended, err);
    if (ret < 0 || !mended || !m.field)
        return ret;
    ret = read_entry(s, at, index, &m, &other, used, err);
    if (ret < 0)
        return ret;
    q2_snapshot_clear(sn);
    *sn = other;
    report_field(s, at, index, sn->name, &m);
    return 0;
}

static int one_entry(struct q2_scan *s, unsigned index, uint64_t *at, bool *stop,
                     struct q2_error *err)
{
    struct q2_snapshot sn;
    size_t used;
    bool sound = true;
    int ret = sound_entry(s, index, *at, &sn, &used, err);
    if (ret == -EINVAL) {
        sound = false;
        ret = damaged_entry(s, index, *at, &sn, &used, stop, err);
    }
    if (ret == 0 && sound && !q2_scan_plausible_strings(&sn)) {
        ret = odd_entry(s, index, *at, &sn, &used, err);
        if (ret != 0)
            q2_snapshot_clear(&sn);
    }
    if (ret != 0 || *stop)
        return ret;
    bool blank = q2_scan_is_blank(&sn);
    if (sound && (blank || (s->header.version >= 3 && !sn.has_disk_size)))
        report(s, Q2_PROBLEM_SNAPSHOT_INCOMPLETE, index, sn.name);
    s->snapshots[s->n_snapshots] = sn;
    s->snapshot_offsets[s->n_snapshots++] = *at;
    // The last entry's padding does not count.
    s->snapshot_table_bytes = *at + used - s->header.snapshots_offset;
    *at += q2_align_up(used, 8);
    return 0;
}

int q2_scan_snapshots(struct q2_scan *s, struct q2_error *err)
{
    uint64_t at = s->header.snapshots_offset;
    unsigned max = 0;
    bool stop = false;
    for (unsigned i = 0; i < s->header.nb_snapshots && !stop; i++) {
        int ret = grow(s, &max, err);
        if (ret == 0)
            ret = one_entry(s, i, &at, &stop, err);
        if (ret < 0)
            return ret;
    }
    return report_duplicates(s, err);
}
