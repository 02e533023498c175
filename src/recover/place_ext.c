// SPDX-License-Identifier: MIT
// L2 tables that get their place by what an ext file system says of its own parts: the
// checksums of inodes have their numbers in them, and folders begin with theirs.
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "recover/place.h"

// Of each group so many blocks of inodes are tried, of each range so many folders.
#define MAX_INODE_BLOCKS 4U
#define MAX_STARTS 64U
#define MAX_ROUNDS 8U

// One table's claim to one index.
struct claim {
    unsigned good, bad;
};

struct trial {
    struct q2_ext *fs;
    struct q2_ext_files files;
    uint64_t span;
};

// Do the inodes of the groups whose tables begin in the range of index lie in x?
static int try_inodes(const struct trial *t, const struct q2_lost *x, uint64_t index,
                      struct claim *c, struct q2_error *err)
{
    struct q2_ext *fs = t->fs;
    int ret = 0;
    for (uint64_t group = 0; group < fs->n_groups && fs->checks_inodes && ret == 0;
         group++) {
        uint64_t at = q2_ext_inode_table(fs, group);
        if (at == 0 || at / t->span != index)
            continue;
        for (unsigned i = 0; i < MAX_INODE_BLOCKS && ret == 0; i++) {
            bool has;
            uint64_t in_table = at % t->span + ((uint64_t)i << fs->block_bits);
            if (in_table + fs->block_size > t->span)
                break;
            ret = q2_work_read_in_table(fs->w, x->table->offset, in_table, fs->block,
                                        fs->block_size, &has, err);
            if (ret == 0 && has)
                q2_ext_check_inodes(fs, group, i, fs->block, &c->good, &c->bad);
        }
    }
    return ret;
}

static int try_starts(const struct trial *t, const struct q2_lost *x, uint64_t index,
                      struct claim *c, struct q2_error *err)
{
    uint8_t block[Q2_EXT_START_BYTES];
    unsigned n = 0;
    int ret = 0;
    for (size_t i = 0; i < t->files.n_starts && n < MAX_STARTS && ret == 0; i++) {
        const struct q2_ext_start *start = &t->files.starts[i];
        bool has;
        if (start->position / t->span != index)
            continue;
        n++;
        ret = q2_work_read_in_table(t->fs->w, x->table->offset, start->position % t->span,
                                    block, sizeof(block), &has, err);
        bool good = ret == 0 && has && q2_ext_begins(block, start->inode);
        c->good += good;
        c->bad += !good;
    }
    return ret;
}

// Takes the claims that are mostly right.
static int settle(const struct trial *t, struct q2_recovery *r, struct q2_lost *list,
                  size_t n,
                  int (*try)(const struct trial *, const struct q2_lost *, uint64_t,
                             struct claim *, struct q2_error *),
                  struct q2_error *err)
{
    uint64_t end =
        q2_div_round_up(t->fs->start + (t->fs->n_blocks << t->fs->block_bits), t->span);
    int ret = 0;
    for (uint64_t index = t->fs->start / t->span; index < end && ret == 0; index++) {
        struct claim best = {0};
        struct q2_lost *found = NULL;
        for (size_t i = 0; i < n && ret == 0 && q2_work_is_open_index(t->fs->w, index);
             i++) {
            struct claim c = {0};
            if (!q2_place_is_open(&list[i]))
                continue;
            ret = try(t, &list[i], index, &c, err);
            if (c.good > best.good && c.good > c.bad) {
                best = c;
                found = &list[i];
            }
        }
        if (ret == 0 && found) {
            found->index = index;
            ret = q2_place_put(t->fs->w, r, index, found->table->offset, Q2_PLACED_SURELY,
                               err);
        }
    }
    return ret;
}

// What is placed lets more inodes be read, and these tell more.
static int place_round(struct trial *t, struct q2_recovery *r, struct q2_lost *list,
                       size_t n, struct q2_marks *m, struct q2_error *err)
{
    int ret = settle(t, r, list, n, try_inodes, err);
    if (ret == 0)
        ret = q2_ext_read_files(t->fs, &t->files, err);
    if (ret < 0)
        return ret;
    ret = settle(t, r, list, n, try_starts, err);
    q2_clues_clear(&m->clues);
    m->clues = t->files.ends;
    t->files.ends = (struct q2_clues){0};
    q2_ext_files_clear(&t->files);
    return ret < 0 ? ret : q2_place_by_clues(t->fs->w, r, list, n, m, err);
}

int q2_place_by_ext(struct q2_work *w, struct q2_recovery *r, struct q2_lost *list,
                    size_t n, uint64_t start, struct q2_marks *m, struct q2_error *err)
{
    struct q2_ext fs;
    bool ok;
    int ret = q2_ext_open(w, start, &fs, &ok, err);
    if (ret < 0 || !ok)
        return ret;
    struct trial t = {.fs = &fs, .span = UINT64_C(1) << q2_work_span_bits(w)};
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
