// SPDX-License-Identifier: MIT
// The options of check.
#ifndef Q2_CMD_CHECK_OPTIONS_H
#define Q2_CMD_CHECK_OPTIONS_H

#include <jansson.h>

#include "cmd/image_opts.h"
#include "cmd/options.h"
#include "ops/check.h"

// What the command line asked for.
struct q2_check_settings {
    struct q2_check_request request;
    const struct q2_common_options *common;
    const char *undo;
    bool details, chain;
    struct q2_image_name name; // the operand; owned
    const char *shown;         // how the present layer is called
    struct q2_findings found;  // a copy, for --details after a repair
    bool lost;                 // some of them
    struct q2_finding header;  // of one that cannot be used; has is 0: none
    json_t *more;              // further members of the next JSON; NULL: none
    json_t *layers;            // the JSON of the layers so far
};

extern const struct q2_option q2_check_options[];

// Goes through the command line; as q2_options_parse.
int q2_check_options_parse(struct q2_command_line *line, struct q2_check_settings *s,
                           struct q2_error *err);

#endif
