// SPDX-License-Identifier: MIT
// The tables of a file, told apart by what they lead to.
#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/search.h"
#include "disk/refcount.h"
#include "recover/layout.h"

void q2_found_clear(struct q2_found *f)
{
    free(f->list);
    *f = (struct q2_found){0};
}

struct q2_found_table *q2_found_from(const struct q2_found *f, uint64_t offset)
{
    size_t low = q2_search_from(f->list, f->n, sizeof(*f->list),
                                offsetof(struct q2_found_table, offset), offset);
    return low < f->n ? &f->list[low] : NULL;
}

struct q2_found_table *q2_found_at(const struct q2_found *f, uint64_t offset)
{
    struct q2_found_table *t = q2_found_from(f, offset);
    return t && t->offset == offset ? t : NULL;
}

static int read_table(const struct q2_survey *s, const struct q2_found *f,
                      uint64_t offset, uint64_t *table, struct q2_error *err)
{
    size_t n_bytes = (size_t)1 << f->layout.cluster_bits;
    int ret = q2_io_read(s->io, offset, table, n_bytes, err);
    if (ret == 0)
        q2_table_decode(table, table, n_bytes / 8);
    return ret;
}

static int add_table(struct q2_found *f, const struct q2_found_table *t,
                     struct q2_error *err)
{
    if (f->n == f->max) {
        size_t max = f->max ? f->max * 2 : 64;
        struct q2_found_table *list = realloc(f->list, max * sizeof(*list));
        if (!list)
            return q2_fail_memory(err, max * sizeof(*list));
        f->list = list;
        f->max = max;
    }
    f->list[f->n++] = *t;
    return 0;
}

// A table of L1 entries is plain, whatever the L2 tables are.
static struct q2_layout as_plain(const struct q2_layout *l)
{
    struct q2_layout plain = *l;
    plain.extended = false;
    return plain;
}

static int collect(const struct q2_survey *s, struct q2_found *f, unsigned class,
                   uint64_t *table, struct q2_error *err)
{
    struct q2_layout l = class == Q2_BLOCK_PLAIN ? as_plain(&f->layout) : f->layout;
    size_t index = 0;
    uint64_t offset = UINT64_C(1) << l.cluster_bits;
    int ret = 0;
    for (; q2_survey_next(s, l.cluster_bits, class, &index, &offset);
         offset += UINT64_C(1) << l.cluster_bits) {
        struct q2_found_table t = {.offset = offset, .plain = class == Q2_BLOCK_PLAIN};
        uint32_t n_beyond = 0;
        uint64_t end = 0;
        ret = read_table(s, f, offset, table, err);
        if (ret < 0)
            return ret;
        for (size_t i = 0; i < q2_layout_entries(&l); i++) {
            struct q2_reading r = q2_layout_judge(&l, s->file_size, table, i);
            t.n_used += r.kind != Q2_READS_EMPTY;
            t.n_bad += r.kind == Q2_READS_BAD;
            n_beyond += r.kind == Q2_READS_BEYOND;
            if (r.kind == Q2_READS_BEYOND)
                end = q2_max_u64(end, r.offset + r.n_bytes);
            t.n_copied += r.kind == Q2_READS_PLACE && r.copied;
            t.plain &= r.plain || table[i] == 0;
            f->layout.has_zero_flags |=
                !l.extended && r.kind != Q2_READS_BAD &&
                (table[i] & (Q2_FLAG_COMPRESSED | Q2_FLAG_ZERO)) == Q2_FLAG_ZERO;
        }
        if (t.n_bad * 16 > t.n_used || n_beyond == t.n_used)
            continue;
        ret = add_table(f, &t, err);
        f->beyond_end = q2_max_u64(f->beyond_end, end);
        if (ret < 0)
            return ret;
    }
    return 0;
}

static int by_offset(const void *a, const void *b)
{
    const struct q2_found_table *x = a, *y = b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

// With subclusters both kinds were looked for, and a cluster may pass for both.
static void sort_out(struct q2_found *f)
{
    size_t n = 0;
    qsort(f->list, f->n, sizeof(*f->list), by_offset);
    for (size_t i = 0; i < f->n; i++) {
        if (n > 0 && f->list[n - 1].offset == f->list[i].offset)
            f->list[n - 1].plain |= f->list[i].plain;
        else
            f->list[n++] = f->list[i];
    }
    f->n = n;
}

// How many entries lead to tables that are no L1 tables, as far as is known.
static int count_links(const struct q2_survey *s, struct q2_found *f,
                       struct q2_found_table *t, uint64_t *table, struct q2_error *err)
{
    struct q2_layout l = as_plain(&f->layout);
    int ret = read_table(s, f, t->offset, table, err);
    t->n_tables = t->n_used = t->n_copied = 0;
    for (size_t i = 0; i < q2_layout_entries(&l) && ret == 0; i++) {
        struct q2_reading r = q2_layout_judge(&l, s->file_size, table, i);
        const struct q2_found_table *to =
            r.kind == Q2_READS_PLACE ? q2_found_at(f, r.offset) : NULL;
        t->n_used += r.kind != Q2_READS_EMPTY && r.kind != Q2_READS_BEYOND;
        t->n_copied += r.kind == Q2_READS_PLACE && r.copied;
        t->n_tables += to && to != t && !to->is_l1;
    }
    return ret;
}

// A table is an L1 table when nearly all that it leads to are tables, and no L1 tables.
static int tell_apart(const struct q2_survey *s, struct q2_found *f, uint64_t *table,
                      struct q2_error *err)
{
    int ret = 0;
    for (unsigned round = 0; round < 2; round++) {
        for (size_t i = 0; i < f->n && ret == 0; i++) {
            struct q2_found_table *t = &f->list[i];
            if (!t->plain || (round > 0 && !t->is_l1))
                continue;
            ret = count_links(s, f, t, table, err);
            t->counts = t->n_tables * 3 >= t->n_used * 2 && t->n_tables > 0;
        }
        // Marked only now, so that the order does not matter.
        for (size_t i = 0; i < f->n; i++) {
            f->list[i].is_l1 = f->list[i].counts;
            f->list[i].counts = false;
        }
    }
    return ret;
}

// Does the table, whose first block is at offset block, count the header, itself and that
// block? With few bits a count anything does: nothing is counted behind the end, then.
static int counts_itself(const struct q2_survey *s, const struct q2_counts_place *p,
                         uint64_t block, bool *yes, struct q2_error *err)
{
    const uint64_t of[] = {0, p->table, block, s->file_size + (1U << p->cluster_bits)};
    int ret = 0;
    *yes = true;
    for (size_t i = 0; i < 4 && *yes && ret == 0; i++) {
        uint64_t value;
        ret = q2_counts_read(s->io, p, of[i], &value, err);
        *yes = i < 3 ? value == 1 : p->order > 2 || value == 0 || value == UINT64_MAX;
    }
    return ret;
}

// L1 tables lead to L2 tables alone.
static int note_named(const struct q2_survey *s, struct q2_found *f, uint64_t *table,
                      struct q2_error *err)
{
    int ret = 0;
    for (size_t i = 0; i < f->n && ret == 0; i++) {
        if (!f->list[i].is_l1)
            continue;
        ret = read_table(s, f, f->list[i].offset, table, err);
        for (size_t k = 0; k < ((size_t)1 << f->layout.cluster_bits) / 8 && ret == 0;
             k++) {
            struct q2_found_table *to = q2_found_at(f, table[k] & Q2_OFFSET_MASK);
            if (to)
                to->named = true;
        }
    }
    return ret;
}

// A refcount table has no flags at all.
static bool could_count(const struct q2_found_table *t)
{
    return t->plain && !t->is_l1 && !t->named && t->n_copied == 0;
}

// Behind the last of those that lie side by side from table i on.
static size_t run_end(const struct q2_found *f, size_t i)
{
    uint64_t cluster_size = UINT64_C(1) << f->layout.cluster_bits;
    for (i++; i < f->n && could_count(&f->list[i]); i++) {
        if (f->list[i].offset != f->list[i - 1].offset + cluster_size)
            break;
    }
    return i;
}

// Marks the clusters that go on with the table which begins as table i: the first block
// that each leads to counts itself.
static int mark_counts(const struct q2_survey *s, struct q2_found *f, size_t i,
                       struct q2_counts_place *p, uint64_t *table, struct q2_error *err)
{
    uint32_t n = 1;
    int ret = 0;
    for (; n < p->n_clusters && ret == 0; n++) {
        size_t k = 0;
        uint64_t value = 0;
        ret = read_table(s, f, f->list[i + n].offset, table, err);
        while (k + 1 < ((size_t)1 << p->cluster_bits) / 8 && table[k] == 0)
            k++;
        if (ret == 0 && table[k] < s->file_size)
            ret = q2_counts_read(s->io, p, table[k], &value, err);
        if (ret < 0 || value != 1)
            break;
    }
    for (uint32_t k = 0; k < n; k++) {
        f->list[i + k].counts = true;
        f->list[i + k].order = p->order;
    }
    f->list[i].n_clusters = n;
    return ret;
}

static int try_counts(const struct q2_survey *s, struct q2_found *f, size_t i, size_t end,
                      uint64_t *table, struct q2_error *err)
{
    struct q2_counts_place p = {f->list[i].offset, 1, 0, f->layout.cluster_bits,
                                s->file_size};
    size_t max = Q2_MAX_REFCOUNT_TABLE_BYTES >> p.cluster_bits;
    bool yes = false;
    int ret = read_table(s, f, p.table, table, err);
    uint64_t block = table[0];
    if (ret < 0 || block == 0 || block >= s->file_size)
        return ret;
    p.n_clusters = (uint32_t)(end - i < max ? end - i : max);
    for (; p.order <= Q2_MAX_REFCOUNT_ORDER && ret == 0 && !yes; p.order++) {
        ret = counts_itself(s, &p, block, &yes, err);
        if (ret == 0 && yes)
            return mark_counts(s, f, i, &p, table, err);
    }
    return ret;
}

static int find_counts(const struct q2_survey *s, struct q2_found *f, uint64_t *table,
                       struct q2_error *err)
{
    size_t end = 0;
    int ret = note_named(s, f, table, err);
    for (size_t i = 0; i < f->n && ret == 0; i++) {
        if (!could_count(&f->list[i]) || f->list[i].counts)
            continue;
        end = i < end ? end : run_end(f, i);
        ret = try_counts(s, f, i, end, table, err);
    }
    return ret;
}

int q2_found_collect(const struct q2_survey *s, const struct q2_layout *layout,
                     struct q2_found *out, struct q2_error *err)
{
    uint64_t *table = malloc((size_t)1 << layout->cluster_bits);
    *out = (struct q2_found){.layout = *layout};
    if (!table)
        return q2_fail_memory(err, (size_t)1 << layout->cluster_bits);
    int ret = collect(s, out, Q2_BLOCK_PLAIN, table, err);
    if (ret == 0 && layout->extended)
        ret = collect(s, out, Q2_BLOCK_EXTENDED, table, err);
    if (ret == 0)
        sort_out(out);
    // With a data file all tables that are found are L2 tables.
    if (ret == 0 && layout->data_size == 0)
        ret = tell_apart(s, out, table, err);
    if (ret == 0 && layout->data_size == 0)
        ret = find_counts(s, out, table, err);
    free(table);
    for (size_t i = 0; i < out->n; i++)
        out->any_copied |= !out->list[i].is_l1 && out->list[i].n_copied > 0;
    if (ret < 0)
        q2_found_clear(out);
    return ret;
}
