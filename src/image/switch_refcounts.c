// SPDX-License-Identifier: MIT
// From one set of refcount structures to another, of another width: their place and their
// width stand in the header's first sector, so that one write changes both.
#include "image/metadata.h"

#include <stdlib.h>

#include "base/checked.h"
#include "base/endian.h"
#include "image/overlap.h"

#define AT_REFCOUNT_TABLE 48U // offset and clusters, then what is named below
#define AT_COMPATIBLE 80U

// The fields from refcount_table_offset to refcount_order, of which those in between keep
// their values.
static int write_fields(struct q2_image *img, uint64_t offset, uint32_t n_clusters,
                        unsigned order, struct q2_error *err)
{
    const struct q2_header *h = &img->header;
    uint8_t fields[52];
    q2_store_be64(fields, offset);
    q2_store_be32(fields + 8, n_clusters);
    q2_store_be32(fields + 12, h->nb_snapshots);
    q2_store_be64(fields + 16, h->snapshots_offset);
    q2_store_be64(fields + 24, h->incompatible_features);
    q2_store_be64(fields + 32, h->compatible_features);
    q2_store_be64(fields + 40, h->autoclear_features);
    q2_store_be32(fields + 48, order);
    return q2_io_write(img->disk.file, AT_REFCOUNT_TABLE, fields, sizeof(fields), err);
}

// Nothing of the old structures is right any more.
static int adopt(struct q2_image *img, uint64_t offset, uint32_t n_clusters,
                 unsigned order, uint64_t *table, struct q2_cache *cache,
                 struct q2_error *err)
{
    uint64_t size;
    img->header.refcount_table_offset = offset;
    img->header.refcount_table_clusters = n_clusters;
    img->header.refcount_order = order;
    img->refcounts = q2_refcount_format(order);
    free(img->refcount_table);
    img->refcount_table = table;
    img->refcount_table_size = ((uint64_t)n_clusters << img->cluster_bits) / 8;
    img->refcount_table_moved = false;
    img->refcount_table_dirty = (struct q2_dirty_span){0};
    q2_cache_free(img->refcount_cache);
    img->refcount_cache = cache;
    q2_overlap_forget(img);
    img->free_hint = 0;
    img->compressed_next = 0;
    int ret = q2_io_get_size(img->disk.file, &size, err);
    if (ret == 0) {
        img->data_end = size;
        img->fresh_from = q2_align_up(size, img->cluster_size);
    }
    return ret;
}

int q2_image_switch_refcounts(struct q2_image *img, uint64_t offset, uint32_t n_clusters,
                              unsigned order, uint64_t *table, struct q2_error *err)
{
    struct q2_cache *cache =
        q2_cache_new(Q2_CACHE_RAW, img->cluster_size, Q2_REFCOUNT_CACHE_BYTES);
    int ret = cache ? write_fields(img, offset, n_clusters, order, err)
                    : q2_fail_memory(err, sizeof(table));
    if (ret < 0) {
        q2_cache_free(cache);
        free(table);
        return ret;
    }
    // From here on the file says so, even if it is not certain for how long.
    ret = adopt(img, offset, n_clusters, order, table, cache, err);
    return ret < 0 ? ret : q2_io_flush(img->disk.file, err);
}

int q2_image_set_compatible(struct q2_image *img, uint64_t bits, struct q2_error *err)
{
    uint8_t field[8];
    if (bits == img->header.compatible_features)
        return 0;
    q2_store_be64(field, bits);
    int ret = q2_io_write(img->disk.file, AT_COMPATIBLE, field, sizeof(field), err);
    if (ret < 0)
        return q2_context(err, "Could not update qcow2 header");
    img->header.compatible_features = bits;
    return q2_io_flush(img->disk.file, err);
}
