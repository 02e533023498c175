// SPDX-License-Identifier: MIT
// The keys that -o takes, one table per format, and "-o help".
#include "cmd/create_keys.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/probe.h"

static const struct q2_key_row qcow2_rows[] = {
    {Q2_KEY_ENCRYPTION, Q2_TYPE_BOOL, false, "encryption", NULL,
     "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)"},
    {Q2_KEY_ENCRYPT_FORMAT, Q2_TYPE_TEXT, false, "encrypt.format", NULL,
     "Encrypt the image, format choices: 'aes', 'luks'"},
    {Q2_KEY_ENCRYPT_KEY_SECRET, Q2_TYPE_TEXT, false, "encrypt.key-secret", NULL,
     "ID of secret providing qcow AES key or LUKS passphrase"},
    {Q2_KEY_ENCRYPT_CIPHER_ALG, Q2_TYPE_TEXT, false, "encrypt.cipher-alg", NULL,
     "Name of encryption cipher algorithm"},
    {Q2_KEY_ENCRYPT_CIPHER_MODE, Q2_TYPE_TEXT, false, "encrypt.cipher-mode", NULL,
     "Name of encryption cipher mode"},
    {Q2_KEY_ENCRYPT_IVGEN_ALG, Q2_TYPE_TEXT, false, "encrypt.ivgen-alg", NULL,
     "Name of IV generator algorithm"},
    {Q2_KEY_ENCRYPT_IVGEN_HASH_ALG, Q2_TYPE_TEXT, false, "encrypt.ivgen-hash-alg", NULL,
     "Name of IV generator hash algorithm"},
    {Q2_KEY_ENCRYPT_HASH_ALG, Q2_TYPE_TEXT, false, "encrypt.hash-alg", NULL,
     "Name of encryption hash algorithm"},
    {Q2_KEY_ENCRYPT_ITER_TIME, Q2_TYPE_NUMBER, false, "encrypt.iter-time", NULL,
     "Time to spend in PBKDF in milliseconds"},
    {Q2_KEY_CLUSTER_SIZE, Q2_TYPE_SIZE, false, "cluster_size", "65536",
     "qcow2 cluster size"},
    {Q2_KEY_EXTENDED_L2, Q2_TYPE_BOOL, false, "extended_l2", "off", "Extended L2 tables"},
    {Q2_KEY_PREALLOCATION, Q2_TYPE_TEXT, false, "preallocation", NULL,
     "Preallocation mode (allowed values: off, metadata, falloc, full)"},
    {Q2_KEY_COMPRESSION_TYPE, Q2_TYPE_TEXT, false, "compression_type", "zlib",
     "Compression method used for image cluster compression"},
    {Q2_KEY_SIZE, Q2_TYPE_SIZE, false, "size", NULL, "Virtual disk size"},
    {Q2_KEY_COMPAT, Q2_TYPE_TEXT, false, "compat", NULL,
     "Compatibility level (v2 [0.10] or v3 [1.1])"},
    {Q2_KEY_BACKING_FILE, Q2_TYPE_TEXT, false, "backing_file", NULL,
     "File name of a base image"},
    {Q2_KEY_BACKING_FORMAT, Q2_TYPE_TEXT, false, "backing_fmt", NULL,
     "Image format of the base image"},
    {Q2_KEY_DATA_FILE, Q2_TYPE_TEXT, false, "data_file", NULL,
     "File name of an external data file"},
    {Q2_KEY_DATA_FILE_RAW, Q2_TYPE_BOOL, false, "data_file_raw", NULL,
     "The external data file must stay valid as a raw image"},
    {Q2_KEY_LAZY_REFCOUNTS, Q2_TYPE_BOOL, false, "lazy_refcounts", "off",
     "Postpone refcount updates"},
    {Q2_KEY_REFCOUNT_BITS, Q2_TYPE_NUMBER, false, "refcount_bits", "16",
     "Width of a reference count entry in bits"},
    {Q2_KEY_NOCOW, Q2_TYPE_BOOL, true, "nocow", NULL,
     "Turn off copy-on-write (valid only on btrfs)"},
    {Q2_KEY_EXTENT_SIZE_HINT, Q2_TYPE_SIZE, true, "extent_size_hint", NULL,
     "Extent size hint for the image file, 0 to disable"},
};

const struct q2_key_row q2_key_level_row = {
    Q2_KEY_COMPRESSION_LEVEL,
    Q2_TYPE_TEXT,
    false,
    "compression_level",
    NULL,
    "Level of compression: fast, best, or 1 to 9"};

static const struct q2_key_row raw_rows[] = {
    {Q2_KEY_SIZE, Q2_TYPE_SIZE, false, "size", NULL, "Virtual disk size"},
    {Q2_KEY_NOCOW, Q2_TYPE_BOOL, true, "nocow", NULL,
     "Turn off copy-on-write (valid only on btrfs)"},
    {Q2_KEY_PREALLOCATION, Q2_TYPE_TEXT, true, "preallocation", NULL,
     "Preallocation mode (allowed values: off, falloc, full)"},
    {Q2_KEY_EXTENT_SIZE_HINT, Q2_TYPE_SIZE, true, "extent_size_hint", NULL,
     "Extent size hint for the image file, 0 to disable"},
};

static const struct q2_key_row amend_rows[] = {
    {Q2_KEY_BACKING_FILE, Q2_TYPE_TEXT, false, "backing_file", NULL,
     "File name of a base image"},
    {Q2_KEY_BACKING_FORMAT, Q2_TYPE_TEXT, false, "backing_fmt", NULL,
     "Image format of the base image"},
    {Q2_KEY_COMPAT, Q2_TYPE_TEXT, false, "compat", NULL,
     "Compatibility level (v2 [0.10] or v3 [1.1])"},
    {Q2_KEY_DATA_FILE, Q2_TYPE_TEXT, false, "data_file", NULL,
     "File name of an external data file"},
    {Q2_KEY_DATA_FILE_RAW, Q2_TYPE_BOOL, false, "data_file_raw", NULL,
     "The external data file must stay valid as a raw image"},
    {Q2_KEY_ENCRYPT_ITER_TIME, Q2_TYPE_NUMBER, false, "encrypt.iter-time", NULL,
     "Time to spend in PBKDF in milliseconds"},
    {Q2_KEY_ENCRYPT_KEYSLOT, Q2_TYPE_NUMBER, false, "encrypt.keyslot", NULL,
     "Select a single keyslot to modify explicitly"},
    {Q2_KEY_ENCRYPT_NEW_SECRET, Q2_TYPE_TEXT, false, "encrypt.new-secret", NULL,
     "New secret to set in the matching keyslots. Empty string to erase"},
    {Q2_KEY_ENCRYPT_OLD_SECRET, Q2_TYPE_TEXT, false, "encrypt.old-secret", NULL,
     "Select all keyslots that match this password"},
    {Q2_KEY_ENCRYPT_STATE, Q2_TYPE_TEXT, false, "encrypt.state", NULL,
     "Select new state of affected keyslots (active/inactive)"},
    {Q2_KEY_LAZY_REFCOUNTS, Q2_TYPE_BOOL, false, "lazy_refcounts", NULL,
     "Postpone refcount updates"},
    {Q2_KEY_REFCOUNT_BITS, Q2_TYPE_NUMBER, false, "refcount_bits", NULL,
     "Width of a reference count entry in bits"},
    {Q2_KEY_SIZE, Q2_TYPE_SIZE, false, "size", NULL, "Virtual disk size"},
};

const struct q2_key_row *q2_key_amend_rows(size_t *n)
{
    *n = sizeof(amend_rows) / sizeof(amend_rows[0]);
    return amend_rows;
}

const struct q2_key_row *q2_key_rows(const char *format, size_t *n)
{
    bool raw = !strcmp(format, "raw");
    *n = raw ? sizeof(raw_rows) / sizeof(raw_rows[0])
             : sizeof(qcow2_rows) / sizeof(qcow2_rows[0]);
    return raw ? raw_rows : qcow2_rows;
}

static int by_name(const void *a, const void *b)
{
    const struct q2_key_row *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static void print_rows_sorted(const struct q2_key_row *rows, size_t n, bool file_named)
{
    static const char *const types[] = {"str", "bool (on/off)", "num", "size"};
    const struct q2_key_row *sorted[Q2_KEYS];
    for (size_t i = 0; i < n; i++)
        sorted[i] = &rows[i];
    qsort(sorted, n, sizeof(sorted[0]), by_name);
    for (size_t i = 0; i < n; i++) {
        char left[64];
        if (sorted[i]->of_file && !file_named)
            continue;
        snprintf(left, sizeof(left), "  %s=<%s>", sorted[i]->name,
                 types[sorted[i]->type]);
        printf("%-24s - %s\n", left, sorted[i]->help);
    }
}

int q2_key_print_help(const char *format, bool file_named, struct q2_error *err)
{
    size_t n;
    if (!q2_format_known(format))
        return q2_fail(err, -EINVAL, "Unknown file format '%s'", format);
    const struct q2_key_row *rows = q2_key_rows(format, &n);
    printf("Supported %s%soptions:\n", file_named ? "" : format, file_named ? "" : " ");
    print_rows_sorted(rows, n, file_named);
    if (!file_named)
        printf("\nThe protocol level may support further options.\n"
               "Specify the target filename to include those options.\n");
    return 0;
}

void q2_key_print_amend_help(void)
{
    printf("Amend options for 'qcow2':\n");
    print_rows_sorted(amend_rows, sizeof(amend_rows) / sizeof(amend_rows[0]), false);
}
