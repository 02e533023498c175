// SPDX-License-Identifier: MIT
// Opening for writing.
#include "ops/open_rw.h"

int q2_open_rw(const char *path, const struct q2_open_options *o,
               const struct q2_monitor *monitor, struct q2_disk **out,
               struct q2_error *err)
{
    struct q2_open_options writable = *o;
    writable.writable = true;
    (void)monitor;
    return q2_disk_open(path, &writable, out, err);
}
