// SPDX-License-Identifier: MIT
// Opening for writing.
#include "ops/open_rw.h"

#include <errno.h>
#include <inttypes.h>

#include "check/repair.h"

struct damage {
    uint64_t leaks, corruptions;
};

static int apply_if_safe(const struct q2_plan *plan, struct q2_io *io,
                         struct q2_error *err)
{
    if (plan->n_lossy > 0)
        return q2_fail(err, -EUCLEAN,
                       "Image is marked dirty and cannot be repaired without losing "
                       "data; run check -r all");
    if (!plan->complete)
        return q2_fail(err, -EUCLEAN,
                       "Image is marked dirty and cannot be repaired; run check");
    return q2_plan_apply(plan, io, NULL, err);
}

static int repair(struct q2_io *io, struct damage *found, struct q2_error *err)
{
    struct q2_scan scan;
    struct q2_plan plan;
    int ret = q2_scan_run(&scan, io, NULL, NULL, err);
    if (ret < 0)
        return ret;
    *found = (struct damage){.leaks = scan.leaks, .corruptions = scan.corruptions};
    bool dirty = (scan.header.incompatible_features & Q2_INCOMPAT_DIRTY) != 0;
    q2_scan_clear(&scan);
    if (!dirty) // file systems have that error, too
        return q2_fail(err, -EUCLEAN, "Structure needs cleaning");
    ret = q2_plan_make(&plan, io, Q2_REPAIR_MODE_ALL, 0, false, NULL, err);
    if (ret < 0)
        return ret;
    ret = apply_if_safe(&plan, io, err);
    q2_plan_clear(&plan);
    return ret;
}

struct cleaning {
    const char *path;
    const struct q2_monitor *monitor;
};

static int clean(void *opaque, struct q2_io *io, struct q2_error *err)
{
    const struct cleaning *c = opaque;
    struct damage found;
    int ret = repair(io, &found, err);
    if (ret == 0)
        q2_monitor_warn(c->monitor,
                        "'%s': image was not closed cleanly: repaired (%" PRIu64
                        " leaks, %" PRIu64 " errors)",
                        c->path, found.leaks, found.corruptions);
    return ret;
}

int q2_open_rw(const char *path, const struct q2_open_options *o,
               const struct q2_monitor *monitor, struct q2_disk **out,
               struct q2_error *err)
{
    struct cleaning cleaning = {.path = path, .monitor = monitor};
    struct q2_open_options writable = *o;
    writable.writable = true;
    writable.clean = clean;
    writable.opaque = &cleaning;
    int ret = q2_disk_open(path, &writable, out, err);
    if (ret == 0)
        (*out)->monitor = monitor;
    return ret;
}
