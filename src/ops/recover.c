// SPDX-License-Identifier: MIT
// Recovering: what was found is repaired in memory, and what of it is in use becomes a
// new file.
#include "ops/recover.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/checked.h"
#include "check/repair.h"
#include "image/image.h"
#include "image/open.h"
#include "io/file.h"
#include "io/overlay.h"
#include "ops/convert.h"
#include "ops/create.h"
#include "ops/recover_copy.h"

void q2_recover_report_clear(struct q2_recover_report *report)
{
    q2_recover_clear(&report->recovery);
    *report = (struct q2_recover_report){0};
}

static int write_qcow2(const struct q2_recover_request *r, const struct q2_plan *p,
                       const struct q2_monitor *mon, struct q2_recover_report *out,
                       struct q2_error *err)
{
    const struct q2_file_options options = {.writable = true, .lock = Q2_LOCK_WRITE};
    struct q2_io *to;
    bool made;
    int ret = q2_file_create(r->target, &options, &to, &made, err);
    if (ret < 0)
        return ret;
    ret = q2_recover_copy(p, to, mon, err);
    if (ret == 0)
        ret = q2_io_get_size(to, &out->file_size, err);
    if (ret < 0)
        q2_file_abandon(to, made);
    q2_io_close(to);
    return ret;
}

// The active state, as a disk that can be read.
static int open_state(const struct q2_recover_request *r, struct q2_io *below,
                      struct q2_disk **out, struct q2_error *err)
{
    const struct q2_open_options options = {.file = {.lock = Q2_LOCK_READ}};
    struct q2_image *img;
    struct q2_io *io;
    int ret = q2_overlay_open(below, &io, err);
    if (ret < 0)
        return ret;
    ret = q2_image_open(io, false, false, &img, err);
    if (ret < 0) {
        q2_io_close(io);
        return ret;
    }
    img->disk.path = strdup(r->path);
    if (!img->disk.path)
        ret = q2_fail_memory(err, strlen(r->path) + 1);
    else if (q2_image_is_encrypted(img))
        ret =
            q2_fail(err, -ENOTSUP,
                    "'%s' is encrypted: recover it as qcow2, and convert that", r->path);
    else
        ret = q2_disk_open_chain(&img->disk, &options, err);
    if (ret < 0)
        q2_disk_close(&img->disk);
    else
        *out = &img->disk;
    return ret;
}

static int write_raw(const struct q2_recover_request *r, const struct q2_plan *p,
                     const struct q2_monitor *mon, struct q2_recover_report *out,
                     struct q2_error *err)
{
    const struct q2_convert_options copy = {.target_is_zero = true, .sparse_grain = 4096};
    const struct q2_file_options file = {.writable = true, .lock = Q2_LOCK_WRITE};
    struct q2_create_options create = Q2_CREATE_DEFAULTS;
    struct q2_disk *from, *to;
    bool made;
    int ret = open_state(r, p->overlay, &from, err);
    if (ret < 0)
        return ret;
    create.format = "raw";
    create.size = from->size;
    ret = q2_create_open(r->target, &create, &file, mon, &to, &made, err);
    if (ret == 0) {
        ret = q2_convert(&from, 1, to, &copy, mon, err);
        if (ret == 0)
            ret = q2_create_publish(to, err);
        out->file_size = to->size;
        if (ret < 0)
            q2_create_abandon(to, made);
        else
            q2_disk_close(to);
    }
    q2_disk_close(from);
    return ret;
}

static int repair(const struct q2_recover_request *r, struct q2_io *io,
                  const struct q2_monitor *mon, struct q2_recover_report *out,
                  struct q2_error *err)
{
    struct q2_plan plan;
    int ret = q2_plan_make(&plan, out->recovery.image, Q2_REPAIR_MODE_BELOW, 0, false,
                           mon, err);
    if (ret < 0)
        return ret;
    out->n_healed = plan.healed.n;
    out->n_lossy = plan.n_lossy;
    if (!plan.complete)
        ret = q2_fail(err, -EIO, "What was found in '%s' cannot be made a sound image",
                      r->path);
    if (ret == 0)
        ret =
            q2_leftovers_find(io, &out->recovery, plan.after.references,
                              r->target ? r->leftovers : NULL, mon, &out->leftovers, err);
    if (ret == 0 && r->target)
        ret = r->raw ? write_raw(r, &plan, mon, out, err)
                     : write_qcow2(r, &plan, mon, out, err);
    q2_plan_clear(&plan);
    return ret;
}

static int check_target(const struct q2_recover_request *r, struct q2_io *io,
                        struct q2_error *err)
{
    struct stat source, target;
    if (!r->target || stat(r->target, &target) != 0)
        return 0; // to make it says why not
    int fd = q2_file_descriptor(io);
    if (fd >= 0 && fstat(fd, &source) == 0 && source.st_dev == target.st_dev &&
        source.st_ino == target.st_ino)
        return q2_fail(err, -EINVAL,
                       "'%s' is the broken image itself, which is only read", r->target);
    if (r->force || (S_ISREG(target.st_mode) && target.st_size == 0))
        return 0;
    return q2_fail(err, -EEXIST, "'%s' exists already: --force overwrites it", r->target);
}

static int measure_data_file(const struct q2_recover_request *r,
                             struct q2_recover_options *how, struct q2_error *err)
{
    const struct q2_file_options options = {.lock = Q2_LOCK_READ};
    struct q2_io *io;
    if (!how->data_file)
        return 0;
    if (r->raw)
        return q2_fail(err, -ENOTSUP,
                       "'%s' has an external data file: recover it as qcow2, and convert "
                       "that",
                       r->path);
    int ret = q2_file_open(how->data_file, &options, &io, err);
    if (ret < 0)
        return ret;
    ret = q2_io_get_size(io, &how->data_size, err);
    q2_io_close(io);
    if (ret == 0 && how->data_size == 0)
        ret = q2_fail(err, -EINVAL, "The data file '%s' is empty", how->data_file);
    return ret;
}

int q2_recover(const struct q2_recover_request *r, const struct q2_monitor *mon,
               struct q2_recover_report *out, struct q2_error *err)
{
    const struct q2_file_options options = {.lock = Q2_LOCK_READ, .sequential = true};
    struct q2_io *io;
    *out = (struct q2_recover_report){0};
    int ret = q2_file_open(r->path, &options, &io, err);
    if (ret < 0)
        return ret;
    struct q2_recover_options how = r->options;
    ret = check_target(r, io, err);
    if (ret == 0)
        ret = measure_data_file(r, &how, err);
    if (ret == 0)
        ret = q2_recover_make(io, &how, mon, &out->recovery, err);
    if (ret == 0 && r->found)
        r->found(r->opaque, &out->recovery);
    if (ret == 0)
        ret = repair(r, io, mon, out, err);
    // The overlay lies over the file.
    q2_io_close(out->recovery.image);
    out->recovery.image = NULL;
    q2_io_close(io);
    if (ret < 0)
        q2_recover_report_clear(out);
    return ret;
}
