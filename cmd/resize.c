// SPDX-License-Identifier: MIT
// resize: another size for a disk.
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/size.h"
#include "cmd/choices.h"
#include "cmd/opening.h"
#include "cmd/options.h"
#include "cmd/progress.h"
#include "ops/resize.h"

enum { OPTION_SHRINK = Q2_OPTION_FIRST_OWN, OPTION_PREALLOCATION };

static const struct q2_option resize_options[] = {
    Q2_ROW_FORMAT,
    Q2_ROW_IMAGE_OPTS,
    {"shrink", "", NULL, OPTION_SHRINK, "Size", "allow a smaller size: data is lost"},
    {"preallocation", "", "MODE", OPTION_PREALLOCATION, "Size",
     "of new space: off, metadata, falloc, full"},
    Q2_ROW_OUR_PROGRESS,
    Q2_ROW_QUIET,
    Q2_ROW_OBJECT,
    Q2_ROW_END,
};

struct settings {
    enum q2_preallocation preallocation;
    bool shrink;
    const char *size; // as it was given
};

static int parse_preallocation(const char *text, enum q2_preallocation *mode,
                               struct q2_error *err)
{
    const struct q2_choice *c = q2_choice_find(q2_choices_preallocation, text);
    if (!c)
        return q2_fail(err, -EINVAL, "Invalid preallocation mode '%s'", text);
    *mode = (enum q2_preallocation)c->value;
    return 0;
}

static int take_option(struct q2_command_line *line, int code, const char *value,
                       struct q2_error *err)
{
    struct settings *s = line->settings;
    switch (code) {
    case OPTION_SHRINK:
        s->shrink = true;
        break;
    case OPTION_PREALLOCATION:
        return parse_preallocation(value, &s->preallocation, err);
    }
    return 0;
}

// "-16M" at the end, or behind a word that is no option (the file), is a size.
static int find_negative_size(const struct q2_command_line *line)
{
    for (int i = 2; i < line->argc; i++) {
        const char *word = line->argv[i];
        bool last = i == line->argc - 1;
        if (word[0] == '-' && isdigit((unsigned char)word[1]) &&
            (last || line->argv[i - 1][0] != '-'))
            return i;
    }
    return 0;
}

static void take_negative_size(struct q2_command_line *line, struct settings *s)
{
    int at = find_negative_size(line);
    if (!at)
        return;
    s->size = line->argv[at];
    for (int i = at; i < line->argc; i++) // the NULL at the end, too
        line->argv[i] = line->argv[i + 1];
    line->argc--;
}

static int parse_size(const char *text, uint64_t *n_bytes, struct q2_error *err)
{
    int rc = q2_size_parse(text, 1, NULL, n_bytes);
    if (rc == -ERANGE)
        return q2_fail(err, rc, "Value '%s' is out of range for parameter 'size'", text);
    return q2_value_parameter_size("size", text, n_bytes, err);
}

// The size that "+1G" or the like asks for, of a disk that has this one now.
static int new_size(char sign, uint64_t n_bytes, uint64_t now, uint64_t *size,
                    struct q2_error *err)
{
    bool fits = true;
    if (sign == '+')
        fits = !__builtin_add_overflow(now, n_bytes, size);
    else if (sign == '-')
        fits = !__builtin_sub_overflow(now, n_bytes, size);
    else
        *size = n_bytes;
    if (!fits || *size == 0 || *size > INT64_MAX)
        return q2_fail(err, -EINVAL, "New image size must be positive");
    return 0;
}

static int refuse_shrinking(const struct q2_command_line *line, struct q2_error *err)
{
    q2_fail(err, -EINVAL, "Use the --shrink option to perform a shrink operation.");
    return q2_hint(err,
                   "%s: warning: Shrinking an image will delete all data beyond the "
                   "shrunken image's end. Before performing such an operation, make sure "
                   "there is no important data there.",
                   line->program);
}

static int resize_disk(struct q2_command_line *line, struct q2_disk *d, uint64_t size,
                       struct q2_progress *progress, struct q2_error *err)
{
    const struct settings *s = line->settings;
    if (size <= d->size && s->preallocation != Q2_PREALLOC_OFF)
        return q2_fail(err, -EINVAL, "Preallocation can only be used for growing images");
    if (size < d->size && !s->shrink)
        return refuse_shrinking(line, err);
    q2_progress_start(progress, line, true, 1);
    int rc = q2_resize(d, size, s->preallocation, &progress->monitor, err);
    if (!rc)
        rc = q2_disk_finish(d, err);
    q2_progress_end(progress, !rc);
    return rc;
}

static int resize_image(struct q2_command_line *line, const char *path,
                        struct q2_error *err)
{
    const struct settings *s = line->settings;
    const struct q2_open_options options = {.writable = true};
    struct q2_progress progress;
    struct q2_disk *d;
    uint64_t n_bytes, size;
    char sign = s->size[0];
    int rc = parse_size(s->size + (sign == '+' || sign == '-'), &n_bytes, err);
    if (rc)
        return rc;
    q2_progress_start(&progress, line, false, 1);
    rc = q2_open_operand(line, path, &options, &progress.monitor, &d, err);
    if (rc)
        return rc;
    q2_warn_of_probing(d);
    rc = new_size(sign, n_bytes, d->size, &size, err);
    if (!rc)
        rc = resize_disk(line, d, size, &progress, err);
    q2_disk_close(d);
    if (!rc && !line->common.quiet)
        printf("Image resized.\n");
    return rc;
}

static int resize_run(struct q2_command_line *line, struct q2_error *err)
{
    struct settings s = {.size = NULL};
    line->settings = &s;
    take_negative_size(line, &s);
    int rc = q2_options_parse(line, take_option, err);
    if (rc)
        return rc < 0;
    int n_wanted = s.size ? 1 : 2;
    if (line->n_operands > n_wanted)
        return q2_options_misuse(line, err, "Extra argument(s) in command line") < 0;
    if (line->n_operands < n_wanted)
        return q2_options_misuse(line, err, "Expecting image file name and size") < 0;
    if (!s.size)
        s.size = line->operands[1];
    return resize_image(line, line->operands[0], err) < 0;
}

const struct q2_command q2_cmd_resize = {
    .name = "resize",
    .summary = "Change the size of a disk",
    .operands = "FILE [+|-]SIZE",
    .options = resize_options,
    .examples = {"resize disk.qcow2 +10G", "resize --shrink disk.qcow2 20G"},
    .writes = true,
    .run = resize_run,
};
