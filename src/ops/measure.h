// SPDX-License-Identifier: MIT
// How large the file of an image would become, told before it is made.
#ifndef Q2_OPS_MEASURE_H
#define Q2_OPS_MEASURE_H

#include "base/monitor.h"
#include "ops/create.h"

struct q2_measurement {
    uint64_t required;        // bytes of the file after create or convert
    uint64_t fully_allocated; // once every guest cluster has been written
    bool has_bitmaps;         // source and new image can both hold bitmaps
    uint64_t bitmaps;         // bytes that copying those of the source takes on top
};

// For a new image as o describes it, empty (source NULL), or filled from source, whose
// size then counts. The numbers are QEMU's: all metadata of the full image is counted
// from the start.
int q2_measure(const struct q2_create_options *o, struct q2_disk *source,
               const struct q2_monitor *mon, struct q2_measurement *out,
               struct q2_error *err);

#endif
