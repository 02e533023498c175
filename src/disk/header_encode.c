// SPDX-License-Identifier: MIT
// Encoding the header, and what its struct owns.
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/endian.h"
#include "disk/header_private.h"

// QEMU writes names of features only where a cluster has room to spare.
#define MIN_FEATURE_TABLE_CLUSTER_BITS 13U

static const struct feature {
    uint8_t type; // 0 incompatible, 1 compatible, 2 autoclear
    uint8_t bit;
    const char *name;
} features[] = {
    {0, 0, "dirty bit"},
    {0, 1, "corrupt bit"},
    {0, 2, "external data file"},
    {0, 3, "compression type"},
    {0, 4, "extended L2 entries"},
    {1, 0, "lazy refcounts"},
    {2, 0, "bitmaps"},
    {2, 1, "raw external data"},
};

#define N_FEATURES (sizeof(features) / sizeof(features[0]))

// The cluster being filled. Once something did not fit, nothing more is put.
struct output {
    uint8_t *buf;
    size_t size;
    size_t at;
    bool full;
};

// n_bytes of data, then zeros up to padded bytes.
static void put(struct output *o, const void *data, size_t n_bytes, size_t padded)
{
    if (o->full || padded > o->size - o->at) {
        o->full = true;
        return;
    }
    if (n_bytes)
        memcpy(o->buf + o->at, data, n_bytes);
    o->at += padded;
}

static void put_extension(struct output *o, uint32_t type, const void *data,
                          size_t n_bytes)
{
    uint8_t head[Q2_EXT_HEAD_BYTES];
    q2_store_be32(head, type);
    q2_store_be32(head + 4, (uint32_t)n_bytes);
    put(o, head, sizeof(head), sizeof(head));
    put(o, data, n_bytes, (size_t)q2_align_up(n_bytes, 8));
}

static void put_crypto(struct output *o, const struct q2_header *h)
{
    uint8_t data[Q2_EXT_CRYPTO_BYTES];
    q2_store_be64(data, h->crypto_header_offset);
    q2_store_be64(data + 8, h->crypto_header_length);
    put_extension(o, Q2_EXT_CRYPTO, data, sizeof(data));
}

static void put_bitmaps(struct output *o, const struct q2_header *h)
{
    uint8_t data[Q2_EXT_BITMAPS_BYTES] = {0};
    q2_store_be32(data, h->nb_bitmaps);
    q2_store_be64(data + 8, h->bitmap_directory_size);
    q2_store_be64(data + 16, h->bitmap_directory_offset);
    put_extension(o, Q2_EXT_BITMAPS, data, sizeof(data));
}

static void put_feature_table(struct output *o)
{
    uint8_t data[N_FEATURES * Q2_FEATURE_ENTRY_BYTES] = {0};
    for (size_t i = 0; i < N_FEATURES; i++) {
        uint8_t *entry = data + i * Q2_FEATURE_ENTRY_BYTES;
        entry[0] = features[i].type;
        entry[1] = features[i].bit;
        memcpy(entry + 2, features[i].name, strlen(features[i].name));
    }
    put_extension(o, Q2_EXT_FEATURE_TABLE, data, sizeof(data));
}

static bool has_extension(const struct q2_header *h, uint32_t type)
{
    for (unsigned i = 0; i < h->n_extensions; i++)
        if (h->extensions[i].type == type)
            return true;
    return false;
}

static void put_kept(struct output *o, const struct q2_header *h,
                     const struct q2_extension *e)
{
    if (e->type == Q2_EXT_CRYPTO && h->has_crypto)
        put_crypto(o, h);
    else if (e->type == Q2_EXT_BITMAPS && h->has_bitmaps)
        put_bitmaps(o, h);
    else if (e->type != Q2_EXT_FEATURE_TABLE || h->version >= 3)
        put_extension(o, e->type, e->data, e->n_bytes);
}

static void put_extensions(struct output *o, const struct q2_header *h)
{
    bool add_table = h->version >= 3 && !has_extension(h, Q2_EXT_FEATURE_TABLE) &&
                     h->cluster_bits >= MIN_FEATURE_TABLE_CLUSTER_BITS;
    bool add_bitmaps = h->has_bitmaps && !has_extension(h, Q2_EXT_BITMAPS);
    unsigned i = 0;

    if (h->backing_format)
        put_extension(o, Q2_EXT_BACKING_FORMAT, h->backing_format,
                      strlen(h->backing_format));
    if (h->data_file)
        put_extension(o, Q2_EXT_DATA_FILE, h->data_file, strlen(h->data_file));
    if (h->has_crypto && !has_extension(h, Q2_EXT_CRYPTO))
        put_crypto(o, h);
    for (; i < h->n_extensions && h->extensions[i].type == Q2_EXT_CRYPTO; i++)
        put_kept(o, h, &h->extensions[i]);
    if (add_table)
        put_feature_table(o);
    for (; i < h->n_extensions && h->extensions[i].type == Q2_EXT_FEATURE_TABLE; i++)
        put_kept(o, h, &h->extensions[i]);
    if (add_bitmaps)
        put_bitmaps(o, h);
    for (; i < h->n_extensions; i++)
        put_kept(o, h, &h->extensions[i]);
    put_extension(o, Q2_EXT_END, NULL, 0);
}

static void store_fields(const struct q2_header *h, uint8_t *p)
{
    q2_store_be32(p + Q2_AT_MAGIC, Q2_MAGIC);
    q2_store_be32(p + Q2_AT_VERSION, h->version);
    q2_store_be64(p + Q2_AT_BACKING_FILE_OFFSET, h->backing_file_offset);
    q2_store_be32(p + Q2_AT_BACKING_FILE_SIZE, h->backing_file_size);
    q2_store_be32(p + Q2_AT_CLUSTER_BITS, h->cluster_bits);
    q2_store_be64(p + Q2_AT_SIZE, h->size);
    q2_store_be32(p + Q2_AT_CRYPT_METHOD, h->crypt_method);
    q2_store_be32(p + Q2_AT_L1_SIZE, h->l1_size);
    q2_store_be64(p + Q2_AT_L1_TABLE_OFFSET, h->l1_table_offset);
    q2_store_be64(p + Q2_AT_REFCOUNT_TABLE_OFFSET, h->refcount_table_offset);
    q2_store_be32(p + Q2_AT_REFCOUNT_TABLE_CLUSTERS, h->refcount_table_clusters);
    q2_store_be32(p + Q2_AT_NB_SNAPSHOTS, h->nb_snapshots);
    q2_store_be64(p + Q2_AT_SNAPSHOTS_OFFSET, h->snapshots_offset);
    if (h->version < 3)
        return;
    q2_store_be64(p + Q2_AT_INCOMPATIBLE_FEATURES, h->incompatible_features);
    q2_store_be64(p + Q2_AT_COMPATIBLE_FEATURES, h->compatible_features);
    q2_store_be64(p + Q2_AT_AUTOCLEAR_FEATURES, h->autoclear_features);
    q2_store_be32(p + Q2_AT_REFCOUNT_ORDER, h->refcount_order);
    q2_store_be32(p + Q2_AT_HEADER_LENGTH, h->header_length);
    p[Q2_AT_COMPRESSION_TYPE] = h->compression_type;
    if (h->unknown_fields_bytes)
        memcpy(p + Q2_AT_UNKNOWN_FIELDS, h->unknown_fields, h->unknown_fields_bytes);
}

static uint32_t computed_length(const struct q2_header *h)
{
    if (h->version < 3)
        return Q2_HEADER_V2_BYTES;
    uint64_t length =
        q2_align_up(Q2_AT_UNKNOWN_FIELDS + (uint64_t)h->unknown_fields_bytes, 8);
    return (uint32_t)q2_max_u64(length, Q2_HEADER_V3_BYTES);
}

int q2_header_encode(struct q2_header *h, void *buf, size_t *used, struct q2_error *err)
{
    size_t cluster_size = (size_t)q2_header_cluster_size(h);
    struct output o = {.buf = buf, .size = cluster_size};
    size_t name_bytes = h->backing_file ? strlen(h->backing_file) : 0;

    if (name_bytes > Q2_MAX_BACKING_NAME)
        return q2_fail(err, -EINVAL, "Backing file name too long (%zu bytes)",
                       name_bytes);

    memset(buf, 0, cluster_size);
    h->header_length = computed_length(h);
    put(&o, NULL, 0, h->header_length);
    put_extensions(&o, h);
    h->backing_file_offset = name_bytes ? o.at : 0;
    h->backing_file_size = (uint32_t)name_bytes;
    put(&o, h->backing_file, name_bytes, name_bytes);
    if (o.full)
        return q2_fail(err, -ENOSPC,
                       "The header, its extensions and the backing file's name do not "
                       "fit in a cluster of %zu bytes",
                       cluster_size);
    store_fields(h, buf);
    *used = o.at;
    return 0;
}

void q2_header_clear(struct q2_header *h)
{
    for (unsigned i = 0; i < h->n_extensions; i++)
        free(h->extensions[i].data);
    free(h->extensions);
    free(h->unknown_fields);
    free(h->backing_file);
    free(h->backing_format);
    free(h->data_file);
    *h = (struct q2_header){0};
}

// NULL stays NULL; false when memory is short.
static bool copy_string(const char *from, char **to)
{
    *to = from ? strdup(from) : NULL;
    return *to || !from;
}

static bool copy_bytes(const uint8_t *from, size_t n, uint8_t **to)
{
    *to = n ? malloc(n) : NULL;
    if (*to)
        memcpy(*to, from, n);
    return *to || !n;
}

static bool copy_extensions(const struct q2_header *from, struct q2_header *to)
{
    to->extensions = NULL;
    to->n_extensions = 0;
    if (from->n_extensions == 0)
        return true;

    to->extensions = calloc(from->n_extensions, sizeof(*to->extensions));
    if (!to->extensions)
        return false;
    for (unsigned i = 0; i < from->n_extensions; i++) {
        const struct q2_extension *e = &from->extensions[i];
        to->extensions[i] = *e;
        to->n_extensions = i + 1;
        if (!copy_bytes(e->data, e->n_bytes, &to->extensions[i].data))
            return false;
    }
    return true;
}

int q2_header_copy(const struct q2_header *from, struct q2_header *to,
                   struct q2_error *err)
{
    struct q2_header h = *from;

    // All of them are tried, so that no pointer of from is left in h.
    bool ok =
        copy_bytes(from->unknown_fields, from->unknown_fields_bytes, &h.unknown_fields);
    ok = copy_string(from->backing_file, &h.backing_file) && ok;
    ok = copy_string(from->backing_format, &h.backing_format) && ok;
    ok = copy_string(from->data_file, &h.data_file) && ok;
    ok = copy_extensions(from, &h) && ok;
    if (!ok) {
        q2_header_clear(&h);
        return q2_fail(err, -ENOMEM, "Could not allocate memory for a header");
    }
    *to = h;
    return 0;
}
