// SPDX-License-Identifier: MIT
// dd: a part of a disk, counted in blocks, as a new disk.
#include "cmd/dd.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "cmd/choices.h"
#include "cmd/options.h"

static const struct q2_option dd_options[] = {
    {"format", "f", "FMT", Q2_OPTION_FORMAT, "Input", "raw or qcow2 (default: probed)"},
    {"image-opts", "", NULL, Q2_OPTION_IMAGE_OPTS, "Input", "INPUT is KEY=VALUE,..."},
    {"output-format", "O", "FMT", 'O', "Output", "raw (default) or qcow2"},
    {"skip-create", "n", NULL, 'n', "Output", "write into the image that is there"},
    Q2_SHARE_ROW("Input"),
    Q2_OBJECT_ROW("Input"),
    Q2_ROW_END,
};

static int take_option(struct q2_command_line *line, int code, const char *value,
                       struct q2_error *err)
{
    struct q2_dd_settings *s = line->settings;
    (void)err;
    if (code == 'O')
        s->output_format = value;
    if (code == 'n')
        s->no_create = true;
    return 0;
}

static int take_count(struct q2_dd_settings *s, const char *value, struct q2_error *err)
{
    s->blocks.count_given = true;
    return q2_value_size("count", value, &s->blocks.count, err);
}

static int take_isize(struct q2_dd_settings *s, const char *value, struct q2_error *err)
{
    int rc = q2_value_size("isize", value, &s->isize, err);
    s->isize_given = s->isize > 0;
    return rc;
}

static int take_osize(struct q2_dd_settings *s, const char *value, struct q2_error *err)
{
    s->osize_given = true;
    return q2_value_size("osize", value, &s->osize, err);
}

static int take_operand(struct q2_dd_settings *s, const char *name, size_t n,
                        const char *value, struct q2_error *err)
{
    const struct q2_choice *c = q2_choices_dd;
    while (c->name && (strlen(c->name) != n || strncmp(c->name, name, n) != 0))
        c++;
    switch (c->name ? c->value : -1) {
    case Q2_DD_IF:
        s->input = value;
        return 0;
    case Q2_DD_OF:
        s->output = value;
        return 0;
    case Q2_DD_BS:
        return q2_value_size_in("bs", value, 1, INT_MAX, &s->blocks.block, err);
    case Q2_DD_COUNT:
        return take_count(s, value, err);
    case Q2_DD_SKIP:
        return q2_value_size("skip", value, &s->blocks.skip, err);
    case Q2_DD_ISIZE:
        return take_isize(s, value, err);
    case Q2_DD_OSIZE:
        return take_osize(s, value, err);
    }
    return q2_fail(err, -EINVAL, "unrecognized operand %.*s", (int)n, name);
}

static int take_operands(const struct q2_command_line *line, struct q2_error *err)
{
    struct q2_dd_settings *s = line->settings;
    int rc = 0;
    for (int i = 0; i < line->n_operands && !rc; i++) {
        const char *text = line->operands[i], *equals = strchr(text, '=');
        rc = equals ? take_operand(s, text, (size_t)(equals - text), equals + 1, err)
                    : q2_fail(err, -EINVAL, "unrecognized operand %s", text);
    }
    if (!rc && (!s->input || !s->output))
        rc = q2_fail(err, -EINVAL, "Must specify both input and output files");
    return rc;
}

static int dd_run(struct q2_command_line *line, struct q2_error *err)
{
    struct q2_dd_settings s = {.output_format = "raw", .blocks = {.block = 512}};
    line->settings = &s;
    int rc = q2_options_parse(line, take_option, err);
    if (!rc)
        rc = take_operands(line, err);
    if (!rc)
        rc = q2_dd_copy(line, &s, err);
    return rc < 0;
}

const struct q2_command q2_cmd_dd = {
    .name = "dd",
    .summary = "Copy a part of a disk, counted in blocks",
    .operands =
        "[bs=SIZE] [skip=N] [count=N] [isize=SIZE] [osize=SIZE] if=INPUT of=OUTPUT",
    .options = dd_options,
    .examples = {"dd bs=1M count=100 if=disk.qcow2 of=start.raw",
                 "dd -O qcow2 bs=1G skip=2 if=disk.raw of=rest.qcow2"},
    .writes = true,
    .run = dd_run,
};
