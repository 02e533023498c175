// SPDX-License-Identifier: MIT
// What a file could be taken for by programs that guess: signatures of other formats at
// its start, inside and at its end, and partition tables.
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "disk/header.h"
#include "image/probe.h"
#include "ops/vet_private.h"

#define SECTOR 512U
#define HEAD_BYTES 2048U
// A description in text of a vmdk image is looked for in so much of a file, as QEMU does.
#define MAX_DESCRIPTION_BYTES (1U << 20)

static bool is_raw(const struct q2_vetting *v)
{
    return strcmp(v->request->format, "raw") == 0;
}

// --- signatures ------------------------------------------------------------------------

// Besides those that are probed for; of qcow2 and LUKS, all versions.
static const struct signature {
    const char *format;
    size_t n_bytes;
    const char *bytes;
} starts[] = {
    {"qcow2", 4, "QFI\xfb"},
    {"luks", 6, "LUKS\xba\xbe"},
    {"cloop", 23, "#!/bin/sh\n#V2.0 Format\n"},
};

// At the last sector. (Old fixed vpc images have a byte less.)
static const struct tail {
    const char *format;
    unsigned from_end;
    size_t n_bytes;
    const char *bytes;
} tails[] = {
    {"vpc", 512, 8, "conectix"},
    {"vpc", 511, 8, "conectix"},
    {"dmg", 512, 4, "koly"},
};

const char *q2_vet_looks_like(const uint8_t *buf, size_t n_bytes)
{
    for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++)
        if (n_bytes >= starts[i].n_bytes &&
            memcmp(buf, starts[i].bytes, starts[i].n_bytes) == 0)
            return starts[i].format;
    return q2_probe_magic(buf, n_bytes);
}

// Volume descriptors begin behind 16 sectors of 2 KiB.
static int vet_iso(struct q2_vetting *v, struct q2_error *err)
{
    static const char *const ids[] = {"CD001", "NSR02", "NSR03"};
    const struct q2_vet_words words = {.text = NULL};
    char id[6] = {0};
    bool found = false;
    int ret = q2_io_read(v->io, 16 * 2048 + 1, id, 5, err);
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++)
        found |= strcmp(id, ids[i]) == 0;
    return ret == 0 && found ? q2_vet_object(v, Q2_VET_ISO, &words, err) : ret;
}

static int taken_for(struct q2_vetting *v, const char *what, struct q2_error *err)
{
    const struct q2_vet_words words = {.text = what};
    return q2_vet_object(v, Q2_VET_OTHER_FORMAT, &words, err);
}

// --- descriptions of vmdk images -------------------------------------------------------

static bool is_text(const uint8_t *buf, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (buf[i] >= 0x7f || (buf[i] < 0x20 && !isspace(buf[i])))
            return false;
    return n > 0;
}

// Behind comments and empty lines, whatever follows: so QEMU knows it.
static bool begins_with_version(const uint8_t *p, size_t n)
{
    static const char key[] = "version=";
    const size_t n_key = sizeof(key) - 1;
    bool comment = false;
    size_t i = 0;
    for (; i < n && (comment || p[i] == '#' || isspace(p[i])); i++)
        comment = p[i] != '\n' && (comment || p[i] == '#');
    return n - i >= n_key && strncasecmp((const char *)p + i, key, n_key) == 0;
}

static bool names_type(const char *text)
{
    static const char key[] = "createtype=";
    for (; *text; text++)
        if (strncasecmp(text, key, sizeof(key) - 1) == 0)
            return true;
    return false;
}

static int vet_description(struct q2_vetting *v, struct q2_error *err)
{
    size_t n = (size_t)q2_min_u64(v->report->file_size, MAX_DESCRIPTION_BYTES);
    char *text = malloc(n + 1);
    if (!text)
        return q2_fail_memory(err, n + 1);
    int ret = q2_io_read(v->io, 0, text, n, err);
    text[n] = '\0';
    if (ret == 0 && names_type(text))
        ret = taken_for(v, "vmdk", err);
    free(text);
    return ret;
}

// --- partition tables ------------------------------------------------------------------

#define AT_ENTRIES 446U
#define ENTRY_BYTES 16U
#define N_ENTRIES 4U
#define TYPE_GPT 0xeeU

static bool has_boot_signature(const uint8_t *sector)
{
    return sector[510] == 0x55 && sector[511] == 0xaa;
}

// A FAT file system begins with a sector that is signed in the same way: two tables, and
// the mark of a fixed disk.
static bool is_fat(const uint8_t *sector)
{
    return sector[16] == 2 && sector[21] == 0xf8;
}

// What is wrong with a protective entry of a GUID partition table.
static const char *judge_protective(const uint8_t *entry)
{
    static const uint8_t first_chs[3] = {0, 2, 0}, first_lba[4] = {1, 0, 0, 0};
    if (memcmp(entry + 1, first_chs, sizeof(first_chs)) != 0 ||
        memcmp(entry + 8, first_lba, sizeof(first_lba)) != 0)
        return "its protective partition does not begin at sector 1";
    return NULL;
}

// NULL: it makes sense.
static const char *judge_partitions(const uint8_t *sector)
{
    bool gpt = false;
    unsigned n_used = 0, first_used = 0;
    for (unsigned i = 0; i < N_ENTRIES; i++) {
        const uint8_t *entry = sector + AT_ENTRIES + (size_t)i * ENTRY_BYTES;
        uint8_t boot = entry[0], type = entry[4];
        if (boot != 0 && boot != 0x80)
            return "a boot flag is neither set nor clear";
        if (type != 0 && n_used++ == 0)
            first_used = i;
        if (type == TYPE_GPT && judge_protective(entry))
            return judge_protective(entry);
        gpt |= type == TYPE_GPT;
    }
    if (gpt && (n_used != 1 || first_used != 0))
        return "there are partitions besides the protective one";
    return n_used > 0 ? NULL : "it is empty";
}

static int vet_boot_sector(struct q2_vetting *v, const uint8_t *sector,
                           struct q2_error *err)
{
    if (!has_boot_signature(sector) || is_fat(sector))
        return 0;
    if (!is_raw(v))
        return taken_for(v, "a disk with a partition table", err);
    const struct q2_vet_words words = {.text = judge_partitions(sector)};
    return words.text ? q2_vet_object(v, Q2_VET_PARTITION_TABLE, &words, err) : 0;
}

// --- all of it -------------------------------------------------------------------------

static int vet_tail(struct q2_vetting *v, struct q2_error *err)
{
    uint8_t buf[SECTOR] = {0};
    uint64_t size = v->report->file_size;
    if (size < SECTOR)
        return 0;
    int ret = q2_io_read(v->io, size - SECTOR, buf, SECTOR, err);
    for (size_t i = 0; ret == 0 && i < sizeof(tails) / sizeof(tails[0]); i++)
        if (memcmp(buf + SECTOR - tails[i].from_end, tails[i].bytes, tails[i].n_bytes) ==
            0)
            return taken_for(v, tails[i].format, err);
    return ret;
}

// The bytes of a raw file are a guest's: none of them may make it something else.
static int vet_raw_start(struct q2_vetting *v, const uint8_t *head, size_t n,
                         struct q2_error *err)
{
    const char *other = q2_vet_looks_like(head, n);
    if (!other && begins_with_version(head, n))
        other = "vmdk";
    int ret = other ? taken_for(v, other, err) : 0;
    if (ret == 0 && !other && is_text(head, q2_min_size(n, SECTOR)))
        ret = vet_description(v, err);
    return ret < 0 ? ret : vet_tail(v, err);
}

// A qcow2 image's first bytes are its own; signatures further behind are not.
static int vet_qcow2_start(struct q2_vetting *v, uint8_t *head, size_t n,
                           struct q2_error *err)
{
    if (n < 4 || q2_load_be32(head) != Q2_MAGIC)
        return 0; // told as what it is not
    memset(head, 0, 8);
    const char *other = q2_probe_magic(head, n);
    return other ? taken_for(v, other, err) : 0;
}

int q2_vet_formats(struct q2_vetting *v, struct q2_error *err)
{
    uint8_t head[HEAD_BYTES] = {0};
    size_t n = (size_t)q2_min_u64(v->report->file_size, sizeof(head));
    int ret = q2_io_read(v->io, 0, head, n, err);
    if (ret == 0)
        ret = vet_boot_sector(v, head, err);
    if (ret == 0)
        ret = vet_iso(v, err);
    if (ret < 0)
        return ret;
    return is_raw(v) ? vet_raw_start(v, head, n, err) : vet_qcow2_start(v, head, n, err);
}
