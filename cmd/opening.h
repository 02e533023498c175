// SPDX-License-Identifier: MIT
// Opening disks for commands, where messages differ from those of a plain open.
#ifndef Q2_CMD_OPENING_H
#define Q2_CMD_OPENING_H

#include "base/monitor.h"
#include "cmd/image_opts.h"
#include "image/open.h"

// Opens what the command line names; of its -f, options->format. options->writable: as
// q2_open_rw does it, with monitor. Errors as of q2_disk_open.
int q2_open_named(const char *text, bool image_opts,
                  const struct q2_open_options *options, const struct q2_monitor *monitor,
                  struct q2_disk **out, struct q2_error *err);

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

// True if a layer of d lies in the file (or on the device) that path names.
bool q2_chain_has_file(const struct q2_disk *d, const char *path);

#endif
