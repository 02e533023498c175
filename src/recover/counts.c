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
        if (!t->counts)
            continue;
        if (h->has_refcounts && h->refcount_table_offset == t->offset)
            return t;
        first = first ? first : t;
    }
    return first;
}

int q2_counts_read(struct q2_io *io, const struct q2_counts_place *p, uint64_t offset,
                   uint64_t *value, struct q2_error *err)
{
    unsigned bits = p->cluster_bits;
    uint64_t cluster = offset >> bits, per = (UINT64_C(8) << bits) >> p->order;
    uint8_t buf[8];
    *value = UINT64_MAX;
    if (cluster / per >= (UINT64_C(1) << bits) / 8) // only its first cluster is known
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
    const struct q2_counts_place p = {t->offset, t->order, w->found.layout.cluster_bits,
                                      w->survey.file_size};
    return q2_counts_read(w->io, &p, offset, value, err);
}
