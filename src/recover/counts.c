// SPDX-License-Identifier: MIT
// What the refcounts say, if their table is found.
#include <errno.h>

#include "base/endian.h"
#include "disk/refcount.h"
#include "recover/work.h"

const struct q2_found_table *q2_found_counts(const struct q2_found *f,
                                             const struct q2_hints *h)
{
    const struct q2_found_table *first = NULL;
    for (size_t i = 0; i < f->n; i++) {
        const struct q2_found_table *t = &f->list[i];
        if (!t->counts || t->n_clusters == 0)
            continue;
        if (h->has_refcounts && h->refcount_table_offset == t->offset)
            return t;
        first = first ? first : t;
    }
    return first;
}

struct q2_counts_place q2_found_counts_place(const struct q2_found *f,
                                             const struct q2_found_table *t,
                                             uint64_t file_size)
{
    return (struct q2_counts_place){t->offset, t->n_clusters, t->order,
                                    f->layout.cluster_bits, file_size};
}

int q2_counts_read(struct q2_io *io, const struct q2_counts_place *p, uint64_t offset,
                   uint64_t *value, struct q2_error *err)
{
    unsigned bits = p->cluster_bits;
    uint64_t cluster = offset >> bits, per = (UINT64_C(8) << bits) >> p->order;
    uint8_t buf[8];
    *value = UINT64_MAX;
    if (cluster / per >= ((uint64_t)p->n_clusters << bits) / 8)
        return 0;
    int ret = q2_io_read(io, p->table + cluster / per * 8, buf, 8, err);
    uint64_t block = q2_load_be64(buf);
    if (ret < 0 || block == 0 || block >= p->file_size)
        return ret;
    // Eight bytes that hold the count, whatever its width.
    uint64_t bit = (cluster % per) << p->order;
    ret = q2_io_read(io, block + (bit / 64 * 8), buf, 8, err);
    if (ret == 0)
        *value = q2_refcount_format(p->order)->get(buf, (bit % 64) >> p->order);
    return ret;
}

int q2_work_refcount(struct q2_work *w, uint64_t offset, uint64_t *value,
                     struct q2_error *err)
{
    const struct q2_found_table *t = q2_found_counts(&w->found, &w->hints);
    *value = UINT64_MAX;
    if (!t)
        return 0;
    const struct q2_counts_place p =
        q2_found_counts_place(&w->found, t, w->survey.file_size);
    return q2_counts_read(w->io, &p, offset, value, err);
}

int q2_work_is_doubtful(struct q2_work *w, const struct q2_found_table *t, bool *yes,
                        struct q2_error *err)
{
    const struct q2_layout *l = &w->found.layout;
    struct q2_reading e = {.kind = Q2_READS_EMPTY};
    uint64_t count;
    *yes = false;
    if (t->n_copied > 0 || !t->plain || l->data_size > 0)
        return 0;
    int ret = q2_work_read(w, t->offset, err);
    for (size_t i = 0; i < q2_layout_entries(l) && ret == 0; i++) {
        struct q2_reading r = q2_layout_judge(l, w->survey.file_size, w->table, i);
        if (r.kind == Q2_READS_PACKED)
            return 0;
        e = e.kind == Q2_READS_EMPTY ? r : e;
    }
    if (ret < 0 || e.kind != Q2_READS_PLACE)
        return ret;
    ret = q2_work_refcount(w, e.offset, &count, err);
    *yes = ret == 0 && (count == 1 || (count == UINT64_MAX && w->found.any_copied));
    return ret;
}
