// SPDX-License-Identifier: MIT
// Finding host clusters. What is free is what has no reference; a range that no refcount
// block describes yet is free.
#include "image/image.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/checked.h"
#include "image/overlap.h"

// First free cluster at or after `from`; a block is looked at as a whole.
static int next_free(struct q2_image *img, uint64_t from, uint64_t *cluster,
                     struct q2_error *err)
{
    unsigned block_bits = q2_refcount_block_bits(img);
    uint64_t per_block = UINT64_C(1) << block_bits;
    for (;;) {
        struct q2_table *t;
        int ret = q2_refcount_block(img, from, &t, err);
        if (ret < 0)
            return ret;
        if (!t)
            break;
        uint64_t base = from & ~(per_block - 1);
        uint64_t found =
            q2_refcount_next_zero(img->refcounts, t->data, from - base, per_block);
        from = base + found;
        if (found < per_block)
            break;
        if (q2_cache_full(img->refcount_cache))
            q2_cache_trim(img->refcount_cache); // t is not used again
    }
    *cluster = from;
    return 0;
}

// How many of the n clusters from start on are free; looks no further than one block
// unless all.
static int count_free(struct q2_image *img, uint64_t start, uint64_t n, uint64_t *n_free,
                      struct q2_error *err)
{
    uint64_t per_block = UINT64_C(1) << q2_refcount_block_bits(img);
    uint64_t done = 0;
    while (done < n) {
        struct q2_table *t;
        uint64_t index = (start + done) & (per_block - 1);
        uint64_t here = q2_min_u64(n - done, per_block - index);
        int ret = q2_refcount_block(img, start + done, &t, err);
        if (ret < 0)
            return ret;
        uint64_t end = index + here;
        if (t)
            end = q2_refcount_next_used(img->refcounts, t->data, index, index + here);
        done += end - index;
        if (end < index + here)
            break;
    }
    *n_free = done;
    return 0;
}

int q2_alloc_find(struct q2_image *img, uint64_t from, uint64_t avoid, uint64_t n_avoid,
                  uint64_t *cluster, struct q2_error *err)
{
    for (;;) {
        int ret = next_free(img, from, cluster, err);
        if (ret < 0)
            return ret;
        if (*cluster < avoid || *cluster >= avoid + n_avoid)
            return 0;
        from = avoid + n_avoid;
    }
}

static int take(struct q2_image *img, uint64_t start, uint64_t n, const char *what,
                struct q2_error *err)
{
    uint64_t from = start << img->cluster_bits, to = (start + n) << img->cluster_bits;
    if (start == 0)
        return q2_overlap_corrupt(
            img, err, "Preventing invalid allocation of %s at offset 0", what);
    // A refcount that calls a cluster of metadata free is wrong.
    int ret = q2_overlap_check(img, 0, from, to - from, err);
    if (ret == 0)
        ret = q2_refcount_take(img, start, n, err);
    if (ret < 0)
        return ret;
    if (start <= img->free_hint)
        img->free_hint = start + n;
    img->fresh_from = q2_max_u64(img->fresh_from, to);
    img->data_end = q2_max_u64(img->data_end, to);
    return 0;
}

// Cuts a free run where its nature changes: at the end of a block whose successor is
// missing (its first cluster shall hold that block), and where fresh space begins.
static uint64_t cut_run(const struct q2_image *img, uint64_t start, uint64_t n)
{
    unsigned block_bits = q2_refcount_block_bits(img);
    uint64_t last = (start + n - 1) >> block_bits;
    for (uint64_t i = (start >> block_bits) + 1; i <= last; i++) {
        if (i >= img->refcount_table_size || img->refcount_table[i] == 0)
            n = (i << block_bits) - start;
    }
    uint64_t fresh = q2_div_round_up(img->fresh_from, img->cluster_size);
    if (start < fresh && start + n > fresh)
        n = fresh - start;
    return n;
}

int q2_alloc_run(struct q2_image *img, uint64_t n, const char *what,
                 uint64_t *host_offset, uint64_t *n_got, bool *fresh,
                 struct q2_error *err)
{
    uint64_t start, n_free;
    for (;;) {
        int ret = next_free(img, img->free_hint, &start, err);
        if (ret < 0)
            return ret;
        img->free_hint = start;
        struct q2_table *t;
        ret = q2_refcount_block(img, start, &t, err);
        if (ret == 0 && !t) {
            // The missing block takes this very cluster; look again.
            ret = q2_refcount_add_block(img, start, err);
            if (ret == 0)
                continue;
        }
        if (ret == 0)
            ret = count_free(img, start, n, &n_free, err);
        if (ret != 0)
            return ret;
        break;
    }
    *n_got = cut_run(img, start, q2_min_u64(n, n_free));
    *host_offset = start << img->cluster_bits;
    *fresh = img->disk.file->sparse_growth && *host_offset >= img->fresh_from;
    return take(img, start, *n_got, what, err);
}

int q2_alloc_exact(struct q2_image *img, uint64_t n, const char *what,
                   uint64_t *host_offset, struct q2_error *err)
{
    if (n == 1) {
        uint64_t got;
        bool fresh;
        return q2_alloc_run(img, 1, what, host_offset, &got, &fresh, err);
    }
    uint64_t start = img->free_hint, n_free = 0;
    for (;;) {
        int ret = next_free(img, start, &start, err);
        if (ret == 0)
            ret = count_free(img, start, n, &n_free, err);
        if (ret != 0)
            return ret;
        if (n_free == n)
            break;
        start += n_free;
    }
    int ret = q2_refcount_cover(img, start, n, err);
    if (ret < 0)
        return ret;
    *host_offset = start << img->cluster_bits;
    return take(img, start, n, what, err);
}

static int share_cluster(struct q2_image *img, uint64_t at, bool *full,
                         struct q2_error *err)
{
    uint64_t cluster = at >> img->cluster_bits, count;
    int ret = q2_refcount_get(img, cluster, &count, err);
    if (ret < 0)
        return ret;
    *full = count >= img->refcounts->max;
    return *full ? 0 : q2_refcount_add(img, cluster, 1, 1, err);
}

int q2_alloc_bytes(struct q2_image *img, size_t n_bytes, uint64_t *host_offset,
                   struct q2_error *err)
{
    uint64_t at = img->compressed_next, cluster_size = img->cluster_size;
    uint64_t in_cluster = at & (cluster_size - 1);
    uint64_t room = in_cluster == 0 ? 0 : cluster_size - in_cluster;
    bool own = false; // at is in a cluster that nobody else references yet
    uint64_t fresh = 0;
    int ret;

    if (room < n_bytes) {
        ret = q2_alloc_exact(img, 1, "compressed cluster", &fresh, err);
        if (ret < 0)
            return ret;
        if (room == 0 || fresh != at + room) {
            at = fresh;
            own = true;
        }
    }
    if (!own) {
        bool full;
        ret = share_cluster(img, at, &full, err);
        if (ret == 0 && full) {
            // The count cannot rise: this one begins in a cluster of its own.
            ret = room < n_bytes
                      ? 0
                      : q2_alloc_exact(img, 1, "compressed cluster", &fresh, err);
            at = room < n_bytes ? at + room : fresh;
        }
        if (ret < 0)
            return ret;
    }
    if (at + n_bytes > q2_l2_compressed_limit(img->cluster_bits)) {
        q2_alloc_undo(img, at, n_bytes);
        return q2_fail(err, -EFBIG,
                       "'%s': compressed data cannot lie beyond host offset 0x%" PRIx64,
                       img->disk.path, q2_l2_compressed_limit(img->cluster_bits));
    }
    img->compressed_next = at + n_bytes;
    *host_offset = at;
    return 0;
}

void q2_alloc_undo(struct q2_image *img, uint64_t host_offset, uint64_t n_bytes)
{
    uint64_t first = host_offset >> img->cluster_bits;
    uint64_t last = (host_offset + n_bytes - 1) >> img->cluster_bits;
    struct q2_error ignored = Q2_ERROR_INIT; // at worst the clusters leak
    q2_refcount_add(img, first, last - first + 1, -1, &ignored);
    img->compressed_next = 0;
}
