// SPDX-License-Identifier: MIT
// What the header names: its own cluster and the L1 tables.
#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "check/scan.h"

// Reads an L1 table; what lies beyond the end of the file reads as zeros.
static int read_l1(struct q2_scan *s, struct q2_scan_l1 *l1, struct q2_error *err)
{
    size_t n_bytes = (size_t)l1->n_entries * 8;
    // Memory follows the file: a table beyond its end has no entries.
    if (l1->offset >= s->file_size)
        n_bytes = 0;
    else
        n_bytes = (size_t)q2_min_u64(n_bytes, q2_align_up(s->file_size - l1->offset, 8));
    l1->entries = calloc(q2_max_u64(n_bytes / 8, 1), 8);
    if (!l1->entries)
        return q2_fail_memory(err, n_bytes);
    int ret = q2_io_read(s->io, l1->offset, l1->entries, n_bytes, err);
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

// A snapshot's L1 table must lie in the file, apart from what the active state owns.
static bool usable(const struct q2_scan *s, const struct q2_scan_l1 *l1)
{
    uint64_t n_bytes = (uint64_t)l1->n_entries * 8;
    return n_bytes <= Q2_MAX_L1_BYTES && q2_is_aligned(l1->offset, s->cluster_size) &&
           l1->offset != 0 && q2_scan_in_file(s, l1->offset, n_bytes) &&
           !q2_scan_is_metadata(s, l1->offset, n_bytes);
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
    if (l1->n_entries == 0)
        return 0;
    if (!usable(s, l1)) {
        report_l1(s, l1);
        return 0;
    }
    uint64_t n_bytes = (uint64_t)l1->n_entries * 8;
    int ret = q2_scan_claim(s, l1->offset, n_bytes, err);
    if (ret == 0)
        ret = q2_scan_reference(s, l1->offset, n_bytes, 1, err);
    return ret < 0 ? ret : read_l1(s, l1, err);
}

int q2_scan_tables(struct q2_scan *s, struct q2_error *err)
{
    const struct q2_header *h = &s->header;
    s->l1s = calloc(s->n_snapshots + 1, sizeof(*s->l1s));
    if (!s->l1s)
        return q2_fail_memory(err, (s->n_snapshots + 1) * sizeof(*s->l1s));
    struct q2_scan_l1 *active = &s->l1s[s->n_l1s++];
    *active = (struct q2_scan_l1){.snapshot = -1,
                                  .name = "",
                                  .offset = h->l1_table_offset,
                                  .n_entries = h->l1_size,
                                  .disk_size = h->size};
    uint64_t l1_bytes = (uint64_t)h->l1_size * 8;
    int ret = q2_scan_claim(s, 0, s->cluster_size, err);
    if (ret == 0)
        ret = q2_scan_reference(s, 0, s->cluster_size, 1, err);
    if (ret == 0)
        ret = q2_scan_claim(s, h->l1_table_offset, l1_bytes, err);
    if (ret == 0)
        ret = q2_scan_reference(s, h->l1_table_offset, l1_bytes, 1, err);
    if (ret == 0)
        ret = read_l1(s, active, err);
    if (ret == 0 && s->n_snapshots > 0)
        ret = q2_scan_claim(s, h->snapshots_offset, s->snapshot_table_bytes, err);
    for (size_t i = 0; i < s->n_preclaimed && ret == 0; i++)
        ret = q2_scan_claim(s, s->preclaimed[i] << s->cluster_bits, 1, err);
    for (unsigned i = 0; i < s->n_snapshots && ret == 0; i++)
        ret = load_snapshot_l1(s, i, &s->l1s[s->n_l1s++], err);
    return ret;
}
