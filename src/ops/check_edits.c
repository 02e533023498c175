// SPDX-License-Identifier: MIT
// Matching the writes of a plan with the problems that they heal, by their places: the
// entry that a finding names, the count of its cluster, the field of the header. A write
// of something new carries the problems of the write that will point to it.
#include "ops/check_edits.h"
#include "base/search.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

#define HEADER_SECTOR 512U

// Host bytes that have to change because of a problem.
struct place {
    uint64_t start, end;
    enum q2_problem problem;
    const char *structure;
};

struct matcher {
    const struct q2_plan *plan;
    struct place *places; // by start
    size_t n, max;
    uint64_t *blocks; // refcount blocks of the repaired image, ascending
    size_t n_blocks;
    struct place cut; // the one that may hold others; end 0: none
    // Problems that a switch of the refcounts, of the snapshots, of feature bits, of the
    // bitmaps extension heals.
    uint64_t refcounts, snapshots, features, bitmaps;
    uint8_t header[HEADER_SECTOR]; // as the writes so far leave it
};

static uint64_t bit_of(enum q2_problem problem)
{
    return UINT64_C(1) << problem;
}

static int add(struct matcher *m, uint64_t start, uint64_t n_bytes,
               const struct q2_finding *f, const char *structure, struct q2_error *err)
{
    void *list = m->places;
    int ret = q2_scan_grow(&list, &m->max, m->n, sizeof(*m->places), err);
    if (ret < 0)
        return ret;
    m->places = list;
    m->places[m->n++] = (struct place){start, start + n_bytes, f->problem, structure};
    return 0;
}

// The counts of a run of clusters: a place in each block.
static int add_counts(struct matcher *m, const struct q2_finding *f, struct q2_error *err)
{
    const struct q2_scan *s = &m->plan->after;
    if (!s->refcount_table || !s->format)
        return 0;
    unsigned block_bits = s->cluster_bits + 3 - s->format->order;
    uint64_t at = f->cluster, end = f->cluster + f->count;
    int ret = 0;
    while (at < end && ret == 0) {
        uint64_t index = at >> block_bits, first = index << block_bits;
        uint64_t next = q2_min_u64(end, first + (UINT64_C(1) << block_bits));
        if (index >= s->refcount_table_size)
            break;
        uint64_t block = s->refcount_table[index] & Q2_OFFSET_MASK;
        uint64_t from = ((at - first) << s->format->order) / 8;
        uint64_t to = q2_div_round_up((next - first) << s->format->order, 8);
        if (block != 0)
            ret = add(m, block + from, to - from, f, "refcount block", err);
        at = next;
    }
    return ret;
}

static const char *entry_structure(const struct q2_finding *f)
{
    if (f->problem == Q2_PROBLEM_REFTABLE_RESERVED)
        return "refcount table";
    if (f->problem == Q2_PROBLEM_SNAPSHOT_FIELD)
        return "snapshot table";
    if (f->problem == Q2_PROBLEM_BITMAP_FIELD || f->problem == Q2_PROBLEM_BITMAP_NAME ||
        f->problem == Q2_PROBLEM_BITMAP_TABLE)
        return "bitmap directory";
    if (f->problem == Q2_PROBLEM_BITMAP_ENTRY)
        return "bitmap table";
    return f->in_l1 || f->problem == Q2_PROBLEM_COPIED_L2 ? "L1 table" : "L2 table";
}

static int add_finding(struct matcher *m, const struct q2_finding *f,
                       struct q2_error *err)
{
    if (f->problem == Q2_PROBLEM_ACTIVE_L1_CUT)
        m->cut = (struct place){f->offset, f->offset + f->size, f->problem, "L1 table"};
    else if (f->problem == Q2_PROBLEM_HEADER_FIELD)
        return add(m, f->offset, 1, f, "header", err);
    else if (f->problem == Q2_PROBLEM_REFCOUNT_TOO_HIGH ||
             f->problem == Q2_PROBLEM_REFCOUNT_TOO_LOW)
        return add_counts(m, f, err);
    else if (f->has & Q2_HAS_EDIT)
        return add(m, f->edit_offset,
                   (f->edit_wide ? 16 : 8) * q2_max_u64(f->edit_count, 1), f,
                   entry_structure(f), err);
    return 0;
}

// Slugs say what a problem is of.
static bool is_of(enum q2_problem problem, const char *prefix)
{
    return strncmp(q2_problem_info(problem)->slug, prefix, strlen(prefix)) == 0;
}

static void note_group(struct matcher *m, enum q2_problem problem)
{
    if (is_of(problem, "refcount-"))
        m->refcounts |= bit_of(problem);
    else if (is_of(problem, "snapshot-"))
        m->snapshots |= bit_of(problem);
    else if (is_of(problem, "header-"))
        m->features |= bit_of(problem);
    else if (problem == Q2_PROBLEM_BITMAP_DIRECTORY)
        m->bitmaps |= bit_of(problem);
}

static int by_start(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    return (x->start > y->start) - (x->start < y->start);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int sort_blocks(struct matcher *m, struct q2_error *err)
{
    const struct q2_scan *after = &m->plan->after;
    if (!after->refcount_table || after->refcount_table_size == 0)
        return 0;
    m->n_blocks = q2_to_size(after->refcount_table_size);
    m->blocks = malloc(m->n_blocks * sizeof(*m->blocks));
    if (!m->blocks)
        return q2_fail_memory(err, m->n_blocks * sizeof(*m->blocks));
    memcpy(m->blocks, after->refcount_table, m->n_blocks * sizeof(*m->blocks));
    qsort(m->blocks, m->n_blocks, sizeof(*m->blocks), by_value);
    return 0;
}

static int collect(struct matcher *m, struct q2_io *image, struct q2_error *err)
{
    int ret = q2_io_read(image, 0, m->header, sizeof(m->header), err);
    if (ret == 0)
        ret = sort_blocks(m, err);
    for (size_t i = 0; i < m->plan->healed.n && ret == 0; i++) {
        note_group(m, m->plan->healed.list[i].problem);
        ret = add_finding(m, &m->plan->healed.list[i], err);
    }
    if (m->n > 0)
        qsort(m->places, m->n, sizeof(*m->places), by_start);
    return ret;
}

// The places that begin in the range: all that are written begin there.
static void match_places(const struct matcher *m, uint64_t start, uint64_t end,
                         struct q2_check_edit *e)
{
    size_t low = q2_search_from(m->places, m->n, sizeof(*m->places),
                                offsetof(struct place, start), start);
    for (; low < m->n && m->places[low].start < end; low++) {
        e->problems |= bit_of(m->places[low].problem);
        e->structure = m->places[low].structure;
    }
    if (m->cut.end > 0 && start < m->cut.end && m->cut.start < end) {
        e->problems |= bit_of(m->cut.problem);
        e->structure = m->cut.structure;
    }
}

// A write of the whole sector, by what changes in it: a switch to new tables, or a bit.
static void match_sector(const struct matcher *m, const uint8_t *was,
                         struct q2_check_edit *e)
{
    const struct {
        unsigned at, n_bytes;
        uint64_t problems;
    } fields[] = {
        {48, 12, m->refcounts}, // refcount_table_offset, refcount_table_clusters
        {60, 12, m->snapshots}, // nb_snapshots, snapshots_offset
        {72, 8, m->features},   // incompatible_features
        {96, 4, m->refcounts},  // refcount_order
    };
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        if (memcmp(was + fields[i].at, m->header + fields[i].at, fields[i].n_bytes) != 0)
            e->problems |= fields[i].problems;
    }
}

static void match_header(struct matcher *m, const struct q2_overlay_entry *w,
                         struct q2_check_edit *e)
{
    uint8_t was[HEADER_SECTOR];
    memcpy(was, m->header, sizeof(was));
    memcpy(m->header + w->offset, w->data,
           (size_t)q2_min_u64(w->n_bytes, HEADER_SECTOR - w->offset));
    if (w->n_bytes < HEADER_SECTOR)
        match_places(m, w->offset, w->offset + w->n_bytes, e);
    else
        match_sector(m, was, e);
    if (w->n_bytes < HEADER_SECTOR && e->problems == 0)
        e->problems = m->bitmaps;
    e->structure = "header";
}

// What lies where the image, once it is repaired, has nothing that was found damaged.
static const char *new_structure(const struct matcher *m, uint64_t offset)
{
    const struct q2_header *h = &m->plan->after.header;
    if (offset == h->refcount_table_offset)
        return "refcount table";
    if (h->nb_snapshots > 0 && offset == h->snapshots_offset)
        return "snapshot table";
    bool block = m->blocks && bsearch(&offset, m->blocks, m->n_blocks, sizeof(*m->blocks),
                                      by_value) != NULL;
    return block ? "refcount block" : "";
}

static void match(struct matcher *m, const struct q2_overlay_entry *w,
                  struct q2_check_edit *e)
{
    *e = (struct q2_check_edit){.entry = w, .structure = ""};
    if (w->kind == Q2_OVERLAY_SET_SIZE && m->cut.end > 0)
        e->problems = bit_of(m->cut.problem);
    if (w->kind != Q2_OVERLAY_WRITE)
        return;
    if (w->offset < HEADER_SECTOR) {
        match_header(m, w, e);
        return;
    }
    match_places(m, w->offset, w->offset + w->n_bytes, e);
    if (!*e->structure)
        e->structure = new_structure(m, w->offset);
}

// What nothing is known of prepares what comes next.
static void carry_back(struct q2_check_edits *edits)
{
    uint64_t next = 0;
    for (size_t i = edits->list ? edits->n : 0; i-- > 0;) {
        struct q2_check_edit *e = &edits->list[i];
        if (e->entry->kind == Q2_OVERLAY_FLUSH)
            continue;
        if (e->problems == 0 && strcmp(e->structure, "header") != 0)
            e->problems = next;
        next = e->problems;
    }
}

int q2_check_edits_list(const struct q2_plan *plan, struct q2_io *image,
                        struct q2_check_edits *out, struct q2_error *err)
{
    struct matcher m = {.plan = plan};
    const struct q2_overlay_entry *log = q2_overlay_log(plan->overlay, &out->n);
    out->list = calloc(out->n + 1, sizeof(*out->list));
    int ret = out->list ? collect(&m, image, err)
                        : q2_fail_memory(err, out->n * sizeof(*out->list));
    for (size_t i = 0; i < out->n && ret == 0; i++)
        match(&m, &log[i], &out->list[i]);
    free(m.places);
    free(m.blocks);
    if (ret != 0) {
        free(out->list);
        return ret;
    }
    carry_back(out);
    return 0;
}
