// SPDX-License-Identifier: MIT
// The snapshot table: where the header says, or wherever most of its entries make sense.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "disk/snapshot.h"
#include "recover/work.h"

#define MAX_ENTRY_BYTES ((size_t)4096)

static void clear_list(struct q2_snapshot *list, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        q2_snapshot_clear(&list[i]);
    free(list);
}

static bool is_text(const char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return false;
    }
    return true;
}

static bool makes_sense(const struct q2_work *w, const struct q2_snapshot *sn)
{
    return sn->l1_table_offset != 0 && sn->l1_table_offset < w->survey.file_size &&
           q2_is_aligned(sn->l1_table_offset, q2_work_cluster_size(w)) &&
           sn->l1_size > 0 && sn->l1_size <= Q2_MAX_L1_BYTES / 8 && *sn->id &&
           is_text(sn->id) && is_text(sn->name) &&
           (!sn->has_disk_size || sn->disk_size < INT64_MAX);
}

static bool is_known(const struct q2_snapshot *list, unsigned n,
                     const struct q2_snapshot *sn)
{
    for (unsigned i = 0; i < n; i++) {
        if (strcmp(list[i].id, sn->id) == 0)
            return true;
    }
    return false;
}

// As many entries as make sense, at most max.
static int read_entries(struct q2_work *w, uint64_t offset, unsigned max,
                        struct q2_snapshot **out, unsigned *n, struct q2_error *err)
{
    struct q2_error why = Q2_ERROR_INIT;
    uint8_t *buf = malloc(MAX_ENTRY_BYTES);
    struct q2_snapshot sn;
    size_t used;
    int ret = buf ? 0 : q2_fail_memory(err, MAX_ENTRY_BYTES);
    *out = NULL;
    for (*n = 0; *n < max && ret == 0; offset += q2_align_up(used, 8)) {
        ret = q2_io_read(w->io, offset, buf, MAX_ENTRY_BYTES, err);
        if (ret < 0)
            break;
        int code = q2_snapshot_decode(buf, MAX_ENTRY_BYTES, *n, &sn, &used, &why);
        if (code == -ENOMEM) {
            *err = why;
            ret = code;
        }
        if (code < 0)
            break;
        struct q2_snapshot *list = NULL;
        if (makes_sense(w, &sn) && !is_known(*out, *n, &sn)) {
            list = realloc(*out, (*n + 1) * sizeof(*list));
            if (!list)
                ret = q2_fail_memory(err, (*n + 1) * sizeof(*list));
        }
        if (!list) {
            q2_snapshot_clear(&sn);
            break;
        }
        *out = list;
        list[(*n)++] = sn;
    }
    free(buf);
    if (ret < 0) {
        clear_list(*out, *n);
        *out = NULL;
    }
    return ret;
}

// Is its L1 table there? The first clusters of it may name nothing, or all.
enum { TABLE_MISSING, TABLE_EMPTY, TABLE_THERE };

static int look_for_table(struct q2_work *w, const struct q2_snapshot *sn, int *found,
                          struct q2_error *err)
{
    uint64_t cluster_size = q2_work_cluster_size(w), start = sn->l1_table_offset, count;
    uint64_t end = q2_align_up(start + (uint64_t)sn->l1_size * 8, cluster_size);
    const struct q2_found_table *t = q2_found_from(&w->found, start);
    *found = TABLE_MISSING;
    if (t && t->is_l1 && t->offset < end && q2_work_zeros_before(w, t->offset) <= start) {
        *found = TABLE_THERE;
        return 0;
    }
    if (end > w->survey.file_size || q2_work_zeros_before(w, end) > start)
        return 0;
    int ret = q2_work_refcount(w, start, &count, err);
    if (ret == 0 && count != 0)
        *found = TABLE_EMPTY;
    return ret;
}

// How well the list agrees with the tables that are there; 0: not at all.
static int judge_list(struct q2_work *w, uint64_t offset, const struct q2_snapshot *list,
                      unsigned n, unsigned *score, struct q2_error *err)
{
    const struct q2_hints *h = &w->hints;
    bool hinted = h->has_snapshots && offset == h->snapshots_offset;
    unsigned n_there = 0, n_empty = 0;
    int ret = 0;
    for (unsigned i = 0; i < n && ret == 0; i++) {
        int found;
        ret = look_for_table(w, &list[i], &found, err);
        n_there += found == TABLE_THERE;
        n_empty += found == TABLE_EMPTY;
    }
    // Of empty disks nothing is there but what names them.
    bool believed = n_there > 0 || (n_empty == n && n > 0 && hinted);
    *score = believed ? 2 * (n_there + n_empty) + hinted : 0;
    return ret;
}

static int try_place(struct q2_work *w, uint64_t offset, unsigned max, unsigned *best,
                     struct q2_error *err)
{
    struct q2_snapshot *list;
    unsigned n, score;
    int ret = read_entries(w, offset, max, &list, &n, err);
    if (ret < 0)
        return ret;
    ret = judge_list(w, offset, list, n, &score, err);
    if (ret < 0 || score <= *best) {
        clear_list(list, n);
        return ret;
    }
    clear_list(w->snapshots, w->n_snapshots);
    *best = score;
    w->snapshots = list;
    w->n_snapshots = n;
    w->snapshots_offset = offset;
    return 0;
}

int q2_work_find_snapshots(struct q2_work *w, struct q2_error *err)
{
    const struct q2_places_found *p = &w->survey.snapshots;
    unsigned best = 0;
    int ret = 0;
    if (w->hints.has_snapshots &&
        q2_is_aligned(w->hints.snapshots_offset, q2_work_cluster_size(w)))
        ret = try_place(w, w->hints.snapshots_offset, w->hints.nb_snapshots, &best, err);
    bool hinted = best > 0;
    for (size_t i = 0; i < p->n && ret == 0 && !hinted; i++) {
        if (q2_is_aligned(p->list[i], q2_work_cluster_size(w)))
            ret = try_place(w, p->list[i], Q2_MAX_SNAPSHOTS, &best, err);
    }
    return ret;
}
