// SPDX-License-Identifier: MIT
// What the active state uses of its file, for those who ask whether one place in it
// stands for several of the guest's disk. Refcounts allow that, and a scan finds nothing
// wrong with it; but no program makes such images, and with a few KiB of them a disk of
// any size is full of data.
#ifndef Q2_CHECK_USES_H
#define Q2_CHECK_USES_H

#include "base/counters.h"
#include "check/scan.h"

struct q2_scan_uses {
    struct q2_counters *plain; // by host cluster: how often it is used
    uint64_t *packed;          // where compressed clusters begin
    size_t n_packed, max_packed;
    uint64_t n_repeated; // entries for compressed clusters in tables that are used again
};

int q2_scan_uses_init(struct q2_scan_uses *u, struct q2_error *err);
void q2_scan_uses_clear(struct q2_scan_uses *u);
// The scan begins again.
void q2_scan_uses_reset(struct q2_scan_uses *u);

// Entries of the active state: n clusters one behind the other, or a compressed one.
int q2_scan_use_plain(struct q2_scan_uses *u, uint64_t cluster, uint64_t n,
                      uint64_t times, struct q2_error *err);
int q2_scan_use_packed(struct q2_scan_uses *u, uint64_t offset, uint64_t times,
                       struct q2_error *err);

// Of the image s was a scan of: how many clusters of the guest's disk have their data
// from where another one has it from, or so close to it that both cannot be whole.
uint64_t q2_scan_uses_shared(struct q2_scan_uses *u, const struct q2_scan *s);

#endif
