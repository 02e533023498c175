// SPDX-License-Identifier: MIT
// Tables that contradict each other: guest data may look like a table, as that of an
// image within the image does; and what has overwritten the file may be another image.
#include <stdlib.h>

#include "base/counters.h"
#include "recover/place.h"

struct claims {
    struct q2_work *w;
    struct q2_counters *of; // by host cluster: how many tables lead to it
    uint32_t *shared;       // by table: its entries that others have, too
};

static bool is_l2(const struct q2_found_table *t)
{
    return !t->is_l1 && !t->counts;
}

// What entry i of the table that was read leads to; false: nothing in the file.
static bool leads_to(const struct q2_work *w, size_t i, uint64_t *offset)
{
    struct q2_reading e =
        q2_layout_judge(&w->found.layout, w->survey.file_size, w->table, i);
    *offset = e.offset;
    return e.kind == Q2_READS_PLACE;
}

static int note_claims(struct claims *c, struct q2_error *err)
{
    struct q2_work *w = c->w;
    uint64_t offset;
    int ret = 0;
    for (size_t i = 0; i < w->found.n && ret == 0; i++) {
        if (!is_l2(&w->found.list[i]))
            continue;
        ret = q2_work_read(w, w->found.list[i].offset, err);
        for (size_t k = 0; k < q2_layout_entries(&w->found.layout) && ret == 0; k++) {
            if (leads_to(w, k, &offset))
                ret = q2_counters_add(c->of, offset >> w->found.layout.cluster_bits, 1, 1,
                                      err);
        }
    }
    return ret;
}

static int count_shared(struct claims *c, struct q2_error *err)
{
    struct q2_work *w = c->w;
    uint64_t offset;
    int ret = 0;
    for (size_t i = 0; i < w->found.n && ret == 0; i++) {
        if (!is_l2(&w->found.list[i]))
            continue;
        ret = q2_work_read(w, w->found.list[i].offset, err);
        for (size_t k = 0; k < q2_layout_entries(&w->found.layout) && ret == 0; k++) {
            if (leads_to(w, k, &offset))
                c->shared[i] +=
                    q2_counters_get(c->of, offset >> w->found.layout.cluster_bits) > 1;
        }
    }
    return ret;
}

// A table of its own: most of what it leads to, no other table does.
static bool is_own(const struct claims *c, const struct q2_found_table *t)
{
    uint32_t n_shared = c->shared[t - c->w->found.list];
    return t->n_copied > 0 && n_shared < t->n_used - n_shared;
}

// What the table that was read leads to as if it were data.
struct led_to {
    uint64_t n_copied; // entries of tables with the flag
    uint64_t n_own;    // entries of tables of their own
    bool beyond;       // and to what lies behind the end of the file
};

static struct led_to look(const struct claims *c, const struct q2_found_table *t)
{
    const struct q2_work *w = c->w;
    struct led_to sum = {0};
    for (size_t k = 0; k < q2_layout_entries(&w->found.layout); k++) {
        struct q2_reading e =
            q2_layout_judge(&w->found.layout, w->survey.file_size, w->table, k);
        const struct q2_found_table *to =
            e.kind == Q2_READS_PLACE ? q2_found_at(&w->found, e.offset) : NULL;
        sum.beyond |= e.kind == Q2_READS_BEYOND;
        if (!to || to->linked || to->is_l1 || to == t)
            continue;
        sum.n_copied += to->n_copied;
        sum.n_own += is_own(c, to) ? to->n_used : 0;
    }
    return sum;
}

// A table that leads to others is the one that is wrong when they have more to say than
// it has, or when it leads behind the end as well; else those with fewer entries are.
static int judge(struct claims *c, struct q2_found_table *t, struct q2_error *err)
{
    struct q2_work *w = c->w;
    uint64_t offset;
    int ret = q2_work_read(w, t->offset, err);
    if (ret < 0)
        return ret;
    struct led_to sum = look(c, t);
    if (!t->linked && ((sum.n_own > 0 && sum.n_own * 2 >= t->n_used) ||
                       (sum.beyond && sum.n_copied > 0))) {
        t->stale = true;
        return 0;
    }
    for (size_t k = 0; k < q2_layout_entries(&w->found.layout); k++) {
        struct q2_found_table *to =
            leads_to(w, k, &offset) ? q2_found_at(&w->found, offset) : NULL;
        if (to && !to->linked && !to->is_l1 && to->n_used < t->n_used)
            to->stale = true;
    }
    return 0;
}

int q2_place_drop_data(struct q2_work *w, struct q2_error *err)
{
    size_t n_bytes = (w->found.n + 1) * sizeof(uint32_t);
    struct claims c = {w, q2_counters_new(), calloc(1, n_bytes)};
    int ret = c.of && c.shared ? 0 : q2_fail_memory(err, n_bytes);
    if (ret == 0)
        ret = note_claims(&c, err);
    if (ret == 0)
        ret = count_shared(&c, err);
    for (size_t i = 0; i < w->found.n && ret == 0; i++) {
        if (is_l2(&w->found.list[i]))
            ret = judge(&c, &w->found.list[i], err);
    }
    q2_counters_free(c.of);
    free(c.shared);
    return ret;
}
