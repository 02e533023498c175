// SPDX-License-Identifier: MIT
// What is used of an image's file, for those who ask more than whether the references are
// counted right: does one place in it stand for several of the guest's disk? Refcounts
// allow that, and a scan finds nothing wrong with it; but no program makes such images,
// and with a few KiB of them a disk of any size is full of data.
#ifndef Q2_CHECK_USES_H
#define Q2_CHECK_USES_H

#include "base/counters.h"
#include "check/scan.h"

// The place of a compressed cluster.
struct q2_packed_use {
    uint64_t offset;
    uint32_t n_bytes;
    bool active; // the active state uses it
};

struct q2_scan_uses {
    struct q2_counters *plain;    // by host cluster: how often the active state uses it
    struct q2_packed_use *packed; // by any state
    size_t n_packed, max_packed;
    uint64_t n_repeated; // entries for compressed clusters in tables that are used again
};

int q2_scan_uses_init(struct q2_scan_uses *u, struct q2_error *err);
void q2_scan_uses_clear(struct q2_scan_uses *u);
// The scan begins again.
void q2_scan_uses_reset(struct q2_scan_uses *u);

// Entries: n clusters one behind the other, or a compressed one. times: that the active
// state has them.
int q2_scan_use_plain(struct q2_scan_uses *u, uint64_t cluster, uint64_t n,
                      uint64_t times, struct q2_error *err);
int q2_scan_use_packed(struct q2_scan_uses *u, const struct q2_l2_entry *e,
                       uint64_t times, struct q2_error *err);

// Of the image s was a scan of: how many clusters of the guest's disk have their data
// from where another one has it from, or so close to it that both cannot be whole. Of
// compressed clusters, each place is in the list once then.
uint64_t q2_scan_uses_settle(struct q2_scan_uses *u, const struct q2_scan *s);

// Inflates each compressed cluster of the list. *n_broken do not; *first is one of them.
int q2_scan_uses_inflate(const struct q2_scan_uses *u, struct q2_scan *s,
                         const struct q2_monitor *mon, uint64_t *n_broken,
                         struct q2_finding *first, struct q2_error *err);

#endif
