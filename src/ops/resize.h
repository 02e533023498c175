// SPDX-License-Identifier: MIT
// Changing the size of a disk.
#ifndef Q2_OPS_RESIZE_H
#define Q2_OPS_RESIZE_H

#include "ops/create.h"

struct q2_image;

// d is open for writing; mode says how what is new is backed (growing only). What is new
// reads as zeros, whatever a longer backing file holds there; what is cut off is given
// back. Refused before anything changes, or done; after a failure on the way, and after a
// power cut, the disk has its old size or the new one.
int q2_resize(struct q2_disk *d, uint64_t size, enum q2_preallocation mode,
              const struct q2_monitor *mon, struct q2_error *err);

// With the lock held, and nothing changes: could the disk get this size without
// preallocation, if the image was of this version?
int q2_resize_try(const struct q2_image *img, uint64_t size, uint32_t version,
                  struct q2_error *err);

// Without preallocation.
int q2_disk_resize(struct q2_disk *d, uint64_t size, struct q2_error *err);

#endif
