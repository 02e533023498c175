// SPDX-License-Identifier: MIT
// Changing what an image is: its version, the width of its refcounts, lazy refcounts, its
// size.
#ifndef Q2_OPS_AMEND_H
#define Q2_OPS_AMEND_H

#include "base/monitor.h"
#include "base/secret.h"
#include "image/disk.h"

// The key slots of a LUKS image.
struct q2_amend_keys {
    const struct q2_secrets *secrets;
    const char *state; // "active": new_secret is put into a slot; "inactive": slots are
                       // erased; NULL: not given
    const char *new_secret; // ids in secrets; NULL: not given
    const char *old_secret;
    bool set_keyslot, set_iter_time, force;
    int64_t keyslot;
    uint64_t iter_time; // milliseconds
};

// Only what is set is looked at.
struct q2_amend_options {
    bool set_version, set_size, set_lazy_refcounts, set_refcount_bits, set_data_file,
        set_data_file_raw, set_backing;
    uint32_t version; // 2 or 3
    uint64_t size;
    bool lazy_refcounts;
    uint64_t refcount_bits;
    const char *data_file; // "": none
    bool data_file_raw;
    const char *backing_file, *backing_format; // NULL: not given
    const struct q2_amend_keys *keys; // NULL: none; else d was opened with need_key
};

// d was opened for writing (q2_open_rw); metadata_only will do where size is not set.
// What cannot be done is refused before anything changes. The caller ends with
// q2_disk_finish; after a failure d can only be closed. Cancelled, it leaves a sound
// image, of old or new kind. Messages as QEMU words them.
int q2_amend(struct q2_disk *d, const struct q2_amend_options *o,
             const struct q2_monitor *mon, struct q2_error *err);

#endif
