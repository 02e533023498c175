// SPDX-License-Identifier: MIT
// Key slots in the file. A slot counts from the moment its state says so: one write of
// four bytes, after everything else of it is there for certain.
#include "image/crypt_slots.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "image/crypt_key.h"

static uint64_t header_offset(const struct q2_image *img)
{
    return img->header.crypto_header_offset;
}

static uint64_t slot_offset(const struct q2_image *img, unsigned index)
{
    return header_offset(img) + Q2_LUKS_SLOTS_AT + (uint64_t)index * Q2_LUKS_SLOT_BYTES;
}

static uint64_t material_offset(const struct q2_image *img,
                                const struct q2_luks_slot *slot)
{
    return header_offset(img) + (uint64_t)slot->key_offset_sectors * Q2_LUKS_SECTOR;
}

static int material_new(const struct q2_crypt_suite *suite, uint8_t **out,
                        struct q2_error *err)
{
    size_t n = q2_key_material_bytes(suite);
    *out = malloc(n);
    return *out ? 0 : q2_fail_memory(err, n);
}

static int verify(const struct q2_crypt_suite *suite, const struct q2_luks_header *h,
                  const void *master_key, bool *matches, struct q2_error *err)
{
    uint8_t digest[sizeof(h->master_key_digest)];
    int ret = q2_key_digest(suite, h, master_key, digest, err);
    *matches = ret == 0 && memcmp(digest, h->master_key_digest, sizeof(digest)) == 0;
    return ret;
}

int q2_slot_try(struct q2_image *img, const struct q2_luks_header *h,
                const struct q2_crypt_suite *suite, unsigned index,
                const struct q2_secret *passphrase, void *master_key, bool *matches,
                struct q2_error *err)
{
    const struct q2_luks_slot *slot = &h->slots[index];
    uint8_t *material;
    *matches = false;
    if (!slot->active)
        return 0;
    int ret = material_new(suite, &material, err);
    if (ret < 0)
        return ret;
    ret = q2_io_read(img->disk.file, material_offset(img, slot), material,
                     q2_key_material_bytes(suite), err);
    if (ret == 0)
        ret = q2_key_unwrap(suite, slot, passphrase, material, master_key, err);
    if (ret == 0)
        ret = verify(suite, h, master_key, matches, err);
    free(material);
    return ret;
}

// --- writing -------------------------------------------------------------------------

static int write_durably(struct q2_image *img, uint64_t offset, const void *buf,
                         size_t n_bytes, struct q2_error *err)
{
    int ret = q2_io_write(img->disk.file, offset, buf, n_bytes, err);
    return ret < 0 || img->unpublished ? ret : q2_io_flush(img->disk.file, err);
}

static int write_state(struct q2_image *img, unsigned index, struct q2_error *err)
{
    uint8_t buf[Q2_LUKS_SLOT_BYTES];
    q2_luks_encode_slot(&img->crypt->luks.slots[index], buf);
    return write_durably(img, slot_offset(img, index), buf, Q2_LUKS_STATE_BYTES, err);
}

static int set_state(struct q2_image *img, unsigned index, bool active,
                     struct q2_error *err)
{
    img->crypt->luks.slots[index].active = active;
    return write_state(img, index, err);
}

// Salt, iterations and material of a slot that is inactive (and stays so).
static int write_inactive(struct q2_image *img, unsigned index, const uint8_t *material,
                          struct q2_error *err)
{
    const struct q2_luks_slot *slot = &img->crypt->luks.slots[index];
    uint8_t buf[Q2_LUKS_SLOT_BYTES];
    q2_luks_encode_slot(slot, buf);
    int ret = q2_io_write(img->disk.file, material_offset(img, slot), material,
                          q2_key_material_bytes(&img->crypt->suite), err);
    if (ret == 0)
        ret = write_durably(img, slot_offset(img, index) + Q2_LUKS_STATE_BYTES,
                            buf + Q2_LUKS_STATE_BYTES, sizeof(buf) - Q2_LUKS_STATE_BYTES,
                            err);
    return ret;
}

int q2_slot_erase(struct q2_image *img, unsigned index, struct q2_error *err)
{
    struct q2_luks_slot *slot = &img->crypt->luks.slots[index];
    uint8_t *noise;
    int ret = material_new(&img->crypt->suite, &noise, err);
    if (ret < 0)
        return ret;
    ret = q2_key_random(noise, q2_key_material_bytes(&img->crypt->suite), err);
    if (ret == 0)
        ret = set_state(img, index, false, err);
    if (ret == 0) {
        slot->iterations = 0;
        memset(slot->salt, 0, sizeof(slot->salt));
        ret = write_inactive(img, index, noise, err);
    }
    free(noise);
    return ret;
}

// A slot whose salt, iterations and material are known goes to where it is to be.
static int fill(struct q2_image *img, unsigned index, const struct q2_luks_slot *from,
                const uint8_t *material, struct q2_error *err)
{
    struct q2_luks_slot *slot = &img->crypt->luks.slots[index];
    slot->iterations = from->iterations;
    memcpy(slot->salt, from->salt, sizeof(slot->salt));
    int ret = write_inactive(img, index, material, err);
    return ret < 0 ? ret : set_state(img, index, true, err);
}

static unsigned find_free(const struct q2_luks_header *h)
{
    unsigned i = 0;
    while (i < Q2_LUKS_SLOTS && h->slots[i].active)
        i++;
    return i;
}

// While an active slot is replaced, a free one holds the new passphrase: there is no
// moment in which a lone slot is gone.
static int replace(struct q2_image *img, unsigned index, const struct q2_luks_slot *from,
                   const uint8_t *material, struct q2_error *err)
{
    unsigned spare = find_free(&img->crypt->luks);
    bool has_spare = spare < Q2_LUKS_SLOTS;
    int ret = has_spare ? fill(img, spare, from, material, err) : 0;
    if (ret == 0)
        ret = q2_slot_erase(img, index, err);
    if (ret == 0)
        ret = fill(img, index, from, material, err);
    if (ret == 0 && has_spare)
        ret = q2_slot_erase(img, spare, err);
    return ret;
}

int q2_slot_put(struct q2_image *img, unsigned index, const struct q2_secret *passphrase,
                uint64_t iter_time_ms, struct q2_error *err)
{
    const struct q2_crypt *c = img->crypt;
    struct q2_luks_slot slot = {.stripes = Q2_LUKS_STRIPES};
    uint8_t *material;
    int ret = material_new(&c->suite, &material, err);
    if (ret < 0)
        return ret;
    ret = q2_key_random(slot.salt, sizeof(slot.salt), err);
    if (ret == 0)
        ret = q2_key_iterations(c->suite.hash, c->suite.key_bytes, iter_time_ms, 1,
                                &slot.iterations, err);
    if (ret == 0)
        ret = q2_key_wrap(&c->suite, &slot, passphrase, c->key, material, err);
    if (ret == 0)
        ret = c->luks.slots[index].active ? replace(img, index, &slot, material, err)
                                          : fill(img, index, &slot, material, err);
    free(material);
    return ret;
}
