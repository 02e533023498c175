// SPDX-License-Identifier: MIT
// Names of files, as users and images write them: plain paths, perhaps with "file:"
// before.
#ifndef Q2_IMAGE_PATH_H
#define Q2_IMAGE_PATH_H

#include "base/error.h"

// Strips "file:"; "json:" and other protocols are refused (-EINVAL). *out is a part of
// name.
int q2_path_plain(const char *name, const char **out, struct q2_error *err);

// The backing file's name of an overlay as a path from here: relative names are relative
// to the overlay's directory. Refuses as q2_path_plain does. *out is malloced.
int q2_backing_path(const char *overlay_path, const char *backing_name, char **out,
                    struct q2_error *err);

#endif
