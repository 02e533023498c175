// SPDX-License-Identifier: MIT
// The key of an image: found by a passphrase, or made with a new image.
#include "image/crypt.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "image/crypt_key.h"
#include "image/crypt_slots.h"
#include "image/image.h"
#include "image/runtime.h"

// The master key's check takes an eighth of the time of a slot, as with cryptsetup.
#define DIGEST_SHARE 8U

static int crypt_new(struct q2_crypt **out, struct q2_error *err)
{
    struct q2_crypt *c = calloc(1, sizeof(*c));
    if (!c)
        return q2_fail_memory(err, sizeof(*c));
    pthread_mutex_init(&c->lock, NULL);
    *out = c;
    return 0;
}

static int key_new(struct q2_crypt *c, struct q2_error *err)
{
    c->key = q2_secret_alloc(c->suite.key_bytes);
    return c->key ? 0 : q2_fail_memory(err, c->suite.key_bytes);
}

static int find_secret(const struct q2_secrets *secrets, const char *id,
                       const struct q2_secret **out, struct q2_error *err)
{
    if (!id)
        return q2_fail(err, -EINVAL,
                       "Parameter 'encrypt.key-secret' is required for cipher");
    return q2_secrets_find_text(secrets, id, out, err);
}

// --- the old kind --------------------------------------------------------------------

// The passphrase is the key, cut or filled with zeros.
static int set_legacy(struct q2_crypt *c, const struct q2_secret *passphrase,
                      struct q2_error *err)
{
    q2_crypt_suite_legacy(&c->suite);
    int ret = key_new(c, err);
    if (ret == 0)
        memcpy(c->key, passphrase->data,
               q2_min_size(passphrase->n_bytes, c->suite.key_bytes));
    return ret;
}

// --- LUKS ----------------------------------------------------------------------------

// Key material lies in the part of the file that the image has for it.
static int check_places(const struct q2_image *img, const struct q2_luks_header *h,
                        struct q2_error *err)
{
    for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++) {
        if (q2_luks_slot_end(h, i) * Q2_LUKS_SECTOR > img->header.crypto_header_length)
            return q2_fail(err, -EINVAL,
                           "Keyslot %u lies outside of the encryption header (%" PRIu64
                           " bytes)",
                           i, img->header.crypto_header_length);
    }
    return 0;
}

static int read_luks(struct q2_image *img, struct q2_crypt *c, struct q2_error *err)
{
    uint8_t buf[Q2_LUKS_HEADER_BYTES];
    int ret = q2_io_read(img->disk.file, img->header.crypto_header_offset, buf,
                         sizeof(buf), err);
    if (ret == 0)
        ret = q2_luks_decode(buf, sizeof(buf), &c->luks, err);
    if (ret == 0)
        ret = check_places(img, &c->luks, err);
    return ret < 0 ? ret : q2_crypt_suite_read(&c->luks, &c->suite, err);
}

static int unlock_luks(struct q2_image *img, struct q2_crypt *c,
                       const struct q2_secret *passphrase, struct q2_error *err)
{
    bool matches = false;
    c->sectors_by_host = true;
    int ret = read_luks(img, c, err);
    if (ret == 0)
        ret = key_new(c, err);
    for (unsigned i = 0; i < Q2_LUKS_SLOTS && ret == 0 && !matches; i++)
        ret = q2_slot_try(img, &c->luks, &c->suite, i, passphrase, c->key, &matches, err);
    if (ret == 0 && !matches)
        ret = q2_fail(err, -EACCES, "Invalid password, cannot unlock any keyslot");
    return ret;
}

// --- unlocking -----------------------------------------------------------------------

int q2_crypt_check_format(const struct q2_image *img, const char *format,
                          struct q2_error *err)
{
    const char *is = img->header.crypt_method == Q2_CRYPT_LUKS ? "luks" : "aes";
    if (img->header.crypt_method == Q2_CRYPT_NONE)
        return q2_fail(err, -EINVAL,
                       "No encryption in image header, but options specified format '%s'",
                       format);
    if (strcmp(format, is) == 0)
        return 0;
    return q2_fail(err, -EINVAL,
                   "Header reported '%s' encryption format but options specify '%s'", is,
                   format);
}

int q2_crypt_unlock(struct q2_image *img, const struct q2_runtime *r,
                    struct q2_error *err)
{
    const struct q2_secret *passphrase;
    struct q2_crypt *c = NULL;
    if (img->header.crypt_method == Q2_CRYPT_NONE)
        return 0; // a passphrase does no harm there
    int ret = q2_secret_init(err);
    if (ret == 0)
        ret = find_secret(r ? r->secrets : NULL, r ? r->encrypt_key_secret : NULL,
                          &passphrase, err);
    if (ret == 0)
        ret = crypt_new(&c, err);
    if (ret != 0)
        return ret;
    ret = img->header.crypt_method == Q2_CRYPT_LUKS ? unlock_luks(img, c, passphrase, err)
                                                    : set_legacy(c, passphrase, err);
    if (ret < 0)
        q2_crypt_free(c);
    else
        img->crypt = c;
    return ret;
}

// --- new images ----------------------------------------------------------------------

static bool is_luks(const struct q2_crypt_options *o)
{
    return strcmp(o->format, "luks") == 0;
}

// What LUKS alone knows.
static int refuse_luks_options(const struct q2_crypt_options *o, struct q2_error *err)
{
    const struct {
        bool given;
        const char *name;
    } options[] = {
        {o->names.cipher_alg, "cipher-alg"}, {o->names.cipher_mode, "cipher-mode"},
        {o->names.hash_alg, "hash-alg"},     {o->set_iter_time, "iter-time"},
        {o->names.ivgen_alg, "ivgen-alg"},   {o->names.ivgen_hash_alg, "ivgen-hash-alg"},
    };
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        if (options[i].given)
            return q2_fail(err, -EINVAL, "Parameter 'encrypt.%s' is unexpected",
                           options[i].name);
    }
    return 0;
}

int q2_crypt_validate(const struct q2_crypt_options *o, struct q2_error *err)
{
    const struct q2_secret *passphrase;
    struct q2_crypt_suite suite;
    struct q2_luks_header header;
    if (!o->format)
        return q2_fail(err, -EINVAL, "Parameter 'encrypt.format' is missing");
    if (!is_luks(o) && strcmp(o->format, "aes") != 0)
        return q2_fail(err, -EINVAL, "Parameter 'format' does not accept value '%s'",
                       o->format);
    int ret = q2_secret_init(err);
    if (ret == 0 && !is_luks(o))
        ret = refuse_luks_options(o, err);
    if (ret == 0 && is_luks(o))
        ret = q2_crypt_suite_choose(&o->names, &header, &suite, err);
    return ret < 0 ? ret : find_secret(o->secrets, o->key_secret, &passphrase, err);
}

void q2_crypt_announce(const struct q2_crypt_options *o, struct q2_header *h)
{
    h->crypt_method = is_luks(o) ? Q2_CRYPT_LUKS : Q2_CRYPT_AES;
    h->has_crypto = is_luks(o);
}

// Random, as RFC 4122 has it (version 4).
static int make_uuid(char out[41], struct q2_error *err)
{
    uint8_t u[16] = {0};
    int ret = q2_key_random(u, sizeof(u), err);
    u[6] = (uint8_t)((u[6] & 0x0f) | 0x40);
    u[8] = (uint8_t)((u[8] & 0x3f) | 0x80);
    char *p = out;
    for (unsigned i = 0; i < sizeof(u); i++)
        p += sprintf(p, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", u[i]);
    return ret;
}

static int make_master_key(struct q2_crypt *c, uint64_t iter_time, struct q2_error *err)
{
    struct q2_luks_header *h = &c->luks;
    int ret = key_new(c, err);
    if (ret == 0)
        ret = q2_key_random(c->key, c->suite.key_bytes, err);
    if (ret == 0)
        ret = q2_key_random(h->master_key_salt, sizeof(h->master_key_salt), err);
    if (ret == 0)
        ret = q2_key_iterations(c->suite.hash, sizeof(h->master_key_digest), iter_time,
                                DIGEST_SHARE, &h->master_key_iterations, err);
    if (ret == 0)
        ret = q2_key_digest(&c->suite, h, c->key, h->master_key_digest, err);
    return ret;
}

// Clusters for the LUKS header and all key material, which read as zeros.
static int place_luks(struct q2_image *img, const struct q2_luks_header *h,
                      struct q2_error *err)
{
    uint64_t n_bytes = (uint64_t)h->payload_offset_sectors * Q2_LUKS_SECTOR, at;
    uint64_t n_clusters = q2_div_round_up(n_bytes, img->cluster_size);
    pthread_mutex_lock(&img->lock);
    int ret = q2_alloc_exact(img, n_clusters, "LUKS header", &at, err);
    pthread_mutex_unlock(&img->lock);
    if (ret == 0 && !img->disk.file->sparse_growth)
        ret = q2_io_zero(img->disk.file, at, n_clusters << img->cluster_bits, false, err);
    if (ret < 0)
        return ret;
    img->header.crypto_header_offset = at;
    img->header.crypto_header_length = n_bytes;
    return 0;
}

static int make_luks(struct q2_image *img, const struct q2_crypt_options *o,
                     const struct q2_secret *passphrase, struct q2_error *err)
{
    struct q2_crypt *c = img->crypt;
    uint64_t iter_time = o->set_iter_time ? o->iter_time : Q2_CRYPT_ITER_TIME;
    uint8_t buf[Q2_LUKS_HEADER_BYTES];
    c->sectors_by_host = true;
    c->luks.version = 1;
    int ret = q2_crypt_suite_choose(&o->names, &c->luks, &c->suite, err);
    if (ret == 0)
        ret = make_uuid(c->luks.uuid, err);
    if (ret == 0)
        ret = make_master_key(c, iter_time, err);
    if (ret < 0)
        return ret;
    q2_luks_lay_out(&c->luks);
    ret = place_luks(img, &c->luks, err);
    if (ret < 0)
        return ret;
    q2_luks_encode(&c->luks, buf);
    ret = q2_io_write(img->disk.file, img->header.crypto_header_offset, buf, sizeof(buf),
                      err);
    return ret < 0 ? ret : q2_slot_put(img, 0, passphrase, iter_time, err);
}

int q2_crypt_make(struct q2_image *img, const struct q2_crypt_options *o,
                  struct q2_error *err)
{
    const struct q2_secret *passphrase;
    int ret = find_secret(o->secrets, o->key_secret, &passphrase, err);
    if (ret == 0)
        ret = crypt_new(&img->crypt, err);
    if (ret < 0)
        return ret;
    return is_luks(o) ? make_luks(img, o, passphrase, err)
                      : set_legacy(img->crypt, passphrase, err);
}
