// SPDX-License-Identifier: MIT
// Changing what an image is rather than what is in it: opened for its metadata alone, its
// header replaced as a whole, its refcounts switched.
#ifndef Q2_IMAGE_METADATA_H
#define Q2_IMAGE_METADATA_H

#include "image/image.h"

// What q2_image_open leaves out for image_only. Guest data can be read and written once
// an encrypted image is unlocked, and an external data file is open.
int q2_image_load_metadata(struct q2_image *img, struct q2_error *err);

// --- replace_header.c, with the lock held ---------------------------------------------

// Could the header be replaced by h? Writes nothing. h is taken for the decoded header of
// the image, with other values; what of it is computed (q2_header_encode) changes.
int q2_image_try_header(struct q2_image *img, struct q2_header *h, struct q2_error *err);

// Replaces the header by h. A power cut leaves the old one or the new one. On success
// img->header is what the file says.
int q2_image_replace_header(struct q2_image *img, struct q2_header *h,
                            struct q2_error *err);

// --- switch_refcounts.c, with the lock held --------------------------------------------

// The one durable write after which the refcount table at offset counts, whose blocks
// have entries of 1 << order bits. What the image keeps in memory of the old one is
// dropped; table (of as many clusters, host-endian) is taken over. Nothing may wait to be
// written.
int q2_image_switch_refcounts(struct q2_image *img, uint64_t offset, uint32_t n_clusters,
                              unsigned order, uint64_t *table, struct q2_error *err);

// One durable write to the header's first sector.
int q2_image_set_compatible(struct q2_image *img, uint64_t bits, struct q2_error *err);

#endif
