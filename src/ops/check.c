// SPDX-License-Identifier: MIT
// Checking and repairing: scan, plan, apply, scan again.
#include "ops/check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "check/undo.h"
#include "image/path.h"
#include "image/probe.h"
#include "io/file.h"
#include "ops/check_progress.h"

// Parts of a repair's progress: the first look, the plan; the rest is the second look.
#define SCANNED 0.3
#define PLANNED 0.7

void q2_check_clear(struct q2_check_report *report)
{
    if (!report->unsupported)
        q2_scan_clear(&report->scan);
}

// The image, and where its data is, if that is to be read (all), too.
struct target {
    struct q2_io *io;
    struct q2_scan_data data;
    const struct q2_scan_data *all; // NULL: the metadata is enough
};

static enum q2_lock_mode lock_for_reading(const struct q2_check_request *r)
{
    return r->shared ? Q2_LOCK_SHARED : Q2_LOCK_READ;
}

static int open_file(const struct q2_check_request *r, bool writable, struct q2_io **io,
                     struct q2_error *err)
{
    const struct q2_runtime *runtime = r->runtime;
    const struct q2_file_options options = {
        .writable = writable,
        .lock = writable ? Q2_LOCK_WRITE : lock_for_reading(r),
        .locking = runtime ? runtime->locking : Q2_LOCKING_AUTO,
    };
    return q2_window_open_file(r->path, &options, runtime ? &runtime->windows : NULL, io,
                               err);
}

// All data is to be read: opens the file it is in, if it is another one. What the header
// says when it makes no sense is told by the scan.
static int open_data(const struct q2_check_request *r, struct target *t,
                     struct q2_error *err)
{
    const struct q2_file_options options = {
        .lock = lock_for_reading(r),
        .locking = r->runtime ? r->runtime->data_file_locking : Q2_LOCKING_AUTO,
    };
    struct q2_error ignored = Q2_ERROR_INIT;
    struct q2_header header;
    const char *path = r->runtime ? r->runtime->data_file : NULL;
    int ret = 0;
    if (!r->read_data)
        return 0;
    t->all = &t->data;
    if (q2_scan_header(t->io, &header, &ignored) < 0)
        return 0;
    if (header.incompatible_features & Q2_INCOMPAT_DATA_FILE) {
        if (!path && !header.data_file)
            ret = q2_fail(err, -EINVAL, "'data-file' is required for this image");
        else if (!path)
            ret = q2_path_plain(header.data_file, &path, err);
        if (ret == 0)
            ret = q2_file_open(path, &options, &t->data.file, err);
    }
    q2_header_clear(&header);
    return ret;
}

static uint64_t fixed(uint64_t before, uint64_t after)
{
    return before > after ? before - after : 0;
}

// A plan that leaves more than it finds is not carried out.
static int check_gain(const struct q2_check_report *out, const struct q2_plan *p,
                      struct q2_error *err)
{
    const struct q2_scan *before = &out->scan, *after = &p->after;
    if (p->complete || after->corruptions < before->corruptions ||
        (after->corruptions == before->corruptions && after->leaks <= before->leaks))
        return 0;
    return q2_fail(err, -EIO,
                   "No repair was found that leaves fewer problems; nothing was written");
}

// Whole or not at all, as far as it is in our hands.
static int apply_whole(const struct q2_check_request *r, const struct q2_plan *p,
                       struct q2_io *io, const struct q2_monitor *mon,
                       struct q2_error *err)
{
    if (r->applying)
        r->applying(r->opaque, true);
    int ret = q2_monitor_cancelled(mon)
                  ? q2_fail(err, -ECANCELED, "The repair was stopped before it began")
                  : q2_plan_apply(p, io, r->undo_file, err);
    if (r->applying)
        r->applying(r->opaque, false);
    return ret;
}

static int apply(const struct q2_check_request *r, const struct q2_plan *p,
                 const struct target *t, struct q2_check_progress *progress,
                 struct q2_check_report *out, struct q2_error *err)
{
    uint64_t corruptions = out->scan.corruptions, leaks = out->scan.leaks;
    const struct q2_monitor *mon = &progress->monitor;
    int ret = apply_whole(r, p, t->io, mon, err);
    if (ret < 0)
        return ret;
    q2_check_progress_stage(progress, 1);
    q2_scan_clear(&out->scan);
    ret = q2_scan_run(&out->scan, t->io, t->all, mon, err);
    if (ret == -ECANCELED)
        q2_monitor_warn(mon, "The repair is done; the check after it was stopped");
    if (ret < 0)
        return ret;
    out->repaired = true;
    out->corruptions_fixed = fixed(corruptions, out->scan.corruptions);
    out->leaks_fixed = fixed(leaks, out->scan.leaks);
    return 0;
}

static int tell_plan(const struct q2_check_request *r, const struct q2_plan *p,
                     struct q2_io *io, struct q2_error *err)
{
    struct q2_check_edits edits = {0};
    if (!r->planned)
        return 0;
    int ret = r->dry_run ? q2_check_edits_list(p, io, &edits, err) : 0;
    if (ret == 0)
        r->planned(r->opaque, p, r->dry_run ? &edits : NULL);
    free(edits.list);
    return ret;
}

static int repair(const struct q2_check_request *r, const struct target *t,
                  struct q2_check_progress *progress, struct q2_check_report *out,
                  struct q2_error *err)
{
    struct q2_plan plan;
    q2_check_progress_stage(progress, PLANNED);
    q2_scan_shrink(&out->scan); // its numbers are enough
    int ret = q2_plan_make(&plan, t->io, r->mode, r->clear_features, r->read_data,
                           &progress->monitor, err);
    if (ret < 0)
        return ret;
    out->n_lossy = plan.n_lossy;
    out->leaks_kept = plan.leaks_kept;
    if (q2_plan_has_edits(&plan))
        ret = check_gain(out, &plan, err);
    if (ret == 0)
        ret = tell_plan(r, &plan, t->io, err);
    if (ret == 0 && !r->dry_run && q2_plan_has_edits(&plan))
        ret = apply(r, &plan, t, progress, out, err);
    q2_plan_clear(&plan);
    return ret;
}

// A header that cannot be used is refused, unless it is to be healed.
static bool may_heal_header(const struct q2_check_request *r, int ret)
{
    return ret != -ECANCELED && ret != -ENOMEM && ret != -EIO &&
           (ret != -ENOTSUP || r->clear_features);
}

// Without a repair: says whether there would be one.
static void tell_cure(const struct q2_check_request *r, struct q2_io *io,
                      const struct q2_check_progress *progress)
{
    struct q2_error ignored = Q2_ERROR_INIT;
    const struct q2_header_view unusable = {0};
    struct q2_plan trial = {0};
    bool curable = false;
    if (!r->curable || q2_overlay_open(io, &trial.overlay, &ignored) < 0)
        return;
    if (q2_heal_header(&trial, &unusable, &progress->monitor, &curable, &ignored) == 0 &&
        curable && trial.healed.n > 0)
        r->curable(r->opaque, &trial.healed.list[0]);
    q2_plan_clear(&trial);
}

static int check_open(const struct q2_check_request *r, struct target *t,
                      struct q2_check_progress *progress, struct q2_check_report *out,
                      struct q2_error *err)
{
    const char *format = r->format;
    int ret = format ? 0 : q2_probe(t->io, &format, err);
    if (ret == 0 && !q2_format_known(format))
        return q2_fail(err, -EINVAL, "Unknown driver '%s'", format);
    if (ret == 0 && strcmp(format, "qcow2") != 0) {
        out->unsupported = true;
        return 0;
    }
    if (ret == 0)
        ret = open_data(r, t, err);
    if (ret < 0)
        return ret;
    struct q2_error why = Q2_ERROR_INIT;
    q2_check_progress_stage(progress, r->repair ? SCANNED : 1);
    ret = q2_scan_run(&out->scan, t->io, t->all, &progress->monitor, &why);
    bool heals = r->repair && r->mode == Q2_REPAIR_MODE_ALL;
    if (ret < 0 && (!heals || !may_heal_header(r, ret))) {
        if (may_heal_header(r, ret))
            tell_cure(r, t->io, progress);
        *err = why;
        return ret;
    }
    if (ret < 0)
        out->scan.corruptions = 1; // the header; nothing behind it could be looked at
    else if (r->found)
        r->found(r->opaque, &out->scan);
    ret = r->repair ? repair(r, t, progress, out, err) : 0;
    if (ret < 0)
        q2_scan_clear(&out->scan);
    return ret;
}

int q2_check_file(struct q2_io *io, const struct q2_check_request *r,
                  const struct q2_monitor *mon, struct q2_check_report *out,
                  struct q2_error *err)
{
    struct target t = {.io = io};
    struct q2_check_progress progress;
    q2_check_progress_start(&progress, mon);
    *out = (struct q2_check_report){0};
    int ret = check_open(r, &t, &progress, out, err);
    q2_io_close(t.data.file);
    return ret;
}

int q2_check(const struct q2_check_request *r, const struct q2_monitor *mon,
             struct q2_check_report *out, struct q2_error *err)
{
    struct q2_io *io;
    int ret = open_file(r, r->repair && !r->dry_run, &io, err);
    if (ret == 0) {
        ret = q2_check_file(io, r, mon, out, err);
        q2_io_close(io);
    }
    return ret < 0 ? q2_context(err, "Could not open '%s'", r->path) : 0;
}

int q2_check_undo(const struct q2_check_request *r, const char *undo_file,
                  struct q2_error *err)
{
    struct q2_io *io;
    int ret = open_file(r, true, &io, err);
    if (ret < 0)
        return q2_context(err, "Could not open '%s'", r->path);
    ret = q2_undo_restore(undo_file, io, err);
    q2_io_close(io);
    return ret < 0 ? q2_context(err, "Could not undo the repair of '%s'", r->path) : 0;
}
