// SPDX-License-Identifier: MIT
// Healing the header: a field gets another value when with it, and with it alone, the
// rest of the file is sound.
#include "check/heal_header.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "check/repair.h"
#include "io/overlay.h"

#define AT_L1_SIZE 36U
#define AT_L1_OFFSET 40U
#define AT_AUTOCLEAR 88U
// So many corruptions are more than one field's.
#define ENOUGH 1000U

static void store(uint8_t *at, unsigned n_bytes, uint64_t value)
{
    if (n_bytes == 8)
        q2_store_be64(at, value);
    else if (n_bytes == 4)
        q2_store_be32(at, (uint32_t)value);
    else
        *at = (uint8_t)value;
}

static int write_candidate(struct q2_io *io, const struct q2_candidate *c,
                           struct q2_error *err)
{
    uint8_t bytes[8];
    store(bytes, c->n_bytes, c->value);
    return q2_io_write(io, c->at, bytes, c->n_bytes, err);
}

// Does anything else name the cluster in which the L1 table begins? What it says itself
// does not count.
static bool is_contested(const struct q2_scan *s, uint64_t cluster)
{
    if (s->header.refcount_table_offset >> s->cluster_bits == cluster ||
        (s->header.nb_snapshots > 0 &&
         s->header.snapshots_offset >> s->cluster_bits == cluster))
        return true;
    for (size_t i = 0; i < s->findings.n; i++) {
        const struct q2_finding *f = &s->findings.list[i];
        bool own = (f->in_l1 && f->snapshot < 0) ||
                   f->problem == Q2_PROBLEM_ACTIVE_L1_CUT ||
                   f->problem == Q2_PROBLEM_REFERENCE_OUTSIDE;
        if (!own && (f->has & Q2_HAS_OFFSET) && f->offset >> s->cluster_bits == cluster)
            return true;
    }
    return false;
}

// Is the L1 table in a place that its refcount says is in use, by it alone? A place that
// others name as well is theirs.
static int owns_l1(struct q2_scan *s, bool *yes, struct q2_error *err)
{
    uint64_t cluster = s->header.l1_table_offset >> s->cluster_bits, stored;
    int ret = q2_scan_stored(s, cluster, &stored, err);
    *yes = ret == 0 && stored > 0 && !is_contested(s, cluster) &&
           stored == q2_counters_get(s->references, cluster);
    return ret;
}

// What a scan finds when a field has another value.
struct outcome {
    bool clean;
    bool owns_l1;
    uint64_t n_compressed, n_allocated;
    uint64_t n_problems; // UINT64_MAX: the header cannot be used so, or far too many
};

static int try_candidate(struct q2_io *io, const struct q2_candidate *c, bool read_data,
                         uint64_t enough, const struct q2_monitor *mon,
                         struct outcome *out, struct q2_error *err)
{
    struct q2_error why = Q2_ERROR_INIT; // a header that is refused is an answer, too
    const struct q2_scan_data data = {NULL};
    struct q2_io *trial;
    struct q2_scan s;
    *out = (struct outcome){.n_problems = UINT64_MAX};
    int ret = q2_overlay_open(io, &trial, err);
    if (ret < 0)
        return ret;
    ret = write_candidate(trial, c, err);
    if (ret == 0) {
        ret = q2_scan_run_until(&s, trial, read_data ? &data : NULL, enough, mon, &why);
        if (ret == 0) {
            *out = (struct outcome){.clean = q2_scan_clean(&s),
                                    .n_compressed = s.compressed_clusters,
                                    .n_allocated = s.allocated_clusters,
                                    .n_problems = s.corruptions + s.leaks};
            ret = owns_l1(&s, &out->owns_l1, err);
            q2_scan_clear(&s);
        } else if (ret == -ECANCELED || ret == -ENOMEM) {
            *err = why;
        } else {
            ret = 0;
        }
    }
    q2_io_close(trial);
    return ret;
}

static int note_candidate(struct q2_plan *p, const struct q2_candidate *c,
                          struct q2_error *err)
{
    uint8_t bytes[8] = {0};
    int ret = q2_io_read(p->overlay, c->at, bytes + 8 - c->n_bytes, c->n_bytes, err);
    struct q2_finding f = {
        .problem = Q2_PROBLEM_HEADER_FIELD,
        .has = Q2_HAS_OFFSET | Q2_HAS_VALUE | Q2_HAS_WANTED,
        .offset = c->at,
        .value = q2_load_be64(bytes),
        .wanted = c->value,
        .field = c->field,
    };
    return ret < 0 ? ret : q2_plan_note(p, &f, err);
}

static bool is_compression(const struct q2_candidate *c)
{
    return strcmp(c->field, "compression_type") == 0;
}

// The compression type is of no importance while nothing is compressed; else the one of
// two candidates is right with which all that is can be read.
static int settle_compression(struct q2_plan *p, const struct q2_candidate **found,
                              const struct q2_candidate *other, uint64_t n_compressed,
                              const struct q2_monitor *mon, bool *sure,
                              struct q2_error *err)
{
    *sure = false;
    if (!is_compression(*found) && !is_compression(other))
        return 0;
    *sure = n_compressed == 0;
    if (*sure)
        return 0;
    struct outcome o;
    int ret = try_candidate(p->overlay, *found, true, 0, mon, &o, err);
    *sure = ret == 0 && o.clean;
    if (ret < 0 || *sure)
        return ret;
    ret = try_candidate(p->overlay, other, true, 0, mon, &o, err);
    *sure = ret == 0 && o.clean;
    if (*sure)
        *found = other;
    return ret;
}

// Does the header make sense without the bit that says that there are bitmaps?
static int decodes_without(struct q2_io *io, const struct q2_candidate *c, bool *yes,
                           struct q2_error *err)
{
    struct q2_error ignored = Q2_ERROR_INIT;
    struct q2_header header;
    struct q2_io *trial;
    *yes = false;
    int ret = q2_overlay_open(io, &trial, err);
    if (ret < 0)
        return ret;
    ret = write_candidate(trial, c, err);
    *yes = ret == 0 && q2_scan_header(trial, &header, &ignored) == 0;
    if (*yes)
        q2_header_clear(&header);
    q2_io_close(trial);
    return ret;
}

// Last: what says where the bitmaps are makes no sense in more than one way. Without them
// the image can be used.
static int drop_bitmaps(struct q2_plan *p, bool *changed, struct q2_error *err)
{
    struct q2_error ignored = Q2_ERROR_INIT;
    struct q2_header header;
    uint8_t bytes[AT_AUTOCLEAR + 8];
    bool yes;
    if (q2_scan_header(p->overlay, &header, &ignored) == 0) {
        q2_header_clear(&header);
        return 0;
    }
    int ret = q2_io_read(p->overlay, 0, bytes, sizeof(bytes), err);
    uint64_t autoclear = q2_load_be64(bytes + AT_AUTOCLEAR);
    const struct q2_candidate c = {"autoclear_features", AT_AUTOCLEAR, 8,
                                   autoclear & ~Q2_AUTOCLEAR_BITMAPS};
    if (ret < 0 || q2_load_be32(bytes + 4) < 3 || !(autoclear & Q2_AUTOCLEAR_BITMAPS))
        return ret;
    ret = decodes_without(p->overlay, &c, &yes, err);
    if (ret < 0 || !yes)
        return ret;
    ret = q2_plan_note(
        p,
        &(struct q2_finding){.problem = Q2_PROBLEM_BITMAP_DIRECTORY, .has = Q2_HAS_INDEX},
        err);
    if (ret == 0)
        ret = write_candidate(p->overlay, &c, err);
    if (ret == 0)
        ret = q2_io_flush(p->overlay, err);
    *changed = ret == 0;
    return ret;
}

static int take(struct q2_plan *p, const struct q2_candidate *c, bool *changed,
                struct q2_error *err)
{
    int ret = note_candidate(p, c, err);
    if (ret == 0)
        ret = write_candidate(p->overlay, c, err);
    if (ret == 0)
        ret = q2_io_flush(p->overlay, err);
    *changed = ret == 0;
    return ret;
}

// The best of several bad choices, for when more is wrong than one field.
struct least {
    const struct q2_header_view *now;
    const struct q2_candidate *candidate;
    uint64_t n_problems;
    bool tie;
};

int q2_header_view(struct q2_header_view *v, struct q2_scan *s, struct q2_error *err)
{
    uint64_t n_used = 0, n_bad = 0;
    bool owned;
    int ret = owns_l1(s, &owned, err);
    if (ret < 0)
        return ret;
    for (uint32_t i = 0; i < s->l1s[0].n_entries; i++)
        n_used += s->l1s[0].entries[i] != 0;
    for (size_t i = 0; i < s->findings.n; i++) {
        const struct q2_finding *f = &s->findings.list[i];
        n_bad += f->in_l1 && (f->has & Q2_HAS_SNAPSHOT) && f->snapshot < 0;
    }
    uint64_t span = UINT64_C(1) << (s->l2_bits + s->cluster_bits);
    uint64_t needed = q2_max_u64(q2_div_round_up(s->header.size, span), 1);
    *v = (struct q2_header_view){
        .usable = true,
        .long_l1 = q2_div_round_up((uint64_t)s->header.l1_size * 8, s->cluster_size) >
                   q2_div_round_up(needed * 8, s->cluster_size),
        .no_l1 = !owned &&
                 (s->header.l1_table_offset < s->cluster_size ||
                  (n_bad > 0 && n_bad * 2 >= n_used) || (n_used == 0 && s->leaks > 0)),
        .n_problems = s->corruptions + s->leaks,
    };
    return 0;
}

// What the rest of the file says, and what is not left out by another value: without its
// backing file, bitmaps or snapshots an image is easily sound.
static bool is_layout(const struct q2_candidate *c)
{
    static const unsigned at[] = {0, 4, 20, 24, AT_L1_SIZE, AT_L1_OFFSET, 48, 96, 100};
    for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
        if (c->at == at[i])
            return true;
    }
    return false;
}

// A header that cannot be used: with another value it can. An L1 table that is none: any
// place with which less is wrong is better; and so is a shorter table, where it takes
// more room than the disk needs.
static bool is_choice(const struct least *l, const struct q2_candidate *c)
{
    return (!l->now->usable && is_layout(c)) ||
           (l->now->no_l1 && c->at == AT_L1_OFFSET) ||
           (l->now->long_l1 && c->at == AT_L1_SIZE);
}

static void compare(struct least *l, const struct q2_candidate *c,
                    const struct outcome *o)
{
    uint64_t best = l->candidate     ? l->n_problems
                    : l->now->usable ? l->now->n_problems
                                     : UINT64_MAX;
    if (!is_choice(l, c) || (c->at == AT_L1_OFFSET && !o->owns_l1) ||
        o->n_problems > best || o->n_problems == UINT64_MAX ||
        (!l->now->usable && o->n_problems > o->n_allocated))
        return;
    // Of one field the likeliest value comes first.
    if (o->n_problems == best) {
        l->tie |= !l->candidate || c->at == AT_L1_OFFSET || c->at != l->candidate->at;
        return;
    }
    l->tie = false;
    l->candidate = c;
    l->n_problems = o->n_problems;
}

int q2_heal_header(struct q2_plan *p, const struct q2_header_view *now,
                   const struct q2_monitor *mon, bool *changed, struct q2_error *err)
{
    struct q2_candidates c;
    const struct q2_candidate *found = NULL;
    struct least least = {.now = now};
    bool ambiguous = false;
    int ret = q2_candidates_collect(p->overlay, &c, err);
    for (size_t i = 0; i < c.n && ret == 0; i++) {
        struct outcome o;
        ret = try_candidate(p->overlay, &c.list[i], false,
                            is_choice(&least, &c.list[i]) ? 0 : ENOUGH, mon, &o, err);
        if (ret == 0)
            compare(&least, &c.list[i], &o);
        if (ret < 0 || !o.clean)
            continue;
        // Of one field the likeliest value comes first; two fields cannot both be wrong,
        // unless nothing depends on them.
        if (!found)
            found = &c.list[i];
        else if (strcmp(found->field, c.list[i].field) != 0 && !ambiguous) {
            bool sure;
            ret = settle_compression(p, &found, &c.list[i], o.n_compressed, mon, &sure,
                                     err);
            ambiguous = ret == 0 && !sure;
        }
    }
    if (ret == 0 && found && !ambiguous)
        ret = take(p, found, changed, err);
    if (ret == 0 && !found && least.candidate && !least.tie)
        ret = take(p, least.candidate, changed, err);
    if (ret == 0 && !found && !*changed)
        ret = drop_bitmaps(p, changed, err);
    free(c.list);
    return ret;
}
