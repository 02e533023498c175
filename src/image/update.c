// SPDX-License-Identifier: MIT
// Changing single fields of the header. All of them lie in its first sector, so that
// nothing can tear the write, and each is durable before anything depends on it.
#include "image/update.h"

#include "base/endian.h"

#define HEADER_SIZE 24U           // size, crypt_method; l1_size and its offset follow
#define HEADER_SNAPSHOTS 60U      // nb_snapshots, snapshots_offset
#define HEADER_L1 36U             // l1_size, l1_table_offset
#define HEADER_REFCOUNT_TABLE 48U // offset, clusters
#define HEADER_INCOMPATIBLE 72U
#define HEADER_AUTOCLEAR 88U

// *written: the file says so now, if only for as long as nobody pulls the plug. That is
// what img->header has to follow, even when the flush fails.
static int write_field(struct q2_image *img, uint64_t offset, const void *field,
                       size_t n_bytes, bool *written, struct q2_error *err)
{
    *written = true;
    if (img->unpublished)
        return 0; // the header is yet to be written as a whole
    int ret = q2_io_write(img->disk.file, offset, field, n_bytes, err);
    *written = ret == 0;
    if (ret == 0)
        ret = q2_io_flush(img->disk.file, err);
    return ret < 0 ? q2_context(err, "Could not update qcow2 header") : ret;
}

int q2_image_set_incompatible(struct q2_image *img, uint64_t bits, struct q2_error *err)
{
    uint8_t field[8];
    bool written;
    if (img->header.version < 3 || bits == img->header.incompatible_features)
        return 0;
    q2_store_be64(field, bits);
    int ret = write_field(img, HEADER_INCOMPATIBLE, field, sizeof(field), &written, err);
    if (written)
        img->header.incompatible_features = bits;
    return ret;
}

int q2_image_set_autoclear(struct q2_image *img, uint64_t bits, struct q2_error *err)
{
    uint8_t field[8];
    bool written;
    if (bits == img->header.autoclear_features)
        return 0;
    q2_store_be64(field, bits);
    int ret = write_field(img, HEADER_AUTOCLEAR, field, sizeof(field), &written, err);
    if (written)
        img->header.autoclear_features = bits;
    return ret;
}

int q2_image_switch_refcount_table(struct q2_image *img, struct q2_error *err)
{
    uint8_t field[12];
    bool written;
    q2_store_be64(field, img->header.refcount_table_offset);
    q2_store_be32(field + 8, img->header.refcount_table_clusters);
    int ret =
        write_field(img, HEADER_REFCOUNT_TABLE, field, sizeof(field), &written, err);
    if (written)
        img->refcount_table_moved = false;
    return ret;
}

int q2_image_switch_l1(struct q2_image *img, uint64_t offset, uint32_t n_entries,
                       struct q2_error *err)
{
    uint8_t field[12];
    bool written;
    q2_store_be32(field, n_entries);
    q2_store_be64(field + 4, offset);
    int ret = write_field(img, HEADER_L1, field, sizeof(field), &written, err);
    if (written) {
        img->header.l1_size = n_entries;
        img->header.l1_table_offset = offset;
    }
    return ret;
}

int q2_image_switch_size(struct q2_image *img, uint64_t size, struct q2_error *err)
{
    uint8_t field[8];
    bool written;
    if (size == img->header.size)
        return 0;
    q2_store_be64(field, size);
    int ret = write_field(img, HEADER_SIZE, field, sizeof(field), &written, err);
    if (written)
        img->header.size = size;
    return ret;
}

int q2_image_switch_snapshots(struct q2_image *img, uint32_t n, uint64_t offset,
                              struct q2_error *err)
{
    uint8_t field[12];
    bool written;
    q2_store_be32(field, n);
    q2_store_be64(field + 4, offset);
    int ret = write_field(img, HEADER_SNAPSHOTS, field, sizeof(field), &written, err);
    if (written) {
        img->header.nb_snapshots = n;
        img->header.snapshots_offset = offset;
    }
    return ret;
}

int q2_image_switch_active(struct q2_image *img, uint64_t size, uint64_t l1_offset,
                           uint32_t n_entries, struct q2_error *err)
{
    uint8_t field[24];
    bool written;
    q2_store_be64(field, size);
    q2_store_be32(field + 8, img->header.crypt_method);
    q2_store_be32(field + 12, n_entries);
    q2_store_be64(field + 16, l1_offset);
    int ret = write_field(img, HEADER_SIZE, field, sizeof(field), &written, err);
    if (written) {
        img->header.size = size;
        img->header.l1_size = n_entries;
        img->header.l1_table_offset = l1_offset;
    }
    return ret;
}
