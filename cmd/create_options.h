// SPDX-License-Identifier: MIT
// What -o says of a new image: key=value,key=value, the table of keys, and how it becomes
// a struct q2_create_options. Used by create and convert.
#ifndef Q2_CMD_CREATE_OPTIONS_H
#define Q2_CMD_CREATE_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "cmd/create_keys.h"
#include "image/crypt.h"
#include "ops/create.h"

// Start zeroed, with format set to one that is known.
struct q2_new_image {
    const char *format;
    bool amends;              // the image is there: fewer keys may be given
    bool measures;            // it is not made: fewer values are looked at
    bool copied;              // filled by convert, which takes a key of its own
    char *text[Q2_KEYS];      // as the user wrote it; NULL: not given. Owned
    uint64_t number[Q2_KEYS]; // value of those with a text that are sizes and numbers;
                              // 1 or 0 for on and off
    struct q2_crypt_options encrypt; // set by q2_new_image_resolve
};

// Appends list to *lists (malloced, NULL at first) with a comma between them.
int q2_option_list_append(char **lists, const char *list, struct q2_error *err);
// True if "help" or "?" is one of the items.
bool q2_option_list_asks_help(const char *lists);

// Takes in a list. A key may be given again: the last one counts.
int q2_new_image_parse(struct q2_new_image *image, const char *lists,
                       struct q2_error *err);
// One value, as if it stood in the list. Fails if the format has no such key.
int q2_new_image_set(struct q2_new_image *image, enum q2_create_key key, const char *text,
                     struct q2_error *err);
int q2_new_image_set_size(struct q2_new_image *image, uint64_t size,
                          struct q2_error *err);
void q2_new_image_clear(struct q2_new_image *image);

// Names become numbers, what this version cannot do is refused by name. out points into
// image.
int q2_new_image_resolve(struct q2_new_image *image, struct q2_create_options *out,
                         struct q2_error *err);

// "Formatting 'x', fmt=qcow2 cluster_size=65536 ..."
void q2_new_image_print(const struct q2_new_image *image, const char *filename);

#endif
