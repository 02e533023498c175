// SPDX-License-Identifier: MIT
// Values that header extensions can have: where the bitmap directory and the LUKS header
// are, and how long.
#include <stdlib.h>

#include "base/checked.h"
#include "base/endian.h"
#include "check/bitmaps.h"
#include "check/heal_header.h"
#include "check/scan.h"
#include "disk/luks.h"

#define MAX_EXTENSIONS 16U
#define BITMAPS_BYTES 24U
#define CRYPTO_BYTES 16U
// So much of a bitmap directory is looked at.
#define MAX_DIRECTORY (UINT64_C(1) << 20)

// One extension: the place of its head.
struct place {
    unsigned at;
    uint32_t type, n_bytes;
};

// The next one from *at on; false: they end here, or make no sense.
static bool next(const struct q2_raw_header *r, unsigned *at, struct place *p)
{
    if (*at < Q2_HEADER_V2_BYTES || *at > sizeof(r->bytes) - 8)
        return false;
    *p = (struct place){*at, q2_load_be32(r->bytes + *at),
                        q2_load_be32(r->bytes + *at + 4)};
    if (p->type == Q2_EXT_END || p->n_bytes > sizeof(r->bytes) - 8 - *at)
        return false;
    *at += 8 + (unsigned)q2_align_up(p->n_bytes, 8);
    return true;
}

static unsigned first(const struct q2_raw_header *r)
{
    return r->version >= 3 ? q2_load_be32(r->bytes + 100) : Q2_HEADER_V2_BYTES;
}

void q2_candidates_find_extensions(struct q2_raw_header *r)
{
    unsigned at = first(r);
    struct place p;
    for (unsigned i = 0; i < MAX_EXTENSIONS && next(r, &at, &p); i++) {
        if (p.type == Q2_EXT_BITMAPS && p.n_bytes == BITMAPS_BYTES)
            r->bitmaps = p.at + 8;
        if (p.type == Q2_EXT_CRYPTO && p.n_bytes == CRYPTO_BYTES)
            r->crypto = p.at + 8;
    }
}

// An extension that should be there is not, and one of its length has another type.
static int add_types(struct q2_candidates *c, const struct q2_raw_header *r,
                     struct q2_error *err)
{
    bool no_bitmaps = !r->bitmaps && (r->autoclear & Q2_AUTOCLEAR_BITMAPS);
    bool no_crypto = !r->crypto && r->crypt_method == Q2_CRYPT_LUKS;
    unsigned at = first(r);
    struct place p;
    int ret = 0;
    for (unsigned i = 0; i < MAX_EXTENSIONS && ret == 0 && next(r, &at, &p); i++) {
        if (no_bitmaps && p.n_bytes == BITMAPS_BYTES)
            ret = q2_candidates_add(c, r, "extension type", p.at, 4, Q2_EXT_BITMAPS, err);
        else if (no_crypto && p.n_bytes == CRYPTO_BYTES)
            ret = q2_candidates_add(c, r, "extension type", p.at, 4, Q2_EXT_CRYPTO, err);
    }
    return ret;
}

// How many bitmaps the directory has, by its size, and what size, by their number.
static int add_bitmap_counts(struct q2_io *io, struct q2_candidates *c,
                             const struct q2_raw_header *r, struct q2_error *err)
{
    const uint8_t *data = r->bytes + r->bitmaps;
    uint64_t size = q2_load_be64(data + 8), offset = q2_load_be64(data + 16);
    uint64_t there = offset < r->file_size ? r->file_size - offset : 0;
    struct q2_directory d = {.n = q2_load_be32(data),
                             .n_bytes = (size_t)q2_min_u64(there, MAX_DIRECTORY)};
    size_t end;
    d.bytes = malloc(q2_to_size(q2_max_u64(d.n_bytes, 1)));
    if (!d.bytes)
        return q2_fail_memory(err, d.n_bytes);
    int ret = q2_io_read(io, offset, d.bytes, d.n_bytes, err);
    if (ret == 0 && q2_directory_walk(&d, &end) == d.n && d.n > 0)
        ret =
            q2_candidates_add(c, r, "bitmap_directory_size", r->bitmaps + 8, 8, end, err);
    d.n = Q2_MAX_BITMAPS;
    d.n_bytes = (size_t)q2_min_u64(d.n_bytes, size);
    unsigned n = ret == 0 ? q2_directory_walk(&d, &end) : 0;
    if (ret == 0 && n > 0 && end == d.n_bytes)
        ret = q2_candidates_add(c, r, "nb_bitmaps", r->bitmaps, 4, n, err);
    free(d.bytes);
    return ret < 0 ? ret
                   : q2_candidates_add(c, r, "reserved field of the bitmaps extension",
                                       r->bitmaps + 4, 4, 0, err);
}

// As much as the LUKS header says.
static int add_crypto_length(struct q2_io *io, struct q2_candidates *c,
                             const struct q2_raw_header *r, struct q2_error *err)
{
    uint64_t offset = q2_load_be64(r->bytes + r->crypto);
    uint8_t buf[Q2_LUKS_HEADER_BYTES];
    struct q2_luks_header luks;
    struct q2_error ignored = Q2_ERROR_INIT;
    if (offset >= r->file_size)
        return 0;
    int ret = q2_io_read(io, offset, buf, sizeof(buf), err);
    if (ret < 0 || q2_luks_decode(buf, sizeof(buf), &luks, &ignored) < 0)
        return ret;
    return q2_candidates_add(c, r, "crypto_header_length", r->crypto + 8, 8,
                             (uint64_t)luks.payload_offset_sectors * Q2_LUKS_SECTOR, err);
}

int q2_candidates_extensions(struct q2_io *io, struct q2_candidates *c,
                             const struct q2_raw_header *r, struct q2_error *err)
{
    int ret = add_types(c, r, err);
    if (ret == 0 && r->bitmaps)
        ret = add_bitmap_counts(io, c, r, err);
    if (ret == 0 && r->crypto)
        ret = add_crypto_length(io, c, r, err);
    if (ret == 0 && r->crypto)
        ret = q2_candidates_add(c, r, "crypt_method", 32, 4, Q2_CRYPT_LUKS, err);
    return ret;
}

int q2_candidates_extension_place(struct q2_candidates *c, const struct q2_raw_header *r,
                                  uint64_t offset, const uint8_t *buf, size_t n_bytes,
                                  struct q2_error *err)
{
    struct q2_error ignored = Q2_ERROR_INIT;
    struct q2_bitmap b;
    size_t used;
    if (r->crypto && q2_luks_probe(buf, n_bytes))
        return q2_candidates_add(c, r, "crypto_header_offset", r->crypto, 8, offset, err);
    if (!r->bitmaps || q2_bitmap_decode(buf, n_bytes, 0, &b, &used, &ignored) < 0)
        return 0;
    q2_bitmap_clear(&b);
    return q2_candidates_add(c, r, "bitmap_directory_offset", r->bitmaps + 16, 8, offset,
                             err);
}
