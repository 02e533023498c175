// SPDX-License-Identifier: MIT
// The algorithms that encryption can be made of: one row each, with its name in options,
// its name in the LUKS header, and libgcrypt's number.
#include "image/crypt_suite.h"

#include <errno.h>
#include <gcrypt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct cipher {
    const char *option; // as the option names it
    const char *name;   // as the LUKS header does; NULL: LUKS does not know it
    const char *family; // in messages
    int algorithm;
    size_t key_bytes;
};

static const struct cipher ciphers[] = {
    {"aes-128", "aes", "AES", GCRY_CIPHER_AES128, 16},
    {"aes-192", "aes", "AES", GCRY_CIPHER_AES192, 24},
    {"aes-256", "aes", "AES", GCRY_CIPHER_AES256, 32},
    {"serpent-128", "serpent", "Serpent", GCRY_CIPHER_SERPENT128, 16},
    {"serpent-192", "serpent", "Serpent", GCRY_CIPHER_SERPENT192, 24},
    {"serpent-256", "serpent", "Serpent", GCRY_CIPHER_SERPENT256, 32},
    {"twofish-128", "twofish", "Twofish", GCRY_CIPHER_TWOFISH128, 16},
    {"twofish-256", "twofish", "Twofish", GCRY_CIPHER_TWOFISH, 32},
    {"cast5-128", "cast5", NULL, GCRY_CIPHER_CAST5, 16},
    {"sm4", "sm4", NULL, GCRY_CIPHER_SM4, 16},
    // What libgcrypt or LUKS cannot do.
    {"twofish-192", NULL, NULL, 0, 0},
    {"des", NULL, NULL, 0, 0},
    {"3des", NULL, NULL, 0, 0},
};

struct name {
    const char *name;
    int value;
};

static const struct name modes[] = {
    {"xts", GCRY_CIPHER_MODE_XTS},
    {"cbc", GCRY_CIPHER_MODE_CBC},
    {"ctr", GCRY_CIPHER_MODE_CTR},
    {"ecb", GCRY_CIPHER_MODE_ECB},
    {NULL, 0},
};
static const struct name ivgens[] = {
    {"plain", Q2_IVGEN_PLAIN},
    {"plain64", Q2_IVGEN_PLAIN64},
    {"essiv", Q2_IVGEN_ESSIV},
    {NULL, 0},
};
static const struct name hashes[] = {
    {"sha256", GCRY_MD_SHA256},    {"sha1", GCRY_MD_SHA1},     {"sha224", GCRY_MD_SHA224},
    {"sha384", GCRY_MD_SHA384},    {"sha512", GCRY_MD_SHA512}, {"md5", GCRY_MD_MD5},
    {"ripemd160", GCRY_MD_RMD160}, {"sm3", GCRY_MD_SM3},       {NULL, 0},
};

#define N_CIPHERS (sizeof(ciphers) / sizeof(ciphers[0]))

static const struct name *find(const struct name *list, const char *name)
{
    while (list->name && strcmp(list->name, name) != 0)
        list++;
    return list->name ? list : NULL;
}

static const struct cipher *cipher_of_size(const char *name, size_t key_bytes)
{
    for (const struct cipher *c = ciphers; c < ciphers + N_CIPHERS; c++) {
        if (c->name && strcmp(c->name, name) == 0 && c->key_bytes == key_bytes)
            return c;
    }
    return NULL;
}

// The initial values are encrypted under the digest of the key: by the same cipher, with
// a key of the digest's length (as dm-crypt has it).
static int choose_essiv(const struct cipher *cipher, int hash, struct q2_crypt_suite *out,
                        struct q2_error *err)
{
    size_t n_bytes = gcry_md_get_algo_dlen(hash);
    const struct cipher *same = cipher_of_size(cipher->name, n_bytes);
    out->essiv_hash = hash;
    out->essiv_cipher = same ? same->algorithm : 0;
    if (same)
        return 0;
    if (!cipher->family)
        return q2_fail(err, -ENOTSUP, "Cipher %s not supported with essiv",
                       cipher->option);
    return q2_fail(err, -ENOTSUP, "No %s cipher with key size %zu available",
                   cipher->family, n_bytes);
}

// All that a suite is made of is known by now; does it fit together? hash: of essiv.
static int assemble(const struct cipher *cipher, int mode, enum q2_ivgen ivgen,
                    int ivgen_hash, int hash, struct q2_crypt_suite *out,
                    struct q2_error *err)
{
    bool xts = mode == GCRY_CIPHER_MODE_XTS;
    *out = (struct q2_crypt_suite){
        .cipher = cipher->algorithm,
        .mode = mode,
        .key_bytes = cipher->key_bytes * (xts ? 2 : 1),
        .block_bytes = gcry_cipher_get_algo_blklen(cipher->algorithm),
        .ivgen = ivgen,
        .hash = hash,
    };
    if (xts && out->block_bytes != Q2_MAX_CIPHER_BLOCK)
        return q2_fail(err, -ENOTSUP, "Unsupported cipher mode xts");
    return ivgen == Q2_IVGEN_ESSIV ? choose_essiv(cipher, ivgen_hash, out, err) : 0;
}

// Those that can be used: of the ciphers, not all that are known.
static const char *cipher_name(size_t i)
{
    for (const struct cipher *c = ciphers; c < ciphers + N_CIPHERS; c++)
        if (c->algorithm && i-- == 0)
            return c->option;
    return NULL;
}

const char *q2_crypt_suite_name(enum q2_crypt_parameter parameter, size_t i)
{
    const struct name *list = parameter == Q2_CIPHER_MODE ? modes
                              : parameter == Q2_IVGEN_ALG ? ivgens
                                                          : hashes;
    if (parameter == Q2_CIPHER_ALG)
        return cipher_name(i);
    while (list->name && i-- > 0)
        list++;
    return list->name;
}

// --- new images ----------------------------------------------------------------------

static int choose(const struct name *list, const char *parameter, const char *text,
                  const struct name **out, struct q2_error *err)
{
    *out = find(list, text);
    return *out ? 0
                : q2_fail(err, -EINVAL, "Parameter '%s' does not accept value '%s'",
                          parameter, text);
}

static int choose_cipher(const char *text, const struct cipher **out,
                         struct q2_error *err)
{
    const struct cipher *c = ciphers;
    while (c < ciphers + N_CIPHERS && strcmp(c->option, text) != 0)
        c++;
    if (c == ciphers + N_CIPHERS)
        return q2_fail(err, -EINVAL, "Parameter 'cipher-alg' does not accept value '%s'",
                       text);
    *out = c;
    return 0;
}

static const char *or_default(const char *text, const char *fallback)
{
    return text ? text : fallback;
}

// What each name stands for.
struct choice {
    const struct cipher *cipher;
    const struct name *mode, *ivgen, *hash;
    const struct name *ivgen_hash; // NULL: none
};

static int look_up(const struct q2_crypt_names *n, struct choice *c, struct q2_error *err)
{
    int ret = choose_cipher(or_default(n->cipher_alg, "aes-256"), &c->cipher, err);
    if (ret == 0)
        ret = choose(modes, "cipher-mode", or_default(n->cipher_mode, "xts"), &c->mode,
                     err);
    if (ret == 0)
        ret = choose(ivgens, "ivgen-alg", or_default(n->ivgen_alg, "plain64"), &c->ivgen,
                     err);
    if (ret < 0)
        return ret;
    const char *hash = n->ivgen_hash_alg;
    if (!hash && c->ivgen->value == Q2_IVGEN_ESSIV)
        hash = "sha256";
    c->ivgen_hash = NULL;
    if (hash)
        ret = choose(hashes, "ivgen-hash-alg", hash, &c->ivgen_hash, err);
    if (ret == 0)
        ret =
            choose(hashes, "hash-alg", or_default(n->hash_alg, "sha256"), &c->hash, err);
    return ret;
}

int q2_crypt_suite_choose(const struct q2_crypt_names *names, struct q2_luks_header *h,
                          struct q2_crypt_suite *out, struct q2_error *err)
{
    struct choice c = {0};
    int ret = look_up(names, &c, err);
    if (ret < 0)
        return ret;
    if (!c.cipher->name)
        return q2_fail(err, -ENOTSUP, "Algorithm '%s' not supported", c.cipher->option);
    ret = assemble(c.cipher, c.mode->value, (enum q2_ivgen)c.ivgen->value,
                   c.ivgen_hash ? c.ivgen_hash->value : 0, c.hash->value, out, err);
    if (ret < 0)
        return ret;
    // A key of 24 bytes. QEMU ends with an assertion where it meets such an image.
    if (out->key_bytes * Q2_LUKS_STRIPES % Q2_LUKS_SECTOR != 0)
        return q2_fail(err, -ENOTSUP, "Algorithm '%s' not supported in cipher mode '%s'",
                       c.cipher->option, c.mode->name);
    h->master_key_bytes = (uint32_t)out->key_bytes;
    snprintf(h->cipher_name, sizeof(h->cipher_name), "%s", c.cipher->name);
    snprintf(h->hash_spec, sizeof(h->hash_spec), "%s", c.hash->name);
    snprintf(h->cipher_mode, sizeof(h->cipher_mode), "%s-%s%s%s", c.mode->name,
             c.ivgen->name, c.ivgen_hash ? ":" : "",
             c.ivgen_hash ? c.ivgen_hash->name : "");
    return 0;
}

// --- images that are there -----------------------------------------------------------

static int read_name(const struct name *list, const char *what, const char *text,
                     int *value, struct q2_error *err)
{
    const struct name *n = find(list, text);
    if (!n)
        return q2_fail(err, -ENOTSUP, "%s '%s' not supported", what, text);
    *value = n->value;
    return 0;
}

int q2_crypt_suite_read(const struct q2_luks_header *h, struct q2_crypt_suite *out,
                        struct q2_error *err)
{
    char mode_name[33], ivgen_name[33], ivgen_hash_name[33];
    int mode, ivgen, hash, ivgen_hash = 0;
    q2_luks_split_mode(h->cipher_mode, mode_name, ivgen_name, ivgen_hash_name);
    if (!ivgen_name[0])
        return q2_fail(err, -EINVAL, "Unexpected cipher mode string format '%s'",
                       h->cipher_mode);
    int ret = read_name(modes, "Cipher mode", mode_name, &mode, err);
    if (ret == 0)
        ret = read_name(ivgens, "IV generator", ivgen_name, &ivgen, err);
    if (ret == 0 && ivgen_hash_name[0])
        ret = read_name(hashes, "Hash algorithm", ivgen_hash_name, &ivgen_hash, err);
    if (ret == 0)
        ret = read_name(hashes, "Hash algorithm", h->hash_spec, &hash, err);
    if (ret < 0)
        return ret;
    size_t key_bytes = h->master_key_bytes / (mode == GCRY_CIPHER_MODE_XTS ? 2 : 1);
    const struct cipher *cipher = cipher_of_size(h->cipher_name, key_bytes);
    if (!cipher)
        return q2_fail(err, -ENOTSUP,
                       "Algorithm '%s' with key size %zu bytes not supported",
                       h->cipher_name, key_bytes);
    if (ivgen == Q2_IVGEN_ESSIV && !ivgen_hash_name[0])
        return q2_fail(err, -EINVAL, "Missing IV generator hash specification");
    ret = assemble(cipher, mode, (enum q2_ivgen)ivgen, ivgen_hash, hash, out, err);
    if (ret == 0 && out->key_bytes != h->master_key_bytes) // an odd number, halved
        ret =
            q2_fail(err, -ENOTSUP, "Algorithm '%s' with key size %u bytes not supported",
                    h->cipher_name, h->master_key_bytes);
    return ret;
}

void q2_crypt_suite_legacy(struct q2_crypt_suite *out)
{
    *out = (struct q2_crypt_suite){.cipher = GCRY_CIPHER_AES128,
                                   .mode = GCRY_CIPHER_MODE_CBC,
                                   .key_bytes = 16,
                                   .block_bytes = Q2_MAX_CIPHER_BLOCK,
                                   .ivgen = Q2_IVGEN_PLAIN64};
}
