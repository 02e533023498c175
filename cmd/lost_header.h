// SPDX-License-Identifier: MIT
// Saying of a file that looks like an image without its header that recover may help.
#ifndef Q2_CMD_LOST_HEADER_H
#define Q2_CMD_LOST_HEADER_H

#include "base/error.h"
#include "image/disk.h"

// d was opened as raw because nothing else was found: says on stderr what it may be.
void q2_lost_header_note(const struct q2_disk *d, const char *program);
// The file could not be opened, for the reason in err, or is no image: says it in err's
// hint.
void q2_lost_header_hint(const char *path, const char *program, struct q2_error *err);

#endif
