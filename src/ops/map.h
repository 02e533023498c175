// SPDX-License-Identifier: MIT
// Where the guest's bytes are: the allocation map through the backing chain, neighbouring
// alike ranges merged.
#ifndef Q2_OPS_MAP_H
#define Q2_OPS_MAP_H

#include "base/monitor.h"
#include "image/disk.h"

struct q2_map_entry {
    uint64_t start, n_bytes;
    unsigned depth;
    bool present; // some layer has it allocated
    bool zero, data, compressed;
    bool has_offset;
    uint64_t offset;
    const char *filename; // of the file the offset is in; NULL without has_offset
};

// Calls emit for each merged range of start .. start+n_bytes (cut at the disk's end), in
// order; stops when emit returns non-zero and returns that.
int q2_map(struct q2_disk *d, uint64_t start, uint64_t n_bytes,
           const struct q2_monitor *mon,
           int (*emit)(void *opaque, const struct q2_map_entry *entry,
                       struct q2_error *err),
           void *opaque, struct q2_error *err);

#endif
