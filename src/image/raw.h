// SPDX-License-Identifier: MIT
// Raw disks: the file's bytes are the guest's.
#ifndef Q2_IMAGE_RAW_H
#define Q2_IMAGE_RAW_H

#include "image/disk.h"

// A raw disk over io (owned by the result on success). Its size is the file's, rounded up
// to whole sectors.
int q2_raw_open(struct q2_io *io, bool writable, struct q2_disk **out,
                struct q2_error *err);

#endif
