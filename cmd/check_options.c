// SPDX-License-Identifier: MIT
// The options of check: the table, and what they mean.
#include "cmd/check_options.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "cmd/choices.h"
#include "cmd/opening.h"
#include "disk/header.h"

enum {
    OPTION_DRY_RUN = Q2_OPTION_FIRST_OWN,
    OPTION_UNDO_FILE,
    OPTION_UNDO,
    OPTION_DETAILS,
    OPTION_READ_DATA,
    OPTION_CLEAR_FEATURE,
    OPTION_CHAIN,
};

const struct q2_option q2_check_options[] = {
    {"repair", "r", "WHAT", 'r', "Repair",
     "leaks, or all (may lose guest data, and says so)"},
    {"dry-run", "", NULL, OPTION_DRY_RUN | Q2_OPTION_OURS, "Repair",
     "show the repair, write nothing"},
    {"undo-file", "", "FILE", OPTION_UNDO_FILE | Q2_OPTION_OURS, "Repair",
     "keep what is needed to take it back"},
    {"undo", "", "FILE", OPTION_UNDO | Q2_OPTION_OURS, "Repair",
     "take the repair of that file back"},
    {"clear-feature", "", "BIT", OPTION_CLEAR_FEATURE | Q2_OPTION_OURS, "Repair",
     "clear an unknown incompatible feature bit"},
    {"backing-chain", "", NULL, OPTION_CHAIN | Q2_OPTION_OURS, "Check",
     "check the backing files, too"},
    {"read-data", "", NULL, OPTION_READ_DATA | Q2_OPTION_OURS, "Check",
     "read and inflate every cluster, too"},
    {"details", "", NULL, OPTION_DETAILS | Q2_OPTION_OURS, "Check",
     "with --output=json: list the findings"},
    Q2_ROW_FORMAT,
    {"cache", "T", "MODE", Q2_OPTION_SOURCE_CACHE, "Image",
     "cache mode (default: writeback)"},
    Q2_ROW_IMAGE_OPTS,
    Q2_ROW_OUTPUT,
    Q2_ROW_OUR_PROGRESS,
    Q2_ROW_QUIET,
    Q2_ROW_SHARE,
    Q2_ROW_OBJECT,
    Q2_ROW_END,
};

static int take_repair(struct q2_command_line *line, struct q2_check_settings *s,
                       const char *value, struct q2_error *err)
{
    const struct q2_choice *c = q2_choice_find(q2_choices_repair, value);
    s->request.repair = true;
    if (!c)
        return q2_options_misuse(
            line, err, "--repair (-r) expects 'leaks' or 'all', not '%s'", value);
    s->request.mode = (enum q2_repair_mode)c->value;
    return 0;
}

static int take_feature(struct q2_check_settings *s, const char *value,
                        struct q2_error *err)
{
    uint64_t bit = 0;
    int ret = q2_value_number("--clear-feature", value, 0, 63, &bit, err);
    if (ret < 0)
        return ret;
    if (Q2_INCOMPAT_KNOWN & (UINT64_C(1) << bit))
        return q2_fail(err, -EINVAL,
                       "Feature bit %" PRIu64 " is known; check does not clear it", bit);
    s->request.clear_features |= UINT64_C(1) << bit;
    return 0;
}

static int take_option(struct q2_command_line *line, int code, const char *value,
                       struct q2_error *err)
{
    struct q2_check_settings *s = line->settings;
    switch (code) {
    case 'r':
        return take_repair(line, s, value, err);
    case OPTION_DRY_RUN:
        s->request.dry_run = true;
        break;
    case OPTION_UNDO_FILE:
        s->request.undo_file = value;
        break;
    case OPTION_UNDO:
        s->undo = value;
        break;
    case OPTION_DETAILS:
        s->details = true;
        break;
    case OPTION_CHAIN:
        s->chain = true;
        break;
    case OPTION_CLEAR_FEATURE:
        return take_feature(s, value, err);
    case OPTION_READ_DATA:
        s->request.read_data = true;
        break;
    }
    return 0;
}

static int refuse_share(const char *text, struct q2_error *err)
{
    return q2_fail(err, -EINVAL,
                   "Could not open '%s': force-share=on can only be used with read-only "
                   "images",
                   text);
}

static int check_usage(struct q2_command_line *line, const struct q2_check_settings *s,
                       struct q2_error *err)
{
    struct q2_file_options ignored = {0};
    int ret = q2_options_one_image(line, err);
    if (ret == 0 && !s->request.repair && (s->request.dry_run || s->request.undo_file))
        ret = q2_options_misuse(line, err, "--dry-run and --undo-file go with --repair");
    if (ret == 0 && line->common.shared &&
        (s->undo || (s->request.repair && !s->request.dry_run)))
        ret = refuse_share(line->operands[0], err);
    if (ret == 0 && s->chain && (s->undo || s->request.undo_file))
        ret = q2_options_misuse(line, err,
                                "--undo-file and --undo are of one image: they do not go "
                                "with --backing-chain");
    if (ret == 0 && s->undo && s->request.repair)
        ret = q2_options_misuse(line, err, "--undo and --repair exclude each other");
    return ret < 0 ? ret : q2_value_cache(line->common.source_cache, true, &ignored, err);
}

static int take_name(const struct q2_command_line *line, struct q2_check_settings *s,
                     struct q2_error *err)
{
    const struct q2_common_options *c = &line->common;
    const char *text = line->operands[0];
    bool writes = s->undo || (s->request.repair && !s->request.dry_run);
    int ret = q2_named_parse(text, c->image_opts, c->format, &s->name, err);
    if (ret < 0)
        return ret;
    if (writes && s->name.read_only == Q2_ON)
        return q2_fail(err, -EROFS, "Could not open '%s': Block node is read-only", text);
    if (writes && s->name.force_share == Q2_ON)
        return refuse_share(text, err);
    s->request.shared = c->shared || s->name.force_share == Q2_ON;
    s->request.path = s->name.path;
    s->request.runtime = &s->name.runtime;
    s->shown = text;
    s->request.format = s->name.format;
    return 0;
}

int q2_check_options_parse(struct q2_command_line *line, struct q2_check_settings *s,
                           struct q2_error *err)
{
    line->settings = s;
    s->common = &line->common;
    int ret = q2_options_parse(line, take_option, err);
    if (ret == 0)
        ret = check_usage(line, s, err);
    return ret == 0 ? take_name(line, s, err) : ret;
}
