// SPDX-License-Identifier: MIT
// Opening for writing: a dirty image is repaired first. The only place where opening a
// disk repairs it.
#ifndef Q2_OPS_OPEN_RW_H
#define Q2_OPS_OPEN_RW_H

#include "base/monitor.h"
#include "image/open.h"

// As q2_disk_open with o->writable. An image that says it is dirty is repaired (refcounts
// and COPIED flags, as check -r all, but nothing that loses data); the monitor is warned
// that it was, and with what result. A repair that fails refuses the open and leaves the
// image as it was found or as far as the repair got, still dirty. A corrupt image is
// refused. Layers below the top are never written. The monitor (or NULL) must live as
// long as the disk: it hears when a write finds damage (q2_monitor_note).
int q2_open_rw(const char *path, const struct q2_open_options *o,
               const struct q2_monitor *monitor, struct q2_disk **out,
               struct q2_error *err);

#endif
