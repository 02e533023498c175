// SPDX-License-Identifier: MIT
// Comparing the guest content of two disks.
#ifndef Q2_OPS_COMPARE_H
#define Q2_OPS_COMPARE_H

#include "base/monitor.h"
#include "image/disk.h"

enum q2_compare_verdict {
    Q2_COMPARE_IDENTICAL,
    Q2_COMPARE_CONTENT, // content differs at offset
    Q2_COMPARE_STATUS,  // strict: block status differs at offset
    Q2_COMPARE_SIZE,    // strict: sizes differ
};

struct q2_compare_result {
    enum q2_compare_verdict verdict;
    uint64_t offset;
    bool
        sizes_differ; // not strict: sizes differ but what lies behind the shorter is zero
    bool read_failed; // with an error: it was a read (exit 4 in the front end; else 3)
};

// Compares a and b on all processors. Returns 0 and a result (the first difference in
// guest order), or an error.
int q2_compare(struct q2_disk *a, struct q2_disk *b, bool strict,
               const struct q2_monitor *mon, struct q2_compare_result *result,
               struct q2_error *err);

#endif
