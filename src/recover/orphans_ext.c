// SPDX-License-Identifier: MIT
// Clusters that no L2 table leads to, and an ext file system: its folders begin, and its
// files end, where it says.
#include <stdlib.h>

#include "base/search.h"
#include "recover/orphans.h"

// Of one stretch so many distances, and so many pairs of a cluster and a distance.
#define MAX_SHIFTS 256U
#define MAX_PAIRS ((size_t)1 << 22)
// A distance that neither neighbour has is believed if so much speaks for it.
#define MIN_NEW 2

// Orphans without a place, and the distances from the file to the disk that they may lie
// at. Programs that copy a disk from its start to its end leave out what is zeros: the
// distance only grows.
struct stretch {
    size_t from, to;
    uint64_t first;          // distance
    uint64_t far;            // the last one
    size_t n;                // 1; 2: these two; or all between them
    uint64_t before, behind; // of the neighbours; UINT64_MAX: there is none
};

struct evidence {
    struct q2_orphans *o;
    const struct q2_ext *fs;
    struct q2_ext_files files;
};

// What is the best for a stretch, by how many fit less those that do not.
struct path {
    int *score;     // of the best way to get to each distance
    int16_t *gain;  // of each cluster at each distance
    uint16_t *from; // by cluster and distance: the distance of the one before
};

static int by_position(const void *a, const void *b)
{
    const struct q2_clue *x = a, *y = b;
    return x->position < y->position ? -1 : x->position > y->position;
}

// Files that end in that cluster of the disk, as they would with what is in the buffer.
static int score_ends(const struct evidence *e, uint64_t start, size_t n_bytes)
{
    const struct q2_clues *c = &e->files.ends;
    size_t low = q2_search_from(c->list, c->n, sizeof(*c->list),
                                offsetof(struct q2_clue, position), start);
    int score = 0;
    for (; low < c->n && c->list[low].position + e->fs->block_size <= start + n_bytes;
         low++) {
        const uint8_t *block = e->o->cluster + (c->list[low].position - start);
        uint32_t value = q2_clue_value(Q2_CLUE_END, block, e->fs->block_size);
        score += q2_clue_fits(&c->list[low], value) ? 1 : -1;
    }
    return score;
}

static int score_starts(const struct evidence *e, uint64_t start, size_t n_bytes)
{
    const struct q2_ext_files *f = &e->files;
    size_t low = q2_search_from(f->starts, f->n_starts, sizeof(*f->starts),
                                offsetof(struct q2_ext_start, position), start);
    int score = 0;
    for (; low < f->n_starts && f->starts[low].position < start + n_bytes; low++)
        score += q2_ext_begins(e->o->cluster + (f->starts[low].position - start),
                               f->starts[low].inode)
                     ? 2
                     : -2;
    return score;
}

static uint64_t shift_of(const struct stretch *s, size_t k)
{
    return k == s->n - 1 ? s->far : s->first + k;
}

static int read_orphan(const struct evidence *e, size_t i, struct q2_error *err)
{
    size_t n_bytes = (size_t)q2_work_cluster_size(e->o->w);
    return q2_io_read(e->o->w->io, e->o->list[i].host * n_bytes, e->o->cluster, n_bytes,
                      err);
}

// Of what was read.
static int16_t gain_of(const struct evidence *e, uint64_t guest)
{
    size_t n_bytes = (size_t)q2_work_cluster_size(e->o->w);
    if (!q2_orphans_is_open(e->o, guest))
        return -100;
    int gain = score_ends(e, guest * n_bytes, n_bytes) +
               score_starts(e, guest * n_bytes, n_bytes);
    return (int16_t)(gain < -100 ? -100 : gain > 100 ? 100 : gain);
}

static int walk(const struct evidence *e, const struct stretch *s, struct path *p,
                struct q2_error *err)
{
    int ret = 0;
    for (size_t i = s->from; i < s->to && ret == 0; i++) {
        size_t at = (i - s->from) * s->n, best = 0;
        ret = read_orphan(e, i, err);
        for (size_t k = 0; k < s->n && ret == 0; k++) {
            best = p->score[k] > p->score[best] ? k : best;
            p->from[at + k] = (uint16_t)best;
            p->gain[at + k] = gain_of(e, e->o->list[i].host + shift_of(s, k));
        }
        // From the end, as each takes the best of those before it.
        for (size_t k = s->n; k-- > 0 && ret == 0;)
            p->score[k] = p->score[p->from[at + k]] + p->gain[at + k];
    }
    return ret;
}

// The clusters between the first and the last that fit at one distance.
static int take_part(struct evidence *e, const struct stretch *s, const struct path *p,
                     size_t from, size_t to, size_t k, struct q2_error *err)
{
    uint64_t shift = shift_of(s, k);
    size_t first = to, last = from;
    int sum = 0, ret = 0;
    for (size_t i = from; i < to; i++) {
        int gain = p->gain[(i - s->from) * s->n + k];
        sum += gain;
        if (gain > 0) {
            first = i < first ? i : first;
            last = i + 1;
        }
    }
    bool known =
        (shift == s->before && from == s->from) || (shift == s->behind && to == s->to);
    if (sum < (known ? 1 : MIN_NEW))
        return 0;
    if (shift == s->before && from == s->from)
        first = from;
    if (shift == s->behind && to == s->to)
        last = to;
    for (size_t i = first; i < last && ret == 0; i++) {
        uint64_t guest = e->o->list[i].host + shift;
        if (q2_orphans_is_open(e->o, guest))
            ret = q2_orphans_put(e->o, i, guest, err);
    }
    return ret;
}

static int take(struct evidence *e, const struct stretch *s, const struct path *p,
                struct q2_error *err)
{
    size_t k = 0;
    int ret = 0;
    for (size_t i = 1; i < s->n; i++)
        k = p->score[i] > p->score[k] ? i : k;
    for (size_t end = s->to, i = s->to; i-- > s->from && ret == 0;) {
        size_t before = p->from[(i - s->from) * s->n + k];
        if (i > s->from && before == k)
            continue;
        ret = take_part(e, s, p, i, end, k, err);
        end = i;
        k = before;
    }
    return ret;
}

static int fill_stretch(struct evidence *e, const struct stretch *s, struct q2_error *err)
{
    size_t n = (s->to - s->from) * s->n;
    if (n > MAX_PAIRS)
        return 0;
    struct path p = {calloc(s->n, sizeof(*p.score)), malloc(n * sizeof(*p.gain)),
                     malloc(n * sizeof(*p.from))};
    int ret =
        p.score && p.gain && p.from ? walk(e, s, &p, err) : q2_fail_memory(err, n * 4);
    if (ret == 0)
        ret = take(e, s, &p, err);
    free(p.score);
    free(p.gain);
    free(p.from);
    return ret;
}

// Between the orphans on either side, which have places or are not there.
static struct stretch plan(const struct q2_orphans *o, size_t from, size_t to)
{
    struct stretch s = {.from = from,
                        .to = to,
                        .n = MAX_SHIFTS,
                        .before = UINT64_MAX,
                        .behind = UINT64_MAX};
    if (from > 0)
        s.before = o->list[from - 1].guest - o->list[from - 1].host;
    if (to < o->n)
        s.behind = o->list[to].guest - o->list[to].host;
    s.first = from > 0 ? s.before : s.behind - (MAX_SHIFTS - 1);
    s.far = to < o->n ? s.behind : s.before + (MAX_SHIFTS - 1);
    if (s.far - s.first < MAX_SHIFTS)
        s.n = (size_t)(s.far - s.first + 1);
    else
        s.n = 2;
    return s;
}

// Does the file system use a block of that cluster of the disk? *known: it says.
static int is_used(const struct evidence *e, uint64_t guest, bool *used, bool *known,
                   struct q2_error *err)
{
    const struct q2_ext *fs = e->fs;
    uint64_t cluster_size = q2_work_cluster_size(e->o->w), at = guest * cluster_size;
    uint64_t zero = fs->start + ((uint64_t)fs->first_block << fs->block_bits);
    int ret = 0;
    *used = false;
    *known = fs->straight && at >= zero;
    for (uint64_t end = at + cluster_size; at < end && *known && !*used && ret == 0;
         at += fs->block_size) {
        uint64_t n = (at - zero) >> fs->block_bits, in_group = n % fs->group_blocks;
        uint64_t group = n / fs->group_blocks;
        uint64_t bitmap = group < fs->n_groups ? q2_ext_block_bitmap(fs, group) : 0;
        uint8_t bits = 0;
        *known = bitmap != 0;
        if (*known)
            ret = q2_work_read_guest(fs->w, bitmap + in_group / 8, &bits, 1, known, err);
        *used = bits >> (in_group % 8) & 1;
    }
    return ret;
}

// As many as the file system uses between the neighbours: these are they.
static int fill_used(struct evidence *e, const struct stretch *s, struct q2_error *err)
{
    struct q2_orphan *list = e->o->list;
    uint64_t first = list[s->from - 1].guest + 1, end = list[s->to].guest;
    size_t n = s->to - s->from, n_used = 0;
    bool known = true, used;
    int ret = 0;
    if (end <= first || end - first < n || end - first > n + MAX_SHIFTS)
        return 0;
    uint64_t *guests = malloc(n * sizeof(*guests));
    if (!guests)
        return q2_fail_memory(err, n * sizeof(*guests));
    for (uint64_t g = first; g < end && known && n_used <= n && ret == 0; g++) {
        ret = is_used(e, g, &used, &known, err);
        if (used && n_used++ < n)
            guests[n_used - 1] = g;
    }
    for (size_t i = 0; i < n && known && n_used == n && ret == 0; i++) {
        if (q2_orphans_is_open(e->o, guests[i]))
            ret = q2_orphans_put(e->o, s->from + i, guests[i], err);
    }
    free(guests);
    return ret;
}

static bool is_untouched(const struct q2_orphans *o, const struct stretch *s)
{
    for (size_t i = s->from; i < s->to; i++) {
        if (o->list[i].guest != UINT64_MAX)
            return false;
    }
    return true;
}

static int fill_all(struct evidence *e, struct q2_error *err)
{
    const struct q2_orphan *list = e->o->list;
    size_t n = e->o->n;
    int ret = 0;
    for (size_t i = 0, to; i < n && ret == 0; i = to + 1) {
        for (to = i; to < n && list[to].guest == UINT64_MAX;)
            to++;
        if (to == i || (i == 0 && to == n))
            continue;
        struct stretch s = plan(e->o, i, to);
        ret = fill_stretch(e, &s, err);
        if (ret == 0 && i > 0 && to < n && is_untouched(e->o, &s))
            ret = fill_used(e, &s, err);
    }
    return ret;
}

int q2_orphans_by_ext(struct q2_orphans *o, const struct q2_ext *fs, struct q2_error *err)
{
    struct evidence e = {.o = o, .fs = fs};
    int ret = q2_ext_read_files(fs, &e.files, err);
    if (ret == 0 && e.files.ends.n > 0)
        qsort(e.files.ends.list, e.files.ends.n, sizeof(*e.files.ends.list), by_position);
    if (ret == 0)
        ret = fill_all(&e, err);
    if (ret == 0)
        ret = q2_orphans_by_ends(o, &e.files.ends, err);
    if (ret == 0)
        q2_ext_files_clear(&e.files);
    return ret;
}
