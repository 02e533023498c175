// SPDX-License-Identifier: MIT
// What the scanner of bitmaps, and what mends their directory, share.
#ifndef Q2_CHECK_BITMAPS_H
#define Q2_CHECK_BITMAPS_H

#include "check/scan.h"
#include "disk/bitmap.h"

// The bitmap directory, as it stands or with a length put right.
struct q2_directory {
    uint8_t *bytes;
    size_t n_bytes;
    unsigned n; // bitmaps, as the header says
};

// An entry's place in it; the fixed fields may make no sense.
struct q2_directory_entry {
    size_t at, n_bytes; // with padding
    size_t name_at, name_bytes;
};

// The entry at this place; false: its lengths make no sense.
bool q2_directory_entry_at(const struct q2_directory *d, size_t at,
                           struct q2_directory_entry *e);
// How many entries follow each other, from the first on, and where these end.
unsigned q2_directory_walk(const struct q2_directory *d, size_t *end);

// One length with which all entries follow each other.
struct q2_directory_length {
    const char *field;
    unsigned index;
    size_t entry_at;
    uint64_t value, wanted;
};
// Looks for it, and puts it into d; false: there is none, or more than one.
bool q2_directory_mend_lengths(struct q2_directory *d, struct q2_directory_length *found);

// A fixed field of the entry at e that cannot be right, put right in it.
struct q2_directory_field {
    const char *field;
    unsigned word; // of the entry: 0 .. 2
    uint64_t value, wanted;
    bool forget; // what the table says is of no use any more
};
// The next one; false: there is none (left).
bool q2_directory_mend_field(uint8_t *e, uint64_t disk_size, unsigned cluster_bits,
                             struct q2_directory_field *found);

// Keeps the name of a bitmap for findings (scan_bitmaps.c).
int q2_scan_keep_name(struct q2_scan *s, const uint8_t *text, size_t n_bytes,
                      const char **name, struct q2_error *err);
// Reports names that are there more than once (bitmap_names.c).
int q2_scan_bitmap_names(struct q2_scan *s, const struct q2_directory *d,
                         struct q2_error *err);

#endif
