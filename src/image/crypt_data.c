// SPDX-License-Identifier: MIT
// Guest data of encrypted images, from and to the file. Each thread works with a cipher
// of its own, taken from those that are idle.
#include "image/crypt.h"

#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "image/crypt_cipher.h"
#include "image/image.h"

// What is written is encrypted in pieces of this size.
#define PIECE_BYTES (UINT32_C(256) << 10)

struct q2_crypt_worker {
    struct q2_crypt_worker *next;
    struct q2_cipher *cipher;
    uint8_t *piece; // PIECE_BYTES; NULL until something is written
};

static void worker_free(struct q2_crypt_worker *w)
{
    q2_cipher_free(w->cipher);
    free(w->piece);
    free(w);
}

static int worker_new(const struct q2_crypt *c, struct q2_crypt_worker **out,
                      struct q2_error *err)
{
    struct q2_crypt_worker *w = calloc(1, sizeof(*w));
    if (!w)
        return q2_fail_memory(err, sizeof(*w));
    int ret = q2_cipher_new(&c->suite, c->key, &w->cipher, err);
    if (ret < 0) {
        worker_free(w);
        return ret;
    }
    *out = w;
    return 0;
}

static int take_worker(struct q2_crypt *c, struct q2_crypt_worker **out,
                       struct q2_error *err)
{
    pthread_mutex_lock(&c->lock);
    struct q2_crypt_worker *w = c->idle;
    if (w)
        c->idle = w->next;
    pthread_mutex_unlock(&c->lock);
    *out = w;
    return w ? 0 : worker_new(c, out, err);
}

static void give_back(struct q2_crypt *c, struct q2_crypt_worker *w)
{
    pthread_mutex_lock(&c->lock);
    w->next = c->idle;
    c->idle = w;
    pthread_mutex_unlock(&c->lock);
}

void q2_crypt_free(struct q2_crypt *c)
{
    if (!c)
        return;
    while (c->idle) {
        struct q2_crypt_worker *next = c->idle->next;
        worker_free(c->idle);
        c->idle = next;
    }
    q2_secret_free(c->key);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static int find_crypt(struct q2_disk *d, struct q2_crypt **out, struct q2_error *err)
{
    *out = q2_image_of(d)->crypt;
    return *out ? 0
                : q2_fail(err, -EACCES, "'%s' is encrypted, and was opened without a key",
                          d->path);
}

static uint64_t first_sector(const struct q2_crypt *c, uint64_t guest_offset,
                             uint64_t host_offset)
{
    return (c->sectors_by_host ? host_offset : guest_offset) / Q2_LUKS_SECTOR;
}

int q2_crypt_load(struct q2_disk *d, uint64_t guest_offset, uint64_t host_offset,
                  void *buf, size_t n_bytes, struct q2_error *err)
{
    struct q2_crypt *c;
    struct q2_crypt_worker *w;
    int ret = find_crypt(d, &c, err);
    if (ret == 0)
        ret = q2_io_read(d->data, host_offset, buf, n_bytes, err);
    if (ret == 0)
        ret = take_worker(c, &w, err);
    if (ret != 0)
        return ret;
    ret = q2_cipher_run(w->cipher, Q2_DECRYPT, first_sector(c, guest_offset, host_offset),
                        buf, buf, n_bytes, err);
    give_back(c, w);
    return ret;
}

static int store_pieces(struct q2_disk *d, struct q2_crypt_worker *w, uint64_t sector,
                        uint64_t host_offset, const uint8_t *buf, size_t n_bytes,
                        struct q2_error *err)
{
    int ret = 0;
    if (!w->piece)
        w->piece = malloc(PIECE_BYTES);
    if (!w->piece)
        return q2_fail_memory(err, PIECE_BYTES);
    for (size_t at = 0, n; at < n_bytes && ret == 0; at += n) {
        n = (size_t)q2_min_u64(PIECE_BYTES, n_bytes - at);
        ret = q2_cipher_run(w->cipher, Q2_ENCRYPT, sector + at / Q2_LUKS_SECTOR, buf + at,
                            w->piece, n, err);
        if (ret == 0)
            ret = q2_io_write(d->data, host_offset + at, w->piece, n, err);
    }
    return ret;
}

int q2_crypt_store(struct q2_disk *d, uint64_t guest_offset, uint64_t host_offset,
                   const void *buf, size_t n_bytes, struct q2_error *err)
{
    struct q2_crypt *c;
    struct q2_crypt_worker *w;
    int ret = find_crypt(d, &c, err);
    if (ret == 0)
        ret = take_worker(c, &w, err);
    if (ret < 0)
        return ret;
    ret = store_pieces(d, w, first_sector(c, guest_offset, host_offset), host_offset, buf,
                       n_bytes, err);
    give_back(c, w);
    return ret;
}
