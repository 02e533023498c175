// SPDX-License-Identifier: MIT
// The keys that -o takes, one table per format.
#ifndef Q2_CMD_CREATE_KEYS_H
#define Q2_CMD_CREATE_KEYS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

enum q2_create_key {
    Q2_KEY_ENCRYPTION,
    Q2_KEY_ENCRYPT_FORMAT,
    Q2_KEY_ENCRYPT_KEY_SECRET,
    Q2_KEY_ENCRYPT_CIPHER_ALG,
    Q2_KEY_ENCRYPT_CIPHER_MODE,
    Q2_KEY_ENCRYPT_IVGEN_ALG,
    Q2_KEY_ENCRYPT_IVGEN_HASH_ALG,
    Q2_KEY_ENCRYPT_HASH_ALG,
    Q2_KEY_ENCRYPT_ITER_TIME,
    Q2_KEY_CLUSTER_SIZE,
    Q2_KEY_EXTENDED_L2,
    Q2_KEY_PREALLOCATION,
    Q2_KEY_COMPRESSION_TYPE,
    Q2_KEY_SIZE,
    Q2_KEY_COMPAT,
    Q2_KEY_BACKING_FILE,
    Q2_KEY_BACKING_FORMAT,
    Q2_KEY_DATA_FILE,
    Q2_KEY_DATA_FILE_RAW,
    Q2_KEY_LAZY_REFCOUNTS,
    Q2_KEY_REFCOUNT_BITS,
    Q2_KEY_NOCOW,
    Q2_KEY_EXTENT_SIZE_HINT,
    Q2_KEY_COMPRESSION_LEVEL, // convert alone
    Q2_KEY_ENCRYPT_KEYSLOT,   // from here on: amend alone
    Q2_KEY_ENCRYPT_NEW_SECRET,
    Q2_KEY_ENCRYPT_OLD_SECRET,
    Q2_KEY_ENCRYPT_STATE,
    Q2_KEYS
};

enum q2_key_type { Q2_TYPE_TEXT, Q2_TYPE_BOOL, Q2_TYPE_NUMBER, Q2_TYPE_SIZE };

struct q2_key_row {
    enum q2_create_key key;
    enum q2_key_type type;
    bool of_file; // a property of the file, whatever is in it
    const char *name;
    const char *preset; // printed when the user gives nothing; NULL: nothing is printed
    const char *help;
};

// The rows of a known format, in the order in which they are printed.
const struct q2_key_row *q2_key_rows(const char *format, size_t *n);

// What convert takes beside the rows of qcow2. Not a property of the image, so "-o help"
// leaves it out, as in QEMU.
extern const struct q2_key_row q2_key_level_row;

// Those that amend takes; of qcow2.
const struct q2_key_row *q2_key_amend_rows(size_t *n);
void q2_key_print_amend_help(void);

// The keys of a format; with those of the file system when a file is named.
int q2_key_print_help(const char *format, bool file_named, struct q2_error *err);

#endif
