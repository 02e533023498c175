// SPDX-License-Identifier: MIT
// L2 tables that get their place by what an ext file system says of its own parts: the
// checksums of inodes have their numbers in them, and folders begin with theirs.
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "check/scan.h"
#include "recover/place.h"

// Of each group so many blocks of inodes are tried, of each range so many folders.
#define MAX_INODE_BLOCKS 4U
#define MAX_STARTS 64U
#define MAX_ROUNDS 8U
// Bytes that are read for it, whatever a superblock claims; more in a large file.
#define MAX_TRIED_BYTES ((uint64_t)1 << 30)
#define TRY_BYTES 512U // a try costs as much in any case

// One table's claim to one index.
struct claim {
    unsigned good, bad;
};

struct trial {
    struct q2_ext *fs;
    struct q2_ext_files files;
    uint64_t span;
    uint64_t left;  // bytes to read
    uint64_t index; // that is tried
};

// What tells something of the range of an index: the n-th group, or start.
struct spot {
    uint64_t index;
    size_t n;
};

struct spots {
    struct spot *list;
    size_t n, max;
};

static int add_spot(struct spots *s, uint64_t index, size_t n, struct q2_error *err)
{
    void *list = s->list;
    int ret = q2_scan_grow(&list, &s->max, s->n, sizeof(*s->list), err);
    s->list = list;
    if (ret == 0)
        s->list[s->n++] = (struct spot){index, n};
    return ret;
}

// Does the group's inode table, as it says where that is, lie in x?
static int try_inodes(struct trial *t, const struct q2_lost *x, size_t group,
                      struct claim *c, struct q2_error *err)
{
    struct q2_ext *fs = t->fs;
    uint64_t at = q2_ext_inode_table(fs, group) % t->span;
    int ret = 0;
    for (unsigned i = 0; i < MAX_INODE_BLOCKS && ret == 0; i++) {
        bool has;
        uint64_t in_table = at + ((uint64_t)i << fs->block_bits);
        if (in_table + fs->block_size > t->span || t->left == 0)
            break;
        ret = q2_work_read_in_table(fs->w, x->table->offset, in_table, fs->block,
                                    fs->block_size, &has, err);
        t->left -= q2_min_u64(t->left, ret == 0 && has ? fs->block_size : TRY_BYTES);
        if (ret == 0 && has)
            q2_ext_check_inodes(fs, group, i, fs->block, &c->good, &c->bad);
    }
    return ret;
}

static int try_start(struct trial *t, const struct q2_lost *x, size_t n, struct claim *c,
                     struct q2_error *err)
{
    const struct q2_ext_start *start = &t->files.starts[n];
    uint8_t block[Q2_EXT_START_BYTES];
    bool has = false;
    int ret = t->left == 0 ? 0
                           : q2_work_read_in_table(t->fs->w, x->table->offset,
                                                   start->position % t->span, block,
                                                   sizeof(block), &has, err);
    t->left -= q2_min_u64(t->left, TRY_BYTES);
    bool good = ret == 0 && has && q2_ext_begins(block, start->inode);
    c->good += good;
    c->bad += !good;
    return ret;
}

// Are the group's bitmaps in x? What is not there reads as zeros, and proves nothing.
static int try_bitmaps(struct trial *t, const struct q2_lost *x, size_t group,
                       struct claim *c, struct q2_error *err)
{
    struct q2_ext *fs = t->fs;
    int ret = 0;
    for (unsigned i = 0; i < Q2_EXT_GROUP_BITMAPS && t->left > 0 && ret == 0; i++) {
        struct q2_ext_bitmap b;
        bool has;
        if (!q2_ext_find_bitmap(fs, group, i, &b) || b.place / t->span != t->index)
            continue;
        ret = q2_work_read_in_table(fs->w, x->table->offset, b.place % t->span, fs->block,
                                    fs->block_size, &has, err);
        t->left -= q2_min_u64(t->left, ret == 0 && has ? fs->block_size : TRY_BYTES);
        if (ret < 0)
            break;
        bool good = q2_ext_is_bitmap(fs, &b, has ? fs->block : NULL);
        c->good += good && has;
        c->bad += !good;
    }
    return ret;
}

static int find_bitmaps(const struct trial *t, struct spots *s, struct q2_error *err)
{
    int ret = 0;
    for (uint64_t g = 0; g < t->fs->n_groups && ret == 0; g++) {
        struct q2_ext_bitmap b[Q2_EXT_GROUP_BITMAPS];
        bool has[Q2_EXT_GROUP_BITMAPS];
        for (unsigned i = 0; i < Q2_EXT_GROUP_BITMAPS; i++)
            has[i] = q2_ext_find_bitmap(t->fs, g, i, &b[i]);
        if (has[0])
            ret = add_spot(s, b[0].place / t->span, (size_t)g, err);
        if (ret == 0 && has[1] &&
            (!has[0] || b[0].place / t->span != b[1].place / t->span))
            ret = add_spot(s, b[1].place / t->span, (size_t)g, err);
    }
    return ret;
}

static int find_groups(const struct trial *t, struct spots *s, struct q2_error *err)
{
    int ret = 0;
    for (uint64_t g = 0; g < t->fs->n_groups && t->fs->checks_inodes && ret == 0; g++) {
        uint64_t at = q2_ext_inode_table(t->fs, g);
        if (at != 0)
            ret = add_spot(s, at / t->span, (size_t)g, err);
    }
    return ret;
}

// Of each range the first few.
static int find_starts(const struct trial *t, struct spots *s, struct q2_error *err)
{
    int ret = 0;
    for (size_t i = 0; i < t->files.n_starts && ret == 0; i++) {
        uint64_t index = t->files.starts[i].position / t->span;
        if (s->n < MAX_STARTS || s->list[s->n - MAX_STARTS].index != index)
            ret = add_spot(s, index, i, err);
    }
    return ret;
}

static int by_index(const void *a, const void *b)
{
    const struct spot *x = a, *y = b;
    if (x->index != y->index)
        return x->index < y->index ? -1 : 1;
    return x->n < y->n ? -1 : x->n > y->n;
}

typedef int try_spot(struct trial *t, const struct q2_lost *x, size_t n, struct claim *c,
                     struct q2_error *err);

static bool is_worse(const struct claim *x, const struct claim *y)
{
    return x->good != y->good ? x->good < y->good : x->bad > y->bad;
}

// Which of the tables has most of what these spots, all of one index, tell? None if two
// have, unless these hold the same.
static int find_best(struct trial *t, struct q2_lost *list, size_t n,
                     const struct spot *spots, size_t n_spots, try_spot *try,
                     struct q2_lost **found, struct q2_error *err)
{
    struct claim best = {0};
    bool clear = true;
    int ret = 0;
    *found = NULL;
    t->index = spots->index;
    for (size_t i = 0; i < n && ret == 0; i++) {
        struct claim c = {0};
        if (!q2_place_is_open(&list[i]))
            continue;
        for (size_t k = 0; k < n_spots && ret == 0; k++)
            ret = try(t, &list[i], spots[k].n, &c, err);
        if (ret < 0 || c.good <= c.bad || is_worse(&c, &best))
            continue;
        bool alike = false;
        if (*found && !is_worse(&best, &c))
            ret = q2_place_are_alike(t->fs->w, (*found)->table->offset,
                                     list[i].table->offset, &alike, err);
        clear = is_worse(&best, &c) || (clear && alike);
        if (is_worse(&best, &c) || list[i].table->offset < (*found)->table->offset)
            *found = &list[i];
        best = c;
    }
    if (!clear)
        *found = NULL;
    return ret;
}

// Takes the claims that are mostly right. What a superblock claims may name any place:
// the work follows the spots, and there is an end of it.
static int settle(struct trial *t, struct q2_recovery *r, struct q2_lost *list, size_t n,
                  struct spots *s, try_spot *try, struct q2_error *err)
{
    int ret = 0;
    if (s->n > 0)
        qsort(s->list, s->n, sizeof(*s->list), by_index);
    for (size_t i = 0, end; i < s->n && t->left > 0 && ret == 0; i = end) {
        uint64_t index = s->list[i].index;
        struct q2_lost *found;
        for (end = i; end < s->n && s->list[end].index == index;)
            end++;
        if (index >= Q2_MAX_L1_BYTES / 8 || !q2_work_is_open_index(t->fs->w, index))
            continue;
        ret = find_best(t, list, n, s->list + i, end - i, try, &found, err);
        if (ret == 0 && found)
            ret = q2_place_take(t->fs->w, r, found, index, Q2_PLACED_SURELY, err);
    }
    free(s->list);
    *s = (struct spots){0};
    return ret;
}

// What is placed lets more inodes be read, and these tell more.
static int place_round(struct trial *t, struct q2_recovery *r, struct q2_lost *list,
                       size_t n, struct q2_marks *m, struct q2_error *err)
{
    struct spots s = {0};
    int ret = find_groups(t, &s, err);
    if (ret == 0)
        ret = settle(t, r, list, n, &s, try_inodes, err);
    if (ret == 0)
        ret = q2_ext_read_files(t->fs, &t->files, err);
    if (ret < 0) {
        free(s.list);
        return ret;
    }
    ret = find_starts(t, &s, err);
    if (ret == 0)
        ret = settle(t, r, list, n, &s, try_start, err);
    if (ret == 0)
        ret = find_bitmaps(t, &s, err);
    if (ret == 0)
        ret = settle(t, r, list, n, &s, try_bitmaps, err);
    free(s.list);
    q2_clues_clear(&m->clues);
    m->clues = t->files.ends;
    t->files.ends = (struct q2_clues){0};
    q2_ext_files_clear(&t->files);
    return ret < 0 ? ret : q2_place_by_clues(t->fs->w, r, list, n, m, err);
}

int q2_place_by_ext(struct q2_work *w, struct q2_recovery *r, struct q2_lost *list,
                    size_t n, size_t volume, struct q2_marks *m, struct q2_error *err)
{
    struct q2_ext fs;
    bool ok;
    int ret = q2_ext_open(w, m, volume, &fs, &ok, err);
    if (ret < 0 || !ok)
        return ret;
    struct trial t = {.fs = &fs, .span = UINT64_C(1) << q2_work_span_bits(w)};
    t.left = MAX_TRIED_BYTES + 4 * w->survey.file_size;
    size_t before = SIZE_MAX;
    for (unsigned i = 0; i < MAX_ROUNDS && before != r->n_placed && ret == 0; i++) {
        before = r->n_placed;
        ret = place_round(&t, r, list, n, m, err);
    }
    if (ret == 0)
        ret = q2_place_by_use(&fs, r, list, n, err);
    q2_ext_clear(&fs);
    return ret;
}
