// SPDX-License-Identifier: MIT
// Opening for writing.
#include "ops/open_rw.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "check/repair.h"
#include "image/image.h"

// A look at the header alone, beside whoever uses the image. True: it is dirty, and may
// be repaired; *path is where it lies. What keeps it from being opened is told by the
// real opening.
static bool is_dirty(const char *name, const struct q2_open_options *o, char **path)
{
    const struct q2_open_options look = {
        .format = o->format, .image_only = true, .unsafe_share = true};
    struct q2_error ignored = Q2_ERROR_INIT;
    struct q2_disk *d;
    bool dirty = false;
    if (q2_disk_open(name, &look, &d, &ignored) < 0)
        return false;
    if (d->ops == &q2_image_disk_ops) {
        uint64_t bits = q2_image_of(d)->header.incompatible_features;
        dirty = (bits & Q2_INCOMPAT_DIRTY) && !(bits & Q2_INCOMPAT_CORRUPT);
    }
    if (dirty)
        *path = strdup(d->path);
    q2_disk_close(d);
    return dirty && *path;
}

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
    int ret = q2_scan_run(&scan, io, false, NULL, err);
    if (ret < 0)
        return ret;
    *found = (struct damage){.leaks = scan.leaks, .corruptions = scan.corruptions};
    q2_scan_clear(&scan);
    ret = q2_plan_make(&plan, io, Q2_REPAIR_MODE_ALL, 0, false, NULL, err);
    if (ret < 0)
        return ret;
    ret = apply_if_safe(&plan, io, err);
    q2_plan_clear(&plan);
    return ret;
}

static int repair_file(const char *path, const struct q2_open_options *o,
                       struct damage *found, struct q2_error *err)
{
    struct q2_file_options fo = o->file;
    struct q2_io *io;
    fo.writable = true;
    fo.lock = Q2_LOCK_WRITE;
    int ret = q2_file_open(path, &fo, &io, err);
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
    char *at = NULL;
    writable.writable = true;
    if (is_dirty(path, o, &at)) {
        int ret = repair_file(at, o, &found, err);
        free(at);
        if (ret < 0)
            return q2_context(err, "Could not open '%s'", path);
        q2_monitor_warn(monitor,
                        "'%s': image was not closed cleanly: repaired (%" PRIu64
                        " leaks, %" PRIu64 " errors)",
                        path, found.leaks, found.corruptions);
    }
    int ret = q2_disk_open(path, &writable, out, err);
    if (ret == 0)
        (*out)->monitor = monitor;
    return ret;
}
