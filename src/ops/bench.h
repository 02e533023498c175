// SPDX-License-Identifier: MIT
// A simple benchmark: the same request many times, at offsets that go round the disk.
#ifndef Q2_OPS_BENCH_H
#define Q2_OPS_BENCH_H

#include "base/monitor.h"
#include "image/disk.h"

struct q2_bench {
    bool write;
    uint64_t count; // requests
    uint64_t depth; // at most so many at a time, > 0
    uint64_t offset, step;
    size_t n_bytes; // of each request, > 0
    uint8_t pattern;
    uint64_t flush_interval; // writes between two flushes; 0: no flush
    bool no_drain;           // other writes go on beside a flush, else it waits for them
    bool deep; // as many at a time as depth says, whatever the number of processors: to
               // wait is what takes the time
};

// Runs it; *seconds: how long it took. Writes that could touch the same cluster go out
// one after the other. With flushes, the last one is behind the last write.
int q2_bench_run(struct q2_disk *d, const struct q2_bench *b,
                 const struct q2_monitor *mon, double *seconds, struct q2_error *err);

#endif
