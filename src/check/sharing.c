// SPDX-License-Identifier: MIT
// What the states of an image share. A cluster whose refcount says that one more entry
// names it than was found, and an entry of another state at the same place of the guest's
// disk that names it: a damaged entry at that place named it, too.
#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "check/l2.h"

int q2_scan_has_surplus(struct q2_scan *s, uint64_t offset, uint64_t n_bytes, bool *yes,
                        struct q2_error *err)
{
    uint64_t first = offset >> s->cluster_bits, stored = 0;
    uint64_t last = (offset + n_bytes - 1) >> s->cluster_bits;
    *yes = offset != 0 && q2_scan_in_file(s, offset, n_bytes);
    for (uint64_t c = first; c <= last && *yes; c++) {
        int ret = q2_scan_stored(s, c, &stored, err);
        if (ret < 0)
            return ret;
        *yes = stored > q2_counters_get(s->references, c);
    }
    return 0;
}

// The clusters that an entry references.
static void range_of(const struct q2_scan *s, uint64_t value, uint64_t *first,
                     uint64_t *last)
{
    struct q2_l2_entry e = q2_scan_decode(s, value);
    *first = e.host_offset >> s->cluster_bits;
    *last = *first;
    if (e.kind == Q2_CLUSTER_COMPRESSED)
        *last = (e.host_offset + e.n_bytes - 1) >> s->cluster_bits;
}

int q2_scan_claim_value(struct q2_scan *s, struct q2_counters *claims, uint64_t value,
                        struct q2_error *err)
{
    uint64_t first, last;
    range_of(s, value, &first, &last);
    return q2_counters_add(claims, first, last - first + 1, 1, err);
}

int q2_scan_claim_fits(struct q2_scan *s, struct q2_counters *claims, uint64_t value,
                       bool *fits, struct q2_error *err)
{
    uint64_t first, last, stored;
    range_of(s, value, &first, &last);
    *fits = true;
    for (uint64_t c = first; c <= last && *fits; c++) {
        int ret = q2_scan_stored(s, c, &stored, err);
        if (ret < 0)
            return ret;
        *fits = stored >= q2_counters_get(s->references, c) + q2_counters_get(claims, c);
    }
    return 0;
}

static void add_value(struct q2_values *v, uint64_t value)
{
    for (unsigned i = 0; i < v->n; i++) {
        if (v->list[i] == value)
            return;
    }
    if (v->n < Q2_MAX_VALUES)
        v->list[v->n++] = value;
}

// An L2 entry of another state: does it name data that one more entry could name?
static int is_missed(struct q2_scan *s, struct q2_l2_words w, bool *yes,
                     struct q2_error *err)
{
    struct q2_l2_entry e = q2_scan_decode(s, w.entry);
    bool packed = e.kind == Q2_CLUSTER_COMPRESSED;
    uint64_t n_bytes = packed ? e.n_bytes : s->cluster_size;
    *yes = false;
    // Whether a zero cluster was one in the other state, too, cannot be known.
    if (!packed && (e.kind != Q2_CLUSTER_NORMAL || (w.entry & q2_scan_l2_reserved(s)) ||
                    (s->extended && (uint32_t)w.bitmap == 0) ||
                    !q2_is_aligned(e.host_offset, s->cluster_size)))
        return 0;
    if (s->data_file || !q2_scan_in_file(s, e.host_offset, n_bytes) ||
        q2_scan_is_metadata(s, e.host_offset, n_bytes))
        return 0;
    return q2_scan_has_surplus(s, e.host_offset, n_bytes, yes, err);
}

// The table of l1 that maps the same range; 0: none that can be used, or own itself.
static uint64_t table_of(const struct q2_scan *s, const struct q2_scan_l1 *l1,
                         uint64_t index, uint64_t own)
{
    if (!l1->entries || index >= l1->n_entries || l1->entries[index] == 0 ||
        q2_scan_judge_l1(s, l1->entries[index]) != Q2_N_PROBLEMS)
        return 0;
    uint64_t table = l1->entries[index] & Q2_OFFSET_MASK;
    return table == own ? 0 : table;
}

int q2_scan_shared_l2(struct q2_scan *s, uint64_t entry_offset, uint64_t guest_offset,
                      struct q2_values *v, struct q2_error *err)
{
    uint64_t own = q2_align_down(entry_offset, s->cluster_size);
    uint64_t index = guest_offset >> (s->l2_bits + s->cluster_bits), words[2];
    int ret = 0;
    *v = (struct q2_values){0};
    for (unsigned t = 0; t < s->n_l1s && ret == 0; t++) {
        uint64_t table = table_of(s, &s->l1s[t], index, own);
        bool yes = false;
        if (table == 0)
            continue;
        ret = q2_io_read(s->io, table + (entry_offset - own), words,
                         q2_to_size(q2_scan_l2_bytes(s, 1)), err);
        if (ret == 0) {
            q2_table_decode(words, words, s->l2_words);
            ret = is_missed(s, q2_scan_words(s, words, 0), &yes, err);
        }
        if (yes)
            add_value(v, words[0] & ~Q2_FLAG_COPIED);
    }
    return ret;
}

int q2_scan_shared_l1(struct q2_scan *s, uint64_t entry_offset, uint64_t guest_offset,
                      struct q2_values *v, struct q2_error *err)
{
    uint64_t index = guest_offset >> (s->l2_bits + s->cluster_bits);
    int ret = 0;
    *v = (struct q2_values){0};
    for (unsigned t = 0; t < s->n_l1s && ret == 0; t++) {
        const struct q2_scan_l1 *l1 = &s->l1s[t];
        uint64_t table = table_of(s, l1, index, 0);
        bool yes = false;
        if (table == 0 || l1->offset + index * 8 == entry_offset)
            continue;
        ret = q2_scan_has_surplus(s, table, s->cluster_size, &yes, err);
        if (yes)
            add_value(v, table);
    }
    return ret;
}

static int read_table(struct q2_scan *s, uint64_t table, uint64_t *l2,
                      struct q2_error *err)
{
    int ret = q2_io_read(s->io, table, l2, s->cluster_size, err);
    if (ret == 0)
        q2_table_decode(l2, l2, s->cluster_size / 8);
    return ret;
}

int q2_scan_is_kin(struct q2_scan *s, uint64_t table, uint64_t guest_offset, bool *yes,
                   struct q2_error *err)
{
    uint64_t index = guest_offset >> (s->l2_bits + s->cluster_bits);
    size_t n = s->cluster_size / 8;
    uint64_t *both = malloc(2 * (size_t)s->cluster_size);
    int ret = both ? read_table(s, table, both, err) : q2_fail_memory(err, n * 16);
    *yes = false;
    for (unsigned t = 0; t < s->n_l1s && ret == 0 && !*yes; t++) {
        uint64_t other = table_of(s, &s->l1s[t], index, table);
        if (other == 0)
            continue;
        ret = read_table(s, other, both + n, err);
        for (size_t i = 0; i < n && ret == 0; i += s->l2_words)
            *yes |= (both[i] & Q2_OFFSET_MASK) != 0 &&
                    ((both[i] ^ both[n + i]) & ~Q2_FLAG_COPIED) == 0;
    }
    free(both);
    return ret;
}

// Puts what the other states' tables say at the places of out that are still empty; what
// two say differently is left empty, and marked in disputed.
static int gather(struct q2_scan *s, uint64_t table, struct q2_l2_words *out,
                  bool *disputed, struct q2_error *err)
{
    size_t n = (size_t)1 << s->l2_bits;
    uint64_t *l2 = malloc(s->cluster_size);
    if (!l2)
        return q2_fail_memory(err, s->cluster_size);
    int ret = read_table(s, table, l2, err);
    for (size_t i = 0; i < n && ret == 0; i++) {
        struct q2_l2_words w = q2_scan_words(s, l2, i);
        bool yes = false;
        if (!q2_words_empty(w))
            ret = is_missed(s, w, &yes, err);
        if (!yes)
            continue;
        w.entry &= ~Q2_FLAG_COPIED;
        disputed[i] |= !q2_words_empty(out[i]) &&
                       (out[i].entry != w.entry || out[i].bitmap != w.bitmap);
        out[i] = w;
    }
    free(l2);
    return ret;
}

// What is disputed, and what is claimed more often than it could be, stays empty.
static int drop_disputed(struct q2_scan *s, struct q2_l2_words *out, const bool *disputed,
                         uint64_t *n_found, struct q2_error *err)
{
    size_t n = (size_t)1 << s->l2_bits;
    struct q2_counters *claims = q2_counters_new();
    int ret = claims ? 0 : q2_fail_memory(err, n);
    for (size_t i = 0; i < n && ret == 0; i++) {
        if (out[i].entry != 0)
            ret = q2_scan_claim_value(s, claims, out[i].entry, err);
    }
    for (size_t i = 0; i < n && ret == 0; i++) {
        bool fits = true;
        if (out[i].entry == 0)
            continue;
        ret = q2_scan_claim_fits(s, claims, out[i].entry, &fits, err);
        if (disputed[i] || !fits)
            out[i] = (struct q2_l2_words){0};
        *n_found += out[i].entry != 0;
    }
    q2_counters_free(claims);
    return ret;
}

int q2_scan_shared_table(struct q2_scan *s, uint64_t guest_offset, uint64_t own,
                         struct q2_l2_words *out, uint64_t *n_found, struct q2_error *err)
{
    uint64_t index = guest_offset >> (s->l2_bits + s->cluster_bits);
    size_t n = (size_t)1 << s->l2_bits;
    bool *disputed = calloc(n, sizeof(*disputed));
    int ret = disputed ? 0 : q2_fail_memory(err, n);
    *n_found = 0;
    for (size_t i = 0; i < n; i++)
        out[i] = (struct q2_l2_words){0};
    for (unsigned t = 0; t < s->n_l1s && ret == 0; t++) {
        uint64_t table = table_of(s, &s->l1s[t], index, own);
        if (table != 0)
            ret = gather(s, table, out, disputed, err);
    }
    if (ret == 0)
        ret = drop_disputed(s, out, disputed, n_found, err);
    free(disputed);
    return ret;
}

// --- tables that were wiped
// ---------------------------------------------------------------

// So much may be read to find out.
#define MAX_WIPED_BYTES (UINT64_C(256) << 20)

void q2_scan_note_empty(struct q2_scan *s, const struct q2_scan_link *link)
{
    if (s->n_empty < Q2_MAX_EMPTY)
        s->empty[s->n_empty++] = *link;
}

static uint64_t guest_of(const struct q2_scan *s, const struct q2_scan_link *link)
{
    return link->index << (s->l2_bits + s->cluster_bits);
}

// References that these entries are, where one state has them.
static uint64_t count_references(const struct q2_scan *s, const struct q2_l2_words *w)
{
    uint64_t n = 0, first, last;
    for (uint64_t i = 0; i < UINT64_C(1) << s->l2_bits; i++) {
        if (w[i].entry == 0)
            continue;
        range_of(s, w[i].entry, &first, &last);
        n += last - first + 1;
    }
    return n;
}

static void report_wiped(struct q2_scan *s, const struct q2_scan_link *link)
{
    uint64_t entry = link->l1->entries[link->index], n = UINT64_C(1) << s->l2_bits;
    q2_scan_report(s, &s->findings,
                   &(struct q2_finding){.problem = Q2_PROBLEM_L2_GARBAGE,
                                        .has = Q2_HAS_OFFSET | Q2_HAS_SIZE |
                                               Q2_HAS_INDEX | Q2_HAS_ENTRY |
                                               Q2_HAS_SNAPSHOT | Q2_HAS_GUEST |
                                               Q2_HAS_VALUE | Q2_HAS_WANTED | Q2_HAS_EDIT,
                                        .offset = entry & Q2_OFFSET_MASK,
                                        .size = s->cluster_size,
                                        .entry = entry,
                                        .value = n,
                                        .wanted = n,
                                        .snapshot = link->l1->snapshot,
                                        .snapshot_name = link->l1->name,
                                        .guest_offset = guest_of(s, link),
                                        .guest_bytes = n << s->cluster_bits,
                                        .edit_offset = link->l1->offset + link->index * 8,
                                        .in_l1 = true,
                                        .lossy = true,
                                        .wiped = true});
}

// Nothing else is wrong than that clusters are named less often than they should be, and
// the entries that other states have in the ranges of tables that hold nothing are as
// many as are missing: these tables were wiped, by a bad sector as a rule.
int q2_scan_find_wiped(struct q2_scan *s, struct q2_error *err)
{
    bool dirty = (s->header.incompatible_features & Q2_INCOMPAT_DIRTY) != 0;
    uint64_t n_found[Q2_MAX_EMPTY] = {0}, missing = 0;
    if (s->n_empty == 0 || s->shared_surplus == 0 || s->deficit > 0 || dirty ||
        s->rebuild || s->corruptions > 0 || s->data_file ||
        (uint64_t)s->n_empty * s->n_l1s > MAX_WIPED_BYTES / s->cluster_size)
        return 0;
    struct q2_l2_words *w = calloc((size_t)1 << s->l2_bits, sizeof(*w));
    int ret = w ? 0 : q2_fail_memory(err, sizeof(*w) << s->l2_bits);
    for (unsigned i = 0; i < s->n_empty && ret == 0; i++) {
        const struct q2_scan_link *link = &s->empty[i];
        ret = q2_scan_shared_table(s, guest_of(s, link),
                                   link->l1->entries[link->index] & Q2_OFFSET_MASK, w,
                                   &n_found[i], err);
        if (ret == 0)
            missing += count_references(s, w) * link->times;
    }
    free(w);
    for (unsigned i = 0; i < s->n_empty && ret == 0 && missing == s->shared_surplus;
         i++) {
        if (n_found[i] > 0)
            report_wiped(s, &s->empty[i]);
    }
    return ret;
}
