// SPDX-License-Identifier: MIT
// convert, the run: all sources are open before anything of the target is touched, and a
// target that was not finished is taken away again.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "cmd/convert.h"
#include "cmd/opening.h"
#include "cmd/progress.h"
#include "ops/bitmap.h"
#include "ops/create.h"
#include "ops/stream_out.h"

static int open_sources(struct q2_conversion *c, const struct q2_command_line *line,
                        const struct q2_monitor *mon, struct q2_error *err)
{
    const struct q2_convert_settings *s = c->settings;
    struct q2_open_options options = {.snapshot = s->snapshot, .file = s->source_file};
    unsigned n = c->n_sources;
    options.file.sequential = true;
    if (s->snapshot && n > 1)
        return q2_fail(err, -EINVAL, "No support for concatenating multiple snapshot");
    c->sources = calloc(n, sizeof(struct q2_disk *));
    if (!c->sources)
        return q2_fail_memory(err, n * sizeof(struct q2_disk *));
    for (unsigned i = 0; i < n; i++) {
        int rc = q2_open_source(line, line->operands[i], &options, &c->in, UINT64_MAX,
                                mon, &c->sources[i], err);
        if (rc)
            return rc;
        if (!q2_add_u64(c->size, c->sources[i]->size, &c->size) || c->size > INT64_MAX)
            return q2_fail(err, -EFBIG, "The sources are too large together");
    }
    return 0;
}

static int check_bitmaps(const struct q2_conversion *c, const struct q2_monitor *mon,
                         struct q2_error *err)
{
    if (!c->settings->bitmaps)
        return 0;
    if (c->n_sources > 1)
        return q2_fail(err, -EINVAL, "Copying bitmaps only possible with single source");
    return q2_bitmap_check_copy(c->sources[0], c->settings->skip_broken_bitmaps, mon,
                                err);
}

// What cannot be copied is told before all the data is.
static int copy(struct q2_conversion *c, const struct q2_monitor *mon,
                struct q2_error *err)
{
    bool bitmaps = c->settings->bitmaps;
    int rc = bitmaps ? q2_bitmap_check_target(c->sources[0], c->target, err) : 0;
    if (!rc)
        rc =
            q2_convert(c->sources, c->n_sources, c->target, &c->settings->copy, mon, err);
    if (!rc && bitmaps)
        rc = q2_bitmap_copy(c->sources[0], c->target, err);
    return rc;
}

static int copy_and_finish(struct q2_conversion *c, const struct q2_monitor *mon,
                           struct q2_error *err)
{
    int rc = copy(c, mon, err);
    if (rc)
        return rc;
    return c->settings->no_create ? q2_disk_finish(c->target, err)
                                  : q2_create_publish(c->target, err);
}

static void clean_up(struct q2_conversion *c, bool success)
{
    struct q2_error ignored = Q2_ERROR_INIT; // the first one is told
    bool created = !c->settings->no_create;
    if (c->target && !success && created) {
        q2_create_abandon(c->target, c->made);
    } else {
        // As far as it got, the image that was there is a clean one.
        if (c->target && !success)
            q2_disk_finish(c->target, &ignored);
        q2_disk_close(c->target);
    }
    q2_disk_close(c->backing);
    for (unsigned i = 0; c->sources && i < c->n_sources; i++)
        q2_disk_close(c->sources[i]);
    free(c->sources);
    q2_spool_close(&c->in);
    q2_spool_close(&c->out);
    q2_new_image_clear(&c->image);
}

static int convert(struct q2_conversion *c, const struct q2_monitor *mon,
                   struct q2_error *err)
{
    int rc = check_bitmaps(c, mon, err);
    if (!rc)
        rc = c->settings->no_create ? q2_convert_prepare_existing(c, mon, err)
                                    : q2_convert_prepare_new(c, mon, err);
    return rc ? rc : copy_and_finish(c, mon, err);
}

// Raw disks go out as they are read; an image is made in a temporary file, and whole when
// its first byte goes out.
static int convert_to_stream(struct q2_conversion *c, const struct q2_monitor *mon,
                             struct q2_error *err)
{
    struct q2_create_options options;
    int rc = q2_check_output_stream(err);
    if (!rc && !strcmp(c->image.format, "raw") && !c->settings->bitmaps) {
        rc = q2_convert_check_new(c, &options, err);
        return rc ? rc
                  : q2_stream_out(c->sources, c->n_sources, c->size, STDOUT_FILENO, mon,
                                  err);
    }
    if (!rc)
        rc = q2_spool_open(&c->out, err);
    c->target_path = c->out.path;
    if (!rc)
        rc = convert(c, mon, err);
    return rc ? rc : q2_spool_drain(&c->out, STDOUT_FILENO, mon, err);
}

int q2_convert_images(const struct q2_command_line *line, struct q2_convert_settings *s,
                      struct q2_error *err)
{
    struct q2_progress progress;
    struct q2_conversion c = {
        .settings = s,
        .target_name = line->operands[line->n_operands - 1],
        .n_sources = (unsigned)line->n_operands - 1,
        .image = {.format = s->target_format ? s->target_format : "raw", .copied = true},
        .in = Q2_NO_SPOOL,
        .out = Q2_NO_SPOOL,
    };
    c.to_stream = q2_is_stream(c.target_name) && !s->no_create;
    q2_progress_start(&progress, line, !c.to_stream, 1);
    s->copy.count_first = progress.shown;
    int rc = s->no_create ? 0 : q2_new_path(c.target_name, &c.target_name, err);
    c.target_path = c.target_name;
    if (!rc)
        rc = open_sources(&c, line, &progress.monitor, err);
    if (!rc)
        rc = c.to_stream ? convert_to_stream(&c, &progress.monitor, err)
                         : convert(&c, &progress.monitor, err);
    clean_up(&c, !rc);
    q2_progress_end(&progress, !rc);
    return rc;
}
