// SPDX-License-Identifier: MIT
// Headers: every field decoded, encoded again as it was, hostile values refused.
#include "built.h"

#include <errno.h>

#include "test.h"

#define MAX64 INT64_MAX

static int decode(const struct built *b, struct q2_header *h, struct q2_error *err)
{
    *h = (struct q2_header){0};
    *err = (struct q2_error)Q2_ERROR_INIT;
    return q2_header_decode(b->p, b->n_bytes, h, err);
}

static void fields(void)
{
    struct built b = build_header(3, 16);
    struct q2_error err;
    struct q2_header h;

    q2_store_be64(b.p + 72, Q2_INCOMPAT_DIRTY | Q2_INCOMPAT_COMPRESSION);
    q2_store_be64(b.p + 80, Q2_COMPAT_LAZY_REFCOUNTS | 0x8000);
    q2_store_be64(b.p + 88, UINT64_C(1) << 40);
    q2_store_be32(b.p + 60, 2);
    q2_store_be64(b.p + 64, 0x50000);
    q2_store_be32(b.p + 96, 6);
    b.p[104] = 1;
    is_int(decode(&b, &h, &err), 0, "decodes %s", err.message);
    is_u64(h.version, 3, "version");
    is_u64(h.cluster_bits, 16, "cluster_bits");
    is_u64(q2_header_cluster_size(&h), 65536, "cluster size");
    is_u64(h.size, UINT64_C(64) << 20, "size");
    is_u64(h.crypt_method, 0, "crypt_method");
    is_u64(h.l1_size, 8192, "l1_size");
    is_u64(h.l1_table_offset, 0x30000, "l1_table_offset");
    is_u64(h.refcount_table_offset, 0x10000, "refcount_table_offset");
    is_u64(h.refcount_table_clusters, 1, "refcount_table_clusters");
    is_u64(h.nb_snapshots, 2, "nb_snapshots");
    is_u64(h.snapshots_offset, 0x50000, "snapshots_offset");
    is_u64(h.incompatible_features, 9, "incompatible features");
    is_u64(h.compatible_features, 0x8001, "unknown compatible features are kept");
    is_u64(h.autoclear_features, UINT64_C(1) << 40, "unknown autoclear features too");
    is_u64(h.refcount_order, 6, "refcount_order");
    is_u64(h.header_length, 112, "header_length");
    is_u64(h.compression_type, 1, "compression_type");
    ok(!h.backing_file && !h.backing_format && !h.data_file, "no names");
    is_u64(h.n_extensions, 0, "no extensions");
    q2_header_clear(&h);
    ok(!h.unknown_fields && h.version == 0, "cleared");
    free(b.p);
}

static void version_2(void)
{
    struct built b = build_header(2, 16);
    struct q2_error err;
    struct q2_header h;

    build_backing(&b, "base.raw");
    // what version 3 would read is the end marker and the name here
    is_int(decode(&b, &h, &err), 0, "version 2 decodes %s", err.message);
    is_u64(h.incompatible_features, 0, "has no features");
    is_u64(h.refcount_order, 4, "has 16-bit refcounts");
    is_u64(h.header_length, 72, "is 72 bytes long");
    is_str(h.backing_file, "base.raw", "has a backing file");
    q2_header_clear(&h);
    free(b.p);
}

// Extensions of all kinds, in QEMU's order.
static void build_all_extensions(struct built *b)
{
    static const uint8_t bitmaps[24] = {
        0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 9, 0, 0,
    };
    static const uint8_t crypto[16] = {
        0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 31, 144, 0,
    };
    static const uint8_t table[96] = "\0\0dirty bit";

    q2_store_be32(b->p + 32, 2);
    q2_store_be64(b->p + 72, Q2_INCOMPAT_DATA_FILE);
    q2_store_be64(b->p + 88, Q2_AUTOCLEAR_KNOWN);
    build_extension(b, 0xe2792aca, "qcow2", 5);
    build_extension(b, 0x44415441, "data.raw", 8);
    build_extension(b, 0x0537be77, crypto, sizeof(crypto));
    build_extension(b, 0x6803f857, table, sizeof(table));
    build_extension(b, 0x23852875, bitmaps, sizeof(bitmaps));
    build_extension(b, 0x12345678, "unknown", 7);
    build_extension(b, 0x12345678, "again", 5);
    build_extension(b, 0x00000009, NULL, 0);
    build_backing(b, "dir/base.qcow2");
}

static void extensions(void)
{
    struct built b = build_header(3, 16);
    struct q2_error err;
    struct q2_header h;

    build_all_extensions(&b);
    is_int(decode(&b, &h, &err), 0, "all extensions decode %s", err.message);
    is_str(h.backing_format, "qcow2", "backing format");
    is_str(h.data_file, "data.raw", "data file");
    is_str(h.backing_file, "dir/base.qcow2", "backing file");
    ok(h.has_crypto && h.crypto_header_offset == 0x70000 &&
           h.crypto_header_length == 0x1f9000,
       "crypto header");
    ok(h.has_bitmaps && h.nb_bitmaps == 2 && h.bitmap_directory_size == 64 &&
           h.bitmap_directory_offset == 0x90000,
       "bitmaps");
    is_u64(h.n_extensions, 6, "all but the two strings are kept");
    is_u64(h.extensions[3].type, 0x12345678, "in their order");
    is_u64(h.extensions[3].n_bytes, 7, "with their length");
    ok(memcmp(h.extensions[4].data, "again", 5) == 0, "and data");
    is_u64(h.extensions[5].n_bytes, 0, "empty ones too");
    q2_header_clear(&h);
    free(b.p);
}

// decode, copy, encode: the same bytes.
static void identical(const char *what, const struct built *b)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_header h;
    struct q2_header copy;
    uint8_t *out = malloc(b->n_bytes);
    size_t used = 0;

    if (!out)
        abort();
    memset(out, 0xff, b->n_bytes);
    if (is_int(decode(b, &h, &err), 0, "%s: decodes %s", what, err.message)) {
        is_int(q2_header_copy(&h, &copy, &err), 0, "%s: copies", what);
        q2_header_clear(&h);
        is_int(q2_header_encode(&copy, out, &used, &err), 0, "%s: encodes", what);
        ok(memcmp(out, b->p, b->n_bytes) == 0, "%s: the same bytes", what);
        ok(used <= b->n_bytes && (used == 0 || out[used - 1] || used == b->at),
           "%s: used up to the last", what);
        q2_header_clear(&copy);
    }
    free(out);
}

static void round_trips(void)
{
    static const uint8_t odd_table[48] = "\0\077an unknown name";

    for (unsigned bits = 9; bits <= 21; bits++) {
        struct built b = build_header(2, bits);
        build_extension(&b, 0, NULL, 0);
        identical("version 2", &b);
        free(b.p);
        b = build_header(2, bits);
        build_extension(&b, 0xe2792aca, "raw", 3);
        build_backing(&b, "b");
        identical("version 2 with backing file", &b);
        free(b.p);
        if (bits < 12)
            continue;
        b = build_header(3, bits);
        build_extension(&b, 0x6803f857, odd_table, sizeof(odd_table));
        build_backing(&b, "/a/b/c");
        identical("version 3 with a feature table of its own", &b);
        free(b.p);
    }
    struct built b = build_header(3, 16);
    build_all_extensions(&b);
    identical("all extensions", &b);
    free(b.p);

    b = build_header(3, 11);
    q2_store_be32(b.p + 100, 136);
    b.at = 136;
    memcpy(b.p + 105, "padding and fields from afterwards", 31);
    build_extension(&b, 0x77777777, "x", 1);
    build_extension(&b, 0, NULL, 0);
    identical("a longer header", &b);
    free(b.p);
}

// The table that qemu-img 7.2 to 10.2 write.
static void own_feature_table(void)
{
    static const struct {
        uint8_t type, bit;
        const char *name;
    } want[] = {
        {0, 0, "dirty bit"},
        {0, 1, "corrupt bit"},
        {0, 2, "external data file"},
        {0, 3, "compression type"},
        {0, 4, "extended L2 entries"},
        {1, 0, "lazy refcounts"},
        {2, 0, "bitmaps"},
        {2, 1, "raw external data"},
    };
    struct built b = build_header(3, 16);
    uint8_t *out = malloc(b.n_bytes);
    struct q2_error err;
    struct q2_header h;
    size_t used = 0;

    if (!out || decode(&b, &h, &err) < 0)
        abort();
    is_int(q2_header_encode(&h, out, &used, &err), 0,
           "a header without names of features");
    is_u64(used, 112 + 8 + 384 + 8, "gets them");
    is_u64(q2_load_be32(out + 112), 0x6803f857, "type");
    is_u64(q2_load_be32(out + 116), 384, "length");
    for (size_t i = 0; i < 8; i++) {
        const uint8_t *e = out + 120 + i * 48;
        uint8_t entry[48] = {want[i].type, want[i].bit};
        memcpy(entry + 2, want[i].name, strlen(want[i].name));
        ok(memcmp(e, entry, 48) == 0, "feature '%s'", want[i].name);
    }
    h.cluster_bits = 11;
    is_int(q2_header_encode(&h, out, &used, &err), 0, "in clusters below 4 KiB");
    is_u64(used, 120, "there is none");
    q2_header_clear(&h);
    free(out);
    free(b.p);
}

static void encode_from_fields(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct built b = build_header(3, 16);
    uint8_t *out = malloc(b.n_bytes);
    struct q2_header h;
    struct q2_header again;
    size_t used;

    if (!out || decode(&b, &h, &err) < 0)
        abort();
    h.crypt_method = Q2_CRYPT_LUKS;
    h.has_crypto = true;
    h.crypto_header_offset = 0x40000;
    h.crypto_header_length = 1000;
    h.has_bitmaps = true;
    h.nb_bitmaps = 1;
    h.bitmap_directory_size = 32;
    h.bitmap_directory_offset = 0x50000;
    h.autoclear_features = Q2_AUTOCLEAR_BITMAPS;
    h.backing_file = strdup("new.raw");
    h.backing_format = strdup("raw");
    is_int(q2_header_encode(&h, out, &used, &err), 0, "encodes what only fields say");
    is_u64(h.backing_file_size, 7, "computes the length of the name");
    is_u64(h.backing_file_offset + 7, used, "and its place");
    is_int(q2_header_decode(out, b.n_bytes, &again, &err), 0, "decodes %s", err.message);
    ok(again.has_crypto && again.crypto_header_offset == 0x40000 &&
           again.crypto_header_length == 1000,
       "crypto header");
    ok(again.has_bitmaps && again.bitmap_directory_offset == 0x50000, "bitmaps");
    is_str(again.backing_file, "new.raw", "backing file");
    is_str(again.backing_format, "raw", "backing format");
    q2_header_clear(&h);

    again.version = 2;
    again.has_bitmaps = false;
    is_int(q2_header_encode(&again, out, &used, &err), 0, "as version 2");
    is_u64(again.header_length, 72, "the header is short");
    is_u64(q2_load_be32(out + 72), 0xe2792aca, "extensions follow at once");
    ok(!memmem(out, used, "dirty bit", 9), "there is no feature table");
    q2_header_clear(&again);
    free(out);
    free(b.p);
}

static void does_not_fit(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct built b = build_header(3, 9);
    uint8_t out[513];
    struct q2_header h;
    char name[Q2_MAX_BACKING_NAME + 2];
    size_t used;

    out[512] = 0xa5;
    if (decode(&b, &h, &err) < 0)
        abort();
    memset(name, 'n', sizeof(name));
    name[512 - 120] = '\0';
    h.backing_file = name;
    is_int(q2_header_encode(&h, out, &used, &err), 0, "a name that just fits");
    is_u64(used, 512, "to the last byte");
    name[512 - 120] = 'n';
    name[512 - 119] = '\0';
    is_int(q2_header_encode(&h, out, &used, &err), -ENOSPC, "one byte more");
    has_str(err.message, "cluster of 512 bytes", "is told");
    is_u64(out[512], 0xa5, "nothing behind the cluster is touched");
    name[512 - 119] = 'n';
    name[Q2_MAX_BACKING_NAME + 1] = '\0';
    is_int(q2_header_encode(&h, out, &used, &err), -EINVAL, "a name of 1024 bytes");
    h.backing_file = NULL;
    q2_header_clear(&h);
    free(b.p);
}

// A file may end before its first cluster does: zeros follow.
static void short_files(void)
{
    struct built b = build_header(3, 16);
    struct q2_error err;
    struct q2_header h;

    b.n_bytes = 112;
    is_int(decode(&b, &h, &err), 0, "a file of the header alone %s", err.message);
    q2_header_clear(&h);
    b.n_bytes = 104;
    is_int(decode(&b, &h, &err), 0, "without the last fields");
    q2_header_clear(&h);
    b.n_bytes = 40;
    is_int(decode(&b, &h, &err), -EINVAL, "of half a header");
    b.n_bytes = 3;
    is_int(decode(&b, &h, &err), -EINVAL, "of three bytes");
    is_str(err.message, "Image is not in qcow2 format", "is none");
    b.n_bytes = 0;
    is_int(decode(&b, &h, &err), -EINVAL, "of nothing");
    free(b.p);
}

static void probe(void)
{
    struct built b = build_header(3, 9);

    ok(q2_header_probe(b.p, 512) && q2_header_probe(b.p, 8), "a header is probed");
    ok(!q2_header_probe(b.p, 7), "seven bytes are not enough");
    is_u64(q2_header_bytes_needed(b.p, 104), 512, "needs its first cluster");
    q2_store_be32(b.p + 20, 21);
    is_u64(q2_header_bytes_needed(b.p, 104), 2 << 20, "up to 2 MiB");
    q2_store_be32(b.p + 20, 22);
    is_u64(q2_header_bytes_needed(b.p, 104), 104, "and no more");
    q2_store_be32(b.p + 20, 21);
    is_u64(q2_header_bytes_needed(b.p, 20), 104, "a piece of a header tells nothing");
    q2_store_be32(b.p + 4, 9);
    ok(q2_header_probe(b.p, 512), "later versions are qcow2 too");
    q2_store_be32(b.p + 4, 1);
    ok(!q2_header_probe(b.p, 512), "version 1 is another format");
    b.p[0] = 'X';
    ok(!q2_header_probe(b.p, 512), "so is another magic");
    free(b.p);
}

// One value poked into a good header of 64 KiB clusters.
static const struct hostile {
    const char *name;
    size_t at;
    size_t n_bytes;
    uint64_t value;
    int ret;
    const char *part; // of the message
} hostile_fields[] = {
    {"magic", 0, 4, 0x58585858, -EINVAL, "Image is not in qcow2 format"},
    {"version 9", 4, 4, 9, -ENOTSUP, "Unsupported qcow2 version 9"},
    {"version 1", 4, 4, 1, -ENOTSUP, "Unsupported qcow2 version 1"},
    {"cluster_bits 8", 20, 4, 8, -EINVAL, "Unsupported cluster size: 2^8"},
    {"cluster_bits 30", 20, 4, 30, -EINVAL, "Unsupported cluster size: 2^30"},
    {"cluster_bits -1", 20, 4, UINT32_MAX, -EINVAL, "cluster size: 2^4294967295"},
    {"header_length 96", 100, 4, 96, -EINVAL,
     "qcow2 header too short (header_length 96)"},
    {"header_length 0", 100, 4, 0, -EINVAL, "qcow2 header too short (header_length 0)"},
    {"header_length 113", 100, 4, 113, -EINVAL, "multiple of 8 (header_length 113)"},
    {"header_length above a cluster", 100, 4, 65544, -EINVAL,
     "qcow2 header exceeds cluster size (header_length 65544)"},
    {"backing name behind the cluster", 8, 8, 65537, -EINVAL,
     "Invalid backing file offset (backing_file_offset 65537)"},
    {"backing name far away", 8, 8, UINT64_MAX, -EINVAL,
     "(backing_file_offset 18446744073709551615)"},
    {"compression type 2", 104, 1, 2, -ENOTSUP, "qcow2: unknown compression type: 2"},
    {"compression type without its bit", 104, 1, 1, -EINVAL,
     "qcow2: Compression type incompatible feature bit must be set"},
    {"compression bit without a type", 72, 8, 8, -EINVAL,
     "qcow2: Compression type incompatible feature bit must not be set"},
    {"unknown feature", 72, 8, UINT64_C(1) << 63, -ENOTSUP,
     "Unsupported qcow2 feature(s): Unknown incompatible feature: 8000000000000000"},
    {"unknown features", 72, 8, 0x70, -ENOTSUP, "Unknown incompatible feature: 60"},
    {"refcount_order 7", 96, 4, 7, -EINVAL,
     "Reference count entry width too large; may not exceed 64 bits (refcount_order 7)"},
    {"no refcount table", 56, 4, 0, -EINVAL,
     "Image does not contain a reference count table (refcount_table_clusters 0)"},
    {"large refcount table", 56, 4, 129, -EFBIG,
     "Reference count table too large (refcount_table_clusters 129)"},
    {"refcount table anywhere", 48, 8, 0x10001, -EINVAL,
     "Reference count table offset invalid (refcount_table_offset 65537)"},
    {"refcount table at the end", 48, 8, (uint64_t)MAX64 & ~UINT64_C(0xffff), -EINVAL,
     "Reference count table offset invalid"},
    {"refcount table far away", 48, 8, UINT64_C(1) << 63, -EINVAL,
     "Reference count table offset invalid (refcount_table_offset 9223372036854775808)"},
    {"many snapshots", 60, 4, 65537, -EFBIG,
     "Snapshot table too large (nb_snapshots 65537)"},
    {"snapshots anywhere", 64, 8, 512, -EINVAL,
     "Snapshot table offset invalid (snapshots_offset 512)"},
    {"large L1 table", 36, 4, UINT32_MAX, -EFBIG,
     "Active L1 table too large (l1_size 4294967295)"},
    {"L1 table of 32 MiB and an entry", 36, 4, (4 << 20) + 1, -EFBIG,
     "Active L1 table too large (l1_size 4194305)"},
    {"L1 table anywhere", 40, 8, 0x30008, -EINVAL,
     "Active L1 table offset invalid (l1_table_offset 196616)"},
    {"L1 table at the end", 40, 8, (uint64_t)MAX64 & ~UINT64_C(0xffff), -EINVAL,
     "Active L1 table offset invalid"},
    {"short L1 table", 36, 4, 0, -EINVAL,
     "L1 table is too small (l1_size 0, size 67108864 needs 1)"},
    {"large disk", 24, 8, (UINT64_C(8192) << 29) + 1, -EINVAL,
     "L1 table is too small (l1_size 8192, size 4398046511105 needs 8193)"},
    {"huge disk", 24, 8, UINT64_MAX, -EFBIG,
     "Image is too big (size 18446744073709551615)"},
    {"encryption 3", 32, 4, 3, -EINVAL, "Unsupported encryption method 3"},
    {"LUKS without its header", 32, 4, 2, -EINVAL,
     "Missing CRYPTO header for crypt method 2"},
    {"raw data file that is none", 88, 8, 2, -EINVAL,
     "data-file-raw requires a data file"},
};

static void poke(uint8_t *p, const struct hostile *c)
{
    for (size_t k = 0; k < c->n_bytes; k++)
        p[c->at + k] = (uint8_t)(c->value >> (8 * (c->n_bytes - 1 - k)));
}

static void refuses(const struct built *b, const char *name, int ret, const char *part)
{
    struct q2_error err;
    struct q2_header h;

    if (is_int(decode(b, &h, &err), ret, "refuses %s", name)) {
        has_str(err.message, part, "and says it");
        ok(h.version == 0, "nothing is set");
    } else {
        q2_header_clear(&h);
    }
}

static void hostile_values(void)
{
    for (size_t i = 0; i < sizeof(hostile_fields) / sizeof(hostile_fields[0]); i++) {
        const struct hostile *c = &hostile_fields[i];
        struct built b = build_header(3, 16);
        poke(b.p, c);
        refuses(&b, c->name, c->ret, c->part);
        free(b.p);
    }

    struct built b = build_header(3, 13);
    q2_store_be64(b.p + 72, Q2_INCOMPAT_EXTENDED_L2);
    refuses(&b, "subclusters of 256 bytes", -EINVAL, "Unsupported subcluster size: 256");
    free(b.p);

    b = build_header(3, 16);
    build_backing(&b, "x");
    q2_store_be32(b.p + 16, 1024);
    refuses(&b, "a backing name of 1024 bytes", -EINVAL,
            "Backing file name too long (backing_file_size 1024)");
    q2_store_be64(b.p + 8, 65536 - 8);
    q2_store_be32(b.p + 16, 9);
    refuses(&b, "a backing name across the cluster's end", -EINVAL,
            "Backing file name too long (backing_file_size 9)");
    free(b.p);
}

// Values at the limits, which are fine.
static const struct hostile limits[] = {
    {"refcount table of 8 MiB", 56, 4, 128, 0, ""},
    {"65536 snapshots", 60, 4, 65536, 0, ""},
    {"L1 table of 32 MiB", 36, 4, 4 << 20, 0, ""},
    {"the largest disk of that L1 table", 24, 8, UINT64_C(8192) << 29, 0, ""},
    {"a disk of nothing", 24, 8, 0, 0, ""},
    {"a disk of one byte", 24, 8, 1, 0, ""},
    {"the last offset of an L1 table", 40, 8, UINT64_C(0x7fffffffffff0000) - 65536, 0,
     ""},
    {"1-bit refcounts", 96, 4, 0, 0, ""},
    {"AES", 32, 4, 1, 0, ""},
    {"a corrupt image", 72, 8, 2, 0, ""},
    {"a header of the cluster's length", 100, 4, 65536, 0, ""},
    {"no name in a backing file's place", 8, 8, 65536, 0, ""},
    {"the extended L2 bit", 72, 8, 16, 0, ""},
    {"a bitmaps bit without bitmaps", 88, 8, 1, 0, ""},
};

static void accepts(void)
{
    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        struct built b = build_header(3, 16);
        struct q2_error err;
        struct q2_header h;
        poke(b.p, &limits[i]);
        is_int(decode(&b, &h, &err), 0, "takes %s %s", limits[i].name, err.message);
        q2_header_clear(&h);
        free(b.p);
    }
}

static void feature_names(void)
{
    static const uint8_t table[6 * 48] = {
        [0] = 0,   [1] = 5,     [2] = 's',   'h',      'i',        'n',
        'y',       '\n',        [48] = 1,    [49] = 6, [50] = 'n', 'o',
        't',       ' ',         't',         'h',      'i',        's',
        [96] = 0,  [97] = 200,  [98] = 'f',  'a',      'r',        [144] = 0,
        [145] = 7, [146] = 'b', 'i',         'g',      [192] = 0,  [193] = 8,
        [194] = 0, // a name of nothing ends the table
        [240] = 0, [241] = 6,   [242] = 'l', 'a',      't',        'e',
    };
    struct built b = build_header(3, 16);

    q2_store_be64(b.p + 72, 0xe0);
    build_extension(&b, 0x99, "x", 1);
    build_extension(&b, 0x6803f857, table, sizeof(table));
    refuses(
        &b, "features with names", -ENOTSUP,
        "Unsupported qcow2 feature(s): shiny?, big, Unknown incompatible feature: 40");
    free(b.p);
}

static void bad_extension(const char *name, uint32_t type, const void *data,
                          size_t n_bytes, uint32_t said, const char *part)
{
    struct built b = build_header(3, 16);

    q2_store_be64(b.p + 88, Q2_AUTOCLEAR_BITMAPS);
    if (type == Q2_EXT_CRYPTO)
        q2_store_be32(b.p + 32, 2);
    build_extension(&b, type, data, n_bytes);
    q2_store_be32(b.p + 116, said);
    refuses(&b, name, -EINVAL, part);
    free(b.p);
}

static void hostile_extensions(void)
{
    uint8_t bitmaps[24] = {0, 0, 0, 1, [15] = 32, [21] = 9};
    uint8_t crypto[16] = {[5] = 7, [14] = 1};
    struct built b = build_header(3, 16);

    bad_extension("an extension of 4 GiB", 0x1234, "", 0, UINT32_MAX,
                  "Header extension too large (type 0x00001234 at offset 112");
    bad_extension("an extension across the end", 0x1234, "", 0, 65536 - 119,
                  "Header extension too large");
    bad_extension("an end marker of length", 0, "", 0, 65536,
                  "Header extension too large");
    bad_extension("a backing format of 16 bytes", 0xe2792aca, "0123456789abcdef", 16, 16,
                  "ext_backing_format: len=16 too large (>=16)");
    bad_extension("a short bitmaps extension", Q2_EXT_BITMAPS, bitmaps, 16, 16,
                  "bitmaps_ext: Invalid extension length (16)");
    bad_extension("a short crypto extension", Q2_EXT_CRYPTO, crypto, 8, 8,
                  "CRYPTO header extension size 8, but expected size 16");

    bitmaps[7] = 1;
    bad_extension("a reserved field", Q2_EXT_BITMAPS, bitmaps, 24, 24,
                  "bitmaps_ext: Reserved field is not zero (1)");
    bitmaps[7] = 0;
    bitmaps[3] = 0;
    bad_extension("no bitmaps", Q2_EXT_BITMAPS, bitmaps, 24, 24,
                  "found bitmaps extension with zero bitmaps");
    bitmaps[1] = 1;
    bad_extension("65536 bitmaps", Q2_EXT_BITMAPS, bitmaps, 24, 24,
                  "bitmaps_ext: Image has 65536 bitmaps");
    bitmaps[1] = 0;
    bitmaps[3] = 2;
    bad_extension("a small directory", Q2_EXT_BITMAPS, bitmaps, 24, 24,
                  "directory size (32) is too small for 2 bitmaps");
    bitmaps[8] = 1;
    bad_extension("a large directory", Q2_EXT_BITMAPS, bitmaps, 24, 24,
                  "exceeds the maximum supported size (67107840)");
    bitmaps[8] = 0;
    bitmaps[23] = 1;
    bad_extension("a directory anywhere", Q2_EXT_BITMAPS, bitmaps, 24, 24,
                  "invalid bitmap directory offset (bitmap_directory_offset 589825)");
    bitmaps[23] = 0;
    bitmaps[16] = 0x80;
    bad_extension("a directory far away", Q2_EXT_BITMAPS, bitmaps, 24, 24,
                  "invalid bitmap directory offset");

    crypto[7] = 1;
    bad_extension("a crypto header anywhere", Q2_EXT_CRYPTO, crypto, 16, 16,
                  "Encryption header offset '458753' is not a multiple");
    crypto[7] = 0;
    crypto[8] = 0x80;
    bad_extension("a long crypto header", Q2_EXT_CRYPTO, crypto, 16, 16,
                  "Encryption header does not fit in any file");

    crypto[8] = 0;
    build_extension(&b, Q2_EXT_CRYPTO, crypto, 16);
    refuses(&b, "a crypto header without encryption", -EINVAL,
            "CRYPTO header extension only expected with LUKS");
    free(b.p);

    b = build_header(3, 16);
    build_extension(&b, Q2_EXT_BACKING_FORMAT, "raw", 3);
    build_extension(&b, Q2_EXT_BACKING_FORMAT, "qcow2", 5);
    refuses(&b, "two backing formats", -EINVAL, "0xe2792aca is there more than once");
    free(b.p);
}

static void stale_bitmaps(void)
{
    uint8_t nonsense[24];
    struct built b = build_header(3, 16);
    struct q2_error err;
    struct q2_header h;

    memset(nonsense, 0xff, sizeof(nonsense));
    build_extension(&b, Q2_EXT_BITMAPS, nonsense, sizeof(nonsense));
    is_int(decode(&b, &h, &err), 0, "bitmaps that no bit vouches for are not read");
    ok(!h.has_bitmaps && h.nb_bitmaps == 0, "nor shown");
    is_u64(h.n_extensions, 1, "but kept");
    q2_header_clear(&h);
    free(b.p);
}

int main(void)
{
    fields();
    version_2();
    extensions();
    round_trips();
    own_feature_table();
    encode_from_fields();
    does_not_fit();
    short_files();
    probe();
    hostile_values();
    accepts();
    feature_names();
    hostile_extensions();
    stale_bitmaps();
    return done_testing();
}
