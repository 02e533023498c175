// SPDX-License-Identifier: MIT
// The life of an open qcow2 image.
#include "image/image.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/checked.h"
#include "image/bitmaps.h"
#include "image/codec.h"
#include "image/crypt.h"
#include "image/data_file.h"
#include "image/metadata.h"
#include "image/overlap.h"

// What a power cut does not tear.
#define SECTOR_BYTES 512U

static void image_release(struct q2_disk *d)
{
    struct q2_image *img = q2_image_of(d);
    for (unsigned i = 0; i < img->n_snapshots; i++)
        q2_snapshot_clear(&img->snapshots[i]);
    free(img->snapshots);
    free(img->l1);
    free(img->refcount_table);
    free(img->pending_free);
    q2_bitmaps_free(img);
    q2_overlap_forget(img);
    while (img->n_idle_decompressors > 0)
        q2_decompressor_free(img->idle_decompressors[--img->n_idle_decompressors]);
    q2_cache_free(img->l2_cache);
    q2_cache_free(img->refcount_cache);
    q2_crypt_free(img->crypt);
    q2_header_clear(&img->header);
    pthread_mutex_destroy(&img->lock);
    free(img);
}

static int image_flush(struct q2_disk *d, struct q2_error *err)
{
    struct q2_image *img = q2_image_of(d);
    pthread_mutex_lock(&img->lock);
    int ret = q2_image_commit(img, err);
    pthread_mutex_unlock(&img->lock);
    if (ret == 0)
        ret = q2_data_file_flush(img, err);
    return ret < 0 ? ret : q2_io_flush(d->file, err);
}

const struct q2_disk_ops q2_image_disk_ops = {
    .format = "qcow2",
    .read = q2_image_read,
    .status = q2_image_status,
    .write_begin = q2_image_write_begin,
    .write_begin_compressed = q2_image_write_begin_compressed,
    .write_finish = q2_image_write_finish,
    .write_cancel = q2_image_write_cancel,
    .write_zeroes = q2_image_write_zeroes,
    .discard = q2_image_discard,
    .flush = image_flush,
    .finish = q2_image_finish,
    .release = image_release,
    .load = q2_crypt_load,
    .store = q2_crypt_store,
};

// An image around a decoded header, which it takes over. Loads nothing.
static int image_alloc(struct q2_io *io, struct q2_header *header, bool writable,
                       struct q2_image **out, struct q2_error *err)
{
    struct q2_image *img = calloc(1, sizeof(*img));
    if (!img)
        return q2_fail_memory(err, sizeof(*img));
    img->header = *header;
    *header = (struct q2_header){0};
    pthread_mutex_init(&img->lock, NULL);
    img->cluster_bits = img->header.cluster_bits;
    img->cluster_size = UINT32_C(1) << img->cluster_bits;
    img->extended_l2 = img->header.incompatible_features & Q2_INCOMPAT_EXTENDED_L2;
    img->l2_bits = img->cluster_bits - (img->extended_l2 ? 4 : 3);
    img->grain_bits = img->cluster_bits - (img->extended_l2 ? Q2_SUBCLUSTER_BITS : 0);
    img->refcounts = q2_refcount_format(img->header.refcount_order);
    img->disk = (struct q2_disk){.ops = &q2_image_disk_ops,
                                 .size = q2_align_up(img->header.size, 512),
                                 .cluster_size = img->cluster_size,
                                 .grain_size = UINT32_C(1) << img->grain_bits,
                                 .compression = img->header.compression_type,
                                 .data_align = 1,
                                 .writable = writable};
    img->l2_cache = q2_cache_new(Q2_CACHE_ENTRIES, img->cluster_size, Q2_L2_CACHE_BYTES);
    img->refcount_cache =
        q2_cache_new(Q2_CACHE_RAW, img->cluster_size, Q2_REFCOUNT_CACHE_BYTES);
    if (!img->l2_cache || !img->refcount_cache) {
        image_release(&img->disk);
        return q2_fail_memory(err, sizeof(*img));
    }
    img->disk.file = io;
    if (q2_image_is_encrypted(img))
        img->disk.data_align = SECTOR_BYTES;
    if (!q2_image_has_data_file(img))
        img->disk.data = io;
    *out = img;
    return 0;
}

static int read_header(struct q2_io *io, struct q2_header *header, struct q2_error *err)
{
    uint8_t start[Q2_HEADER_V3_MIN_BYTES];
    uint64_t file_size;
    int ret = q2_io_get_size(io, &file_size, err);
    if (ret == 0)
        ret = q2_io_read(io, 0, start, sizeof(start), err);
    if (ret < 0)
        return q2_context(err, "Could not read qcow2 header");
    size_t n =
        (size_t)q2_min_u64(file_size, q2_header_bytes_needed(start, sizeof(start)));
    uint8_t *buf = malloc(n > 0 ? n : 1);
    if (!buf)
        return q2_fail_memory(err, n);
    ret = q2_io_read(io, 0, buf, n, err);
    if (ret < 0)
        q2_context(err, "Could not read qcow2 header");
    else
        ret = q2_header_decode(buf, n, header, err);
    free(buf);
    return ret;
}

static int refuse_writing(const struct q2_header *h, struct q2_error *err)
{
    if (h->incompatible_features & Q2_INCOMPAT_CORRUPT)
        return q2_fail(err, -EACCES,
                       "qcow2: Image is corrupt; cannot be opened read/write");
    if (h->incompatible_features & Q2_INCOMPAT_DIRTY)
        return q2_fail(err, -EUCLEAN,
                       "qcow2: Image is dirty; its refcounts must be repaired before it "
                       "is opened read/write");
    return 0;
}

// A table may end in the middle of the file's last cluster, but no further.
static int check_in_file(const struct q2_image *img, const char *what, uint64_t offset,
                         uint64_t n_bytes, uint64_t file_size, struct q2_error *err)
{
    uint64_t end;
    if (q2_add_u64(offset, n_bytes, &end) &&
        end <= q2_align_up(file_size, img->cluster_size))
        return 0;
    return q2_fail(err, -EINVAL,
                   "%s (offset 0x%" PRIx64 ", %" PRIu64
                   " bytes) lies beyond the end of the file (%" PRIu64 " bytes)",
                   what, offset, n_bytes, file_size);
}

// So many guest clusters may be mapped by L2 tables that several entries of one L1 table
// name. No program makes such tables, and damage makes few; with many of them, a file of
// some KiB maps more than can be looked through in a lifetime.
#define MAX_REPEATED_CLUSTERS (UINT64_C(1) << 22)

static int by_offset(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static uint64_t count_repeats(const uint64_t *offsets, size_t n)
{
    uint64_t n_repeats = 0;
    for (size_t i = 1; i < n; i++)
        n_repeats += offsets[i] == offsets[i - 1];
    return n_repeats;
}

// Most tables name ascending places, or few: then nothing has to be sorted.
static int check_repeats(const struct q2_image *img, const uint64_t *l1, size_t n_entries,
                         struct q2_error *err)
{
    uint64_t limit = MAX_REPEATED_CLUSTERS >> img->l2_bits;
    bool ascending = true;
    size_t n = 0;
    for (size_t i = 0; i < n_entries; i++)
        n += (l1[i] & Q2_OFFSET_MASK) != 0;
    if (n <= limit)
        return 0;
    uint64_t *offsets = malloc(n * sizeof(*offsets));
    if (!offsets)
        return q2_fail_memory(err, n * sizeof(*offsets));
    n = 0;
    for (size_t i = 0; i < n_entries; i++) {
        if ((l1[i] & Q2_OFFSET_MASK) == 0)
            continue;
        offsets[n] = l1[i] & Q2_OFFSET_MASK;
        ascending = ascending && (n == 0 || offsets[n] > offsets[n - 1]);
        n++;
    }
    uint64_t n_repeats = count_repeats(offsets, n);
    if (!ascending && n_repeats <= limit) {
        qsort(offsets, n, sizeof(*offsets), by_offset);
        n_repeats = count_repeats(offsets, n);
    }
    free(offsets);
    if (n_repeats <= limit)
        return 0;
    return q2_fail(err, -EFBIG,
                   "%" PRIu64 " entries of the L1 table name L2 tables that others name, "
                   "too; no more than %" PRIu64 " may",
                   n_repeats, limit);
}

int q2_image_load_l1(struct q2_image *img, uint64_t offset, uint32_t n_entries,
                     struct q2_error *err)
{
    uint64_t file_size;
    size_t n_bytes = (size_t)n_entries * 8;
    int ret = q2_io_get_size(img->disk.file, &file_size, err);
    if (ret == 0 && n_bytes > 0)
        ret = check_in_file(img, "L1 table", offset, n_bytes, file_size, err);
    if (ret < 0)
        return ret;
    uint64_t *l1 = malloc(n_bytes > 0 ? n_bytes : 1);
    if (!l1)
        return q2_fail_memory(err, n_bytes);
    ret = q2_io_read(img->disk.file, offset, l1, n_bytes, err);
    if (ret < 0) {
        free(l1);
        return q2_context(err, "Could not read L1 table");
    }
    q2_table_decode(l1, l1, n_entries);
    ret = check_repeats(img, l1, n_entries, err);
    if (ret < 0) {
        free(l1);
        return ret;
    }
    free(img->l1);
    img->l1 = l1;
    img->l1_size = n_entries;
    return 0;
}

static int load_for_writing(struct q2_image *img, struct q2_error *err)
{
    uint64_t file_size;
    int ret = q2_io_get_size(img->disk.file, &file_size, err);
    if (ret == 0)
        ret = check_in_file(img, "Refcount table", img->header.refcount_table_offset,
                            (uint64_t)img->header.refcount_table_clusters
                                << img->cluster_bits,
                            file_size, err);
    if (ret == 0)
        ret = q2_refcount_load_table(img, err);
    if (ret < 0)
        return ret;
    img->fresh_from = q2_align_up(file_size, img->cluster_size);
    img->data_end = file_size;
    // Whoever writes has to clear the autoclear bits that they do not know, for certain
    // before anything else is written.
    ret = q2_image_set_autoclear(img, img->header.autoclear_features & Q2_AUTOCLEAR_KNOWN,
                                 err);
    return ret == 0 && img->header.has_bitmaps ? q2_bitmaps_load(img, err) : ret;
}

int q2_image_load_metadata(struct q2_image *img, struct q2_error *err)
{
    bool writable = img->disk.writable;
    int ret = writable ? refuse_writing(&img->header, err) : 0;
    if (ret == 0)
        ret =
            q2_image_load_l1(img, img->header.l1_table_offset, img->header.l1_size, err);
    if (ret == 0 && writable)
        ret = load_for_writing(img, err);
    return ret;
}

int q2_image_open(struct q2_io *io, bool writable, bool image_only, struct q2_image **out,
                  struct q2_error *err)
{
    struct q2_header header;
    struct q2_image *img;
    int ret = read_header(io, &header, err);
    if (ret < 0)
        return ret;
    ret = image_alloc(io, &header, writable, &img, err);
    if (ret < 0) {
        q2_header_clear(&header);
        return ret;
    }
    ret = q2_image_configure(img, NULL, err);
    if (ret == 0 && !image_only)
        ret = q2_image_load_metadata(img, err);
    if (ret < 0) {
        image_release(&img->disk);
        return ret;
    }
    *out = img;
    return 0;
}

// Bytes of a new file read as zeros, those of a device as whatever was there before:
// there both tables are written from end to end.
static void mark_whole_tables(struct q2_image *img)
{
    if (img->disk.file->sparse_growth)
        return;
    img->refcount_table_dirty =
        (struct q2_dirty_span){.first = 0, .end = img->refcount_table_size};
    img->l1_dirty = (struct q2_dirty_span){.first = 0, .end = img->l1_size};
}

static int place_skeleton(struct q2_image *img, struct q2_error *err)
{
    struct q2_table *block;
    img->header.refcount_table_offset = img->cluster_size;
    img->header.refcount_table_clusters = 1;
    img->refcount_table_size = img->cluster_size / 8;
    img->refcount_table = calloc(q2_to_size(img->refcount_table_size), 8);
    if (!img->refcount_table)
        return q2_fail_memory(err, img->cluster_size);
    int ret =
        q2_cache_add(img->refcount_cache, UINT64_C(2) << img->cluster_bits, &block, err);
    if (ret < 0)
        return ret;
    img->refcount_table[0] = UINT64_C(2) << img->cluster_bits;
    q2_span_add(&img->refcount_table_dirty, 0);
    q2_refcount_fill(img->refcounts, block->data, 0, 3, 1);
    img->free_hint = 3;
    img->fresh_from = img->data_end = UINT64_C(3) << img->cluster_bits;

    uint64_t n_entries =
        q2_image_l1_entries(img->disk.size, img->cluster_bits, img->l2_bits);
    uint64_t n_clusters = q2_div_round_up(n_entries * 8, img->cluster_size);
    img->l1 = calloc(q2_to_size(q2_max_u64(n_entries, 1)), 8);
    if (!img->l1)
        return q2_fail_memory(err, n_entries * 8);
    if (n_entries == 0)
        return 0; // an empty disk has no L1 table
    ret = q2_alloc_exact(img, n_clusters, "L1 table", &img->header.l1_table_offset, err);
    img->header.l1_size = img->l1_size = (uint32_t)n_entries;
    // The L1 table's last cluster need not be whole in the file.
    if (img->data_end == img->header.l1_table_offset + (n_clusters << img->cluster_bits))
        img->data_end = img->header.l1_table_offset + q2_align_up(n_entries * 8, 512);
    return ret;
}

int q2_image_new(struct q2_io *io, struct q2_header *header, struct q2_image **out,
                 struct q2_error *err)
{
    struct q2_image *img;
    int ret = image_alloc(io, header, true, &img, err);
    if (ret < 0)
        return ret;
    img->unpublished = true;
    img->checked_preallocation = true;
    ret = q2_image_configure(img, NULL, err);
    if (ret == 0)
        ret = place_skeleton(img, err);
    if (ret < 0) {
        image_release(&img->disk);
        return ret;
    }
    mark_whole_tables(img);
    *out = img;
    return 0;
}

// The first sector, with the magic, goes last: what is behind it (the end of a long
// backing file name) is there by then.
int q2_image_write_header(struct q2_image *img, struct q2_error *err)
{
    struct q2_io *file = img->disk.file;
    size_t used;
    uint8_t *buf = malloc(img->cluster_size);
    if (!buf)
        return q2_fail_memory(err, img->cluster_size);
    int ret = q2_header_encode(&img->header, buf, &used, err);
    size_t n = (size_t)q2_min_u64(q2_align_up(used, SECTOR_BYTES), img->cluster_size);
    if (ret == 0 && n > SECTOR_BYTES)
        ret = q2_io_write(file, SECTOR_BYTES, buf + SECTOR_BYTES, n - SECTOR_BYTES, err);
    if (ret == 0)
        ret = q2_io_flush(file, err);
    if (ret == 0)
        ret = q2_io_write(file, 0, buf, SECTOR_BYTES, err);
    free(buf);
    return ret;
}
