// SPDX-License-Identifier: MIT
// What damaged entries should have said. An entry is taken back when exactly one value is
// consistent with everything else in the file; nothing is guessed among several.
#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/zero.h"
#include "check/l2.h"
#include "image/codec.h"

// So many other suspects are looked at.
#define MAX_RIVALS 4096U
// So many pairs of a damaged L1 entry and an orphan are compared.
#define MAX_KIN 65536U

// Is this host cluster in use by its refcount, and by nothing else that was found?
int q2_scan_is_orphan(struct q2_scan *s, uint64_t offset, uint64_t *stored, bool *yes,
                      struct q2_error *err)
{
    *yes = false;
    if (offset == 0 || !q2_is_aligned(offset, s->cluster_size) ||
        !q2_scan_in_file(s, offset, s->cluster_size) ||
        q2_scan_is_metadata(s, offset, s->cluster_size) ||
        q2_counters_get(s->references, offset >> s->cluster_bits) > 0)
        return 0;
    int ret = q2_scan_stored(s, offset >> s->cluster_bits, stored, err);
    *yes = ret == 0 && *stored > 0;
    return ret;
}

// Would this be a sound entry of an L2 table that nobody names: of a cluster that is
// named less often than its refcount says, too; or of the right one in a data file?
static int fits_orphan(struct q2_scan *s, struct q2_l2_words w, uint64_t guest_offset,
                       bool *yes, struct q2_error *err)
{
    struct q2_l2_entry e;
    *yes = false;
    if (q2_scan_judge_l2(s, w, guest_offset, &e) != Q2_N_PROBLEMS)
        return 0;
    *yes = true;
    if (s->data_file || e.kind == Q2_CLUSTER_COMPRESSED || !e.has_cluster)
        return 0;
    return q2_scan_has_surplus(s, e.host_offset, s->cluster_size, yes, err);
}

// Does the cluster read like an L2 table: entries that make sense, most of them?
int q2_scan_reads_like_l2(struct q2_scan *s, uint64_t offset, uint64_t guest_offset,
                          bool *yes, struct q2_error *err)
{
    size_t n = (size_t)1 << s->l2_bits, n_used = 0, n_good = 0;
    uint64_t *l2 = malloc(s->cluster_size);
    if (!l2)
        return q2_fail_memory(err, s->cluster_size);
    int ret = q2_io_read(s->io, offset, l2, s->cluster_size, err);
    if (ret == 0)
        q2_table_decode(l2, l2, n * s->l2_words);
    for (size_t i = 0; i < n && ret == 0; i++) {
        struct q2_l2_words w = q2_scan_words(s, l2, i);
        bool good = false;
        if (q2_words_empty(w))
            continue;
        n_used++;
        ret = fits_orphan(s, w, guest_offset + ((uint64_t)i << s->cluster_bits), &good,
                          err);
        n_good += good;
    }
    free(l2);
    *yes = n_used > 0 && n_good * 3 >= n_used * 2;
    return ret;
}

int q2_scan_inflates(struct q2_scan *s, const struct q2_l2_entry *e, bool *yes,
                     struct q2_error *err)
{
    struct q2_error why = Q2_ERROR_INIT;
    *yes = false;
    if (e->kind != Q2_CLUSTER_COMPRESSED || e->host_offset == 0 ||
        !q2_scan_in_file(s, e->host_offset, e->n_bytes) ||
        q2_scan_is_metadata(s, e->host_offset, e->n_bytes))
        return 0;
    uint8_t *buf = malloc(e->n_bytes + s->cluster_size);
    if (!buf)
        return q2_fail_memory(err, e->n_bytes + s->cluster_size);
    int ret = q2_io_read(s->io, e->host_offset, buf, e->n_bytes, err);
    if (ret == 0)
        *yes = q2_decompress(s->header.compression_type, buf, e->n_bytes,
                             buf + e->n_bytes, s->cluster_size, &why) == 0;
    free(buf);
    return ret;
}

// Is what the entry says is compressed data hardly a plain cluster? Other such entries
// lead into the same one, or there are zeros: what stood there is lost, and was not
// zeros.
static int was_packed(struct q2_scan *s, const struct q2_suspect *x, bool *yes,
                      struct q2_error *err)
{
    struct q2_l2_entry e = q2_scan_decode(s, x->entry);
    uint64_t cluster = e.host_offset >> s->cluster_bits;
    *yes = false;
    if (e.kind != Q2_CLUSTER_COMPRESSED ||
        s->findings.list[x->finding].problem != Q2_PROBLEM_COMPRESSED_BROKEN)
        return 0;
    for (size_t i = 0; i < s->n_suspects && i < MAX_RIVALS && !*yes; i++) {
        const struct q2_suspect *other = &s->suspects[i];
        struct q2_l2_entry o = q2_scan_decode(s, other->entry);
        *yes = !other->is_l1 && o.kind == Q2_CLUSTER_COMPRESSED &&
               o.host_offset != e.host_offset &&
               o.host_offset >> s->cluster_bits == cluster;
    }
    uint8_t *buf = *yes ? NULL : malloc(e.n_bytes);
    if (*yes || !buf)
        return *yes ? 0 : q2_fail_memory(err, e.n_bytes);
    int ret = q2_io_read(s->io, e.host_offset, buf, e.n_bytes, err);
    *yes = ret == 0 && q2_is_zero(buf, e.n_bytes);
    free(buf);
    return ret;
}

// Would raw be right as this suspect's entry?
static int fits(struct q2_scan *s, const struct q2_suspect *x, uint64_t raw,
                uint64_t *value, bool *yes, struct q2_error *err)
{
    struct q2_l2_entry e = q2_scan_decode(s, raw);
    uint64_t stored = 0;
    *yes = false;
    if (!x->is_l1 && e.kind == Q2_CLUSTER_COMPRESSED) {
        if (x->bitmap != 0) // it has subclusters
            return 0;
        *value = raw & ~Q2_FLAG_COPIED;
        int ret = q2_scan_has_surplus(s, e.host_offset, e.n_bytes, yes, err);
        return ret < 0 || !*yes ? ret : q2_scan_inflates(s, &e, yes, err);
    }
    uint64_t reserved = x->is_l1 ? Q2_L1_RESERVED : q2_scan_l2_reserved(s);
    if (raw & reserved)
        return 0;
    int ret = q2_scan_is_orphan(s, raw & Q2_OFFSET_MASK, &stored, yes, err);
    bool packed = false;
    if (ret == 0 && *yes)
        ret = was_packed(s, x, &packed, err);
    *yes &= !packed;
    // The active state's entry of a cluster with one reference has the COPIED flag:
    // without it a compressed entry was no plain one.
    if (!x->is_l1 && (x->entry & Q2_FLAG_COMPRESSED) && !(x->entry & Q2_FLAG_COPIED) &&
        stored == 1 && s->findings.list[x->finding].snapshot < 0)
        *yes = false;
    if (ret == 0 && *yes && x->is_l1)
        ret = q2_scan_reads_like_l2(s, raw & Q2_OFFSET_MASK, x->guest_offset, yes, err);
    *value = (raw & ~Q2_FLAG_COPIED) | (stored == 1 ? Q2_FLAG_COPIED : 0);
    return ret;
}

// Collects distinct values that fit.
struct answer {
    uint64_t value;
    unsigned n;
};

static int try_value(struct q2_scan *s, const struct q2_suspect *x, uint64_t raw,
                     struct answer *a, struct q2_error *err)
{
    uint64_t value = 0;
    bool yes;
    int ret = fits(s, x, raw, &value, &yes, err);
    if (ret == 0 && yes && (a->n == 0 || a->value != value)) {
        a->value = value;
        a->n++;
    }
    return ret;
}

// The entry of compressed data.
static uint64_t packed_value(const struct q2_scan *s, const struct q2_stream *t)
{
    const struct q2_l2_entry e = {.kind = Q2_CLUSTER_COMPRESSED,
                                  .host_offset = t->offset,
                                  .n_bytes = (uint32_t)t->n_bytes};
    return q2_l2_encode(&e, s->cluster_bits);
}

// Only the length is wrong: as much as the data needs.
static int try_measured(struct q2_scan *s, const struct q2_suspect *x, struct answer *a,
                        struct q2_error *err)
{
    struct q2_l2_entry e = q2_scan_decode(s, x->entry);
    struct q2_stream t = {.offset = e.host_offset};
    size_t n_bytes;
    int ret = q2_scan_measure(s, t.offset, &n_bytes, err);
    t.n_bytes = n_bytes;
    return ret < 0 || n_bytes == 0 || a->n > 0
               ? ret
               : try_value(s, x, packed_value(s, &t), a, err);
}

// Values near the damaged one: without its stray bits, and with any one bit changed.
static int try_near(struct q2_scan *s, const struct q2_suspect *x, struct answer *a,
                    struct q2_error *err)
{
    uint64_t reserved = x->is_l1 ? Q2_L1_RESERVED : q2_scan_l2_reserved(s);
    uint64_t clean = x->entry & ~reserved;
    uint64_t aligned = (clean & ~Q2_OFFSET_MASK) |
                       q2_align_down(clean & Q2_OFFSET_MASK, s->cluster_size);
    int ret = try_value(s, x, aligned, a, err);
    for (unsigned bit = 0; bit < 64 && ret == 0 && a->n < 2; bit++)
        ret = try_value(s, x, x->entry ^ (UINT64_C(1) << bit), a, err);
    // Compressed data lies at any byte: off by one, or by a sector.
    const uint64_t steps[] = {1, 512, UINT64_MAX, (uint64_t)-512};
    bool packed = !x->is_l1 && (x->entry & Q2_FLAG_COMPRESSED);
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]) && packed && ret == 0; i++)
        ret = try_value(s, x, x->entry + steps[i], a, err);
    if (packed && ret == 0)
        ret = try_measured(s, x, a, err);
    return ret;
}

// A flag of zeros counts only in an entry that is not damaged all over.
static uint64_t zero_flag(const struct q2_scan *s, const struct q2_suspect *x)
{
    if (x->is_l1 || !s->zero_flag || (x->entry & (Q2_L2_RESERVED | Q2_FLAG_COMPRESSED)))
        return 0;
    return x->entry & Q2_FLAG_ZERO;
}

// Compressed data that nobody names.
static int try_unnamed(struct q2_scan *s, const struct q2_suspect *x, struct answer *a,
                       struct q2_error *err)
{
    int ret = 0;
    for (unsigned i = 0; i < s->n_unnamed && !x->is_l1 && ret == 0; i++)
        ret = try_value(s, x, packed_value(s, &s->unnamed[i]), a, err);
    return ret;
}

// L2 tables that nobody names, and that have entries in common with other states' tables
// for this place.
static int try_kin(struct q2_scan *s, const struct q2_suspect *x, struct answer *a,
                   struct q2_error *err)
{
    int ret = 0;
    for (size_t i = 0; i < s->n_orphans && i < MAX_RIVALS && ret == 0 && a->n < 2; i++) {
        uint64_t offset = s->orphans[i] << s->cluster_bits;
        bool yes;
        ret = q2_scan_is_kin(s, offset, x->guest_offset, &yes, err);
        if (ret == 0 && yes)
            ret = try_value(s, x, offset, a, err);
    }
    return ret;
}

// All orphans; the only one that fits is it, if nobody else could claim it.
static int try_orphans(struct q2_scan *s, const struct q2_suspect *x, struct answer *a,
                       struct q2_error *err)
{
    int ret = 0;
    for (size_t i = 0; i < s->n_orphans && ret == 0 && a->n < 2; i++) {
        uint64_t offset = s->orphans[i] << s->cluster_bits;
        if (!x->is_l1 && q2_scan_begins_unnamed(s, offset))
            continue; // tried as what it is
        ret = try_value(s, x, offset | zero_flag(s, x), a, err);
    }
    return ret;
}

// What other states share at this place.
static int try_shared(struct q2_scan *s, const struct q2_suspect *x, struct answer *a,
                      struct q2_error *err)
{
    const struct q2_finding *f = &s->findings.list[x->finding];
    struct q2_values v;
    int ret = x->is_l1 ? q2_scan_shared_l1(s, f->edit_offset, x->guest_offset, &v, err)
                       : q2_scan_shared_l2(s, f->edit_offset, x->guest_offset, &v, err);
    for (unsigned i = 0; i < v.n && ret == 0; i++) {
        if (a->n == 0 || a->value != v.list[i])
            a->n++;
        a->value = v.list[i];
    }
    return ret;
}

// The value for an entry whose content is lost: zeros, never what a backing file has.
static void give_up(const struct q2_scan *s, const struct q2_suspect *x,
                    struct q2_finding *f)
{
    bool backing = s->header.backing_file != NULL;
    struct q2_l2_words zeros = q2_scan_zeros(s, (struct q2_l2_words){0, x->bitmap});
    f->lossy = true;
    f->has |= Q2_HAS_EDIT;
    f->edit_value = x->is_l1 ? 0 : zeros.entry;
    f->edit_bitmap = zeros.bitmap;
    f->edit_wide = !x->is_l1 && s->extended;
    f->lost_bits = (uint32_t)x->bitmap;
    f->needs_zero_cluster = backing && (x->is_l1 || s->header.version < 3);
}

// Does the L1 entry of a table that is garbage name what other entries name, and is
// nothing missing but these? Then it is no L2 table that was overwritten.
static bool is_anothers(const struct q2_scan *s, const struct q2_suspect *x)
{
    uint64_t cluster = (x->entry & Q2_OFFSET_MASK) >> s->cluster_bits, n = 0;
    for (size_t i = 0; i < s->n_suspects && i < MAX_RIVALS; i++) {
        const struct q2_suspect *other = &s->suspects[i];
        struct q2_l2_entry e = q2_scan_decode(s, other->entry);
        n += !other->is_l1 && e.host_offset >> s->cluster_bits == cluster;
    }
    return n > 0 && s->surplus + 1 == n; // its own reference counts as one of them
}

// The same of an extended entry, which named no cluster: then no subcluster is stored.
// One bit that says so is a stray one; above a backing file more of them may have been
// anything.
static bool had_no_cluster(const struct q2_scan *s, const struct q2_suspect *x,
                           struct q2_finding *f)
{
    uint32_t stored = (uint32_t)x->bitmap;
    if (s->header.backing_file && stored != 0 && !q2_is_power_of_2(stored))
        return false;
    f->edit_value = 0;
    f->edit_bitmap = x->bitmap & Q2_BITMAP_ZEROS;
    f->edit_wide = true;
    f->has |= Q2_HAS_EDIT;
    return true;
}

// No cluster is missing a reference, so the entry named none. Above a backing file it
// could still be a zero cluster.
static bool was_empty(const struct q2_scan *s, const struct q2_suspect *x,
                      struct q2_finding *f)
{
    uint64_t plain = x->entry & ~Q2_FLAG_ZERO, zero = x->entry & Q2_FLAG_ZERO;
    bool dirty = (s->header.incompatible_features & Q2_INCOMPAT_DIRTY) != 0;
    bool nothing_missing = f->problem == Q2_PROBLEM_L2_GARBAGE
                               ? is_anothers(s, x)
                               : s->surplus == 0 && s->deficit == 0;
    if (!nothing_missing || s->rebuild || dirty)
        return false;
    if (!x->is_l1 && s->extended)
        return had_no_cluster(s, x, f);
    if (!x->is_l1 && ((zero && s->header.version < 3) ||
                      (s->header.backing_file && !q2_is_power_of_2(plain))))
        return false;
    f->edit_value = x->is_l1 || !q2_is_power_of_2(plain) ? 0 : zero;
    f->has |= Q2_HAS_EDIT;
    return true;
}

// A zero cluster whose host cluster is not what it was: it reads as zeros all the same.
// So does an extended entry, whose bits say it (without any it may be a compressed one).
static bool is_zero(const struct q2_scan *s, const struct q2_suspect *x,
                    struct q2_finding *f)
{
    if (x->is_l1)
        return false;
    if (s->extended && (x->bitmap == 0 || (uint32_t)x->bitmap != 0))
        return false;
    if (!s->extended && (!zero_flag(s, x) || (x->entry & Q2_FLAG_COMPRESSED)))
        return false;
    f->edit_value = s->zero_flag ? Q2_FLAG_ZERO : 0;
    f->has |= Q2_HAS_EDIT;
    return true;
}

// Is the refcount block that describes the cluster there, with all that it says?
static int is_described(struct q2_scan *s, uint64_t cluster, bool *yes,
                        struct q2_error *err)
{
    struct q2_table *t;
    unsigned block_bits = s->cluster_bits + 3 - s->format->order;
    int ret = q2_scan_block(s, cluster, &t, err);
    *yes =
        ret == 0 && t &&
        (s->refcount_table[cluster >> block_bits] & Q2_OFFSET_MASK) + s->cluster_size <=
            s->file_size;
    return ret;
}

// The cluster that the entry names was in use, or may have been: it was right, and the
// file was cut short.
static int was_cut_off(struct q2_scan *s, const struct q2_suspect *x,
                       const struct q2_finding *f, bool *yes, struct q2_error *err)
{
    uint64_t stored = 0, cluster = (x->entry & Q2_OFFSET_MASK) >> s->cluster_bits;
    bool known = false;
    *yes = false;
    if (f->problem != Q2_PROBLEM_REFERENCE_OUTSIDE)
        return 0;
    *yes = x->entry == q2_scan_cut_mark(s->cluster_size);
    if (*yes)
        return 0;
    if (!x->is_l1 && (x->entry & Q2_FLAG_COMPRESSED))
        cluster = f->offset >> s->cluster_bits;
    if (cluster > 2 * s->file_clusters + Q2_NEAR_CLUSTERS)
        return 0;
    int ret = q2_scan_stored(s, cluster, &stored, err);
    if (ret == 0)
        ret = is_described(s, cluster, &known, err);
    *yes = ret == 0 && (stored > 0 || !known);
    return ret;
}

// Looks for the value; n_rivals suspects of its kind are there, itself counted.
static int look_for(struct q2_scan *s, const struct q2_suspect *x, size_t n_rivals,
                    struct answer *a, struct q2_error *err)
{
    uint64_t reserved = x->is_l1 ? Q2_L1_RESERVED : q2_scan_l2_reserved(s);
    uint64_t offset = x->entry & Q2_OFFSET_MASK;
    // In a dirty image refcounts are what a crash leaves, and no evidence.
    bool dirty = (s->header.incompatible_features & Q2_INCOMPAT_DIRTY) != 0;
    int ret = dirty ? 0 : try_shared(s, x, a, err);
    if (ret == 0 && a->n != 1 && !dirty && x->is_l1 &&
        n_rivals * q2_min_u64(s->n_orphans, MAX_RIVALS) <= MAX_KIN) {
        a->n = 0;
        ret = try_kin(s, x, a, err);
    }
    if (ret < 0 || a->n == 1)
        return ret;
    a->n = 0;
    if (n_rivals > 1) // among several only its own place, without stray bits, is evidence
        return offset == 0 || !q2_is_aligned(offset, s->cluster_size)
                   ? 0
                   : try_value(s, x, x->entry & ~reserved, a, err);
    // An entry without an offset is near to anything and to nothing.
    ret = offset ? try_near(s, x, a, err) : 0;
    // With more lost than one entry can name the whole table is something else.
    // Compressed data may lie in two clusters.
    if (ret == 0 && x->hollow && q2_scan_hollow(s)) {
        a->n = a->n == 1 && (a->value & Q2_FLAG_COMPRESSED) ? 1 : 0;
        return 0;
    }
    if (ret == 0 && a->n == 0 && !s->too_many_orphans && !dirty)
        ret = try_unnamed(s, x, a, err);
    if (ret == 0 && a->n < 2 && (a->n == 0 || s->n_unnamed > 0) && !s->too_many_orphans &&
        !dirty)
        ret = try_orphans(s, x, a, err);
    return ret;
}

// A compressed entry whose clusters' counts have room for it is right: its data is
// broken.
static int owns_its_place(struct q2_scan *s, const struct q2_suspect *x, bool *yes,
                          struct q2_error *err)
{
    struct q2_l2_entry e = q2_scan_decode(s, x->entry);
    *yes = false;
    return e.kind == Q2_CLUSTER_COMPRESSED
               ? q2_scan_has_surplus(s, e.host_offset, e.n_bytes, yes, err)
               : 0;
}

// An extended entry without bits stores nothing, unless it is compressed.
static bool is_bare(const struct q2_scan *s, const struct q2_suspect *x,
                    struct q2_finding *f)
{
    if (x->is_l1 || !s->extended || x->bitmap != 0 ||
        s->compressed_clusters + s->n_packed > 0)
        return false;
    f->edit_value = 0;
    f->has |= Q2_HAS_EDIT;
    return true;
}

static int resolve_one(struct q2_scan *s, const struct q2_suspect *x, size_t n_rivals,
                       struct q2_error *err)
{
    struct q2_finding *f = &s->findings.list[x->finding];
    struct answer a = {0};
    bool cut_off;
    int ret = was_cut_off(s, x, f, &cut_off, err);
    if (ret < 0 || is_zero(s, x, f) || (!cut_off && was_empty(s, x, f)))
        return ret;
    bool owned = false;
    if (ret == 0 && f->problem == Q2_PROBLEM_COMPRESSED_BROKEN) {
        n_rivals = 1; // what inflates is evidence enough
        ret = was_packed(s, x, &owned, err);
    }
    if (ret == 0 && owned)
        ret = owns_its_place(s, x, &owned, err);
    if (ret == 0 && !cut_off && !owned)
        ret = look_for(s, x, n_rivals, &a, err);
    if (ret < 0)
        return ret;
    // Another state that says the same is no help, and says that the entry is right.
    owned |= a.n == 1 && a.value == x->entry;
    if (!owned && a.n != 1 && f->problem == Q2_PROBLEM_COMPRESSED_BROKEN)
        ret = owns_its_place(s, x, &owned, err);
    owned &= f->problem == Q2_PROBLEM_COMPRESSED_BROKEN;
    if (a.n == 1 && a.value != x->entry) {
        f->edit_value = a.value;
        f->has |= Q2_HAS_EDIT;
        f->recovered = true;
    } else if (!owned && !is_bare(s, x, f)) {
        give_up(s, x, f);
    }
    return ret;
}

// What more damaged entries could have named than there is room for is taken by none.
static int drop_rivals(struct q2_scan *s, struct q2_error *err)
{
    struct q2_counters *claims = q2_counters_new();
    int ret = claims ? 0 : q2_fail_memory(err, sizeof(*s));
    for (size_t i = 0; i < s->n_suspects && ret == 0; i++) {
        size_t k = s->suspects[i].finding;
        if (k != SIZE_MAX && s->findings.list[k].recovered)
            ret = q2_scan_claim_value(s, claims, s->findings.list[k].edit_value, err);
    }
    for (size_t i = 0; i < s->n_suspects && ret == 0; i++) {
        size_t k = s->suspects[i].finding;
        bool fits = true;
        if (k == SIZE_MAX || !s->findings.list[k].recovered)
            continue;
        ret = q2_scan_claim_fits(s, claims, s->findings.list[k].edit_value, &fits, err);
        s->findings.list[k].recovered = fits;
        if (!fits)
            give_up(s, &s->suspects[i], &s->findings.list[k]);
    }
    q2_counters_free(claims);
    return ret;
}

// Is nothing to be done about any suspect?
static bool only_broken_data(const struct q2_scan *s)
{
    bool any = false;
    for (size_t i = 0; i < s->n_suspects; i++) {
        size_t k = s->suspects[i].finding;
        if (k == SIZE_MAX)
            continue;
        if (s->findings.list[k].has & Q2_HAS_EDIT)
            return false;
        any |= s->findings.list[k].problem == Q2_PROBLEM_COMPRESSED_BROKEN;
    }
    return any;
}

// A compressed entry with the COPIED flag or bits of subclusters: when its data does not
// inflate it was a plain one.
static int resolve_copied(struct q2_scan *s, struct q2_finding *f, struct q2_error *err)
{
    struct q2_l2_entry e = q2_scan_decode(s, f->entry);
    uint64_t plain = f->entry & ~Q2_FLAG_COMPRESSED;
    bool yes;
    int ret = q2_scan_inflates(s, &e, &yes, err);
    if (ret == 0 && !yes && !(plain & q2_scan_l2_reserved(s)) &&
        q2_is_aligned(plain & Q2_OFFSET_MASK, s->cluster_size)) {
        f->edit_value = plain;
        f->edit_bitmap = f->bitmap;
    }
    return ret;
}

int q2_scan_resolve(struct q2_scan *s, struct q2_error *err)
{
    size_t n_l1 = 0;
    int ret;
    for (size_t i = 0; i < s->n_suspects; i++)
        n_l1 += s->suspects[i].is_l1;
    ret = q2_scan_find_l1s(s, err);
    if (ret == 0 && s->n_suspects > 0 && s->surplus > 0)
        ret = q2_scan_find_unnamed(s, err);
    for (size_t i = 0; i < s->n_suspects && ret == 0; i++) {
        const struct q2_suspect *x = &s->suspects[i];
        // What hangs below a damaged L1 entry looks orphaned: first these, then the rest.
        if (x->finding != SIZE_MAX && (x->is_l1 || n_l1 == 0))
            ret = resolve_one(s, x, x->is_l1 ? n_l1 : s->n_suspects, err);
    }
    if (ret == 0)
        ret = drop_rivals(s, err);
    if (ret == 0 && s->n_suspects == 0)
        ret = q2_scan_find_wiped(s, err);
    s->keep_packed = only_broken_data(s);
    for (size_t i = 0; i < s->findings.n && ret == 0; i++) {
        enum q2_problem problem = s->findings.list[i].problem;
        if (problem == Q2_PROBLEM_COMPRESSED_COPIED ||
            problem == Q2_PROBLEM_SUBCLUSTERS_PACKED)
            ret = resolve_copied(s, &s->findings.list[i], err);
    }
    return ret;
}
