// SPDX-License-Identifier: MIT
// L1 tables of snapshots whose place or size the snapshot table has wrong. The table
// itself is there: clusters in use by their refcounts that nothing names, and that read
// like an L1 table whose L2 tables miss a reference.
#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/endian.h"
#include "check/scan.h"

// So many orphans are read.
#define MAX_LOOKED_AT 4096U
// For so many snapshots.
#define MAX_DOUBTS 64U
#define AT_L1_SIZE 8U

static uint64_t entries_for(const struct q2_scan *s, uint64_t size)
{
    unsigned span_bits = s->l2_bits + s->cluster_bits;
    return (size >> span_bits) + ((size & ((UINT64_C(1) << span_bits) - 1)) != 0);
}

// Entries that the disk of the snapshot needs.
static uint64_t least_entries(const struct q2_scan *s, const struct q2_snapshot *sn)
{
    return entries_for(s, sn->has_disk_size ? sn->disk_size : s->header.size);
}

static struct q2_finding about(const struct q2_scan *s, unsigned index, const char *field,
                               unsigned at, uint64_t value, uint64_t wanted)
{
    return (struct q2_finding){.problem = Q2_PROBLEM_SNAPSHOT_FIELD,
                               .has = Q2_HAS_INDEX | Q2_HAS_SNAPSHOT | Q2_HAS_OFFSET |
                                      Q2_HAS_VALUE | Q2_HAS_WANTED | Q2_HAS_EDIT,
                               .offset = s->snapshot_offsets[index] + at,
                               .index = index,
                               .snapshot = (int)index,
                               .snapshot_name = s->snapshots[index].name,
                               .field = field,
                               .value = value,
                               .wanted = wanted,
                               .edit_offset = s->snapshot_offsets[index] + at,
                               .recovered = true};
}

// Does a refcount say that nothing is there?
static int is_free(struct q2_scan *s, uint64_t offset, bool *yes, struct q2_error *err)
{
    struct q2_table *block;
    uint64_t stored = 0;
    int ret = q2_scan_block(s, offset >> s->cluster_bits, &block, err);
    if (ret == 0 && block)
        ret = q2_scan_stored(s, offset >> s->cluster_bits, &stored, err);
    *yes = ret == 0 && block && stored == 0;
    return ret;
}

// Too few entries for the disk, or far too many: the disk's size says how many. A disk
// size that only this snapshot claims is no evidence.
int q2_scan_mend_l1_size(struct q2_scan *s, unsigned index, bool usable,
                         struct q2_error *err)
{
    struct q2_snapshot *sn = &s->snapshots[index];
    uint64_t least = least_entries(s, sn), wanted;
    uint8_t word[8];
    // An old entry in a newer image does not say how large its disk was.
    if ((usable && sn->l1_size >= least) ||
        (s->header.version >= 3 && !sn->has_disk_size))
        return 0;
    wanted = least + entries_for(s, sn->vm_state_size); // it lies behind the disk
    if (sn->l1_size == wanted || wanted > Q2_MAX_L1_BYTES / 8 || wanted == 0 ||
        (sn->has_disk_size && sn->disk_size != s->header.size))
        return 0;
    bool free = false;
    int ret = usable ? is_free(s, sn->l1_table_offset, &free, err) : 0;
    // A table that can be read is not given up for one that cannot, or that nobody owns.
    if (ret < 0 || free ||
        (usable && !q2_scan_is_preclaimed(s, sn->l1_table_offset) &&
         (!q2_scan_in_file(s, sn->l1_table_offset, wanted * 8) ||
          q2_scan_is_metadata(s, sn->l1_table_offset, wanted * 8))))
        return ret;
    ret = q2_io_read(s->io, s->snapshot_offsets[index] + AT_L1_SIZE, word, sizeof(word),
                     err);
    if (ret < 0 || q2_load_be32(word) != sn->l1_size)
        return ret;
    struct q2_finding f = about(s, index, "l1_size", AT_L1_SIZE, sn->l1_size, wanted);
    q2_store_be32(word, (uint32_t)wanted);
    f.edit_value = q2_load_be64(word);
    q2_scan_report(s, &s->findings, &f);
    sn->l1_size = (uint32_t)wanted;
    return 0;
}

// Does a state name this L2 table at this place?
static bool named_at(const struct q2_scan *s, uint64_t offset, uint64_t index)
{
    for (unsigned t = 0; t < s->n_l1s; t++) {
        const struct q2_scan_l1 *l1 = &s->l1s[t];
        if (l1->entries && index < l1->n_entries &&
            (l1->entries[index] & Q2_OFFSET_MASK) == offset)
            return true;
    }
    return false;
}

// Does the entry of that index name an L2 table that misses a reference?
static int names_table(struct q2_scan *s, uint64_t entry, uint64_t index, bool *yes,
                       struct q2_error *err)
{
    uint64_t offset = entry & Q2_OFFSET_MASK;
    *yes = !(entry & Q2_L1_RESERVED) && offset != 0 &&
           q2_is_aligned(offset, s->cluster_size) &&
           q2_scan_in_file(s, offset, s->cluster_size);
    int ret = *yes ? q2_scan_has_surplus(s, offset, s->cluster_size, yes, err) : 0;
    if (ret < 0 || !*yes)
        return ret;
    // States share tables at one place of the disk.
    if (q2_counters_get(s->tables, offset >> s->cluster_bits) > 0) {
        *yes = named_at(s, offset, index);
        return 0;
    }
    return q2_scan_reads_like_l2(s, offset, index << (s->l2_bits + s->cluster_bits), yes,
                                 err);
}

static int reads_like_l1(struct q2_scan *s, uint64_t offset, uint64_t n, bool *yes,
                         struct q2_error *err)
{
    uint64_t *l1 = malloc(q2_to_size(n * 8 + 8)), n_used = 0;
    if (!l1)
        return q2_fail_memory(err, n * 8);
    int ret = q2_io_read(s->io, offset, l1, q2_to_size(n * 8), err);
    if (ret == 0)
        q2_table_decode(l1, l1, q2_to_size(n));
    *yes = ret == 0;
    for (uint64_t i = 0; i < n && *yes && ret == 0; i++) {
        if (l1[i] == 0)
            continue;
        n_used++;
        ret = names_table(s, l1[i], i, yes, err);
    }
    *yes &= n_used > 0;
    free(l1);
    return ret;
}

// All clusters of the table must be orphans.
static int try_place(struct q2_scan *s, uint64_t offset, uint64_t n, uint64_t *found,
                     unsigned *n_found, struct q2_error *err)
{
    uint64_t stored;
    bool yes = true;
    int ret = 0;
    for (uint64_t at = 0; at < n * 8 && yes && ret == 0; at += s->cluster_size)
        ret = q2_scan_is_orphan(s, offset + at, &stored, &yes, err);
    if (ret == 0 && yes)
        ret = reads_like_l1(s, offset, n, &yes, err);
    if (ret == 0 && yes) {
        *found = offset;
        ++*n_found;
    }
    return ret;
}

// A snapshot whose L1 table is looked for. known: the finding that says so already.
struct doubt {
    bool yes;
    size_t known;
};

// Which snapshots' tables are there reasons to doubt? The caller frees the list.
static int list_doubts(struct q2_scan *s, struct doubt **out, struct q2_error *err)
{
    struct doubt *d = calloc(s->n_snapshots + 1, sizeof(*d));
    int ret = d ? 0 : q2_fail_memory(err, (s->n_snapshots + 1) * sizeof(*d));
    for (unsigned i = 0; i < s->n_snapshots && ret == 0; i++) {
        const struct q2_scan_l1 *l1 = &s->l1s[i + 1];
        uint64_t cluster = l1->offset >> s->cluster_bits, stored;
        ret = q2_scan_stored(s, cluster, &stored, err);
        d[i] = (struct doubt){.yes = !l1->entries ||
                                     stored < q2_counters_get(s->references, cluster),
                              .known = SIZE_MAX};
    }
    for (size_t i = 0; i < s->findings.n && ret == 0; i++) {
        const struct q2_finding *f = &s->findings.list[i];
        if (!(f->has & Q2_HAS_SNAPSHOT) || f->snapshot < 0 ||
            (unsigned)f->snapshot >= s->n_snapshots)
            continue;
        if (f->problem == Q2_PROBLEM_SNAPSHOT_L1)
            d[f->snapshot] = (struct doubt){.yes = true, .known = i};
        else
            d[f->snapshot].yes |= f->in_l1;
    }
    if (ret < 0)
        free(d);
    else
        *out = d;
    return ret;
}

// Two snapshots name one table, and found is the other's. Programs make L1 tables one
// behind the other: the older snapshot has the lower one.
static unsigned owner_of(const struct q2_scan *s, unsigned index, uint64_t found)
{
    uint64_t claimed = s->snapshots[index].l1_table_offset;
    for (unsigned k = 0; k < s->n_snapshots; k++) {
        if (k == index || s->snapshots[k].l1_table_offset != claimed)
            continue;
        return (found < claimed) == (k < index) ? k : index;
    }
    return index;
}

static int find_l1(struct q2_scan *s, unsigned index, size_t known, struct q2_error *err)
{
    const struct q2_snapshot *sn = &s->snapshots[index];
    uint64_t n = sn->l1_size, found = 0;
    unsigned n_found = 0;
    int ret = 0;
    if (q2_scan_is_blank(sn) || n == 0 || n > Q2_MAX_L1_BYTES / 8)
        return 0;
    for (size_t i = 0; i < s->n_orphans && i < MAX_LOOKED_AT && ret == 0; i++)
        ret = try_place(s, s->orphans[i] << s->cluster_bits, n, &found, &n_found, err);
    if (ret < 0 || n_found != 1 || found == sn->l1_table_offset)
        return ret;
    struct q2_finding f = about(s, owner_of(s, index, found), "l1_table_offset", 0,
                                sn->l1_table_offset, found);
    f.edit_value = found;
    if (known != SIZE_MAX)
        s->findings.list[known] = f;
    else
        q2_scan_report(s, &s->findings, &f);
    return 0;
}

int q2_scan_find_l1s(struct q2_scan *s, struct q2_error *err)
{
    struct doubt *doubts = NULL;
    unsigned n = 0;
    // In a dirty image refcounts are what a crash leaves, and no evidence.
    if (s->surplus == 0 || s->too_many_orphans || s->n_l1s != s->n_snapshots + 1 ||
        (s->header.incompatible_features & Q2_INCOMPAT_DIRTY))
        return 0;
    int ret = list_doubts(s, &doubts, err);
    for (unsigned i = 0; i < s->n_snapshots && n < MAX_DOUBTS && ret == 0; i++) {
        if (!doubts[i].yes)
            continue;
        n++;
        ret = find_l1(s, i, doubts[i].known, err);
    }
    free(doubts);
    return ret;
}
