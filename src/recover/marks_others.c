// SPDX-License-Identifier: MIT
// Partition tables; and swap spaces.
#include <string.h>

#include "base/endian.h"
#include "recover/marks.h"

#define MAX_SECTORS ((uint64_t)1 << 50)
#define GPT_ENTRY_BYTES 128U

// A partition table of the first sector of a disk.
static int look_mbr(struct q2_marks *m, const struct q2_mark_place *p,
                    struct q2_error *err)
{
    const uint8_t *s = p->sector;
    unsigned n = 0;
    int ret = 0;
    if (s[510] != 0x55 || s[511] != 0xaa)
        return 0;
    for (unsigned i = 0; i < 4; i++) {
        const uint8_t *e = s + 446 + 16 * (size_t)i;
        if (e[0] & 0x7f)
            return 0;
        if (e[4] == 0)
            continue;
        if (q2_load_le32(e + 8) == 0 || q2_load_le32(e + 12) == 0)
            return 0;
        n++;
    }
    if (n == 0)
        return 0;
    for (unsigned i = 0; i < 4 && ret == 0; i++) {
        const uint8_t *e = s + 446 + 16 * (size_t)i;
        if (e[4] != 0 && e[4] != 0xee)
            ret = q2_marks_add_partition(m, (uint64_t)q2_load_le32(e + 8) * 512,
                                         (uint64_t)q2_load_le32(e + 12) * 512, err);
    }
    return ret < 0 ? ret : q2_marks_add(m, p, 0, 0, err);
}

// Entries are as good at the end of the disk as at its start.
static int look_gpt_entries(struct q2_marks *m, const uint8_t *s, size_t n_bytes,
                            struct q2_error *err)
{
    int ret = 0;
    for (size_t at = 0; at + GPT_ENTRY_BYTES <= n_bytes && ret == 0;
         at += GPT_ENTRY_BYTES) {
        uint64_t first = q2_load_le64(s + at + 32), last = q2_load_le64(s + at + 40);
        if (first == 0 || last < first || last > MAX_SECTORS)
            break;
        ret = q2_marks_add_partition(m, first * 512, (last - first + 1) * 512, err);
    }
    return ret;
}

static int look_gpt(struct q2_marks *m, const struct q2_mark_place *p,
                    struct q2_error *err)
{
    const uint8_t *s = p->sector;
    uint64_t own = q2_load_le64(s + 24), other = q2_load_le64(s + 32);
    if (own == 0 || own > MAX_SECTORS || other > MAX_SECTORS ||
        q2_load_le32(s + 84) != GPT_ENTRY_BYTES)
        return 0;
    uint64_t last = own > other ? own : other;
    m->volumes[0].size = (last + 1) * 512;
    int ret = q2_marks_add(m, p, 0, own * 512, err);
    if (ret == 0 && own == 1 && p->n_bytes > 512)
        return look_gpt_entries(m, s + 512, p->n_bytes - 512, err);
    // The copy's entries lie in front of its header.
    uint64_t entries = q2_load_le64(s + 72), distance = own - entries;
    if (ret == 0 && own > 1 && entries < own && distance <= p->n_before / 512)
        ret = look_gpt_entries(m, s - distance * 512, (size_t)distance * 512, err);
    return ret;
}

int q2_marks_look_partitions(struct q2_marks *m, const struct q2_mark_place *p,
                             struct q2_error *err)
{
    if (p->in_table == 0)
        return look_mbr(m, p, err);
    return memcmp(p->sector, "EFI PART", 8) == 0 ? look_gpt(m, p, err) : 0;
}

// The first page of a swap space is where its volume begins.
int q2_marks_look_swap(struct q2_marks *m, const struct q2_mark_place *p,
                       struct q2_error *err)
{
    const uint8_t *s = p->sector;
    size_t v;
    if (p->n_bytes < 4096 || memcmp(s + 4086, "SWAPSPACE2", 10) != 0)
        return 0;
    int ret = q2_marks_volume(m, s + 1036, &v, err);
    if (ret < 0 || v == 0)
        return ret;
    m->volumes[v].size = ((uint64_t)q2_load_le32(s + 1028) + 1) * 4096;
    return q2_marks_add(m, p, v, 0, err);
}
