// SPDX-License-Identifier: MIT
// Reading and writing many L2 tables in long runs.
#include "image/tree_tables.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/checked.h"

// One run of neighbouring tables is at most this long (or one table).
#define RUN_BYTES (UINT32_C(4) << 20)

static int by_offset(const void *a, const void *b)
{
    const struct q2_tree_table *x = a, *y = b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

void q2_tree_sort(struct q2_tree_change *c)
{
    size_t n = 0;
    if (c->n_tables > 1)
        qsort(c->tables, c->n_tables, sizeof(*c->tables), by_offset);
    for (size_t i = 0; i < c->n_tables; i++) {
        const struct q2_tree_table *t = &c->tables[i];
        if (n > 0 && c->tables[n - 1].offset == t->offset) {
            c->tables[n - 1].gained += t->gained;
            c->tables[n - 1].lost += t->lost;
        } else {
            c->tables[n++] = *t;
        }
    }
    c->n_tables = n;
}

static int write_tables(struct q2_image *img, const struct q2_tree_table *t, size_t n,
                        uint64_t *words, struct q2_error *err)
{
    q2_table_encode(words, words, n * (img->cluster_size / 8));
    int ret = q2_io_write(img->disk.file, t->offset, words, n * img->cluster_size, err);
    // What the cache has is older now.
    for (size_t i = 0; i < n; i++)
        q2_cache_drop(img->l2_cache, t[i].offset);
    return ret < 0 ? q2_context(err, "Could not write L2 table") : 0;
}

// n neighbours. Those that were changed are written, again neighbours together.
static int visit_run(struct q2_image *img, struct q2_tree_table *t, size_t n,
                     uint64_t *words, q2_tree_visit visit, void *opaque,
                     struct q2_error *err)
{
    const size_t per_table = img->cluster_size / 8;
    size_t first = 0; // of the changed ones before i
    int ret = q2_io_read(img->disk.file, t->offset, words, n * img->cluster_size, err);
    if (ret < 0)
        return q2_context(err, "Could not read L2 table");
    q2_table_decode(words, words, n * per_table);
    for (size_t i = 0; i < n; i++) {
        bool changed = false;
        ret = visit(img, &t[i], words + i * per_table, &changed, opaque, err);
        if (ret < 0)
            return ret;
        if (changed)
            continue;
        if (first < i)
            ret = write_tables(img, t + first, i - first, words + first * per_table, err);
        if (ret < 0)
            return ret;
        first = i + 1;
    }
    return first < n
               ? write_tables(img, t + first, n - first, words + first * per_table, err)
               : 0;
}

int q2_tree_walk(struct q2_image *img, struct q2_tree_table *tables, size_t n,
                 q2_tree_visit visit, void *opaque, const struct q2_monitor *mon,
                 struct q2_error *err)
{
    size_t max_run = (size_t)q2_max_u64(1, RUN_BYTES / img->cluster_size), run;
    max_run = (size_t)q2_min_u64(max_run, q2_max_u64(n, 1));
    uint64_t *words = malloc(max_run * img->cluster_size);
    int ret = words ? 0 : q2_fail_memory(err, max_run * img->cluster_size);
    for (size_t i = 0; i < n && ret == 0; i += run) {
        if (q2_monitor_cancelled(mon)) {
            ret = q2_fail(err, -ECANCELED, "Stopped");
            break;
        }
        for (run = 1; i + run < n && run < max_run; run++) {
            if (tables[i + run].offset != tables[i].offset + run * img->cluster_size)
                break;
        }
        ret = visit_run(img, tables + i, run, words, visit, opaque, err);
        q2_monitor_progress(mon, i + run, n);
    }
    free(words);
    return ret;
}
