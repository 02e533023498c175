// SPDX-License-Identifier: MIT
// Headers: every field decoded, and encoded again as it was.
#include "built.h"

#include <errno.h>

#include "test.h"

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
    is_int(decode_built(&b, &h, &err), 0, "decodes %s", err.message);
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
    is_int(decode_built(&b, &h, &err), 0, "version 2 decodes %s", err.message);
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
    is_int(decode_built(&b, &h, &err), 0, "all extensions decode %s", err.message);
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
    if (is_int(decode_built(b, &h, &err), 0, "%s: decodes %s", what, err.message)) {
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
        if (bits < 10)
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

    if (!out || decode_built(&b, &h, &err) < 0)
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
    h.cluster_bits = 12;
    is_int(q2_header_encode(&h, out, &used, &err), 0, "in clusters of 4 KiB");
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

    if (!out || decode_built(&b, &h, &err) < 0)
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
    if (decode_built(&b, &h, &err) < 0)
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
    is_int(decode_built(&b, &h, &err), 0, "a file of the header alone %s", err.message);
    q2_header_clear(&h);
    b.n_bytes = 104;
    is_int(decode_built(&b, &h, &err), 0, "without the last fields");
    q2_header_clear(&h);
    b.n_bytes = 40;
    is_int(decode_built(&b, &h, &err), -EINVAL, "of half a header");
    b.n_bytes = 3;
    is_int(decode_built(&b, &h, &err), -EINVAL, "of three bytes");
    is_str(err.message, "Image is not in qcow2 format", "is none");
    b.n_bytes = 0;
    is_int(decode_built(&b, &h, &err), -EINVAL, "of nothing");
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
    return done_testing();
}
