// SPDX-License-Identifier: MIT
// L2 tables that get their place by what an ext file system uses: what it uses was
// written, and little else.
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "recover/place.h"

// So many pairs of a table and an index are compared.
#define MAX_PAIRS ((uint64_t)1 << 18)
// With fewer clusters in use many ranges look alike.
#define MIN_EVIDENCE 64U

struct uses {
    struct q2_ext *fs;
    uint64_t span, first, n; // indexes
    size_t n_bytes;          // of a map: a bit for each cluster of a table's range
    uint8_t *maps;           // of the tables, one behind the other
    uint8_t *used;           // by the file system, in the range of one index
    uint8_t *unsure;         // inode tables there: in use, but perhaps never written
    struct fit *fits;        // by table and index
};

// How a table and the range of an index differ.
struct fit {
    bool known;
    uint32_t n_used, n_mapped;
    uint32_t missing; // in use, and not mapped
    uint32_t surplus; // mapped, and not in use
};

static void set_bits(uint8_t *bits, uint64_t from, uint64_t to, unsigned cluster_bits)
{
    for (uint64_t c = from >> cluster_bits; c <= (to - 1) >> cluster_bits; c++)
        bits[c / 8] |= (uint8_t)(1U << (c % 8));
}

// The part of a run on the disk that lies in the range that begins at base.
static void set_run(const struct uses *u, uint8_t *bits, uint64_t base, uint64_t start,
                    uint64_t n_bytes)
{
    uint64_t from = q2_max_u64(start, base);
    uint64_t to = q2_min_u64(start + n_bytes, base + u->span);
    if (from < to)
        set_bits(bits, from - base, to - base, u->fs->w->found.layout.cluster_bits);
}

// Bitmaps may lie in the range itself: then as table x would have them.
static int load_group(const struct uses *u, const struct q2_lost *x, uint64_t index,
                      uint64_t group, bool *has, struct q2_error *err)
{
    struct q2_ext *fs = u->fs;
    uint64_t bitmap = q2_ext_block_bitmap(fs, group);
    uint64_t first = group * fs->group_blocks + fs->first_block;
    int ret = 0;
    *has = false;
    if (bitmap != 0 && bitmap / u->span == index)
        ret = q2_work_read_in_table(fs->w, x->table->offset, bitmap % u->span, fs->block,
                                    fs->block_size, has, err);
    else if (bitmap != 0)
        ret = q2_work_read_guest(fs->w, bitmap, fs->block, fs->block_size, has, err);
    for (uint64_t i = 0; i < fs->group_blocks && *has && ret == 0; i++) {
        if (fs->block[i / 8] >> (i % 8) & 1)
            set_run(u, u->used, index * u->span,
                    fs->start + ((first + i) << fs->block_bits), fs->block_size);
    }
    return ret;
}

static int load_use(const struct uses *u, const struct q2_lost *x, uint64_t index,
                    bool *known, struct q2_error *err)
{
    const struct q2_ext *fs = u->fs;
    uint64_t base = index * u->span, bytes = (uint64_t)fs->group_blocks << fs->block_bits;
    uint64_t zero = fs->start + ((uint64_t)fs->first_block << fs->block_bits);
    uint64_t first = base > zero ? (base - zero) / bytes : 0;
    int ret = 0;
    *known = true;
    memset(u->used, 0, u->n_bytes);
    for (uint64_t g = first;
         g < fs->n_groups && zero + g * bytes < base + u->span && ret == 0 && *known; g++)
        ret = load_group(u, x, index, g, known, err);
    return ret;
}

static void load_unsure(const struct uses *u, uint64_t index)
{
    const struct q2_ext *fs = u->fs;
    uint64_t n_bytes = (uint64_t)fs->group_inodes * fs->inode_bytes;
    memset(u->unsure, 0, u->n_bytes);
    for (uint64_t g = 0; g < fs->n_groups; g++) {
        uint64_t table = q2_ext_inode_table(fs, g);
        if (table != 0)
            set_run(u, u->unsure, index * u->span, table, n_bytes);
    }
}

static int load_map(const struct uses *u, const struct q2_lost *x, uint8_t *bits,
                    struct q2_error *err)
{
    struct q2_work *w = u->fs->w;
    size_t n = q2_layout_entries(&w->found.layout);
    int ret = q2_work_read(w, x->table->offset, err);
    for (size_t i = 0; i < n && ret == 0; i++) {
        struct q2_reading e =
            q2_layout_judge(&w->found.layout, w->survey.file_size, w->table, i);
        if (e.kind == Q2_READS_PLACE || e.kind == Q2_READS_PACKED)
            bits[i / 8] |= (uint8_t)(1U << (i % 8));
    }
    return ret;
}

static struct fit compare(const struct uses *u, const uint8_t *map)
{
    struct fit f = {.known = true};
    for (size_t i = 0; i < u->n_bytes; i++) {
        unsigned sure = 0xffU & ~(unsigned)u->unsure[i];
        unsigned used = u->used[i] & sure, mapped = map[i] & sure;
        f.n_used += (unsigned)__builtin_popcount(used);
        f.n_mapped += (unsigned)__builtin_popcount(mapped);
        f.missing += (unsigned)__builtin_popcount(used & ~mapped);
        f.surplus += (unsigned)__builtin_popcount(mapped & ~used);
    }
    return f;
}

static struct fit *fit_of(const struct uses *u, size_t i, uint64_t index)
{
    return &u->fits[i * u->n + (index - u->first)];
}

static int take(const struct uses *u, struct q2_recovery *r, struct q2_lost *x,
                uint64_t index, enum q2_certainty certainty, struct q2_error *err)
{
    x->index = index;
    return q2_place_put(u->fs->w, r, index, x->table->offset, certainty, err);
}

// Does the table fit to another index nearly as well as with this distance?
static bool fits_elsewhere(const struct uses *u, size_t i, uint64_t index, uint64_t best)
{
    for (uint64_t k = u->first; k < u->first + u->n; k++) {
        const struct fit *f = fit_of(u, i, k);
        uint64_t d = (uint64_t)f->missing + f->surplus;
        if (k != index && f->known && q2_work_is_open_index(u->fs->w, k) &&
            d < best * 4 + 8)
            return true;
    }
    return false;
}

// The table that differs least from what the index uses, where no other comes near.
static int place_nearest(const struct uses *u, struct q2_recovery *r,
                         struct q2_lost *list, size_t n, struct q2_error *err)
{
    int ret = 0;
    for (uint64_t index = u->first; index < u->first + u->n && ret == 0; index++) {
        uint64_t first = UINT64_MAX, second = UINT64_MAX, n_used = 0;
        size_t found = n;
        for (size_t i = 0; i < n && q2_work_is_open_index(u->fs->w, index); i++) {
            const struct fit *f = fit_of(u, i, index);
            if (!q2_place_is_open(&list[i]) || !f->known)
                continue;
            uint64_t d = (uint64_t)f->missing + f->surplus;
            if (d < first) {
                second = first;
                first = d;
                found = i;
                n_used = f->n_used;
            } else if (d < second) {
                second = d;
            }
        }
        if (found < n && n_used >= MIN_EVIDENCE && first * 8 <= n_used &&
            first * 4 + 8 <= second && !fits_elsewhere(u, found, index, first))
            ret = take(u, r, &list[found], index, Q2_PLACED_LIKELY, err);
    }
    return ret;
}

// Is nearly all that the table maps in use there, and the other way round?
static bool is_possible(const struct uses *u, size_t i, uint64_t index)
{
    const struct fit *f = fit_of(u, i, index);
    return q2_work_is_open_index(u->fs->w, index) && f->known &&
           f->surplus * 16 <= f->n_mapped && f->missing * 16 <= f->n_used + 16;
}

// Between the two indexes (not included) the one that fits best, the first of several.
static uint64_t best_between(const struct uses *u, size_t i, uint64_t from, uint64_t to)
{
    uint64_t best = UINT64_MAX, choice = UINT64_MAX;
    for (uint64_t index = u->first; index < u->first + u->n; index++) {
        const struct fit *f = fit_of(u, i, index);
        uint64_t d = (uint64_t)f->missing + f->surplus;
        if (is_possible(u, i, index) && index + 1 > from && index < to && d < best) {
            best = d;
            choice = index;
        }
    }
    return choice;
}

// In the order of the file, each where it fits best between those that have places. The
// list is in that order.
static int place_possible(const struct uses *u, struct q2_recovery *r,
                          struct q2_lost *list, size_t n, struct q2_error *err)
{
    uint64_t from = 0;
    int ret = 0;
    for (size_t i = 0; i < n && ret == 0; i++) {
        if (list[i].index != UINT64_MAX)
            from = list[i].index + 1;
        if (!q2_place_is_open(&list[i]))
            continue;
        uint64_t to = UINT64_MAX;
        for (size_t k = i + 1; k < n && to == UINT64_MAX; k++) {
            if (list[k].index != UINT64_MAX && list[k].index > from)
                to = list[k].index;
        }
        uint64_t index = best_between(u, i, from, to);
        if (index == UINT64_MAX)
            index = best_between(u, i, 0, UINT64_MAX);
        if (index == UINT64_MAX)
            continue;
        from = index + 1;
        ret = take(u, r, &list[i], index, Q2_PLACED_IN_ORDER, err);
    }
    return ret;
}

static int by_place(const void *a, const void *b)
{
    const struct q2_lost *x = a, *y = b;
    return x->table->offset < y->table->offset ? -1 : 1;
}

static int load_all(struct uses *u, const struct q2_lost *list, size_t n,
                    struct q2_error *err)
{
    int ret = 0;
    for (size_t i = 0; i < n && ret == 0; i++) {
        if (q2_place_is_open(&list[i]))
            ret = load_map(u, &list[i], u->maps + i * u->n_bytes, err);
    }
    for (uint64_t index = u->first; index < u->first + u->n && ret == 0; index++) {
        if (!q2_work_is_open_index(u->fs->w, index))
            continue;
        load_unsure(u, index);
        for (size_t i = 0; i < n && ret == 0; i++) {
            bool known;
            if (!q2_place_is_open(&list[i]))
                continue;
            ret = load_use(u, &list[i], index, &known, err);
            if (known)
                *fit_of(u, i, index) = compare(u, u->maps + i * u->n_bytes);
        }
    }
    return ret;
}

int q2_place_by_use(struct q2_ext *fs, struct q2_recovery *r, struct q2_lost *list,
                    size_t n, struct q2_error *err)
{
    struct uses u = {.fs = fs, .span = UINT64_C(1) << q2_work_span_bits(fs->w)};
    uint64_t end = q2_div_round_up(fs->start + (fs->n_blocks << fs->block_bits), u.span);
    u.first = fs->start / u.span;
    u.n = end - u.first;
    u.n_bytes = q2_layout_entries(&fs->w->found.layout) / 8 + 1;
    if (n == 0 || !fs->straight || u.n > MAX_PAIRS / n)
        return 0;
    u.maps = calloc(n, u.n_bytes);
    u.used = calloc(2, u.n_bytes);
    u.unsure = u.used ? u.used + u.n_bytes : NULL;
    u.fits = calloc(n * (size_t)u.n, sizeof(*u.fits));
    qsort(list, n, sizeof(*list), by_place);
    int ret = u.maps && u.used && u.fits ? load_all(&u, list, n, err)
                                         : q2_fail_memory(err, n * u.n_bytes);
    if (ret == 0)
        ret = place_nearest(&u, r, list, n, err);
    if (ret == 0)
        ret = place_possible(&u, r, list, n, err);
    free(u.maps);
    free(u.used);
    free(u.fits);
    return ret;
}
