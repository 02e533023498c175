// SPDX-License-Identifier: MIT
// Reading guest data, and what this layer knows of a guest range.
#include "image/image.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "image/codec.h"

static int read_backing(struct q2_disk *d, uint64_t guest_offset, uint8_t *buf,
                        size_t n_bytes, struct q2_error *err)
{
    size_t n = 0;
    // Behind the disk lies VM state: no backing file has any.
    if (d->backing && guest_offset < d->backing->size && guest_offset < d->size)
        n = (size_t)q2_min_u64(n_bytes, d->backing->size - guest_offset);
    memset(buf + n, 0, n_bytes - n);
    return n > 0 ? q2_disk_read(d->backing, guest_offset, buf, n, err) : 0;
}

// A data cluster may end behind the end of the file (the rest reads as zeros), but it has
// to begin before it: what lies wholly beyond was cut off. A data file may end anywhere.
static int read_normal(struct q2_image *img, uint64_t guest_offset, uint64_t host_offset,
                       uint8_t *buf, size_t n_bytes, struct q2_error *err)
{
    uint64_t file_size;
    if (q2_image_has_data_file(img))
        return q2_disk_load(&img->disk, guest_offset, host_offset, buf, n_bytes, err);
    int ret = q2_io_get_size(img->disk.file, &file_size, err);
    if (ret < 0)
        return ret;
    uint64_t last = q2_align_down(host_offset + n_bytes - 1, img->cluster_size);
    if (last >= file_size && last >= img->data_end)
        return q2_fail(err, -EIO,
                       "'%s': data of guest offset 0x%" PRIx64
                       " at host offset 0x%" PRIx64
                       " lies beyond the end of the file (%" PRIu64 " bytes)",
                       img->disk.path, guest_offset, host_offset, file_size);
    return q2_disk_load(&img->disk, guest_offset, host_offset, buf, n_bytes, err);
}

// Making one for each cluster costs more than some clusters do.
static int take_decompressor(struct q2_image *img, struct q2_decompressor **d,
                             struct q2_error *err)
{
    *d = NULL;
    pthread_mutex_lock(&img->lock);
    if (img->n_idle_decompressors > 0)
        *d = img->idle_decompressors[--img->n_idle_decompressors];
    pthread_mutex_unlock(&img->lock);
    return *d ? 0 : q2_decompressor_new(img->disk.compression, d, err);
}

static void put_decompressor(struct q2_image *img, struct q2_decompressor *d)
{
    pthread_mutex_lock(&img->lock);
    bool keep = img->n_idle_decompressors < Q2_IDLE_DECOMPRESSORS;
    if (keep)
        img->idle_decompressors[img->n_idle_decompressors++] = d;
    pthread_mutex_unlock(&img->lock);
    if (!keep)
        q2_decompressor_free(d);
}

static int decompress(struct q2_image *img, const void *packed, size_t n_packed,
                      void *plain, struct q2_error *err)
{
    struct q2_decompressor *d;
    int ret = take_decompressor(img, &d, err);
    if (ret < 0)
        return ret;
    ret = q2_decompress_with(d, packed, n_packed, plain, img->cluster_size, err);
    put_decompressor(img, d);
    return ret;
}

// Inflates the cluster that holds guest_offset; copies the asked part to buf.
static int read_compressed(struct q2_image *img, uint64_t guest_offset,
                           const struct q2_run *run, uint8_t *buf, struct q2_error *err)
{
    size_t in_cluster = (size_t)(guest_offset & (img->cluster_size - 1));
    bool whole = run->n_bytes == img->cluster_size;
    uint8_t *packed = malloc(run->compressed_bytes + (whole ? 0 : img->cluster_size));
    if (!packed)
        return q2_fail_memory(err, run->compressed_bytes);
    uint8_t *plain = whole ? buf : packed + run->compressed_bytes;
    int ret =
        q2_io_read(img->disk.file, run->host_offset, packed, run->compressed_bytes, err);
    if (ret == 0) {
        ret = decompress(img, packed, run->compressed_bytes, plain, err);
        if (ret < 0)
            q2_context(err,
                       "'%s': compressed cluster of guest offset 0x%" PRIx64
                       " at host offset 0x%" PRIx64,
                       img->disk.path, guest_offset, run->host_offset);
    }
    if (ret == 0 && !whole)
        memcpy(buf, plain + in_cluster, (size_t)run->n_bytes);
    free(packed);
    return ret;
}

static int read_run(struct q2_image *img, uint64_t guest_offset, const struct q2_run *run,
                    uint8_t *buf, struct q2_error *err)
{
    size_t n = (size_t)run->n_bytes;
    switch (run->kind) {
    case Q2_CLUSTER_UNALLOCATED:
        return read_backing(&img->disk, guest_offset, buf, n, err);
    case Q2_CLUSTER_ZERO:
    case Q2_CLUSTER_ZERO_ALLOCATED:
        memset(buf, 0, n);
        return 0;
    case Q2_CLUSTER_NORMAL:
        return read_normal(img, guest_offset, run->host_offset, buf, n, err);
    case Q2_CLUSTER_COMPRESSED:
        return read_compressed(img, guest_offset, run, buf, err);
    case Q2_CLUSTER_MIXED: // never: a run is of one kind
    case Q2_CLUSTER_INVALID:
        break;
    }
    return q2_fail(err, -EIO, "unknown cluster kind %d", (int)run->kind);
}

static int lookup(struct q2_image *img, uint64_t guest_offset, uint64_t n_bytes,
                  struct q2_run *run, struct q2_error *err)
{
    pthread_mutex_lock(&img->lock);
    q2_image_shrink_caches(img); // reading need not work less because writing fails
    int ret = q2_mapping_lookup(img, guest_offset, n_bytes, run, err);
    pthread_mutex_unlock(&img->lock);
    return ret;
}

// Beside writers: has the range's data been put elsewhere since run was looked up? Then
// the old place may hold other data already.
static bool has_moved(struct q2_image *img, uint64_t guest_offset,
                      const struct q2_run *run)
{
    struct q2_error ignored = Q2_ERROR_INIT;
    struct q2_run now;
    if (!img->disk.writable ||
        (run->kind != Q2_CLUSTER_NORMAL && run->kind != Q2_CLUSTER_COMPRESSED))
        return false;
    return lookup(img, guest_offset, run->n_bytes, &now, &ignored) == 0 &&
           (now.kind != run->kind || now.host_offset != run->host_offset ||
            now.n_bytes != run->n_bytes);
}

int q2_image_read(struct q2_disk *d, uint64_t guest_offset, void *buf, size_t n_bytes,
                  struct q2_error *err)
{
    struct q2_image *img = q2_image_of(d);
    uint8_t *at = buf;
    while (n_bytes > 0) {
        struct q2_run run;
        int ret = lookup(img, guest_offset, n_bytes, &run, err);
        if (ret < 0)
            return ret;
        ret = read_run(img, guest_offset, &run, at, err);
        if (has_moved(img, guest_offset, &run))
            continue;
        if (ret < 0)
            return ret;
        guest_offset += run.n_bytes;
        at += run.n_bytes;
        n_bytes -= (size_t)run.n_bytes;
    }
    return 0;
}

// Counts clusters in use up to the threshold at which they can no longer all be stored.
static int count_used(struct q2_image *img, uint64_t n_clusters, uint64_t threshold,
                      uint64_t *n_used, struct q2_error *err)
{
    uint64_t per_block = UINT64_C(1) << q2_refcount_block_bits(img);
    *n_used = 0;
    // The file may be much longer (and all hole) than its refcounts reach.
    if (n_clusters / per_block >= img->refcount_table_size)
        n_clusters = img->refcount_table_size * per_block;
    for (uint64_t c = 0; c < n_clusters && *n_used < threshold; c += per_block) {
        struct q2_table *t;
        int ret = q2_refcount_block(img, c, &t, err);
        if (ret < 0)
            return ret;
        uint64_t limit = q2_min_u64(per_block, n_clusters - c);
        for (uint64_t i = 0; t && i < limit;) {
            uint64_t used = q2_refcount_next_used(img->refcounts, t->data, i, limit);
            i = used < limit ? q2_refcount_next_zero(img->refcounts, t->data, used, limit)
                             : limit;
            *n_used += i - used;
        }
        q2_cache_trim(img->refcount_cache);
    }
    return 0;
}

// Does the file look like one with preallocated metadata: more clusters in use than it
// has disk space for? Then data clusters may be holes, and the file's own map is worth
// asking.
static void detect_preallocation(struct q2_image *img)
{
    struct q2_error ignored = Q2_ERROR_INIT; // without an answer: not preallocated
    uint64_t size, usage, n_used;
    if (img->checked_preallocation)
        return;
    img->checked_preallocation = true;
    if (q2_io_get_size(img->disk.file, &size, &ignored) < 0 ||
        q2_io_disk_usage(img->disk.file, &usage, &ignored) < 0 ||
        q2_refcount_load_table(img, &ignored) < 0)
        return;
    uint64_t stored = usage / img->cluster_size;
    uint64_t threshold = q2_max_u64(stored * 10 / 9, stored + 2);
    if (count_used(img, q2_div_round_up(size, img->cluster_size), threshold, &n_used,
                   &ignored) == 0)
        img->looks_preallocated = n_used >= threshold;
}

// Asks the file whether a data run is a hole in it.
static int narrow_by_holes(struct q2_image *img, struct q2_extent *e,
                           struct q2_error *err)
{
    uint64_t n = e->n_bytes, file_size;
    bool data;
    int ret = q2_io_get_size(img->disk.data, &file_size, err);
    if (ret < 0 || e->host_offset >= file_size)
        return ret;
    ret = q2_io_extent(img->disk.data, e->host_offset, &n, &data, err);
    if (ret < 0)
        return ret;
    e->n_bytes = q2_min_u64(e->n_bytes, n);
    e->zero = !data;
    return 0;
}

int q2_image_status(struct q2_disk *d, uint64_t guest_offset, uint64_t n_bytes,
                    struct q2_extent *e, struct q2_error *err)
{
    struct q2_image *img = q2_image_of(d);
    struct q2_run run;

    pthread_mutex_lock(&img->lock);
    q2_image_shrink_caches(img);
    detect_preallocation(img);
    int ret = q2_mapping_lookup(img, guest_offset, n_bytes, &run, err);
    pthread_mutex_unlock(&img->lock);
    if (ret < 0)
        return ret;

    // What is encrypted lies nowhere in the form that the guest sees.
    bool has_host = run.has_cluster && !q2_image_is_encrypted(img);
    *e = (struct q2_extent){
        .n_bytes = run.n_bytes,
        .allocated = run.kind != Q2_CLUSTER_UNALLOCATED,
        .zero = run.kind == Q2_CLUSTER_ZERO || run.kind == Q2_CLUSTER_ZERO_ALLOCATED,
        .data = run.kind == Q2_CLUSTER_NORMAL || run.kind == Q2_CLUSTER_COMPRESSED,
        .compressed = run.kind == Q2_CLUSTER_COMPRESSED,
        .has_offset = has_host,
        .host_offset = has_host ? run.host_offset : 0,
        .file = has_host ? img->disk.data : NULL,
    };
    if (run.kind == Q2_CLUSTER_NORMAL && has_host && img->looks_preallocated &&
        img->disk.data)
        return narrow_by_holes(img, e, err);
    return 0;
}
