// SPDX-License-Identifier: MIT
// Snapshot table entries: a fixed part, extra data of any length, id and name.
#include "disk/snapshot.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"

enum {
    AT_L1_TABLE_OFFSET = 0,
    AT_L1_SIZE = 8,
    AT_ID_BYTES = 12,
    AT_NAME_BYTES = 14,
    AT_DATE_SEC = 16,
    AT_DATE_NSEC = 20,
    AT_VM_CLOCK_NSEC = 24,
    AT_VM_STATE_SIZE = 32,
    AT_EXTRA_BYTES = 36,
    FIXED_BYTES = 40,
};

// Extra data that we know, and their length when each of them is the last.
enum {
    EXTRA_VM_STATE_SIZE = 0,
    EXTRA_DISK_SIZE = 8,
    EXTRA_ICOUNT = 16,
    TO_VM_STATE_SIZE = 8,
    TO_DISK_SIZE = 16,
    TO_ICOUNT = 24,
};

static void decode_fixed(const uint8_t *p, struct q2_snapshot *s)
{
    *s = (struct q2_snapshot){
        .l1_table_offset = q2_load_be64(p + AT_L1_TABLE_OFFSET),
        .l1_size = q2_load_be32(p + AT_L1_SIZE),
        .date_sec = q2_load_be32(p + AT_DATE_SEC),
        .date_nsec = q2_load_be32(p + AT_DATE_NSEC),
        .vm_clock_nsec = q2_load_be64(p + AT_VM_CLOCK_NSEC),
        .vm_state_size = q2_load_be32(p + AT_VM_STATE_SIZE),
        .icount = UINT64_MAX,
    };
}

// Returns how many bytes of the extra data are known. Part of a field is nothing.
static uint32_t decode_extra(const uint8_t *p, uint32_t n_bytes, struct q2_snapshot *s)
{
    if (n_bytes < TO_VM_STATE_SIZE)
        return n_bytes;
    s->vm_state_size = q2_load_be64(p + EXTRA_VM_STATE_SIZE);
    if (n_bytes < TO_DISK_SIZE)
        return TO_VM_STATE_SIZE;
    s->has_disk_size = true;
    s->disk_size = q2_load_be64(p + EXTRA_DISK_SIZE);
    if (n_bytes < TO_ICOUNT)
        return TO_DISK_SIZE;
    s->has_icount = true;
    s->icount = q2_load_be64(p + EXTRA_ICOUNT);
    return TO_ICOUNT;
}

static char *copy_string(const uint8_t *p, size_t n)
{
    char *s = malloc(n + 1);
    if (s) {
        memcpy(s, p, n);
        s[n] = '\0';
    }
    return s;
}

static int decode_variable(const uint8_t *p, uint32_t extra_bytes, size_t id_bytes,
                           size_t name_bytes, struct q2_snapshot *s, struct q2_error *err)
{
    uint32_t known = decode_extra(p, extra_bytes, s);

    s->unknown_extra_bytes = extra_bytes - known;
    if (s->unknown_extra_bytes) {
        s->unknown_extra = malloc(s->unknown_extra_bytes);
        if (!s->unknown_extra)
            return q2_fail_memory(err, s->unknown_extra_bytes);
        memcpy(s->unknown_extra, p + known, s->unknown_extra_bytes);
    }
    s->id = copy_string(p + extra_bytes, id_bytes);
    s->name = copy_string(p + extra_bytes + id_bytes, name_bytes);
    if (!s->id || !s->name)
        return q2_fail_memory(err, id_bytes + name_bytes + 2);
    return 0;
}

int q2_snapshot_decode(const void *buf, size_t n_bytes, unsigned index,
                       struct q2_snapshot *out, size_t *used, struct q2_error *err)
{
    const uint8_t *p = buf;
    struct q2_snapshot s;

    if (n_bytes < FIXED_BYTES)
        return q2_fail(err, -ENODATA, "Snapshot table entry %u is incomplete", index);

    uint32_t extra_bytes = q2_load_be32(p + AT_EXTRA_BYTES);
    size_t id_bytes = q2_load_be16(p + AT_ID_BYTES);
    size_t name_bytes = q2_load_be16(p + AT_NAME_BYTES);
    if (extra_bytes > Q2_MAX_SNAPSHOT_EXTRA_BYTES)
        return q2_fail(err, -EINVAL,
                       "Too much extra metadata in snapshot table entry %u (%" PRIu32
                       " bytes)",
                       index, extra_bytes);
    size_t length = FIXED_BYTES + extra_bytes + id_bytes + name_bytes;
    if (length > n_bytes)
        return q2_fail(err, -ENODATA, "Snapshot table entry %u is incomplete", index);

    decode_fixed(p, &s);
    int ret =
        decode_variable(p + FIXED_BYTES, extra_bytes, id_bytes, name_bytes, &s, err);
    if (ret < 0) {
        q2_snapshot_clear(&s);
        return ret;
    }
    *out = s;
    *used = (size_t)q2_align_up(length, 8);
    return 0;
}

// A large VM state, or what stands behind, needs the fields before it.
static uint32_t known_extra_bytes(const struct q2_snapshot *s)
{
    if (s->has_icount)
        return TO_ICOUNT;
    if (s->has_disk_size)
        return TO_DISK_SIZE;
    return s->vm_state_size > UINT32_MAX || s->unknown_extra_bytes ? TO_VM_STATE_SIZE : 0;
}

size_t q2_snapshot_bytes(const struct q2_snapshot *s)
{
    return (size_t)q2_align_up(FIXED_BYTES + (uint64_t)known_extra_bytes(s) +
                                   s->unknown_extra_bytes + strlen(s->id) +
                                   strlen(s->name),
                               8);
}

void q2_snapshot_encode(const struct q2_snapshot *s, void *buf)
{
    uint8_t *p = buf;
    uint32_t known = known_extra_bytes(s);
    size_t id_bytes = strlen(s->id);
    size_t name_bytes = strlen(s->name);

    memset(p, 0, q2_snapshot_bytes(s));
    q2_store_be64(p + AT_L1_TABLE_OFFSET, s->l1_table_offset);
    q2_store_be32(p + AT_L1_SIZE, s->l1_size);
    q2_store_be16(p + AT_ID_BYTES, (uint16_t)id_bytes);
    q2_store_be16(p + AT_NAME_BYTES, (uint16_t)name_bytes);
    q2_store_be32(p + AT_DATE_SEC, s->date_sec);
    q2_store_be32(p + AT_DATE_NSEC, s->date_nsec);
    q2_store_be64(p + AT_VM_CLOCK_NSEC, s->vm_clock_nsec);
    // Programs that know this field alone must take the snapshot for one without VM state
    // rather than cut it.
    q2_store_be32(p + AT_VM_STATE_SIZE,
                  s->vm_state_size > UINT32_MAX ? 0 : (uint32_t)s->vm_state_size);
    q2_store_be32(p + AT_EXTRA_BYTES, known + s->unknown_extra_bytes);

    p += FIXED_BYTES;
    if (known >= TO_VM_STATE_SIZE)
        q2_store_be64(p + EXTRA_VM_STATE_SIZE, s->vm_state_size);
    if (known >= TO_DISK_SIZE)
        q2_store_be64(p + EXTRA_DISK_SIZE, s->disk_size);
    if (known >= TO_ICOUNT)
        q2_store_be64(p + EXTRA_ICOUNT, s->icount);
    p += known;
    if (s->unknown_extra_bytes)
        memcpy(p, s->unknown_extra, s->unknown_extra_bytes);
    p += s->unknown_extra_bytes;
    memcpy(p, s->id, id_bytes);
    memcpy(p + id_bytes, s->name, name_bytes);
}

void q2_snapshot_clear(struct q2_snapshot *s)
{
    free(s->id);
    free(s->name);
    free(s->unknown_extra);
    *s = (struct q2_snapshot){0};
}
