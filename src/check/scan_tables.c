// SPDX-License-Identifier: MIT
// What the header names: its own cluster and the L1 tables.
#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "check/scan.h"

int q2_scan_data_end(struct q2_scan *s, uint64_t offset, uint64_t n_bytes, uint64_t *end,
                     struct q2_error *err)
{
    uint64_t limit = q2_min_u64(offset + n_bytes, s->file_size);
    *end = offset;
    for (uint64_t at = offset; at < limit;) {
        uint64_t n = limit - at;
        bool data;
        int ret = q2_io_extent(s->io, at, &n, &data, err);
        if (ret < 0)
            return ret;
        at += n;
        if (data)
            *end = q2_min_u64(at, limit);
    }
    return 0;
}

// Reads an L1 table up to its last data; entries behind that are zero, and not kept.
static int read_l1(struct q2_scan *s, struct q2_scan_l1 *l1, struct q2_error *err)
{
    uint64_t end;
    int ret = q2_scan_data_end(s, l1->offset, (uint64_t)l1->n_entries * 8, &end, err);
    if (ret < 0)
        return ret;
    size_t n_bytes = q2_to_size(q2_align_up(end - l1->offset, 8));
    l1->entries = calloc(q2_to_size(q2_max_u64(n_bytes / 8, 1)), 8);
    if (!l1->entries)
        return q2_fail_memory(err, n_bytes);
    ret = q2_io_read(s->io, l1->offset, l1->entries, n_bytes, err);
    if (ret < 0)
        return q2_context(err, "Could not read L1 table");
    q2_table_decode(l1->entries, l1->entries, n_bytes / 8);
    l1->n_entries = (uint32_t)(n_bytes / 8);
    return 0;
}

static void report_l1(struct q2_scan *s, const struct q2_scan_l1 *l1)
{
    q2_scan_report(s, &s->findings,
                   &(struct q2_finding){.problem = Q2_PROBLEM_SNAPSHOT_L1,
                                        .has = Q2_HAS_OFFSET | Q2_HAS_SIZE |
                                               Q2_HAS_INDEX | Q2_HAS_SNAPSHOT,
                                        .offset = l1->offset,
                                        .size = (uint64_t)l1->n_entries * 8,
                                        .index = (uint64_t)l1->snapshot,
                                        .snapshot = l1->snapshot,
                                        .snapshot_name = l1->name,
                                        .lossy = true});
}

bool q2_scan_is_preclaimed(const struct q2_scan *s, uint64_t offset)
{
    for (size_t i = 0; i < s->n_preclaimed; i++) {
        if (s->preclaimed[i] == offset >> s->cluster_bits)
            return true;
    }
    return false;
}

// A snapshot's L1 table must lie in the file, apart from what the active state owns.
static bool usable(const struct q2_scan *s, const struct q2_scan_l1 *l1)
{
    uint64_t n_bytes = (uint64_t)l1->n_entries * 8;
    return n_bytes <= Q2_MAX_L1_BYTES && q2_is_aligned(l1->offset, s->cluster_size) &&
           l1->offset != 0 && q2_scan_in_file(s, l1->offset, n_bytes) &&
           (q2_scan_is_preclaimed(s, l1->offset) ||
            !q2_scan_is_metadata(s, l1->offset, n_bytes));
}

// Most of its entries make sense?
static bool reads_like_l1(const struct q2_scan *s, const struct q2_scan_l1 *l1)
{
    uint32_t n_used = 0, n_bad = 0;
    for (uint32_t i = 0; i < l1->n_entries; i++) {
        n_used += l1->entries[i] != 0;
        n_bad += l1->entries[i] != 0 &&
                 ((l1->entries[i] & Q2_L1_RESERVED) ||
                  !q2_is_aligned(l1->entries[i] & Q2_OFFSET_MASK, s->cluster_size));
    }
    return n_bad * 2 <= n_used;
}

// An active entry without the COPIED flag that names a cluster of refcount one: nobody
// writes such an entry.
static int entry_lies(struct q2_scan *s, uint64_t offset, bool *lies,
                      struct q2_error *err)
{
    const struct q2_scan_l1 *active = &s->l1s[0];
    uint64_t stored;
    int ret = q2_scan_stored(s, offset >> s->cluster_bits, &stored, err);
    for (uint32_t i = 0; ret == 0 && i < active->n_entries; i++)
        *lies |= active->entries[i] == offset && stored == 1;
    return ret;
}

// An active L1 entry names the place of this table as an L2 table's. Entries that name L2
// tables of the active state say that it is an L1 table: then the active entry is wrong.
static int contest(struct q2_scan *s, struct q2_scan_l1 *l1, struct q2_error *err)
{
    uint64_t first = l1->offset >> s->cluster_bits, n_tables = 0;
    uint64_t n_bytes = (uint64_t)l1->n_entries * 8;
    if (n_bytes > Q2_MAX_L1_BYTES || !q2_is_aligned(l1->offset, s->cluster_size) ||
        !q2_scan_in_file(s, l1->offset, n_bytes) ||
        q2_counters_get(s->tables, first) == 0)
        return 0;
    int ret = read_l1(s, l1, err);
    for (uint32_t i = 0; ret == 0 && i < l1->n_entries; i++) {
        uint64_t cluster = (l1->entries[i] & Q2_OFFSET_MASK) >> s->cluster_bits;
        n_tables += cluster != first && q2_counters_get(s->tables, cluster) > 0;
    }
    free(l1->entries);
    l1->entries = NULL;
    bool lies = false;
    if (ret == 0 && n_tables == 0)
        ret = entry_lies(s, l1->offset, &lies, err);
    if (ret < 0)
        return ret;
    // Not sure: the scan tries both.
    if (n_tables == 0 && !lies)
        s->contested = s->contested ? s->contested : first;
    return n_tables == 0 && !lies ? 0 : q2_scan_preclaim(s, first, err);
}

// L1 tables that lie apart from each other are no longer than the file; so much more may
// be read for what is wrong. 65536 snapshots of one table are not worth 65536 times its
// cost.
static bool take_room(struct q2_scan *s, const struct q2_scan_l1 *l1)
{
    uint64_t n_bytes = (uint64_t)l1->n_entries * 8;
    uint64_t room = s->file_size + Q2_MAX_L1_BYTES;
    if (s->l1_bytes_read > room || n_bytes > room - s->l1_bytes_read)
        return false;
    s->l1_bytes_read += n_bytes;
    return true;
}

static int load_snapshot_l1(struct q2_scan *s, unsigned index, struct q2_scan_l1 *l1,
                            struct q2_error *err)
{
    const struct q2_snapshot *sn = &s->snapshots[index];
    *l1 = (struct q2_scan_l1){.snapshot = (int)index,
                              .name = sn->name,
                              .offset = sn->l1_table_offset,
                              .n_entries = sn->l1_size,
                              .disk_size =
                                  sn->has_disk_size ? sn->disk_size : s->header.size};
    if (q2_scan_is_blank(sn))
        return 0;
    int ret = q2_scan_mend_l1_size(s, index, usable(s, l1), err);
    if (ret < 0)
        return ret;
    l1->n_entries = sn->l1_size;
    uint64_t n_bytes = (uint64_t)l1->n_entries * 8;
    if (n_bytes == 0)
        return 0;
    if (s->disbelieved != index + 1 && take_room(s, l1))
        ret = usable(s, l1) ? read_l1(s, l1, err) : contest(s, l1, err);
    if (ret < 0)
        return ret;
    if (!l1->entries || !reads_like_l1(s, l1)) {
        free(l1->entries);
        l1->entries = NULL;
        report_l1(s, l1);
        return 0;
    }
    ret = q2_scan_claim(s, l1->offset, n_bytes, err);
    return ret < 0 ? ret : q2_scan_reference(s, l1->offset, n_bytes, 1, err);
}

int q2_scan_snapshot_tables(struct q2_scan *s, struct q2_error *err)
{
    struct q2_scan_l1 *l1s = realloc(s->l1s, (s->n_snapshots + 1) * sizeof(*l1s));
    if (!l1s)
        return q2_fail_memory(err, (s->n_snapshots + 1) * sizeof(*l1s));
    s->l1s = l1s;
    int ret = 0;
    if (s->n_snapshots > 0)
        ret = q2_scan_claim(s, s->header.snapshots_offset, s->snapshot_table_bytes, err);
    for (unsigned i = 0; i < s->n_snapshots && ret == 0; i++)
        ret = load_snapshot_l1(s, i, &s->l1s[s->n_l1s++], err);
    return ret;
}

// The active L1 table that the file's end has cut: the guest's disk from there on is
// lost.
static void report_cut(struct q2_scan *s, uint64_t offset, uint64_t n_bytes)
{
    uint64_t span_bits = s->l2_bits + s->cluster_bits;
    uint64_t there = offset < s->file_size ? (s->file_size - offset) / 8 : 0;
    uint64_t first = there << span_bits;
    if (first >= s->header.size) { // its size is wrong
        q2_scan_report(s, &s->findings,
                       &(struct q2_finding){.problem = Q2_PROBLEM_REFERENCE_OUTSIDE,
                                            .has = Q2_HAS_OFFSET | Q2_HAS_SIZE,
                                            .offset = offset,
                                            .size = n_bytes});
        return;
    }
    q2_scan_report(s, &s->findings,
                   &(struct q2_finding){.problem = Q2_PROBLEM_ACTIVE_L1_CUT,
                                        .has = Q2_HAS_OFFSET | Q2_HAS_SIZE |
                                               Q2_HAS_SNAPSHOT | Q2_HAS_GUEST,
                                        .offset = offset,
                                        .size = n_bytes,
                                        .snapshot = -1,
                                        .snapshot_name = "",
                                        .guest_offset = first,
                                        .guest_bytes = s->header.size - first,
                                        .lossy = true});
}

// The active state's tables are known before anything that a snapshot says.
static int claim_active_tables(struct q2_scan *s, struct q2_error *err)
{
    const struct q2_scan_l1 *active = &s->l1s[0];
    int ret = 0;
    for (uint32_t i = 0; i < active->n_entries && ret == 0; i++) {
        if (active->entries[i] != 0 &&
            q2_scan_judge_l1(s, active->entries[i]) == Q2_N_PROBLEMS)
            ret = q2_scan_claim_table(s, active->entries[i] & Q2_OFFSET_MASK, err);
    }
    return ret;
}

static int claim_header(struct q2_scan *s, uint64_t l1_bytes, struct q2_error *err)
{
    int ret = q2_scan_claim(s, 0, s->cluster_size, err);
    if (ret == 0)
        ret = q2_scan_reference(s, 0, s->cluster_size, 1, err);
    if (ret == 0)
        ret = q2_scan_claim(s, s->header.l1_table_offset, l1_bytes, err);
    for (size_t i = 0; i < s->n_preclaimed && ret == 0; i++)
        ret = q2_scan_claim(s, s->preclaimed[i] << s->cluster_bits, 1, err);
    return ret;
}

int q2_scan_active(struct q2_scan *s, struct q2_error *err)
{
    const struct q2_header *h = &s->header;
    uint64_t l1_bytes = (uint64_t)h->l1_size * 8;
    s->l1s = calloc(1, sizeof(*s->l1s));
    if (!s->l1s)
        return q2_fail_memory(err, sizeof(*s->l1s));
    struct q2_scan_l1 *active = &s->l1s[s->n_l1s++];
    *active = (struct q2_scan_l1){.snapshot = -1,
                                  .name = "",
                                  .offset = h->l1_table_offset,
                                  .n_entries = h->l1_size,
                                  .disk_size = h->size};
    int ret = claim_header(s, l1_bytes, err);
    if (ret == 0)
        ret = q2_scan_crypto(s, err);
    if (ret == 0 && l1_bytes > 0 && h->l1_table_offset + l1_bytes > s->file_size)
        report_cut(s, h->l1_table_offset, l1_bytes);
    if (ret == 0 && q2_scan_in_file(s, h->l1_table_offset, l1_bytes))
        ret = q2_scan_reference(s, h->l1_table_offset, l1_bytes, 1, err);
    if (ret == 0)
        ret = read_l1(s, active, err);
    return ret < 0 ? ret : claim_active_tables(s, err);
}
