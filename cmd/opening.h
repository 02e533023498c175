// SPDX-License-Identifier: MIT
// Opening disks for commands, where messages differ from those of a plain open.
#ifndef Q2_CMD_OPENING_H
#define Q2_CMD_OPENING_H

#include "base/monitor.h"
#include "cmd/image_opts.h"
#include "cmd/options.h"
#include "image/open.h"

// What the command line names; format is -f's. The caller clears name, also after a
// failure.
int q2_named_parse(const char *text, bool image_opts, const char *format,
                   struct q2_image_name *name, struct q2_error *err);
// An error that begins with "Could not open PATH", or with neither that nor a name: says
// instead what the command line had. For a plain path that is the same.
int q2_named_context(const struct q2_image_name *name, const char *text,
                     struct q2_error *err);

// The path of an image that is to be made.
int q2_new_path(const char *text, const char **path, struct q2_error *err);

// Opens what the command line names; of its -f, options->format. options->writable: as
// q2_open_rw does it, with monitor. Errors as of q2_disk_open.
int q2_open_named(const char *text, bool image_opts,
                  const struct q2_open_options *options, const struct q2_monitor *monitor,
                  struct q2_disk **out, struct q2_error *err);

// The same for a word of the command line, with what its options say: -f, --image-opts,
// -U. (options has neither.)
int q2_open_operand(const struct q2_command_line *line, const char *text,
                    const struct q2_open_options *options,
                    const struct q2_monitor *monitor, struct q2_disk **out,
                    struct q2_error *err);

// The same; what the word means is the caller's to clear, also after a failure.
int q2_open_operand_name(const struct q2_command_line *line, const char *text,
                         const struct q2_open_options *options,
                         const struct q2_monitor *monitor, struct q2_image_name *name,
                         struct q2_disk **out, struct q2_error *err);
// Opens a layer below top, which name names, in another way, with what the name says of
// it. In its place in the chain is the new one then; the old one is closed, also after a
// failure.
int q2_reopen_layer(const struct q2_image_name *name, struct q2_disk *top,
                    struct q2_disk *layer, const struct q2_open_options *options,
                    const struct q2_monitor *monitor, struct q2_disk **out,
                    struct q2_error *err);

// The same for a name that was parsed; its errors do not begin with "Could not open".
int q2_open_image_name(const struct q2_image_name *name,
                       const struct q2_open_options *options,
                       const struct q2_monitor *monitor, struct q2_disk **out,
                       struct q2_error *err);

// Opens the file that an image at overlay_path names as its backing file. Its errors
// name the file once.
int q2_open_backing(const char *overlay_path, const char *backing_name,
                    const struct q2_open_options *options, struct q2_disk **out,
                    struct q2_error *err);

// To be said of a disk that is open for writing: its format may be a guess.
void q2_warn_of_probing(const struct q2_disk *d);

#endif
