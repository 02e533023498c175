// SPDX-License-Identifier: MIT
// io: a write, between its command line and its disk.
#ifndef Q2_CMD_IO_WRITE_H
#define Q2_CMD_IO_WRITE_H

#include "cmd/io.h"

struct q2_shell_writing {
    struct q2_shell_report report;
    bool vm_state, compressed, zeroes, unmap, no_fallback, durable, aio;
    bool has_pattern;
    uint8_t pattern;
    const char *source; // a file that fills the buffer, again and again
};

// Writes what is asked for; buf has its bytes, NULL for zeros.
int q2_shell_put(struct q2_shell *shell, const struct q2_shell_writing *r,
                 const uint8_t *buf, struct q2_error *err);

#endif
