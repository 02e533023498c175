// SPDX-License-Identifier: MIT
// GPT; and swap spaces.
#include <string.h>

#include "base/endian.h"
#include "recover/marks.h"

#define MAX_SECTORS ((uint64_t)1 << 50)
#define GPT_ENTRY_BYTES 128U

// Entries are as good at the end of the disk as at its start.
static int look_gpt_entries(struct q2_marks *m, const struct q2_partition *header,
                            const uint8_t *s, size_t n_bytes, struct q2_error *err)
{
    int ret = 0;
    for (size_t at = 0; at + GPT_ENTRY_BYTES <= n_bytes && ret == 0;
         at += GPT_ENTRY_BYTES) {
        uint64_t first = q2_load_le64(s + at + 32), last = q2_load_le64(s + at + 40);
        if (first == 0 || last < first || last > MAX_SECTORS)
            break;
        struct q2_partition p = *header;
        p.kind = Q2_PARTITION;
        p.start = first * 512;
        p.size = (last - first + 1) * 512;
        ret = q2_marks_add_partition(m, &p, err);
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
    const struct q2_partition disk = {.size = (last + 1) * 512,
                                      .position = own * 512,
                                      .in_table = p->in_table,
                                      .kind = Q2_PARTITION_DISK};
    int ret = q2_marks_add(m, p, 0, own * 512, err);
    if (ret == 0)
        ret = q2_marks_add_partition(m, &disk, err);
    if (ret == 0 && own == 1 && p->n_bytes > 512)
        return look_gpt_entries(m, &disk, s + 512, p->n_bytes - 512, err);
    // The copy's entries lie in front of its header.
    uint64_t entries = q2_load_le64(s + 72), distance = own - entries;
    if (ret == 0 && own > 1 && entries < own && distance <= p->n_before / 512)
        ret = look_gpt_entries(m, &disk, s - distance * 512, (size_t)distance * 512, err);
    return ret;
}

int q2_marks_look_gpt(struct q2_marks *m, const struct q2_mark_place *p,
                      struct q2_error *err)
{
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
