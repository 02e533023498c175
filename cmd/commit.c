// SPDX-License-Identifier: MIT
// commit: what an image holds into its backing file.
#include <errno.h>
#include <stdio.h>

#include "cmd/opening.h"
#include "cmd/options.h"
#include "cmd/progress.h"
#include "image/chain.h"
#include "ops/commit.h"

static const struct q2_option commit_options[] = {
    Q2_ROW_FORMAT,
    Q2_ROW_IMAGE_OPTS,
    {"cache", "t", "MODE", Q2_OPTION_CACHE, "Image", "cache mode (default: writeback)"},
    {"base", "b", "BASE", 'b', "Commit",
     "into this layer below, not the next; as with -d"},
    {"drop", "d", NULL, 'd', "Commit", "leave FILE as it is"},
    {"rate-limit", "r", "RATE", 'r', "Commit", "bytes per second"},
    Q2_ROW_PROGRESS,
    Q2_ROW_QUIET,
    Q2_ROW_OBJECT,
    Q2_ROW_END,
};

struct settings {
    const char *base;
    struct q2_commit_options commit;
    struct q2_file_options file;
};

static int take_option(struct q2_command_line *line, int code, const char *value,
                       struct q2_error *err)
{
    struct settings *s = line->settings;
    switch (code) {
    case 'b':
        s->base = value;
        s->commit.keep = true; // else what lies between would be lost
        break;
    case 'd':
        s->commit.keep = true;
        break;
    case 'r':
        return q2_value_size("rate limit", value, &s->commit.rate_limit, err);
    }
    return 0;
}

static int find_base(const struct q2_command_line *line, struct q2_disk *top,
                     struct q2_disk **base, struct q2_error *err)
{
    const struct settings *s = line->settings;
    *base = s->base ? q2_chain_find_backing(top, s->base) : top->backing;
    if (*base)
        return 0;
    if (s->base)
        return q2_fail(err, -ENOENT, "Did not find '%s' in the backing chain of '%s'",
                       s->base, line->operands[0]);
    return q2_fail(err, -EINVAL, "Image does not have a backing file");
}

static int commit_disk(const struct q2_command_line *line, struct q2_disk *top,
                       const struct q2_image_name *name, struct q2_progress *progress,
                       struct q2_error *err)
{
    const struct settings *s = line->settings;
    const struct q2_open_options options = {.writable = true, .file = s->file};
    struct q2_disk *base;
    q2_progress_start(progress, line, true, 1);
    int rc = find_base(line, top, &base, err);
    if (!rc)
        rc = q2_reopen_layer(name, top, base, &options, &progress->monitor, &base, err);
    if (!rc)
        rc = q2_commit(top, base, &s->commit, &progress->monitor, err);
    q2_progress_end(progress, !rc);
    return rc;
}

static int commit(struct q2_command_line *line, struct q2_error *err)
{
    struct settings *s = line->settings;
    struct q2_open_options options = {.writable = true};
    struct q2_progress progress;
    struct q2_image_name name;
    struct q2_disk *top;
    int rc = q2_value_cache(line->common.cache, false, &s->file, err);
    if (rc)
        return rc;
    options.file = s->file;
    q2_progress_start(&progress, line, false, 1);
    rc = q2_open_operand_name(line, line->operands[0], &options, &progress.monitor, &name,
                              &top, err);
    if (!rc) {
        q2_warn_of_probing(top);
        rc = commit_disk(line, top, &name, &progress, err);
        q2_disk_close(top);
    }
    q2_image_name_clear(&name);
    if (!rc && !line->common.quiet)
        printf("Image committed.\n");
    return rc;
}

static int commit_run(struct q2_command_line *line, struct q2_error *err)
{
    struct settings s = {.base = NULL};
    line->settings = &s;
    int rc = q2_options_parse(line, take_option, err);
    if (!rc)
        rc = q2_options_one_image(line, err);
    if (!rc)
        rc = commit(line, err);
    return rc < 0;
}

const struct q2_command q2_cmd_commit = {
    .name = "commit",
    .summary = "Write what an image holds into its backing file",
    .operands = "FILE",
    .options = commit_options,
    .examples = {"commit overlay.qcow2", "commit -p -b base.qcow2 overlay.qcow2"},
    .writes = true,
    .run = commit_run,
};
