// SPDX-License-Identifier: MIT
// What commands print: JSON in QEMU's layout, and text whose bytes may come from an
// image.
#ifndef Q2_CMD_OUTPUT_H
#define Q2_CMD_OUTPUT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "base/error.h"

// A list in a tree whose items are made one by one while it is printed, as there may be
// more of them than memory.
typedef int q2_take_item(void *to, json_t *item, struct q2_error *err); // releases item
struct q2_long_list {
    const json_t *place; // an empty array in the tree
    int (*each)(const void *source, q2_take_item *take, void *to, struct q2_error *err);
    const void *source;
};
struct q2_long_lists {
    unsigned n;
    struct q2_long_list *list;
};

// Prints value and a newline: four spaces a level, keys in the order of insertion, an
// empty list or object on two lines. Releases value. Without memory it
// fails, and what it has printed is no JSON.
int q2_output_json(json_t *value, struct q2_error *err);
// The same with long lists in it, whose items may fail.
int q2_output_long_json(json_t *value, const struct q2_long_lists *lists,
                        struct q2_error *err);

// Prints an object's members a line each, deeper ones indented, '-' in keys as a space.
int q2_output_tree(const json_t *object, int indent, const struct q2_long_lists *lists,
                   struct q2_error *err);

// To be called before anything of JSON is: most of its functions cannot say that memory
// was lacking, and leave something out.
void q2_output_setup(void);

// True if something was left out.
bool q2_output_incomplete(void);

// --- output_text.c ---------------------------------------------------------------------

// A JSON string of text, which need not be UTF-8: what is not becomes U+FFFD. NULL: no
// memory.
json_t *q2_output_string(const char *text);

// Prints a JSON string, in ASCII.
void q2_output_quoted(const json_t *string);

// Prints text with control characters as \xNN: it may come from an image, and what is
// in it must not reach the terminal as a command.
void q2_output_text(FILE *to, const char *text);

#endif
