// SPDX-License-Identifier: MIT
// Command lines: options from a table, help, and the values that options take.
#ifndef Q2_CMD_OPTIONS_H
#define Q2_CMD_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "cmd/command.h"
#include "io/file.h"

// Codes of options that have no letter.
enum {
    // Taken for all commands, into q2_command_line.common: no handler sees them.
    Q2_OPTION_FORMAT = 256,
    Q2_OPTION_IMAGE_OPTS,
    Q2_OPTION_CACHE,
    Q2_OPTION_SOURCE_CACHE,
    Q2_OPTION_SHARE,
    Q2_OPTION_OUTPUT,
    Q2_OPTION_PROGRESS,
    Q2_OPTION_QUIET,
    Q2_OPTION_OBJECT,
    Q2_OPTION_FIRST_OWN, // the commands' own count from here
    // Added to the code of an option that QEMU does not have: an abbreviation that is
    // unambiguous there stays so.
    Q2_OPTION_OURS = 1 << 16,
};

// What these say, the same for all commands.
struct q2_common_options {
    const char *format;       // -f; NULL: not given
    const char *cache;        // -t; NULL: not given
    const char *source_cache; // -T; NULL: not given
    bool image_opts, shared, json, progress, quiet;
};

// Rows that several tables share. Help shows them in the group that says how an image is
// opened, which some commands call by another name than "Image", and in "Output".
#define Q2_ROW_QUIET                                                       \
    {                                                                      \
        "quiet", "q", NULL, Q2_OPTION_QUIET, "Output", "print errors only" \
    }
#define Q2_PROGRESS_ROW(code)                                       \
    {                                                               \
        "progress", "p", NULL, code, "Output", "show how far it is" \
    }
#define Q2_ROW_PROGRESS Q2_PROGRESS_ROW(Q2_OPTION_PROGRESS)
#define Q2_ROW_OUR_PROGRESS Q2_PROGRESS_ROW(Q2_OPTION_PROGRESS | Q2_OPTION_OURS)
#define Q2_SHARE_ROW(group)                               \
    {                                                     \
        "force-share", "U", NULL, Q2_OPTION_SHARE, group, \
            "read beside a program that has it open"      \
    }
#define Q2_ROW_SHARE Q2_SHARE_ROW("Image")
#define Q2_OUTPUT_ROW(code)                                             \
    {                                                                   \
        "output", "", "FORM", code, "Output", "human (default) or json" \
    }
#define Q2_ROW_OUTPUT Q2_OUTPUT_ROW(Q2_OPTION_OUTPUT)
#define Q2_ROW_OUR_OUTPUT Q2_OUTPUT_ROW(Q2_OPTION_OUTPUT | Q2_OPTION_OURS)
#define Q2_ROW_FORMAT                                    \
    {                                                    \
        "format", "f", "FMT", Q2_OPTION_FORMAT, "Image", \
            "raw or qcow2 (default: probed)"             \
    }
#define Q2_OBJECT_ROW(group)                          \
    {                                                 \
        "object", "", "DEF", Q2_OPTION_OBJECT, group, \
            "secret,id=ID,file=FILE: a passphrase"    \
    }
#define Q2_ROW_OBJECT Q2_OBJECT_ROW("Image")
#define Q2_ROW_IMAGE_OPTS                                                              \
    {                                                                                  \
        "image-opts", "", NULL, Q2_OPTION_IMAGE_OPTS, "Image", "FILE is KEY=VALUE,..." \
    }
#define Q2_ROW_END                      \
    {                                   \
        NULL, NULL, NULL, 0, NULL, NULL \
    }

struct q2_command_line {
    const char *program; // the name it was called by, without folders
    const struct q2_command *command;
    bool alone; // the program's name stands for the command's, too
    int argc;   // of the command: argv[0] is its name
    char **argv;
    void *settings; // the command's own, for its handler
    // Set by q2_options_parse; and what is no option.
    struct q2_common_options common;
    bool bad_object; // what --object said is why it failed
    int n_operands;
    char **operands;
};

// Given one option. Returns 0 or a negative code with err set.
typedef int (*q2_option_handler)(struct q2_command_line *line, int code,
                                 const char *value, struct q2_error *err);

// Goes through the options; handle is given those that are not common to all commands,
// NULL where there are no such. Returns 0; 1 when help was asked for and printed; a
// negative code with err set (its message is empty where getopt has printed it).
int q2_options_parse(struct q2_command_line *line, q2_option_handler handle,
                     struct q2_error *err);

// A message, and the hint where help is to be found. Returns -EINVAL.
int q2_options_misuse(const struct q2_command_line *line, struct q2_error *err,
                      const char *fmt, ...) __attribute__((format(printf, 3, 4)));

// "Expecting one image file name" unless there is exactly one operand.
int q2_options_one_image(const struct q2_command_line *line, struct q2_error *err);

void q2_options_print_help(const struct q2_command_line *line);

// --- common_options.c ----------------------------------------------------------------

// Takes one of the options that all commands share; *taken is false if it is none.
// Returns 1 when it asked for help, which was printed.
int q2_common_take(struct q2_command_line *line, int code, const char *value, bool *taken,
                   struct q2_error *err);

// --- values.c ------------------------------------------------------------------------

// Values. name is what the message calls it: "image size".
int q2_value_size(const char *name, const char *text, uint64_t *value,
                  struct q2_error *err);
int q2_value_size_in(const char *name, const char *text, uint64_t min, uint64_t max,
                     uint64_t *value, struct q2_error *err);
int q2_value_number(const char *name, const char *text, uint64_t min, uint64_t max,
                    uint64_t *value, struct q2_error *err);
// Values of KEY=VALUE, key being the parameter that messages name. text NULL: JSON's
// null.
int q2_value_parameter_size(const char *key, const char *text, uint64_t *value,
                            struct q2_error *err);
int q2_value_parameter_switch(const char *key, const char *text, bool *on,
                              struct q2_error *err);
// An item of a list with commas (malloced), where a doubled comma stands for one; *list
// is moved behind it. NULL: no memory.
char *q2_value_next_item(const char **list);
int q2_value_output(const struct q2_command_line *line, const char *text, bool *json,
                    struct q2_error *err);
// A cache mode's name, into direct, sync_writes and no_flush of options. NULL: the mode
// writeback.
int q2_value_cache(const char *text, bool source, struct q2_file_options *options,
                   struct q2_error *err);

#endif
