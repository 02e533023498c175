// SPDX-License-Identifier: MIT
// The list of marks, and what they say together.
#include "recover/marks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "check/scan.h"

// What is kept of a disk that is full of them.
#define MAX_MARKS ((size_t)1 << 20)
#define MAX_VOLUMES 256U
#define MAX_PARTITIONS 256U

int q2_marks_init(struct q2_marks *m, struct q2_error *err)
{
    static const uint8_t disk[16] = {0};
    size_t volume;
    *m = (struct q2_marks){0};
    int ret = q2_marks_volume(m, disk, &volume, err);
    if (ret == 0)
        m->volumes[0].placed = true;
    return ret;
}

void q2_marks_clear(struct q2_marks *m)
{
    free(m->volumes);
    free(m->list);
    free(m->partitions);
    q2_clues_clear(&m->clues);
    *m = (struct q2_marks){0};
}

int q2_marks_volume(struct q2_marks *m, const uint8_t id[16], size_t *volume,
                    struct q2_error *err)
{
    void *list = m->volumes;
    for (*volume = 0; *volume < m->n_volumes; (*volume)++) {
        if (memcmp(m->volumes[*volume].id, id, 16) == 0)
            return 0;
    }
    if (m->n_volumes >= MAX_VOLUMES) {
        *volume = 0;
        return 0;
    }
    int ret =
        q2_scan_grow(&list, &m->max_volumes, m->n_volumes, sizeof(*m->volumes), err);
    m->volumes = list;
    if (ret < 0)
        return ret;
    m->volumes[m->n_volumes] = (struct q2_volume){0};
    memcpy(m->volumes[m->n_volumes++].id, id, 16);
    return 0;
}

int q2_marks_add(struct q2_marks *m, const struct q2_mark_place *p, size_t volume,
                 uint64_t position, struct q2_error *err)
{
    void *list = m->list;
    if (m->n >= MAX_MARKS || position > INT64_MAX)
        return 0;
    int ret = q2_scan_grow(&list, &m->max, m->n, sizeof(*m->list), err);
    m->list = list;
    if (ret == 0)
        m->list[m->n++] = (struct q2_mark){p->table, p->in_table, volume, position};
    return ret;
}

int q2_marks_add_partition(struct q2_marks *m, uint64_t start, uint64_t size,
                           struct q2_error *err)
{
    void *list = m->partitions;
    if (m->n_partitions >= MAX_PARTITIONS)
        return 0;
    int ret = q2_scan_grow(&list, &m->max_partitions, m->n_partitions,
                           sizeof(*m->partitions), err);
    m->partitions = list;
    if (ret == 0)
        m->partitions[m->n_partitions++] = (struct q2_partition){start, size};
    return ret;
}

int q2_marks_look(struct q2_marks *m, size_t table, uint64_t in_table, const uint8_t *buf,
                  size_t n_bytes, struct q2_error *err)
{
    int ret = 0;
    for (size_t at = 0; at < n_bytes && ret == 0; at += Q2_MARK_SECTOR) {
        const struct q2_mark_place p = {table, in_table + at, buf + at, n_bytes - at, at};
        ret = q2_marks_look_partitions(m, &p, err);
        if (ret == 0)
            ret = q2_marks_look_ext(m, &p, err);
        if (ret == 0)
            ret = q2_marks_look_xfs(m, &p, err);
        if (ret == 0)
            ret = q2_marks_look_ntfs(m, &p, err);
        if (ret == 0)
            ret = q2_marks_look_others(m, &p, err);
    }
    return ret;
}

// Marks of the volume that fit if it starts there.
static size_t count_fitting(const struct q2_marks *m, size_t volume, uint64_t start,
                            uint64_t span)
{
    size_t n = 0;
    for (size_t i = 0; i < m->n; i++) {
        const struct q2_mark *k = &m->list[i];
        n += k->volume == volume && (start + k->position) % span == k->in_table;
    }
    return n;
}

// Without a partition table: where most marks would have it within the first table's
// range.
static uint64_t likely_start(const struct q2_marks *m, size_t volume, uint64_t span)
{
    uint64_t best = 0;
    size_t n_best = 0;
    for (size_t i = 0, n_tried = 0; i < m->n && n_tried < 64; i++) {
        const struct q2_mark *k = &m->list[i];
        if (k->volume != volume)
            continue;
        uint64_t start = (k->in_table + span - k->position % span) % span;
        size_t n = count_fitting(m, volume, start, span);
        n_tried++;
        if (n > n_best) {
            n_best = n;
            best = start;
        }
    }
    return best;
}

// Is x the better one to hold a volume of that size? Partitions at a distance of a
// multiple of what a table maps fit alike: then the smallest that it has room in.
static bool holds_better(const struct q2_partition *x, const struct q2_partition *y,
                         uint64_t size)
{
    if ((x->size >= size) != (y->size >= size))
        return x->size >= size;
    return x->size < y->size;
}

// True if it starts where the disk or a partition does.
static bool settle_by_partitions(struct q2_marks *m, size_t v, uint64_t span)
{
    struct q2_volume *volume = &m->volumes[v];
    struct q2_partition best = {0, UINT64_MAX};
    size_t n_best = count_fitting(m, v, 0, span);
    for (size_t i = 0; i < m->n_partitions; i++) {
        const struct q2_partition *p = &m->partitions[i];
        size_t n = count_fitting(m, v, p->start, span);
        if (n > n_best ||
            (n == n_best && n > 0 && volume->size > 0 && p->size >= volume->size &&
             holds_better(p, &best, volume->size))) {
            n_best = n;
            best = *p;
        }
    }
    volume->start = best.start;
    volume->placed = n_best > 0;
    return volume->placed;
}

void q2_marks_settle(struct q2_marks *m, uint64_t span)
{
    bool any = false;
    for (size_t v = 1; v < m->n_volumes; v++)
        any |= settle_by_partitions(m, v, span);
    // Others are files in these, most likely. Without any, the partition table is lost.
    for (size_t v = 1; v < m->n_volumes && !any && m->n_partitions == 0; v++) {
        m->volumes[v].start = likely_start(m, v, span);
        m->volumes[v].placed = true;
    }
}

uint64_t q2_marks_disk_size(const struct q2_marks *m)
{
    uint64_t size = m->volumes[0].size;
    for (size_t i = 0; i < m->n_partitions && m->volumes[0].size == 0; i++)
        size = q2_max_u64(size, m->partitions[i].start + m->partitions[i].size);
    for (size_t v = 1; v < m->n_volumes && size == 0; v++) {
        if (m->volumes[v].placed && m->volumes[v].start == 0)
            size = m->volumes[v].size;
    }
    return size;
}
