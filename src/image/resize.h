// SPDX-License-Identifier: MIT
// What a change of the disk's size needs of the mapping and the file.
#ifndef Q2_IMAGE_RESIZE_H
#define Q2_IMAGE_RESIZE_H

#include "image/image.h"

// Unmaps everything from guest_offset (cluster aligned) on, VM state too, and gives it
// back; commits. Without the lock.
int q2_image_unmap_behind(struct q2_image *img, uint64_t guest_offset,
                          struct q2_error *err);

// Ends the file with the last cluster that has a reference. After a flush; without the
// lock.
int q2_image_cut_file(struct q2_image *img, struct q2_error *err);

#endif
