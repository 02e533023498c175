// SPDX-License-Identifier: MIT
// LUKS1's way from a passphrase to the master key (LUKS On-Disk Format Specification 1.2,
// "PBKDF2", "Anti-forensic information splitter"). A few stripes are in the clear at a
// time, and those in secure memory.
#include "image/crypt_key.h"

#include <assert.h>
#include <errno.h>
#include <gcrypt.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "base/checked.h"
#include "base/endian.h"
#include "image/crypt_cipher.h"

// Whole sectors, and whole stripes of every key length there is (16, 24, 32, 48, 64).
#define PIECE_BYTES ((size_t)3 * Q2_LUKS_SECTOR)
// Long enough for the clock, short for people.
#define MEASURE_MS 20U
#define N_MEASURES 3U

// --- PBKDF2 --------------------------------------------------------------------------

static int derive(int hash, const void *secret, size_t n_secret, const uint8_t salt[32],
                  uint32_t iterations, void *out, size_t n_bytes, struct q2_error *err)
{
    gcry_error_t code = gcry_kdf_derive(secret, n_secret, GCRY_KDF_PBKDF2, hash, salt, 32,
                                        iterations, n_bytes, out);
    return code ? q2_fail(err, -EIO, "Could not derive a key: %s", gcry_strerror(code))
                : 0;
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

static int time_it(int hash, size_t n_bytes, uint32_t iterations, uint64_t *elapsed,
                   struct q2_error *err)
{
    static const uint8_t salt[32], secret[16];
    uint8_t out[Q2_LUKS_MAX_KEY_BYTES];
    assert(n_bytes <= sizeof(out));
    uint64_t start = now_ns();
    int ret = derive(hash, secret, sizeof(secret), salt, iterations, out, n_bytes, err);
    *elapsed = now_ns() - start;
    return ret;
}

// Iterations in a second. On a machine that is busy with other things the shortest time
// is the one that is right.
static int measure(int hash, size_t n_bytes, uint64_t at_least_ms, uint64_t *rate,
                   struct q2_error *err)
{
    uint64_t shortest = 0, elapsed;
    uint32_t n = Q2_KEY_MIN_ITERATIONS / 2;
    int ret = 0;
    while (ret == 0 && shortest < at_least_ms * 1000000U && n < UINT32_MAX / 2) {
        n *= 2;
        ret = time_it(hash, n_bytes, n, &shortest, err);
    }
    for (unsigned i = 1; i < N_MEASURES && ret == 0; i++) {
        ret = time_it(hash, n_bytes, n, &elapsed, err);
        shortest = q2_min_u64(shortest, elapsed);
    }
    // A clock that stands still makes no infinite keys.
    *rate = shortest > 0 ? (uint64_t)n * 1000000000U / shortest : n;
    return ret;
}

int q2_key_iterations(int hash, size_t n_bytes, uint64_t iter_time_ms, unsigned share,
                      uint32_t *out, struct q2_error *err)
{
    uint64_t rate, n;
    int ret =
        measure(hash, n_bytes, q2_min_u64(MEASURE_MS, iter_time_ms / share), &rate, err);
    if (ret < 0)
        return ret;
    if (!q2_mul_u64(rate, iter_time_ms, &n))
        return q2_fail_errno(err, -ERANGE,
                             "PBKDF iterations %" PRIu64 " too large to scale", rate);
    n = n / 1000 / share;
    if (n > UINT32_MAX)
        return q2_fail_errno(err, -ERANGE, "PBKDF iterations %" PRIu64 " larger than %u",
                             n, UINT32_MAX);
    *out = (uint32_t)q2_max_u64(n, Q2_KEY_MIN_ITERATIONS);
    return 0;
}

int q2_key_digest(const struct q2_crypt_suite *s, const struct q2_luks_header *h,
                  const void *master_key, uint8_t digest[20], struct q2_error *err)
{
    return derive(s->hash, master_key, s->key_bytes, h->master_key_salt,
                  h->master_key_iterations, digest, 20, err);
}

// --- the anti-forensic splitter ------------------------------------------------------

// The key is the last stripe, exclusive-or what all stripes before it amount to.
struct splitter {
    gcry_md_hd_t md;
    size_t key_bytes, digest_bytes;
    uint8_t *sum;   // key_bytes, secure
    uint8_t *piece; // PIECE_BYTES in the clear, secure
};

static void splitter_clear(struct splitter *s)
{
    gcry_md_close(s->md);
    q2_secret_free(s->sum);
    q2_secret_free(s->piece);
}

static int splitter_init(struct splitter *s, const struct q2_crypt_suite *suite,
                         struct q2_error *err)
{
    *s = (struct splitter){.key_bytes = suite->key_bytes,
                           .digest_bytes = gcry_md_get_algo_dlen(suite->hash),
                           .sum = q2_secret_alloc(suite->key_bytes),
                           .piece = q2_secret_alloc(PIECE_BYTES)};
    gcry_error_t code =
        s->sum && s->piece ? gcry_md_open(&s->md, suite->hash, GCRY_MD_FLAG_SECURE) : 0;
    if (s->md)
        return 0;
    splitter_clear(s);
    return code ? q2_fail(err, -EIO, "Could not set up the hash: %s", gcry_strerror(code))
                : q2_fail_memory(err, PIECE_BYTES);
}

// Every digest's length of the sum is replaced by the digest of its number and itself.
static void diffuse(struct splitter *s)
{
    uint8_t number[4];
    for (size_t at = 0; at < s->key_bytes; at += s->digest_bytes) {
        size_t n = (size_t)q2_min_u64(s->digest_bytes, s->key_bytes - at);
        q2_store_be32(number, (uint32_t)(at / s->digest_bytes));
        gcry_md_reset(s->md);
        gcry_md_write(s->md, number, sizeof(number));
        gcry_md_write(s->md, s->sum + at, n);
        memcpy(s->sum + at, gcry_md_read(s->md, 0), n);
    }
}

static void add(struct splitter *s, const uint8_t *stripe)
{
    for (size_t i = 0; i < s->key_bytes; i++)
        s->sum[i] ^= stripe[i];
}

size_t q2_key_material_bytes(const struct q2_crypt_suite *s)
{
    return s->key_bytes * Q2_LUKS_STRIPES;
}

// --- key slots -----------------------------------------------------------------------

// A cipher under the key that the passphrase gives.
static int slot_cipher(const struct q2_crypt_suite *s, const struct q2_luks_slot *slot,
                       const struct q2_secret *passphrase, struct q2_cipher **out,
                       struct q2_error *err)
{
    uint8_t *key = q2_secret_alloc(s->key_bytes);
    if (!key)
        return q2_fail_memory(err, s->key_bytes);
    int ret = derive(s->hash, passphrase->data, passphrase->n_bytes, slot->salt,
                     slot->iterations, key, s->key_bytes, err);
    if (ret == 0)
        ret = q2_cipher_new(s, key, out, err);
    q2_secret_free(key);
    return ret;
}

// Fills the stripes of a piece; last: the material ends with this one.
static int split_piece(struct splitter *s, size_t n_bytes, bool last,
                       const void *master_key, struct q2_error *err)
{
    size_t n_random = n_bytes - (last ? s->key_bytes : 0);
    int ret = q2_key_random(s->piece, n_random, err);
    if (ret < 0)
        return ret;
    for (size_t at = 0; at < n_random; at += s->key_bytes) {
        add(s, s->piece + at);
        diffuse(s);
    }
    if (last) {
        add(s, master_key);
        memcpy(s->piece + n_random, s->sum, s->key_bytes);
    }
    return 0;
}

static void merge_piece(struct splitter *s, size_t n_bytes, bool last)
{
    for (size_t at = 0; at < n_bytes; at += s->key_bytes) {
        add(s, s->piece + at);
        if (!last || at + s->key_bytes < n_bytes)
            diffuse(s);
    }
}

static int wrap_pieces(struct splitter *s, struct q2_cipher *cipher,
                       const void *master_key, uint8_t *material, struct q2_error *err)
{
    size_t total = s->key_bytes * Q2_LUKS_STRIPES;
    int ret = 0;
    for (size_t at = 0, n; at < total && ret == 0; at += n) {
        n = (size_t)q2_min_u64(PIECE_BYTES, total - at);
        ret = split_piece(s, n, at + n == total, master_key, err);
        if (ret == 0)
            ret = q2_cipher_run(cipher, Q2_ENCRYPT, at / Q2_LUKS_SECTOR, s->piece,
                                material + at, n, err);
    }
    return ret;
}

static int unwrap_pieces(struct splitter *s, struct q2_cipher *cipher,
                         const uint8_t *material, void *master_key, struct q2_error *err)
{
    size_t total = s->key_bytes * Q2_LUKS_STRIPES;
    int ret = 0;
    for (size_t at = 0, n; at < total && ret == 0; at += n) {
        n = (size_t)q2_min_u64(PIECE_BYTES, total - at);
        ret = q2_cipher_run(cipher, Q2_DECRYPT, at / Q2_LUKS_SECTOR, material + at,
                            s->piece, n, err);
        if (ret == 0)
            merge_piece(s, n, at + n == total);
    }
    if (ret == 0)
        memcpy(master_key, s->sum, s->key_bytes);
    return ret;
}

int q2_key_wrap(const struct q2_crypt_suite *suite, const struct q2_luks_slot *slot,
                const struct q2_secret *passphrase, const void *master_key,
                void *material, struct q2_error *err)
{
    struct splitter s;
    struct q2_cipher *cipher;
    int ret = splitter_init(&s, suite, err);
    if (ret < 0)
        return ret;
    ret = slot_cipher(suite, slot, passphrase, &cipher, err);
    if (ret == 0) {
        ret = wrap_pieces(&s, cipher, master_key, material, err);
        q2_cipher_free(cipher);
    }
    splitter_clear(&s);
    return ret;
}

int q2_key_unwrap(const struct q2_crypt_suite *suite, const struct q2_luks_slot *slot,
                  const struct q2_secret *passphrase, const void *material,
                  void *master_key, struct q2_error *err)
{
    struct splitter s;
    struct q2_cipher *cipher;
    int ret = splitter_init(&s, suite, err);
    if (ret < 0)
        return ret;
    ret = slot_cipher(suite, slot, passphrase, &cipher, err);
    if (ret == 0) {
        ret = unwrap_pieces(&s, cipher, material, master_key, err);
        q2_cipher_free(cipher);
    }
    splitter_clear(&s);
    return ret;
}

// Strong randomness of libgcrypt comes from the kernel's, whose failure ends it.
int q2_key_random(void *buf, size_t n_bytes, struct q2_error *err)
{
    int ret = q2_secret_init(err);
    if (ret == 0 && n_bytes > 0)
        gcry_randomize(buf, n_bytes, GCRY_STRONG_RANDOM);
    return ret;
}
