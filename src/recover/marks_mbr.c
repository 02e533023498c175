// SPDX-License-Identifier: MIT
// The partition table of a disk's first sector, and those of logical partitions in it:
// each of these says where the next one is, and none where it is itself.
#include <string.h>

#include "base/endian.h"
#include "check/scan.h"
#include "recover/marks.h"

#define SECTOR 512U
#define TABLE_AT 446U
#define ENTRY_BYTES 16U
#define N_ENTRIES 4U
#define TYPE_GPT 0xeeU
#define MAX_LINKS ((size_t)1 << 10)
#define MAX_CHAIN 64U

// In sectors, counted from somewhere.
struct entry {
    uint8_t boot, type;
    uint32_t first, n;
};

static struct entry load(const uint8_t *sector, unsigned i)
{
    const uint8_t *e = sector + TABLE_AT + ENTRY_BYTES * (size_t)i;
    return (struct entry){e[0], e[4], q2_load_le32(e + 8), q2_load_le32(e + 12)};
}

static bool is_container(uint8_t type)
{
    return type == 0x05 || type == 0x0f || type == 0x85;
}

static int look_first(struct q2_marks *m, const struct q2_mark_place *p,
                      struct q2_error *err)
{
    unsigned n = 0;
    int ret = 0;
    for (unsigned i = 0; i < N_ENTRIES; i++) {
        struct entry e = load(p->sector, i);
        if ((e.boot & 0x7f) || (e.type != 0 && (e.first == 0 || e.n == 0)))
            return 0;
        n += e.type != 0;
    }
    if (n == 0)
        return 0;
    for (unsigned i = 0; i < N_ENTRIES && ret == 0; i++) {
        struct entry e = load(p->sector, i);
        const struct q2_partition x = {
            .start = (uint64_t)e.first * SECTOR,
            .size = (uint64_t)e.n * SECTOR,
            .kind = is_container(e.type) ? Q2_PARTITION_CONTAINER : Q2_PARTITION};
        if (e.type != 0 && e.type != TYPE_GPT)
            ret = q2_marks_add_partition(m, &x, err);
    }
    return ret < 0 ? ret : q2_marks_add(m, p, 0, 0, err);
}

// Up to the entries.
static bool is_zero(const uint8_t *sector)
{
    static const uint8_t zeros[TABLE_AT] = {0};
    return memcmp(sector, zeros, sizeof(zeros)) == 0;
}

// One partition, and perhaps the place of the next table; no program.
static int look_link(struct q2_marks *m, const struct q2_mark_place *p,
                     struct q2_error *err)
{
    struct entry own = load(p->sector, 0), next = load(p->sector, 1);
    void *list = m->links;
    if (own.type == 0 || own.first == 0 || own.n == 0 || is_container(own.type) ||
        (next.type != 0 && (!is_container(next.type) || next.n == 0)) ||
        load(p->sector, 2).type != 0 || load(p->sector, 3).type != 0 ||
        m->n_links >= MAX_LINKS)
        return 0;
    int ret = q2_scan_grow(&list, &m->max_links, m->n_links, sizeof(*m->links), err);
    m->links = list;
    if (ret == 0)
        m->links[m->n_links++] = (struct q2_partition_link){
            p->in_table, own.first, own.n, next.type ? next.first : 0, next.n};
    return ret;
}

int q2_marks_look_mbr(struct q2_marks *m, const struct q2_mark_place *p,
                      struct q2_error *err)
{
    const uint8_t *s = p->sector;
    if (s[510] != 0x55 || s[511] != 0xaa)
        return 0;
    // The first sector of a disk has a program, or at least the disk's number.
    if (!is_zero(s))
        return p->in_table == 0 ? look_first(m, p, err) : 0;
    return look_link(m, p, err);
}

// The link that is at that place of some table's range and has n sectors with its
// partition, if there is one alone.
static const struct q2_partition_link *find_link(const struct q2_marks *m,
                                                 uint64_t in_table, uint64_t n)
{
    const struct q2_partition_link *found = NULL;
    for (size_t i = 0; i < m->n_links; i++) {
        const struct q2_partition_link *x = &m->links[i];
        if (x->in_table != in_table || (uint64_t)x->first + x->n != n)
            continue;
        if (found)
            return NULL;
        found = x;
    }
    return found;
}

// The one behind x. *at: where it is on the disk.
static const struct q2_partition_link *next_link(const struct q2_marks *m,
                                                 const struct q2_partition_link *x,
                                                 uint64_t container, uint64_t span,
                                                 uint64_t *at)
{
    *at = container + (uint64_t)x->next * SECTOR;
    return x->next > 0 ? find_link(m, *at % span, x->next_n) : NULL;
}

// What could be the first goes before others the longer the chain is that begins with it.
static const struct q2_partition_link *find_first(const struct q2_marks *m,
                                                  uint64_t container, uint64_t span)
{
    const struct q2_partition_link *first = NULL;
    unsigned longest = 0;
    for (size_t i = 0; i < m->n_links; i++) {
        const struct q2_partition_link *x = &m->links[i];
        unsigned n = 0;
        uint64_t at;
        if (x->in_table != container % span)
            continue;
        while (x && n < MAX_CHAIN) {
            x = next_link(m, x, container, span, &at);
            n++;
        }
        if (n >= longest)
            first = n > longest ? &m->links[i] : NULL;
        longest = n > longest ? n : longest;
    }
    return first;
}

int q2_marks_follow_links(struct q2_marks *m, uint64_t container, uint64_t span,
                          struct q2_error *err)
{
    const struct q2_partition_link *x = find_first(m, container, span);
    uint64_t at = container;
    int ret = 0;
    for (unsigned i = 0; i < MAX_CHAIN && x && ret == 0; i++) {
        const struct q2_partition p = {.start = at + (uint64_t)x->first * SECTOR,
                                       .size = (uint64_t)x->n * SECTOR};
        ret = q2_marks_add_partition(m, &p, err);
        x = next_link(m, x, container, span, &at);
    }
    return ret;
}
