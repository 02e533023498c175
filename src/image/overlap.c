// SPDX-License-Identifier: MIT
// Writes that would hit the image's skeleton. Entries and refcounts that lead there are
// wrong, and to believe them would be to overwrite what the whole image hangs on.
#include "image/overlap.h"

#include <errno.h>
#include <inttypes.h>

const char *q2_overlap_find(const struct q2_image *img, uint64_t start, uint64_t end)
{
    const struct {
        const char *name;
        uint64_t offset, n_bytes;
    } parts[] = {
        {"the header", 0, img->cluster_size},
        {"the active L1 table", img->header.l1_table_offset,
         (uint64_t)img->header.l1_size * 8},
        {"the refcount table", img->header.refcount_table_offset,
         (uint64_t)img->header.refcount_table_clusters << img->cluster_bits},
        {"the snapshot table", img->header.snapshots_offset, img->header.nb_snapshots},
    };
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        if (parts[i].n_bytes > 0 && parts[i].offset < end &&
            start < parts[i].offset + parts[i].n_bytes)
            return parts[i].name;
    }
    return NULL;
}

int q2_overlap_refuse(const struct q2_image *img, uint64_t host_offset, uint64_t n_bytes,
                      const char *what, struct q2_error *err)
{
    const char *found = q2_overlap_find(img, host_offset, host_offset + n_bytes);
    if (!found)
        return 0;
    return q2_fail(err, -EIO,
                   "'%s': %s at host offset 0x%" PRIx64
                   " would be written over %s; the image must be repaired first",
                   img->disk.path, what, host_offset, found);
}
