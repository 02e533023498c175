// SPDX-License-Identifier: MIT
// The LUKS header: what qemu-img writes is taken, nonsense is not.
#include "disk/luks.h"

#include <errno.h>

#include "base/endian.h"
#include "test.h"

#define SLOT(i) (208U + 48U * (i))

// As qemu-img makes it: a 64-byte key, 4000 stripes, slots 504 sectors apart.
static void build(uint8_t *p)
{
    memset(p, 0, Q2_LUKS_HEADER_BYTES);
    memcpy(p, "LUKS\xba\xbe\0\1", 8);
    memcpy(p + 8, "aes", 3);
    memcpy(p + 40, "xts-plain64", 11);
    memcpy(p + 72, "sha256", 6);
    q2_store_be32(p + 104, 4040);
    q2_store_be32(p + 108, 64);
    memset(p + 112, 0x11, 20);
    memset(p + 132, 0x22, 32);
    q2_store_be32(p + 164, 9848);
    memcpy(p + 168, "fbae4f92-06c4-4c03-ae21-6d1b9ec25c23", 36);
    for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++) {
        q2_store_be32(p + SLOT(i), i == 0 ? 0x00ac71f3 : 0x0000dead);
        q2_store_be32(p + SLOT(i) + 4, i == 0 ? 41011 : 0);
        memset(p + SLOT(i) + 8, 0x33, 32);
        q2_store_be32(p + SLOT(i) + 40, 8 + i * 504);
        q2_store_be32(p + SLOT(i) + 44, 4000);
    }
}

static void decodes(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_luks_header h;
    uint8_t p[Q2_LUKS_HEADER_BYTES];

    build(p);
    is_int(q2_luks_decode(p, sizeof(p), &h, &err), 0, "decodes %s", err.message);
    is_u64(h.version, 1, "version");
    is_str(h.cipher_name, "aes", "cipher");
    is_str(h.cipher_mode, "xts-plain64", "mode");
    is_str(h.hash_spec, "sha256", "hash");
    is_str(h.uuid, "fbae4f92-06c4-4c03-ae21-6d1b9ec25c23", "UUID");
    is_u64(h.payload_offset_sectors, 4040, "payload");
    is_u64(h.master_key_bytes, 64, "key length");
    is_u64(h.master_key_iterations, 9848, "key iterations");
    is_u64(h.master_key_digest[19], 0x11, "digest");
    is_u64(h.master_key_salt[31], 0x22, "salt");
    ok(h.slots[0].active && !h.slots[1].active, "slot states");
    is_u64(h.slots[0].iterations, 41011, "slot iterations");
    is_u64(h.slots[7].key_offset_sectors, 8 + 7 * 504, "slot offset");
    is_u64(h.slots[7].stripes, 4000, "slot stripes");
    is_u64(h.slots[7].salt[31], 0x33, "slot salt");

    // 500 sectors of key: the next one is free
    q2_store_be32(p + SLOT(1) + 40, 8 + 500);
    is_int(q2_luks_decode(p, sizeof(p), &h, &err), 0, "slots may touch %s", err.message);
}

static void hostile(void)
{
    static const struct {
        const char *name;
        const char *part; // of the message
        size_t at;
        uint32_t value;
    } cases[] = {
        {"another magic", "not in LUKS format", 0, 0x4c554b54},
        {"key of no bytes", "key length 0", 108, 0},
        {"key of 65 bytes", "key length 65", 108, 65},
        {"key of 4 GiB", "key length 4294967295", 108, UINT32_MAX},
        {"no key iterations", "iteration count is zero", 164, 0},
        {"payload on the header", "payload is overlapping", 104, 1},
        {"payload on a slot", "Keyslot 7 is overlapping with the encrypted payload", 104,
         4035},
        {"unknown slot state", "Keyslot 2 state", SLOT(2), 1},
        {"slot without iterations", "Keyslot 0 iteration count", SLOT(0) + 4, 0},
        {"other stripes", "Keyslot 3 is corrupted (stripes 4001", SLOT(3) + 44, 4001},
        {"many stripes", "Keyslot 3 is corrupted (stripes 4294967295", SLOT(3) + 44,
         UINT32_MAX},
        {"slot on the header", "Keyslot 1 is overlapping with the LUKS header",
         SLOT(1) + 40, 1},
        {"slot far away", "Keyslot 1 is overlapping with the encrypted payload",
         SLOT(1) + 40, UINT32_MAX},
        {"slot on another", "Keyslots 0 and 4 are overlapping", SLOT(4) + 40, 507},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct q2_error err = Q2_ERROR_INIT;
        struct q2_luks_header h;
        uint8_t p[Q2_LUKS_HEADER_BYTES];
        build(p);
        q2_store_be32(p + cases[i].at, cases[i].value);
        is_int(q2_luks_decode(p, sizeof(p), &h, &err), -EINVAL, "%s", cases[i].name);
        has_str(err.message, cases[i].part, "is told");
    }
}

static void strings(void)
{
    static const struct {
        size_t at;
        size_t n_bytes;
        const char *part;
    } cases[] = {
        {8, 32, "cipher name is not NUL terminated"},
        {40, 32, "cipher mode is not NUL terminated"},
        {72, 32, "hash spec is not NUL terminated"},
    };
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_luks_header h;
    uint8_t p[Q2_LUKS_HEADER_BYTES];

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        build(p);
        memset(p + cases[i].at, 'x', cases[i].n_bytes);
        is_int(q2_luks_decode(p, sizeof(p), &h, &err), -EINVAL, "a full field");
        has_str(err.message, cases[i].part, "is told");
    }
    build(p);
    memset(p + 168, 'x', 40);
    is_int(q2_luks_decode(p, sizeof(p), &h, &err), 0, "but the UUID's");
    is_u64(strlen(h.uuid), 40, "which ends all the same");
    build(p);
    q2_store_be16(p + 6, 2);
    is_int(q2_luks_decode(p, sizeof(p), &h, &err), -ENOTSUP, "LUKS version 2");
    has_str(err.message, "version 2", "is named");
    build(p);
    is_int(q2_luks_decode(p, sizeof(p) - 1, &h, &err), -EINVAL, "a byte too few");
    has_str(err.message, "591 of 592", "is told");
}

static void modes(void)
{
    static const struct {
        const char *mode, *a, *b, *c;
    } cases[] = {
        {"xts-plain64", "xts", "plain64", ""},
        {"cbc-essiv:sha256", "cbc", "essiv", "sha256"},
        {"ecb", "ecb", "", ""},
        {"", "", "", ""},
        {"-", "", "", ""},
        {"cbc-", "cbc", "", ""},
        {"cbc-essiv:", "cbc", "essiv", ""},
        {"cbc-a:b-c:d", "cbc", "a", "b-c:d"},
        {"01234567890123456789012345678901", "01234567890123456789012345678901", "", ""},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char a[33];
        char b[33];
        char c[33];
        q2_luks_split_mode(cases[i].mode, a, b, c);
        is_str(a, cases[i].a, "'%s': mode", cases[i].mode);
        is_str(b, cases[i].b, "'%s': IV generator", cases[i].mode);
        is_str(c, cases[i].c, "'%s': its hash", cases[i].mode);
    }
}

// What is encoded is what was decoded, byte by byte.
static void encodes(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_luks_header h;
    uint8_t p[Q2_LUKS_HEADER_BYTES], again[Q2_LUKS_HEADER_BYTES];
    build(p);
    is_int(q2_luks_decode(p, sizeof(p), &h, &err), 0, "decodes %s", err.message);
    q2_luks_encode(&h, again);
    ok(memcmp(p, again, sizeof(p)) == 0, "and encodes");
}

// As cryptsetup and QEMU lay a header out.
static void lays_out(void)
{
    static const struct {
        uint32_t key_bytes, first, second, payload;
    } cases[] = {
        {64, 8, 512, 4040}, {32, 8, 264, 2056}, {16, 8, 136, 1032}, {48, 8, 384, 3016}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct q2_luks_header h = {.master_key_bytes = cases[i].key_bytes};
        q2_luks_lay_out(&h);
        is_u64(h.slots[0].key_offset_sectors, cases[i].first, "the first slot");
        is_u64(h.slots[1].key_offset_sectors, cases[i].second, "the second");
        is_u64(h.payload_offset_sectors, cases[i].payload, "the payload");
        is_u64(h.slots[7].stripes, 4000, "stripes");
        ok(q2_luks_slot_end(&h, 7) <= h.payload_offset_sectors, "the last one ends");
    }
}

int main(void)
{
    decodes();
    hostile();
    strings();
    modes();
    encodes();
    lays_out();
    return done_testing();
}
