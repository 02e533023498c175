// SPDX-License-Identifier: MIT
// Making new images.
#ifndef Q2_OPS_CREATE_H
#define Q2_OPS_CREATE_H

#include "base/monitor.h"
#include "disk/header.h"
#include "image/crypt.h"
#include "image/disk.h"
#include "io/file.h"

enum q2_preallocation {
    Q2_PREALLOC_OFF,
    Q2_PREALLOC_METADATA,
    Q2_PREALLOC_FALLOC,
    Q2_PREALLOC_FULL,
};

struct q2_create_options {
    const char *format; // "qcow2" or "raw"
    uint64_t size;
    uint32_t version;       // 2 or 3
    uint64_t cluster_size;  // validated by create
    uint64_t refcount_bits; // validated by create
    bool lazy_refcounts;
    bool extended_l2;
    bool nocow; // FS_NOCOW_FL on the new file, where the file system knows it
    enum q2_compression compression;
    enum q2_preallocation preallocation;
    const char *backing_file;               // NULL: none. Stored as it is
    const char *backing_format;             // NULL: not stored
    const char *data_file;                  // guest data go there; NULL: into the image
    bool data_file_raw;                     // it is to be read as a raw image, too
    const struct q2_crypt_options *encrypt; // NULL: not encrypted
};

#define Q2_CREATE_DEFAULTS                                                           \
    {                                                                                \
        .format = "qcow2", .version = 3, .cluster_size = 65536, .refcount_bits = 16, \
    }

// Checks everything that can be checked without touching the target. Messages as in QEMU.
int q2_create_validate(const struct q2_create_options *options, struct q2_error *err);

// Of that what cluster size and refcount width alone tell (qcow2).
int q2_create_validate_numbers(const struct q2_create_options *o, struct q2_error *err);

// A new image at path, open for writing. With hold_magic a qcow2 image's header is not
// written until q2_create_publish: an image cut short is no image. On failure nothing
// that was made stays. file_options: cache mode of the target.
int q2_create_open(const char *path, const struct q2_create_options *options,
                   const struct q2_file_options *file_options,
                   const struct q2_monitor *mon, struct q2_disk **out, bool *made,
                   struct q2_error *err);

// The same in a file that is open for writing, new and empty; the disk's on success. What
// goes beside it (an external data file) is opened with file_options.
int q2_create_in(struct q2_io *io, const struct q2_create_options *options,
                 const struct q2_file_options *file_options, const struct q2_monitor *mon,
                 struct q2_disk **out, struct q2_error *err);

// Flushes everything, then writes the header: from here on it is an image.
int q2_create_publish(struct q2_disk *d, struct q2_error *err);

// Gives up: closes d and removes what create made.
void q2_create_abandon(struct q2_disk *d, bool made);

// create, publish, close.
int q2_create(const char *path, const struct q2_create_options *options,
              const struct q2_monitor *mon, struct q2_error *err);

#endif
