// SPDX-License-Identifier: MIT
// measure: how large the file of a new image would be.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "cmd/create_options.h"
#include "cmd/opening.h"
#include "cmd/options.h"
#include "cmd/output.h"
#include "cmd/progress.h"
#include "image/probe.h"
#include "ops/measure.h"

static const struct q2_option measure_options[] = {
    {"source-format", "f", "FMT", Q2_OPTION_FORMAT, "Source",
     "raw or qcow2 (default: probed)"},
    {"format", "", "FMT", Q2_OPTION_FORMAT, "Source", NULL},
    {"snapshot", "l", "SNAPSHOT", 'l', "Source", "read an internal snapshot"},
    {"image-opts", "", NULL, Q2_OPTION_IMAGE_OPTS, "Source", "FILE is KEY=VALUE,..."},
    {"source-image-opts", "", NULL, Q2_OPTION_IMAGE_OPTS, "Source", NULL},
    {"size", "s", "SIZE", 's', "Source", "an empty disk of that size, no FILE"},
    {"target-format", "O", "FMT", 'O', "New image", "raw (default) or qcow2"},
    {"target-format-options", "o", "OPTS", 'o', "New image",
     "KEY=VALUE,... as create takes them"},
    {"options", "", "OPTS", 'o', "New image", NULL},
    Q2_ROW_OUTPUT,
    Q2_SHARE_ROW("Source"),
    Q2_OBJECT_ROW("Source"),
    Q2_ROW_END,
};

struct settings {
    const char *snapshot;
    const char *target_format;
    char *lists; // of -o; owned
    bool size_given;
    uint64_t size;
};

static int take_option(struct q2_command_line *line, int code, const char *value,
                       struct q2_error *err)
{
    struct settings *s = line->settings;
    switch (code) {
    case 'l':
        s->snapshot = value;
        break;
    case 'O':
        s->target_format = value;
        break;
    case 'o':
        return q2_option_list_append(&s->lists, value, err);
    case 's':
        s->size_given = true;
        return q2_value_size("image size", value, &s->size, err);
    }
    return 0;
}

static int check_line(const struct q2_command_line *line, struct q2_error *err)
{
    const struct settings *s = line->settings;
    if (line->n_operands > 1)
        return q2_fail(err, -EINVAL, "At most one filename argument is allowed.");
    if (line->n_operands == 0 &&
        (line->common.image_opts || line->common.format || s->snapshot))
        return q2_fail(err, -EINVAL,
                       "--image-opts, -f, and -l require a filename argument.");
    if (line->n_operands == 1 && s->size_given)
        return q2_fail(err, -EINVAL, "--size N cannot be used together with a filename.");
    if (line->n_operands == 0 && !s->size_given)
        return q2_fail(err, -EINVAL,
                       "Either --size N or one filename must be specified.");
    return 0;
}

static int parse_lists(const struct q2_command_line *line, struct q2_new_image *image,
                       struct q2_error *err)
{
    const struct settings *s = line->settings;
    int rc = s->lists ? q2_new_image_parse(image, s->lists, err) : 0;
    if (rc && !err->hint[0])
        q2_hint(err, "%s: Invalid options for file format '%s'", line->program,
                image->format);
    if (!rc && s->size_given)
        rc = q2_new_image_set_size(image, s->size, err);
    return rc;
}

static int print(const struct q2_command_line *line, const struct q2_measurement *m,
                 struct q2_error *err)
{
    if (line->common.json) {
        json_t *o = json_object();
        if (m->has_bitmaps)
            json_object_set_new(o, "bitmaps", json_integer((json_int_t)m->bitmaps));
        json_object_set_new(o, "required", json_integer((json_int_t)m->required));
        json_object_set_new(o, "fully-allocated",
                            json_integer((json_int_t)m->fully_allocated));
        return q2_output_json(o, err);
    }
    printf("required size: %" PRIu64 "\nfully allocated size: %" PRIu64 "\n", m->required,
           m->fully_allocated);
    if (m->has_bitmaps)
        printf("bitmaps size: %" PRIu64 "\n", m->bitmaps);
    return 0;
}

static int measure_as(const struct q2_command_line *line, struct q2_new_image *image,
                      struct q2_disk *source, struct q2_error *err)
{
    struct q2_create_options options;
    struct q2_measurement m;
    struct q2_progress progress;
    if (!q2_format_known(image->format))
        return q2_fail(err, -EINVAL, "Unknown file format '%s'", image->format);
    int rc = parse_lists(line, image, err);
    if (!rc)
        rc = q2_new_image_resolve(image, &options, err);
    q2_progress_start(&progress, line, false, 1);
    if (!rc)
        rc = q2_measure(&options, source, &progress.monitor, &m, err);
    if (!rc)
        rc = print(line, &m, err);
    return rc;
}

static int measure(struct q2_command_line *line, struct q2_error *err)
{
    const struct settings *s = line->settings;
    const struct q2_open_options options = {.snapshot = s->snapshot,
                                            .beside_writer = true};
    struct q2_new_image image = {.format = s->target_format, .measures = true};
    struct q2_disk *source = NULL;
    int rc = check_line(line, err);
    if (!rc && line->n_operands > 0)
        rc = q2_open_operand(line, line->operands[0], &options, NULL, &source, err);
    if (!rc)
        rc = measure_as(line, &image, source, err);
    q2_disk_close(source);
    q2_new_image_clear(&image);
    return rc;
}

static int measure_run(struct q2_command_line *line, struct q2_error *err)
{
    struct settings s = {.target_format = "raw"};
    line->settings = &s;
    int rc = q2_options_parse(line, take_option, err);
    if (!rc)
        rc = measure(line, err);
    free(s.lists);
    return rc < 0;
}

const struct q2_command q2_cmd_measure = {
    .name = "measure",
    .summary = "Tell how large a new image's file would be",
    .operands = "[FILE]",
    .options = measure_options,
    .examples = {"measure -O qcow2 --size 20G", "measure -O qcow2 disk.raw"},
    .run = measure_run,
};
