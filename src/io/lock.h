// SPDX-License-Identifier: MIT
// QEMU's image locks on an open file.
#ifndef Q2_IO_LOCK_H
#define Q2_IO_LOCK_H

#include "base/error.h"
#include "io/file.h"

// Takes the locks of mode on descriptor fd (open for reading at least); they last until
// its file is closed. On a conflict (-EAGAIN) nothing stays locked. A file system without
// such locks is an error only with Q2_LOCKING_ON. name is for messages.
int q2_lock_take(int fd, enum q2_lock_mode mode, enum q2_locking locking,
                 const char *name, struct q2_error *err);

#endif
