// SPDX-License-Identifier: MIT
// create: a new, empty image.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/create_options.h"
#include "cmd/opening.h"
#include "cmd/options.h"
#include "cmd/progress.h"
#include "image/chain.h"
#include "image/open.h"
#include "image/probe.h"

static const struct q2_option create_options[] = {
    {"format", "f", "FMT", Q2_OPTION_FORMAT, "Image", "raw (default) or qcow2"},
    {"options", "o", "OPTS", 'o', "Image", "KEY=VALUE,...; -o help lists them"},
    {"backing", "b", "FILE", 'b', "Backing file",
     "read from FILE what is not written yet"},
    {"backing-format", "FB", "FMT", 'F', "Backing file", "its format"},
    {"backing-unsafe", "u", NULL, 'u', "Backing file", "do not open it"},
    Q2_ROW_QUIET,
    Q2_ROW_OBJECT,
    Q2_ROW_END,
};

struct settings {
    const char *format;
    const char *backing_file;
    const char *backing_format;
    char *lists; // of -o; owned
    bool unsafe;
};

static int take_option(struct q2_command_line *line, int code, const char *value,
                       struct q2_error *err)
{
    struct settings *s = line->settings;
    switch (code) {
    case 'o':
        return q2_option_list_append(&s->lists, value, err);
    case 'b':
        s->backing_file = value;
        break;
    case 'F':
        s->backing_format = value;
        break;
    case 'u':
        s->unsafe = true;
        break;
    }
    return 0;
}

// -o, -b and -F meet in image. size_given: the size was an argument of its own.
static int collect(const struct settings *s, const uint64_t *size_given,
                   struct q2_new_image *image, struct q2_error *err)
{
    int rc = s->lists ? q2_new_image_parse(image, s->lists, err) : 0;
    if (!rc && size_given && image->text[Q2_KEY_SIZE])
        return q2_fail(err, -EINVAL, "The image size must be specified only once");
    if (!rc && size_given)
        rc = q2_new_image_set_size(image, *size_given, err);
    if (!rc && s->backing_file)
        rc = q2_new_image_set(image, Q2_KEY_BACKING_FILE, s->backing_file, err);
    if (!rc && s->backing_format)
        rc = q2_new_image_set(image, Q2_KEY_BACKING_FORMAT, s->backing_format, err);
    return rc;
}

// Opens the backing file, which proves that there is one, and takes its size.
static int measure_backing(const char *filename, struct q2_new_image *image,
                           struct q2_error *err)
{
    const char *format = image->text[Q2_KEY_BACKING_FORMAT];
    // Beside a machine that uses it: nothing of it is read but what it says of itself.
    struct q2_open_options options = {
        .format = format, .no_key = true, .unsafe_share = true};
    struct q2_disk *backing;
    int rc = q2_open_backing(filename, image->text[Q2_KEY_BACKING_FILE], &options,
                             &backing, err);
    if (rc) {
        q2_hint(err, "Could not open backing image.");
        return rc;
    }
    const char *data_file = image->text[Q2_KEY_DATA_FILE];
    if (q2_chain_has_file(backing, filename) ||
        (data_file && q2_chain_has_file(backing, data_file))) {
        rc = q2_fail(err, -EINVAL,
                     "The new image would overwrite its own backing file '%s'",
                     image->text[Q2_KEY_BACKING_FILE]);
    } else if (!format) {
        rc = q2_fail(err, -EINVAL, "Backing file specified without backing format");
        q2_hint(err, "Detected format of %s.", backing->ops->format);
    } else if (!image->text[Q2_KEY_SIZE]) {
        rc = q2_new_image_set_size(image, backing->size, err);
    }
    q2_disk_close(backing);
    return rc;
}

static int settle_backing(const char *filename, bool unsafe, struct q2_new_image *image,
                          struct q2_error *err)
{
    const char *file = image->text[Q2_KEY_BACKING_FILE];
    const char *format = image->text[Q2_KEY_BACKING_FORMAT];
    if (!file)
        return 0;
    if (!*file)
        return q2_fail(err, -EINVAL, "Expected backing file name, got empty string");
    if (!strcmp(filename, file))
        return q2_fail(err, -EINVAL,
                       "Error: Trying to create an image with the same filename as the "
                       "backing file");
    if (!unsafe)
        return measure_backing(filename, image, err);
    if (!format)
        return q2_fail(err, -EINVAL, "Backing file specified without backing format");
    return 0;
}

static int make(const struct q2_command_line *line, const char *filename,
                struct q2_new_image *image, struct q2_error *err)
{
    struct q2_create_options options;
    struct q2_progress progress;
    if (!line->common.quiet)
        q2_new_image_print(image, line->operands[0]);
    int rc = q2_new_image_resolve(image, &options, err);
    if (!rc)
        rc = q2_create_validate(&options, err);
    if (!rc) {
        fflush(stdout);
        q2_progress_start(&progress, line, false, 1);
        rc = q2_create(filename, &options, &progress.monitor, err);
        q2_progress_end(&progress, !rc);
    }
    if (rc == -EFBIG) // whoever noticed: what counts is what to do about it
        rc = q2_fail(
            err, rc, "The image size is too large for file format '%s'%s", image->format,
            strcmp(image->format, "raw") ? " (try using a larger cluster size)" : "");
    return rc;
}

static int create_image(const struct q2_command_line *line, const struct settings *s,
                        const uint64_t *size_given, struct q2_error *err)
{
    const char *filename = line->operands[0];
    struct q2_new_image image = {.format = s->format};
    int rc = q2_new_path(filename, &filename, err);
    if (!rc && !q2_format_known(s->format))
        rc = q2_fail(err, -EINVAL, "Unknown file format '%s'", s->format);
    if (!rc)
        rc = collect(s, size_given, &image, err);
    if (!rc)
        rc = settle_backing(filename, s->unsafe, &image, err);
    if (!rc && !image.text[Q2_KEY_SIZE])
        rc = q2_fail(err, -EINVAL, "Image creation needs a size parameter");
    if (!rc)
        rc = make(line, filename, &image, err);
    q2_new_image_clear(&image);
    return rc ? q2_context(err, "%s", filename) : 0;
}

static int check_operands(const struct q2_command_line *line, struct q2_error *err)
{
    if (line->n_operands < 1)
        return q2_options_misuse(line, err, "Expecting image file name");
    if (line->n_operands > 2)
        return q2_options_misuse(line, err, "Unexpected argument: %s", line->operands[2]);
    return 0;
}

static int create_with(struct q2_command_line *line, struct settings *s,
                       struct q2_error *err)
{
    uint64_t size = 0;
    bool size_given = line->n_operands > 1;
    s->format = line->common.format ? line->common.format : "raw";
    if (s->lists && q2_option_list_asks_help(s->lists))
        return q2_key_print_help(s->format, line->n_operands > 0, err);
    int rc = check_operands(line, err);
    if (!rc && size_given)
        rc = q2_value_size("image size", line->operands[1], &size, err);
    return rc ? rc : create_image(line, s, size_given ? &size : NULL, err);
}

static int create_run(struct q2_command_line *line, struct q2_error *err)
{
    struct settings s = {.lists = NULL};
    line->settings = &s;
    int rc = q2_options_parse(line, take_option, err);
    if (!rc)
        rc = create_with(line, &s, err);
    free(s.lists);
    return rc < 0;
}

const struct q2_command q2_cmd_create = {
    .name = "create",
    .summary = "Make a new, empty image",
    .operands = "FILE [SIZE]",
    .options = create_options,
    .examples = {"create -f qcow2 disk.qcow2 20G",
                 "create -f qcow2 -b base.qcow2 -F qcow2 overlay.qcow2"},
    .writes = true,
    .run = create_run,
};
