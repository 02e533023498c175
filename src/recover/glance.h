// SPDX-License-Identifier: MIT
// A short look at a file that cannot be opened as an image: is it one whose header is
// lost?
#ifndef Q2_RECOVER_GLANCE_H
#define Q2_RECOVER_GLANCE_H

#include "io/io.h"

// *lost: the header is none, and tables lie where they do in most images. Reads a few
// hundred KiB at most, and says no when in doubt.
int q2_recover_glance(struct q2_io *io, bool *lost, struct q2_error *err);

#endif
