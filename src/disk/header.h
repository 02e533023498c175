// SPDX-License-Identifier: MIT
// The qcow2 header and its extensions (qcow2 format: "Header", "Header extensions").
#ifndef Q2_DISK_HEADER_H
#define Q2_DISK_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define Q2_MAGIC 0x514649fbU
#define Q2_HEADER_V2_BYTES 72U
#define Q2_HEADER_V3_MIN_BYTES 104U
#define Q2_HEADER_V3_BYTES 112U // what we write: compression_type and padding included

#define Q2_MIN_CLUSTER_BITS 9U
#define Q2_MAX_CLUSTER_BITS 21U
#define Q2_MIN_EXTENDED_CLUSTER_BITS 14U
#define Q2_MAX_L1_BYTES (32U << 20)
#define Q2_MAX_REFCOUNT_TABLE_BYTES (8U << 20)
#define Q2_MAX_SNAPSHOTS 65536U
#define Q2_MAX_SNAPSHOT_TABLE_BYTES ((uint64_t)1024 * Q2_MAX_SNAPSHOTS)
#define Q2_MAX_BACKING_NAME 1023U
#define Q2_MAX_REFCOUNT_ORDER 6U
#define Q2_MAX_BITMAPS 65535U
#define Q2_MAX_BITMAP_DIRECTORY_BYTES ((uint64_t)1024 * Q2_MAX_BITMAPS)

#define Q2_INCOMPAT_DIRTY (UINT64_C(1) << 0)
#define Q2_INCOMPAT_CORRUPT (UINT64_C(1) << 1)
#define Q2_INCOMPAT_DATA_FILE (UINT64_C(1) << 2)
#define Q2_INCOMPAT_COMPRESSION (UINT64_C(1) << 3)
#define Q2_INCOMPAT_EXTENDED_L2 (UINT64_C(1) << 4)
#define Q2_INCOMPAT_KNOWN                                              \
    (Q2_INCOMPAT_DIRTY | Q2_INCOMPAT_CORRUPT | Q2_INCOMPAT_DATA_FILE | \
     Q2_INCOMPAT_COMPRESSION | Q2_INCOMPAT_EXTENDED_L2)
#define Q2_COMPAT_LAZY_REFCOUNTS (UINT64_C(1) << 0)
#define Q2_AUTOCLEAR_BITMAPS (UINT64_C(1) << 0)
#define Q2_AUTOCLEAR_DATA_FILE_RAW (UINT64_C(1) << 1)
#define Q2_AUTOCLEAR_KNOWN (Q2_AUTOCLEAR_BITMAPS | Q2_AUTOCLEAR_DATA_FILE_RAW)

#define Q2_EXT_END 0x00000000U
#define Q2_EXT_BACKING_FORMAT 0xe2792acaU
#define Q2_EXT_FEATURE_TABLE 0x6803f857U
#define Q2_EXT_BITMAPS 0x23852875U
#define Q2_EXT_CRYPTO 0x0537be77U
#define Q2_EXT_DATA_FILE 0x44415441U

enum q2_crypt_method { Q2_CRYPT_NONE = 0, Q2_CRYPT_AES = 1, Q2_CRYPT_LUKS = 2 };
enum q2_compression { Q2_COMPRESSION_ZLIB = 0, Q2_COMPRESSION_ZSTD = 1 };

// One header extension as it stands in the file, known to us or not.
struct q2_extension {
    uint32_t type;
    uint32_t n_bytes;
    uint8_t *data; // n_bytes, owned
};

// The header, host-endian. Fields that version 2 lacks hold what version 2 implies.
struct q2_header {
    uint32_t version;
    uint64_t backing_file_offset;
    uint32_t backing_file_size;
    uint32_t cluster_bits;
    uint64_t size;
    uint32_t crypt_method;
    uint32_t l1_size; // entries
    uint64_t l1_table_offset;
    uint64_t refcount_table_offset;
    uint32_t refcount_table_clusters;
    uint32_t nb_snapshots;
    uint64_t snapshots_offset;
    uint64_t incompatible_features;
    uint64_t compatible_features;
    uint64_t autoclear_features;
    uint32_t refcount_order;
    uint32_t header_length;
    uint8_t compression_type;
    // Bytes 105 .. header_length of the header (padding and fields that we do not know),
    // kept byte for byte; owned, NULL if none.
    uint8_t *unknown_fields;
    uint32_t unknown_fields_bytes;

    char *backing_file;   // NUL-terminated, owned; NULL: none
    char *backing_format; // from its extension; owned; NULL: not given
    char *data_file;      // from its extension; owned; NULL: not given

    // All extensions but the end marker and the two strings above, in the file's order,
    // unknown ones included; owned.
    struct q2_extension *extensions;
    unsigned n_extensions;

    // Decoded from their extensions; 0 where the extension is absent. What is said here
    // is what q2_header_encode writes. has_bitmaps: only where the autoclear bit says
    // that the extension is valid; a stale one is kept in extensions alone, unread.
    bool has_bitmaps;
    uint32_t nb_bitmaps;
    uint64_t bitmap_directory_size;
    uint64_t bitmap_directory_offset;
    bool has_crypto;
    uint64_t crypto_header_offset;
    uint64_t crypto_header_length;
};

static inline uint64_t q2_header_cluster_size(const struct q2_header *h)
{
    return UINT64_C(1) << h->cluster_bits;
}

// True if buf starts as a qcow2 image does: magic, and version 2 or later.
bool q2_header_probe(const void *buf, size_t n_bytes);

// How many bytes of the file q2_header_decode wants to see: the first cluster, given the
// first 104 bytes (or as many as there are); at least 104, at most 2 MiB. A header that
// cannot be read at all gives 104.
size_t q2_header_bytes_needed(const void *buf, size_t n_bytes);

// The fields as they stand, nothing in them checked or owned; buf: the start of a file.
// For saying more of a header than that it cannot be used.
void q2_header_peek(const void *buf, size_t n_bytes, struct q2_header *out);

// Decodes the first cluster (buf; less when the file is shorter) and validates what the
// header alone can tell: every field, alignment, limits, unknown incompatible features by
// name, extensions, the backing file's name. Does not look at the file's size. *out is
// set only on success and is released with q2_header_clear. Messages as QEMU words them,
// with the field and its value.
int q2_header_decode(const void *buf, size_t n_bytes, struct q2_header *out,
                     struct q2_error *err);

// Writes header, extensions and backing file name into buf (one cluster, zeroed by the
// callee). Sets *used to the bytes that are meaningful. header_length,
// backing_file_offset and backing_file_size are computed, from version, unknown_fields
// and backing_file, and are updated in *h. Order as QEMU writes it: backing format, data
// file, encryption, feature names, bitmaps, others as they stood. Writes a feature name
// table (ours) for version 3 if the header has none and clusters have at least 8 KiB
// (QEMU's rule); drops one for version 2. -ENOSPC when it does not fit in a cluster.
int q2_header_encode(struct q2_header *h, void *buf, size_t *used, struct q2_error *err);

void q2_header_clear(struct q2_header *h);

// Deep copy.
int q2_header_copy(const struct q2_header *from, struct q2_header *to,
                   struct q2_error *err);

#endif
