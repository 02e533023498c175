// SPDX-License-Identifier: MIT
// The judge: our own check and repair, and what guest and snapshots read.
#include "tests/crash/judge.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check/repair.h"
#include "image/data_file.h"

void judge_new(struct judge *j, const struct fixture *f, const struct stage *stage)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_image *img;
    *j = (struct judge){.f = f,
                        .model = &stage->model,
                        .vmstate = &stage->vmstate,
                        .repair_every = 1,
                        .buf = malloc(stage->model.n_bytes + VMSTATE_BYTES)};
    if (!j->buf || fixture_open(f, f->fault, false, &img, &err) < 0 ||
        q2_image_load_snapshots(img, &err) < 0)
        give_up("%s: %s", f->name, err.message);
    j->n_snapshots = img->n_snapshots;
    j->snapshots = calloc(j->n_snapshots + 1, sizeof(*j->snapshots));
    for (unsigned i = 0; i < j->n_snapshots; i++)
        j->snapshots[i].id = strdup(img->snapshots[i].id);
    fixture_close(img);
    for (unsigned i = 0; i < j->n_snapshots; i++) {
        struct snapshot_content *s = &j->snapshots[i];
        if (fixture_open(f, f->fault, false, &img, &err) < 0 ||
            q2_image_select_snapshot(img, s->id, &err) < 0)
            give_up("%s: %s", f->name, err.message);
        s->n_bytes = (size_t)img->disk.size;
        s->bytes = malloc(s->n_bytes);
        if (!s->bytes || q2_disk_read(&img->disk, 0, s->bytes, s->n_bytes, &err) < 0)
            give_up("%s: %s", f->name, err.message);
        fixture_close(img);
    }
}

void judge_clear(struct judge *j)
{
    for (unsigned i = 0; i < j->n_snapshots; i++) {
        free(j->snapshots[i].id);
        free(j->snapshots[i].bytes);
    }
    free(j->snapshots);
    free(j->buf);
}

static bool say(struct judge *j, const char *what, const char *detail)
{
    snprintf(j->why, sizeof(j->why), "%s: %.1000s", what, detail);
    return false;
}

static bool say_findings(struct judge *j, const char *what, const struct q2_scan *scan)
{
    char text[Q2_FINDING_TEXT_MAX] = "";
    for (size_t i = 0; i < scan->findings.n; i++) {
        const struct q2_finding *f = &scan->findings.list[i];
        if (text[0] == '\0' ||
            q2_problem_info(f->problem)->severity == Q2_SEVERITY_CORRUPTION)
            q2_finding_format(f, "ERROR", text);
    }
    snprintf(j->why, sizeof(j->why), "%s: %" PRIu64 " corruptions, %" PRIu64 " leaks; %s",
             what, scan->corruptions, scan->leaks, text);
    return false;
}

// With or without the mapping, and whenever the power goes; j->buf is what the guest
// reads.
static bool raw_data_is_same(const struct judge *j, struct q2_image *img)
{
    struct q2_error err = Q2_ERROR_INIT;
    uint8_t *raw = malloc(j->model->n_bytes);
    bool same = raw && q2_io_read(img->disk.data, 0, raw, j->model->n_bytes, &err) == 0 &&
                memcmp(raw, j->buf, j->model->n_bytes) == 0;
    free(raw);
    return same;
}

static bool read_guest(struct judge *j, struct q2_io *io)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_image *img;
    if (fixture_open(j->f, io, false, &img, &err) < 0)
        return say(j, "does not open", err.message);
    bool same_size = img->disk.size == j->model->n_bytes;
    int ret = same_size ? q2_disk_read(&img->disk, 0, j->buf, j->model->n_bytes, &err)
                        : q2_fail(&err, -1, "%" PRIu64 " bytes", img->disk.size);
    if (ret == 0)
        ret = q2_image_read_vmstate(img, 0, j->buf + j->model->n_bytes, VMSTATE_BYTES,
                                    &err);
    bool same = ret < 0 || !q2_data_file_is_raw(img) || raw_data_is_same(j, img);
    fixture_close(img);
    if (ret < 0)
        return say(j, "the guest cannot be read", err.message);
    return same || say(j, "the raw data file is not what the guest reads", "");
}

static bool same_snapshot(struct judge *j, const struct snapshot_content *s,
                          struct q2_image *img)
{
    struct q2_error err = Q2_ERROR_INIT;
    uint8_t *bytes = calloc(1, s->n_bytes);
    if (!bytes)
        give_up("no memory");
    int ret = q2_image_select_snapshot(img, s->id, &err);
    if (ret == 0)
        ret = q2_disk_read(&img->disk, 0, bytes, s->n_bytes, &err);
    bool same = ret == 0 && memcmp(bytes, s->bytes, s->n_bytes) == 0;
    size_t at = 0;
    while (ret == 0 && !same && bytes[at] == s->bytes[at])
        at++;
    free(bytes);
    if (same)
        return true;
    snprintf(j->why, sizeof(j->why), "snapshot %s: %.500s at guest byte 0x%zx", s->id,
             ret < 0 ? err.message : "changed", at);
    return false;
}

static bool same_snapshots(struct judge *j, struct q2_io *io)
{
    struct q2_error err = Q2_ERROR_INIT;
    bool same = true;
    for (unsigned i = 0; i < j->n_snapshots && same; i++) {
        struct q2_image *img;
        if (fixture_open(j->f, io, false, &img, &err) < 0)
            return say(j, "does not open", err.message);
        same = same_snapshot(j, &j->snapshots[i], img);
        fixture_close(img);
    }
    return same;
}

static bool content_allowed(struct judge *j, struct q2_io *io)
{
    char why[1024];
    if (!read_guest(j, io))
        return false;
    if (!model_allows(j->model, j->buf, why, sizeof(why)))
        return say(j, "guest data", why);
    if (!model_allows(j->vmstate, j->buf + j->model->n_bytes, why, sizeof(why)))
        return say(j, "VM state", why);
    return same_snapshots(j, io);
}

// Repairs it; nothing may be lost, and nothing may be left to do.
static bool repair(struct judge *j, struct q2_io *io)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_plan plan;
    if (q2_plan_make(&plan, io, Q2_REPAIR_MODE_ALL, 0, false, NULL, &err) < 0)
        return say(j, "no repair", err.message);
    bool good = plan.n_lossy == 0 || say(j, "the repair loses guest data", "");
    if (good && q2_plan_apply(&plan, io, NULL, &err) < 0)
        good = say(j, "the repair fails", err.message);
    q2_plan_clear(&plan);
    return good;
}

static bool scan_is(struct judge *j, struct q2_io *io, bool may_leak, bool may_be_dirty,
                    bool *dirty)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_scan scan;
    if (q2_scan_run(&scan, io, false, NULL, &err) < 0)
        return say(j, "cannot be checked", err.message);
    *dirty = (scan.header.incompatible_features & Q2_INCOMPAT_DIRTY) != 0;
    bool good = *dirty ? may_be_dirty || say(j, "dirty", "")
                       : (scan.corruptions == 0 && (may_leak || scan.leaks == 0)) ||
                             say_findings(j, "not sound", &scan);
    if (good && scan.header.incompatible_features & Q2_INCOMPAT_CORRUPT)
        good = say(j, "marked corrupt", "");
    j->leaks = *dirty ? 0 : scan.leaks;
    j->n_leaking += j->leaks > 0;
    q2_scan_clear(&scan);
    return good;
}

bool judge_state(struct judge *j, struct q2_io *state)
{
    bool dirty;
    j->n_states++;
    if (!scan_is(j, state, true, true, &dirty) || !content_allowed(j, state))
        return false;
    bool still_dirty;
    if (!dirty || j->n_dirty++ % j->repair_every != 0)
        return true;
    return repair(j, state) && scan_is(j, state, false, false, &still_dirty) &&
           content_allowed(j, state);
}

bool judge_structure(struct judge *j, struct q2_io *state)
{
    bool dirty, still_dirty;
    if (!scan_is(j, state, true, true, &dirty))
        return false;
    return !dirty || (repair(j, state) && scan_is(j, state, false, false, &still_dirty));
}

bool judge_clean(struct judge *j, struct q2_io *image, bool may_leak)
{
    char why[1024];
    bool dirty;
    if (!scan_is(j, image, may_leak, false, &dirty) || !read_guest(j, image))
        return false;
    if (!model_equals(j->model, 0, j->buf, j->model->n_bytes, why, sizeof(why)))
        return say(j, "guest data", why);
    if (!model_equals(j->vmstate, 0, j->buf + j->model->n_bytes, VMSTATE_BYTES, why,
                      sizeof(why)))
        return say(j, "VM state", why);
    return same_snapshots(j, image);
}
