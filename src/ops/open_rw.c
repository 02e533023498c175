// SPDX-License-Identifier: MIT
// Opening for writing.
#include "ops/open_rw.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

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
    // File systems have that error, too; and another program may have been faster.
    if (!dirty)
        return q2_fail(err, -EUCLEAN, "Structure needs cleaning");
    ret = q2_plan_make(&plan, io, Q2_REPAIR_MODE_ALL, 0, false, NULL, err);
    if (ret < 0)
        return ret;
    ret = apply_if_safe(&plan, io, err);
    q2_plan_clear(&plan);
    return ret;
}

static int repair_file(const char *name, const struct q2_open_options *o,
                       struct damage *found, struct q2_error *err)
{
    struct q2_file_options fo = o->file;
    struct q2_io *io;
    char *path;
    int ret = q2_backing_path("", name, &path, err); // without "file:"
    if (ret < 0)
        return ret;
    fo.writable = true;
    fo.lock = Q2_LOCK_WRITE;
    ret = q2_window_open_file(path, &fo, o->runtime ? &o->runtime->windows : NULL, &io,
                              err);
    free(path);
    if (ret < 0)
        return ret;
    ret = repair(io, found, err);
    q2_io_close(io);
    return ret;
}

int q2_open_rw(const char *path, const struct q2_open_options *o,
               const struct q2_monitor *monitor, struct q2_disk **out,
               struct q2_error *err)
{
    struct q2_open_options writable = *o;
    struct damage found;
    writable.writable = true;
    int ret = q2_disk_open(path, &writable, out, err);
    // Whatever else keeps an image from being written comes first.
    if (ret == -EUCLEAN) {
        *err = (struct q2_error)Q2_ERROR_INIT;
        ret = repair_file(path, o, &found, err);
        if (ret < 0)
            return q2_context(err, "Could not open '%s'", path);
        q2_monitor_warn(monitor,
                        "'%s': image was not closed cleanly: repaired (%" PRIu64
                        " leaks, %" PRIu64 " errors)",
                        path, found.leaks, found.corruptions);
        ret = q2_disk_open(path, &writable, out, err);
    }
    if (ret == 0)
        (*out)->monitor = monitor;
    return ret;
}
