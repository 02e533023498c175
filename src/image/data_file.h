// SPDX-License-Identifier: MIT
// The external data file of an image: guest clusters lie in it at their guest offsets,
// the image keeps the metadata alone (qcow2 format: "Incompatible features", bit 2).
#ifndef Q2_IMAGE_DATA_FILE_H
#define Q2_IMAGE_DATA_FILE_H

#include "image/image.h"
#include "io/file.h"

// Opens the data file of img, which has one: given, or (NULL) what the header names; a
// relative name is relative to the working directory, as for QEMU.
int q2_data_file_open(struct q2_image *img, const char *given,
                      const struct q2_file_options *options, struct q2_error *err);

// Makes the data file that the header of the new image img names, as long as its disk;
// what is in a file that is there is lost. q2_data_file_abandon takes that back.
int q2_data_file_create(struct q2_image *img, const struct q2_file_options *options,
                        struct q2_error *err);
void q2_data_file_abandon(struct q2_image *img);

// The data file, if there is one, becomes as long as that; a device has to be.
int q2_data_file_set_size(struct q2_image *img, uint64_t size, struct q2_error *err);
// It becomes no longer than that; a device stays.
int q2_data_file_cut(struct q2_image *img, uint64_t size, struct q2_error *err);

// Makes what was written to it durable. An image without one: nothing to do.
int q2_data_file_flush(struct q2_image *img, struct q2_error *err);

// The guest range becomes zeros in a raw data file, and the mapping stays: the guest and
// who reads the file without the mapping see the same, even when the power goes.
int q2_data_file_zero(struct q2_image *img, uint64_t guest_offset, uint64_t n_bytes,
                      bool unmap, struct q2_error *err);
// The guest range (or what of it is in the data file) is of no use any more: where
// discards for that reason are passed on, its space is given back. Without a data file:
// nothing to do.
void q2_data_file_discard(struct q2_image *img, uint64_t guest_offset, uint64_t n_bytes,
                          enum q2_free_reason why);

// Must the data file read as the guest's disk does? (An encrypted one cannot, whatever
// the header says.)
static inline bool q2_data_file_is_raw(const struct q2_image *img)
{
    return q2_image_has_data_file(img) && !q2_image_is_encrypted(img) &&
           (img->header.autoclear_features & Q2_AUTOCLEAR_DATA_FILE_RAW);
}

#endif
