// SPDX-License-Identifier: MIT
// Planning a repair, one class of problems at a time: what is higher in the image first,
// because what is below it looks different afterwards.
#include "check/repair.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "io/overlay.h"

// Each round heals something, or planning ends; this bounds what a hostile image can
// cost.
#define MAX_ROUNDS 64U
#define HEADER_INCOMPATIBLE 72U
#define HEADER_AUTOCLEAR 88U

void q2_plan_clear(struct q2_plan *p)
{
    q2_scan_clear(&p->after);
    q2_io_close(p->overlay);
    free(p->healed.list);
    for (size_t i = 0; i < p->n_names; i++)
        free(p->names[i]);
    free(p->names);
    q2_counters_free(p->bounds.appended);
    *p = (struct q2_plan){0};
}

bool q2_plan_has_edits(const struct q2_plan *p)
{
    size_t n;
    q2_overlay_log(p->overlay, &n);
    return n > 0;
}

int q2_edit_entry(struct q2_io *overlay, uint64_t host_offset, uint64_t value,
                  struct q2_error *err)
{
    uint8_t bytes[8];
    q2_store_be64(bytes, value);
    return q2_io_write(overlay, host_offset, bytes, sizeof(bytes), err);
}

int q2_plan_appended(struct q2_plan *p, uint64_t host_offset, uint64_t n_bytes,
                     struct q2_error *err)
{
    unsigned cluster_bits = p->after.cluster_bits;
    uint64_t first = host_offset >> cluster_bits;
    uint64_t last = (host_offset + n_bytes - 1) >> cluster_bits;
    return q2_counters_add(p->bounds.appended, first, last - first + 1, 1, err);
}

int q2_plan_place(struct q2_plan *p, uint64_t n_clusters, uint64_t *host_offset,
                  struct q2_error *err)
{
    unsigned cluster_bits = p->after.cluster_bits;
    uint64_t size;
    int ret = q2_io_get_size(p->overlay, &size, err);
    if (ret < 0)
        return ret;
    uint64_t cluster = q2_div_round_up(size, UINT64_C(1) << cluster_bits), start, n,
             value;
    while (p->after.dangling &&
           q2_counters_next(p->after.dangling, cluster, &start, &n, &value) &&
           start < cluster + n_clusters)
        cluster = start + n;
    *host_offset = cluster << cluster_bits;
    return q2_plan_appended(p, *host_offset, n_clusters << cluster_bits, err);
}

int q2_edit_append(struct q2_plan *p, const void *content, uint64_t *host_offset,
                   struct q2_error *err)
{
    uint32_t cluster_size = p->after.cluster_size;
    void *zeros = content ? NULL : calloc(1, cluster_size);
    if (!content && !zeros)
        return q2_fail_memory(err, cluster_size);
    int ret = q2_plan_place(p, 1, host_offset, err);
    if (ret == 0)
        ret = q2_io_write(p->overlay, *host_offset, content ? content : zeros,
                          cluster_size, err);
    free(zeros);
    return ret;
}

int q2_edit_header(struct q2_io *overlay, size_t at, const void *bytes, size_t n_bytes,
                   struct q2_error *err)
{
    uint8_t sector[512];
    int ret = q2_io_read(overlay, 0, sector, sizeof(sector), err);
    if (ret < 0)
        return ret;
    memcpy(sector + at, bytes, n_bytes);
    return q2_io_write(overlay, 0, sector, sizeof(sector), err);
}

// The finding's name belongs to a scan that will be gone: the plan keeps a copy.
static int keep_name(struct q2_plan *p, const char **name, struct q2_error *err)
{
    void *list = p->names;
    if (!*name || !**name) {
        *name = "";
        return 0;
    }
    int ret = q2_scan_grow(&list, &p->max_names, p->n_names, sizeof(char *), err);
    if (ret < 0)
        return ret;
    p->names = list;
    char *copy = strdup(*name);
    if (!copy)
        return q2_fail_memory(err, strlen(*name));
    p->names[p->n_names++] = copy;
    *name = copy;
    return 0;
}

int q2_plan_note(struct q2_plan *p, const struct q2_finding *f, struct q2_error *err)
{
    void *list = p->healed.list;
    p->n_lossy += f->lossy;
    if (p->healed.n >= Q2_MAX_FINDINGS)
        return 0;
    int ret = q2_scan_grow(&list, &p->healed.max, p->healed.n, sizeof(*f), err);
    if (ret < 0)
        return ret;
    p->healed.list = list;
    struct q2_finding *kept = &p->healed.list[p->healed.n++];
    *kept = *f;
    ret = keep_name(p, &kept->snapshot_name, err);
    return ret < 0 ? ret : keep_name(p, &kept->bitmap_name, err);
}

// A table that other states share: what is lost in it is lost for them, too.
int q2_plan_note_sharers(struct q2_plan *p, const struct q2_scan *s,
                         const struct q2_finding *f, struct q2_error *err)
{
    uint64_t table = q2_align_down(f->edit_offset, s->cluster_size);
    int ret = 0;
    for (unsigned t = 0; t < s->n_l1s && f->lossy; t++) {
        const struct q2_scan_l1 *l1 = &s->l1s[t];
        for (uint32_t i = 0; l1->entries && i < l1->n_entries && ret == 0; i++) {
            struct q2_finding other = *f;
            other.snapshot = l1->snapshot;
            other.snapshot_name = l1->name;
            other.guest_offset =
                ((uint64_t)i << (s->l2_bits + s->cluster_bits)) +
                (f->guest_offset & ((UINT64_C(1) << (s->l2_bits + s->cluster_bits)) - 1));
            if ((l1->entries[i] & Q2_OFFSET_MASK) == table &&
                (other.snapshot != f->snapshot || other.guest_offset != f->guest_offset))
                ret = q2_plan_note(p, &other, err);
        }
    }
    return ret;
}

// Has this field been given another value already? Then two things contradict each other,
// and more edits would go round in circles.
static bool was_edited(const struct q2_plan *p, const struct q2_finding *f)
{
    for (size_t i = 0; i < p->healed.n && f->problem == Q2_PROBLEM_SNAPSHOT_FIELD; i++) {
        const struct q2_finding *h = &p->healed.list[i];
        if (h->problem == f->problem && h->edit_offset == f->edit_offset)
            return true;
    }
    return false;
}

// Entries whose right value needs no other knowledge: COPIED flags, refcount table
// entries.
static int heal_simple(struct q2_plan *p, const struct q2_findings *list,
                       enum q2_problem only, bool *changed, struct q2_error *err)
{
    for (size_t i = 0; i < list->n; i++) {
        const struct q2_finding *f = &list->list[i];
        if (!(f->has & Q2_HAS_EDIT) || (only != Q2_N_PROBLEMS && f->problem != only) ||
            was_edited(p, f))
            continue;
        int ret = q2_edit_entry(p->overlay, f->edit_offset, f->edit_value, err);
        if (ret == 0)
            ret = q2_plan_note(p, f, err);
        if (ret < 0)
            return ret;
        *changed = true;
    }
    return *changed ? q2_io_flush(p->overlay, err) : 0;
}

// None of these loses a reference.
static bool is_harmless(enum q2_problem problem)
{
    switch (problem) {
    case Q2_PROBLEM_REFCOUNT_TOO_HIGH:
    case Q2_PROBLEM_REFCOUNT_TOO_LOW:
    case Q2_PROBLEM_SNAPSHOT_INCOMPLETE:
    case Q2_PROBLEM_COMPRESSED_COPIED:
    case Q2_PROBLEM_SUBCLUSTERS_BOTH:
    case Q2_PROBLEM_SUBCLUSTERS_PACKED:
    case Q2_PROBLEM_DATA_FILE_COMPRESSED:
    case Q2_PROBLEM_DATA_FILE_OFFSET:
        return true;
    default:
        return false;
    }
}

// A snapshot's entry that names no L1 table: its tables may be what looks leaked.
static bool has_no_tables(const struct q2_scan *s, uint64_t index)
{
    return index >= s->n_snapshots || s->snapshots[index].l1_size == 0;
}

// Are there findings other than refcounts and flags? Then an unreferenced cluster may be
// what a damaged entry has lost.
static bool references_are_doubtful(const struct q2_scan *s)
{
    for (size_t i = 0; i < s->findings.n; i++) {
        const struct q2_finding *f = &s->findings.list[i];
        if (!is_harmless(f->problem) ||
            (f->problem == Q2_PROBLEM_SNAPSHOT_INCOMPLETE && has_no_tables(s, f->index)))
            return true;
    }
    return s->rebuild;
}

static int round_all(struct q2_plan *p, struct q2_scan *s, const struct q2_monitor *mon,
                     bool *changed, struct q2_error *err)
{
    if (s->luks_lost) // nothing else is of use; its clusters must not become free
        return 0;
    int ret = q2_heal_l1_size(p, s, changed, err);
    if (ret == 0 && !*changed)
        ret = q2_mark_cut_off(p, s, changed, err);
    if (ret == 0 && !*changed)
        ret = q2_heal_cut(p, s, changed, err);
    if (ret == 0 && !*changed)
        ret = q2_heal_l2_cut(p, s, changed, err);
    if (ret == 0 && !*changed)
        ret = q2_heal_bitmaps(p, s, changed, err);
    if (ret == 0 && !*changed)
        ret = heal_simple(p, &s->findings, Q2_PROBLEM_SNAPSHOT_FIELD, changed, err);
    if (ret == 0 && !*changed)
        ret = q2_heal_snapshots(p, s, changed, err);
    if (ret == 0 && !*changed)
        ret = q2_heal_entries(p, s, true, changed, err);
    if (ret == 0 && !*changed)
        ret = q2_heal_entries(p, s, false, changed, err);
    if (ret == 0 && !*changed && !s->rebuild)
        ret = heal_simple(p, &s->findings, Q2_PROBLEM_REFTABLE_RESERVED, changed, err);
    if (ret == 0 && !*changed && s->rebuild) {
        for (size_t i = 0; i < s->findings.n && ret == 0; i++)
            ret = q2_plan_note(p, &s->findings.list[i], err);
        q2_scan_shrink(s);
        if (ret == 0)
            ret = q2_heal_rebuild(p, mon, err);
        *changed = true;
        return ret;
    }
    if (ret == 0 && !*changed)
        ret = q2_heal_refcounts(p, s, Q2_REPAIR_MODE_ALL, changed, err);
    if (ret == 0 && !*changed)
        ret = heal_simple(p, &s->late, Q2_N_PROBLEMS, changed, err);
    return ret;
}

static int round_leaks(struct q2_plan *p, struct q2_scan *s, bool flags_were_right,
                       bool *changed, struct q2_error *err)
{
    if (p->leaks_kept || references_are_doubtful(s)) {
        p->leaks_kept |= s->leaks > 0;
        return 0;
    }
    int ret = q2_heal_refcounts(p, s, Q2_REPAIR_MODE_LEAKS, changed, err);
    // A count that went down to one asks for the flag.
    if (ret == 0 && !*changed && flags_were_right)
        ret = heal_simple(p, &s->late, Q2_N_PROBLEMS, changed, err);
    return ret;
}

// Whoever writes clears the autoclear bits that it does not know.
static int clear_unknown(struct q2_plan *p, const struct q2_scan *s, struct q2_error *err)
{
    const uint64_t known = Q2_AUTOCLEAR_KNOWN;
    uint8_t field[8];
    if (s->header.version < 3 || !(s->header.autoclear_features & ~known) ||
        !q2_plan_has_edits(p))
        return 0;
    q2_store_be64(field, s->header.autoclear_features & known);
    int ret = q2_edit_header(p->overlay, HEADER_AUTOCLEAR, field, sizeof(field), err);
    return ret < 0 ? ret : q2_io_flush(p->overlay, err);
}

// The image says that it is dirty or corrupt: not any more.
static int clear_marks(struct q2_plan *p, const struct q2_scan *s, struct q2_error *err)
{
    const uint64_t marks = Q2_INCOMPAT_DIRTY | Q2_INCOMPAT_CORRUPT;
    uint8_t field[8];
    if (s->header.version < 3 || !(s->header.incompatible_features & marks))
        return 0;
    q2_store_be64(field, s->header.incompatible_features & ~marks);
    int ret = q2_io_flush(p->overlay, err);
    if (ret == 0)
        ret = q2_edit_header(p->overlay, HEADER_INCOMPATIBLE, field, sizeof(field), err);
    return ret < 0 ? ret : q2_io_flush(p->overlay, err);
}

// Entries of extended tables read as plain ones: every other one makes no sense.
static bool seems_extended(const struct q2_scan *s)
{
    size_t n_odd = 0;
    for (size_t i = 0; i < s->findings.n; i++) {
        const struct q2_finding *f = &s->findings.list[i];
        if (f->in_l1 || (f->problem != Q2_PROBLEM_L2_RESERVED &&
                         f->problem != Q2_PROBLEM_L2_ON_METADATA &&
                         f->problem != Q2_PROBLEM_REFERENCE_OUTSIDE))
            continue;
        if (f->index % 2 == 0)
            return false;
        n_odd++;
    }
    return n_odd > 1 && !s->extended && s->header.version >= 3 &&
           s->header.cluster_bits >= Q2_MIN_EXTENDED_CLUSTER_BITS;
}

// Entries whose places make no sense in this file, and would in a data file.
static bool seems_external(const struct q2_scan *s)
{
    size_t n = 0;
    for (size_t i = 0; i < s->findings.n; i++) {
        const struct q2_finding *f = &s->findings.list[i];
        if (f->in_l1 || (f->problem != Q2_PROBLEM_L2_NO_OFFSET &&
                         f->problem != Q2_PROBLEM_L2_ON_METADATA &&
                         f->problem != Q2_PROBLEM_REFERENCE_OUTSIDE))
            continue;
        if (f->offset != f->guest_offset)
            return false;
        n++;
    }
    return n > 0 && s->header.version >= 3;
}

// Signs that a field of the header, not what it leads to, is damaged: what the header
// names is not what it should be, or most of what is allocated seems lost.
static bool header_is_doubtful(const struct q2_scan *s)
{
    // In a dirty image wrong refcounts are what a crash leaves.
    bool dirty = (s->header.incompatible_features & Q2_INCOMPAT_DIRTY) != 0;
    for (size_t i = 0; i < s->findings.n; i++) {
        switch (s->findings.list[i].problem) {
        case Q2_PROBLEM_SNAPSHOT_TABLE:
        case Q2_PROBLEM_SNAPSHOT_L1:
        case Q2_PROBLEM_SNAPSHOT_INCOMPLETE:
        case Q2_PROBLEM_REFTABLE_OUTSIDE:
        case Q2_PROBLEM_REFTABLE_RESERVED:
        case Q2_PROBLEM_REFBLOCK_UNALIGNED:
        case Q2_PROBLEM_REFBLOCK_OUTSIDE:
        case Q2_PROBLEM_L1_RESERVED:
        case Q2_PROBLEM_L1_UNALIGNED:
        case Q2_PROBLEM_L1_ON_METADATA:
        case Q2_PROBLEM_L2_GARBAGE:
        case Q2_PROBLEM_ACTIVE_L1_CUT:
        case Q2_PROBLEM_LUKS_HEADER:
        case Q2_PROBLEM_BITMAP_DIRECTORY:
        case Q2_PROBLEM_BITMAP_FIELD:
        case Q2_PROBLEM_BITMAP_TABLE:
        case Q2_PROBLEM_DATA_FILE_COMPRESSED:
        case Q2_PROBLEM_DATA_FILE_OFFSET:
            return true;
        case Q2_PROBLEM_REFCOUNT_TOO_LOW:
            if (!dirty)
                return true;
            break;
        case Q2_PROBLEM_REFERENCE_OUTSIDE: // the L1 table as a whole
            if (!(s->findings.list[i].has & Q2_HAS_SNAPSHOT) &&
                s->findings.list[i].offset == s->header.l1_table_offset)
                return true;
            break;
        case Q2_PROBLEM_L2_RESERVED: // a zero flag that version 2 does not know?
            if (s->header.version == 2 || s->extended)
                return true;
            break;
        case Q2_PROBLEM_REFCOUNT_TOO_HIGH: // shared with a snapshot that is not there?
            if (s->findings.list[i].refcount > 1 && !dirty)
                return true;
            break;
        default:
            break;
        }
    }
    if (s->findings.n > 0 && !s->data_file && (s->header.data_file || seems_external(s)))
        return true;
    return seems_extended(s) || (!dirty && s->leaks * 2 > s->allocated_clusters);
}

// Would another value of a header field explain all that was found? Then what looks
// leaked is not.
static int header_explains(struct q2_plan *p, const struct q2_monitor *mon, bool *yes,
                           struct q2_error *err)
{
    struct q2_plan trial = {0};
    struct q2_header_view view;
    int ret = q2_header_view(&view, &p->after, err);
    if (ret == 0)
        ret = q2_overlay_open(p->overlay, &trial.overlay, err);
    if (ret == 0)
        ret = q2_heal_header(&trial, &view, mon, yes, err);
    q2_plan_clear(&trial);
    return ret;
}

// Scans what the plan has made of the image so far.
static int scan_again(struct q2_plan *p, const struct q2_monitor *mon,
                      struct q2_error *err)
{
    const struct q2_scan_bounds *bounds = p->bounds.appended ? &p->bounds : NULL;
    int ret = q2_scan_for_repair(&p->after, p->overlay, bounds, p->inflate, mon, err);
    if (ret < 0 || bounds)
        return ret;
    p->bounds.file_size = p->after.file_size;
    p->bounds.file_clusters = p->after.file_clusters;
    p->bounds.appended = q2_counters_new();
    return p->bounds.appended ? 0 : q2_fail_memory(err, sizeof(*p));
}

// The first look. A header that cannot be used at all is healed, or its error stands.
static int first_round(struct q2_plan *p, enum q2_repair_mode mode,
                       const struct q2_monitor *mon, bool *changed, struct q2_error *err)
{
    struct q2_error why = Q2_ERROR_INIT;
    int ret = scan_again(p, mon, &why);
    // A feature that this version does not know is no damage.
    if (ret == -ECANCELED || ret == -ENOMEM || ret == -EIO || ret == -ENOTSUP ||
        (ret < 0 && mode != Q2_REPAIR_MODE_ALL)) {
        *err = why;
        return ret;
    }
    if (ret == 0 &&
        (q2_scan_clean(&p->after) || p->header_known || !header_is_doubtful(&p->after)))
        return 0;
    if (mode != Q2_REPAIR_MODE_ALL)
        return header_explains(p, mon, &p->leaks_kept, err);
    bool unusable = ret < 0;
    struct q2_header_view view = {0};
    ret = unusable ? 0 : q2_header_view(&view, &p->after, err);
    q2_scan_shrink(&p->after); // every trial is a scan of its own
    if (ret == 0)
        ret = q2_heal_header(p, &view, mon, changed, err);
    if (ret == 0 && !*changed && !unusable) {
        q2_scan_clear(&p->after);
        ret = scan_again(p, mon, err);
    }
    if (ret == 0 && unusable && !*changed) {
        *err = why;
        return why.code;
    }
    return ret;
}

static int plan_rounds(struct q2_plan *p, enum q2_repair_mode mode,
                       const struct q2_monitor *mon, struct q2_error *err)
{
    bool changed = false, flags_were_right = false;
    int ret = first_round(p, mode, mon, &changed, err);
    for (unsigned round = 0; round < MAX_ROUNDS && ret == 0; round++) {
        if (round > 0 || changed) {
            q2_scan_clear(&p->after);
            ret = scan_again(p, mon, err);
            if (ret < 0)
                return ret;
        }
        if (round == 0)
            flags_were_right = p->after.late.n == 0;
        if (q2_scan_clean(&p->after))
            break;
        changed = false;
        ret = mode == Q2_REPAIR_MODE_ALL
                  ? round_all(p, &p->after, mon, &changed, err)
                  : round_leaks(p, &p->after, flags_were_right, &changed, err);
        if (!changed)
            break;
    }
    if (ret < 0)
        return ret;
    p->complete = q2_scan_clean(&p->after);
    if (p->complete && mode == Q2_REPAIR_MODE_ALL && q2_plan_has_edits(p))
        ret = q2_heal_tail(p, &p->after, err);
    if (ret == 0 && p->after.corruptions == 0)
        ret = clear_marks(p, &p->after, err);
    return ret < 0 ? ret : clear_unknown(p, &p->after, err);
}

// Clears feature bits that no program knows, because the user says so.
static int clear_features(struct q2_plan *p, uint64_t bits, struct q2_error *err)
{
    uint8_t header[HEADER_INCOMPATIBLE + 8];
    int ret = q2_io_read(p->overlay, 0, header, sizeof(header), err);
    uint64_t now = q2_load_be64(header + HEADER_INCOMPATIBLE);
    if (ret < 0 || q2_load_be32(header + 4) < 3 || !(now & bits))
        return ret;
    q2_store_be64(header + HEADER_INCOMPATIBLE, now & ~bits);
    ret = q2_edit_header(p->overlay, HEADER_INCOMPATIBLE, header + HEADER_INCOMPATIBLE, 8,
                         err);
    if (ret == 0)
        ret = q2_io_flush(p->overlay, err);
    return ret < 0 ? ret
                   : q2_plan_note(p,
                                  &(struct q2_finding){
                                      .problem = Q2_PROBLEM_HEADER_FIELD,
                                      .has = Q2_HAS_OFFSET | Q2_HAS_VALUE | Q2_HAS_WANTED,
                                      .offset = HEADER_INCOMPATIBLE,
                                      .value = now,
                                      .wanted = now & ~bits,
                                      .field = "incompatible_features"},
                                  err);
}

int q2_plan_make(struct q2_plan *p, struct q2_io *io, enum q2_repair_mode mode,
                 uint64_t features, bool inflate, const struct q2_monitor *mon,
                 struct q2_error *err)
{
    *p = (struct q2_plan){.inflate = inflate,
                          .header_known = mode == Q2_REPAIR_MODE_BELOW};
    mode = p->header_known ? Q2_REPAIR_MODE_ALL : mode;
    int ret = q2_overlay_open(io, &p->overlay, err);
    if (ret == 0 && features)
        ret = clear_features(p, features, err);
    if (ret == 0)
        ret = plan_rounds(p, mode, mon, err);
    if (ret < 0)
        q2_plan_clear(p);
    return ret;
}
