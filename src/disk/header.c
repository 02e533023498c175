// SPDX-License-Identifier: MIT
// Decoding the header: every field is checked before anybody sees it. Messages that
// qemu-img prints are kept, with the field and its value behind.
#include "disk/header.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/endian.h"
#include "disk/header_private.h"

#define MAX_OFFSET ((uint64_t)INT64_MAX)
#define SNAPSHOT_ENTRY_MIN_BYTES 40U

bool q2_header_probe(const void *buf, size_t n_bytes)
{
    const uint8_t *p = buf;
    return n_bytes >= 8 && q2_load_be32(p + Q2_AT_MAGIC) == Q2_MAGIC &&
           q2_load_be32(p + Q2_AT_VERSION) >= 2;
}

size_t q2_header_bytes_needed(const void *buf, size_t n_bytes)
{
    const uint8_t *p = buf;
    size_t least = Q2_HEADER_V3_MIN_BYTES;

    if (!q2_header_probe(buf, n_bytes) || n_bytes < Q2_AT_CLUSTER_BITS + 4U)
        return least;
    uint32_t bits = q2_load_be32(p + Q2_AT_CLUSTER_BITS);
    if (bits < Q2_MIN_CLUSTER_BITS || bits > Q2_MAX_CLUSTER_BITS)
        return least;
    return (size_t)1 << bits;
}

void q2_header_view_copy(const struct q2_header_view *v, size_t offset, void *out,
                         size_t n)
{
    size_t there = offset < v->n_bytes ? v->n_bytes - offset : 0;
    if (there > n)
        there = n;
    if (there)
        memcpy(out, v->p + offset, there);
    memset((uint8_t *)out + there, 0, n - there);
}

#define MAX_VERSION 15U

static void load_fields(const uint8_t *p, struct q2_header *h)
{
    *h = (struct q2_header){
        .version = q2_load_be32(p + Q2_AT_VERSION),
        .backing_file_offset = q2_load_be64(p + Q2_AT_BACKING_FILE_OFFSET),
        .backing_file_size = q2_load_be32(p + Q2_AT_BACKING_FILE_SIZE),
        .cluster_bits = q2_load_be32(p + Q2_AT_CLUSTER_BITS),
        .size = q2_load_be64(p + Q2_AT_SIZE),
        .crypt_method = q2_load_be32(p + Q2_AT_CRYPT_METHOD),
        .l1_size = q2_load_be32(p + Q2_AT_L1_SIZE),
        .l1_table_offset = q2_load_be64(p + Q2_AT_L1_TABLE_OFFSET),
        .refcount_table_offset = q2_load_be64(p + Q2_AT_REFCOUNT_TABLE_OFFSET),
        .refcount_table_clusters = q2_load_be32(p + Q2_AT_REFCOUNT_TABLE_CLUSTERS),
        .nb_snapshots = q2_load_be32(p + Q2_AT_NB_SNAPSHOTS),
        .snapshots_offset = q2_load_be64(p + Q2_AT_SNAPSHOTS_OFFSET),
        .refcount_order = 4,
        .header_length = Q2_HEADER_V2_BYTES,
    };
}

static void load_v3_fields(const uint8_t *p, struct q2_header *h)
{
    h->incompatible_features = q2_load_be64(p + Q2_AT_INCOMPATIBLE_FEATURES);
    h->compatible_features = q2_load_be64(p + Q2_AT_COMPATIBLE_FEATURES);
    h->autoclear_features = q2_load_be64(p + Q2_AT_AUTOCLEAR_FEATURES);
    h->refcount_order = q2_load_be32(p + Q2_AT_REFCOUNT_ORDER);
    h->header_length = q2_load_be32(p + Q2_AT_HEADER_LENGTH);
    if (h->header_length > Q2_AT_COMPRESSION_TYPE)
        h->compression_type = p[Q2_AT_COMPRESSION_TYPE];
}

void q2_header_peek(const void *buf, size_t n_bytes, struct q2_header *out)
{
    const struct q2_header_view v = {buf, n_bytes};
    uint8_t fields[Q2_HEADER_V3_BYTES];

    q2_header_view_copy(&v, 0, fields, sizeof(fields));
    load_fields(fields, out);
    if (out->version >= 3)
        load_v3_fields(fields, out);
}

static int check_identity(const uint8_t *p, const struct q2_header *h,
                          struct q2_error *err)
{
    if (q2_load_be32(p + Q2_AT_MAGIC) != Q2_MAGIC)
        return q2_fail(err, -EINVAL, "Image is not in qcow2 format");
    // What no version to come will be called is damage.
    if (h->version < 2 || h->version > 3)
        return q2_fail(err,
                       h->version < 2 || h->version > MAX_VERSION ? -EINVAL : -ENOTSUP,
                       "Unsupported qcow2 version %" PRIu32, h->version);
    if (h->cluster_bits < Q2_MIN_CLUSTER_BITS || h->cluster_bits > Q2_MAX_CLUSTER_BITS)
        return q2_fail(err, -EINVAL, "Unsupported cluster size: 2^%" PRIu32,
                       h->cluster_bits);
    return 0;
}

static int check_lengths(const struct q2_header *h, struct q2_error *err)
{
    if (h->version >= 3 && h->header_length < Q2_HEADER_V3_MIN_BYTES)
        return q2_fail(err, -EINVAL, "qcow2 header too short (header_length %" PRIu32 ")",
                       h->header_length);
    if (h->header_length > q2_header_cluster_size(h))
        return q2_fail(err, -EINVAL,
                       "qcow2 header exceeds cluster size (header_length %" PRIu32 ")",
                       h->header_length);
    if (h->header_length % 8)
        return q2_fail(
            err, -EINVAL,
            "qcow2 header length is not a multiple of 8 (header_length %" PRIu32 ")",
            h->header_length);
    if (h->backing_file_offset > q2_header_cluster_size(h))
        return q2_fail(err, -EINVAL,
                       "Invalid backing file offset (backing_file_offset %" PRIu64 ")",
                       h->backing_file_offset);
    return 0;
}

static int check_compression(const struct q2_header *h, struct q2_error *err)
{
    bool bit = h->incompatible_features & Q2_INCOMPAT_COMPRESSION;

    if (h->compression_type > Q2_COMPRESSION_ZSTD)
        return q2_fail(err, bit ? -ENOTSUP : -EINVAL,
                       "qcow2: unknown compression type: %u", h->compression_type);
    if (bit && h->compression_type == Q2_COMPRESSION_ZLIB)
        return q2_fail(
            err, -EINVAL,
            "qcow2: Compression type incompatible feature bit must not be set");
    if (!bit && h->compression_type != Q2_COMPRESSION_ZLIB)
        return q2_fail(err, -EINVAL,
                       "qcow2: Compression type incompatible feature bit must be set");
    return 0;
}

static int check_widths(const struct q2_header *h, struct q2_error *err)
{
    if ((h->incompatible_features & Q2_INCOMPAT_EXTENDED_L2) &&
        h->cluster_bits < Q2_MIN_EXTENDED_CLUSTER_BITS)
        return q2_fail(err, -EINVAL, "Unsupported subcluster size: %u",
                       1U << (h->cluster_bits - 5));
    if (h->refcount_order > Q2_MAX_REFCOUNT_ORDER)
        return q2_fail(err, -EINVAL,
                       "Reference count entry width too large; may not exceed 64 bits "
                       "(refcount_order %" PRIu32 ")",
                       h->refcount_order);
    return 0;
}

// A table in the file: its number of entries (or clusters) and its place.
struct table {
    const char *name;
    const char *count_field;
    uint64_t count;
    uint64_t max_count;
    uint64_t entry_bytes;
    const char *offset_field;
    uint64_t offset;
};

static int check_table(const struct q2_header *h, const struct table *t,
                       struct q2_error *err)
{
    if (t->count > t->max_count)
        return q2_fail(err, -EFBIG, "%s too large (%s %" PRIu64 ")", t->name,
                       t->count_field, t->count);
    if (t->offset > MAX_OFFSET - t->count * t->entry_bytes ||
        !q2_is_aligned(t->offset, q2_header_cluster_size(h)))
        return q2_fail(err, -EINVAL, "%s offset invalid (%s %" PRIu64 ")", t->name,
                       t->offset_field, t->offset);
    return 0;
}

static int check_tables(const struct q2_header *h, struct q2_error *err)
{
    uint64_t cluster_size = q2_header_cluster_size(h);
    const struct table tables[] = {
        {"Reference count table", "refcount_table_clusters", h->refcount_table_clusters,
         Q2_MAX_REFCOUNT_TABLE_BYTES / cluster_size, cluster_size,
         "refcount_table_offset", h->refcount_table_offset},
        {"Snapshot table", "nb_snapshots", h->nb_snapshots, Q2_MAX_SNAPSHOTS,
         SNAPSHOT_ENTRY_MIN_BYTES, "snapshots_offset", h->snapshots_offset},
        {"Active L1 table", "l1_size", h->l1_size, Q2_MAX_L1_BYTES / 8, 8,
         "l1_table_offset", h->l1_table_offset},
    };

    if (h->refcount_table_clusters == 0)
        return q2_fail(err, -EINVAL,
                       "Image does not contain a reference count table "
                       "(refcount_table_clusters 0)");
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
        int ret = check_table(h, &tables[i], err);
        if (ret < 0)
            return ret;
    }
    return 0;
}

static int check_l1_covers_size(const struct q2_header *h, struct q2_error *err)
{
    bool extended = h->incompatible_features & Q2_INCOMPAT_EXTENDED_L2;
    unsigned l2_bits = h->cluster_bits - (extended ? 4 : 3);
    uint64_t needed =
        q2_div_round_up(h->size, UINT64_C(1) << (h->cluster_bits + l2_bits));

    if (needed > INT32_MAX)
        return q2_fail(err, -EFBIG, "Image is too big (size %" PRIu64 ")", h->size);
    if (h->l1_size < needed)
        return q2_fail(err, -EINVAL,
                       "L1 table is too small (l1_size %" PRIu32 ", size %" PRIu64
                       " needs %" PRIu64 ")",
                       h->l1_size, h->size, needed);
    return 0;
}

static int check_fields(const struct q2_header_view *v, const struct q2_header *h,
                        struct q2_error *err)
{
    int ret = check_compression(h, err);
    if (ret == 0 && (h->incompatible_features & ~Q2_INCOMPAT_KNOWN))
        ret = q2_header_refuse_features(v, h, err);
    if (ret == 0)
        ret = check_widths(h, err);
    if (ret == 0)
        ret = check_tables(h, err);
    if (ret == 0)
        ret = check_l1_covers_size(h, err);
    if (ret == 0 && h->crypt_method > Q2_CRYPT_LUKS)
        ret = q2_fail(err, -EINVAL, "Unsupported encryption method %" PRIu32,
                      h->crypt_method);
    return ret;
}

// What fields and extensions say of each other.
static int check_features(const struct q2_header *h, struct q2_error *err)
{
    if ((h->autoclear_features & Q2_AUTOCLEAR_DATA_FILE_RAW) &&
        !(h->incompatible_features & Q2_INCOMPAT_DATA_FILE))
        return q2_fail(err, -EINVAL, "data-file-raw requires a data file");
    if (h->crypt_method == Q2_CRYPT_LUKS && !h->has_crypto)
        return q2_fail(err, -EINVAL, "Missing CRYPTO header for crypt method %" PRIu32,
                       h->crypt_method);
    return 0;
}

static int load_unknown_fields(const struct q2_header_view *v, struct q2_header *h,
                               struct q2_error *err)
{
    if (h->header_length <= Q2_AT_UNKNOWN_FIELDS)
        return 0;
    h->unknown_fields_bytes = h->header_length - Q2_AT_UNKNOWN_FIELDS;
    h->unknown_fields = malloc(h->unknown_fields_bytes);
    if (!h->unknown_fields)
        return q2_fail_memory(err, h->unknown_fields_bytes);
    q2_header_view_copy(v, Q2_AT_UNKNOWN_FIELDS, h->unknown_fields,
                        h->unknown_fields_bytes);
    return 0;
}

static int load_backing_file(const struct q2_header_view *v, struct q2_header *h,
                             struct q2_error *err)
{
    if (h->backing_file_offset == 0)
        return 0;

    uint64_t room = q2_header_cluster_size(h) - h->backing_file_offset;
    if (h->backing_file_size > q2_min_u64(Q2_MAX_BACKING_NAME, room))
        return q2_fail(err, -EINVAL,
                       "Backing file name too long (backing_file_size %" PRIu32 ")",
                       h->backing_file_size);

    char *name = malloc((size_t)h->backing_file_size + 1);
    if (!name)
        return q2_fail_memory(err, (size_t)h->backing_file_size + 1);
    q2_header_view_copy(v, (size_t)h->backing_file_offset, name, h->backing_file_size);
    name[h->backing_file_size] = '\0';
    // An empty name means that there is none.
    if (name[0])
        h->backing_file = name;
    else
        free(name);
    return 0;
}

int q2_header_decode(const void *buf, size_t n_bytes, struct q2_header *out,
                     struct q2_error *err)
{
    struct q2_header_view v = {buf, n_bytes};
    uint8_t fields[Q2_HEADER_V3_BYTES];
    struct q2_header h;

    q2_header_view_copy(&v, 0, fields, sizeof(fields));
    load_fields(fields, &h);
    int ret = check_identity(fields, &h, err);
    if (ret < 0)
        return ret;
    if (h.version >= 3)
        load_v3_fields(fields, &h);

    ret = check_lengths(&h, err);
    if (ret == 0)
        ret = check_fields(&v, &h, err);
    if (ret == 0)
        ret = load_unknown_fields(&v, &h, err);
    if (ret == 0)
        ret = q2_header_extensions_decode(&v, &h, err);
    if (ret == 0)
        ret = check_features(&h, err);
    if (ret == 0)
        ret = load_backing_file(&v, &h, err);

    if (ret < 0)
        q2_header_clear(&h);
    else
        *out = h;
    return ret;
}
