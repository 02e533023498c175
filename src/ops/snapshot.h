// SPDX-License-Identifier: MIT
// Making, applying and deleting internal snapshots.
//
// d is open for writing; its metadata alone are looked at (q2_open_options.metadata_only
// is enough), and all costs follow the size of the metadata. Everything is refused before
// anything changes, or done and durable. Errors do not name the snapshot.
#ifndef Q2_OPS_SNAPSHOT_H
#define Q2_OPS_SNAPSHOT_H

#include "base/monitor.h"
#include "disk/snapshot.h"
#include "image/image.h"

// A name may be given again; the id is a new one. What QEMU would cut off of a name that
// is too long is cut off.
int q2_snapshot_create(struct q2_disk *d, const char *name, const struct q2_monitor *mon,
                       struct q2_error *err);

// The active state becomes what the snapshot is, its size and the machine's state too.
// spec is an id, or else the name of the first one that has it.
int q2_snapshot_apply(struct q2_disk *d, const char *spec, const struct q2_monitor *mon,
                      struct q2_error *err);

// The first one of this name.
int q2_snapshot_delete(struct q2_disk *d, const char *name, const struct q2_monitor *mon,
                       struct q2_error *err);

// The snapshots of d, which may be open for its description alone (image_only), one by
// one. Other formats have none.
int q2_snapshot_each(struct q2_disk *d, q2_take_snapshot *take, void *opaque,
                     struct q2_error *err);

#endif
