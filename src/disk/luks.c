// SPDX-License-Identifier: MIT
// The LUKS1 header (LUKS On-Disk Format Specification 1.2): decoded and checked, so that
// what is read or computed from it has bounds.
#include "disk/luks.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"

enum {
    AT_MAGIC = 0,
    AT_VERSION = 6,
    AT_CIPHER_NAME = 8,
    AT_CIPHER_MODE = 40,
    AT_HASH_SPEC = 72,
    AT_PAYLOAD_OFFSET = 104,
    AT_KEY_BYTES = 108,
    AT_DIGEST = 112,
    AT_DIGEST_SALT = 132,
    AT_DIGEST_ITERATIONS = 164,
    AT_UUID = 168,
    SLOT_STATE = 0,
    SLOT_ITERATIONS = 4,
    SLOT_SALT = 8,
    SLOT_KEY_OFFSET = 40,
    SLOT_STRIPES = 44,
};

#define NAME_BYTES 32U
#define UUID_BYTES 40U
#define SLOT_ACTIVE 0x00ac71f3U
#define SLOT_INACTIVE 0x0000deadU
// Key material lies at multiples of this many sectors, the first at the first one.
#define SLOT_ALIGN 8U
#define HEADER_SECTORS 2U // the header's 592 bytes

static const uint8_t magic[6] = {'L', 'U', 'K', 'S', 0xba, 0xbe};

// What stands on the disk must end within its field.
static int load_string(const uint8_t *p, size_t n_bytes, const char *what, char *out,
                       struct q2_error *err)
{
    if (!memchr(p, '\0', n_bytes))
        return q2_fail(err, -EINVAL, "LUKS header %s is not NUL terminated", what);
    memcpy(out, p, n_bytes);
    out[n_bytes] = '\0';
    return 0;
}

static int load_slot(const uint8_t *p, unsigned index, struct q2_luks_slot *slot,
                     struct q2_error *err)
{
    uint32_t state = q2_load_be32(p + SLOT_STATE);
    if (state != SLOT_ACTIVE && state != SLOT_INACTIVE)
        return q2_fail(err, -EINVAL,
                       "Keyslot %u state (active/disable) is corrupted (0x%08" PRIx32 ")",
                       index, state);
    slot->active = state == SLOT_ACTIVE;
    slot->iterations = q2_load_be32(p + SLOT_ITERATIONS);
    memcpy(slot->salt, p + SLOT_SALT, sizeof(slot->salt));
    slot->key_offset_sectors = q2_load_be32(p + SLOT_KEY_OFFSET);
    slot->stripes = q2_load_be32(p + SLOT_STRIPES);

    if (slot->stripes != Q2_LUKS_STRIPES)
        return q2_fail(err, -EINVAL,
                       "Keyslot %u is corrupted (stripes %" PRIu32 " != %u)", index,
                       slot->stripes, Q2_LUKS_STRIPES);
    if (slot->active && slot->iterations == 0)
        return q2_fail(err, -EINVAL, "Keyslot %u iteration count is zero", index);
    return 0;
}

static int check_numbers(const struct q2_luks_header *h, struct q2_error *err)
{
    if (h->master_key_bytes == 0 || h->master_key_bytes > Q2_LUKS_MAX_KEY_BYTES)
        return q2_fail(err, -EINVAL,
                       "LUKS master key length %" PRIu32 " is not between 1 and %u bytes",
                       h->master_key_bytes, Q2_LUKS_MAX_KEY_BYTES);
    if (h->master_key_iterations == 0)
        return q2_fail(err, -EINVAL, "LUKS key iteration count is zero");
    if (h->payload_offset_sectors < HEADER_SECTORS)
        return q2_fail(err, -EINVAL,
                       "LUKS payload is overlapping with the header (sector %" PRIu32 ")",
                       h->payload_offset_sectors);
    return 0;
}

uint64_t q2_luks_slot_end(const struct q2_luks_header *h, unsigned index)
{
    uint64_t n_bytes = (uint64_t)h->master_key_bytes * Q2_LUKS_STRIPES;
    return h->slots[index].key_offset_sectors + q2_div_round_up(n_bytes, Q2_LUKS_SECTOR);
}

static int check_slot_place(const struct q2_luks_header *h, unsigned index,
                            struct q2_error *err)
{
    uint64_t start = h->slots[index].key_offset_sectors;
    uint64_t end = q2_luks_slot_end(h, index);

    if (start < HEADER_SECTORS)
        return q2_fail(err, -EINVAL, "Keyslot %u is overlapping with the LUKS header",
                       index);
    if (end > h->payload_offset_sectors)
        return q2_fail(err, -EINVAL,
                       "Keyslot %u is overlapping with the encrypted payload", index);
    for (unsigned other = 0; other < index; other++)
        if (start < q2_luks_slot_end(h, other) &&
            h->slots[other].key_offset_sectors < end)
            return q2_fail(err, -EINVAL,
                           "Keyslots %u and %u are overlapping in the header", other,
                           index);
    return 0;
}

static int load_strings(const uint8_t *p, struct q2_luks_header *h, struct q2_error *err)
{
    int ret =
        load_string(p + AT_CIPHER_NAME, NAME_BYTES, "cipher name", h->cipher_name, err);
    if (ret == 0)
        ret = load_string(p + AT_CIPHER_MODE, NAME_BYTES, "cipher mode", h->cipher_mode,
                          err);
    if (ret == 0)
        ret = load_string(p + AT_HASH_SPEC, NAME_BYTES, "hash spec", h->hash_spec, err);
    if (ret == 0)
        memcpy(h->uuid, p + AT_UUID, UUID_BYTES); // nobody minds where it ends
    return ret;
}

bool q2_luks_probe(const void *buf, size_t n_bytes)
{
    return n_bytes >= sizeof(magic) &&
           memcmp((const uint8_t *)buf + AT_MAGIC, magic, sizeof(magic)) == 0;
}

static int load_header(const uint8_t *p, struct q2_luks_header *h, struct q2_error *err)
{
    if (!q2_luks_probe(p, sizeof(magic)))
        return q2_fail(err, -EINVAL, "Volume is not in LUKS format");
    h->version = q2_load_be16(p + AT_VERSION);
    if (h->version != 1)
        return q2_fail(err, -ENOTSUP, "LUKS version %u is not supported", h->version);

    h->payload_offset_sectors = q2_load_be32(p + AT_PAYLOAD_OFFSET);
    h->master_key_bytes = q2_load_be32(p + AT_KEY_BYTES);
    memcpy(h->master_key_digest, p + AT_DIGEST, sizeof(h->master_key_digest));
    memcpy(h->master_key_salt, p + AT_DIGEST_SALT, sizeof(h->master_key_salt));
    h->master_key_iterations = q2_load_be32(p + AT_DIGEST_ITERATIONS);

    int ret = load_strings(p, h, err);
    return ret < 0 ? ret : check_numbers(h, err);
}

int q2_luks_decode(const void *buf, size_t n_bytes, struct q2_luks_header *out,
                   struct q2_error *err)
{
    const uint8_t *p = buf;
    struct q2_luks_header h = {0};

    if (n_bytes < Q2_LUKS_HEADER_BYTES)
        return q2_fail(err, -EINVAL, "LUKS header is incomplete (%zu of %u bytes)",
                       n_bytes, Q2_LUKS_HEADER_BYTES);
    int ret = load_header(p, &h, err);
    for (unsigned i = 0; i < Q2_LUKS_SLOTS && ret == 0; i++)
        ret = load_slot(p + Q2_LUKS_SLOTS_AT + (size_t)i * Q2_LUKS_SLOT_BYTES, i,
                        &h.slots[i], err);
    for (unsigned i = 0; i < Q2_LUKS_SLOTS && ret == 0; i++)
        ret = check_slot_place(&h, i, err);
    if (ret == 0)
        *out = h;
    return ret;
}

// --- encoding ------------------------------------------------------------------------

void q2_luks_lay_out(struct q2_luks_header *h)
{
    uint64_t n_sectors =
        q2_div_round_up((uint64_t)h->master_key_bytes * Q2_LUKS_STRIPES, Q2_LUKS_SECTOR);
    uint32_t distance = (uint32_t)q2_align_up(n_sectors, SLOT_ALIGN);
    for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++) {
        h->slots[i].key_offset_sectors = SLOT_ALIGN + i * distance;
        h->slots[i].stripes = Q2_LUKS_STRIPES;
    }
    h->payload_offset_sectors = SLOT_ALIGN + Q2_LUKS_SLOTS * distance;
}

void q2_luks_encode_slot(const struct q2_luks_slot *slot, void *buf)
{
    uint8_t *p = buf;
    q2_store_be32(p + SLOT_STATE, slot->active ? SLOT_ACTIVE : SLOT_INACTIVE);
    q2_store_be32(p + SLOT_ITERATIONS, slot->iterations);
    memcpy(p + SLOT_SALT, slot->salt, sizeof(slot->salt));
    q2_store_be32(p + SLOT_KEY_OFFSET, slot->key_offset_sectors);
    q2_store_be32(p + SLOT_STRIPES, slot->stripes);
}

void q2_luks_encode(const struct q2_luks_header *h, void *buf)
{
    uint8_t *p = buf;
    memset(p, 0, Q2_LUKS_HEADER_BYTES);
    memcpy(p + AT_MAGIC, magic, sizeof(magic));
    q2_store_be16(p + AT_VERSION, h->version);
    memcpy(p + AT_CIPHER_NAME, h->cipher_name, NAME_BYTES);
    memcpy(p + AT_CIPHER_MODE, h->cipher_mode, NAME_BYTES);
    memcpy(p + AT_HASH_SPEC, h->hash_spec, NAME_BYTES);
    q2_store_be32(p + AT_PAYLOAD_OFFSET, h->payload_offset_sectors);
    q2_store_be32(p + AT_KEY_BYTES, h->master_key_bytes);
    memcpy(p + AT_DIGEST, h->master_key_digest, sizeof(h->master_key_digest));
    memcpy(p + AT_DIGEST_SALT, h->master_key_salt, sizeof(h->master_key_salt));
    q2_store_be32(p + AT_DIGEST_ITERATIONS, h->master_key_iterations);
    memcpy(p + AT_UUID, h->uuid, UUID_BYTES);
    for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++)
        q2_luks_encode_slot(&h->slots[i],
                            p + Q2_LUKS_SLOTS_AT + (size_t)i * Q2_LUKS_SLOT_BYTES);
}

// -------------------------------------------------------------------------------------

// Copies up to the separator (or the end) of *text and goes behind it.
static void split(const char **text, const char *separator, char out[33])
{
    size_t n = strcspn(*text, separator);
    size_t fits = n < NAME_BYTES ? n : NAME_BYTES;
    memcpy(out, *text, fits);
    out[fits] = '\0';
    *text += n;
    if (**text)
        (*text)++;
}

void q2_luks_split_mode(const char *cipher_mode, char mode[33], char ivgen[33],
                        char ivgen_hash[33])
{
    const char *rest = cipher_mode;
    split(&rest, "-", mode);
    split(&rest, ":", ivgen);
    split(&rest, "", ivgen_hash);
}
