// SPDX-License-Identifier: MIT
// An image that does not begin where the file does: on a raw disk with partitions, or
// behind other data. Its header and its tables are there, and fit only from there on.
#include <stdlib.h>

#include "base/checked.h"
#include "base/counters.h"
#include "base/endian.h"
#include "disk/refcount.h"
#include "recover/layout.h"

struct inner {
    const struct q2_survey *s;
    uint64_t start; // in the file
    struct q2_hints h;
    struct q2_counters *tables; // in units of
    unsigned bits;
};

static bool is_cluster(const struct inner *in, uint64_t offset)
{
    uint64_t cluster_size = UINT64_C(1) << in->h.cluster_bits;
    uint64_t room = in->s->file_size - in->start;
    return offset > 0 && q2_is_aligned(offset, cluster_size) && offset < room &&
           cluster_size <= room - offset;
}

// Its refcounts count the header once.
static int counts_header(const struct inner *in, bool *yes, struct q2_error *err)
{
    unsigned order = in->h.version >= 3 ? in->h.refcount_order : 4;
    uint8_t word[8];
    int ret = q2_io_read(in->s->io, in->start + in->h.refcount_table_offset, word,
                         sizeof(word), err);
    uint64_t block = q2_load_be64(word);
    *yes = ret == 0 && order <= Q2_MAX_REFCOUNT_ORDER && is_cluster(in, block);
    if (!*yes)
        return ret;
    ret = q2_io_read(in->s->io, in->start + block, word, sizeof(word), err);
    *yes = ret == 0 && q2_refcount_format(order)->get(word, 0) == 1;
    return ret;
}

static int note(const struct inner *in, uint64_t offset, uint64_t n_bytes,
                struct q2_error *err)
{
    uint64_t from = (in->start + offset) >> in->bits;
    uint64_t end = q2_div_round_up(in->start + offset + n_bytes, UINT64_C(1) << in->bits);
    return q2_counters_add(in->tables, from, end - from, 1, err);
}

// Notes its L1 table and where the L2 tables are. *n: how many; 0: an entry leads
// nowhere.
static int note_tables(const struct inner *in, uint64_t *n, struct q2_error *err)
{
    uint64_t n_bytes = (uint64_t)in->h.l1_size * 8, room = 65536;
    uint64_t *l1 = malloc((size_t)room);
    int ret = l1 ? note(in, in->h.l1_table_offset, n_bytes, err)
                 : q2_fail_memory(err, (size_t)room);
    bool sound = true;
    *n = 0;
    for (uint64_t at = 0, part; at < n_bytes && sound && ret == 0; at += part) {
        part = q2_min_u64(n_bytes - at, room);
        ret = q2_io_read(in->s->io, in->start + in->h.l1_table_offset + at, l1,
                         (size_t)part, err);
        for (size_t i = 0; i < part / 8 && sound && ret == 0; i++) {
            uint64_t to = q2_load_be64((const uint8_t *)&l1[i]) & Q2_OFFSET_MASK;
            sound = to == 0 || is_cluster(in, to);
            *n += to != 0;
            if (to != 0 && sound)
                ret = note(in, to, UINT64_C(1) << in->h.cluster_bits, err);
        }
    }
    free(l1);
    *n = sound ? *n : 0;
    return ret;
}

// Are most of the tables that were found its own? Those of an image within an image lie
// beside the outer one's.
static int has_most(struct inner *in, const struct q2_found *f, bool *yes,
                    struct q2_error *err)
{
    uint64_t n = 0, n_found = 0, n_own = 0;
    in->bits = f ? f->layout.cluster_bits : in->h.cluster_bits;
    in->tables = q2_counters_new_scattered();
    int ret = in->tables ? note_tables(in, &n, err) : q2_fail_memory(err, sizeof(*in));
    if (ret == 0)
        ret =
            note(in, in->h.refcount_table_offset, UINT64_C(1) << in->h.cluster_bits, err);
    for (size_t i = 0; f && i < f->n && ret == 0; i++) {
        n_found++;
        n_own += q2_counters_get(in->tables, f->list[i].offset >> in->bits) > 0;
    }
    *yes = ret == 0 && n > 0 && (n_own * 2 > n_found || n_found == 0);
    q2_counters_free(in->tables);
    return ret;
}

static int look_at(struct inner *in, const struct q2_found *f, bool *yes,
                   struct q2_error *err)
{
    uint8_t header[Q2_HEADER_V3_BYTES];
    *yes = false;
    int ret = q2_io_read(in->s->io, in->start, header, sizeof(header), err);
    if (ret < 0)
        return ret;
    q2_hints_read(header, in->s->file_size - in->start, &in->h);
    if (!in->h.has_version || !in->h.has_cluster_bits || !in->h.has_l1 ||
        !in->h.has_refcounts || !is_cluster(in, in->h.l1_table_offset) ||
        !is_cluster(in, in->h.refcount_table_offset))
        return 0;
    ret = counts_header(in, yes, err);
    if (ret == 0 && *yes)
        ret = has_most(in, f, yes, err);
    return ret;
}

int q2_found_within(const struct q2_survey *s, const struct q2_found *f, uint64_t *offset,
                    struct q2_error *err)
{
    int ret = 0;
    *offset = 0;
    for (size_t i = 0; i < s->headers.n && *offset == 0 && ret == 0; i++) {
        struct inner in = {.s = s, .start = s->headers.list[i]};
        bool yes;
        ret = look_at(&in, f, &yes, err);
        if (ret == 0 && yes)
            *offset = in.start;
    }
    return ret;
}
