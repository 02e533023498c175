// SPDX-License-Identifier: MIT
// What each write of a repair's plan is for.
#ifndef Q2_OPS_CHECK_EDITS_H
#define Q2_OPS_CHECK_EDITS_H

#include "check/repair.h"
#include "io/overlay.h"

struct q2_check_edit {
    const struct q2_overlay_entry *entry;
    const char *structure; // what is written, "" if it has no name
    uint64_t problems;     // those that it heals, or helps to: 1 << enum q2_problem
};

struct q2_check_edits {
    struct q2_check_edit *list; // in the order of the plan
    size_t n;
};

// image is the file before the repair. The list points into the plan; the caller frees
// it.
int q2_check_edits_list(const struct q2_plan *plan, struct q2_io *image,
                        struct q2_check_edits *out, struct q2_error *err);

#endif
