// SPDX-License-Identifier: MIT
// Sectors under a key, as dm-crypt keeps them: each is encrypted by itself, with an
// initial value made of its number.
#include "image/crypt_cipher.h"

#include <errno.h>
#include <gcrypt.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/secret.h"

struct q2_cipher {
    gcry_cipher_hd_t sectors;
    gcry_cipher_hd_t essiv; // encrypts the initial values; NULL: they are plain
    int mode;
    enum q2_ivgen ivgen;
    size_t block_bytes;
};

static int fail_gcrypt(struct q2_error *err, gcry_error_t code, const char *what)
{
    return q2_fail(err, gcry_err_code(code) == GPG_ERR_ENOMEM ? -ENOMEM : -EIO, "%s: %s",
                   what, gcry_strerror(code));
}

static int open_handle(int cipher, int mode, const void *key, size_t key_bytes,
                       gcry_cipher_hd_t *out, struct q2_error *err)
{
    gcry_error_t code = gcry_cipher_open(out, cipher, mode, GCRY_CIPHER_SECURE);
    if (code)
        return fail_gcrypt(err, code, "Could not set up the cipher");
    code = gcry_cipher_setkey(*out, key, key_bytes);
    // A key that is weak by the letter of a standard is the image's key all the same.
    if (gcry_err_code(code) == GPG_ERR_WEAK_KEY)
        code = 0;
    return code ? fail_gcrypt(err, code, "Could not set the cipher's key") : 0;
}

static int open_essiv(const struct q2_crypt_suite *s, const void *key,
                      gcry_cipher_hd_t *out, struct q2_error *err)
{
    gcry_md_hd_t md;
    gcry_error_t code = gcry_md_open(&md, s->essiv_hash, GCRY_MD_FLAG_SECURE);
    if (code)
        return fail_gcrypt(err, code, "Could not set up the hash");
    gcry_md_write(md, key, s->key_bytes);
    int ret = open_handle(s->essiv_cipher, GCRY_CIPHER_MODE_ECB, gcry_md_read(md, 0),
                          gcry_md_get_algo_dlen(s->essiv_hash), out, err);
    gcry_md_close(md);
    return ret;
}

int q2_cipher_new(const struct q2_crypt_suite *s, const void *key, struct q2_cipher **out,
                  struct q2_error *err)
{
    struct q2_cipher *c = calloc(1, sizeof(*c));
    if (!c)
        return q2_fail_memory(err, sizeof(*c));
    c->mode = s->mode;
    c->ivgen = s->ivgen;
    c->block_bytes = s->block_bytes;
    int ret = open_handle(s->cipher, s->mode, key, s->key_bytes, &c->sectors, err);
    if (ret == 0 && s->ivgen == Q2_IVGEN_ESSIV)
        ret = open_essiv(s, key, &c->essiv, err);
    if (ret < 0) {
        q2_cipher_free(c);
        return ret;
    }
    *out = c;
    return 0;
}

void q2_cipher_free(struct q2_cipher *c)
{
    if (!c)
        return;
    gcry_cipher_close(c->sectors);
    gcry_cipher_close(c->essiv);
    free(c);
}

// The number stands little-endian; "plain" keeps 32 bits of it.
static void number_sector(enum q2_ivgen ivgen, uint64_t sector, uint8_t *iv)
{
    unsigned n = ivgen == Q2_IVGEN_PLAIN ? 4 : 8;
    memset(iv, 0, Q2_MAX_CIPHER_BLOCK);
    for (unsigned i = 0; i < n; i++)
        iv[i] = (uint8_t)(sector >> (8 * i));
}

static gcry_error_t start_sector(struct q2_cipher *c, uint64_t sector)
{
    uint8_t iv[Q2_MAX_CIPHER_BLOCK];
    gcry_error_t code = 0;
    if (c->mode == GCRY_CIPHER_MODE_ECB)
        return 0;
    number_sector(c->ivgen, sector, iv);
    if (c->essiv)
        code = gcry_cipher_encrypt(c->essiv, iv, c->block_bytes, NULL, 0);
    if (code)
        return code;
    return c->mode == GCRY_CIPHER_MODE_CTR
               ? gcry_cipher_setctr(c->sectors, iv, c->block_bytes)
               : gcry_cipher_setiv(c->sectors, iv, c->block_bytes);
}

int q2_cipher_run(struct q2_cipher *c, enum q2_crypt_direction direction,
                  uint64_t first_sector, const void *from, void *to, size_t n_bytes,
                  struct q2_error *err)
{
    const uint8_t *in = from;
    uint8_t *out = to;
    for (size_t at = 0; at < n_bytes; at += Q2_LUKS_SECTOR) {
        size_t n = (size_t)q2_min_u64(Q2_LUKS_SECTOR, n_bytes - at);
        gcry_error_t code = start_sector(c, first_sector + at / Q2_LUKS_SECTOR);
        if (!code && direction == Q2_ENCRYPT)
            code = gcry_cipher_encrypt(c->sectors, out + at, n, in + at, n);
        else if (!code)
            code = gcry_cipher_decrypt(c->sectors, out + at, n, in + at, n);
        if (code)
            return fail_gcrypt(err, code,
                               direction == Q2_ENCRYPT ? "Encryption failed"
                                                       : "Decryption failed");
    }
    return 0;
}
