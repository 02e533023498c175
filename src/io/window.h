// SPDX-License-Identifier: MIT
// A part of a file as if it were the whole: a disk inside of a bigger file.
#ifndef Q2_IO_WINDOW_H
#define Q2_IO_WINDOW_H

#include "io/io.h"

// What lies beside the window is neither read nor written.
struct q2_window {
    uint64_t start;
    bool has_size; // else it goes on to the end of the file, and grows with it
    uint64_t size;
};

// Puts the window over io, which belongs to the result on success. It must lie inside of
// the file.
int q2_window_open(struct q2_io *io, const struct q2_window *window, struct q2_io **out,
                   struct q2_error *err);

// Takes the window away and leaves the file open.
void q2_window_drop(struct q2_io *window);

// Where its first byte is in the file; 0 if io is no window.
uint64_t q2_window_start(const struct q2_io *io);

#endif
