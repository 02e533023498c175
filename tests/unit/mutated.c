// SPDX-License-Identifier: MIT
// Decoders under random changes of good bytes: no crash (the sanitizers see to that), and
// whatever is accepted keeps its promises. The seed is fixed; "mutated SEED ROUNDS" runs
// others.
#include <errno.h>

#include "built.h"
#include "disk/bitmap.h"
#include "disk/luks.h"
#include "disk/snapshot.h"
#include "test.h"

#define CLUSTER_BITS 12U

struct tally {
    unsigned accepted;
    unsigned refused;
    unsigned broken; // accepted although it breaks a promise
};

static const uint64_t interesting[] = {
    0,
    1,
    7,
    8,
    9,
    16,
    22,
    24,
    64,
    104,
    112,
    511,
    512,
    4095,
    4096,
    4097,
    65535,
    65536,
    INT32_MAX,
    UINT32_MAX,
    UINT32_MAX - 7,
    INT64_MAX,
    UINT64_MAX,
    UINT64_MAX - 7,
    UINT64_C(1) << 63,
    UINT64_C(0x7ffffffffffff000),
};

// One to four changes: a bit, a byte, or a whole field of a telling value.
static void mutate(uint8_t *p, size_t n_bytes, uint64_t *seed)
{
    for (uint64_t left = 1 + test_random(seed) % 4; left; left--) {
        size_t at = (size_t)(test_random(seed) % n_bytes);
        size_t width = (size_t)1 << (test_random(seed) % 4);
        uint64_t value = interesting[test_random(seed) %
                                     (sizeof(interesting) / sizeof(interesting[0]))];
        switch (test_random(seed) % 3) {
        case 0:
            p[at] ^= (uint8_t)(1U << (test_random(seed) % 8));
            break;
        case 1:
            p[at] = (uint8_t)test_random(seed);
            break;
        default:
            at &= ~(width - 1);
            for (size_t k = 0; k < width && at + k < n_bytes; k++)
                p[at + k] = (uint8_t)(value >> (8 * (width - 1 - k)));
        }
    }
}

// A copy of exactly n_bytes, so that a read beyond them is seen.
static uint8_t *exact_copy(const uint8_t *p, size_t n_bytes)
{
    uint8_t *copy = malloc(n_bytes ? n_bytes : 1);
    if (!copy)
        abort();
    if (n_bytes)
        memcpy(copy, p, n_bytes);
    return copy;
}

static size_t maybe_shorter(size_t n_bytes, uint64_t *seed)
{
    return test_random(seed) % 4 ? n_bytes : (size_t)(test_random(seed) % (n_bytes + 1));
}

static bool table_fits(const struct q2_header *h, uint64_t offset, uint64_t n_bytes)
{
    return offset % q2_header_cluster_size(h) == 0 && offset <= INT64_MAX &&
           n_bytes <= (uint64_t)INT64_MAX - offset;
}

static bool header_is_sane(const struct q2_header *h)
{
    uint64_t cluster = q2_header_cluster_size(h);
    unsigned l2_bits =
        h->cluster_bits - (h->incompatible_features & Q2_INCOMPAT_EXTENDED_L2 ? 4 : 3);

    return (h->version == 2 || h->version == 3) && h->cluster_bits >= 9 &&
           h->cluster_bits <= 21 && h->refcount_order <= 6 && h->crypt_method <= 2 &&
           !(h->incompatible_features & ~Q2_INCOMPAT_KNOWN) &&
           h->header_length <= cluster && h->l1_size <= Q2_MAX_L1_BYTES / 8 &&
           h->size <= (uint64_t)h->l1_size << (h->cluster_bits + l2_bits) &&
           h->refcount_table_clusters > 0 &&
           h->refcount_table_clusters * cluster <= Q2_MAX_REFCOUNT_TABLE_BYTES &&
           h->nb_snapshots <= Q2_MAX_SNAPSHOTS &&
           table_fits(h, h->l1_table_offset, (uint64_t)h->l1_size * 8) &&
           table_fits(h, h->refcount_table_offset,
                      h->refcount_table_clusters * cluster) &&
           table_fits(h, h->snapshots_offset, 0) &&
           table_fits(h, h->bitmap_directory_offset, h->bitmap_directory_size) &&
           table_fits(h, h->crypto_header_offset, h->crypto_header_length) &&
           (!h->backing_file || strlen(h->backing_file) <= Q2_MAX_BACKING_NAME) &&
           (!h->backing_format || strlen(h->backing_format) < 16) &&
           (h->crypt_method == Q2_CRYPT_LUKS) == h->has_crypto;
}

static bool same_string(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static bool same_header(const struct q2_header *a, const struct q2_header *b)
{
    return a->version == b->version && a->size == b->size && a->l1_size == b->l1_size &&
           a->l1_table_offset == b->l1_table_offset &&
           a->incompatible_features == b->incompatible_features &&
           a->autoclear_features == b->autoclear_features &&
           a->has_bitmaps == b->has_bitmaps && a->nb_bitmaps == b->nb_bitmaps &&
           a->crypto_header_offset == b->crypto_header_offset &&
           same_string(a->backing_file, b->backing_file) &&
           same_string(a->backing_format, b->backing_format) &&
           same_string(a->data_file, b->data_file);
}

// What was accepted can be written, unless it has no room, and reads the same.
static bool header_round_trips(const struct q2_header *h)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_header copy;
    struct q2_header again;
    size_t size = (size_t)q2_header_cluster_size(h);
    size_t used;
    uint8_t *out = malloc(size);

    if (!out || q2_header_copy(h, &copy, &err) < 0)
        abort();
    int ret = q2_header_encode(&copy, out, &used, &err);
    bool good = ret == -ENOSPC || (ret == 0 && used <= size);
    if (ret == 0) {
        ret = q2_header_decode(out, used, &again, &err);
        good = good && ret == 0 && same_header(h, &again);
        if (ret == 0)
            q2_header_clear(&again);
    }
    q2_header_clear(&copy);
    free(out);
    return good;
}

static void try_header(const uint8_t *p, size_t n_bytes, struct tally *t)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_header h;

    if (q2_header_bytes_needed(p, n_bytes) > (size_t)2 << 20)
        t->broken++;
    if (q2_header_decode(p, n_bytes, &h, &err) < 0) {
        t->refused++;
        t->broken += err.code >= 0 || err.message[0] == '\0';
        return;
    }
    t->accepted++;
    t->broken += !header_is_sane(&h) || !header_round_trips(&h);
    q2_header_clear(&h);
}

// Good headers of both versions with many extensions.
static struct built sample_header(uint64_t kind)
{
    static const uint8_t bitmaps[24] = {0, 0, 0, 1, [15] = 32, [22] = 0x50};
    static const uint8_t crypto[16] = {[6] = 0x60, [14] = 3};
    static const uint8_t table[96] = {0, 5, 'a', [48] = 0, 6, 'b'};
    struct built b = build_header(kind % 4 ? 3 : 2, CLUSTER_BITS);

    if (kind % 4 == 1) {
        q2_store_be32(b.p + 32, 2);
        build_extension(&b, Q2_EXT_CRYPTO, crypto, sizeof(crypto));
    }
    if (kind % 4 == 2) {
        q2_store_be64(b.p + 72, Q2_INCOMPAT_DATA_FILE);
        q2_store_be64(b.p + 88, Q2_AUTOCLEAR_KNOWN);
        build_extension(&b, Q2_EXT_DATA_FILE, "d.raw", 5);
        build_extension(&b, Q2_EXT_BITMAPS, bitmaps, sizeof(bitmaps));
    }
    build_extension(&b, Q2_EXT_BACKING_FORMAT, "qcow2", 5);
    build_extension(&b, Q2_EXT_FEATURE_TABLE, table, sizeof(table));
    build_extension(&b, 0x4711, "unknown", 7);
    build_backing(&b, "base");
    return b;
}

static void headers(uint64_t seed, unsigned rounds)
{
    struct tally t = {0};

    for (unsigned i = 0; i < rounds; i++) {
        struct built b = sample_header(test_random(&seed));
        size_t n = maybe_shorter(b.n_bytes, &seed);
        mutate(b.p, test_random(&seed) % 2 ? 112 : b.at + 8, &seed);
        uint8_t *copy = exact_copy(b.p, n);
        try_header(copy, n, &t);
        free(copy);
        free(b.p);
    }
    is_u64(t.broken, 0, "headers: %u accepted, %u refused, rightly", t.accepted,
           t.refused);
    ok(t.accepted > rounds / 20 && t.refused > rounds / 20, "headers: some of both");
}

static bool snapshot_round_trips(const struct q2_snapshot *s)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_snapshot d = {0};
    size_t n = q2_snapshot_bytes(s);
    uint8_t *out = malloc(n);
    size_t used = 0;

    if (!out)
        abort();
    q2_snapshot_encode(s, out);
    bool good = q2_snapshot_decode(out, n, 0, &d, &used, &err) == 0 && used == n &&
                d.vm_state_size == s->vm_state_size && d.l1_size == s->l1_size &&
                d.unknown_extra_bytes == s->unknown_extra_bytes &&
                same_string(d.id, s->id) && same_string(d.name, s->name);
    q2_snapshot_clear(&d);
    free(out);
    return good;
}

static void try_snapshot(const uint8_t *p, size_t n_bytes, struct tally *t)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_snapshot s;
    size_t used;

    int ret = q2_snapshot_decode(p, n_bytes, 1, &s, &used, &err);
    if (ret < 0) {
        t->refused++;
        t->broken += ret != -ENODATA && ret != -EINVAL;
        return;
    }
    t->accepted++;
    t->broken += used % 8 != 0 || used > n_bytes + 7 ||
                 s.unknown_extra_bytes > Q2_MAX_SNAPSHOT_EXTRA_BYTES ||
                 !snapshot_round_trips(&s);
    q2_snapshot_clear(&s);
}

static void snapshots(uint64_t seed, unsigned rounds)
{
    char id[] = "12";
    char name[] = "a name";
    uint8_t extra[] = {1, 2, 3};
    struct q2_snapshot s = {.l1_table_offset = 4096,
                            .l1_size = 1,
                            .id = id,
                            .name = name,
                            .has_disk_size = true,
                            .has_icount = true,
                            .unknown_extra = extra,
                            .unknown_extra_bytes = sizeof(extra)};
    struct tally t = {0};

    for (unsigned i = 0; i < rounds; i++) {
        uint8_t p[128] = {0};
        q2_snapshot_encode(&s, p);
        mutate(p, q2_snapshot_bytes(&s), &seed);
        size_t n = maybe_shorter(sizeof(p), &seed);
        uint8_t *copy = exact_copy(p, n);
        try_snapshot(copy, n, &t);
        free(copy);
    }
    is_u64(t.broken, 0, "snapshots: %u accepted, %u refused, rightly", t.accepted,
           t.refused);
    ok(t.accepted > rounds / 20 && t.refused > rounds / 20, "snapshots: some of both");
}

static bool bitmap_round_trips(const struct q2_bitmap *b)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_bitmap d = {0};
    size_t n = q2_bitmap_bytes(b);
    uint8_t *out = malloc(n);
    size_t used = 0;

    if (!out)
        abort();
    q2_bitmap_encode(b, out);
    bool good = q2_bitmap_decode(out, n, 0, &d, &used, &err) == 0 && used == n &&
                d.table_offset == b->table_offset && same_string(d.name, b->name);
    q2_bitmap_clear(&d);
    free(out);
    return good;
}

static void try_bitmap(const uint8_t *p, size_t n_bytes, struct tally *t)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_bitmap b;
    size_t used;

    int ret = q2_bitmap_decode(p, n_bytes, 1, &b, &used, &err);
    if (ret < 0) {
        t->refused++;
        t->broken += ret != -ENODATA && ret != -EINVAL;
        return;
    }
    t->accepted++;
    t->broken += used % 8 != 0 || used > n_bytes + 7 || b.name[0] == '\0' ||
                 strlen(b.name) > Q2_MAX_BITMAP_NAME || b.granularity_bits < 9 ||
                 b.granularity_bits > 31 || !bitmap_round_trips(&b);
    q2_bitmap_clear(&b);
}

static void bitmaps(uint64_t seed, unsigned rounds)
{
    char name[] = "a bitmap";
    uint8_t extra[] = {1, 2, 3};
    struct q2_bitmap b = {.table_offset = 4096,
                          .table_size = 1,
                          .type = 1,
                          .granularity_bits = 16,
                          .name = name,
                          .extra_data = extra,
                          .extra_data_bytes = sizeof(extra)};
    struct tally t = {0};

    for (unsigned i = 0; i < rounds; i++) {
        uint8_t p[128] = {0};
        q2_bitmap_encode(&b, p);
        mutate(p, q2_bitmap_bytes(&b), &seed);
        size_t n = maybe_shorter(sizeof(p), &seed);
        uint8_t *copy = exact_copy(p, n);
        try_bitmap(copy, n, &t);
        free(copy);
    }
    is_u64(t.broken, 0, "bitmaps: %u accepted, %u refused, rightly", t.accepted,
           t.refused);
    ok(t.accepted > rounds / 20 && t.refused > rounds / 20, "bitmaps: some of both");
}

static void build_luks(uint8_t *p)
{
    memset(p, 0, Q2_LUKS_HEADER_BYTES);
    memcpy(p, "LUKS\xba\xbe\0\1aes", 11);
    memcpy(p + 40, "cbc-essiv:sha256", 16);
    memcpy(p + 72, "sha1", 4);
    q2_store_be32(p + 104, 4040);
    q2_store_be32(p + 108, 32);
    q2_store_be32(p + 164, 1000);
    for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++) {
        uint8_t *slot = p + 208 + i * 48;
        q2_store_be32(slot, 0x00ac71f3);
        q2_store_be32(slot + 4, 1000);
        q2_store_be32(slot + 40, 8 + i * 256);
        q2_store_be32(slot + 44, 4000);
    }
}

static bool luks_is_sane(const struct q2_luks_header *h)
{
    uint64_t sectors = (h->master_key_bytes * 4000 + 511) / 512;
    char a[33];
    char b[33];
    char c[33];

    q2_luks_split_mode(h->cipher_mode, a, b, c);
    if (strlen(a) + strlen(b) + strlen(c) > strlen(h->cipher_mode))
        return false;
    if (h->master_key_bytes == 0 || h->master_key_bytes > 64 || !h->master_key_iterations)
        return false;
    for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++)
        if (h->slots[i].stripes != 4000 ||
            h->slots[i].key_offset_sectors + sectors > h->payload_offset_sectors)
            return false;
    return true;
}

static void luks(uint64_t seed, unsigned rounds)
{
    struct tally t = {0};

    for (unsigned i = 0; i < rounds; i++) {
        struct q2_error err = Q2_ERROR_INIT;
        struct q2_luks_header h;
        uint8_t p[Q2_LUKS_HEADER_BYTES];
        build_luks(p);
        mutate(p, sizeof(p), &seed);
        size_t n = test_random(&seed) % 16 ? sizeof(p) : maybe_shorter(sizeof(p), &seed);
        uint8_t *copy = exact_copy(p, n);
        if (q2_luks_decode(copy, n, &h, &err) < 0) {
            t.refused++;
        } else {
            t.accepted++;
            t.broken += !luks_is_sane(&h);
        }
        free(copy);
    }
    is_u64(t.broken, 0, "LUKS: %u accepted, %u refused, rightly", t.accepted, t.refused);
    ok(t.accepted > rounds / 20 && t.refused > rounds / 20, "LUKS: some of both");
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) | 1 : 20240229;
    unsigned rounds = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 0) : 20000;

    headers(seed, rounds);
    snapshots(seed, rounds);
    bitmaps(seed, rounds);
    luks(seed, rounds);
    return done_testing();
}
