// SPDX-License-Identifier: MIT
// The undo file of a repair: what stood in the image before, and what stands there after.
#ifndef Q2_CHECK_UNDO_H
#define Q2_CHECK_UNDO_H

#include "io/io.h"

// Writes a new file at path (it must not be there) with all that the log of overlay is
// going to change in image, and makes it durable.
int q2_undo_save(const char *path, struct q2_io *image, struct q2_io *overlay,
                 struct q2_error *err);
// The same into a file that is open, and empty.
int q2_undo_write(struct q2_io *file, struct q2_io *image, struct q2_io *overlay,
                  struct q2_error *err);

// Takes the repair back. Refuses, and writes nothing: a file that is damaged; an image
// whose changed parts hold neither what stood there before nor what the repair wrote, or
// whose end holds what the repair did not put there (it is another image, or it was
// changed since); and -EALREADY, an image that is what it was before. May be done again
// after it was cut short.
int q2_undo_restore(const char *path, struct q2_io *image, struct q2_error *err);
// The same from a file that is open.
int q2_undo_read(struct q2_io *file, struct q2_io *image, struct q2_error *err);

// --- the file
// -----------------------------------------------------------------------------
//
// Big-endian:
//   header   magic (8), version (4), 0 (4), size of the image before (8), after (8),
//            number of records (8)
//   record   offset (8), bytes (4), number of steps (4), old content, new content, steps
//   step     where in the record (2), bytes (2), content
//   trailer  CRC-32 of all before it (4)
// Records are whole sectors of the image, ascending, neighbours joined. One that the
// repair writes more than once is a record of its own, and each write to it a step: a
// power cut may leave any of them.
#define Q2_UNDO_MAGIC "Q2UNDO\r\n"
#define Q2_UNDO_VERSION 2U
#define Q2_UNDO_HEADER_BYTES 40U
#define Q2_UNDO_RECORD_BYTES 16U
#define Q2_UNDO_STEP_BYTES 4U
#define Q2_UNDO_TRAILER_BYTES 4U
#define Q2_UNDO_SECTOR 512U
#define Q2_UNDO_MAX_RECORD_BYTES (UINT32_C(1) << 20)

#endif
