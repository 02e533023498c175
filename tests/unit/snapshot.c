// SPDX-License-Identifier: MIT
// Snapshot table entries: round trips, old and longer extra data, entries cut short.
#include "disk/snapshot.h"

#include <errno.h>

#include "base/endian.h"
#include "test.h"

#define EXTRA_AT 36
#define FIXED 40

static struct q2_snapshot sample(char *id, char *name)
{
    return (struct q2_snapshot){
        .l1_table_offset = 0x50000,
        .l1_size = 12,
        .id = id,
        .name = name,
        .date_sec = 1795407082,
        .date_nsec = 532984000,
        .vm_clock_nsec = UINT64_C(123456789012345),
        .vm_state_size = 4096,
        .has_disk_size = true,
        .disk_size = UINT64_C(1) << 40,
        .has_icount = true,
        .icount = 77,
    };
}

static bool equal(const struct q2_snapshot *a, const struct q2_snapshot *b)
{
    return a->l1_table_offset == b->l1_table_offset && a->l1_size == b->l1_size &&
           strcmp(a->id, b->id) == 0 && strcmp(a->name, b->name) == 0 &&
           a->date_sec == b->date_sec && a->date_nsec == b->date_nsec &&
           a->vm_clock_nsec == b->vm_clock_nsec && a->vm_state_size == b->vm_state_size &&
           a->has_disk_size == b->has_disk_size && a->disk_size == b->disk_size &&
           a->has_icount == b->has_icount && a->icount == b->icount &&
           a->unknown_extra_bytes == b->unknown_extra_bytes &&
           (a->unknown_extra_bytes == 0 ||
            memcmp(a->unknown_extra, b->unknown_extra, a->unknown_extra_bytes) == 0);
}

// Encodes s, decodes it, and every shorter piece of it.
static void round_trip(const char *what, const struct q2_snapshot *s,
                       uint32_t extra_bytes)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_snapshot d = {0};
    uint8_t buf[4096];
    size_t used = 0;
    size_t n = q2_snapshot_bytes(s);
    size_t length = FIXED + extra_bytes + strlen(s->id) + strlen(s->name);

    memset(buf, 0xff, sizeof(buf));
    q2_snapshot_encode(s, buf);
    is_u64(n, (length + 7) / 8 * 8, "%s: padded to 8 bytes", what);
    is_u64(buf[n], 0xff, "%s: writes no more than that", what);
    is_u64(q2_load_be32(buf + EXTRA_AT), extra_bytes, "%s: extra data", what);
    is_int(q2_snapshot_decode(buf, n, 0, &d, &used, &err), 0, "%s: decodes", what);
    is_u64(used, n, "%s: as long as it was", what);
    ok(equal(&d, s), "%s: and the same", what);
    q2_snapshot_clear(&d);

    bool cut_is_seen = true;
    for (size_t i = 0; i < length; i++)
        cut_is_seen = cut_is_seen &&
                      q2_snapshot_decode(buf, i, 3, &d, &used, &err) == -ENODATA &&
                      d.id == NULL;
    ok(cut_is_seen, "%s: every shorter piece is incomplete", what);
    has_str(err.message, "entry 3", "%s: the message names the entry", what);
}

static void round_trips(void)
{
    char id[] = "1";
    char name[] = "first";
    char long_name[1001];
    uint8_t extra[] = {1, 2, 3, 4, 5};

    struct q2_snapshot s = sample(id, name);
    round_trip("usual", &s, 24);
    s.icount = UINT64_MAX;
    round_trip("no icount known", &s, 24);
    s.has_icount = false;
    round_trip("without icount", &s, 16);
    s.unknown_extra = extra;
    s.unknown_extra_bytes = 4;
    round_trip("extra data that end in a field", &s, 20);
    s.unknown_extra_bytes = 0;
    s.has_disk_size = false;
    s.disk_size = 0;
    round_trip("old", &s, 0);
    s.vm_state_size = UINT64_C(1) << 33;
    round_trip("large VM state", &s, 8);

    s = sample(id, name);
    s.unknown_extra = extra;
    s.unknown_extra_bytes = sizeof(extra);
    round_trip("unknown extra data", &s, 29);

    memset(long_name, 'n', sizeof(long_name) - 1);
    long_name[sizeof(long_name) - 1] = '\0';
    s = sample(id, long_name);
    round_trip("long name", &s, 24);
    long_name[0] = '\0';
    round_trip("no name", &s, 24);
}

// Bytes as the format gives them.
static void layout(void)
{
    static const uint8_t want[] = {
        0,   0,   0,   0, 0, 5, 0, 0,  0, 0, 0, 12, // L1 table
        0,   1,   0,   2,                           // lengths of id and name
        0,   0,   1,   0, 0, 0, 0, 2,               // date
        0,   0,   0,   0, 0, 0, 1, 1,               // clock
        0,   0,   0,   0, 0, 0, 0, 24,              // VM state (too large), extra data
        0,   0,   0,   1, 0, 0, 0, 3,               // VM state
        0,   0,   0,   0, 0, 0, 2, 0,               // disk size
        0,   0,   0,   0, 0, 0, 0, 9,               // icount
        '7', 'a', 'b', 0, 0, 0, 0, 0,               // id, name, padding
    };
    char id[] = "7";
    char name[] = "ab";
    struct q2_snapshot s = {
        .l1_table_offset = 0x50000,
        .l1_size = 12,
        .id = id,
        .name = name,
        .date_sec = 256,
        .date_nsec = 2,
        .vm_clock_nsec = 257,
        .vm_state_size = UINT64_C(0x100000003),
        .has_disk_size = true,
        .disk_size = 512,
        .has_icount = true,
        .icount = 9,
    };
    uint8_t buf[sizeof(want)];

    is_u64(q2_snapshot_bytes(&s), sizeof(want), "length of the entry");
    q2_snapshot_encode(&s, buf);
    ok(memcmp(buf, want, sizeof(want)) == 0, "bytes of the entry");
}

static void odd_entries(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_snapshot d;
    uint8_t buf[2048] = {0};
    size_t used;

    q2_store_be32(buf + EXTRA_AT, 4);
    q2_store_be32(buf + 32, 55);
    is_int(q2_snapshot_decode(buf, sizeof(buf), 0, &d, &used, &err), 0, "half a field");
    is_u64(d.vm_state_size, 55, "counts for nothing");
    is_u64(d.unknown_extra_bytes, 0, "and is not kept");
    is_str(d.id, "", "an empty id is a string");
    q2_snapshot_clear(&d);

    q2_store_be32(buf + EXTRA_AT, Q2_MAX_SNAPSHOT_EXTRA_BYTES);
    is_int(q2_snapshot_decode(buf, sizeof(buf), 0, &d, &used, &err), 0,
           "1024 extra bytes");
    is_u64(d.unknown_extra_bytes, Q2_MAX_SNAPSHOT_EXTRA_BYTES - 24, "are kept");
    q2_snapshot_clear(&d);
    q2_store_be32(buf + EXTRA_AT, Q2_MAX_SNAPSHOT_EXTRA_BYTES + 1);
    is_int(q2_snapshot_decode(buf, sizeof(buf), 5, &d, &used, &err), -EINVAL,
           "1025 are too many");
    has_str(err.message, "Too much extra metadata in snapshot table entry 5", "text");
    q2_store_be32(buf + EXTRA_AT, UINT32_MAX);
    is_int(q2_snapshot_decode(buf, sizeof(buf), 5, &d, &used, &err), -EINVAL,
           "4 GiB too");
}

int main(void)
{
    layout();
    round_trips();
    odd_entries();
    return done_testing();
}
