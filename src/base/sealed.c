// SPDX-License-Identifier: MIT
// Decrypting secrets.
#include "base/sealed.h"

#include <errno.h>
#include <gcrypt.h>
#include <string.h>

#include "base/base64.h"

#define KEY_BYTES 32U
#define BLOCK_BYTES 16U

static int read_iv(const char *text, uint8_t iv[BLOCK_BYTES], struct q2_error *err)
{
    size_t n = strlen(text);
    uint8_t *copy = q2_secret_alloc(n + 1);
    if (!copy)
        return q2_fail_memory(err, n);
    memcpy(copy, text, n);
    int rc = q2_base64_decode(copy, &n, err);
    if (!rc && n != BLOCK_BYTES)
        rc = q2_fail(err, -EINVAL, "IV should be %u bytes in length not %zu", BLOCK_BYTES,
                     n);
    if (!rc)
        memcpy(iv, copy, BLOCK_BYTES);
    q2_secret_free(copy);
    return rc;
}

static int decrypt(const struct q2_secret *key, const uint8_t iv[BLOCK_BYTES],
                   uint8_t *data, size_t n_bytes, struct q2_error *err)
{
    gcry_cipher_hd_t cipher = NULL;
    gcry_error_t bad = gcry_cipher_open(&cipher, GCRY_CIPHER_AES256, GCRY_CIPHER_MODE_CBC,
                                        GCRY_CIPHER_SECURE);
    if (!bad)
        bad = gcry_cipher_setkey(cipher, key->data, KEY_BYTES);
    if (!bad)
        bad = gcry_cipher_setiv(cipher, iv, BLOCK_BYTES);
    if (!bad)
        bad = gcry_cipher_decrypt(cipher, data, n_bytes, NULL, 0);
    gcry_cipher_close(cipher);
    return bad ? q2_fail(err, -EIO, "Could not decrypt the secret: %s",
                         gcry_strerror(bad))
               : 0;
}

int q2_sealed_open(const struct q2_secret *key, const char *iv, uint8_t *data,
                   size_t *n_bytes, struct q2_error *err)
{
    uint8_t iv_bytes[BLOCK_BYTES];
    if (key->n_bytes != KEY_BYTES)
        return q2_fail(err, -EINVAL, "Key should be %u bytes in length", KEY_BYTES);
    if (!iv)
        return q2_fail(err, -EINVAL, "IV is required to decrypt secret");
    int rc = read_iv(iv, iv_bytes, err);
    if (!rc && *n_bytes % BLOCK_BYTES)
        rc = q2_fail(err, -EINVAL, "Length %zu must be a multiple of block size %u",
                     *n_bytes, BLOCK_BYTES);
    if (!rc && *n_bytes)
        rc = decrypt(key, iv_bytes, data, *n_bytes, err);
    if (rc || !*n_bytes)
        return rc;
    uint8_t padding = data[*n_bytes - 1];
    if (padding > BLOCK_BYTES)
        return q2_fail(err, -EINVAL,
                       "Incorrect number of padding bytes (%u) found on decrypted data",
                       padding);
    *n_bytes -= padding;
    return 0;
}
