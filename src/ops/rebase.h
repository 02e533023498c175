// SPDX-License-Identifier: MIT
// Another backing file for an image.
#ifndef Q2_OPS_REBASE_H
#define Q2_OPS_REBASE_H

#include "base/monitor.h"
#include "image/disk.h"

struct q2_rebase_options {
    const char *backing_file;   // as the header is to name it; NULL: none any more
    const char *backing_format; // NULL: not given, which only "none" may be
    bool compress;              // what has to be copied into the image
};

// Could the header name that backing file? Changes nothing.
int q2_rebase_check(struct q2_disk *d, const struct q2_rebase_options *o,
                    struct q2_error *err);

// The guest sees the same before, during and after: what the old backing file
// (d->backing) and the new one (NULL: none; a layer further down in d's chain is fine)
// have in different ways is copied into d first, by whole clusters; then one switch of
// the header. d is open for writing, checked by q2_rebase_check, and of no use for its
// guest data after that.
int q2_rebase(struct q2_disk *d, struct q2_disk *new_backing,
              const struct q2_rebase_options *o, const struct q2_monitor *mon,
              struct q2_error *err);

// The switch alone: what the guest sees is the caller's affair.
int q2_rebase_header(struct q2_disk *d, const struct q2_rebase_options *o,
                     struct q2_error *err);

#endif
