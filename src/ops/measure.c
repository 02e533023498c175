// SPDX-License-Identifier: MIT
// Measuring: how many clusters of data a source has, and what metadata a full image of
// that size needs.
#include "ops/measure.h"

#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "disk/header.h"
#include "ops/bitmap.h"

static int check_options(const struct q2_create_options *o, struct q2_error *err)
{
    int ret = q2_create_validate_numbers(o, err);
    if (ret == 0 && o->version == 2 && o->refcount_bits != 16)
        ret = q2_fail(err, -EINVAL,
                      "Different refcount widths than 16 bits require compatibility "
                      "level 1.1 or above (use compat=1.1 or greater)");
    return ret;
}

static uint64_t l2_entry_bytes(const struct q2_create_options *o)
{
    return o->extended_l2 ? 16 : 8;
}

static int check_size(const struct q2_create_options *o, uint64_t size,
                      struct q2_error *err)
{
    uint64_t n_tables = q2_div_round_up(q2_div_round_up(size, o->cluster_size),
                                        o->cluster_size / l2_entry_bytes(o));
    if (size <= INT64_MAX - o->cluster_size && n_tables * 8 <= Q2_MAX_L1_BYTES)
        return 0;
    return q2_fail(err, -EFBIG,
                   "The image size is too large (try using a larger cluster size)");
}

// Refcount blocks and their table, for so many clusters and for themselves.
static uint64_t refcount_clusters(const struct q2_create_options *o, uint64_t n_clusters)
{
    uint64_t per_block = o->cluster_size * 8 / o->refcount_bits;
    uint64_t per_table = o->cluster_size / 8;
    uint64_t n_blocks = 0, n_table = 0, n = 0, last;
    do {
        last = n;
        n_blocks = q2_div_round_up(n_clusters + n_table + n_blocks, per_block);
        n_table = q2_div_round_up(n_blocks, per_table);
        n = n_blocks + n_table;
    } while (n != last);
    return n;
}

// Bytes of the file of an image in which everything is allocated; size: whole clusters.
static uint64_t full_bytes(const struct q2_create_options *o, uint64_t size)
{
    uint64_t cluster = o->cluster_size, n_data = size / cluster;
    uint64_t n_l2 = q2_div_round_up(n_data * l2_entry_bytes(o), cluster);
    uint64_t n_l1 = q2_div_round_up(n_l2 * 8, cluster);
    uint64_t n = 1 + n_l1 + n_l2 + n_data;
    return (n + refcount_clusters(o, n)) * cluster;
}

// Whole clusters of LUKS header and key material.
static int luks_bytes(const struct q2_create_options *o, uint64_t *n_bytes,
                      struct q2_error *err)
{
    struct q2_luks_header h = {.version = 1};
    struct q2_crypt_suite suite;
    *n_bytes = 0;
    if (!o->encrypt || !o->encrypt->format || strcmp(o->encrypt->format, "luks") != 0)
        return 0;
    int ret = q2_crypt_validate(o->encrypt, err);
    if (ret == 0)
        ret = q2_crypt_suite_choose(&o->encrypt->names, &h, &suite, err);
    if (ret < 0)
        return ret;
    q2_luks_lay_out(&h);
    *n_bytes =
        q2_align_up((uint64_t)h.payload_offset_sectors * Q2_LUKS_SECTOR, o->cluster_size);
    return 0;
}

// Bytes of whole clusters in which the source has data.
static int count_data(struct q2_disk *source, uint64_t cluster,
                      const struct q2_monitor *mon, uint64_t *n_bytes,
                      struct q2_error *err)
{
    uint64_t step = q2_disk_map_step(source->size), end;
    *n_bytes = 0;
    for (uint64_t at = 0; at < source->size; at = end) {
        struct q2_extent e;
        unsigned depth;
        if (q2_monitor_cancelled(mon))
            return q2_fail(err, -ECANCELED, "Stopped");
        int ret = q2_disk_status_above(source, NULL, at, step, &e, &depth, err);
        if (ret < 0)
            return q2_context(err, "Unable to get block status");
        end = at + e.n_bytes;
        if (e.zero || !e.data)
            continue;
        end = q2_align_up(end, cluster);
        *n_bytes += end - q2_align_down(at, cluster);
    }
    return 0;
}

static int measure_qcow2(const struct q2_create_options *o, struct q2_disk *source,
                         const struct q2_monitor *mon, struct q2_measurement *out,
                         struct q2_error *err)
{
    uint64_t n_data = 0, n_luks = 0, size = source ? source->size : o->size;
    int ret = check_options(o, err);
    if (ret == 0)
        ret = check_size(o, size, err);
    if (ret == 0)
        ret = luks_bytes(o, &n_luks, err);
    if (ret < 0)
        return ret;
    size = q2_align_up(size, o->cluster_size);
    // Nobody has looked at what the backing file would take off.
    bool all = (source && o->backing_file) || o->preallocation == Q2_PREALLOC_FULL ||
               o->preallocation == Q2_PREALLOC_FALLOC;
    if (source && !all)
        ret = count_data(source, o->cluster_size, mon, &n_data, err);
    if (ret < 0)
        return ret;
    out->has_bitmaps = o->version >= 3 && source && q2_bitmap_supported(source);
    if (out->has_bitmaps)
        ret = q2_bitmap_measure(source, o->cluster_size, &out->bitmaps, err);
    out->fully_allocated = full_bytes(o, size) + n_luks;
    out->required = out->fully_allocated - size + (all ? size : n_data);
    return ret;
}

int q2_measure(const struct q2_create_options *o, struct q2_disk *source,
               const struct q2_monitor *mon, struct q2_measurement *out,
               struct q2_error *err)
{
    *out = (struct q2_measurement){0};
    if (strcmp(o->format, "raw") != 0)
        return measure_qcow2(o, source, mon, out, err);
    out->required = q2_align_up(source ? source->size : o->size, 512);
    out->fully_allocated = out->required;
    return 0;
}
