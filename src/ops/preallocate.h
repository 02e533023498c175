// SPDX-License-Identifier: MIT
// Preallocation of a disk that was just made.
#ifndef Q2_OPS_PREALLOCATE_H
#define Q2_OPS_PREALLOCATE_H

#include "ops/create.h"

// Maps the whole disk d, and backs it with disk space as mode says.
int q2_preallocate(struct q2_disk *d, enum q2_preallocation mode,
                   const struct q2_monitor *mon, struct q2_error *err);

#endif
