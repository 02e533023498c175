// SPDX-License-Identifier: MIT
// convert, between its command line and its run.
#ifndef Q2_CMD_CONVERT_H
#define Q2_CMD_CONVERT_H

#include "cmd/create_options.h"
#include "cmd/options.h"
#include "cmd/streams.h"
#include "image/disk.h"
#include "io/file.h"
#include "ops/convert.h"

struct q2_convert_settings {
    const struct q2_common_options *common;
    const char *snapshot;
    const char *target_format; // NULL: not given
    const char *backing_file;
    const char *backing_format;
    const char *level; // of compression; -o may say it, too
    char *lists;       // of -o; owned
    bool no_create, sparse_given;
    bool bitmaps, skip_broken_bitmaps;
    bool target_image_opts; // how the name is to be read
    struct q2_convert_options copy;
    struct q2_file_options source_file, target_file; // cache modes, once they are parsed
};

// A run.
struct q2_conversion {
    struct q2_convert_settings *settings;
    const char *target_name; // as it was given; "-": standard output
    const char *target_path; // where it is made
    bool to_stream;
    struct q2_spool in, out; // for standard input and output
    struct q2_disk **sources;
    unsigned n_sources;
    uint64_t size; // of all sources together
    struct q2_new_image image;
    struct q2_disk *backing; // of the target, until the target owns it
    struct q2_disk *target;
    bool made;
};

// Is everything that was asked of a new target in order? Opens nothing.
int q2_convert_check_new(struct q2_conversion *c, struct q2_create_options *options,
                         struct q2_error *err);

// The sources are open. Checks what was asked of the target and makes or opens it.
int q2_convert_prepare_new(struct q2_conversion *c, const struct q2_monitor *mon,
                           struct q2_error *err);
int q2_convert_prepare_existing(struct q2_conversion *c, const struct q2_monitor *mon,
                                struct q2_error *err);

// Opens, creates, copies, publishes. Returns 0 or a negative code with err set.
int q2_convert_images(const struct q2_command_line *line, struct q2_convert_settings *s,
                      struct q2_error *err);

#endif
