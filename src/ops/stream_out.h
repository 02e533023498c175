// SPDX-License-Identifier: MIT
// Disks out into a stream.
#ifndef Q2_OPS_STREAM_OUT_H
#define Q2_OPS_STREAM_OUT_H

#include "base/monitor.h"
#include "image/disk.h"

// Writes what a guest reads from the sources, one behind the other, to fd, and zeros
// behind them until it is size bytes; less than the sources have cuts them.
int q2_stream_out(struct q2_disk *const *sources, unsigned n_sources, uint64_t size,
                  int fd, const struct q2_monitor *mon, struct q2_error *err);

#endif
