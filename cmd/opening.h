// SPDX-License-Identifier: MIT
// Opening disks for commands, where messages differ from those of a plain open.
#ifndef Q2_CMD_OPENING_H
#define Q2_CMD_OPENING_H

#include "image/open.h"

// Opens the file that an image at overlay_path names as its backing file. Its errors
// name the file once.
int q2_open_backing(const char *overlay_path, const char *backing_name,
                    const struct q2_open_options *options, struct q2_disk **out,
                    struct q2_error *err);

// True if a layer of d lies in the file (or on the device) that path names.
bool q2_chain_has_file(const struct q2_disk *d, const char *path);

#endif
