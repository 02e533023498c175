// SPDX-License-Identifier: MIT
// Changing what an image is: its version, the width of its refcounts, lazy refcounts, its
// size.
#ifndef Q2_OPS_AMEND_H
#define Q2_OPS_AMEND_H

#include "base/monitor.h"
#include "image/disk.h"

// Only what is set is looked at.
struct q2_amend_options {
    bool set_version, set_size, set_lazy_refcounts, set_refcount_bits, set_data_file,
        set_data_file_raw, set_backing, set_encryption;
    uint32_t version; // 2 or 3
    uint64_t size;
    bool lazy_refcounts;
    uint64_t refcount_bits;
    const char *data_file; // "": none
    bool data_file_raw;
    const char *backing_file, *backing_format; // NULL: not given
};

// d was opened for writing (q2_open_rw); metadata_only will do where size is not set.
// What cannot be done is refused before anything changes (but for a size that the rest of
// the changes has to make possible). The caller ends with q2_disk_finish; after a failure
// d can only be closed. Cancelled, it leaves a sound image, of old or new kind. Messages
// as QEMU words them.
int q2_amend(struct q2_disk *d, const struct q2_amend_options *o,
             const struct q2_monitor *mon, struct q2_error *err);

#endif
