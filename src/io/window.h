// SPDX-License-Identifier: MIT
// A part of a file as if it were the whole: a disk inside of a bigger file.
#ifndef Q2_IO_WINDOW_H
#define Q2_IO_WINDOW_H

#include "io/file.h"

// What lies beside the window is neither read nor written.
struct q2_window {
    uint64_t start;
    bool has_size; // else it goes on to the end of the file, and grows with it
    uint64_t size;
    const char *name; // for messages, in place of the file's; NULL: none; not owned
};

// Windows over a file: the first over the file, each other one over the one before.
#define Q2_MAX_WINDOWS 8U
struct q2_windows {
    unsigned n;
    struct q2_window list[Q2_MAX_WINDOWS];
};

// Opens the file, and what lies over it (NULL: nothing).
int q2_window_open_file(const char *path, const struct q2_file_options *options,
                        const struct q2_windows *windows, struct q2_io **out,
                        struct q2_error *err);

// Puts the window over io, which belongs to the result on success. It must lie inside of
// the file.
int q2_window_open(struct q2_io *io, const struct q2_window *window, struct q2_io **out,
                   struct q2_error *err);

// What a window lies over; NULL if io is no window.
struct q2_io *q2_window_below(const struct q2_io *io);
// The file below all windows; *start: where the first byte of io is in it.
struct q2_io *q2_window_file(struct q2_io *io, uint64_t *start);

#endif
