// SPDX-License-Identifier: MIT
// The LUKS1 header that an encrypted image carries (crypt_method 2).
#ifndef Q2_DISK_LUKS_H
#define Q2_DISK_LUKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define Q2_LUKS_HEADER_BYTES 592U
#define Q2_LUKS_SLOTS 8U
#define Q2_LUKS_SECTOR 512U
#define Q2_LUKS_STRIPES 4000U
// Two keys of AES-256, as XTS takes them.
#define Q2_LUKS_MAX_KEY_BYTES 64U
// Where slots lie in the header, their states within them.
#define Q2_LUKS_SLOTS_AT 208U
#define Q2_LUKS_SLOT_BYTES 48U
#define Q2_LUKS_STATE_BYTES 4U

struct q2_luks_slot {
    bool active;
    uint32_t iterations;
    uint8_t salt[32];
    uint32_t key_offset_sectors; // from the start of the LUKS header
    uint32_t stripes;
};

struct q2_luks_header {
    uint16_t version;
    char cipher_name[33]; // "aes"
    char cipher_mode[33]; // "xts-plain64"
    char hash_spec[33];   // "sha256"
    uint32_t payload_offset_sectors;
    uint32_t master_key_bytes;
    uint8_t master_key_digest[20];
    uint8_t master_key_salt[32];
    uint32_t master_key_iterations;
    char uuid[41];
    struct q2_luks_slot slots[Q2_LUKS_SLOTS];
};

// Does a LUKS header begin here?
bool q2_luks_probe(const void *buf, size_t n_bytes);

// Decodes and validates magic, version, strings, slot states, stripes.
int q2_luks_decode(const void *buf, size_t n_bytes, struct q2_luks_header *out,
                   struct q2_error *err);

// The place of a slot's key material from the start of the LUKS header, in sectors, its
// end not included.
uint64_t q2_luks_slot_end(const struct q2_luks_header *h, unsigned index);

// For a new header whose names and key length are known: places the key material of all
// slots as cryptsetup does, and the payload behind them.
void q2_luks_lay_out(struct q2_luks_header *h);

// buf: Q2_LUKS_HEADER_BYTES, and Q2_LUKS_SLOT_BYTES.
void q2_luks_encode(const struct q2_luks_header *h, void *buf);
void q2_luks_encode_slot(const struct q2_luks_slot *slot, void *buf);

// Splits cipher_mode "xts-plain64", "cbc-essiv:sha256" in three strings ("" where
// absent). Each out has room for 33 bytes.
void q2_luks_split_mode(const char *cipher_mode, char mode[33], char ivgen[33],
                        char ivgen_hash[33]);

#endif
