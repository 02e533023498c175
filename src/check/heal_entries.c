// SPDX-License-Identifier: MIT
// Healing entries of L1 and L2 tables: the right value, or zeros and a note of what is
// lost.
#include <errno.h>

#include "base/checked.h"
#include "base/endian.h"
#include "check/l2.h"
#include "check/repair.h"

// Of the field in the header.
#define AT_L1_SIZE 36U

// Fills bytes first .. end of the table at offset with an entry, that is as long as wide
// says.
static int fill_entries(struct q2_plan *p, uint64_t offset, uint64_t first, uint64_t end,
                        struct q2_l2_words w, bool wide, struct q2_error *err)
{
    uint8_t bytes[65536];
    size_t used = (size_t)q2_min_u64(end - first, sizeof(bytes)); // mostly one entry
    int ret = 0;
    for (size_t i = 0; i < used; i += 16) {
        q2_store_be64(bytes + i, w.entry);
        q2_store_be64(bytes + i + 8, wide ? w.bitmap : w.entry);
    }
    for (uint64_t at = first, n; at < end && ret == 0; at += n) {
        n = q2_min_u64(end - at, sizeof(bytes));
        ret = q2_io_write(p->overlay, offset + at, bytes, (size_t)n, err);
    }
    return ret;
}

// Notes what an entry loses: all of its cluster, or the subclusters that were stored.
static int note_entry(struct q2_plan *p, const struct q2_scan *s,
                      const struct q2_finding *f, struct q2_error *err)
{
    uint64_t part = s->cluster_size / Q2_SUBCLUSTERS;
    int ret = 0;
    for (unsigned i = 0, n; i < Q2_SUBCLUSTERS && ret == 0; i += n) {
        struct q2_finding run = *f;
        bool lost = f->lossy && f->lost_bits ? (f->lost_bits >> i) & 1 : true;
        for (n = 1; i + n < Q2_SUBCLUSTERS; n++) {
            if (f->lossy && f->lost_bits && ((f->lost_bits >> (i + n)) & 1) != lost)
                break;
        }
        if (!lost)
            continue;
        if (n < Q2_SUBCLUSTERS) {
            run.guest_offset += i * part;
            run.guest_bytes = n * part;
        }
        ret = q2_plan_note(p, &run, err);
        if (ret == 0 && !f->in_l1)
            ret = q2_plan_note_sharers(p, s, &run, err);
    }
    return ret;
}

static int heal_entry(struct q2_plan *p, struct q2_scan *s, const struct q2_finding *f,
                      bool l1, struct q2_error *err)
{
    uint64_t value = f->edit_value;
    bool healed = false;
    bool table =
        l1 || f->problem == Q2_PROBLEM_L2_GARBAGE || f->problem == Q2_PROBLEM_L2_CUT;
    int ret = table && f->lossy ? q2_heal_lost_table(p, s, f, &healed, err) : 0;
    if (ret < 0 || healed)
        return ret;
    if (f->needs_zero_cluster && l1) {
        ret = q2_heal_zero_table(p, s, &value, err);
    } else if (f->needs_zero_cluster) {
        ret = q2_edit_append(p, NULL, &value, err);
        value |= f->edit_count > 1 ? 0 : Q2_FLAG_COPIED;
    }
    if (ret == 0 && f->needs_zero_cluster)
        ret = q2_io_flush(p->overlay, err);
    if (ret == 0)
        ret = fill_entries(
            p, f->edit_offset, 0, q2_max_u64(f->edit_count, 1) * (f->edit_wide ? 16 : 8),
            (struct q2_l2_words){value, f->edit_bitmap}, f->edit_wide, err);
    if (ret == 0 && f->problem == Q2_PROBLEM_L2_CUT)
        ret = q2_plan_appended(p, f->offset, s->cluster_size, err);
    return ret < 0 ? ret : note_entry(p, s, f, err);
}

// L1 entries are written in pieces of so many.
#define PIECE 8192U

// Before the file reaches to the end of the table again: without these the zeros there
// would hide after a power cut that there was anything. The file must not grow by a later
// piece first.
static int mark_lost(struct q2_plan *p, const struct q2_scan *s,
                     const struct q2_finding *f, uint64_t first, struct q2_error *err)
{
    const struct q2_l2_words mark = {q2_scan_cut_mark(s->cluster_size), 0};
    uint64_t n = f->size / 8;
    int ret = 0;
    for (uint64_t i = first; i < n && ret == 0; i += PIECE) {
        ret = fill_entries(p, f->offset, i * 8, q2_min_u64(n, i + PIECE) * 8, mark, false,
                           err);
        if (ret == 0)
            ret = q2_io_flush(p->overlay, err);
    }
    return ret;
}

// Writes entries first .. end: tables of zeros for the disk's ranges, nothing behind it.
static int name_zeros(struct q2_plan *p, const struct q2_scan *s, uint64_t table,
                      uint64_t first, uint64_t end, struct q2_error *err)
{
    uint64_t span = UINT64_C(1) << (s->l2_bits + s->cluster_bits), value;
    uint64_t needed = q2_div_round_up(s->header.size, span);
    uint8_t bytes[PIECE * 8] = {0};
    int ret = 0;
    for (uint64_t i = first; i < q2_min_u64(end, needed) && ret == 0; i++) {
        ret = q2_heal_zero_table(p, s, &value, err);
        if (ret == 0)
            q2_store_be64(bytes + (i - first) * 8, value);
    }
    if (ret == 0)
        ret = q2_io_flush(p->overlay, err);
    return ret < 0 ? ret
                   : q2_io_write(p->overlay, table + first * 8, bytes,
                                 q2_to_size((end - first) * 8), err);
}

// What the table lost must not show the backing file.
static int hide_backing(struct q2_plan *p, const struct q2_scan *s,
                        const struct q2_finding *f, struct q2_error *err)
{
    uint64_t first = f->guest_offset >> (s->l2_bits + s->cluster_bits);
    int ret = mark_lost(p, s, f, first, err);
    for (uint64_t i = first, n = f->size / 8; i < n && ret == 0; i += PIECE)
        ret = name_zeros(p, s, f->offset, i, q2_min_u64(n, i + PIECE), err);
    return ret;
}

// The file ends within the active L1 table, but not within the part that the disk needs:
// the header has its size wrong.
int q2_heal_l1_size(struct q2_plan *p, const struct q2_scan *s, bool *changed,
                    struct q2_error *err)
{
    uint64_t span = UINT64_C(1) << (s->l2_bits + s->cluster_bits);
    uint64_t needed = q2_div_round_up(s->header.size, span);
    uint64_t table = s->header.l1_table_offset;
    uint64_t there = table < s->file_size ? s->file_size - table : 0;
    uint8_t field[4];
    if (s->header.l1_size <= needed || needed * 8 > there ||
        (uint64_t)s->header.l1_size * 8 <= q2_align_up(there, s->cluster_size))
        return 0;
    q2_store_be32(field, (uint32_t)needed);
    int ret = q2_edit_header(p->overlay, AT_L1_SIZE, field, sizeof(field), err);
    if (ret == 0)
        ret = q2_io_flush(p->overlay, err);
    if (ret == 0)
        ret = q2_plan_note(
            p,
            &(struct q2_finding){.problem = Q2_PROBLEM_HEADER_FIELD,
                                 .has = Q2_HAS_OFFSET | Q2_HAS_VALUE | Q2_HAS_WANTED,
                                 .offset = AT_L1_SIZE,
                                 .value = s->header.l1_size,
                                 .wanted = needed,
                                 .field = "l1_size"},
            err);
    *changed = ret == 0;
    return ret;
}

// The end of an L2 table that was cut off: before anything else makes the file longer.
// Its rest would be zeros then, which show the backing file.
int q2_heal_l2_cut(struct q2_plan *p, struct q2_scan *s, bool *changed,
                   struct q2_error *err)
{
    const struct q2_l2_words mark = {q2_scan_cut_mark(s->cluster_size), 0};
    int ret = 0;
    for (size_t i = 0; i < s->findings.n && ret == 0; i++) {
        const struct q2_finding *f = &s->findings.list[i];
        if (f->problem != Q2_PROBLEM_L2_CUT || !(f->has & Q2_HAS_EDIT))
            continue;
        if (f->needs_zero_cluster)
            ret = fill_entries(p, f->edit_offset, 0,
                               (uint64_t)f->edit_count * (f->edit_wide ? 16 : 8), mark,
                               f->edit_wide, err);
        if (ret == 0 && f->needs_zero_cluster)
            ret = q2_io_flush(p->overlay, err);
        if (ret == 0)
            ret = heal_entry(p, s, f, false, err);
        *changed = true;
    }
    return ret == 0 && *changed ? q2_io_flush(p->overlay, err) : ret;
}

int q2_heal_cut(struct q2_plan *p, const struct q2_scan *s, bool *changed,
                struct q2_error *err)
{
    for (size_t i = 0; i < s->findings.n; i++) {
        const struct q2_finding *f = &s->findings.list[i];
        if (f->problem != Q2_PROBLEM_ACTIVE_L1_CUT)
            continue;
        int ret = q2_plan_appended(p, f->offset, f->size, err);
        if (ret == 0 && s->header.backing_file)
            ret = hide_backing(p, s, f, err);
        else if (ret == 0)
            ret = q2_io_set_size(p->overlay,
                                 q2_align_up(f->offset + f->size, s->cluster_size), err);
        if (ret == 0)
            ret = q2_io_flush(p->overlay, err);
        if (ret == 0)
            ret = q2_plan_note(p, f, err);
        if (ret < 0)
            return ret;
        *changed = true;
    }
    return 0;
}

int q2_heal_entries(struct q2_plan *p, struct q2_scan *s, bool l1, bool *changed,
                    struct q2_error *err)
{
    for (size_t i = 0; i < s->findings.n; i++) {
        const struct q2_finding *f = &s->findings.list[i];
        if (!(f->has & Q2_HAS_EDIT) || f->in_l1 != l1 ||
            f->problem == Q2_PROBLEM_REFTABLE_RESERVED ||
            f->problem == Q2_PROBLEM_SNAPSHOT_FIELD ||
            f->problem == Q2_PROBLEM_BITMAP_TABLE)
            continue;
        int ret = heal_entry(p, s, f, l1, err);
        if (ret < 0)
            return ret;
        *changed = true;
    }
    return *changed ? q2_io_flush(p->overlay, err) : 0;
}

// Does healing this make the file longer?
static bool grows_file(const struct q2_scan *s, const struct q2_finding *f)
{
    return (f->lossy && (f->in_l1 || s->header.backing_file)) ||
           f->problem == Q2_PROBLEM_SNAPSHOT_INCOMPLETE ||
           f->problem == Q2_PROBLEM_SNAPSHOT_TABLE ||
           f->problem == Q2_PROBLEM_SNAPSHOT_L1 || f->problem == Q2_PROBLEM_BITMAP_TABLE;
}

int q2_mark_cut_off(struct q2_plan *p, const struct q2_scan *s, bool *changed,
                    struct q2_error *err)
{
    bool grows = false;
    for (size_t i = 0; i < s->findings.n && !grows; i++)
        grows = grows_file(s, &s->findings.list[i]);
    for (size_t i = 0; i < s->findings.n && grows; i++) {
        const struct q2_finding *f = &s->findings.list[i];
        uint64_t near = (2 * s->file_clusters + Q2_NEAR_CLUSTERS) << s->cluster_bits;
        bool reads_zero = !f->in_l1 && s->zero_flag && (f->entry & Q2_FLAG_ZERO);
        if (f->problem != Q2_PROBLEM_REFERENCE_OUTSIDE || f->edit_offset == 0 ||
            reads_zero || f->offset < s->file_size || f->offset >= near)
            continue;
        int ret = q2_edit_entry(p->overlay, f->edit_offset,
                                q2_scan_cut_mark(s->cluster_size), err);
        if (ret < 0)
            return ret;
        *changed = true;
    }
    return *changed ? q2_io_flush(p->overlay, err) : 0;
}
