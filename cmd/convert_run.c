// SPDX-License-Identifier: MIT
// convert, the run: all sources are open before anything of the target is touched, and a
// target that was not finished is taken away again.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "cmd/convert.h"
#include "cmd/create_options.h"
#include "cmd/opening.h"
#include "cmd/progress.h"
#include "image/open.h"
#include "image/probe.h"
#include "ops/create.h"

#define SECTOR 512U

struct conversion {
    struct q2_convert_settings *settings;
    const char *target_name;
    struct q2_disk **sources;
    unsigned n_sources;
    uint64_t size; // of all sources together
    struct q2_new_image image;
    struct q2_disk *backing; // of the target, until the target owns it
    struct q2_disk *target;
    bool made;
};

static int open_sources(struct conversion *c, char *const *names, struct q2_error *err)
{
    const struct q2_convert_settings *s = c->settings;
    struct q2_open_options options = {.format = s->source_format,
                                      .unsafe_share = s->shared,
                                      .snapshot = s->snapshot,
                                      .file = s->source_file};
    unsigned n = c->n_sources;
    options.file.sequential = true;
    if (s->snapshot && n > 1)
        return q2_fail(err, -EINVAL, "No support for concatenating multiple snapshot");
    c->sources = calloc(n, sizeof(struct q2_disk *));
    if (!c->sources)
        return q2_fail_memory(err, n * sizeof(struct q2_disk *));
    for (unsigned i = 0; i < n; i++) {
        int rc = q2_disk_open(names[i], &options, &c->sources[i], err);
        if (rc)
            return rc;
        if (!q2_add_u64(c->size, c->sources[i]->size, &c->size) || c->size > INT64_MAX)
            return q2_fail(err, -EFBIG, "The sources are too large together");
    }
    return 0;
}

static int collect_options(struct conversion *c, struct q2_error *err)
{
    struct q2_convert_settings *s = c->settings;
    int rc = s->lists ? q2_new_image_parse(&c->image, s->lists, err) : 0;
    if (!rc)
        rc = q2_new_image_set_size(&c->image, c->size, err);
    if (!rc && s->backing_file)
        rc = q2_new_image_set(&c->image, Q2_KEY_BACKING_FILE, s->backing_file, err);
    if (!rc && s->backing_format)
        rc = q2_new_image_set(&c->image, Q2_KEY_BACKING_FORMAT, s->backing_format, err);
    if (c->image.text[Q2_KEY_BACKING_FILE])
        s->backing_file = c->image.text[Q2_KEY_BACKING_FILE];
    return rc;
}

static bool is_on(const struct q2_new_image *image, enum q2_create_key key)
{
    return image->text[key] && image->number[key];
}

static int check_backing(const struct conversion *c, struct q2_error *err)
{
    const struct q2_convert_settings *s = c->settings;
    if (!s->backing_file)
        return 0;
    if (s->copy.target_is_zero)
        return q2_fail(err, -EINVAL,
                       "Cannot use --target-is-zero when the destination image has a "
                       "backing file");
    if (c->n_sources > 1)
        return q2_fail(err, -EINVAL,
                       "Having a backing file for the target makes no sense when "
                       "concatenating multiple input images");
    if (!s->no_create && !c->image.text[Q2_KEY_BACKING_FORMAT])
        return q2_fail(err, -EINVAL,
                       "Use of backing file requires explicit backing format");
    return 0;
}

static int check_compression(const struct conversion *c, const char *format,
                             struct q2_error *err)
{
    const char *preallocation = c->image.text[Q2_KEY_PREALLOCATION];
    if (!c->settings->copy.compress)
        return 0;
    if (strcmp(format, "qcow2"))
        return q2_fail(err, -ENOTSUP, "Compression not supported for this file format");
    if (is_on(&c->image, Q2_KEY_ENCRYPTION) || c->image.text[Q2_KEY_ENCRYPT_FORMAT])
        return q2_fail(err, -EINVAL,
                       "Compression and encryption not supported at the same time");
    if (preallocation && strcmp(preallocation, "off"))
        return q2_fail(err, -EINVAL,
                       "Compression and preallocation not supported at the same time");
    return 0;
}

// The target's backing file is read where the copy fills a cluster in part.
static int open_backing(struct conversion *c, struct q2_error *err)
{
    struct q2_open_options options = {.format = c->image.text[Q2_KEY_BACKING_FORMAT],
                                      .unsafe_share = c->settings->shared,
                                      .file = c->settings->source_file};
    if (!c->settings->backing_file)
        return 0;
    int rc = q2_open_backing(c->target_name, c->settings->backing_file, &options,
                             &c->backing, err);
    if (!rc)
        return 0;
    q2_context(err, "Could not open backing file");
    return q2_context(err, "Could not open '%s'", c->target_name);
}

static int create_target(struct conversion *c, const struct q2_monitor *mon,
                         struct q2_error *err)
{
    struct q2_create_options options;
    int rc = q2_new_image_resolve(&c->image, &options, err);
    if (!rc && options.backing_format && !options.backing_file)
        rc = q2_fail(err, -EINVAL, "Backing format cannot be used without backing file");
    if (!rc)
        rc = q2_create_validate(&options, err);
    if (!rc)
        rc = q2_create_open(c->target_name, &options, &c->settings->target_file, mon,
                            &c->target, &c->made, err);
    if (rc)
        return q2_context(err, "%s: error while converting %s", c->target_name,
                          c->image.format);
    if (!c->target->backing) {
        c->target->backing = c->backing;
        c->backing = NULL;
    }
    return 0;
}

// New clusters of a qcow2 image read as zeros wherever it lies; bytes of a file that was
// made longer do, those of a device do not.
static bool reads_as_zeros(const struct conversion *c)
{
    bool preallocated = c->image.text[Q2_KEY_PREALLOCATION] &&
                        strcmp(c->image.text[Q2_KEY_PREALLOCATION], "off");
    if (c->target->backing)
        return false;
    return c->target->file->sparse_growth ||
           (!strcmp(c->image.format, "qcow2") && !preallocated);
}

static int prepare_new(struct conversion *c, const struct q2_monitor *mon,
                       struct q2_error *err)
{
    struct q2_convert_options *copy = &c->settings->copy;
    if (!q2_format_known(c->image.format))
        return q2_fail(err, -EINVAL, "Unknown file format '%s'", c->image.format);
    int rc = collect_options(c, err);
    if (!rc)
        rc = check_backing(c, err);
    if (!rc)
        rc = check_compression(c, c->image.format, err);
    if (!rc)
        rc = open_backing(c, err);
    if (!rc)
        rc = create_target(c, mon, err);
    if (rc)
        return rc;
    copy->target_is_zero = reads_as_zeros(c);
    copy->target_has_backing = c->target->backing != NULL;
    copy->target_backing_size = c->target->backing ? c->target->backing->size : 0;
    return 0;
}

static int prepare_existing(struct conversion *c, struct q2_error *err)
{
    struct q2_convert_options *copy = &c->settings->copy;
    struct q2_open_options options = {
        .format = c->image.format, .writable = true, .file = c->settings->target_file};
    int rc = check_backing(c, err);
    if (!rc)
        rc = q2_disk_open(c->target_name, &options, &c->target, err);
    if (!rc)
        rc = check_compression(c, c->target->ops->format, err);
    if (!rc && c->target->size < c->size)
        rc = q2_fail(err, -ENOSPC, "output file is smaller than input file");
    copy->target_has_backing = c->settings->backing_file != NULL;
    copy->target_backing_size = UINT64_MAX; // where it ends is its image's own affair
    return rc;
}

static int copy_and_finish(struct conversion *c, const struct q2_monitor *mon,
                           struct q2_error *err)
{
    int rc =
        q2_convert(c->sources, c->n_sources, c->target, &c->settings->copy, mon, err);
    if (rc)
        return rc;
    return c->settings->no_create ? q2_disk_flush(c->target, err)
                                  : q2_create_publish(c->target, err);
}

static void clean_up(struct conversion *c, bool success)
{
    if (c->target && !success && !c->settings->no_create)
        q2_create_abandon(c->target, c->made);
    else
        q2_disk_close(c->target);
    q2_disk_close(c->backing);
    for (unsigned i = 0; c->sources && i < c->n_sources; i++)
        q2_disk_close(c->sources[i]);
    free(c->sources);
    q2_new_image_clear(&c->image);
}

int q2_convert_images(const struct q2_command_line *line, struct q2_convert_settings *s,
                      struct q2_error *err)
{
    struct q2_progress progress;
    struct conversion c = {
        .settings = s,
        .target_name = line->operands[line->n_operands - 1],
        .n_sources = (unsigned)line->n_operands - 1,
        .image = {.format = s->target_format ? s->target_format : "raw"},
    };
    q2_progress_start(&progress, line, s->progress, s->quiet, 1);
    int rc = open_sources(&c, line->operands, err);
    if (!rc)
        rc = s->no_create ? prepare_existing(&c, err)
                          : prepare_new(&c, &progress.monitor, err);
    if (!rc)
        rc = copy_and_finish(&c, &progress.monitor, err);
    clean_up(&c, !rc);
    q2_progress_end(&progress, !rc);
    return rc;
}
