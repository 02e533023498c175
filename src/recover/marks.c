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
    free(m->links);
    free(m->chunks);
    free(m->pieces);
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
    return q2_marks_add_either(m, p, volume, position, position, err);
}

int q2_marks_add_either(struct q2_marks *m, const struct q2_mark_place *p, size_t volume,
                        uint64_t position, uint64_t other, struct q2_error *err)
{
    void *list = m->list;
    if (m->n >= MAX_MARKS || position > INT64_MAX || other > INT64_MAX)
        return 0;
    int ret = q2_scan_grow(&list, &m->max, m->n, sizeof(*m->list), err);
    m->list = list;
    if (ret == 0)
        m->list[m->n++] =
            (struct q2_mark){p->table, p->in_table, volume, position, other};
    return ret;
}

int q2_marks_add_partition(struct q2_marks *m, const struct q2_partition *p,
                           struct q2_error *err)
{
    void *list = m->partitions;
    if (m->n_partitions >= MAX_PARTITIONS)
        return 0;
    int ret = q2_scan_grow(&list, &m->max_partitions, m->n_partitions,
                           sizeof(*m->partitions), err);
    m->partitions = list;
    if (ret == 0)
        m->partitions[m->n_partitions++] = *p;
    return ret;
}

typedef int look_at(struct q2_marks *m, const struct q2_mark_place *p,
                    struct q2_error *err);

int q2_marks_look(struct q2_marks *m, size_t table, uint64_t in_table, const uint8_t *buf,
                  size_t n_bytes, struct q2_error *err)
{
    static look_at *const kinds[] = {
        q2_marks_look_mbr,  q2_marks_look_gpt,  q2_marks_look_ext,   q2_marks_look_xfs,
        q2_marks_look_ntfs, q2_marks_look_swap, q2_marks_look_btrfs, q2_marks_look_lvm,
    };
    int ret = 0;
    for (size_t at = 0; at < n_bytes && ret == 0; at += Q2_MARK_SECTOR) {
        const struct q2_mark_place p = {table, in_table + at, buf + at, n_bytes - at, at};
        for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]) && ret == 0; i++)
            ret = kinds[i](m, &p, err);
    }
    return ret;
}

uint64_t q2_marks_disk_size(const struct q2_marks *m)
{
    uint64_t size = m->volumes[0].size ? m->volumes[0].size : m->least_size;
    for (size_t v = 1; v < m->n_volumes && size == 0; v++) {
        if (m->volumes[v].placed && m->volumes[v].start == 0)
            size = m->volumes[v].size;
    }
    return size;
}
