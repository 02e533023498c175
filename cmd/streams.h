// SPDX-License-Identifier: MIT
// What is read or written from its start to its end: "-" as a name (standard input as a
// source, standard output as a target), files of options.
#ifndef Q2_CMD_STREAMS_H
#define Q2_CMD_STREAMS_H

#include <stdio.h>

#include "base/monitor.h"
#include "cmd/options.h"
#include "image/open.h"
#include "io/stream.h"

#define Q2_NO_SPOOL \
    {               \
        .fd = -1    \
    }

bool q2_is_stream(const char *name);

// As q2_open_operand; "-" is standard input, raw unless -f says what it is. What comes
// through a pipe (at most max_bytes of it) is put into spool, which the caller closes,
// also after a failure.
int q2_open_source(const struct q2_command_line *line, const char *text,
                   const struct q2_open_options *options, struct q2_spool *spool,
                   uint64_t max_bytes, const struct q2_monitor *mon, struct q2_disk **out,
                   struct q2_error *err);

// Before anything is made for it: nobody wants an image on a terminal.
int q2_check_output_stream(struct q2_error *err);

// A file to be read whole: fopen, which a signal does not stop.
FILE *q2_streams_open_file(const char *path);

#endif
