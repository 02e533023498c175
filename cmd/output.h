// SPDX-License-Identifier: MIT
// What commands print: JSON in QEMU's layout, and text whose bytes may come from an
// image.
#ifndef Q2_CMD_OUTPUT_H
#define Q2_CMD_OUTPUT_H

#include <jansson.h>
#include <stdio.h>

// A JSON string of text, which need not be UTF-8: what is not becomes U+FFFD. NULL: no
// memory.
json_t *q2_output_string(const char *text);

// Prints value and a newline: four spaces a level, keys in the order of insertion, an
// empty list or object on two lines. Releases value. Returns 0 or -ENOMEM (value NULL).
int q2_output_json(json_t *value);

// Prints an object's members a line each, deeper ones indented, '-' in keys as a space.
void q2_output_tree(const json_t *object, int indent);

// Prints text with control characters as \xNN: it may come from an image, and what is
// in it must not reach the terminal as a command.
void q2_output_text(FILE *to, const char *text);

#endif
