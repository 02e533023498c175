// SPDX-License-Identifier: MIT
// Switches of the header that change what the image is: its size, its active L1 table,
// its list of snapshots. Each is one durable write within the header's first sector, and
// changes img->header when the file says so. With the lock held.
#ifndef Q2_IMAGE_UPDATE_H
#define Q2_IMAGE_UPDATE_H

#include "image/image.h"

int q2_image_switch_size(struct q2_image *img, uint64_t size, struct q2_error *err);
int q2_image_switch_snapshots(struct q2_image *img, uint32_t n, uint64_t offset,
                              struct q2_error *err);
// Another active state: its size and its L1 table at once.
int q2_image_switch_active(struct q2_image *img, uint64_t size, uint64_t l1_offset,
                           uint32_t n_entries, struct q2_error *err);

#endif
