// SPDX-License-Identifier: MIT
// What may be asked of an open image for one run (--image-opts, json:{}), whatever its
// header says.
#ifndef Q2_IMAGE_RUNTIME_H
#define Q2_IMAGE_RUNTIME_H

#include <stdbool.h>
#include <stdint.h>

#include "base/secret.h"
#include "io/window.h"

enum q2_tristate { Q2_UNSET, Q2_OFF, Q2_ON };

// What a write must not land on; bits of q2_runtime.overlap_check.
enum q2_overlap {
    Q2_OVERLAP_MAIN_HEADER = 1 << 0,
    Q2_OVERLAP_ACTIVE_L1 = 1 << 1,
    Q2_OVERLAP_ACTIVE_L2 = 1 << 2,
    Q2_OVERLAP_REFCOUNT_TABLE = 1 << 3,
    Q2_OVERLAP_REFCOUNT_BLOCK = 1 << 4,
    Q2_OVERLAP_SNAPSHOT_TABLE = 1 << 5,
    Q2_OVERLAP_INACTIVE_L1 = 1 << 6,
    Q2_OVERLAP_INACTIVE_L2 = 1 << 7,
    Q2_OVERLAP_BITMAP_DIRECTORY = 1 << 8,
    Q2_OVERLAP_LUKS_HEADER = 1 << 9, // QEMU does not guard it
    // What the names of overlap-check.template stand for.
    Q2_OVERLAP_NONE = 0,
    Q2_OVERLAP_CONSTANT = Q2_OVERLAP_MAIN_HEADER | Q2_OVERLAP_ACTIVE_L1 |
                          Q2_OVERLAP_REFCOUNT_TABLE | Q2_OVERLAP_SNAPSHOT_TABLE |
                          Q2_OVERLAP_BITMAP_DIRECTORY | Q2_OVERLAP_LUKS_HEADER,
    Q2_OVERLAP_CACHED = Q2_OVERLAP_CONSTANT | Q2_OVERLAP_ACTIVE_L2 |
                        Q2_OVERLAP_REFCOUNT_BLOCK | Q2_OVERLAP_INACTIVE_L1,
    Q2_OVERLAP_ALL = Q2_OVERLAP_CACHED | Q2_OVERLAP_INACTIVE_L2,
};

struct q2_runtime {
    enum q2_tristate lazy_refcounts; // unset: as the header says
    // Whether the space of clusters that become free is punched out of the file: by a
    // discard (unset: when discard_unmap), by deleting a snapshot (unset: yes), by
    // anything else (unset: no).
    enum q2_tristate pass_discard_request, pass_discard_snapshot, pass_discard_other;
    bool discard_no_unref; // discarded clusters stay allocated behind zero clusters
    bool discard_unmap; // discard=unmap: discards reach the file; else they are ignored
                        // by raw files, and free clusters of qcow2 all the same
    bool detect_zeroes, detect_zeroes_unmap; // detect-zeroes=on|unmap
    bool overlap_check_set;                  // else Q2_OVERLAP_CACHED
    unsigned overlap_check;
    // Bounds of the metadata caches in bytes; 0: the defaults.
    uint64_t l2_cache_size, refcount_cache_size, cache_size;
    struct q2_windows windows; // the image is a part of the file
    enum q2_locking locking;
    const char *data_file; // in place of the data file that the header names; NULL: not
    enum q2_locking data_file_locking;
    bool backing_off; // backing=null: the image is opened without its backing file
    // What unlocks an encrypted image; not owned. Looked at where guest data are needed.
    const struct q2_secrets *secrets;
    const char *encrypt_format;     // "luks", "aes": the header must agree; NULL: any
    const char *encrypt_key_secret; // the id of the passphrase; NULL: not given
};

#endif
