// SPDX-License-Identifier: MIT
// The undo file of a repair: what stood in the image before, and what stands there after.
#ifndef Q2_CHECK_UNDO_H
#define Q2_CHECK_UNDO_H

#include "io/io.h"

// Writes a new file at path (it must not be there) with all that the log of overlay is
// going to change in image, and makes it durable.
int q2_undo_save(const char *path, struct q2_io *image, struct q2_io *overlay,
                 struct q2_error *err);

// Takes the repair back. Refuses an image whose changed parts hold neither what stood
// there before nor what the repair wrote (it is another image, or it was changed since);
// may be done again after it was cut short.
int q2_undo_restore(const char *path, struct q2_io *image, struct q2_error *err);

#endif
