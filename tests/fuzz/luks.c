// SPDX-License-Identifier: MIT
// Target: LUKS headers. Key slots are tried, filled and erased. A header whose key
// material is nothing but zeros is as good as any other: it opens some key, and only the
// digest of that key has to be put into the header.
#include "tests/fuzz/luks.h"

#include <string.h>

#include "base/endian.h"
#include "image/crypt.h"
#include "image/crypt_key.h"
#include "image/crypt_slots.h"
#include "ops/amend.h"
#include "tests/fuzz/fuzz.h"

// Where fields lie in the header, and in a slot.
#define DIGEST_AT 112U
#define ITERATIONS_AT 164U
#define SLOT_ITERATIONS_AT 4U
#define FEW_ITERATIONS 1000U

static int change_keys(struct q2_image *img, const uint8_t a[3], struct q2_error *err)
{
    const struct q2_amend_keys keys = {
        .secrets = fuzz_secrets(),
        .state = a[0] & 1 ? "active" : "inactive",
        .new_secret = a[0] & 2 ? "new" : NULL,
        .old_secret = a[0] & 4 ? "old" : NULL,
        .set_keyslot = a[0] & 8,
        .keyslot = a[1] % (Q2_LUKS_SLOTS + 1),
        .set_iter_time = true, // the shortest one: the least iterations are made
        .iter_time = 1,
        .force = a[0] & 16,
    };
    const struct q2_amend_options o = {.keys = &keys};
    return img->crypt ? q2_amend(&img->disk, &o, NULL, err)
                      : q2_fail(err, -1, "not encrypted");
}

static int write_some(struct q2_image *img, const uint8_t a[3], struct q2_error *err)
{
    uint8_t buf[700];
    memset(buf, a[0], sizeof(buf));
    if (img->disk.size < sizeof(buf) + (uint64_t)a[1] * 100)
        return 0;
    return q2_disk_write(&img->disk, (uint64_t)a[1] * 100, buf, sizeof(buf), err);
}

static const struct fuzz_operation operations[] = {
    {FUZZ_KEYS, true, change_keys}, // the last slot may be erased, with force
    {FUZZ_WRITE, true, write_some},
};

void fuzz_target_luks(const uint8_t *data, size_t n_bytes)
{
    struct q2_io *io = fuzz_file(data, n_bytes);
    fuzz_content_free(fuzz_content_read(io));
    q2_io_close(io);
    fuzz_operate(data, n_bytes, operations, 2);
}

// --- for mutations -------------------------------------------------------------------

static void few_iterations(uint8_t *p)
{
    if (q2_load_be32(p) > FEW_ITERATIONS)
        q2_store_be32(p, 1 + q2_load_be32(p) % FEW_ITERATIONS);
}

// The key that slot number index has.
static int find_key(struct q2_io *io, uint64_t at, const struct q2_luks_header *h,
                    unsigned index, uint8_t digest[20], struct q2_error *err)
{
    static uint8_t material[Q2_LUKS_MAX_KEY_BYTES * Q2_LUKS_STRIPES];
    const struct q2_secret *passphrase;
    const struct q2_luks_slot *slot = &h->slots[index];
    struct q2_crypt_suite suite;
    uint8_t key[Q2_LUKS_MAX_KEY_BYTES];
    int ret = q2_crypt_suite_read(h, &suite, err);
    if (ret == 0)
        ret = q2_secrets_find_text(fuzz_secrets(), "old", &passphrase, err);
    if (ret == 0)
        ret = q2_io_read(io, at + (uint64_t)slot->key_offset_sectors * Q2_LUKS_SECTOR,
                         material, q2_key_material_bytes(&suite), err);
    if (ret == 0)
        ret = q2_key_unwrap(&suite, slot, passphrase, material, key, err);
    return ret < 0 ? ret : q2_key_digest(&suite, h, key, digest, err);
}

void fuzz_luks_fit(uint8_t *data, size_t n_bytes)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_luks_header h;
    struct q2_io *io = fuzz_file(data, n_bytes);
    struct q2_image *img = fuzz_open(io, FUZZ_DESCRIPTION);
    uint64_t at = img && img->header.has_crypto ? img->header.crypto_header_offset : 0;
    if (img)
        fuzz_close(img);
    if (at > 0 && at <= n_bytes && n_bytes - at >= Q2_LUKS_HEADER_BYTES) {
        uint8_t *p = data + at;
        few_iterations(p + ITERATIONS_AT);
        for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++)
            few_iterations(p + Q2_LUKS_SLOTS_AT + i * Q2_LUKS_SLOT_BYTES +
                           SLOT_ITERATIONS_AT);
        bool good = q2_luks_decode(p, Q2_LUKS_HEADER_BYTES, &h, &err) == 0;
        unsigned i = 0;
        while (good && i < Q2_LUKS_SLOTS && !h.slots[i].active)
            i++;
        if (good && i < Q2_LUKS_SLOTS)
            find_key(io, at, &h, i, p + DIGEST_AT, &err);
    }
    q2_io_close(io);
}
