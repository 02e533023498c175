// SPDX-License-Identifier: MIT
// L2 tables that get their place by what an ext file system uses: what it uses was
// written, and little else.
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "check/scan.h"
#include "recover/uses.h"

// So many pairs of a table and an index are compared, and so many of them with bitmaps
// that depend on the pair.
#define MAX_PAIRS ((uint64_t)1 << 21)
#define MAX_LOADS ((uint64_t)1 << 18)
// With fewer clusters in use many ranges look alike.
#define MIN_EVIDENCE 64U

static void set_bits(uint8_t *bits, uint64_t from, uint64_t to, unsigned cluster_bits)
{
    for (uint64_t c = from >> cluster_bits; c <= (to - 1) >> cluster_bits; c++)
        bits[c / 8] |= (uint8_t)(1U << (c % 8));
}

// The part of a run on the disk that lies in the range that begins at base.
static void set_run(const struct q2_uses *u, uint8_t *bits, uint64_t base, uint64_t start,
                    uint64_t n_bytes)
{
    uint64_t from = q2_max_u64(start, base);
    uint64_t to = q2_min_u64(start + n_bytes, base + u->span);
    if (from < to)
        set_bits(bits, from - base, to - base, u->fs->w->found.layout.cluster_bits);
}

// The blocks of a group that are in the range that begins at base.
static void set_group(const struct q2_uses *u, uint64_t base, uint64_t group)
{
    const struct q2_ext *fs = u->fs;
    uint64_t bits = fs->block_bits, at = group * fs->group_blocks + fs->first_block;
    uint64_t start = fs->start + (at << bits), i = 0;
    uint64_t n = q2_min_u64(fs->group_blocks, ((base + u->span - start) >> bits) + 1);
    if (base > start)
        i = (base - start) >> bits;
    for (; i < n; i++) {
        if (fs->block[i / 8] >> (i % 8) & 1)
            set_run(u, u->used, base, start + (i << bits), fs->block_size);
    }
}

enum answer { UNKNOWN, KNOWN, DEPENDS };

// A bitmap may lie in the range itself: then it depends on the table, x. NULL: none.
static int load_group(struct q2_uses *u, const struct q2_lost *x, uint64_t index,
                      uint64_t group, enum answer *answer, struct q2_error *err)
{
    struct q2_ext *fs = u->fs;
    struct q2_ext_bitmap b;
    bool has = false;
    int ret = 0;
    // Nothing of it was ever used.
    if (!q2_ext_find_bitmap(fs, group, 0, &b) && b.place != 0 && b.unused)
        return 0;
    bool own = b.place != 0 && b.place / u->span == index;
    if (own && (!x || u->n_loads == 0)) {
        *answer = x ? UNKNOWN : DEPENDS;
        return 0;
    }
    u->n_loads -= own;
    if (own)
        ret = q2_work_read_in_table(fs->w, x->table->offset, b.place % u->span, fs->block,
                                    fs->block_size, &has, err);
    else if (b.place != 0)
        ret = q2_work_read_guest(fs->w, b.place, fs->block, fs->block_size, &has, err);
    if (ret == 0 && has)
        set_group(u, index * u->span, group);
    else
        *answer = UNKNOWN;
    return ret;
}

static int load_use(struct q2_uses *u, const struct q2_lost *x, uint64_t index,
                    enum answer *answer, struct q2_error *err)
{
    const struct q2_ext *fs = u->fs;
    uint64_t base = index * u->span, bytes = (uint64_t)fs->group_blocks << fs->block_bits;
    uint64_t zero = fs->start + ((uint64_t)fs->first_block << fs->block_bits);
    uint64_t first = base > zero ? (base - zero) / bytes : 0;
    int ret = 0;
    *answer = KNOWN;
    memset(u->used, 0, u->n_bytes);
    for (uint64_t g = first; g < fs->n_groups && zero + g * bytes < base + u->span &&
                             ret == 0 && *answer == KNOWN;
         g++)
        ret = load_group(u, x, index, g, answer, err);
    return ret;
}

static void load_unsure(const struct q2_uses *u, uint64_t index)
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

static int load_map(const struct q2_uses *u, const struct q2_lost *x, uint8_t *bits,
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

static struct q2_fit compare(const struct q2_uses *u, const uint8_t *map)
{
    struct q2_fit f = {.known = true};
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

// Does the table fit to another index nearly as well as with this distance?
static bool fits_elsewhere(const struct q2_uses *u, size_t i, size_t without,
                           uint64_t best)
{
    for (size_t k = 0; k < u->n_indexes; k++) {
        const struct q2_fit *f = q2_uses_fit(u, i, k);
        if (k != without && f->known && q2_uses_is_open(u, k) &&
            q2_fit_distance(f) < best * 4 + 8)
            return true;
    }
    return false;
}

// The table that differs least from what the index uses, where no other comes near.
static int place_nearest(const struct q2_uses *u, struct q2_recovery *r, size_t k,
                         struct q2_error *err)
{
    uint64_t first = UINT64_MAX, second = UINT64_MAX, n_used = 0;
    size_t found = u->n;
    for (size_t i = 0; i < u->n && q2_uses_is_open(u, k); i++) {
        const struct q2_fit *f =
            q2_place_is_open(&u->list[i]) ? q2_uses_fit(u, i, k) : NULL;
        if (!f || !f->known)
            continue;
        if (q2_fit_distance(f) < first) {
            second = first;
            first = q2_fit_distance(f);
            found = i;
            n_used = f->n_used;
        } else if (q2_fit_distance(f) < second) {
            second = q2_fit_distance(f);
        }
    }
    return found < u->n && n_used >= MIN_EVIDENCE && first * 8 <= n_used &&
                   first * 4 + 8 <= second && !fits_elsewhere(u, found, k, first)
               ? q2_place_take(u->fs->w, r, &u->list[found], u->indexes[k],
                               Q2_PLACED_LIKELY, err)
               : 0;
}

static int by_place(const void *a, const void *b)
{
    const struct q2_lost *x = a, *y = b;
    return x->table->offset < y->table->offset ? -1 : 1;
}

static bool is_used(const struct q2_uses *u)
{
    for (size_t i = 0; i < u->n_bytes; i++) {
        if (u->used[i])
            return true;
    }
    return false;
}

// Ranges of which something may be in use.
static int find_indexes(struct q2_uses *u, struct q2_error *err)
{
    const struct q2_ext *fs = u->fs;
    uint64_t end = q2_div_round_up(fs->start + (fs->n_blocks << fs->block_bits), u->span);
    int ret = 0;
    end = q2_min_u64(end, Q2_MAX_L1_BYTES / 8);
    for (uint64_t index = fs->start / u->span;
         index < end && u->n_indexes <= MAX_PAIRS && ret == 0; index++) {
        void *list = u->indexes;
        enum answer answer = UNKNOWN;
        if (!q2_work_is_open_index(fs->w, index))
            continue;
        ret = load_use(u, NULL, index, &answer, err);
        if (ret < 0 || answer == UNKNOWN || (answer == KNOWN && !is_used(u)))
            continue;
        ret =
            q2_scan_grow(&list, &u->max_indexes, u->n_indexes, sizeof(*u->indexes), err);
        u->indexes = list;
        if (ret == 0)
            u->indexes[u->n_indexes++] = index;
    }
    return ret;
}

static int compare_index(struct q2_uses *u, size_t k, struct q2_error *err)
{
    enum answer common, answer;
    int ret = load_use(u, NULL, u->indexes[k], &common, err);
    load_unsure(u, u->indexes[k]);
    for (size_t i = 0; i < u->n && ret == 0; i++) {
        if (!q2_place_is_open(&u->list[i]))
            continue;
        answer = common;
        if (common == DEPENDS)
            ret = load_use(u, &u->list[i], u->indexes[k], &answer, err);
        if (ret == 0 && answer == KNOWN)
            *q2_uses_fit(u, i, k) = compare(u, u->maps + u->row[i] * u->n_bytes);
    }
    return ret;
}

static int compare_all(struct q2_uses *u, struct q2_error *err)
{
    size_t n_open = 0;
    int ret = find_indexes(u, err);
    u->row = calloc(u->n, sizeof(*u->row));
    for (size_t i = 0; i < u->n && u->row; i++) {
        if (q2_place_is_open(&u->list[i]))
            u->row[i] = n_open++;
    }
    if (ret < 0 || !u->row)
        return ret < 0 ? ret : q2_fail_memory(err, u->n * sizeof(*u->row));
    if (n_open == 0 || u->n_indexes > MAX_PAIRS / n_open)
        u->n_indexes = 0;
    if (u->n_indexes == 0)
        return 0;
    u->maps = calloc(n_open, u->n_bytes);
    u->fits = calloc(n_open * u->n_indexes, sizeof(*u->fits));
    if (!u->maps || !u->fits)
        return q2_fail_memory(err, n_open * u->n_bytes);
    for (size_t i = 0; i < u->n && ret == 0; i++) {
        if (q2_place_is_open(&u->list[i]))
            ret = load_map(u, &u->list[i], u->maps + u->row[i] * u->n_bytes, err);
    }
    for (size_t k = 0; k < u->n_indexes && ret == 0; k++)
        ret = compare_index(u, k, err);
    return ret;
}

int q2_place_by_use(struct q2_ext *fs, struct q2_recovery *r, struct q2_lost *list,
                    size_t n, struct q2_error *err)
{
    struct q2_uses u = {.fs = fs,
                        .span = UINT64_C(1) << q2_work_span_bits(fs->w),
                        .list = list,
                        .n = n,
                        .n_loads = MAX_LOADS};
    if (n == 0 || !fs->straight)
        return 0;
    u.n_bytes = q2_layout_entries(&fs->w->found.layout) / 8 + 1;
    u.used = calloc(2, u.n_bytes);
    u.unsure = u.used ? u.used + u.n_bytes : NULL;
    qsort(list, n, sizeof(*list), by_place);
    int ret = u.used ? compare_all(&u, err) : q2_fail_memory(err, 2 * u.n_bytes);
    for (size_t k = 0; k < u.n_indexes && ret == 0; k++)
        ret = place_nearest(&u, r, k, err);
    if (ret == 0 && u.n_indexes > 0)
        ret = q2_place_aligned(&u, r, err);
    free(u.row);
    free(u.indexes);
    free(u.maps);
    free(u.used);
    free(u.fits);
    return ret;
}
