// SPDX-License-Identifier: MIT
// From guest offsets to host offsets: the L1 table and L2 tables (qcow2 format: "Cluster
// mapping").
#include "image/image.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/checked.h"
#include "image/overlap.h"

uint64_t q2_image_l1_entries(uint64_t size, unsigned cluster_bits, unsigned l2_bits)
{
    unsigned shift = cluster_bits + l2_bits;
    return (size >> shift) + ((size & ((UINT64_C(1) << shift) - 1)) != 0);
}

static int check_l2_offset(struct q2_image *img, uint64_t l1_index, uint64_t l2_offset,
                           struct q2_error *err)
{
    if (q2_is_aligned(l2_offset, img->cluster_size))
        return 0;
    return q2_overlap_corrupt(
        img, err, "L2 table offset %#" PRIx64 " unaligned (L1 index: %#" PRIx64 ")",
        l2_offset, l1_index);
}

static int get_l2(struct q2_image *img, uint64_t l1_index, uint64_t l2_offset,
                  struct q2_table **out, struct q2_error *err)
{
    uint64_t file_size;
    int ret = check_l2_offset(img, l1_index, l2_offset, err);
    if (ret < 0)
        return ret;
    ret = q2_io_get_size(img->disk.file, &file_size, err);
    if (ret < 0)
        return ret;
    // A table in the cache may not have reached the file yet; it lies before data_end.
    if (l2_offset >= file_size && l2_offset >= img->data_end)
        return q2_fail(err, -EIO,
                       "'%s': L1 entry %" PRIu64 ": L2 table at offset 0x%" PRIx64
                       " lies beyond the end of the file (%" PRIu64 " bytes)",
                       img->disk.path, l1_index, l2_offset, file_size);
    return q2_cache_get(img->l2_cache, img->disk.file, l2_offset, "L2 table", out, err);
}

static uint64_t l2_offset_of(const struct q2_image *img, uint64_t guest_offset)
{
    return img->l1[guest_offset / q2_image_l2_span(img)] & Q2_OFFSET_MASK;
}

static int refuse_unaligned(struct q2_image *img, uint64_t host_offset,
                            uint64_t guest_offset, struct q2_error *err)
{
    return q2_overlap_corrupt(img, err,
                              "Cluster allocation offset %#" PRIx64
                              " unaligned (L2 offset: %#" PRIx64 ", L2 index: %#" PRIx64
                              ")",
                              host_offset, l2_offset_of(img, guest_offset),
                              q2_mapping_l2_index(img, guest_offset));
}

int q2_mapping_refuse_invalid(struct q2_image *img, uint64_t guest_offset,
                              struct q2_error *err)
{
    return q2_overlap_corrupt(
        img, err,
        "Invalid cluster entry found (L2 offset: %#" PRIx64 ", L2 index: %#" PRIx64 ")",
        l2_offset_of(img, guest_offset), q2_mapping_l2_index(img, guest_offset));
}

struct q2_l2_entry q2_mapping_data_file_entry(const struct q2_image *img,
                                              const uint64_t *l2, uint64_t index)
{
    struct q2_l2_entry e;
    if (img->extended_l2) {
        e = q2_l2_decode_extended(l2[2 * index], l2[2 * index + 1], img->cluster_bits,
                                  true);
    } else {
        e = q2_l2_decode(l2[index], img->cluster_bits, img->header.version);
        if (e.copied && !e.has_cluster && e.kind != Q2_CLUSTER_COMPRESSED) {
            e.has_cluster = true;
            e.allocated = ~e.zero;
            q2_subcluster_settle(&e);
        }
    }
    if (e.kind == Q2_CLUSTER_COMPRESSED)
        e.kind = Q2_CLUSTER_INVALID;
    return e;
}

int q2_mapping_check_place(struct q2_image *img, const struct q2_l2_entry *e,
                           uint64_t guest_offset, struct q2_error *err)
{
    uint64_t guest_cluster = q2_align_down(guest_offset, img->cluster_size);
    if (!q2_image_has_data_file(img) || !e->has_cluster ||
        e->host_offset == guest_cluster)
        return 0;
    return q2_overlap_corrupt(
        img, err,
        "External data file host cluster offset %#" PRIx64
        " does not match guest cluster offset: %#" PRIx64 " (L2 index: %#" PRIx64 ")",
        e->host_offset, guest_cluster, q2_mapping_l2_index(img, guest_offset));
}

void q2_mapping_set_entry(struct q2_image *img, struct q2_table *t, uint64_t index,
                          struct q2_l2_entry e)
{
    uint64_t n_words = img->extended_l2 ? 2 : 1, bitmap = 0;
    uint64_t *words = (uint64_t *)t->data + n_words * index;
    if (e.kind != Q2_CLUSTER_COMPRESSED)
        q2_subcluster_settle(&e);
    uint64_t raw = img->extended_l2 ? q2_l2_encode_extended(&e, img->cluster_bits)
                                    : q2_l2_encode(&e, img->cluster_bits);
    bool differs = raw != words[0];
    words[0] = raw;
    if (img->extended_l2) {
        bitmap = q2_subcluster_bitmap(&e);
        differs = differs || bitmap != words[1];
        words[1] = bitmap;
    }
    if (differs)
        q2_cache_mark_range(img->l2_cache, t, n_words * 8 * index, n_words * 8);
}

static enum q2_cluster_kind kind_at(const struct q2_image *img,
                                    const struct q2_l2_entry *e, uint64_t in_cluster)
{
    if (e->kind != Q2_CLUSTER_MIXED)
        return e->kind;
    return q2_subcluster_kind(
        e, (unsigned)(in_cluster >> (img->cluster_bits - Q2_SUBCLUSTER_BITS)));
}

// Where the subclusters that are of the kind of the one at in_cluster end.
static uint64_t end_of_kind(const struct q2_image *img, const struct q2_l2_entry *e,
                            uint64_t in_cluster)
{
    if (e->kind != Q2_CLUSTER_MIXED)
        return img->cluster_size;
    unsigned bits = img->cluster_bits - Q2_SUBCLUSTER_BITS;
    unsigned index = (unsigned)(in_cluster >> bits);
    return (uint64_t)(index + q2_subcluster_run(e, index)) << bits;
}

// Where the run that goes on to the end of the first entry's cluster ends, counted from
// that cluster's start; host clusters must be contiguous.
static uint64_t end_of_run(const struct q2_image *img, const uint64_t *l2, uint64_t index,
                           const struct q2_l2_entry *first, enum q2_cluster_kind kind,
                           uint64_t max)
{
    uint64_t end = img->cluster_size, end_here = end;
    while (end < max && end_here == img->cluster_size) {
        struct q2_l2_entry e = q2_mapping_entry(img, l2, ++index);
        if (kind_at(img, &e, 0) != kind || e.has_cluster != first->has_cluster ||
            (e.has_cluster && e.host_offset != first->host_offset + end))
            break;
        end_here = end_of_kind(img, &e, 0);
        end += end_here;
    }
    return end;
}

// Fills run from a table, which maps all of the range.
static int run_from_l2(struct q2_image *img, const uint64_t *l2, uint64_t guest_offset,
                       uint64_t n_bytes, struct q2_run *run, struct q2_error *err)
{
    uint64_t index = q2_mapping_l2_index(img, guest_offset);
    uint64_t in_cluster = guest_offset & (img->cluster_size - 1);
    struct q2_l2_entry e = q2_mapping_entry(img, l2, index);

    if (e.kind == Q2_CLUSTER_INVALID)
        return q2_mapping_refuse_invalid(img, guest_offset, err);
    if (e.has_cluster && !q2_is_aligned(e.host_offset, img->cluster_size))
        return refuse_unaligned(img, e.host_offset, guest_offset, err);
    int ret = q2_mapping_check_place(img, &e, guest_offset, err);
    if (ret < 0)
        return ret;
    uint64_t end = end_of_kind(img, &e, in_cluster);
    *run = (struct q2_run){.kind = kind_at(img, &e, in_cluster),
                           .has_cluster = e.has_cluster,
                           .host_offset = e.host_offset,
                           .compressed_bytes = e.n_bytes};
    if (end == img->cluster_size && run->kind != Q2_CLUSTER_COMPRESSED)
        end = end_of_run(img, l2, index, &e, run->kind, in_cluster + n_bytes);
    run->n_bytes = q2_min_u64(end - in_cluster, n_bytes);
    if (e.has_cluster)
        run->host_offset += in_cluster;
    return 0;
}

// Smaller tables cost no more than to ask where the file's holes are.
#define MIN_HOLE_CLUSTER (16U << 10)

// Does an L1 entry name a table that is a hole of the file, and so maps nothing? Its
// zeros are not worth reading: there may be a million of them in a file that holds
// nothing. Only where nobody writes.
static bool is_hollow_l2(struct q2_image *img, uint64_t l2_offset)
{
    struct q2_error ignored = Q2_ERROR_INIT; // then it is read
    uint64_t file_size, n;
    bool data;
    if (img->disk.writable || img->cluster_size < MIN_HOLE_CLUSTER ||
        !q2_is_aligned(l2_offset, img->cluster_size))
        return false;
    if (l2_offset >= img->hole_start && l2_offset < img->hole_end &&
        img->hole_end - l2_offset >= img->cluster_size)
        return true;
    if (q2_cache_holds(img->l2_cache, l2_offset) ||
        q2_io_get_size(img->disk.file, &file_size, &ignored) < 0 ||
        l2_offset >= file_size || file_size - l2_offset < img->cluster_size)
        return false;
    n = file_size - l2_offset;
    if (q2_io_extent(img->disk.file, l2_offset, &n, &data, &ignored) < 0 || data ||
        n < img->cluster_size)
        return false;
    img->hole_start = l2_offset;
    img->hole_end = l2_offset + n;
    return true;
}

// A run of guest space without L2 tables.
static void run_of_holes(struct q2_image *img, uint64_t l1_index, uint64_t guest_offset,
                         uint64_t n_bytes, struct q2_run *run)
{
    uint64_t span = q2_image_l2_span(img);
    uint64_t end = guest_offset + n_bytes;
    uint64_t at = q2_align_down(guest_offset, span) + span;
    uint64_t i = l1_index + 1;
    for (; i < img->l1_size && at < end; i++, at += span) {
        uint64_t l2_offset = img->l1[i] & Q2_OFFSET_MASK;
        if (l2_offset != 0 && !is_hollow_l2(img, l2_offset))
            break;
    }
    if (i >= img->l1_size) // however large a snapshot says that its disk is
        at = end;
    *run = (struct q2_run){.kind = Q2_CLUSTER_UNALLOCATED,
                           .n_bytes = q2_min_u64(at, end) - guest_offset};
}

int q2_mapping_lookup(struct q2_image *img, uint64_t guest_offset, uint64_t n_bytes,
                      struct q2_run *run, struct q2_error *err)
{
    uint64_t span = q2_image_l2_span(img);
    uint64_t l1_index = guest_offset / span;
    uint64_t l2_offset = l1_index < img->l1_size ? img->l1[l1_index] & Q2_OFFSET_MASK : 0;
    struct q2_table *t;

    if (l2_offset == 0 || is_hollow_l2(img, l2_offset)) {
        run_of_holes(img, l1_index, guest_offset, n_bytes, run);
        return 0;
    }
    int ret = get_l2(img, l1_index, l2_offset, &t, err);
    if (ret < 0)
        return ret;
    n_bytes = q2_min_u64(n_bytes, span - (guest_offset & (span - 1)));
    return run_from_l2(img, t->data, guest_offset, n_bytes, run, err);
}

// A new L2 table for l1_index, with the entries of old (or none).
static int place_l2(struct q2_image *img, uint64_t l1_index, const struct q2_table *old,
                    struct q2_table **out, struct q2_error *err)
{
    uint64_t host_offset;
    int ret = q2_alloc_exact(img, 1, "L2 table", &host_offset, err);
    if (ret < 0)
        return ret;
    ret = q2_cache_add(img->l2_cache, host_offset, out, err);
    if (ret < 0) {
        q2_alloc_undo(img, host_offset, img->cluster_size);
        return ret;
    }
    if (old)
        memcpy((*out)->data, old->data, img->cluster_size);
    img->l1[l1_index] = host_offset | Q2_FLAG_COPIED;
    q2_span_add(&img->l1_dirty, l1_index);
    if (old)
        q2_overlap_remove(img, Q2_OVERLAP_ACTIVE_L2, old->host_offset);
    return q2_overlap_add(img, Q2_OVERLAP_ACTIVE_L2, host_offset, err);
}

int q2_mapping_l2_for_write(struct q2_image *img, uint64_t guest_offset,
                            struct q2_table **out, struct q2_error *err)
{
    uint64_t l1_index = guest_offset / q2_image_l2_span(img);
    if (l1_index >= img->l1_size)
        return q2_fail(err, -EIO,
                       "'%s': guest offset 0x%" PRIx64 " is beyond the L1 table (%" PRIu32
                       " entries)",
                       img->disk.path, guest_offset, img->l1_size);
    uint64_t entry = img->l1[l1_index];
    uint64_t l2_offset = entry & Q2_OFFSET_MASK;
    if (l2_offset == 0)
        return place_l2(img, l1_index, NULL, out, err);

    struct q2_table *old;
    int ret = get_l2(img, l1_index, l2_offset, &old, err);
    if (ret < 0)
        return ret;
    if (entry & Q2_FLAG_COPIED) {
        *out = old;
        return q2_overlap_check(img, Q2_OVERLAP_ACTIVE_L2, l2_offset, img->cluster_size,
                                err);
    }
    // The table is shared with a snapshot: it gets a copy of its own.
    ret = place_l2(img, l1_index, old, out, err);
    if (ret < 0)
        return ret;
    return q2_alloc_free_later(img, l2_offset, img->cluster_size, Q2_FREE_OTHER, err);
}
