// SPDX-License-Identifier: MIT
// What the parts of the header's code share; for src/disk/ alone.
#ifndef Q2_DISK_HEADER_PRIVATE_H
#define Q2_DISK_HEADER_PRIVATE_H

#include "disk/header.h"

// Offsets of the fields (qcow2 format: "Header").
enum {
    Q2_AT_MAGIC = 0,
    Q2_AT_VERSION = 4,
    Q2_AT_BACKING_FILE_OFFSET = 8,
    Q2_AT_BACKING_FILE_SIZE = 16,
    Q2_AT_CLUSTER_BITS = 20,
    Q2_AT_SIZE = 24,
    Q2_AT_CRYPT_METHOD = 32,
    Q2_AT_L1_SIZE = 36,
    Q2_AT_L1_TABLE_OFFSET = 40,
    Q2_AT_REFCOUNT_TABLE_OFFSET = 48,
    Q2_AT_REFCOUNT_TABLE_CLUSTERS = 56,
    Q2_AT_NB_SNAPSHOTS = 60,
    Q2_AT_SNAPSHOTS_OFFSET = 64,
    Q2_AT_INCOMPATIBLE_FEATURES = 72,
    Q2_AT_COMPATIBLE_FEATURES = 80,
    Q2_AT_AUTOCLEAR_FEATURES = 88,
    Q2_AT_REFCOUNT_ORDER = 96,
    Q2_AT_HEADER_LENGTH = 100,
    Q2_AT_COMPRESSION_TYPE = 104,
    Q2_AT_UNKNOWN_FIELDS = 105,
};

// The extensions' fixed parts.
#define Q2_EXT_HEAD_BYTES 8U
#define Q2_EXT_BITMAPS_BYTES 24U
#define Q2_EXT_CRYPTO_BYTES 16U

// An entry of the feature name table.
#define Q2_FEATURE_ENTRY_BYTES 48U
#define Q2_FEATURE_NAME_BYTES 46U

// The first cluster of a file that may end before the cluster does: zeros follow.
struct q2_header_view {
    const uint8_t *p;
    size_t n_bytes;
};

// Copies n bytes at offset, zeros where the file has ended.
void q2_header_view_copy(const struct q2_header_view *v, size_t offset, void *out,
                         size_t n);

// Where the extensions of h end: at the backing file's name or the end of the cluster.
static inline uint64_t q2_header_extensions_end(const struct q2_header *h)
{
    return h->backing_file_offset ? h->backing_file_offset : q2_header_cluster_size(h);
}

// Decodes all extensions into h, whose fields are valid.
int q2_header_extensions_decode(const struct q2_header_view *v, struct q2_header *h,
                                struct q2_error *err);

// -ENOTSUP, naming the unknown incompatible features by the image's own table.
int q2_header_refuse_features(const struct q2_header_view *v, const struct q2_header *h,
                              struct q2_error *err);

#endif
