// SPDX-License-Identifier: MIT
// Shell completion: "qcow2 __complete INDEX WORD..." tells the scripts in completion/
// what may stand in a place of a command line. They know nothing of commands and options.
//
// WORD... are the words behind the program's name, unquoted; INDEX is that of the one to
// complete, of which only what is before the cursor counts. The first line printed is
// KIND TAB PREFIX; PREFIX is what of the word stays as it is. KIND:
//   words   each further line is VALUE TAB DESCRIPTION: one way to go on behind PREFIX
//   parts   the same, and no blank goes behind a value: it is no end
//   files   names of files
// Nothing is printed where nothing is known.
#ifndef Q2_CMD_COMPLETE_H
#define Q2_CMD_COMPLETE_H

#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>

#include "cmd/choices.h"
#include "cmd/command.h"
#include "cmd/create_keys.h"

#define Q2_COMPLETE_COMMAND "__complete"

struct q2_program {
    const struct q2_command *const *commands;
    size_t n_commands;
    const struct option *options; // before the command
};

// Always quiet, and at an end soon, whatever the words name. Returns the exit status.
int q2_complete(const struct q2_program *program, int argc, char **argv);

// --- for the parts of it -------------------------------------------------------------

#define Q2_COMPLETE_MAX 64 // options that a table has, operands and objects looked at

// What is known of a command line.
struct q2_completion {
    const struct q2_command *command;
    const char *word;                    // the one to complete
    const char *values[Q2_COMPLETE_MAX]; // of options, by their rows; "": a flag is given
    const char *operands[Q2_COMPLETE_MAX];
    size_t n_operands;
    size_t operand;                       // the index that word has, if it is an operand
    const char *objects[Q2_COMPLETE_MAX]; // values of --object
    size_t n_objects;
};

// What was given to the option of that long name or letter; NULL: nothing.
const char *q2_completion_value(const struct q2_completion *c, const char *option);
const char *q2_completion_letter(const struct q2_completion *c, char letter);

// prefix_bytes of the word stay as they are.
void q2_complete_begin(const struct q2_completion *c, const char *kind,
                       size_t prefix_bytes);
// A line, if both texts are such that they can be one.
void q2_complete_offer(const char *value, const char *description);
// A choice has one name here, the first of those that mean the same.
void q2_complete_list(const struct q2_completion *c, const struct q2_choice *list,
                      size_t start);

// complete_values.c: what an option's value may be that begins there in the word.
void q2_complete_value(const struct q2_completion *c, const struct q2_option *row,
                       size_t start);
void q2_complete_operand(const struct q2_completion *c);

// complete_keys.c: lists of KEY=VALUE.
void q2_complete_keys(const struct q2_completion *c, size_t start);
void q2_complete_object(const struct q2_completion *c, size_t start);
size_t q2_complete_item(const struct q2_completion *c, size_t start);

// complete_image.c: what is in the image that the command line names. Nothing, if it
// cannot be read, is no image, or no file.
void q2_complete_snapshots(const struct q2_completion *c, size_t start, bool ids);
void q2_complete_bitmaps(const struct q2_completion *c, size_t start, const char *image);

#endif
