// SPDX-License-Identifier: MIT
// Bitmap directory entries: round trips, limits, entries cut short.
#include "disk/bitmap.h"

#include <errno.h>

#include "base/endian.h"
#include "test.h"

static struct q2_bitmap sample(char *name)
{
    return (struct q2_bitmap){
        .table_offset = 0x70000,
        .table_size = 1,
        .flags = Q2_BITMAP_AUTO,
        .type = Q2_BITMAP_TYPE_DIRTY,
        .granularity_bits = 15,
        .name = name,
    };
}

static bool equal(const struct q2_bitmap *a, const struct q2_bitmap *b)
{
    return a->table_offset == b->table_offset && a->table_size == b->table_size &&
           a->flags == b->flags && a->type == b->type &&
           a->granularity_bits == b->granularity_bits && strcmp(a->name, b->name) == 0 &&
           a->extra_data_bytes == b->extra_data_bytes &&
           (a->extra_data_bytes == 0 ||
            memcmp(a->extra_data, b->extra_data, a->extra_data_bytes) == 0);
}

static void round_trip(const char *what, const struct q2_bitmap *b)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_bitmap d = {0};
    uint8_t buf[4096];
    size_t used = 0;
    size_t n = q2_bitmap_bytes(b);
    size_t length = 24 + b->extra_data_bytes + strlen(b->name);

    memset(buf, 0xff, sizeof(buf));
    q2_bitmap_encode(b, buf);
    is_u64(n, (length + 7) / 8 * 8, "%s: padded to 8 bytes", what);
    is_u64(buf[n], 0xff, "%s: writes no more than that", what);
    is_int(q2_bitmap_decode(buf, n, 0, &d, &used, &err), 0, "%s: decodes %s", what,
           err.message);
    is_u64(used, n, "%s: as long as it was", what);
    ok(equal(&d, b), "%s: and the same", what);
    q2_bitmap_clear(&d);

    bool cut_is_seen = true;
    for (size_t i = 0; i < length; i++)
        cut_is_seen = cut_is_seen &&
                      q2_bitmap_decode(buf, i, 3, &d, &used, &err) == -ENODATA && !d.name;
    ok(cut_is_seen, "%s: every shorter piece is incomplete", what);
    has_str(err.message, "entry 3", "%s: the message names the entry", what);
}

static void round_trips(void)
{
    char name[] = "b0";
    char long_name[Q2_MAX_BITMAP_NAME + 1];
    uint8_t extra[] = {9, 8, 7};

    struct q2_bitmap b = sample(name);
    round_trip("usual", &b);
    b.flags = Q2_BITMAP_IN_USE;
    b.granularity_bits = 31;
    b.table_size = 0x8000000;
    round_trip("in use, at the limits", &b);
    b.extra_data = extra;
    b.extra_data_bytes = sizeof(extra);
    round_trip("extra data", &b);
    memset(long_name, 'n', Q2_MAX_BITMAP_NAME);
    long_name[Q2_MAX_BITMAP_NAME] = '\0';
    b = sample(long_name);
    round_trip("longest name", &b);
}

static void layout(void)
{
    static const uint8_t want[] = {
        0,   0,   0, 0, 0, 7, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, // table, flags
        1,   15,  0, 2, 0, 0, 0, 0,                         // type, granularity, lengths
        'b', '0', 0, 0, 0, 0, 0, 0,
    };
    char name[] = "b0";
    struct q2_bitmap b = sample(name);
    uint8_t buf[sizeof(want)];

    is_u64(q2_bitmap_bytes(&b), sizeof(want), "length of the entry");
    q2_bitmap_encode(&b, buf);
    ok(memcmp(buf, want, sizeof(want)) == 0, "bytes of the entry");
}

static void hostile(void)
{
    static const struct {
        const char *part; // of the message
        size_t at;
        size_t n_bytes;
        uint64_t value;
    } cases[] = {
        {"bitmap table offset (0)", 0, 8, 0},
        {"bitmap table offset (513)", 0, 8, 513},
        {"bitmap table offset (18446744073709551104)", 0, 8,
         UINT64_C(0xfffffffffffffe00)},
        {"bitmap table size (0)", 8, 4, 0},
        {"bitmap table size (134217729)", 8, 4, 0x8000001},
        {"flags (8)", 12, 4, 8},
        {"flags (2147483648)", 12, 4, 0x80000000},
        {"type (0)", 16, 1, 0},
        {"type (2)", 16, 1, 2},
        {"granularity_bits (8)", 17, 1, 8},
        {"granularity_bits (32)", 17, 1, 32},
        {"name size (0)", 18, 2, 0},
        {"name size (1024)", 18, 2, 1024},
        {"name size (0)", 24, 1, 0}, // a NUL where the name begins
        {"extra data size (4294967295)", 20, 4, UINT32_MAX},
    };
    char name[] = "b0";
    struct q2_bitmap b = sample(name);

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct q2_error err = Q2_ERROR_INIT;
        struct q2_bitmap d = {0};
        uint8_t buf[2048] = {0};
        size_t used;
        q2_bitmap_encode(&b, buf);
        for (size_t k = 0; k < cases[i].n_bytes; k++)
            buf[cases[i].at + k] =
                (uint8_t)(cases[i].value >> (8 * (cases[i].n_bytes - 1 - k)));
        is_int(q2_bitmap_decode(buf, sizeof(buf), 4, &d, &used, &err), -EINVAL,
               "refuses %s", cases[i].part);
        has_str(err.message, cases[i].part, "and says it");
        has_str(err.message, "entry 4", "of which entry");
        ok(!d.name, "nothing is set");
    }
}

static void directory(void)
{
    char name[] = "b0", other[] = "longer name";
    struct q2_bitmap b = sample(name), c = sample(other), out[3];
    struct q2_error err = Q2_ERROR_INIT;
    uint8_t buf[256] = {0};
    size_t n = q2_bitmap_bytes(&b), total = n + q2_bitmap_bytes(&c);

    q2_bitmap_encode(&b, buf);
    q2_bitmap_encode(&c, buf + n);
    is_int(q2_bitmap_directory_decode(buf, total, 2, out, &err), 0, "two entries: %s",
           err.message);
    ok(equal(&out[0], &b) && equal(&out[1], &c), "the same two");
    q2_bitmap_clear(&out[0]);
    q2_bitmap_clear(&out[1]);
    is_int(q2_bitmap_directory_decode(buf, total, 1, out, &err), -EINVAL, "one too many");
    has_str(err.message, "More bitmaps found", "told");
    is_int(q2_bitmap_directory_decode(buf, total, 3, out, &err), -ENODATA, "one too few");
    // The padding of the last entry belongs to it.
    is_int(q2_bitmap_directory_decode(buf, total - 1, 2, out, &err), -ENODATA,
           "a byte too few");
}

static void constraints(void)
{
    char name[] = "b0";
    uint8_t extra[] = {1};
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_bitmap b = sample(name);
    uint64_t covers = UINT64_C(65536) * 8 << 15; // of one entry

    is_int(q2_bitmap_check(&b, covers, 16, &err), 0, "covers the disk");
    is_int(q2_bitmap_check(&b, covers + 1, 16, &err), -EINVAL, "does not cover it");
    has_str(err.message, "Bitmap 'b0' doesn't satisfy the constraints", "told");
    b.flags = Q2_BITMAP_IN_USE;
    is_int(q2_bitmap_check(&b, covers + 1, 16, &err), 0, "in use: need not");
    b.table_size = 8193;
    is_int(q2_bitmap_check(&b, covers, 16, &err), -EINVAL, "more than 512 MiB of bits");
    b.table_size = 8192;
    is_int(q2_bitmap_check(&b, covers, 16, &err), 0, "512 MiB of bits");
    is_int(q2_bitmap_check(&b, covers, 17, &err), -EINVAL, "a table between clusters");
    b.extra_data = extra;
    b.extra_data_bytes = 1;
    is_int(q2_bitmap_check(&b, covers, 16, &err), -EINVAL, "extra data");
}

static void tables(void)
{
    ok(q2_bitmap_table_entry_valid(0, 16), "zeros");
    ok(q2_bitmap_table_entry_valid(1, 16), "ones");
    ok(q2_bitmap_table_entry_valid(0x30000, 16), "an offset");
    ok(!q2_bitmap_table_entry_valid(0x30001, 16), "ones at an offset");
    ok(!q2_bitmap_table_entry_valid(0x30200, 16), "between clusters");
    ok(q2_bitmap_table_entry_valid(0x30200, 9), "of 512 bytes");
    ok(!q2_bitmap_table_entry_valid(2, 16), "reserved low bit");
    ok(!q2_bitmap_table_entry_valid(UINT64_C(1) << 56, 16), "reserved high bit");

    is_u64(q2_bitmap_data_bytes(0, 16), 0, "no disk, no bits");
    is_u64(q2_bitmap_data_bytes(1, 16), 1, "a bit takes a byte");
    is_u64(q2_bitmap_data_bytes(8 << 16, 16), 1, "eight bits");
    is_u64(q2_bitmap_data_bytes((8 << 16) + 1, 16), 2, "nine bits");
    is_u64(q2_bitmap_data_bytes(UINT64_MAX, 9), UINT64_C(1) << 52, "the largest disk");
    is_u64(q2_bitmap_table_entries((UINT64_C(1) << 34) + 1, 15, 16), 2,
           "a cluster of bits and one more");
}

int main(void)
{
    directory();
    constraints();
    tables();
    layout();
    round_trips();
    hostile();
    return done_testing();
}
