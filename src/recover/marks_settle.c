// SPDX-License-Identifier: MIT
// Where on the disk volumes lie: where most of their marks are at places that an L2 table
// could have them at.
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "recover/marks.h"

// So many marks of a volume speak for all.
#define MAX_SAMPLE 4096U

// That a file system leaves of its partition.
#define MAX_UNFILLED ((uint64_t)1 << 20)
#define MIN_SPAN ((uint64_t)64 << 20)

struct sample {
    const struct q2_mark *marks[MAX_SAMPLE];
    size_t n;
};

// What a volume could lie in: a partition, or a logical volume.
struct room {
    uint64_t start, size;
    uint32_t device;
};

static void take_sample(const struct q2_marks *m, size_t volume, struct sample *s)
{
    size_t n = 0, step;
    s->n = 0;
    for (size_t i = 0; i < m->n; i++)
        n += m->list[i].volume == volume;
    step = n / MAX_SAMPLE + 1;
    for (size_t i = 0, k = 0; i < m->n; i++) {
        if (m->list[i].volume == volume && k++ % step == 0)
            s->marks[s->n++] = &m->list[i];
    }
}

// Of a logical volume the last piece that begins at from or before it. NULL: there is
// none.
static const struct q2_lvm_piece *find_piece(const struct q2_marks *m, uint32_t device,
                                             uint64_t from)
{
    size_t low = 0, high = m->n_pieces;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct q2_lvm_piece *p = &m->pieces[middle];
        if (p->device < device || (p->device == device && p->from <= from))
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 && m->pieces[low - 1].device == device ? &m->pieces[low - 1] : NULL;
}

static bool locate(const struct q2_marks *m, const struct room *r, uint64_t position,
                   uint64_t *at)
{
    *at = r->start + position;
    if (r->device == 0)
        return true;
    const struct q2_lvm_piece *p = find_piece(m, r->device, position);
    if (!p || p->volume == 0 || !m->volumes[p->volume].placed ||
        position - p->from >= p->n_bytes)
        return false;
    *at = m->volumes[p->volume].start + p->at + (position - p->from);
    return true;
}

bool q2_marks_locate(const struct q2_marks *m, size_t volume, uint64_t position,
                     uint64_t *at)
{
    const struct q2_volume *v = &m->volumes[volume];
    const struct room r = {v->start, v->size, v->device};
    return v->placed && locate(m, &r, position, at);
}

static bool fits(const struct q2_marks *m, const struct room *r, const struct q2_mark *k,
                 uint64_t position, uint64_t span)
{
    uint64_t at;
    return locate(m, r, position, &at) && at % span == k->in_table;
}

static size_t count_fitting(const struct q2_marks *m, const struct sample *s,
                            const struct room *r, uint64_t span)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++)
        n += fits(m, r, s->marks[i], s->marks[i]->position, span) ||
             fits(m, r, s->marks[i], s->marks[i]->other, span);
    return n;
}

// Without a partition table: where most marks would have it within the first table's
// range.
static uint64_t likely_start(const struct q2_marks *m, size_t volume, uint64_t span)
{
    struct sample s;
    uint64_t best = 0;
    size_t n_best = 0;
    take_sample(m, volume, &s);
    for (size_t i = 0; i < s.n && i < 64; i++) {
        const struct room r = {
            .start = (s.marks[i]->in_table + span - s.marks[i]->position % span) % span};
        size_t n = count_fitting(m, &s, &r, span);
        if (n > n_best) {
            n_best = n;
            best = r.start;
        }
    }
    return best;
}

struct choice {
    struct sample marks;
    struct room best;
    size_t n_best;
    uint64_t size; // of the volume; 0: not known
};

// Those at a distance of a multiple of what a table maps fit alike: then the smallest
// that the volume has room in.
static bool is_better(const struct choice *c, const struct room *r, size_t n)
{
    bool has_room = r->size >= c->size, had_room = c->best.size >= c->size;
    if (c->n_best == 0 || has_room != had_room)
        return c->n_best == 0 || has_room;
    return n > c->n_best || (n == c->n_best && c->size > 0 && r->size < c->best.size);
}

// Most marks must fit. A file system does not begin where a physical volume does.
static void offer(const struct q2_marks *m, struct choice *c, const struct room *r,
                  bool physical, uint64_t span)
{
    size_t n = count_fitting(m, &c->marks, r, span);
    if (n * 2 <= c->marks.n || !is_better(c, r, n))
        return;
    for (size_t v = 1; v < m->n_volumes && r->device == 0 && !physical; v++) {
        if (m->volumes[v].is_physical && m->volumes[v].placed &&
            m->volumes[v].start == r->start)
            return;
    }
    c->n_best = n;
    c->best = *r;
}

static void offer_devices(const struct q2_marks *m, struct choice *c, uint64_t span)
{
    for (size_t i = 0, end; i < m->n_pieces; i = end) {
        struct room r = {.device = m->pieces[i].device};
        for (end = i; end < m->n_pieces && m->pieces[end].device == r.device; end++)
            r.size += m->pieces[end].n_bytes;
        offer(m, c, &r, false, span);
    }
}

// A logical volume in one piece is as good as a partition.
static void straighten(const struct q2_marks *m, struct q2_volume *v)
{
    const struct room r = {.device = v->device};
    const struct q2_lvm_piece *p = find_piece(m, v->device, 0);
    if (v->placed && v->device > 0 && p && find_piece(m, v->device, UINT64_MAX) == p &&
        locate(m, &r, 0, &v->start))
        v->device = 0;
}

// Several are hardly all of the disk; and one in a partition whose table is lost fits by
// chance where L2 tables have small ranges.
static void doubt(struct q2_marks *m, uint64_t span)
{
    m->doubt = m->n_volumes > 2 || span < MIN_SPAN ? Q2_MARKS_GUESSED : Q2_MARKS_LIKELY;
}

// A volume of which no mark is at a known place: in the only partition that it fills.
static void offer_filled(const struct q2_marks *m, struct choice *c)
{
    for (size_t i = 0; i < m->n_partitions && c->size > 0; i++) {
        const struct room r = {m->partitions[i].start, m->partitions[i].size, 0};
        if (r.size < c->size || r.size - c->size >= MAX_UNFILLED ||
            (c->n_best > 0 && c->best.start == r.start))
            continue;
        c->best = r;
        c->n_best++;
    }
    // Not if there are several.
    c->n_best = c->n_best == 1;
}

// True if it starts where a partition or a logical volume does, or the disk. A disk with
// partitions holds nothing as a whole, unless the table is an old one.
static bool settle(struct q2_marks *m, size_t v, bool old, uint64_t span)
{
    struct q2_volume *volume = &m->volumes[v];
    bool physical = volume->is_physical, divided = m->least_size || m->volumes[0].size;
    struct choice c = {.size = volume->size};
    take_sample(m, v, &c.marks);
    for (size_t i = 0; i < m->n_partitions && !old; i++) {
        const struct room r = {m->partitions[i].start, m->partitions[i].size, 0};
        offer(m, &c, &r, physical, span);
    }
    if (c.marks.n == 0 && !old)
        offer_filled(m, &c);
    if (!physical)
        offer_devices(m, &c, span);
    if (!divided || old)
        offer(m, &c, &(const struct room){0, UINT64_MAX, 0}, physical, span);
    volume->start = c.best.start;
    volume->device = c.best.device;
    volume->placed = c.n_best > 0;
    if (volume->placed && c.best.size == UINT64_MAX && (m->start_lost || old))
        doubt(m, span);
    straighten(m, volume);
    return volume->placed;
}

static bool settle_all(struct q2_marks *m, bool physical, bool old, uint64_t span)
{
    bool any = false;
    for (size_t v = 1; v < m->n_volumes; v++) {
        if (m->volumes[v].is_physical == physical)
            any |= settle(m, v, old, span);
    }
    return any;
}

// The physical volume of that id; 0: it was not seen.
static size_t find_physical(const struct q2_marks *m, const uint8_t id[16])
{
    for (size_t v = 1; v < m->n_volumes; v++) {
        if (m->volumes[v].is_physical && memcmp(m->volumes[v].id, id, 16) == 0)
            return v;
    }
    return 0;
}

// A table that is not where it should be is one of a disk within a file. Leaves the
// partitions of others.
static int settle_partitions(struct q2_marks *m, uint64_t span, struct q2_error *err)
{
    uint64_t container = 0;
    size_t n = 0;
    m->volumes[0].size = m->least_size = 0;
    for (size_t i = 0; i < m->n_partitions; i++) {
        struct q2_partition p = m->partitions[i];
        if (p.position % span != p.in_table)
            continue;
        if (p.kind == Q2_PARTITION_DISK)
            m->volumes[0].size = p.size;
        else
            m->least_size = q2_max_u64(m->least_size, p.start + p.size);
        if (p.kind == Q2_PARTITION)
            m->partitions[n++] = p;
        else if (p.kind == Q2_PARTITION_CONTAINER)
            container = p.start;
    }
    m->n_partitions = n;
    return container > 0 ? q2_marks_follow_links(m, container, span, err) : 0;
}

// Its label may be lost: then there is the one partition that is as long.
static int settle_unseen(struct q2_marks *m, struct q2_lvm_piece *piece,
                         struct q2_error *err)
{
    const struct q2_partition *found = NULL;
    for (size_t i = 0; i < m->n_partitions; i++) {
        const struct q2_partition *p = &m->partitions[i];
        if (p->size != piece->physical_size || (found && p->start == found->start))
            continue;
        if (found)
            return 0;
        found = p;
    }
    size_t v = find_physical(m, piece->physical);
    int ret = found && v == 0 ? q2_marks_volume(m, piece->physical, &v, err) : 0;
    if (ret < 0 || v == 0)
        return ret;
    piece->volume = v;
    if (found && !m->volumes[v].is_physical) {
        m->volumes[v].start = found->start;
        m->volumes[v].placed = m->volumes[v].is_physical = true;
    }
    return 0;
}

int q2_marks_settle(struct q2_marks *m, uint64_t span, struct q2_error *err)
{
    int ret = settle_partitions(m, span, err);
    if (ret < 0)
        return ret;
    for (size_t i = 0; i < m->n_pieces; i++)
        m->pieces[i].volume = find_physical(m, m->pieces[i].physical);
    bool any = settle_all(m, true, false, span);
    for (size_t i = 0; i < m->n_pieces && ret == 0; i++) {
        if (m->pieces[i].volume == 0)
            ret = settle_unseen(m, &m->pieces[i], err);
    }
    any |= settle_all(m, false, false, span);
    if (!any)
        any = settle_all(m, true, true, span) || settle_all(m, false, true, span);
    // Others are files in these, most likely. Without any, the partition table is lost.
    for (size_t v = 1; v < m->n_volumes && !any && m->n_partitions == 0; v++) {
        m->volumes[v].start = likely_start(m, v, span);
        m->volumes[v].placed = true;
        m->doubt = Q2_MARKS_GUESSED;
    }
    return ret;
}
