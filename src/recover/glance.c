// SPDX-License-Identifier: MIT
// The first clusters of an image are nearly always the header, the refcount table, its
// first block and the L1 table, in this order: what is left of them when the header is
// gone.
#include "recover/glance.h"

#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "disk/entry.h"
#include "disk/refcount.h"
#include "recover/layout.h"

// So much of a table is looked at.
#define LOOK_BYTES 4096U
// Among so many first clusters tables are looked for.
#define FIRST_CLUSTERS 8U
// So many entries make a table.
#define MIN_ENTRIES 4U

struct look {
    struct q2_io *io;
    uint64_t file_size;
    unsigned cluster_bits;
    uint8_t buf[LOOK_BYTES];
};

static bool is_place(const struct look *l, uint64_t offset)
{
    return offset != 0 && offset < l->file_size &&
           q2_is_aligned(offset, UINT64_C(1) << l->cluster_bits);
}

// Does the block count the header, the table at offset table and itself once each, and
// nothing behind the end of the file?
static bool counts_itself(const struct look *l, uint64_t table, uint64_t block,
                          unsigned order)
{
    const struct q2_refcount_format *f = q2_refcount_format(order);
    uint64_t n = q2_min_u64(LOOK_BYTES, UINT64_C(1) << l->cluster_bits) * 8 >> order;
    uint64_t used = q2_div_round_up(l->file_size, UINT64_C(1) << l->cluster_bits);
    const uint64_t of[] = {0, table >> l->cluster_bits, block >> l->cluster_bits};
    for (size_t i = 0; i < sizeof(of) / sizeof(of[0]); i++) {
        if (of[i] >= n || f->get(l->buf, of[i]) != 1)
            return false;
    }
    return used >= n || q2_refcount_next_used(f, l->buf, used, n) == n;
}

static int look_for_counts(struct look *l, uint64_t table, bool *yes,
                           struct q2_error *err)
{
    uint8_t word[8];
    int ret = q2_io_read(l->io, table, word, sizeof(word), err);
    uint64_t block = q2_load_be64(word);
    if (ret < 0 || !is_place(l, block) || block == table)
        return ret;
    ret = q2_io_read(l->io, block, l->buf, LOOK_BYTES, err);
    for (unsigned order = 0; order <= Q2_MAX_REFCOUNT_ORDER && ret == 0 && !*yes; order++)
        *yes = counts_itself(l, table, block, order);
    return ret;
}

// Entries that lead to clusters of their own, with the COPIED flag, in words first, first
// + step ...; 0: other things are among them. *to: where the first one leads.
static unsigned count_entries(const struct look *l, size_t step, uint64_t *to)
{
    size_t n_bytes = (size_t)q2_min_u64(LOOK_BYTES, UINT64_C(1) << l->cluster_bits);
    unsigned n = 0;
    uint64_t last = 0;
    for (size_t i = 0; i < n_bytes; i += 8 * step) {
        uint64_t entry = q2_load_be64(l->buf + i), offset = entry & Q2_OFFSET_MASK;
        if (entry == 0)
            continue;
        if (entry != (offset | Q2_FLAG_COPIED) || !is_place(l, offset) || offset == last)
            return 0;
        if (n++ == 0)
            *to = offset;
        last = offset;
    }
    return n;
}

// Does an L2 table lie there, or an L1 table, which leads to one?
static int look_for_entries(struct look *l, uint64_t table, bool *yes,
                            struct q2_error *err)
{
    uint64_t to = 0, ignored;
    int ret = q2_io_read(l->io, table, l->buf, LOOK_BYTES, err);
    if (ret < 0)
        return ret;
    unsigned n = count_entries(l, 1, &to);
    *yes = n >= MIN_ENTRIES || count_entries(l, 2, &ignored) >= MIN_ENTRIES;
    if (*yes || n == 0 || to == table)
        return 0;
    ret = q2_io_read(l->io, to, l->buf, LOOK_BYTES, err);
    *yes = ret == 0 && (count_entries(l, 1, &ignored) > 0 ||
                        count_entries(l, 2, &ignored) >= MIN_ENTRIES);
    return ret;
}

// Of this cluster size.
static int look_at(struct look *l, const struct q2_hints *h, bool *yes,
                   struct q2_error *err)
{
    uint64_t cluster_size = UINT64_C(1) << l->cluster_bits;
    int ret = 0;
    if (is_place(l, cluster_size))
        ret = look_for_counts(l, cluster_size, yes, err);
    if (ret == 0 && !*yes && h->has_refcounts && is_place(l, h->refcount_table_offset))
        ret = look_for_counts(l, h->refcount_table_offset, yes, err);
    for (uint64_t i = 1; i <= FIRST_CLUSTERS && ret == 0 && !*yes; i++) {
        if (is_place(l, i * cluster_size))
            ret = look_for_entries(l, i * cluster_size, yes, err);
    }
    if (ret == 0 && !*yes && h->has_l1 && is_place(l, h->l1_table_offset))
        ret = look_for_entries(l, h->l1_table_offset, yes, err);
    return ret;
}

// An archive may have an image in it, tables and all, that is not the file.
static int is_archive(struct look *l, bool *yes, struct q2_error *err)
{
    int ret = q2_io_read(l->io, 0, l->buf, Q2_SURVEY_BLOCK, err);
    *yes = ret == 0 && memcmp(l->buf + 257, "ustar", 5) == 0;
    return ret;
}

int q2_recover_glance(struct q2_io *io, bool *lost, struct q2_error *err)
{
    uint8_t header[Q2_HEADER_V3_BYTES];
    struct look l = {.io = io};
    struct q2_hints h;
    *lost = false;
    int ret = q2_io_get_size(io, &l.file_size, err);
    if (ret == 0)
        ret = q2_io_read(io, 0, header, sizeof(header), err);
    if (ret < 0)
        return ret;
    q2_hints_read(header, l.file_size, &h);
    bool archive;
    ret = is_archive(&l, &archive, err);
    if (ret < 0 || archive ||
        (h.has_magic && h.has_version && h.has_cluster_bits && h.has_l1 &&
         h.has_refcounts))
        return ret;
    for (l.cluster_bits = Q2_MIN_CLUSTER_BITS;
         l.cluster_bits <= Q2_MAX_CLUSTER_BITS && ret == 0 && !*lost; l.cluster_bits++)
        ret = look_at(&l, &h, lost, err);
    return ret;
}
