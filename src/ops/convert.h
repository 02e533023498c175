// SPDX-License-Identifier: MIT
// Copying disks: any number of sources, one behind the other, into one target.
#ifndef Q2_OPS_CONVERT_H
#define Q2_OPS_CONVERT_H

#include "base/monitor.h"
#include "image/disk.h"

struct q2_convert_options {
    bool compress;
    int level;           // of compression, see image/codec.h
    bool target_is_zero; // the target reads as zeros already (fresh, or the user says so)
    struct q2_disk *above; // copy only what layers of the source above this one, which is
                           // the target, have allocated; NULL: no such thing
    bool target_has_backing;      // copy only what the sources' top layer has allocated
    uint64_t target_backing_size; // with target_has_backing
    bool salvage;        // unreadable parts of the source become zeros, with a warning
    size_t sparse_grain; // -S in bytes: zero runs shorter than this are written; 0: write
                         // everything
    unsigned n_threads;  // 0: as the processors suggest
    uint64_t rate_limit; // -r, bytes per second; 0: none
    bool copy_range;  // -C: data is copied from file to file where that is possible, and
                      // not searched for zeros
    bool count_first; // progress tells the share of what is to be copied, which takes a
                      // look at the whole mapping before; else of the disk's size
};

// Copies the sources into target, whose size is at least theirs together. Does not flush
// or publish.
int q2_convert(struct q2_disk *const *sources, unsigned n_sources, struct q2_disk *target,
               const struct q2_convert_options *options, const struct q2_monitor *mon,
               struct q2_error *err);

#endif
