// SPDX-License-Identifier: MIT
// NTFS: its first sector, and the records of files, which tell where files end.
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "recover/marks.h"

#define RECORD_BYTES 1024U
#define ATTRIBUTE_DATA 0x80U
#define ATTRIBUTE_END 0xffffffffU
#define IN_USE 1U
#define IS_FOLDER 2U
#define COMPRESSED_OR_ENCRYPTED 0x40ffU

// The volume that has the records: they do not say which it is, so there must be one
// alone.
static size_t only_volume(const struct q2_marks *m)
{
    size_t found = 0;
    for (size_t v = 1; v < m->n_volumes; v++) {
        if (memcmp(m->volumes[v].id, "NTFS", 4) != 0)
            continue;
        if (found)
            return 0;
        found = v;
    }
    return found;
}

// Its copy is the last sector of the partition, which ends at no round place.
static int look_first(struct q2_marks *m, const struct q2_mark_place *p,
                      struct q2_error *err)
{
    const uint8_t *s = p->sector;
    uint32_t cluster = 512U * s[13];
    uint64_t n_sectors = q2_load_le64(s + 40);
    uint8_t id[16] = "NTFS";
    size_t v;
    if (q2_load_le16(s + 11) != 512 || !q2_is_power_of_2(cluster) ||
        cluster > Q2_CLUE_MAX_BLOCK || n_sectors == 0 ||
        n_sectors > INT64_MAX / 512 - 1 || s[510] != 0x55 || s[511] != 0xaa)
        return 0;
    memcpy(id + 4, s + 72, 8);
    int ret = q2_marks_volume(m, id, &v, err);
    if (ret < 0 || v == 0)
        return ret;
    m->volumes[v].size = (n_sectors + 1) * 512;
    m->volumes[v].block_log = q2_log2(cluster);
    return q2_is_aligned(p->in_table, 4096) ? q2_marks_add(m, p, v, 0, err) : 0;
}

// The last two bytes of each sector stand in front of the record; false: they are not
// what they should be.
static bool put_back(uint8_t record[RECORD_BYTES])
{
    size_t at = q2_load_le16(record + 4);
    if (q2_load_le16(record + 6) != 3 || at < 40 || at > 64)
        return false;
    for (size_t i = 0; i < 2; i++) {
        uint8_t *end = record + (i + 1) * 512 - 2;
        if (memcmp(end, record + at, 2) != 0)
            return false;
        memcpy(end, record + at + 2 + 2 * i, 2);
    }
    return true;
}

// A number of n_bytes, with its sign.
static int64_t load_number(const uint8_t *p, unsigned n_bytes)
{
    uint64_t value = n_bytes > 0 && (p[n_bytes - 1] & 0x80) ? UINT64_MAX : 0;
    for (unsigned i = n_bytes; i-- > 0;)
        value = value << 8 | p[i];
    return (int64_t)value;
}

// Where on the volume the n-th cluster is, by the runs of an attribute. 0: it cannot be
// told.
static uint64_t find_cluster(const uint8_t *runs, size_t n_bytes, uint64_t n)
{
    uint64_t cluster = 0;
    for (size_t at = 0; at < n_bytes && runs[at] != 0;) {
        unsigned n_length = runs[at] & 15, n_offset = runs[at] >> 4;
        if (n_length == 0 || n_length > 8 || n_offset > 8 ||
            at + 1 + n_length + n_offset > n_bytes)
            return 0;
        uint64_t length = (uint64_t)load_number(runs + at + 1, n_length);
        cluster += (uint64_t)load_number(runs + at + 1 + n_length, n_offset);
        if (n < length)
            return n_offset == 0 || cluster > UINT32_MAX ? 0 : cluster + n;
        n -= length;
        at += 1 + n_length + n_offset;
    }
    return 0;
}

// What a file has in it, if that is outside the record.
static int look_data(struct q2_marks *m, size_t v, const uint8_t *a, size_t n_bytes,
                     struct q2_error *err)
{
    unsigned bits = m->volumes[v].block_log;
    if (n_bytes < 64 || a[8] != 1 || a[9] != 0 || q2_load_le64(a + 16) != 0 ||
        (q2_load_le16(a + 12) & COMPRESSED_OR_ENCRYPTED))
        return 0;
    uint64_t size = q2_load_le64(a + 48);
    size_t runs = q2_load_le16(a + 32);
    if (size == 0 || size > INT64_MAX || size != q2_load_le64(a + 56) || runs >= n_bytes)
        return 0;
    uint64_t cluster = find_cluster(a + runs, n_bytes - runs, (size - 1) >> bits);
    return cluster == 0 || cluster >= (UINT64_C(1) << 40)
               ? 0
               : q2_clues_add_end(&m->clues, v, cluster << bits, size, bits, err);
}

static int look_record(struct q2_marks *m, const struct q2_mark_place *p,
                       struct q2_error *err)
{
    uint8_t record[RECORD_BYTES];
    size_t v = only_volume(m);
    if (v == 0)
        m->n_unknown++;
    if (v == 0 || p->n_bytes < RECORD_BYTES)
        return 0;
    memcpy(record, p->sector, RECORD_BYTES);
    unsigned flags = q2_load_le16(record + 22);
    if (!put_back(record) || !(flags & IN_USE) || (flags & IS_FOLDER))
        return 0;
    size_t at = q2_load_le16(record + 20);
    while (at + 16 <= RECORD_BYTES && q2_load_le32(record + at) != ATTRIBUTE_END) {
        size_t n_bytes = q2_load_le32(record + at + 4);
        if (n_bytes < 16 || n_bytes > RECORD_BYTES - at)
            return 0;
        if (q2_load_le32(record + at) == ATTRIBUTE_DATA)
            return look_data(m, v, record + at, n_bytes, err);
        at += n_bytes;
    }
    return 0;
}

int q2_marks_look_ntfs(struct q2_marks *m, const struct q2_mark_place *p,
                       struct q2_error *err)
{
    if (memcmp(p->sector + 3, "NTFS    ", 8) == 0)
        return look_first(m, p, err);
    return memcmp(p->sector, "FILE", 4) == 0 ? look_record(m, p, err) : 0;
}
