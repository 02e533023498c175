// SPDX-License-Identifier: MIT
// Preallocation of a disk that was just made, or of what was added to one.
#ifndef Q2_OPS_PREALLOCATE_H
#define Q2_OPS_PREALLOCATE_H

#include "ops/create.h"

// Maps the whole disk d, and backs it with disk space as mode says.
int q2_preallocate(struct q2_disk *d, enum q2_preallocation mode,
                   const struct q2_monitor *mon, struct q2_error *err);

// The same from there on, in a disk that has been written to: what is handed out again
// reads as zeros.
int q2_preallocate_from(struct q2_disk *d, uint64_t from, enum q2_preallocation mode,
                        const struct q2_monitor *mon, struct q2_error *err);

// A range of a file, which has been zeros until now.
int q2_preallocate_file(struct q2_io *io, uint64_t offset, uint64_t n_bytes,
                        enum q2_preallocation mode, const struct q2_monitor *mon,
                        struct q2_error *err);

#endif
