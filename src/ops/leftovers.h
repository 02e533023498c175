// SPDX-License-Identifier: MIT
// What a recovery could not use of a file.
#ifndef Q2_OPS_LEFTOVERS_H
#define Q2_OPS_LEFTOVERS_H

#include "base/counters.h"
#include "base/monitor.h"
#include "recover/recover.h"

// So many runs of clusters are written to files; the others are counted.
#define Q2_LEFTOVERS_MAX_RUNS 1000U

enum q2_leftover {
    Q2_LEFT_DATA,   // of the guest; or what has overwritten something
    Q2_LEFT_L2,     // an L2 table that got no place
    Q2_LEFT_OLD_L2, // an older copy of another one
    Q2_LEFT_L1,
    Q2_LEFT_FREE, // not in use, by the refcounts that were found
    Q2_LEFT_KINDS
};
extern const char *const q2_leftover_names[Q2_LEFT_KINDS]; // for programs

struct q2_leftovers {
    uint64_t mapped;               // bytes of the file that are in use again
    uint64_t bytes[Q2_LEFT_KINDS]; // that are not, and are no zeros
    uint64_t n_runs, n_written;
};

// Looks at the clusters of io that references (by number of the cluster) does not count.
// dir: each run of them is written into a file there, with a note beside it; the folder
// is made if it is missing, no file is overwritten. NULL: none is.
int q2_leftovers_find(struct q2_io *io, const struct q2_recovery *r,
                      const struct q2_counters *references, const char *dir,
                      const struct q2_monitor *mon, struct q2_leftovers *out,
                      struct q2_error *err);

// Bytes that should have been mapped.
static inline uint64_t q2_leftovers_lost(const struct q2_leftovers *l)
{
    return l->bytes[Q2_LEFT_DATA] + l->bytes[Q2_LEFT_L2];
}

#endif
