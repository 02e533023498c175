// SPDX-License-Identifier: MIT
// What a command of the program is, and the list of those that there are.
#ifndef Q2_CMD_COMMAND_H
#define Q2_CMD_COMMAND_H

#include <stdbool.h>

#include "base/error.h"

// The version of QEMU whose options and output the program has. Scripts that ask qemu-img
// or qemu-io for a version find it.
#define Q2_QEMU_VERSION "10.2.2"

// One option of one command: getopt's arrays, --help and shell completion come from it.
struct q2_option {
    const char *name;     // long name; NULL ends a table
    const char *letters;  // short forms, the first is the one that help shows; "" if none
    const char *argument; // what help calls its argument; NULL: takes none
    int code;             // what the command's handler is given
    const char *group;    // heading in help
    const char *help;     // NULL: accepted, but not shown
};

struct q2_command_line;

struct q2_command {
    const char *name;
    const char *summary;
    const char *operands; // as the usage line shows them
    const struct q2_option *options;
    const char *examples[2]; // without the program's name
    // Makes or changes images: signals are held back until it has cleaned up.
    bool writes;
    // The exit status when nobody got its output; 0: 1.
    int lost_status;
    // Returns the exit status. Where err has a code, main prints it.
    int (*run)(struct q2_command_line *line, struct q2_error *err);
};

extern const struct q2_command q2_cmd_amend;
extern const struct q2_command q2_cmd_bench;
extern const struct q2_command q2_cmd_bitmap;
extern const struct q2_command q2_cmd_check;
extern const struct q2_command q2_cmd_commit;
extern const struct q2_command q2_cmd_compare;
extern const struct q2_command q2_cmd_convert;
extern const struct q2_command q2_cmd_create;
extern const struct q2_command q2_cmd_dd;
extern const struct q2_command q2_cmd_info;
extern const struct q2_command q2_cmd_io;
extern const struct q2_command q2_cmd_map;
extern const struct q2_command q2_cmd_measure;
extern const struct q2_command q2_cmd_rebase;
extern const struct q2_command q2_cmd_recover;
extern const struct q2_command q2_cmd_resize;
extern const struct q2_command q2_cmd_snapshot;
extern const struct q2_command q2_cmd_vet;

#endif
