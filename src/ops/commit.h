// SPDX-License-Identifier: MIT
// What an image holds goes into a file that it is based on.
#ifndef Q2_OPS_COMMIT_H
#define Q2_OPS_COMMIT_H

#include "base/monitor.h"
#include "image/disk.h"
#include "io/file.h"

struct q2_commit_options {
    bool keep; // top stays as it is; else it is emptied once base has everything
    uint64_t rate_limit; // bytes per second; 0: none
};

// base is open for writing; top, too, unless options->keep. A base that is shorter grows.
// Base is durable before top lets go of anything. Layers between are left as they are:
// what they show is of no use any more. To keep is a must where there are any.
int q2_commit(struct q2_disk *top, struct q2_disk *base,
              const struct q2_commit_options *options, const struct q2_monitor *mon,
              struct q2_error *err);

#endif
