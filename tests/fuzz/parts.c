// SPDX-License-Identifier: MIT
// Target: the decoders of single structures. The first byte chooses one; what it accepts
// can be written, and reads the same then.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/endian.h"
#include "base/utf8.h"
#include "disk/bitmap.h"
#include "disk/luks.h"
#include "image/codec.h"
#include "image/crypt_suite.h"
#include "tests/fuzz/fuzz.h"

// A header's first encoding may say things otherwise; the second one is the first.
static int recode_header(const uint8_t *p, size_t n, uint8_t **out, size_t *n_out)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_header h;
    *out = NULL;
    if (q2_header_decode(p, n, &h, &err) < 0)
        return -EINVAL;
    *n_out = (size_t)q2_header_cluster_size(&h);
    *out = malloc(*n_out);
    if (!*out)
        fuzz_give_up("no memory");
    int ret = q2_header_encode(&h, *out, n_out, &err);
    if (ret < 0 && ret != -ENOSPC)
        fuzz_broken("a header that was read cannot be written: %s", err.message);
    q2_header_clear(&h);
    return ret;
}

static void try_header(const uint8_t *p, size_t n)
{
    uint8_t *first, *second = NULL;
    size_t n_first, n_second;
    if (recode_header(p, n, &first, &n_first) == 0) {
        if (recode_header(first, n_first, &second, &n_second) < 0)
            fuzz_broken("a header that we wrote is refused");
        if (n_first != n_second || memcmp(first, second, n_first) != 0)
            fuzz_broken("a header changes when it is written again");
    }
    free(first);
    free(second);
}

static void try_snapshot(const uint8_t *p, size_t n)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_snapshot s, again;
    size_t used, used_again;
    if (q2_snapshot_decode(p, n, 1, &s, &used, &err) < 0)
        return;
    size_t n_encoded = q2_snapshot_bytes(&s);
    uint8_t *encoded = malloc(n_encoded), *second = malloc(n_encoded);
    if (!encoded || !second)
        fuzz_give_up("no memory");
    q2_snapshot_encode(&s, encoded);
    if (q2_snapshot_decode(encoded, n_encoded, 1, &again, &used_again, &err) < 0 ||
        used_again != n_encoded || q2_snapshot_bytes(&again) != n_encoded)
        fuzz_broken("a snapshot that we wrote is refused: %s", err.message);
    q2_snapshot_encode(&again, second);
    if (memcmp(encoded, second, n_encoded) != 0)
        fuzz_broken("a snapshot changes when it is written again");
    q2_snapshot_clear(&again);
    q2_snapshot_clear(&s);
    free(encoded);
    free(second);
}

#define MAX_BITMAPS 8U

static void try_directory(const uint8_t *p, size_t n)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_bitmap list[MAX_BITMAPS];
    unsigned n_bitmaps = n > 0 ? p[0] % MAX_BITMAPS : 0;
    if (n_bitmaps == 0 ||
        q2_bitmap_directory_decode(p + 1, n - 1, n_bitmaps, list, &err) < 0)
        return;
    for (unsigned i = 0; i < n_bitmaps; i++) {
        uint8_t *encoded = malloc(q2_bitmap_bytes(&list[i]));
        struct q2_bitmap again;
        size_t used;
        if (!encoded)
            fuzz_give_up("no memory");
        q2_bitmap_encode(&list[i], encoded);
        if (q2_bitmap_decode(encoded, q2_bitmap_bytes(&list[i]), i, &again, &used, &err) <
            0)
            fuzz_broken("a bitmap that we wrote is refused: %s", err.message);
        q2_bitmap_check(&again, UINT64_C(1) << 40, 16, &err);
        q2_bitmap_clear(&again);
        q2_bitmap_clear(&list[i]);
        free(encoded);
    }
}

static void try_luks(const uint8_t *p, size_t n)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_luks_header h, again;
    struct q2_crypt_suite suite;
    uint8_t encoded[Q2_LUKS_HEADER_BYTES], second[Q2_LUKS_HEADER_BYTES];
    if (q2_luks_decode(p, n, &h, &err) < 0)
        return;
    q2_crypt_suite_read(&h, &suite, &err);
    q2_luks_encode(&h, encoded);
    if (q2_luks_decode(encoded, sizeof(encoded), &again, &err) < 0)
        fuzz_broken("a LUKS header that we wrote is refused: %s", err.message);
    q2_luks_encode(&again, second);
    if (memcmp(encoded, second, sizeof(encoded)) != 0)
        fuzz_broken("a LUKS header changes when it is written again");
}

static void try_entries(const uint8_t *p, size_t n)
{
    if (n < 17)
        return;
    unsigned cluster_bits = 9 + p[0] % 13;
    uint64_t raw = q2_load_be64(p + 1), bitmap = q2_load_be64(p + 9);
    struct q2_l2_entry e = q2_l2_decode(raw, cluster_bits, p[0] & 0x80 ? 2 : 3);
    if (e.kind != Q2_CLUSTER_COMPRESSED)
        q2_l2_encode(&e, cluster_bits);
    if (cluster_bits < 14)
        return;
    e = q2_l2_decode_extended(raw, bitmap, cluster_bits, p[0] & 0x40);
    if (e.kind == Q2_CLUSTER_INVALID || e.kind == Q2_CLUSTER_COMPRESSED)
        return;
    uint64_t raw2 = q2_l2_encode_extended(&e, cluster_bits);
    struct q2_l2_entry again =
        q2_l2_decode_extended(raw2, q2_subcluster_bitmap(&e), cluster_bits, p[0] & 0x40);
    if (again.kind != e.kind || again.host_offset != e.host_offset)
        fuzz_broken("an extended entry changes when it is written again");
}

#define MAX_OUT 65536U

static void try_inflate(enum q2_compression type, const uint8_t *p, size_t n)
{
    static uint8_t out[MAX_OUT];
    struct q2_error err = Q2_ERROR_INIT;
    size_t used, n_out = n > 0 ? (size_t)512 << p[0] % 8 : 0;
    if (n_out == 0)
        return;
    q2_decompress(type, p + 1, n - 1, out, n_out, &err);
    q2_decompress_whole(type, p + 1, n - 1, out, n_out, &used, &err);
}

static void try_zlib(const uint8_t *p, size_t n)
{
    try_inflate(Q2_COMPRESSION_ZLIB, p, n);
}

static void try_zstd(const uint8_t *p, size_t n)
{
    try_inflate(Q2_COMPRESSION_ZSTD, p, n);
}

static void try_text(const uint8_t *p, size_t n)
{
    struct q2_error err = Q2_ERROR_INIT;
    uint8_t *copy = malloc(n + 1);
    if (!copy)
        fuzz_give_up("no memory");
    if (n > 0)
        memcpy(copy, p, n);
    copy[n] = '\0';
    q2_utf8_valid(copy, n);
    q2_base64_decode(copy, &n, &err);
    free(copy);
}

void fuzz_target_parts(const uint8_t *data, size_t n_bytes)
{
    static void (*const parts[])(const uint8_t *, size_t) = {
        try_header,  try_snapshot, try_directory, try_luks,
        try_entries, try_zlib,     try_zstd,      try_text,
    };
    if (n_bytes == 0)
        return;
    // A copy of its own, so that a read behind its end is seen.
    size_t n = n_bytes - 1;
    uint8_t *copy = malloc(n > 0 ? n : 1);
    if (!copy)
        fuzz_give_up("no memory");
    if (n > 0)
        memcpy(copy, data + 1, n);
    parts[data[0] % (sizeof(parts) / sizeof(parts[0]))](copy, n);
    free(copy);
}
