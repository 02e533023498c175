// SPDX-License-Identifier: MIT
// Checking and repairing one image file.
#ifndef Q2_OPS_CHECK_H
#define Q2_OPS_CHECK_H

#include "base/monitor.h"
#include "check/repair.h"
#include "image/runtime.h"
#include "ops/check_edits.h"

struct q2_check_request {
    const char *path;
    // How its file and its data file are opened; NULL: as ever. The rest of it is of no
    // use.
    const struct q2_runtime *runtime;
    const char *format; // NULL: probed
    bool shared;        // -U
    bool read_data;     // read every data cluster, inflate every compressed one
    bool repair;
    enum q2_repair_mode mode;
    uint64_t clear_features; // unknown incompatible feature bits to clear
    bool dry_run;            // plan only; the file is opened for reading
    const char *undo_file;   // NULL: none
    // Told what was found, and what will be done, before it is done. May be NULL. Of a
    // dry run the edits are told, too (NULL otherwise).
    void (*found)(void *opaque, const struct q2_scan *scan);
    void (*planned)(void *opaque, const struct q2_plan *plan,
                    const struct q2_check_edits *edits);
    // Told of a header that cannot be used, if a repair would heal it. May be NULL.
    void (*curable)(void *opaque, const struct q2_finding *header_field);
    // Told before the image is changed, and when that is done or has failed: in between
    // the process had better not be ended. May be NULL.
    void (*applying)(void *opaque, bool begins);
    void *opaque;
};

struct q2_check_report {
    bool unsupported;    // the format knows no checks
    struct q2_scan scan; // of the image as it is now
    bool repaired;       // edits were made
    uint64_t corruptions_fixed, leaks_fixed;
    uint64_t n_lossy;
    bool leaks_kept;
};

// On success the caller clears the report. An image of another format is no error:
// unsupported is set.
int q2_check(const struct q2_check_request *request, const struct q2_monitor *mon,
             struct q2_check_report *out, struct q2_error *err);
// The same for a file that is open, for writing if it is to be repaired; path and
// windows of the request are not looked at. Errors do not name the file.
int q2_check_file(struct q2_io *io, const struct q2_check_request *request,
                  const struct q2_monitor *mon, struct q2_check_report *out,
                  struct q2_error *err);
void q2_check_clear(struct q2_check_report *report);

// Takes the repair of undo_file back. Of the request, path and runtime count.
int q2_check_undo(const struct q2_check_request *request, const char *undo_file,
                  struct q2_error *err);

#endif
