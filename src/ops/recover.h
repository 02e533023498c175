// SPDX-License-Identifier: MIT
// Recovering an image into a new file.
#ifndef Q2_OPS_RECOVER_H
#define Q2_OPS_RECOVER_H

#include "base/monitor.h"
#include "ops/leftovers.h"
#include "recover/recover.h"

struct q2_recover_request {
    const char *path, *target; // target NULL: nothing is written
    const char *leftovers;     // a folder for what could not be used; NULL: none
    bool force;                // a target that has something in it is overwritten
    bool raw;                  // the target is a raw file of the active state
    struct q2_recover_options options;
    // Told what was found before anything is written. May be NULL.
    void (*found)(void *opaque, const struct q2_recovery *recovery);
    void *opaque;
};

struct q2_recover_report {
    struct q2_recovery recovery;
    uint64_t n_healed, n_lossy; // findings of the repair behind it
    uint64_t file_size;         // of the target
    struct q2_leftovers leftovers;
};

// On success the caller clears the report.
int q2_recover(const struct q2_recover_request *request, const struct q2_monitor *mon,
               struct q2_recover_report *out, struct q2_error *err);
void q2_recover_report_clear(struct q2_recover_report *report);

#endif
