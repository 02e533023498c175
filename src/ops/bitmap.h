// SPDX-License-Identifier: MIT
// Persistent bitmaps, as the user changes them, and as they go with a disk that is
// copied.
#ifndef Q2_OPS_BITMAP_H
#define Q2_OPS_BITMAP_H

#include "base/monitor.h"
#include "image/disk.h"

enum q2_bitmap_act {
    Q2_BITMAP_ADD,
    Q2_BITMAP_REMOVE,
    Q2_BITMAP_CLEAR,
    Q2_BITMAP_ENABLE,
    Q2_BITMAP_DISABLE,
    Q2_BITMAP_MERGE,
};

struct q2_bitmap_action {
    enum q2_bitmap_act act;
    const char *source; // merge: name of the bitmap whose bits are added
};

struct q2_bitmap_request {
    const char *name;       // of the bitmap that all actions are about
    uint64_t granularity;   // of one that is added; 0: as the cluster size, 4k to 64k
    struct q2_disk *source; // that merges take from; NULL: the same disk
    const struct q2_bitmap_action *actions;
    unsigned n_actions;
};

// Does the actions in order and stores the result. One that fails ends it; what the ones
// before it did stays.
int q2_bitmap_change(struct q2_disk *d, const struct q2_bitmap_request *request,
                     struct q2_error *err);

// Can the disk's format hold bitmaps?
bool q2_bitmap_supported(const struct q2_disk *d);

// Could all bitmaps of the disk (not of its backing files) be copied? skip_broken:
// inconsistent ones are left out, and mon is warned of each.
int q2_bitmap_check_copy(struct q2_disk *source, bool skip_broken,
                         const struct q2_monitor *mon, struct q2_error *err);
// Has the target room for those that are not inconsistent? Names must be new to it, and
// it must be of the same size. Both were opened by us alone.
int q2_bitmap_check_target(struct q2_disk *source, struct q2_disk *target,
                           struct q2_error *err);
// Copies them, in order, and stores them, after these checks. The target may be an image
// that is not published yet.
int q2_bitmap_copy(struct q2_disk *source, struct q2_disk *target, struct q2_error *err);

// Host bytes that copies of all bitmaps take at most in an image of this cluster size:
// bits, tables and directory. 0 for a disk without bitmaps.
int q2_bitmap_measure(struct q2_disk *d, uint64_t cluster_size, uint64_t *n_bytes,
                      struct q2_error *err);

#endif
