// SPDX-License-Identifier: MIT
// Progress of a long operation, and its warnings, as the user sees them.
#ifndef Q2_CMD_PROGRESS_H
#define Q2_CMD_PROGRESS_H

#include <stdbool.h>

#include "base/monitor.h"
#include "cmd/options.h"

struct q2_progress {
    struct q2_monitor monitor; // for the library
    const char *program;
    bool shown;
    bool quiet;  // no warnings
    double step; // percent between two lines
    double shown_percent;
};

// shown: the time has come for what -p asks for; prints 0 % if it was given.
void q2_progress_start(struct q2_progress *p, const struct q2_command_line *line,
                       bool shown, double step);

// Prints 100 % after a success, and ends the line.
void q2_progress_end(struct q2_progress *p, bool success);

#endif
