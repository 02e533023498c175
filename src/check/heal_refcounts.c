// SPDX-License-Identifier: MIT
// Healing refcounts: in place where the structures are sound, else by building them anew
// in space that nothing references and switching with one write of the header.
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "check/repair.h"

#define HEADER_REFCOUNT_TABLE 48U // offset (8 bytes) and clusters (4)
#define HEADER_REFCOUNT_ORDER 96U

// Corrects the counts of one block; the sectors that changed are written.
static int heal_block(struct q2_plan *p, struct q2_scan *s, uint64_t first,
                      uint64_t host_offset, struct q2_table *t, bool leaks_only,
                      bool *changed, struct q2_error *err)
{
    uint64_t n = UINT64_C(1) << (s->cluster_bits + 3 - s->format->order);
    uint64_t low = UINT64_MAX, high = 0;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t stored = s->format->get(t->data, i);
        uint64_t counted = q2_counters_get(s->references, first + i);
        if (stored == counted || (leaks_only && stored < counted))
            continue;
        s->format->set(t->data, i, counted);
        uint64_t byte = (i << s->format->order) / 8;
        low = q2_min_u64(low, byte);
        high = q2_max_u64(high, byte + q2_max_u64(1, 1U << s->format->order >> 3));
    }
    if (low == UINT64_MAX)
        return 0;
    low = q2_align_down(low, 512);
    high = q2_align_up(high, 512);
    *changed = true;
    return q2_io_write(p->overlay, host_offset + low, (uint8_t *)t->data + low,
                       q2_to_size(high - low), err);
}

int q2_heal_refcounts(struct q2_plan *p, struct q2_scan *s, enum q2_repair_mode mode,
                      bool *changed, struct q2_error *err)
{
    unsigned block_bits = s->cluster_bits + 3 - s->format->order;
    bool leaks_only = mode == Q2_REPAIR_MODE_LEAKS;
    int ret = 0;
    for (uint64_t i = 0; i < s->refcount_table_size && ret == 0; i++) {
        struct q2_table *t;
        if (s->refcount_table[i] == 0)
            continue;
        ret = q2_scan_block(s, i << block_bits, &t, err);
        if (ret == 0 && t)
            ret = heal_block(p, s, i << block_bits, s->refcount_table[i] & Q2_OFFSET_MASK,
                             t, leaks_only, changed, err);
    }
    for (size_t i = 0; i < s->findings.n && ret == 0 && *changed; i++) {
        const struct q2_finding *f = &s->findings.list[i];
        if (f->problem == Q2_PROBLEM_REFCOUNT_TOO_HIGH ||
            (f->problem == Q2_PROBLEM_REFCOUNT_TOO_LOW && !leaks_only))
            ret = q2_plan_note(p, f, err);
    }
    return ret == 0 && *changed ? q2_io_flush(p->overlay, err) : ret;
}

// Notes the counts of a block, from cluster on, that nothing names.
static int note_unnamed(struct q2_plan *p, const struct q2_scan *s,
                        const struct q2_table *t, uint64_t cluster, uint64_t end,
                        struct q2_error *err)
{
    struct q2_finding f = {.problem = Q2_PROBLEM_REFCOUNT_TOO_HIGH,
                           .has = Q2_HAS_CLUSTER | Q2_HAS_REFCOUNT | Q2_HAS_REFERENCE};
    uint64_t first =
        q2_align_down(cluster, UINT64_C(1) << (s->cluster_bits + 3 - s->format->order));
    int ret = 0;
    for (uint64_t c = cluster; c <= end && ret == 0; c++) {
        bool named = c == end || q2_counters_get(s->references, c) > 0;
        uint64_t stored = named ? 0 : s->format->get(t->data, c - first);
        if (f.count > 0 && stored == f.refcount) {
            f.count++;
            continue;
        }
        if (f.count > 0)
            ret = q2_plan_note(p, &f, err);
        f.cluster = c;
        f.refcount = stored;
        f.count = stored > 0;
    }
    return ret;
}

int q2_heal_tail(struct q2_plan *p, struct q2_scan *s, struct q2_error *err)
{
    unsigned block_bits = s->cluster_bits + 3 - s->format->order;
    bool changed = false;
    int ret = 0;
    for (uint64_t i = s->file_clusters >> block_bits;
         i < s->refcount_table_size && ret == 0; i++) {
        struct q2_table *t;
        uint64_t first = i << block_bits;
        if (s->refcount_table[i] == 0)
            continue;
        ret = q2_scan_block(s, first, &t, err);
        if (ret == 0 && t)
            ret = note_unnamed(p, s, t, q2_max_u64(first, s->file_clusters),
                               first + (UINT64_C(1) << block_bits), err);
        if (ret == 0 && t)
            ret = heal_block(p, s, first, s->refcount_table[i] & Q2_OFFSET_MASK, t, true,
                             &changed, err);
    }
    return ret == 0 && changed ? q2_io_flush(p->overlay, err) : ret;
}

// What a rebuild is about to write.
struct rebuild {
    struct q2_scan *s; // references without those of the old structures
    const struct q2_refcount_format *format;
    unsigned block_bits;
    uint64_t base;    // first cluster of the new structures: blocks, then the table
    uint64_t *blocks; // indices of the blocks, ascending
    size_t n_blocks, max_blocks;
    uint64_t table_clusters;
};

// The narrowest width, at least the image's own, that holds every count.
static int choose_width(struct rebuild *b, struct q2_error *err)
{
    uint64_t at = 0, start, n, value, most = 1;
    unsigned order = b->s->header.refcount_order;
    while (q2_counters_next(b->s->references, at, &start, &n, &value)) {
        most = q2_max_u64(most, value);
        at = start + n;
    }
    while (order < Q2_MAX_REFCOUNT_ORDER && most > q2_refcount_format(order)->max)
        order++;
    if (order != b->s->header.refcount_order && b->s->header.version < 3)
        return q2_fail(err, -ERANGE,
                       "A cluster is referenced more often than a version 2 image can "
                       "count");
    b->format = q2_refcount_format(order);
    b->block_bits = b->s->cluster_bits + 3 - order;
    return 0;
}

static int add_block(struct rebuild *b, uint64_t index, struct q2_error *err)
{
    void *list = b->blocks;
    if (b->n_blocks > 0 && b->blocks[b->n_blocks - 1] >= index)
        return 0;
    int ret = q2_scan_grow(&list, &b->max_blocks, b->n_blocks, sizeof(uint64_t), err);
    if (ret < 0)
        return ret;
    b->blocks = list;
    b->blocks[b->n_blocks++] = index;
    return 0;
}

// Which blocks are needed for what is referenced.
static int list_blocks(struct rebuild *b, struct q2_error *err)
{
    uint64_t at = 0, start, n, value;
    int ret = 0;
    b->base = b->s->file_clusters;
    while (ret == 0 && q2_counters_next(b->s->references, at, &start, &n, &value)) {
        at = start + n;
        b->base = q2_max_u64(b->base, at);
        for (uint64_t i = start >> b->block_bits;
             i <= (at - 1) >> b->block_bits && ret == 0; i++)
            ret = add_block(b, i, err);
    }
    return ret;
}

// The new structures describe themselves, too: their size depends on itself.
static int lay_out(struct rebuild *b, struct q2_error *err)
{
    size_t n_before;
    uint64_t clusters_before;
    do {
        n_before = b->n_blocks;
        clusters_before = b->table_clusters;
        uint64_t end = b->base + b->n_blocks + b->table_clusters;
        for (uint64_t i = b->base >> b->block_bits; i <= (end - 1) >> b->block_bits;
             i++) {
            int ret = add_block(b, i, err);
            if (ret < 0)
                return ret;
        }
        assert(b->blocks); // the loop ran: what is laid out is not empty
        uint64_t n_entries = b->blocks[b->n_blocks - 1] + 1;
        b->table_clusters = q2_div_round_up(n_entries * 8, b->s->cluster_size);
        // Before its own clusters are counted: a reference may lead anywhere.
        if (b->table_clusters > Q2_MAX_REFCOUNT_TABLE_BYTES >> b->s->cluster_bits)
            return q2_fail(err, -EFBIG,
                           "The rebuilt refcount table would be larger than %u bytes",
                           Q2_MAX_REFCOUNT_TABLE_BYTES);
    } while (n_before != b->n_blocks || clusters_before != b->table_clusters);
    return 0;
}

static int write_blocks(struct q2_plan *p, const struct rebuild *b, struct q2_error *err)
{
    uint64_t end = b->base + b->n_blocks + b->table_clusters;
    uint32_t cluster_size = b->s->cluster_size;
    uint8_t *block = malloc(cluster_size);
    int ret = block ? 0 : q2_fail_memory(err, cluster_size);
    for (size_t k = 0; k < b->n_blocks && ret == 0; k++) {
        uint64_t first = b->blocks[k] << b->block_bits;
        uint64_t limit = first + (UINT64_C(1) << b->block_bits), at = first, start, n,
                 value;
        memset(block, 0, cluster_size);
        while (q2_counters_next(b->s->references, at, &start, &n, &value) &&
               start < limit) {
            n = q2_min_u64(n, limit - start);
            q2_refcount_fill(b->format, block, start - first, n, value);
            at = start + n;
        }
        uint64_t own = q2_max_u64(first, b->base), own_end = q2_min_u64(limit, end);
        if (own < own_end)
            q2_refcount_fill(b->format, block, own - first, own_end - own, 1);
        ret = q2_io_write(p->overlay, (b->base + k) << b->s->cluster_bits, block,
                          cluster_size, err);
    }
    free(block);
    return ret;
}

static int write_table(struct q2_plan *p, const struct rebuild *b, struct q2_error *err)
{
    size_t n_bytes = q2_to_size((uint64_t)b->table_clusters << b->s->cluster_bits);
    uint8_t *table = calloc(1, n_bytes);
    if (!table)
        return q2_fail_memory(err, n_bytes);
    for (size_t k = 0; k < b->n_blocks; k++)
        q2_store_be64(table + b->blocks[k] * 8, (b->base + k) << b->s->cluster_bits);
    int ret = q2_io_write(p->overlay, (b->base + b->n_blocks) << b->s->cluster_bits,
                          table, n_bytes, err);
    free(table);
    return ret;
}

// One sector's write after which the new structures count.
static int switch_over(struct q2_plan *p, const struct rebuild *b, struct q2_error *err)
{
    uint8_t sector[512];
    int ret = q2_io_read(p->overlay, 0, sector, sizeof(sector), err);
    if (ret < 0)
        return ret;
    q2_store_be64(sector + HEADER_REFCOUNT_TABLE, (b->base + b->n_blocks)
                                                      << b->s->cluster_bits);
    q2_store_be32(sector + HEADER_REFCOUNT_TABLE + 8, (uint32_t)b->table_clusters);
    if (b->s->header.version >= 3)
        q2_store_be32(sector + HEADER_REFCOUNT_ORDER, b->format->order);
    ret = q2_io_flush(p->overlay, err);
    if (ret == 0)
        ret = q2_edit_header(p->overlay, 0, sector, sizeof(sector), err);
    return ret < 0 ? ret : q2_io_flush(p->overlay, err);
}

int q2_heal_rebuild(struct q2_plan *p, const struct q2_monitor *mon, struct q2_error *err)
{
    struct q2_scan s;
    struct rebuild b = {.s = &s};
    int ret = q2_scan_references(&s, p->overlay, &p->bounds, mon, err);
    if (ret < 0)
        return ret;
    ret = choose_width(&b, err);
    if (ret == 0)
        ret = list_blocks(&b, err);
    if (ret == 0)
        ret = lay_out(&b, err);
    if (ret == 0)
        ret = q2_plan_appended(p, b.base << s.cluster_bits,
                               (b.n_blocks + b.table_clusters) << s.cluster_bits, err);
    if (ret == 0)
        ret = write_blocks(p, &b, err);
    if (ret == 0)
        ret = write_table(p, &b, err);
    if (ret == 0)
        ret = switch_over(p, &b, err);
    free(b.blocks);
    q2_scan_clear(&s);
    return ret;
}
