// SPDX-License-Identifier: MIT
// Where the image's metadata lies, and what happens when a write is about to hit it: the
// entry or refcount that led there is wrong, so the image is marked as corrupt and not
// written any more. All with the lock held.
#ifndef Q2_IMAGE_OVERLAP_H
#define Q2_IMAGE_OVERLAP_H

#include "image/image.h"

// Refuses a write of n_bytes at host_offset (-EIO) if metadata lies there of a kind that
// the image is to be guarded for (img->overlap_check); kinds in ignore may be hit.
int q2_overlap_check(struct q2_image *img, unsigned ignore, uint64_t host_offset,
                     uint64_t n_bytes, struct q2_error *err);

// True as well where it cannot be told.
bool q2_overlap_any(struct q2_image *img, uint64_t host_offset, uint64_t n_bytes);

// Something that an entry or a refcount says cannot be true: says so (once), and fails
// (-EIO). An image that is open for writing is marked as corrupt, and that was the last
// that was written to it.
int q2_overlap_corrupt(struct q2_image *img, struct q2_error *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

// A table of this kind now lies at host_offset, or no longer does.
int q2_overlap_add(struct q2_image *img, enum q2_overlap kind, uint64_t host_offset,
                   struct q2_error *err);
void q2_overlap_remove(struct q2_image *img, enum q2_overlap kind, uint64_t host_offset);

// Drops what is known; the next check looks it up again (snapshots have come or gone).
void q2_overlap_forget(struct q2_image *img);

#endif
