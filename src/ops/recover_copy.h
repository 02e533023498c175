// SPDX-License-Identifier: MIT
// The copy that a recovery makes.
#ifndef Q2_OPS_RECOVER_COPY_H
#define Q2_OPS_RECOVER_COPY_H

#include "base/monitor.h"
#include "check/repair.h"

// Copies the clusters that the repaired image uses into `to`, which is empty, each at its
// own offset; the first one, with the header, last. All is durable afterwards.
int q2_recover_copy(const struct q2_plan *p, struct q2_io *to,
                    const struct q2_monitor *mon, struct q2_error *err);

#endif
