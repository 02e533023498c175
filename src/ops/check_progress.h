// SPDX-License-Identifier: MIT
// The progress of a check: each scan counts from its own beginning, and how many scans a
// repair takes is not known before its end. Here they become one.
#ifndef Q2_OPS_CHECK_PROGRESS_H
#define Q2_OPS_CHECK_PROGRESS_H

#include "base/monitor.h"

struct q2_check_progress {
    struct q2_monitor monitor; // for the scans
    const struct q2_monitor *outer;
    double now;      // told already, 0 to 1; never goes back
    double from, to; // what the present scan is given of it
    double limit;    // the end of the present stage
    double last;     // of the present scan, 0 to 1
};

// outer, which may be NULL, is told of 0 to 1000000 in all.
void q2_check_progress_start(struct q2_check_progress *p, const struct q2_monitor *outer);

// A stage begins, the one before it has ended; it reaches to limit (0 to 1).
void q2_check_progress_stage(struct q2_check_progress *p, double limit);

#endif
