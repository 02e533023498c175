// SPDX-License-Identifier: MIT
// What is wrong with an L2 entry, and with how many of a table.
#include <errno.h>

#include "base/checked.h"
#include "check/l2.h"

// A table is taken for garbage when this many of its entries, and most of them, make no
// sense.
#define MIN_BAD_ENTRIES 4U

static enum q2_problem judge_packed(const struct q2_scan *s, const struct q2_l2_entry *e)
{
    if (!q2_scan_in_file(s, e->host_offset, e->n_bytes) ||
        e->host_offset >= q2_scan_end(s, e->host_offset))
        return Q2_PROBLEM_REFERENCE_OUTSIDE;
    return q2_scan_is_metadata(s, e->host_offset, e->n_bytes) ? Q2_PROBLEM_L2_ON_METADATA
                                                              : Q2_N_PROBLEMS;
}

// Data in a file of their own lie where the guest has them.
static enum q2_problem judge_external(struct q2_l2_words w, const struct q2_l2_entry *e,
                                      uint64_t guest_offset)
{
    if (!e->has_cluster)
        return (uint32_t)w.bitmap ? Q2_PROBLEM_SUBCLUSTERS_NOWHERE : Q2_N_PROBLEMS;
    return e->host_offset == guest_offset ? Q2_N_PROBLEMS : Q2_PROBLEM_DATA_FILE_OFFSET;
}

static bool is_zero(const struct q2_scan *s, struct q2_l2_words w)
{
    return s->extended ? (uint32_t)w.bitmap == 0
                       : s->zero_flag && (w.entry & Q2_FLAG_ZERO);
}

static enum q2_problem judge_place(const struct q2_scan *s, struct q2_l2_words w,
                                   const struct q2_l2_entry *e)
{
    if (!q2_is_aligned(e->host_offset, s->cluster_size))
        return is_zero(s, w) ? Q2_PROBLEM_L2_ZERO_UNALIGNED : Q2_PROBLEM_L2_UNALIGNED;
    if (!q2_scan_in_file(s, e->host_offset, s->cluster_size))
        return Q2_PROBLEM_REFERENCE_OUTSIDE;
    return q2_scan_is_metadata(s, e->host_offset, s->cluster_size)
               ? Q2_PROBLEM_L2_ON_METADATA
               : Q2_N_PROBLEMS;
}

enum q2_problem q2_scan_judge_l2(const struct q2_scan *s, struct q2_l2_words w,
                                 uint64_t guest_offset, struct q2_l2_entry *e)
{
    *e = q2_scan_decode(s, w.entry);
    if (e->kind == Q2_CLUSTER_COMPRESSED)
        return s->data_file ? Q2_PROBLEM_DATA_FILE_COMPRESSED : judge_packed(s, e);
    if (w.entry & q2_scan_l2_reserved(s))
        return Q2_PROBLEM_L2_RESERVED;
    if (s->data_file)
        return judge_external(w, e, guest_offset);
    if (!e->has_cluster && (uint32_t)w.bitmap != 0)
        return Q2_PROBLEM_SUBCLUSTERS_NOWHERE;
    if (!e->has_cluster)
        return w.entry & Q2_FLAG_COPIED ? Q2_PROBLEM_L2_NO_OFFSET : Q2_N_PROBLEMS;
    return judge_place(s, w, e);
}

// An entry that no writer makes. One that names a place beyond the end of the file may
// have been right before the file was cut short.
static bool is_nonsense(enum q2_problem problem, const struct q2_l2_entry *e)
{
    if (problem == Q2_PROBLEM_REFERENCE_OUTSIDE)
        return e->kind == Q2_CLUSTER_COMPRESSED;
    return problem != Q2_N_PROBLEMS;
}

bool q2_scan_is_run(const struct q2_scan *s, const uint64_t *l2, uint64_t first,
                    uint64_t n)
{
    uint64_t entry = l2[first], host = entry & Q2_OFFSET_MASK, differs = 0;
    if (s->extended || s->data_file || host == 0 || (entry & ~Q2_FLAG_COPIED) != host ||
        !q2_is_aligned(host, s->cluster_size))
        return false;
    for (uint64_t i = 0; i < n; i++)
        differs |= l2[first + i] ^ (entry + (i << s->cluster_bits));
    return differs == 0 && q2_scan_in_file(s, host, n << s->cluster_bits) &&
           !q2_scan_is_metadata(s, host, n << s->cluster_bits);
}

struct q2_l2_health q2_scan_health(const struct q2_scan *s, const uint64_t *l2,
                                   uint64_t first, uint64_t n, uint64_t guest_offset)
{
    struct q2_l2_health h = {0};
    if (q2_scan_is_run(s, l2, first, n))
        return (struct q2_l2_health){.n_used = n};
    for (uint64_t i = first; i < first + n; i++) {
        struct q2_l2_words w = q2_scan_words(s, l2, i);
        struct q2_l2_entry e;
        if (q2_words_empty(w))
            continue;
        enum q2_problem problem =
            q2_scan_judge_l2(s, w, guest_offset + (i << s->cluster_bits), &e);
        h.n_used++;
        h.n_bad += problem != Q2_N_PROBLEMS;
        h.n_nonsense += is_nonsense(problem, &e);
    }
    return h;
}

bool q2_l2_is_garbage(const struct q2_l2_health *h)
{
    return h->n_nonsense >= MIN_BAD_ENTRIES && h->n_nonsense * 2 > h->n_used;
}

// Which value is nearest to what is left: nothing, where one bit is set, or its place.
// The COPIED flag alone is rather what is left of one with data.
static bool was_empty(uint64_t entry, uint64_t own)
{
    uint64_t plain = entry & ~Q2_FLAG_ZERO;
    return q2_is_power_of_2(plain) && !q2_is_power_of_2(plain ^ own) && plain != own &&
           plain != Q2_FLAG_COPIED;
}

void q2_scan_heal_external(const struct q2_scan *s, bool hollow, struct q2_finding *f)
{
    uint64_t own = f->guest_offset | Q2_FLAG_COPIED;
    bool packed = (f->entry & Q2_FLAG_COMPRESSED) != 0;
    // A flag of zeros counts only in an entry that is not damaged all over.
    bool zero = s->zero_flag && !packed && (f->entry & Q2_FLAG_ZERO) &&
                !(f->entry & Q2_L2_RESERVED) && !q2_scan_is_raw(s);
    // Something else was written over a hollow table: no stray bit tells what was there.
    bool empty = !hollow && was_empty(f->entry, own) && (uint32_t)f->bitmap == 0 &&
                 !q2_scan_is_raw(s);
    f->has |= Q2_HAS_EDIT | Q2_HAS_WANTED;
    f->wanted = f->guest_offset;
    f->edit_value = (empty ? 0 : own) | (zero ? Q2_FLAG_ZERO : 0);
    f->edit_bitmap = q2_scan_is_raw(s) ? Q2_BITMAP_STORED : f->bitmap;
    f->edit_wide = s->extended;
    f->recovered = true;
    // It may have shown the backing file: with nothing near to it, nobody knows.
    uint64_t off = (f->entry ^ own) & ~Q2_FLAG_ZERO;
    if (s->header.backing_file && !s->extended && !empty && !zero && off != 0 &&
        !q2_is_power_of_2(off)) {
        f->edit_value = own | Q2_FLAG_ZERO;
        f->recovered = false;
        f->lossy = true;
    }
}
