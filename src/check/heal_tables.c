// SPDX-License-Identifier: MIT
// L2 tables that are lost: what other states share with them is put together again, the
// rest reads as zeros.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "check/l2.h"
#include "check/repair.h"

// More of them are not put together: each costs a look at all L1 tables.
#define MAX_TABLES 4096U
// Tables of zeros may take so much more than the file had.
#define MAX_ZERO_BYTES (UINT64_C(8) << 20)
// What 16 bits count; narrower refcounts are made wider then.
#define MAX_SHARED 65535U

// A lost L2 table, or a lost part of one, under repair.
struct lost {
    struct q2_plan *p;
    struct q2_scan *s;
    const struct q2_finding *f;
    bool part;                   // the rest of the table is sound
    uint64_t table;              // its place
    uint64_t first, n;           // entries that are lost
    struct q2_l2_words *entries; // what is known of the whole table; 0: nothing
    uint64_t n_found;            // of those that are lost
    uint64_t times;              // L1 entries of all states that name it
    bool in_place;               // its cluster is its own: only the content is lost
    bool nothing_else; // all that is missing is known: what is not was never there
};

// The entry for what is lost: zeros, never what a backing file has. Version 2 cannot say
// so above a backing file, and has one cluster of zeros for all such entries of a table:
// a cluster each would be as large as the disk. That is sound, and stays so when the
// guest writes (each entry is copied, the count goes down), when snapshots are made and
// deleted; but for one moment: the last entry that is left lacks its COPIED flag, which
// nobody gives it. Both checks say so; it costs a copy, until that entry is written or a
// snapshot made.
static int filler(struct q2_plan *p, const struct q2_scan *s, struct q2_l2_words *w,
                  struct q2_error *err)
{
    *w = (struct q2_l2_words){0};
    if (s->header.version >= 3)
        *w = q2_scan_zeros(s, *w);
    else if (s->header.backing_file)
        return q2_edit_append(p, NULL, &w->entry, err);
    return 0;
}

// A table's words go to disk as big-endian numbers.
static void store_words(const struct q2_scan *s, uint8_t *table, uint64_t index,
                        struct q2_l2_words w)
{
    uint64_t words[2] = {0};
    q2_scan_set_words(s, words, 0, w);
    q2_table_encode(words, table + q2_scan_l2_bytes(s, index), s->l2_words);
}

static int append_zeros(struct q2_plan *p, const struct q2_scan *s, uint64_t *value,
                        struct q2_error *err)
{
    struct q2_l2_words w;
    *value = 0;
    int ret = filler(p, s, &w, err);
    uint8_t *table = ret == 0 ? malloc(s->cluster_size) : NULL;
    if (ret == 0 && !table)
        ret = q2_fail_memory(err, s->cluster_size);
    for (uint64_t i = 0; i < UINT64_C(1) << s->l2_bits && table; i++)
        store_words(s, table, i, w);
    if (ret == 0)
        ret = q2_edit_append(p, table, value, err);
    free(table);
    return ret;
}

// A table that two entries of one state share is sound until the guest writes into one of
// their ranges: nobody gives the other entry its COPIED flag then. So each gets its own,
// as long as that costs what the file has.
int q2_heal_zero_table(struct q2_plan *p, const struct q2_scan *s, uint64_t *value,
                       struct q2_error *err)
{
    const uint64_t most = p->bounds.file_size + MAX_ZERO_BYTES;
    int ret = 0;
    if (p->zero_bytes < most) {
        p->zero_bytes += s->cluster_size;
        ret = append_zeros(p, s, value, err);
        *value |= Q2_FLAG_COPIED;
        return ret;
    }
    if (p->n_shared++ % MAX_SHARED == 0)
        ret = append_zeros(p, s, &p->shared_zeros, err);
    *value = p->shared_zeros;
    return ret;
}

static uint64_t times_named(const struct q2_scan *s, uint64_t table)
{
    uint64_t times = 0;
    for (unsigned t = 0; t < s->n_l1s; t++) {
        const struct q2_scan_l1 *l1 = &s->l1s[t];
        for (uint32_t i = 0; l1->entries && i < l1->n_entries; i++)
            times += (l1->entries[i] & Q2_OFFSET_MASK) == table;
    }
    return times;
}

// References that the entries found would add, for one L1 entry.
static uint64_t explained(const struct lost *l)
{
    uint64_t n = 0;
    for (uint64_t i = l->first; i < l->first + l->n; i++) {
        struct q2_l2_entry e = q2_scan_decode(l->s, l->entries[i].entry);
        if (e.kind == Q2_CLUSTER_COMPRESSED)
            n += ((e.host_offset + e.n_bytes - 1) >> l->s->cluster_bits) -
                 (e.host_offset >> l->s->cluster_bits) + 1;
        else
            n += l->entries[i].entry != 0;
    }
    return n;
}

// Is this the only finding of its kind, and are there no others?
static bool is_alone(const struct lost *l)
{
    unsigned n = 0;
    for (size_t i = 0; i < l->s->findings.n && n < 2; i++)
        n += l->s->findings.list[i].problem == l->f->problem;
    return n == 1 && l->s->n_suspects <= (l->part ? 0 : 1);
}

static int find_place(struct lost *l, struct q2_error *err)
{
    struct q2_scan *s = l->s;
    uint64_t cluster = l->table >> s->cluster_bits, stored = 0;
    l->times = 1;
    l->in_place = l->part;
    if (l->f->problem != Q2_PROBLEM_L2_GARBAGE)
        return 0;
    int ret = q2_scan_stored(s, cluster, &stored, err);
    l->times = times_named(s, l->table);
    l->in_place |=
        stored == l->times && q2_counters_get(s->references, cluster) == stored;
    return ret;
}

// Data in a file of their own are where they were. (What was zero there, and is not in
// the file, nobody knows; nor what a backing file showed.)
static bool is_external(const struct q2_scan *s)
{
    return s->data_file && !s->header.backing_file;
}

static void know_external(struct lost *l)
{
    const struct q2_scan *s = l->s;
    uint64_t base = q2_align_down(l->f->guest_offset, q2_scan_span(s));
    for (uint64_t i = 0; i < UINT64_C(1) << s->l2_bits; i++)
        l->entries[i] = q2_scan_external(s, base + (i << s->cluster_bits));
}

static int investigate(struct lost *l, struct q2_error *err)
{
    struct q2_scan *s = l->s;
    uint64_t n_found;
    int ret = 0;
    // In a dirty image refcounts are what a crash leaves, and no evidence.
    if (is_external(s))
        know_external(l);
    else if (!(s->header.incompatible_features & Q2_INCOMPAT_DIRTY))
        ret = q2_scan_shared_table(s, l->f->guest_offset, l->table, l->entries, &n_found,
                                   err);
    for (uint64_t i = l->first; i < l->first + l->n; i++)
        l->n_found += !q2_words_empty(l->entries[i]);
    if (ret == 0)
        ret = find_place(l, err);
    l->nothing_else = l->in_place && !s->header.backing_file && is_alone(l) &&
                      l->f->problem == Q2_PROBLEM_L2_GARBAGE &&
                      s->surplus == explained(l) * l->times && s->deficit == 0;
    return ret;
}

static int note_run(const struct lost *l, uint64_t first, uint64_t n,
                    struct q2_error *err)
{
    struct q2_finding f = *l->f;
    f.guest_offset += (first - l->first) << l->s->cluster_bits;
    f.guest_bytes = n << l->s->cluster_bits;
    q2_scan_end_with_disk(l->s, &f);
    f.lossy = true;
    if (l->in_place) // shared with whoever names this table
        f.edit_offset = l->table + q2_scan_l2_bytes(l->s, first);
    int ret = q2_plan_note(l->p, &f, err);
    return ret < 0 || !l->in_place ? ret : q2_plan_note_sharers(l->p, l->s, &f, err);
}

// How many entries of the table the disk reaches into: what they map behind it is
// nobody's data. (How big it was at a snapshot is not known everywhere.)
static uint64_t entries_on_disk(const struct lost *l)
{
    uint64_t size = l->s->header.size, start = l->f->guest_offset;
    if (l->f->snapshot >= 0 || !(l->f->has & Q2_HAS_GUEST) || start >= size)
        return l->n;
    return q2_min_u64(l->n, ((size - start - 1) >> l->s->cluster_bits) + 1);
}

// What is lost of the table is told in guest ranges.
static int note_losses(const struct lost *l, struct q2_error *err)
{
    uint64_t end = l->first + entries_on_disk(l);
    bool lossy = false;
    int ret = 0;
    for (uint64_t i = l->first, n; !l->nothing_else && i < end && ret == 0; i += n) {
        bool known = !q2_words_empty(l->entries[i]);
        for (n = 1; i + n < end && !q2_words_empty(l->entries[i + n]) == known; n++)
            ;
        lossy |= !known;
        if (!known)
            ret = note_run(l, i, n, err);
    }
    if (ret < 0 || lossy)
        return ret;
    struct q2_finding f = *l->f;
    f.lossy = false;
    f.recovered = true;
    return q2_plan_note(l->p, &f, err);
}

// All L1 entries that name the table name its new place.
static int switch_all(const struct lost *l, uint64_t place, struct q2_error *err)
{
    uint64_t value = place | (l->times == 1 ? Q2_FLAG_COPIED : 0);
    int ret = 0;
    for (unsigned t = 0; t < l->s->n_l1s; t++) {
        const struct q2_scan_l1 *l1 = &l->s->l1s[t];
        for (uint32_t i = 0; l1->entries && i < l1->n_entries && ret == 0; i++) {
            if ((l1->entries[i] & Q2_OFFSET_MASK) == l->table)
                ret = q2_edit_entry(l->p->overlay, l1->offset + (uint64_t)i * 8, value,
                                    err);
        }
    }
    return ret;
}

// A table that holds nothing is known for a wiped one only as long as nothing else is
// wrong. So that the next repair, after a power cut, knows it as well it makes no sense
// first.
static int spoil(const struct lost *l, struct q2_error *err)
{
    uint8_t *bytes = malloc(l->s->cluster_size);
    if (!bytes)
        return q2_fail_memory(err, l->s->cluster_size);
    memset(bytes, 0x3f, l->s->cluster_size); // bits that are reserved
    int ret = q2_io_write(l->p->overlay, l->table, bytes, l->s->cluster_size, err);
    free(bytes);
    return ret < 0 ? ret : q2_io_flush(l->p->overlay, err);
}

// A table of many sectors is not written at once: a half of it would look like all of it.
// So it gets a new place, which is switched to.
static int write_new(const struct lost *l, const uint8_t *table, struct q2_error *err)
{
    uint64_t place = 0;
    int ret = l->f->wiped ? spoil(l, err) : 0;
    if (ret == 0)
        ret = q2_edit_append(l->p, table, &place, err);
    if (ret == 0)
        ret = q2_io_flush(l->p->overlay, err);
    if (ret < 0)
        return ret;
    return l->in_place ? switch_all(l, place, err)
                       : q2_edit_entry(l->p->overlay, l->f->edit_offset,
                                       place | Q2_FLAG_COPIED, err);
}

// Sectors of a table that is sound elsewhere.
static int write_part(const struct lost *l, const uint8_t *table, uint64_t n_bytes,
                      struct q2_error *err)
{
    int ret = q2_io_write(l->p->overlay, l->table + q2_scan_l2_bytes(l->s, l->first),
                          table, q2_to_size(n_bytes), err);
    if (ret == 0)
        ret = q2_io_flush(l->p->overlay, err);
    return ret == 0 && l->f->problem == Q2_PROBLEM_L2_CUT
               ? q2_plan_appended(l->p, l->table, l->s->cluster_size, err)
               : ret;
}

// The table as it is known.
static int write_table(const struct lost *l, struct q2_error *err)
{
    uint64_t n_bytes = q2_scan_l2_bytes(l->s, l->n);
    struct q2_l2_words rest = {0};
    int ret = l->nothing_else ? 0 : filler(l->p, l->s, &rest, err);
    uint8_t *table = ret == 0 ? malloc(q2_to_size(n_bytes)) : NULL;
    if (ret == 0 && !table)
        ret = q2_fail_memory(err, n_bytes);
    for (uint64_t i = 0; i < l->n && table; i++) {
        struct q2_l2_words w = l->entries[l->first + i];
        store_words(l->s, table, i, q2_words_empty(w) ? rest : w);
    }
    if (ret == 0)
        ret = l->part ? write_part(l, table, q2_to_size(n_bytes), err)
                      : write_new(l, table, err);
    free(table);
    return ret;
}

int q2_heal_lost_table(struct q2_plan *p, struct q2_scan *s, const struct q2_finding *f,
                       bool *healed, struct q2_error *err)
{
    struct lost l = {.p = p,
                     .s = s,
                     .f = f,
                     .part = !f->in_l1,
                     .table = f->entry & Q2_OFFSET_MASK,
                     .n = UINT64_C(1) << s->l2_bits};
    *healed = false;
    if (p->n_tables >= MAX_TABLES)
        return 0;
    p->n_tables++;
    l.entries = calloc(q2_to_size(l.n), sizeof(*l.entries));
    if (!l.entries)
        return q2_fail_memory(err, l.n * sizeof(*l.entries));
    if (l.part) {
        l.first = (f->edit_offset - l.table) / q2_scan_l2_bytes(s, 1);
        l.n = f->edit_count;
    }
    int ret = investigate(&l, err);
    if (ret == 0 && (l.n_found > 0 || l.nothing_else)) {
        ret = write_table(&l, err);
        if (ret == 0)
            ret = note_losses(&l, err);
        *healed = ret == 0;
    }
    free(l.entries);
    return ret;
}
