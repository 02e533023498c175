// SPDX-License-Identifier: MIT
// Reference counts of host clusters: the refcount table and its blocks (qcow2 format:
// "Host cluster management").
#include "image/image.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "image/overlap.h"

// Host offsets must fit in the offset field of a table entry.
#define MAX_HOST_BITS 56U

int q2_refcount_load_table(struct q2_image *img, struct q2_error *err)
{
    if (img->refcount_table)
        return 0;
    size_t n_bytes = (size_t)img->header.refcount_table_clusters << img->cluster_bits;
    uint64_t *table = malloc(n_bytes);
    if (!table)
        return q2_fail_memory(err, n_bytes);
    int ret = q2_io_read(img->disk.file, img->header.refcount_table_offset, table,
                         n_bytes, err);
    if (ret < 0) {
        free(table);
        return q2_context(err, "Could not read the refcount table");
    }
    q2_table_decode(table, table, n_bytes / 8);
    img->refcount_table = table;
    img->refcount_table_size = n_bytes / 8;
    return 0;
}

int q2_refcount_block(struct q2_image *img, uint64_t cluster, struct q2_table **out,
                      struct q2_error *err)
{
    uint64_t index = cluster >> q2_refcount_block_bits(img);
    *out = NULL;
    if (index >= img->refcount_table_size || img->refcount_table[index] == 0)
        return 0;
    uint64_t offset = img->refcount_table[index];
    if (!q2_is_aligned(offset, img->cluster_size) || (offset & ~Q2_OFFSET_MASK) != 0)
        return q2_fail(err, -EIO,
                       "'%s': refcount table entry %" PRIu64 ": block offset 0x%" PRIx64
                       " is not a cluster's offset",
                       img->disk.path, index, offset);
    return q2_cache_get(img->refcount_cache, img->disk.file, offset, "refcount block",
                        out, err);
}

int q2_refcount_get(struct q2_image *img, uint64_t cluster, uint64_t *value,
                    struct q2_error *err)
{
    struct q2_table *t;
    int ret = q2_refcount_block(img, cluster, &t, err);
    if (ret < 0)
        return ret;
    uint64_t mask = (UINT64_C(1) << q2_refcount_block_bits(img)) - 1;
    *value = t ? img->refcounts->get(t->data, cluster & mask) : 0;
    return 0;
}

// The block that describes cluster, which must be there, and how many of the n clusters
// from it on it describes.
static int block_for_update(struct q2_image *img, uint64_t cluster, uint64_t n,
                            struct q2_table **out, uint64_t *index, uint64_t *n_here,
                            struct q2_error *err)
{
    uint64_t per_block = UINT64_C(1) << q2_refcount_block_bits(img);
    struct q2_table *t;
    int ret = q2_refcount_block(img, cluster, &t, err);
    if (ret != 0)
        return ret;
    if (!t)
        return q2_fail(err, -EIO, "'%s': host cluster %" PRIu64 " has no refcount block",
                       img->disk.path, cluster);
    ret = q2_overlap_check(img, Q2_OVERLAP_REFCOUNT_BLOCK, t->host_offset,
                           img->cluster_size, err);
    if (ret != 0)
        return ret;
    *out = t;
    *index = cluster & (per_block - 1);
    *n_here = q2_min_u64(n, per_block - *index);
    uint64_t from = (*index << img->refcounts->order) / 8;
    uint64_t end = q2_div_round_up((*index + *n_here) << img->refcounts->order, 8);
    q2_cache_mark_range(img->refcount_cache, t, from, end - from);
    return 0;
}

// Whoever takes them next has them alone: no compressed data goes behind what was there.
static void clusters_freed(struct q2_image *img, uint64_t cluster, uint64_t n)
{
    uint64_t packed = img->compressed_next >> img->cluster_bits;
    if (cluster < img->free_hint)
        img->free_hint = cluster;
    if (packed >= cluster && packed - cluster < n)
        img->compressed_next = 0;
}

// n entries that are alike.
static int add_run(struct q2_image *img, void *block, uint64_t index, uint64_t n,
                   int delta, uint64_t cluster, struct q2_error *err)
{
    uint64_t value = img->refcounts->get(block, index);
    if (delta > 0 ? value == img->refcounts->max : value == 0)
        return q2_fail(
            err, -EINVAL,
            "'%s': refcount of host cluster %" PRIu64 " is %" PRIu64 " and cannot be %s",
            img->disk.path, cluster, value, delta > 0 ? "raised further" : "lowered");
    value = delta > 0 ? value + 1 : value - 1;
    q2_refcount_fill(img->refcounts, block, index, n, value);
    if (value == 0)
        clusters_freed(img, cluster, n);
    return 0;
}

int q2_refcount_add(struct q2_image *img, uint64_t cluster, uint64_t n, int delta,
                    struct q2_error *err)
{
    while (n > 0) {
        struct q2_table *t;
        uint64_t index, n_here;
        int ret = block_for_update(img, cluster, n, &t, &index, &n_here, err);
        for (uint64_t i = 0, run; ret == 0 && i < n_here; i += run) {
            run =
                q2_refcount_run_end(img->refcounts, t->data, index + i, index + n_here) -
                (index + i);
            ret = add_run(img, t->data, index + i, run, delta, cluster + i, err);
        }
        if (ret != 0)
            return ret;
        cluster += n_here;
        n -= n_here;
    }
    return 0;
}

int q2_refcount_take(struct q2_image *img, uint64_t cluster, uint64_t n,
                     struct q2_error *err)
{
    while (n > 0) {
        struct q2_table *t;
        uint64_t index, n_here;
        int ret = block_for_update(img, cluster, n, &t, &index, &n_here, err);
        if (ret != 0)
            return ret;
        q2_refcount_fill(img->refcounts, t->data, index, n_here, 1);
        cluster += n_here;
        n -= n_here;
    }
    return 0;
}

// A new block in host cluster `cluster` for entry index, which has room in memory.
static int new_block(struct q2_image *img, uint64_t index, uint64_t cluster,
                     struct q2_error *err)
{
    struct q2_table *t;
    uint64_t host_offset = cluster << img->cluster_bits;
    int ret = q2_overlap_add(img, Q2_OVERLAP_REFCOUNT_BLOCK, host_offset, err);
    if (ret == 0)
        ret = q2_cache_add(img->refcount_cache, host_offset, &t, err);
    if (ret < 0) {
        q2_overlap_remove(img, Q2_OVERLAP_REFCOUNT_BLOCK, host_offset);
        return ret;
    }
    img->refcount_table[index] = host_offset;
    return 0;
}

static void forget_block(struct q2_image *img, uint64_t index)
{
    uint64_t host_offset = img->refcount_table[index];
    q2_cache_drop(img->refcount_cache, host_offset);
    q2_overlap_remove(img, Q2_OVERLAP_REFCOUNT_BLOCK, host_offset);
    img->refcount_table[index] = 0;
}

int q2_refcount_drop_block(struct q2_image *img, uint64_t index, bool *dropped,
                           struct q2_error *err)
{
    const struct q2_refcount_format *f = img->refcounts;
    uint64_t n = UINT64_C(1) << q2_refcount_block_bits(img), first = index * n;
    struct q2_table *t;
    int ret = q2_refcount_block(img, first, &t, err);
    *dropped = false;
    if (ret < 0 || !t)
        return ret;
    uint64_t used = q2_refcount_next_used(f, t->data, 0, n);
    // One that does not describe itself may be anything that is all zeros.
    if (used == n || first + used != t->host_offset >> img->cluster_bits ||
        f->get(t->data, used) != 1 || q2_refcount_next_used(f, t->data, used + 1, n) < n)
        return 0;
    forget_block(img, index);
    q2_span_add(&img->refcount_table_dirty, index);
    *dropped = true;
    return 0;
}

static void place_used(struct q2_image *img, uint64_t end_cluster)
{
    uint64_t end = end_cluster << img->cluster_bits;
    img->data_end = q2_max_u64(img->data_end, end);
    img->fresh_from = q2_max_u64(img->fresh_from, end);
}

// Where a larger table and the blocks for its own place go.
struct growth {
    uint64_t at; // first host cluster: blocks first, then the table
    uint64_t first_block, n_blocks;
    uint64_t n_clusters, n_entries; // of the table
};

// Room in memory for the table's new entries, and the new blocks in it. The table's size
// does not change yet: all of this can be forgotten.
static int prepare_growth(struct q2_image *img, const struct growth *g,
                          struct q2_error *err)
{
    uint64_t *table = realloc(img->refcount_table, q2_to_size(g->n_entries * 8));
    if (!table)
        return q2_fail_memory(err, g->n_entries * 8);
    memset(table + img->refcount_table_size, 0,
           q2_to_size((g->n_entries - img->refcount_table_size) * 8));
    img->refcount_table = table;
    for (uint64_t i = 0; i < g->n_blocks; i++) {
        int ret = new_block(img, g->first_block + i, g->at + i, err);
        if (ret < 0) {
            while (i-- > 0)
                forget_block(img, g->first_block + i);
            return ret;
        }
    }
    return 0;
}

// Remembers the place that the file's header still names as the table's.
static void remember_old_table(struct q2_image *img)
{
    if (img->refcount_table_moved)
        return;
    img->old_refcount_table_offset = img->header.refcount_table_offset;
    img->old_refcount_table_clusters = img->header.refcount_table_clusters;
    img->refcount_table_moved = true;
}

// The new place is at the start of the first range that the old table could not describe
// (nothing is in use there) and not before host cluster `beyond`.
static int plan_growth(const struct q2_image *img, uint64_t index, uint64_t beyond,
                       struct growth *g, struct q2_error *err)
{
    unsigned block_bits = q2_refcount_block_bits(img);
    uint64_t per_table_cluster = img->cluster_size / 8;
    // Half of it to spare, as far as the format allows.
    uint64_t wanted = q2_min_u64(index + index / 2 + 1, Q2_MAX_REFCOUNT_TABLE_BYTES / 8);
    g->first_block = q2_max_u64(q2_max_u64(img->refcount_table_size, index),
                                q2_div_round_up(beyond, UINT64_C(1) << block_bits));
    g->at = g->first_block << block_bits;
    g->n_blocks = 0;
    do {
        g->n_blocks++;
        wanted = q2_max_u64(wanted, g->first_block + g->n_blocks);
        g->n_clusters = q2_div_round_up(wanted, per_table_cluster);
        g->n_entries = g->n_clusters * per_table_cluster;
    } while ((g->n_blocks << block_bits) < g->n_blocks + g->n_clusters);
    if (g->n_entries * 8 > Q2_MAX_REFCOUNT_TABLE_BYTES)
        return q2_fail(err, -EFBIG, "'%s': the refcount table would grow beyond %u bytes",
                       img->disk.path, Q2_MAX_REFCOUNT_TABLE_BYTES);
    return 0;
}

// Grows the table so that it has an entry for `index`.
static int grow_table(struct q2_image *img, uint64_t index, uint64_t beyond,
                      struct q2_error *err)
{
    struct growth g;
    int ret = plan_growth(img, index, beyond, &g, err);
    if (ret == 0)
        ret = q2_overlap_check(img, 0, g.at << img->cluster_bits,
                               (g.n_blocks + g.n_clusters) << img->cluster_bits, err);
    if (ret == 0)
        ret = prepare_growth(img, &g, err);
    if (ret < 0)
        return ret;
    bool moved_before = img->refcount_table_moved;
    uint64_t left_offset = img->header.refcount_table_offset;
    uint32_t left_clusters = img->header.refcount_table_clusters;
    remember_old_table(img);
    img->refcount_table_size = g.n_entries;
    img->header.refcount_table_offset = (g.at + g.n_blocks) << img->cluster_bits;
    img->header.refcount_table_clusters = (uint32_t)g.n_clusters;
    place_used(img, g.at + g.n_blocks + g.n_clusters);
    // The blocks for it are new and in memory.
    ret = q2_refcount_take(img, g.at, g.n_blocks + g.n_clusters, err);
    // A table that has moved twice before a commit leaves its first new place at once.
    if (ret == 0 && moved_before)
        ret = q2_refcount_add(img, left_offset >> img->cluster_bits, left_clusters, -1,
                              err);
    return ret;
}

// Makes one missing block, or the block of the cluster that a missing one is put into.
static int add_some_block(struct q2_image *img, uint64_t index, uint64_t avoid,
                          uint64_t n_avoid, struct q2_error *err)
{
    unsigned block_bits = q2_refcount_block_bits(img);
    uint64_t cluster;
    int ret =
        q2_alloc_find(img, q2_max_u64(img->free_hint, 1), avoid, n_avoid, &cluster, err);
    if (ret < 0)
        return ret;
    uint64_t own = cluster >> block_bits;
    if (own >= img->refcount_table_size)
        return grow_table(img, own, avoid + n_avoid, err);
    if (img->refcount_table[own] == 0)
        index = own; // describes itself
    ret = q2_overlap_check(img, 0, cluster << img->cluster_bits, img->cluster_size, err);
    if (ret == 0)
        ret = new_block(img, index, cluster, err);
    if (ret < 0)
        return ret;
    ret = q2_refcount_take(img, cluster, 1, err);
    if (ret < 0) {
        forget_block(img, index);
        return ret;
    }
    q2_span_add(&img->refcount_table_dirty, index);
    place_used(img, cluster + 1);
    return 0;
}

static int check_host_limit(const struct q2_image *img, uint64_t end_cluster,
                            struct q2_error *err)
{
    if (end_cluster <= UINT64_C(1) << (MAX_HOST_BITS - img->cluster_bits))
        return 0;
    return q2_fail(err, -EFBIG, "'%s': no host offset is left below 2^%u", img->disk.path,
                   MAX_HOST_BITS);
}

int q2_refcount_add_block(struct q2_image *img, uint64_t cluster, struct q2_error *err)
{
    uint64_t index = cluster >> q2_refcount_block_bits(img);
    int ret = check_host_limit(img, cluster + 1, err);
    if (ret < 0)
        return ret;
    if (index >= img->refcount_table_size)
        return grow_table(img, index, 0, err);
    return add_some_block(img, index, 0, 0, err);
}

int q2_refcount_cover(struct q2_image *img, uint64_t cluster, uint64_t n,
                      struct q2_error *err)
{
    unsigned block_bits = q2_refcount_block_bits(img);
    uint64_t last = (cluster + n - 1) >> block_bits;
    int ret = check_host_limit(img, cluster + n, err);
    if (ret < 0)
        return ret;
    for (uint64_t index = cluster >> block_bits; index <= last;) {
        if (index >= img->refcount_table_size)
            ret = grow_table(img, last, cluster + n, err);
        else if (img->refcount_table[index] == 0)
            ret = add_some_block(img, index, cluster, n, err);
        else
            index++;
        if (ret < 0)
            return ret;
    }
    return 0;
}
