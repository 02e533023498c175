// SPDX-License-Identifier: MIT
// dd, between its command line and its run.
#ifndef Q2_CMD_DD_H
#define Q2_CMD_DD_H

#include "cmd/options.h"
#include "ops/dd.h"

struct q2_dd_settings {
    const char *output_format;
    bool no_create;
    const char *input, *output;
    struct q2_dd_blocks blocks;
    bool isize_given, osize_given;
    uint64_t isize, osize;
};

// Opens, creates, copies, publishes.
int q2_dd_copy(const struct q2_command_line *line, const struct q2_dd_settings *s,
               struct q2_error *err);

#endif
