// SPDX-License-Identifier: MIT
// Discarding guest ranges: whole clusters are let go of, parts of clusters stay.
#include "image/image.h"

#include "base/checked.h"

int q2_image_discard(struct q2_disk *d, uint64_t guest_offset, uint64_t n_bytes,
                     struct q2_error *err)
{
    struct q2_image *img = q2_image_of(d);
    uint64_t end = guest_offset + n_bytes;
    uint64_t first = q2_align_up(guest_offset, img->cluster_size);
    uint64_t last = end == d->size ? end : q2_align_down(end, img->cluster_size);
    if (first >= last || (img->header.version < 3 && img->header.backing_file))
        return q2_image_refuse_write(img, false, err);
    return q2_image_write_zeroes(d, first, last - first, Q2_ZERO_UNMAP, err);
}
