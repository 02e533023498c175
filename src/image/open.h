// SPDX-License-Identifier: MIT
// Opening a disk by name: format by name or by probing, with its backing chain or
// without.
#ifndef Q2_IMAGE_OPEN_H
#define Q2_IMAGE_OPEN_H

#include "image/disk.h"
#include "image/path.h"
#include "image/runtime.h"
#include "io/file.h"

// The longest backing chain that is followed.
#define Q2_MAX_CHAIN 200U

struct q2_open_options {
    const char *format; // "raw", "qcow2"; NULL: probe
    bool writable;
    bool no_backing; // do not open the backing file (info, map of one layer)
    bool image_only; // description only: guest data cannot be read; no feature is refused
                     // for data access
    bool metadata_only;   // metadata can be changed, guest data neither read nor written:
                          // no feature is refused for that; no backing file is opened,
                          // and an encrypted image needs no key
    bool need_key;        // with metadata_only: the key is asked for all the same
    bool no_key;          // guest data will not be read: encrypted layers stay locked
    bool unsafe_share;    // -U
    bool beside_writer;   // a raw disk is read although somebody may write to it, as QEMU
                          // does it
    const char *snapshot; // read this internal snapshot (name, id, or
                          // "snapshot.id=..,snapshot.name=..") in place of the active
                          // state; NULL: active
    // Called for a dirty image that is to be written, with its file, under its lock; then
    // it is opened once more. NULL: a dirty image is refused with -EUCLEAN. Counts for
    // the top layer.
    int (*clean)(void *opaque, struct q2_io *io, struct q2_error *err);
    void *opaque;
    const struct q2_runtime *runtime; // NULL: the defaults; counts for the top layer
    struct q2_file_options file; // direct, sync_writes, no_flush, sequential; the rest is
                                 // set by open
};

// Errors are worded as qemu-img does: "Could not open 'x': ...".
int q2_disk_open(const char *path, const struct q2_open_options *options,
                 struct q2_disk **out, struct q2_error *err);

// Opens the backing files of top, of which none is open yet, down to the last. o says how
// (unsafe_share and file of it count). The caller closes top when it fails.
int q2_disk_open_chain(struct q2_disk *top, const struct q2_open_options *o,
                       struct q2_error *err);

#endif
