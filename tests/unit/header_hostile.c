// SPDX-License-Identifier: MIT
// Headers with one thing wrong, what must be said of them, and values at the limits.
#include <errno.h>

#include "built.h"
#include "test.h"

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
    {"version 1", 4, 4, 1, -EINVAL, "Unsupported qcow2 version 1"},
    {"version 99", 4, 4, 99, -EINVAL, "Unsupported qcow2 version 99"},
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
    {"compression type 2 without its bit", 104, 1, 2, -EINVAL,
     "qcow2: unknown compression type: 2"},
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
    {"refcount table at the end", 48, 8, (uint64_t)INT64_MAX & ~UINT64_C(0xffff), -EINVAL,
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
    {"L1 table at the end", 40, 8, (uint64_t)INT64_MAX & ~UINT64_C(0xffff), -EINVAL,
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

    if (is_int(decode_built(b, &h, &err), ret, "refuses %s", name)) {
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
        is_int(decode_built(&b, &h, &err), 0, "takes %s %s", limits[i].name, err.message);
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
}

static void hostile_crypto(void)
{
    uint8_t crypto[16] = {[5] = 7, [14] = 1};
    struct built b = build_header(3, 16);

    bad_extension("a short crypto extension", Q2_EXT_CRYPTO, crypto, 8, 8,
                  "CRYPTO header extension size 8, but expected size 16");
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
}

static void duplicate_extension(void)
{
    struct built b = build_header(3, 16);

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
    is_int(decode_built(&b, &h, &err), 0, "bitmaps that no bit vouches for are not read");
    ok(!h.has_bitmaps && h.nb_bitmaps == 0, "nor shown");
    is_u64(h.n_extensions, 1, "but kept");
    q2_header_clear(&h);
    free(b.p);
}

int main(void)
{
    hostile_values();
    accepts();
    feature_names();
    hostile_extensions();
    hostile_crypto();
    duplicate_extension();
    stale_bitmaps();
    return done_testing();
}
