// SPDX-License-Identifier: MIT
// bitmap: persistent bitmaps are added, removed, emptied, switched on and off, merged.
#include <errno.h>
#include <stdlib.h>

#include "cmd/opening.h"
#include "cmd/options.h"
#include "cmd/progress.h"
#include "ops/bitmap.h"

enum {
    OPTION_ADD = Q2_OPTION_FIRST_OWN,
    OPTION_REMOVE,
    OPTION_CLEAR,
    OPTION_ENABLE,
    OPTION_DISABLE,
    OPTION_MERGE,
};

static const struct q2_option bitmap_options[] = {
    {"add", "", NULL, OPTION_ADD, "Action", "make a bitmap, empty and enabled"},
    {"remove", "", NULL, OPTION_REMOVE, "Action", "delete it"},
    {"clear", "", NULL, OPTION_CLEAR, "Action", "nothing is dirty any more"},
    {"enable", "", NULL, OPTION_ENABLE, "Action", "record writes from now on"},
    {"disable", "", NULL, OPTION_DISABLE, "Action", "leave it as it is from now on"},
    {"merge", "", "SOURCE", OPTION_MERGE, "Action", "add what is dirty in bitmap SOURCE"},
    {"granularity", "g", "SIZE", 'g', "Action",
     "of --add (default: cluster size, 4k to 64k)"},
    {"source-file", "b", "FILE", 'b', "Action", "image that --merge takes SOURCE from"},
    {"source-format", "F", "FMT", 'F', "Action", "format of that image"},
    Q2_ROW_FORMAT,
    Q2_ROW_IMAGE_OPTS,
    Q2_ROW_OBJECT,
    Q2_ROW_END,
};

struct settings {
    struct q2_bitmap_action *actions;
    unsigned n_actions;
    bool add, merge;
    uint64_t granularity;
    const char *source_file, *source_format;
};

static int take_action(struct settings *s, int code, const char *value,
                       struct q2_error *err)
{
    struct q2_bitmap_action *longer =
        realloc(s->actions, (s->n_actions + 1) * sizeof(*longer));
    if (!longer)
        return q2_fail_memory(err, (s->n_actions + 1) * sizeof(*longer));
    s->actions = longer;
    longer[s->n_actions++] = (struct q2_bitmap_action){
        .act = (enum q2_bitmap_act)(code - OPTION_ADD), .source = value};
    s->add = s->add || code == OPTION_ADD;
    s->merge = s->merge || code == OPTION_MERGE;
    return 0;
}

static int take_option(struct q2_command_line *line, int code, const char *value,
                       struct q2_error *err)
{
    struct settings *s = line->settings;
    switch (code) {
    case 'g':
        return q2_value_size("granularity", value, &s->granularity, err);
    case 'b':
        s->source_file = value;
        break;
    case 'F':
        s->source_format = value;
        break;
    default:
        return take_action(s, code, value, err);
    }
    return 0;
}

static int check_together(const struct q2_command_line *line, struct q2_error *err)
{
    const struct settings *s = line->settings;
    if (s->n_actions == 0)
        return q2_fail(err, -EINVAL,
                       "Need at least one of --add, --remove, --clear, --enable, "
                       "--disable, or --merge");
    if (s->granularity > 0 && !s->add)
        return q2_fail(err, -EINVAL, "granularity only supported with --add");
    if (s->source_format && !s->source_file)
        return q2_fail(err, -EINVAL, "-F only supported with -b");
    if (s->source_file && !s->merge)
        return q2_fail(err, -EINVAL,
                       "Merge bitmap source file only supported with --merge");
    if (line->n_operands != 2)
        return q2_fail(err, -EINVAL, "Expecting filename and bitmap name");
    return 0;
}

static int change(struct q2_command_line *line, struct q2_disk *d, struct q2_disk *source,
                  struct q2_error *err)
{
    const struct settings *s = line->settings;
    const struct q2_bitmap_request request = {.name = line->operands[1],
                                              .granularity = s->granularity,
                                              .source = source,
                                              .actions = s->actions,
                                              .n_actions = s->n_actions};
    struct q2_error later = Q2_ERROR_INIT;
    int rc = q2_bitmap_change(d, &request, err);
    int finished = q2_disk_finish(d, rc ? &later : err);
    return rc ? rc : finished;
}

static int change_bitmap(struct q2_command_line *line, struct q2_error *err)
{
    const struct settings *s = line->settings;
    const struct q2_open_options options = {.writable = true, .metadata_only = true};
    const struct q2_open_options of_source = {.format = s->source_format,
                                              .metadata_only = true};
    struct q2_disk *d = NULL, *source = NULL;
    struct q2_progress progress;
    q2_progress_start(&progress, line, false, 1);
    int rc =
        q2_open_operand(line, line->operands[0], &options, &progress.monitor, &d, err);
    if (!rc)
        q2_warn_of_probing(d);
    if (!rc && s->source_file)
        rc = q2_open_named(s->source_file, false, &of_source, NULL, &source, err);
    if (!rc)
        rc = change(line, d, source, err);
    q2_disk_close(source);
    q2_disk_close(d);
    return rc;
}

static int bitmap_run(struct q2_command_line *line, struct q2_error *err)
{
    struct settings s = {.actions = NULL};
    line->settings = &s;
    int rc = q2_options_parse(line, take_option, err);
    if (!rc)
        rc = check_together(line, err);
    if (!rc)
        rc = change_bitmap(line, err);
    free(s.actions);
    return rc < 0;
}

const struct q2_command q2_cmd_bitmap = {
    .name = "bitmap",
    .summary = "Change the persistent bitmaps of an image",
    .operands = "FILE BITMAP",
    .options = bitmap_options,
    .examples = {"bitmap --add -g 64k vm.qcow2 since-backup",
                 "bitmap --merge since-backup --clear vm.qcow2 all"},
    .writes = true,
    .run = bitmap_run,
};
