// SPDX-License-Identifier: MIT
// Zero clusters become what version 2 can say. Where nothing shows through from a backing
// file an unallocated cluster reads as zeros, too; else zeros are stored. A zero cluster
// that keeps a host cluster of its own gets zeros there.
//
// The sequence, for some tables at a time: zeros are written to host clusters that are
// new, or that entries with the zero flag hide; then refcounts; a flush; then the L2
// tables, in place; a flush; then references are dropped that no table has any more. All
// of it is sound in version 3, every entry reads as zeros before and after, and a sector
// of a table that is not written yet says what it always did.
//
// A table that n L1 entries share counts n times in the refcounts of itself and of all
// that it maps. So a host cluster whose refcount is the table's is this entry's alone.
#include "ops/amend_steps.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "image/overlap.h"

// Tables that are changed in memory before they are written.
#define BATCH_BYTES (UINT32_C(16) << 20)

// References to take away once no table on the disk has them.
struct drop {
    uint64_t cluster, count;
};

struct expansion {
    struct q2_image *img;
    bool store;         // zeros must be stored: there is a backing file
    bool plain;         // what is stored is what the guest reads: no encryption
    uint64_t n_changed; // tables
    struct drop *drops;
    size_t n_drops, max_drops;
    uint64_t zero_start, zero_bytes; // host range yet to be zeroed
};

struct search {
    uint64_t set, clear;
    uint64_t cluster_size;
    bool found;
};

// A whole table at a time, without decoding it.
static bool table_has(const uint8_t *table, uint64_t cluster_size, uint64_t set,
                      uint64_t clear)
{
    bool found = false;
    set = htobe64(set);
    clear = htobe64(clear);
    for (uint64_t at = 0; at < cluster_size; at += 8) {
        uint64_t raw;
        memcpy(&raw, table + at, sizeof(raw));
        found |= (raw & set) != 0 && (raw & clear) == 0;
    }
    return found;
}

static int search_tables(void *opaque, uint64_t host_offset, const uint8_t *tables,
                         size_t n, struct q2_error *err)
{
    struct search *s = opaque;
    (void)host_offset;
    (void)err;
    for (size_t i = 0; i < n && !s->found; i++)
        s->found =
            table_has(tables + i * s->cluster_size, s->cluster_size, s->set, s->clear);
    return 0;
}

int q2_amend_has_entry(const struct q2_amend_tables *tables, uint64_t set, uint64_t clear,
                       bool *found, struct q2_error *err)
{
    struct search s = {
        .set = set, .clear = clear, .cluster_size = tables->img->cluster_size};
    const struct q2_amend_visitor v = {.visit = search_tables, .opaque = &s};
    int ret = q2_amend_visit_tables(tables, &v, err);
    *found = s.found;
    return ret;
}

// --- zeros in the file ---------------------------------------------------------------

// Holes stay holes; what is behind the end reads as zeros anyway.
static int zero_host(struct q2_image *img, uint64_t offset, uint64_t n_bytes, bool unmap,
                     struct q2_error *err)
{
    struct q2_io *io = img->disk.file;
    uint64_t size, end = offset + n_bytes;
    int ret = q2_io_get_size(io, &size, err);
    img->data_end = q2_max_u64(img->data_end, end); // the file will reach so far
    if (ret == 0)
        end = q2_min_u64(end, size);
    while (ret == 0 && offset < end) {
        bool data;
        uint64_t here;
        ret = q2_io_extent(io, offset, &here, &data, err);
        if (ret < 0)
            break;
        here = q2_min_u64(here, end - offset);
        if (data)
            ret = q2_io_zero(io, offset, here, unmap, err);
        offset += here;
    }
    return ret;
}

static int zero_waiting(struct expansion *e, struct q2_error *err)
{
    uint64_t n_bytes = e->zero_bytes;
    e->zero_bytes = 0;
    return n_bytes > 0 ? zero_host(e->img, e->zero_start, n_bytes, false, err) : 0;
}

static int zero_later(struct expansion *e, uint64_t host_offset, struct q2_error *err)
{
    int ret = 0;
    if (host_offset != e->zero_start + e->zero_bytes)
        ret = zero_waiting(e, err);
    if (e->zero_bytes == 0)
        e->zero_start = host_offset;
    e->zero_bytes += e->img->cluster_size;
    return ret;
}

// --- references ----------------------------------------------------------------------

// Raises (or lowers) the refcounts of n clusters, which have a block, from one value to
// another.
static int set_refcounts(struct q2_image *img, uint64_t cluster, uint64_t n,
                         uint64_t count, struct q2_error *err)
{
    uint64_t per_block = UINT64_C(1) << q2_refcount_block_bits(img);
    while (n > 0) {
        struct q2_table *t;
        uint64_t index = cluster & (per_block - 1);
        uint64_t here = q2_min_u64(n, per_block - index);
        int ret = q2_refcount_block(img, cluster, &t, err);
        if (ret == 0 && !t)
            ret =
                q2_fail(err, -EIO, "'%s': host cluster %" PRIu64 " has no refcount block",
                        img->disk.path, cluster);
        if (ret == 0)
            ret = q2_overlap_check(img, Q2_OVERLAP_REFCOUNT_BLOCK, t->host_offset,
                                   img->cluster_size, err);
        if (ret < 0)
            return ret;
        q2_refcount_fill(img->refcounts, t->data, index, here, count);
        q2_cache_mark_dirty(img->refcount_cache, t);
        if (count == 0)
            img->free_hint = q2_min_u64(img->free_hint, cluster);
        cluster += here;
        n -= here;
    }
    return 0;
}

static int drop_later(struct expansion *e, uint64_t cluster, uint64_t count,
                      struct q2_error *err)
{
    if (e->n_drops == e->max_drops) {
        size_t max = e->max_drops ? e->max_drops * 2 : 64;
        struct drop *drops = realloc(e->drops, max * sizeof(*drops));
        if (!drops)
            return q2_fail_memory(err, max * sizeof(*drops));
        e->drops = drops;
        e->max_drops = max;
    }
    e->drops[e->n_drops++] = (struct drop){.cluster = cluster, .count = count};
    return 0;
}

static int drop_waiting(struct expansion *e, struct q2_error *err)
{
    int ret = e->n_drops > 0 ? q2_io_flush(e->img->disk.file, err) : 0;
    for (size_t i = 0; i < e->n_drops && ret == 0; i++) {
        const struct drop *d = &e->drops[i];
        uint64_t count;
        ret = q2_refcount_get(e->img, d->cluster, &count, err);
        // Never below what is there: at worst it leaks.
        if (ret == 0)
            ret = set_refcounts(e->img, d->cluster, 1,
                                count - q2_min_u64(count, d->count), err);
    }
    e->n_drops = 0;
    return ret;
}

static int commit(struct expansion *e, struct q2_error *err)
{
    int ret = zero_waiting(e, err);
    if (ret == 0)
        ret = q2_image_commit_all(e->img, err);
    if (ret == 0)
        ret = drop_waiting(e, err);
    if (ret == 0)
        ret = q2_image_commit_all(e->img, err);
    e->n_changed = 0;
    return ret < 0 ? ret : q2_image_trim(e->img, err);
}

// --- entries -------------------------------------------------------------------------

static bool is_plain_zero(uint64_t raw)
{
    return (raw & (Q2_FLAG_ZERO | Q2_FLAG_COMPRESSED | Q2_OFFSET_MASK)) == Q2_FLAG_ZERO;
}

// Zeros for the plain zero clusters from i on: as many as there is room for in one place.
static int store_run(struct expansion *e, uint64_t *l2, uint64_t i, uint64_t refs,
                     uint64_t *n_done, struct q2_error *err)
{
    struct q2_image *img = e->img;
    uint64_t n = 1, offset;
    bool fresh;
    while (i + n < q2_image_l2_entries(img) && is_plain_zero(l2[i + n]))
        n++;
    int ret = q2_alloc_run(img, n, "data cluster", &offset, n_done, &fresh, err);
    if (ret == 0 && refs > 1)
        ret = set_refcounts(img, offset >> img->cluster_bits, *n_done, refs, err);
    if (ret == 0 && !fresh)
        ret = zero_host(img, offset, *n_done << img->cluster_bits, true, err);
    if (ret < 0)
        return ret;
    for (uint64_t k = 0; k < *n_done; k++)
        l2[i + k] =
            (offset + (k << img->cluster_bits)) | (refs == 1 ? Q2_FLAG_COPIED : 0);
    return 0;
}

static int check_place(struct q2_image *img, uint64_t offset, struct q2_error *err)
{
    if (!q2_is_aligned(offset, img->cluster_size))
        return q2_fail(err, -EIO,
                       "'%s': the host offset 0x%" PRIx64
                       " of a zero cluster is not aligned; check the image first",
                       img->disk.path, offset);
    return q2_overlap_check(img, 0, offset, img->cluster_size, err);
}

// A zero cluster with a host cluster: that one is zeroed and stays if nobody else has it,
// and what is left otherwise is a plain zero cluster.
static int settle_allocated(struct expansion *e, uint64_t *entry, uint64_t refs,
                            struct q2_error *err)
{
    struct q2_image *img = e->img;
    uint64_t offset = *entry & Q2_OFFSET_MASK, count;
    int ret = check_place(img, offset, err);
    if (ret == 0)
        ret = q2_refcount_get(img, offset >> img->cluster_bits, &count, err);
    if (ret != 0)
        return ret;
    if (count < refs)
        return q2_fail(err, -EIO,
                       "'%s': the refcount of the host cluster at offset 0x%" PRIx64
                       " is too low; check the image first",
                       img->disk.path, offset);
    if (count == refs && e->plain) {
        *entry = offset | (refs == 1 ? Q2_FLAG_COPIED : 0);
        return zero_later(e, offset, err);
    }
    *entry = Q2_FLAG_ZERO;
    return drop_later(e, offset >> img->cluster_bits, refs, err);
}

static int expand_entries(struct expansion *e, uint64_t *l2, uint64_t refs,
                          struct q2_error *err)
{
    uint64_t n = q2_image_l2_entries(e->img), done;
    int ret = 0;
    for (uint64_t i = 0; i < n && ret == 0; i++) {
        if ((l2[i] & (Q2_FLAG_ZERO | Q2_FLAG_COMPRESSED)) == Q2_FLAG_ZERO &&
            (l2[i] & Q2_OFFSET_MASK) != 0)
            ret = settle_allocated(e, &l2[i], refs, err);
    }
    for (uint64_t i = 0; i < n && ret == 0; i += done) {
        done = 1;
        if (!is_plain_zero(l2[i]))
            continue;
        if (e->store)
            ret = store_run(e, l2, i, refs, &done, err);
        else
            l2[i] = 0;
    }
    return ret;
}

static int expand_table(struct expansion *e, uint64_t host_offset, const uint8_t *raw,
                        struct q2_error *err)
{
    struct q2_image *img = e->img;
    struct q2_table *t;
    uint64_t refs;
    int ret = q2_refcount_get(img, host_offset >> img->cluster_bits, &refs, err);
    if (ret == 0 && refs == 0)
        ret = q2_fail(err, -EIO,
                      "'%s': the L2 table at offset 0x%" PRIx64
                      " has no reference; check the image first",
                      img->disk.path, host_offset);
    if (ret == 0)
        ret = q2_overlap_check(img, Q2_OVERLAP_ACTIVE_L2 | Q2_OVERLAP_INACTIVE_L2,
                               host_offset, img->cluster_size, err);
    if (ret == 0)
        ret = q2_cache_add(img->l2_cache, host_offset, &t, err);
    if (ret != 0)
        return ret;
    q2_table_decode(raw, t->data, q2_to_size(q2_image_l2_entries(img)));
    ret = expand_entries(e, t->data, refs, err);
    if (ret == 0 && ++e->n_changed << img->cluster_bits >= BATCH_BYTES)
        ret = commit(e, err);
    return ret;
}

static int expand_tables(void *opaque, uint64_t host_offset, const uint8_t *tables,
                         size_t n, struct q2_error *err)
{
    struct expansion *e = opaque;
    uint64_t cluster_size = e->img->cluster_size;
    int ret = 0;
    for (size_t i = 0; i < n && ret == 0; i++) {
        const uint8_t *table = tables + i * cluster_size;
        if (table_has(table, cluster_size, Q2_FLAG_ZERO, Q2_FLAG_COMPRESSED))
            ret = expand_table(e, host_offset + i * cluster_size, table, err);
    }
    return ret;
}

int q2_amend_expand_zeroes(const struct q2_amend_tables *tables,
                           const struct q2_monitor *mon, struct q2_error *err)
{
    struct q2_image *img = tables->img;
    struct expansion e = {.img = img,
                          .store = q2_image_has_backing(img),
                          .plain = img->header.crypt_method == Q2_CRYPT_NONE};
    const struct q2_amend_visitor v = {.visit = expand_tables, .opaque = &e, .mon = mon};
    int ret = q2_amend_visit_tables(tables, &v, err);
    if (ret == 0)
        ret = commit(&e, err);
    if (ret == 0)
        ret = q2_io_flush(img->disk.file, err);
    free(e.drops);
    return ret;
}
