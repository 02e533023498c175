// SPDX-License-Identifier: MIT
// Both codecs: what goes in comes out, and broken streams end in an error.
#include "image/codec.h"

#include <errno.h>
#include <zlib.h>
#include <zstd.h>

#include "test.h"

#define MAX_CLUSTER (UINT32_C(2) << 20)

static const char *const type_names[] = {"zlib", "zstd"};

enum content { ZEROS, WORDS, NOISE, N_CONTENTS };
static const char *const content_names[] = {"zeros", "words", "noise"};

static void fill(uint8_t *buf, size_t n_bytes, enum content kind)
{
    uint32_t x = 12345;
    for (size_t i = 0; i < n_bytes; i++) {
        x = x * 1664525 + 1013904223;
        buf[i] =
            kind == ZEROS ? 0
            : kind == WORDS
                ? (uint8_t)((unsigned char)"the quick brown fox "[i % 20] ^ (x >> 31))
                : (uint8_t)(x >> 24);
    }
}

// A whole stream, with bytes behind it, and with its end cut off.
static void read_back(enum q2_compression type, const uint8_t *plain, size_t n_bytes,
                      uint8_t *packed, size_t n_packed, const char *name)
{
    struct q2_error err = Q2_ERROR_INIT;
    uint8_t *out = malloc(n_bytes);
    size_t n_used = 0;
    if (!out)
        abort();
    memset(packed + n_packed, 0xa5, 600);
    ok(q2_decompress(type, packed, n_packed, out, n_bytes, &err) == 0 &&
           memcmp(out, plain, n_bytes) == 0,
       "%s comes back", name);
    memset(out, 1, n_bytes);
    ok(q2_decompress(type, packed, n_packed + 600, out, n_bytes, &err) == 0 &&
           memcmp(out, plain, n_bytes) == 0,
       "%s comes back from among other bytes", name);
    is_int(q2_decompress_whole(type, packed, n_packed + 600, out, n_bytes, &n_used, &err),
           0, "%s is whole", name);
    is_u64(n_used, n_packed, "%s: where it ends", name);
    is_int(q2_decompress_whole(type, packed, n_packed - 1, out, n_bytes, &n_used, &err),
           -EIO, "%s without its end", name);
    is_u64(n_used, n_packed - 1, "%s: all was looked at", name);
    is_int(q2_decompress(type, packed, n_packed / 2, out, n_bytes, &err), -EIO,
           "%s without its half", name);
    is_int(q2_decompress(type, packed, 0, out, n_bytes, &err), -EIO, "%s: nothing", name);
    free(out);
}

static void round_trip(enum q2_compression type, size_t n_bytes, enum content kind,
                       int level)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_compressor *c;
    uint8_t *plain = malloc(n_bytes), *packed = malloc(n_bytes + 600);
    char name[100];
    if (!plain || !packed)
        abort();
    snprintf(name, sizeof(name), "%s, level %d, %zu bytes of %s", type_names[type], level,
             n_bytes, content_names[kind]);
    fill(plain, n_bytes, kind);
    if (q2_compressor_new(type, level, &c, &err) < 0)
        abort();
    // The second time is the one that counts: nothing stays from the first.
    q2_compress(c, plain, n_bytes / 2, packed);
    size_t n = q2_compress(c, plain, n_bytes, packed);
    q2_compressor_free(c);
    if (kind == NOISE)
        is_u64(n, 0, "%s do not shrink", name);
    else if (ok(n > 0 && n < n_bytes, "%s shrink", name))
        read_back(type, plain, n_bytes, packed, n, name);
    free(plain);
    free(packed);
}

static void round_trips(void)
{
    static const size_t sizes[] = {512, 4096, 65536, MAX_CLUSTER};
    for (unsigned type = 0; type < 2; type++)
        for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
            for (unsigned kind = 0; kind < N_CONTENTS; kind++)
                round_trip(type, sizes[i], kind, 0);
    for (unsigned type = 0; type < 2; type++) {
        for (int level = 1; level <= 9; level++)
            round_trip(type, 65536, WORDS, level);
        round_trip(type, 65536, WORDS, Q2_LEVEL_BEST);
        for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
            for (unsigned kind = 0; kind < N_CONTENTS; kind++)
                round_trip(type, sizes[i], kind, Q2_LEVEL_FAST);
    }
}

// Inflates through a window of 12 bits and no more: the output goes out in small pieces.
static bool fits_window(const uint8_t *packed, size_t n_packed, const uint8_t *plain,
                        size_t n_bytes)
{
    uint8_t piece[100];
    size_t done = 0;
    int ret = Z_OK;
    z_stream s = {.next_in = (z_const Bytef *)packed, .avail_in = (uInt)n_packed};
    if (inflateInit2(&s, -12) != Z_OK)
        abort();
    while (ret == Z_OK && done <= n_bytes) {
        s.next_out = piece;
        s.avail_out = sizeof(piece);
        ret = inflate(&s, Z_NO_FLUSH);
        size_t n = sizeof(piece) - s.avail_out;
        if (n > n_bytes - done || memcmp(piece, plain + done, n) != 0)
            break;
        done += n;
    }
    inflateEnd(&s);
    return ret == Z_STREAM_END && done == n_bytes;
}

// What repeats at every distance up to 32 KiB, which is what deflate at its widest
// reaches for; behind it, what repeats nearby.
static void fill_distances(uint8_t *buf, size_t n_bytes)
{
    fill(buf, n_bytes, NOISE);
    for (size_t at = 40000, distance = 64; at + 64 < n_bytes; at += 96)
        memcpy(buf + at, buf + at - (distance = distance % 32000 + 67), 64);
}

static void windows(void)
{
    static const int levels[] = {Q2_LEVEL_DEFAULT, Q2_LEVEL_FAST, Q2_LEVEL_BEST, 1, 9};
    enum { SIZE = 1 << 20 };
    struct q2_error err = Q2_ERROR_INIT;
    uint8_t *plain = malloc(SIZE), *packed = malloc(SIZE), *again = malloc(SIZE);
    if (!plain || !packed || !again)
        abort();
    fill_distances(plain, SIZE);
    for (size_t i = 0; i < sizeof(levels) / sizeof(*levels); i++) {
        struct q2_compressor *c;
        if (q2_compressor_new(Q2_COMPRESSION_ZLIB, levels[i], &c, &err) < 0)
            abort();
        size_t n = q2_compress(c, plain, SIZE, packed);
        ok(n > 0 && n < SIZE, "level %d: repeated bytes shrink", levels[i]);
        ok(fits_window(packed, n, plain, SIZE), "level %d: no distance above 4096",
           levels[i]);
        q2_compress(c, packed, n, again);
        ok(q2_compress(c, plain, SIZE, again) == n && memcmp(packed, again, n) == 0,
           "level %d: the same bytes whatever came before", levels[i]);
        q2_compressor_free(c);
    }
    free(plain);
    free(packed);
    free(again);
}

// A distance of 30000, in a stream of another writer.
static void wide_window(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    static uint8_t plain[65536], packed[65536], out[65536];
    z_stream s = {.next_in = plain, .avail_in = sizeof(plain)};
    fill(plain, sizeof(plain), NOISE);
    memcpy(plain + 32768, plain + 2768, 30000);
    if (deflateInit2(&s, 9, Z_DEFLATED, -15, 9, Z_DEFAULT_STRATEGY) != Z_OK)
        abort();
    s.next_out = packed;
    s.avail_out = sizeof(packed);
    if (deflate(&s, Z_FINISH) != Z_STREAM_END)
        abort();
    deflateEnd(&s);
    ok(!fits_window(packed, sizeof(packed) - s.avail_out, plain, sizeof(plain)),
       "a window of 15 bits is noticed");
    ok(q2_decompress(Q2_COMPRESSION_ZLIB, packed, sizeof(packed) - s.avail_out, out,
                     sizeof(out), &err) == 0 &&
           memcmp(out, plain, sizeof(out)) == 0,
       "it is read");
}

// Every byte of a stream is made wrong in turn: an error, or a cluster; no more.
static void damaged(enum q2_compression type)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_compressor *c;
    uint8_t plain[4096], packed[4096], guarded[4096 + 1];
    unsigned n_errors = 0;
    bool inside = true;
    fill(plain, sizeof(plain), WORDS);
    if (q2_compressor_new(type, 0, &c, &err) < 0)
        abort();
    size_t n = q2_compress(c, plain, sizeof(plain), packed);
    q2_compressor_free(c);
    for (size_t i = 0; i < n; i++)
        for (unsigned bit = 0; bit < 8; bit++) {
            packed[i] ^= (uint8_t)(1U << bit);
            guarded[4096] = 0x5a;
            int ret = q2_decompress(type, packed, n, guarded, 4096, &err);
            n_errors += ret == -EIO;
            inside &= guarded[4096] == 0x5a && (ret == 0 || ret == -EIO);
            packed[i] ^= (uint8_t)(1U << bit);
        }
    ok(inside, "%s: a damaged stream writes nothing outside", type_names[type]);
    ok(n_errors > 0, "%s: %u of %zu damaged streams are noticed", type_names[type],
       n_errors, n * 8);
    memset(packed, 0xff, 16);
    is_int(q2_decompress(type, packed, n, guarded, 4096, &err), -EIO, "%s: no stream",
           type_names[type]);
    has_str(err.message, "compressed data does not", "%s: says so", type_names[type]);
}

// A frame from a writer that does not know the size before, with the largest window.
static size_t stream(const uint8_t *plain, size_t n_bytes, uint8_t *packed, size_t room)
{
    ZSTD_CCtx *c = ZSTD_createCCtx();
    ZSTD_outBuffer out = {packed, room, 0};
    size_t n_head = n_bytes / 3;
    ZSTD_inBuffer head = {plain, n_head, 0}, rest = {plain + n_head, n_bytes - n_head, 0};
    ZSTD_CCtx_setParameter(c, ZSTD_c_windowLog, 27);
    if (ZSTD_isError(ZSTD_compressStream2(c, &out, &head, ZSTD_e_flush)) ||
        ZSTD_compressStream2(c, &out, &rest, ZSTD_e_end) != 0)
        abort();
    ZSTD_freeCCtx(c);
    return out.pos;
}

static void other_writers(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    static uint8_t plain[65536], packed[2 * 65536], out[65536];
    size_t n_used;
    fill(plain, sizeof(plain), WORDS);
    size_t n = stream(plain, sizeof(plain), packed, sizeof(packed));
    is_u64(ZSTD_getFrameContentSize(packed, n), ZSTD_CONTENTSIZE_UNKNOWN,
           "the frame does not say how long it is");
    ok(q2_decompress_whole(Q2_COMPRESSION_ZSTD, packed, n + 100, out, sizeof(out),
                           &n_used, &err) == 0 &&
           n_used == n && memcmp(out, plain, sizeof(plain)) == 0,
       "it is read");
    is_int(q2_decompress(Q2_COMPRESSION_ZSTD, packed, n, out, 65535, &err), -EIO,
           "a frame that is longer than the cluster");
    n = stream(plain, 1000, packed, sizeof(packed));
    is_int(q2_decompress(Q2_COMPRESSION_ZSTD, packed, n, out, 65536, &err), -EIO,
           "a frame that is shorter");
    n += stream(plain + 1000, 3000, packed + n, sizeof(packed) - n);
    ok(q2_decompress(Q2_COMPRESSION_ZSTD, packed, n, out, 4000, &err) == 0 &&
           memcmp(out, plain, 4000) == 0,
       "two frames make a cluster");
}

static void levels(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_compressor *c;
    is_int(q2_compressor_new(Q2_COMPRESSION_ZLIB, 10, &c, &err), -EINVAL,
           "zlib has no level 10");
    has_str(err.message, "level 10", "which is said");
    q2_compressor_free(NULL);
}

int main(void)
{
    round_trips();
    damaged(Q2_COMPRESSION_ZLIB);
    damaged(Q2_COMPRESSION_ZSTD);
    other_writers();
    windows();
    wide_window();
    levels();
    return done_testing();
}
