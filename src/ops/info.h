// SPDX-License-Identifier: MIT
// What an image says of itself, without reading guest data and without opening another
// file.
#ifndef Q2_OPS_INFO_H
#define Q2_OPS_INFO_H

#include "disk/bitmap.h"
#include "disk/header.h"
#include "disk/luks.h"
#include "disk/snapshot.h"
#include "image/bitmaps.h"
#include "image/disk.h"
#include "image/runtime.h"

struct q2_info {
    char *filename;
    char *title; // what the image is called where its file's name does not do; owned,
                 // NULL unless the caller sets it
    const char *format; // "qcow2", "raw"
    uint64_t virtual_size;
    uint64_t disk_usage;  // of the file itself
    uint64_t file_length; // of the file itself
    // The parts of the file that lie below the image, the one above the file first.
    unsigned n_parts;
    struct {
        uint64_t size;
        char *title; // owned; set by the caller
    } parts[Q2_MAX_WINDOWS];
    // The rest: qcow2 only.
    bool is_qcow2;
    struct q2_header header;     // a copy; backing_file, backing_format, data_file in it
    char *full_backing_filename; // as a path from here; NULL if none
    // There can be more of them than memory: the image stays open, and they are read
    // again when they are printed.
    struct q2_disk *disk; // owned
    unsigned n_snapshots;
    unsigned n_bitmaps;
    bool has_luks;
    struct q2_luks_header luks;
};

// Opens path (format NULL: probed) for its description only and reads it. shared is -U.
// runtime: what is said of it, NULL: nothing.
int q2_info_read(const char *path, const char *format, bool shared,
                 const struct q2_runtime *runtime, struct q2_info *out,
                 struct q2_error *err);
// The same of a disk that is open, for its description at least. On success it belongs to
// *out.
int q2_info_of(struct q2_disk *d, struct q2_info *out, struct q2_error *err);
void q2_info_clear(struct q2_info *info);

// What they take is good until they return.
int q2_info_each_snapshot(const struct q2_info *info, q2_take_snapshot *take,
                          void *opaque, struct q2_error *err);
int q2_info_each_bitmap(const struct q2_info *info, q2_take_bitmap *take, void *opaque,
                        struct q2_error *err);

#endif
