// SPDX-License-Identifier: MIT
// One L2 table: every entry judged, every reference counted.
#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/zero.h"
#include "check/l2.h"
#include "check/uses.h"
#include "image/codec.h"

#define SECTOR_WORDS 64U // in 512 bytes

// A table under scan.
struct place {
    struct q2_scan *s;
    const struct q2_scan_l1 *l1;
    uint64_t l1_index;
    uint64_t times, active_times;
    uint64_t host_offset; // of the table
    bool hollow;          // no entry of it is sound
    uint64_t next;        // where a contiguous data cluster would follow; 0: none yet
};

static uint64_t guest_offset(const struct place *p, uint64_t index)
{
    const struct q2_scan *s = p->s;
    return ((p->l1_index << s->l2_bits) + index) << s->cluster_bits;
}

static struct q2_finding make(const struct place *p, uint64_t index, struct q2_l2_words w,
                              enum q2_problem problem)
{
    const unsigned extended = p->s->extended && w.bitmap ? Q2_HAS_BITMAP : 0;
    return (struct q2_finding){
        .problem = problem,
        .has = Q2_HAS_OFFSET | Q2_HAS_SIZE | Q2_HAS_INDEX | Q2_HAS_ENTRY |
               Q2_HAS_SNAPSHOT | Q2_HAS_GUEST | extended,
        .offset = w.entry & Q2_OFFSET_MASK,
        .size = p->s->cluster_size,
        .index = index,
        .entry = w.entry,
        .bitmap = w.bitmap,
        .snapshot = p->l1->snapshot,
        .snapshot_name = p->l1->name,
        .guest_offset = guest_offset(p, index),
        .guest_bytes = p->s->cluster_size,
        .edit_offset = p->host_offset + q2_scan_l2_bytes(p->s, index),
    };
}

// The L1 entry that names the table.
static struct q2_l2_words l1_entry(const struct place *p)
{
    return (struct q2_l2_words){p->l1->entries[p->l1_index], 0};
}

static int suspect(const struct place *p, const struct q2_finding *f,
                   struct q2_error *err)
{
    struct q2_suspect x = {.entry = f->entry,
                           .bitmap = f->bitmap,
                           .guest_offset = f->guest_offset,
                           .hollow = p->hollow};
    x.finding = q2_scan_report(p->s, &p->s->findings, f);
    return q2_scan_suspect(p->s, &x, err);
}

static struct q2_finding about_garbage(const struct place *p,
                                       const struct q2_l2_health *h, uint64_t first,
                                       uint64_t n)
{
    struct q2_finding f = make(p, first, l1_entry(p), Q2_PROBLEM_L2_GARBAGE);
    f.has |= Q2_HAS_VALUE | Q2_HAS_WANTED;
    f.value = h->n_nonsense;
    f.wanted = h->n_used;
    f.guest_bytes = n << p->s->cluster_bits;
    return f;
}

static int report_garbage(const struct place *p, const struct q2_l2_health *h,
                          struct q2_error *err)
{
    struct q2_scan *s = p->s;
    struct q2_finding f = about_garbage(p, h, 0, UINT64_C(1) << s->l2_bits);
    f.edit_offset = p->l1->offset + p->l1_index * 8;
    f.in_l1 = true;
    struct q2_suspect x = {
        .is_l1 = true, .entry = f.entry, .guest_offset = f.guest_offset};
    x.finding = q2_scan_report(s, &s->findings, &f);
    return q2_scan_suspect(s, &x, err);
}

// n entries that the finding is about are lost: they read as zeros.
static void report_lost(struct q2_scan *s, struct q2_finding *f, uint64_t n)
{
    f->has |= Q2_HAS_EDIT;
    f->lossy = true;
    f->edit_count = (uint32_t)n;
    f->edit_value = q2_scan_zeros(s, (struct q2_l2_words){0}).entry;
    f->edit_bitmap = q2_scan_zeros(s, (struct q2_l2_words){0}).bitmap;
    f->edit_wide = s->extended;
    f->needs_zero_cluster = s->header.version < 3 && s->header.backing_file;
    q2_scan_report(s, &s->findings, f);
}

// One sector of a table that is sound elsewhere: its range is lost.
static void report_sector(const struct place *p, uint64_t first, uint64_t n,
                          const struct q2_l2_health *h)
{
    struct q2_finding f = about_garbage(p, h, first, n);
    report_lost(p->s, &f, n);
}

// How many of the table's entries are in the file; the others are lost.
static uint64_t entries_in_file(const struct place *p)
{
    const struct q2_scan *s = p->s;
    uint64_t n = UINT64_C(1) << s->l2_bits;
    uint64_t end = q2_scan_end(s, p->host_offset);
    uint64_t there = (end - q2_min_u64(p->host_offset, end)) / q2_scan_l2_bytes(s, 1);
    if (there >= n)
        return n;
    struct q2_finding f = make(p, there, l1_entry(p), Q2_PROBLEM_L2_CUT);
    f.offset = p->host_offset;
    f.guest_bytes = (n - there) << s->cluster_bits;
    report_lost(p->s, &f, n - there);
    return there;
}

// Statistics are of the active state.
static void count_cluster(struct place *p, const struct q2_l2_entry *e)
{
    struct q2_scan *s = p->s;
    s->n_packed += e->kind == Q2_CLUSTER_COMPRESSED;
    if (p->l1->snapshot >= 0)
        return;
    s->allocated_clusters += p->active_times;
    if (e->kind == Q2_CLUSTER_COMPRESSED) {
        s->compressed_clusters += p->active_times;
        s->fragmented_clusters += p->active_times; // by nature
        return;
    }
    if (p->next != 0 && e->host_offset != p->next)
        s->fragmented_clusters += p->active_times;
    p->next = e->host_offset + s->cluster_size;
}

// The COPIED flag of the active state says: the refcount is one. All clusters of a data
// file have that refcount.
static int check_copied(struct place *p, uint64_t index, struct q2_l2_words w,
                        const struct q2_l2_entry *e, bool can_heal, struct q2_error *err)
{
    uint64_t stored = 1;
    int ret = p->s->data_file ? 0
                              : q2_scan_stored(p->s, e->host_offset >> p->s->cluster_bits,
                                               &stored, err);
    if (ret < 0 || (stored == 1) == e->copied)
        return ret;
    struct q2_finding f = make(p, index, w, Q2_PROBLEM_COPIED_DATA);
    f.has |= Q2_HAS_REFCOUNT | (can_heal ? Q2_HAS_EDIT : 0);
    f.refcount = stored;
    f.edit_value = w.entry ^ Q2_FLAG_COPIED;
    q2_scan_report(p->s, &p->s->late, &f);
    return 0;
}

static int read_compressed(const struct place *p, const struct q2_l2_entry *e,
                           uint64_t index, struct q2_l2_words w, uint8_t *buf,
                           struct q2_error *err)
{
    struct q2_error why = Q2_ERROR_INIT;
    uint8_t *packed = malloc(e->n_bytes);
    if (!packed)
        return q2_fail_memory(err, e->n_bytes);
    int ret = q2_io_read(p->s->io, e->host_offset, packed, e->n_bytes, &why);
    if (ret == 0)
        ret = q2_decompress(p->s->header.compression_type, packed, e->n_bytes, buf,
                            p->s->cluster_size, &why);
    free(packed);
    if (ret < 0) {
        struct q2_finding f = make(p, index, w, Q2_PROBLEM_COMPRESSED_BROKEN);
        f.offset = e->host_offset;
        q2_scan_report(p->s, &p->s->findings, &f);
    }
    return 0;
}

// With --read-data every cluster is read.
static int read_data(const struct place *p, const struct q2_l2_entry *e, uint64_t index,
                     struct q2_l2_words w, struct q2_error *err)
{
    struct q2_scan *s = p->s;
    struct q2_error why = Q2_ERROR_INIT;
    uint8_t *buf = malloc(s->cluster_size);
    if (!buf)
        return q2_fail_memory(err, s->cluster_size);
    int ret = 0;
    if (e->kind == Q2_CLUSTER_COMPRESSED) {
        ret = read_compressed(p, e, index, w, buf, err);
    } else if (e->kind == Q2_CLUSTER_NORMAL && s->data &&
               q2_io_read(s->data, e->host_offset, buf, s->cluster_size, &why) < 0) {
        struct q2_finding f = make(p, index, w, Q2_PROBLEM_DATA_UNREADABLE);
        q2_scan_report(s, &s->findings, &f);
    }
    free(buf);
    uint64_t n = q2_min_u64(s->data_left, s->cluster_size);
    s->data_left -= n;
    return ret < 0 ? ret : q2_scan_worked(s, n, err);
}

static int note_hunted(const struct place *p, uint64_t index, const uint64_t *l2,
                       struct q2_error *err)
{
    struct q2_scan *s = p->s;
    bool last = index + 1 == UINT64_C(1) << s->l2_bits;
    struct q2_l2_words w = q2_scan_words(s, l2, index);
    return q2_scan_referrer(
        s,
        &(struct q2_referrer){.snapshot = p->l1->snapshot,
                              .name = p->l1->name,
                              .index = index,
                              .entry = w.entry,
                              .bitmap = w.bitmap,
                              .previous =
                                  index > 0 ? q2_scan_words(s, l2, index - 1).entry : 0,
                              .next = last ? 0 : q2_scan_words(s, l2, index + 1).entry,
                              .host_offset = p->host_offset + q2_scan_l2_bytes(s, index),
                              .guest_offset = guest_offset(p, index),
                              .times = p->times},
        err);
}

static int bad_entry(struct place *p, uint64_t index, struct q2_l2_words w,
                     const struct q2_l2_entry *e, enum q2_problem problem,
                     struct q2_error *err)
{
    struct q2_finding f = make(p, index, w, problem);
    if (e->kind == Q2_CLUSTER_COMPRESSED) {
        f.offset = e->host_offset;
        f.size = e->n_bytes;
    }
    if (q2_entry_names(e))
        count_cluster(p, e);
    if (p->s->data_file) {
        q2_scan_heal_external(p->s, p->hollow, &f);
        q2_scan_report(p->s, &p->s->findings, &f);
        return 0;
    }
    int ret = suspect(p, &f, err);
    if (ret == 0 && problem == Q2_PROBLEM_REFERENCE_OUTSIDE)
        ret = q2_scan_dangles(p->s, f.offset, f.size, err);
    // QEMU looks at the flag of such an entry too; nothing of it can be set right.
    if (ret == 0 && problem == Q2_PROBLEM_REFERENCE_OUTSIDE && p->l1->snapshot < 0 &&
        e->kind != Q2_CLUSTER_COMPRESSED)
        ret = check_copied(p, index, w, e, false, err);
    return ret;
}

// Is something wrong with an entry of compressed data that lies in the file? Its length
// is rounded up to sectors, so the file may end before it: then what is there has to
// inflate. The others are tried when there is damage somewhere (inflate).
static int judge_packed(const struct place *p, const struct q2_l2_entry *e,
                        enum q2_problem *problem, struct q2_error *err)
{
    struct q2_scan *s = p->s;
    bool cut = false, good = true;
    size_t n_bytes = 0;
    int ret = 0;
    *problem = Q2_N_PROBLEMS;
    if (e->host_offset + e->n_bytes > q2_scan_end(s, e->host_offset))
        ret = q2_scan_is_cut(s, e->host_offset, &cut, err);
    if (ret < 0 || cut || !s->inflate) {
        *problem = cut ? Q2_PROBLEM_REFERENCE_OUTSIDE : Q2_N_PROBLEMS;
        return ret;
    }
    ret = q2_scan_measure(s, e->host_offset, &n_bytes, err);
    // Data whose end is not in it can be read, as long as all of it is there.
    if (ret == 0 && n_bytes == 0)
        ret = q2_scan_inflates(s, e, &good, err);
    else if (ret == 0)
        ret = q2_scan_note_stream(s, e->host_offset, n_bytes, err);
    if (!good)
        *problem = Q2_PROBLEM_COMPRESSED_BROKEN;
    return ret < 0 ? ret : q2_scan_worked(s, 0, err);
}

// Flags and bits of a compressed entry that must not be there.
static void check_packed(const struct place *p, uint64_t index, struct q2_l2_words w,
                         const struct q2_l2_entry *e)
{
    if (w.entry & Q2_FLAG_COPIED) {
        struct q2_finding f = make(p, index, w, Q2_PROBLEM_COMPRESSED_COPIED);
        f.has |= Q2_HAS_EDIT;
        f.offset = e->host_offset;
        f.edit_value = w.entry & ~Q2_FLAG_COPIED;
        q2_scan_report(p->s, &p->s->findings, &f);
    }
    if (w.bitmap != 0) {
        struct q2_finding f = make(p, index, w, Q2_PROBLEM_SUBCLUSTERS_PACKED);
        f.has |= Q2_HAS_EDIT;
        f.offset = e->host_offset;
        f.edit_value = w.entry & ~Q2_FLAG_COPIED;
        f.edit_wide = true;
        q2_scan_report(p->s, &p->s->findings, &f);
    }
}

// Are all bytes of these subclusters zero? Of encrypted ones nobody knows.
static int reads_as_zeros(const struct place *p, uint64_t host_offset, uint32_t bits,
                          bool *yes, struct q2_error *err)
{
    const struct q2_scan *s = p->s;
    size_t n = s->cluster_size / Q2_SUBCLUSTERS;
    *yes = s->header.crypt_method == Q2_CRYPT_NONE && !s->data_file;
    uint8_t *buf = *yes ? malloc(s->cluster_size) : NULL;
    if (!*yes)
        return 0;
    int ret = buf ? q2_io_read(s->io, host_offset, buf, s->cluster_size, err)
                  : q2_fail_memory(err, s->cluster_size);
    for (unsigned i = 0; i < Q2_SUBCLUSTERS && ret == 0; i++)
        *yes &= !((bits >> i) & 1) || q2_is_zero(buf + i * n, n);
    free(buf);
    return ret;
}

// Subclusters that are stored and read as zeros, too: which of both is true only a raw
// data file knows, that is right in any case.
static int check_subclusters(const struct place *p, uint64_t index, struct q2_l2_words w,
                             const struct q2_l2_entry *e, struct q2_error *err)
{
    const struct q2_scan *s = p->s;
    uint32_t both = (uint32_t)w.bitmap & (uint32_t)(w.bitmap >> Q2_SUBCLUSTERS);
    bool raw = q2_scan_is_raw(s);
    bool harmless = raw;
    if (both == 0)
        return 0;
    int ret = raw ? 0 : reads_as_zeros(p, e->host_offset, both, &harmless, err);
    struct q2_finding f = make(p, index, w, Q2_PROBLEM_SUBCLUSTERS_BOTH);
    f.has |= Q2_HAS_EDIT;
    f.edit_value = w.entry;
    f.edit_bitmap = raw ? Q2_BITMAP_STORED : w.bitmap & ~(uint64_t)both;
    f.edit_wide = true;
    f.lossy = !harmless;
    f.lost_bits = both;
    q2_scan_report(p->s, &p->s->findings, &f);
    return ret;
}

// Counts what the entry names, and says whether its flags fit.
static int count_entry(struct place *p, uint64_t index, struct q2_l2_words w,
                       const struct q2_l2_entry *e, struct q2_error *err)
{
    struct q2_scan *s = p->s;
    bool packed = e->kind == Q2_CLUSTER_COMPRESSED;
    int ret = 0;
    if (!s->data_file)
        ret = q2_scan_reference(s, e->host_offset, packed ? e->n_bytes : s->cluster_size,
                                p->times, err);
    count_cluster(p, e);
    if (ret == 0 && s->uses)
        ret = packed ? q2_scan_use_packed(s->uses, e, p->active_times, err)
                     : q2_scan_use_plain(s->uses, e->host_offset >> s->cluster_bits, 1,
                                         p->active_times, err);
    if (ret == 0 && packed)
        check_packed(p, index, w, e);
    if (ret == 0 && !packed)
        ret = check_subclusters(p, index, w, e, err);
    if (ret == 0 && !packed && p->l1->snapshot < 0)
        ret = check_copied(p, index, w, e, true, err);
    return ret;
}

static int good_entry(struct place *p, uint64_t index, const uint64_t *l2,
                      const struct q2_l2_entry *e, struct q2_error *err)
{
    struct q2_scan *s = p->s;
    struct q2_l2_words w = q2_scan_words(s, l2, index);
    bool packed = e->kind == Q2_CLUSTER_COMPRESSED;
    enum q2_problem problem = Q2_N_PROBLEMS;
    int ret = packed ? judge_packed(p, e, &problem, err) : 0;
    if (ret < 0 || problem != Q2_N_PROBLEMS)
        return ret < 0 ? ret : bad_entry(p, index, w, e, problem, err);
    ret = count_entry(p, index, w, e, err);
    if (ret == 0 && packed && s->hunted)
        ret = q2_scan_hunted_packed(s, e, err);
    if (ret == 0 && !packed && !s->data_file && q2_scan_hunts(s, e->host_offset))
        ret = note_hunted(p, index, l2, err);
    if (ret == 0 && s->read_data)
        ret = read_data(p, e, index, w, err);
    return ret;
}

// An entry of a sector that is not garbage; all_good: it was judged already.
static int scan_entry(struct place *p, const uint64_t *l2, uint64_t i, bool all_good,
                      struct q2_error *err)
{
    const struct q2_scan *s = p->s;
    struct q2_l2_words w = q2_scan_words(s, l2, i);
    struct q2_l2_entry e;
    enum q2_problem problem = Q2_N_PROBLEMS;
    if (q2_words_empty(w))
        return 0;
    if (all_good)
        e = q2_scan_decode(s, w.entry);
    else
        problem = q2_scan_judge_l2(s, w, guest_offset(p, i), &e);
    if (problem != Q2_N_PROBLEMS)
        return bad_entry(p, i, w, &e, problem, err);
    return q2_entry_names(&e) ? good_entry(p, i, l2, &e, err) : 0;
}

// The entries of a sector that are a run: counted in one go. *done: they were.
static int scan_run(struct place *p, const uint64_t *l2, uint64_t first, uint64_t n,
                    bool *done, struct q2_error *err)
{
    struct q2_scan *s = p->s;
    uint64_t host = l2[first] & Q2_OFFSET_MASK;
    bool active = p->l1->snapshot < 0, fits = true;
    *done = false;
    if (s->read_data || s->hunted || !q2_scan_is_run(s, l2, first, n))
        return 0;
    if (active && !(l2[first] & Q2_FLAG_COPIED))
        return 0;
    int ret = active ? q2_scan_stored_ones(s, host >> s->cluster_bits, n, &fits, err) : 0;
    if (ret < 0 || !fits)
        return ret;
    *done = true;
    if (active) {
        s->allocated_clusters += n * p->active_times;
        if (p->next != 0 && host != p->next)
            s->fragmented_clusters += p->active_times;
        p->next = host + (n << s->cluster_bits);
    }
    if (s->uses)
        ret =
            q2_scan_use_plain(s->uses, host >> s->cluster_bits, n, p->active_times, err);
    if (ret < 0)
        return ret;
    return q2_scan_reference(s, host, n << s->cluster_bits, p->times, err);
}

// The entries of a sector that is garbage, or of the table when n is all of it.
static int scan_sector(struct place *p, const uint64_t *l2, uint64_t first, uint64_t n,
                       const struct q2_l2_health *h, struct q2_error *err)
{
    bool done = false;
    if (q2_l2_is_garbage(h)) {
        report_sector(p, first, n, h);
        return 0;
    }
    int ret = scan_run(p, l2, first, n, &done, err);
    for (uint64_t i = first; !done && i < first + n && ret == 0; i++)
        ret = scan_entry(p, l2, i, h->n_bad == 0, err);
    return ret;
}

// What is written to a disk is torn by sectors: these are judged one by one. A table
// without a sound sector is no L2 table.
static bool no_sound_sector(const struct place *p, const uint64_t *l2,
                            struct q2_l2_health *whole)
{
    const struct q2_scan *s = p->s;
    const uint64_t n = SECTOR_WORDS / s->l2_words, guest = guest_offset(p, 0);
    bool none = true;
    *whole = (struct q2_l2_health){0};
    for (uint64_t i = 0; i < UINT64_C(1) << s->l2_bits; i += n) {
        struct q2_l2_health h = q2_scan_health(s, l2, i, n, guest);
        whole->n_bad += h.n_bad;
        whole->n_nonsense += h.n_nonsense;
        whole->n_used += h.n_used;
        none &= h.n_used == 0 || q2_l2_is_garbage(&h);
    }
    // A table without one sound entry, and more is missing than these could have named;
    // or all of it is known.
    bool hollow = (s->no_hollow_tables || q2_scan_is_raw(s)) && whole->n_bad > 0 &&
                  whole->n_bad == whole->n_used;
    return hollow || (none && q2_l2_is_garbage(whole));
}

int q2_scan_l2_table(struct q2_scan *s, const struct q2_scan_link *link,
                     const uint64_t *l2, struct q2_error *err)
{
    struct place p = {.s = s,
                      .l1 = link->l1,
                      .l1_index = link->index,
                      .times = link->times,
                      .active_times = link->active_times};
    const uint64_t n = SECTOR_WORDS / s->l2_words;
    struct q2_l2_health whole;
    int ret = 0;
    p.host_offset = link->l1->entries[link->index] & Q2_OFFSET_MASK;
    if (s->n_snapshots > 0 && q2_is_zero(l2, s->cluster_size))
        q2_scan_note_empty(s, link);
    if (no_sound_sector(&p, l2, &whole))
        return report_garbage(&p, &whole, err);
    p.hollow = whole.n_bad > 0 && whole.n_bad == whole.n_used;
    if (p.hollow && !s->data_file)
        s->hollow_entries += whole.n_bad;
    uint64_t there = entries_in_file(&p);
    for (uint64_t i = 0; i < there && ret == 0; i += n) {
        struct q2_l2_health h = {0};
        if (whole.n_bad > 0)
            h = q2_scan_health(s, l2, i, n, guest_offset(&p, 0));
        ret = scan_sector(&p, l2, i, n, &h, err);
    }
    return ret;
}
