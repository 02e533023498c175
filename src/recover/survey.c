// SPDX-License-Identifier: MIT
// The look at the whole file.
#include "recover/survey.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "base/zero.h"
#include "check/scan.h"
#include "disk/entry.h"
#include "disk/header.h"
#include "disk/luks.h"
#include "disk/subcluster.h"

#define READ_BYTES ((size_t)1 << 20)
// What is kept of a hostile file: 256 MiB.
#define MAX_STRETCHES ((size_t)1 << 22)
#define MAX_PLACES 1024U
// So few entries of a block may be damaged, if so many make sense.
#define MAX_BAD 2U
#define MIN_GOOD 16U
#define BLOCK_WORDS (Q2_SURVEY_BLOCK / 8)
// Bits that are an offset in a compressed entry, whatever the cluster size.
#define PACKED_OFFSET ((UINT64_C(1) << 49) - 1)

void q2_survey_clear(struct q2_survey *s)
{
    free(s->list);
    free(s->luks.list);
    free(s->snapshots.list);
    free(s->headers.list);
    *s = (struct q2_survey){0};
}

static int note_place(struct q2_places_found *p, uint64_t offset, struct q2_error *err)
{
    void *list = p->list;
    if (p->n >= MAX_PLACES)
        return 0;
    int ret = q2_scan_grow(&list, &p->max, p->n, sizeof(*p->list), err);
    p->list = list;
    if (ret == 0)
        p->list[p->n++] = offset;
    return ret;
}

static bool good_entry(uint64_t w, uint64_t limit)
{
    if (w & Q2_FLAG_COMPRESSED)
        return !(w & Q2_FLAG_COPIED) && (w & PACKED_OFFSET) < limit;
    uint64_t offset = w & Q2_OFFSET_MASK;
    return !(w & Q2_L2_RESERVED) && offset < limit &&
           (offset != 0 || w <= Q2_FLAG_ZERO || w == Q2_FLAG_COPIED);
}

static bool good_pair(uint64_t w, uint64_t bitmap, uint64_t limit)
{
    return (w == 0 || good_entry(w, limit)) &&
           !(q2_subcluster_faults(w, bitmap, false) &
             (Q2_SUBCLUSTER_FATAL | Q2_SUBCLUSTER_PACKED));
}

// Blocks of data fail at their first words, nearly all.
static unsigned classify(const uint8_t *block, uint64_t limit)
{
    unsigned bad = 0, good = 0, bad_pairs = 0, good_pairs = 0;
    for (size_t i = 0; i < BLOCK_WORDS; i += 2) {
        uint64_t a = q2_load_be64(block + 8 * i), b = q2_load_be64(block + 8 * i + 8);
        if ((a | b) == 0)
            continue;
        good += (unsigned)(a != 0 && good_entry(a, limit)) +
                (unsigned)(b != 0 && good_entry(b, limit));
        bad += (unsigned)(a != 0 && !good_entry(a, limit)) +
               (unsigned)(b != 0 && !good_entry(b, limit));
        bool pair = good_pair(a, b, limit);
        good_pairs += pair;
        bad_pairs += !pair;
        if (bad > MAX_BAD && bad_pairs > MAX_BAD)
            return 0;
    }
    bool plain = bad == 0 || (bad <= MAX_BAD && good >= MIN_GOOD);
    bool pairs = bad_pairs == 0 || (bad_pairs <= MAX_BAD && good_pairs >= MIN_GOOD);
    return (plain ? Q2_BLOCK_PLAIN : 0U) | (pairs ? Q2_BLOCK_EXTENDED : 0U);
}

// The fixed part of a snapshot's entry.
static bool like_snapshot(const uint8_t *block, uint64_t limit)
{
    uint64_t l1 = q2_load_be64(block);
    uint32_t n = q2_load_be32(block + 8), extra = q2_load_be32(block + 36);
    unsigned id_bytes = q2_load_be16(block + 12), name_bytes = q2_load_be16(block + 14);
    return l1 != 0 && l1 < limit && q2_is_aligned(l1, Q2_SURVEY_BLOCK) &&
           n <= Q2_MAX_L1_BYTES / 8 && id_bytes > 0 && id_bytes <= 256 &&
           name_bytes <= 1024 && extra <= 1024;
}

// The zeros from zero_from to offset, and behind them a block of these classes (0: of
// none).
static int add_block(struct q2_survey *s, uint64_t zero_from, uint64_t offset,
                     unsigned classes, struct q2_error *err)
{
    struct q2_stretch *last = s->n > 0 ? &s->list[s->n - 1] : NULL;
    uint64_t end = offset + Q2_SURVEY_BLOCK;
    void *list = s->list;
    if (last && last->zero_to == zero_from)
        last->zero_to = offset;
    if (classes == 0)
        return 0;
    if (last && last->end == offset && last->classes == classes) {
        last->end = last->zero_to = end;
        return 0;
    }
    if (s->n >= MAX_STRETCHES)
        return q2_fail(err, -EFBIG,
                       "'%s' has more than %zu places that look like tables: this is no "
                       "image that could be recovered",
                       s->io->name, MAX_STRETCHES);
    int ret = q2_scan_grow(&list, &s->max, s->n, sizeof(*s->list), err);
    s->list = list;
    if (ret == 0)
        s->list[s->n++] = (struct q2_stretch){zero_from, offset, end, end, classes};
    return ret;
}

static int look(struct q2_survey *s, const uint8_t *buf, uint64_t offset, size_t n_bytes,
                uint64_t limit, uint64_t *zero_from, struct q2_error *err)
{
    static const uint8_t luks[] = {'L', 'U', 'K', 'S', 0xba, 0xbe};
    int ret = 0;
    for (size_t at = 0; at < n_bytes && ret == 0; at += Q2_SURVEY_BLOCK) {
        const uint8_t *block = buf + at;
        if (q2_is_zero(block, Q2_SURVEY_BLOCK))
            continue;
        s->n_data += Q2_SURVEY_BLOCK;
        if (memcmp(block, luks, sizeof(luks)) == 0)
            ret = note_place(&s->luks, offset + at, err);
        else if (q2_load_be32(block) == Q2_MAGIC && offset + at > 0)
            ret = note_place(&s->headers, offset + at, err);
        else if (like_snapshot(block, limit))
            ret = note_place(&s->snapshots, offset + at, err);
        unsigned classes = classify(block, limit);
        if (ret == 0)
            ret = add_block(s, *zero_from, offset + at, classes, err);
        *zero_from = offset + at + Q2_SURVEY_BLOCK;
    }
    return ret;
}

static int look_at_all(struct q2_survey *s, uint64_t limit, uint8_t *buf,
                       const struct q2_monitor *mon, struct q2_error *err)
{
    uint64_t offset = 0, zero_from = 0, n;
    bool data;
    int ret = 0;
    while (offset < s->file_size && ret == 0) {
        ret = q2_io_extent(s->io, offset, &n, &data, err);
        if (ret < 0)
            return ret;
        n = data ? q2_min_u64(n, READ_BYTES) : n;
        // Blocks are not cut where an extent ends.
        uint64_t end = q2_align_up(offset + n, Q2_SURVEY_BLOCK);
        if (!data)
            end = q2_max_u64(q2_align_down(offset + n, Q2_SURVEY_BLOCK), offset);
        if (data || end == offset) {
            end = q2_max_u64(end, offset + Q2_SURVEY_BLOCK);
            ret = q2_io_read(s->io, offset, buf, (size_t)(end - offset), err);
            if (ret == 0)
                ret =
                    look(s, buf, offset, (size_t)(end - offset), limit, &zero_from, err);
        }
        offset = end;
        q2_monitor_progress(mon, q2_min_u64(offset, s->file_size), s->file_size);
        if (ret == 0 && q2_monitor_cancelled(mon))
            ret = q2_fail(err, -ECANCELED, "Interrupted");
    }
    // Behind the end of the file there are zeros.
    return ret < 0 ? ret : add_block(s, zero_from, UINT64_MAX, 0, err);
}

int q2_survey_make(struct q2_survey *s, struct q2_io *io, uint64_t limit,
                   const struct q2_monitor *mon, struct q2_error *err)
{
    uint8_t *buf = malloc(READ_BYTES + Q2_SURVEY_BLOCK);
    *s = (struct q2_survey){.io = io};
    int ret = buf ? q2_io_get_size(io, &s->file_size, err)
                  : q2_fail_memory(err, READ_BYTES + Q2_SURVEY_BLOCK);
    if (ret == 0)
        ret = look_at_all(s, q2_max_u64(limit, q2_beyond_limit(s->file_size)), buf, mon,
                          err);
    free(buf);
    if (ret < 0)
        q2_survey_clear(s);
    return ret;
}

// Is all of the range zeros, or blocks of the class? index: of the first stretch that
// reaches into it.
static bool is_covered(const struct q2_survey *s, size_t index, unsigned class,
                       uint64_t from, uint64_t to)
{
    for (; index < s->n && from < to; index++) {
        const struct q2_stretch *t = &s->list[index];
        if (t->zero_from > from)
            return false;
        if (!(t->classes & class))
            return t->start >= to;
        from = t->zero_to;
    }
    return from >= to;
}

bool q2_survey_next(const struct q2_survey *s, unsigned cluster_bits, unsigned class,
                    size_t *index, uint64_t *offset)
{
    uint64_t cluster_size = UINT64_C(1) << cluster_bits;
    uint64_t at = q2_align_up(*offset, cluster_size);
    size_t i = *index;
    while (i < s->n) {
        const struct q2_stretch *t = &s->list[i];
        if (t->end <= at) {
            i++;
            continue;
        }
        at = q2_max_u64(at, q2_align_down(t->start, cluster_size));
        *index = i;
        if ((t->classes & class) && is_covered(s, i, class, at, at + cluster_size)) {
            *offset = at;
            return true;
        }
        at += cluster_size;
    }
    *index = i;
    return false;
}
