// SPDX-License-Identifier: MIT
// L2 tables that get their place by marks in the guest's data.
#include "recover/orphans.h"
#include "recover/place.h"

int q2_work_set_l1(struct q2_work *w, uint64_t index, uint64_t table,
                   struct q2_error *err)
{
    int ret = q2_work_grow_l1(w, index + 1, err);
    if (ret < 0)
        return ret;
    w->l1[index] = table;
    return 0;
}

int q2_place_put(struct q2_work *w, struct q2_recovery *r, uint64_t index, uint64_t table,
                 enum q2_certainty certainty, struct q2_error *err)
{
    if (certainty < w->doubt)
        certainty = w->doubt;
    r->placed[r->n_placed++] = (struct q2_placed_table){table, index, certainty};
    return q2_work_set_l1(w, index, table, err);
}

bool q2_place_is_ordered(const struct q2_lost *list, size_t n)
{
    const struct q2_lost *last = NULL;
    size_t n_back = 0, n_pairs = 0;
    for (size_t i = 0; i < n; i++) {
        if (list[i].index == UINT64_MAX || list[i].table->stale)
            continue;
        n_pairs += last != NULL;
        n_back += last && list[i].index < last->index;
        last = &list[i];
    }
    return n_back * 8 <= n_pairs;
}

// What a file system says of itself as a whole, and of its blocks, may be in clusters
// that no table leads to. Where these are on the disk is not known yet, so that they are
// no marks.
static int read_orphans(struct q2_work *w, struct q2_marks *m, struct q2_error *err)
{
    size_t n_bytes = (size_t)q2_work_cluster_size(w);
    size_t n = m->n, n_partitions = m->n_partitions, n_links = m->n_links;
    struct q2_orphans o;
    int ret = q2_orphans_collect(w, &o, err);
    for (size_t i = 0; i < o.n && ret == 0; i++) {
        ret = q2_io_read(w->io, o.list[i].host * n_bytes, o.cluster, n_bytes, err);
        if (ret == 0)
            ret = q2_marks_look(m, 0, n_bytes, o.cluster, n_bytes, err);
        m->n = n;
        m->n_partitions = n_partitions;
        m->n_links = n_links;
    }
    q2_orphans_clear(&o);
    return ret;
}

static int read_all_marks(struct q2_work *w, struct q2_marks *m,
                          const struct q2_lost *list, size_t n, struct q2_error *err)
{
    int ret = 0;
    // Once more, when a file system was known only behind some of its marks.
    for (unsigned round = 0; round < 2 && ret == 0; round++) {
        m->n = m->n_partitions = m->n_links = m->n_unknown = m->clues.n = 0;
        ret = q2_work_begin_marks(w, err);
        for (size_t i = 0; i < n && ret == 0; i++) {
            if (list[i].index == UINT64_MAX && !list[i].table->stale)
                ret = q2_work_read_marks(w, m, list[i].table->offset, i, 0, err);
        }
        if (m->n_unknown == 0 || m->n_volumes == 1)
            break;
    }
    return ret;
}

static int place_by_systems(struct q2_work *w, struct q2_recovery *r,
                            struct q2_lost *list, size_t n, struct q2_marks *m,
                            struct q2_error *err)
{
    int ret = 0;
    for (size_t v = 1; v < m->n_volumes && ret == 0; v++) {
        if (m->volumes[v].placed && m->volumes[v].is_ext)
            ret = q2_place_by_ext(w, r, list, n, v, m, err);
    }
    return ret;
}

int q2_place_marked(struct q2_work *w, struct q2_recovery *r, struct q2_lost *list,
                    size_t n, struct q2_error *err)
{
    uint64_t span = UINT64_C(1) << q2_work_span_bits(w);
    struct q2_marks m;
    int ret = q2_marks_init(&m, err);
    if (ret == 0)
        ret = read_orphans(w, &m, err);
    if (ret == 0)
        ret = read_all_marks(w, &m, list, n, err);
    // Again: what they say of blocks depends on the file systems, of which all is known
    // now.
    if (ret == 0)
        ret = read_orphans(w, &m, err);
    m.start_lost = !w->hints.has_magic;
    if (ret == 0)
        ret = q2_marks_settle(&m, span, err);
    if (ret == 0) {
        w->disk_size = q2_marks_disk_size(&m);
        w->doubt = m.doubt == Q2_MARKS_GUESSED  ? Q2_PLACED_IN_ORDER
                   : m.doubt == Q2_MARKS_LIKELY ? Q2_PLACED_LIKELY
                                                : Q2_PLACED_SURELY;
    }
    if (ret == 0)
        ret = q2_place_by_votes(w, r, list, n, &m, err);
    if (ret == 0)
        ret = q2_place_by_clues(w, r, list, n, &m, err);
    if (ret == 0)
        ret = place_by_systems(w, r, list, n, &m, err);
    if (ret == 0)
        ret = q2_orphans_place(w, r, &m, err);
    // These may have made a file system readable.
    if (ret == 0 && r->n_remade > 0)
        ret = place_by_systems(w, r, list, n, &m, err);
    q2_marks_clear(&m);
    return ret;
}
