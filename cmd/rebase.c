// SPDX-License-Identifier: MIT
// rebase: another backing file for an image.
#include <errno.h>
#include <string.h>

#include "cmd/opening.h"
#include "cmd/options.h"
#include "cmd/progress.h"
#include "image/chain.h"
#include "image/probe.h"
#include "ops/rebase.h"

static const struct q2_option rebase_options[] = {
    Q2_ROW_FORMAT,
    Q2_ROW_IMAGE_OPTS,
    {"cache", "t", "MODE", Q2_OPTION_CACHE, "Image", "cache mode (default: writeback)"},
    {"backing", "b", "FILE", 'b', "New backing file", "\"\": none any more"},
    {"backing-format", "FB", "FMT", 'F', "New backing file", "its format"},
    {"backing-cache", "T", "MODE", Q2_OPTION_SOURCE_CACHE, "New backing file",
     "cache mode (default: writeback)"},
    {"backing-unsafe", "u", NULL, 'u', "New backing file",
     "change the name alone, look at no contents"},
    {"compress", "c", NULL, 'c', "New backing file",
     "compress what has to be copied into the image"},
    Q2_ROW_SHARE,
    Q2_ROW_PROGRESS,
    Q2_ROW_QUIET,
    Q2_ROW_OBJECT,
    Q2_ROW_END,
};

struct settings {
    const char *backing; // as given; NULL: not
    bool unsafe;
    struct q2_rebase_options rebase;
    struct q2_file_options file, backing_file;
};

static int take_option(struct q2_command_line *line, int code, const char *value,
                       struct q2_error *err)
{
    struct settings *s = line->settings;
    (void)err;
    switch (code) {
    case 'b':
        s->backing = value;
        s->rebase.backing_file = *value ? value : NULL;
        break;
    case 'F':
        s->rebase.backing_format = value;
        break;
    case 'u':
        s->unsafe = true;
        break;
    case 'c':
        s->rebase.compress = true;
        break;
    }
    return 0;
}

// The new backing file: a layer that the image stands on already, or one to be opened,
// then *opened is it, too.
static int open_new(const struct q2_command_line *line, struct q2_disk *d,
                    struct q2_disk **backing, struct q2_disk **opened,
                    struct q2_error *err)
{
    const struct settings *s = line->settings;
    const struct q2_open_options options = {.format = s->rebase.backing_format,
                                            .unsafe_share = line->common.shared,
                                            .file = s->backing_file};
    *backing = q2_chain_find_backing(d, s->backing);
    if (*backing && options.format &&
        strcmp((*backing)->ops->format, options.format) != 0)
        *backing = NULL; // it will be read in another way than now
    if (*backing)
        return 0;
    bool json = !strncmp(s->backing, "json:", 5); // the user's own words, not an image's
    int rc = json ? q2_open_named(s->backing, false, &options, NULL, opened, err)
                  : q2_open_backing(d->path, s->backing, &options, opened, err);
    *backing = *opened;
    return rc ? q2_context(err, "Could not open new backing file '%s'", s->backing) : 0;
}

static int rebase_safely(const struct q2_command_line *line, struct q2_disk *d,
                         struct q2_progress *progress, struct q2_error *err)
{
    const struct settings *s = line->settings;
    struct q2_disk *backing = NULL, *opened = NULL;
    int rc = s->rebase.backing_file ? open_new(line, d, &backing, &opened, err) : 0;
    if (!rc)
        rc = q2_rebase_check(d, &s->rebase, err);
    if (!rc)
        rc = q2_rebase(d, backing, &s->rebase, &progress->monitor, err);
    q2_disk_close(opened);
    return rc;
}

static int rebase_unsafely(const struct settings *s, struct q2_disk *d,
                           struct q2_error *err)
{
    int rc = q2_rebase_check(d, &s->rebase, err);
    if (!rc)
        rc = q2_rebase_header(d, &s->rebase, err);
    return rc ? rc : q2_disk_finish(d, err);
}

static int rebase_disk(const struct q2_command_line *line, struct q2_disk *d,
                       struct q2_progress *progress, struct q2_error *err)
{
    const struct settings *s = line->settings;
    const char *format = s->rebase.backing_format;
    if (s->rebase.compress && !d->ops->write_begin_compressed)
        return q2_fail(err, -ENOTSUP, "Compression not supported for this file format");
    if (format && !q2_format_known(format))
        return q2_fail(err, -EINVAL, "Invalid format name: '%s'", format);
    return s->unsafe ? rebase_unsafely(s, d, err) : rebase_safely(line, d, progress, err);
}

static int rebase(struct q2_command_line *line, struct q2_error *err)
{
    struct settings *s = line->settings;
    struct q2_progress progress;
    struct q2_disk *d;
    int rc = q2_value_cache(line->common.cache, false, &s->file, err);
    if (!rc)
        rc = q2_value_cache(line->common.source_cache, true, &s->backing_file, err);
    if (rc)
        return rc;
    const struct q2_open_options options = {
        .writable = true, .metadata_only = s->unsafe, .file = s->file};
    const bool shared = line->common.shared; // of the new backing file alone
    q2_progress_start(&progress, line, true, 2);
    line->common.shared = false;
    rc = q2_open_operand(line, line->operands[0], &options, &progress.monitor, &d, err);
    line->common.shared = shared;
    if (!rc) {
        q2_warn_of_probing(d);
        rc = rebase_disk(line, d, &progress, err);
        q2_disk_close(d);
    }
    q2_progress_end(&progress, !rc);
    return rc;
}

static int rebase_run(struct q2_command_line *line, struct q2_error *err)
{
    struct settings s = {.backing = NULL};
    line->settings = &s;
    int rc = q2_options_parse(line, take_option, err);
    if (!rc)
        rc = q2_options_one_image(line, err);
    if (!rc && !s.unsafe && !s.backing)
        rc = q2_options_misuse(line, err,
                               "Must specify backing file (-b) or use unsafe mode (-u)");
    if (!rc)
        rc = rebase(line, err);
    return rc < 0;
}

const struct q2_command q2_cmd_rebase = {
    .name = "rebase",
    .summary = "Put an image on another backing file",
    .operands = "FILE",
    .options = rebase_options,
    .examples = {"rebase -b base.qcow2 -F qcow2 overlay.qcow2",
                 "rebase -u -b moved/base.qcow2 -F qcow2 overlay.qcow2"},
    .writes = true,
    .run = rebase_run,
};
