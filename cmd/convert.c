// SPDX-License-Identifier: MIT
// convert: disks into a new image or an existing one. Its options, and which of them go
// together.
#include "cmd/convert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/create_options.h"

#define SECTOR 512U
#define MAX_SPARSE (16U << 20)
#define MAX_THREADS 16U

enum {
    OPTION_SALVAGE = Q2_OPTION_FIRST_OWN,
    OPTION_TARGET_IS_ZERO,
    OPTION_TARGET_IMAGE_OPTS,
    OPTION_LEVEL,
    OPTION_BITMAPS,
    OPTION_SKIP_BROKEN,
};

static const struct q2_option convert_options[] = {
    {"source-format", "f", "FMT", Q2_OPTION_FORMAT, "Source",
     "raw or qcow2 (default: probed)"},
    {"source-cache", "T", "MODE", Q2_OPTION_SOURCE_CACHE, "Source",
     "cache mode (default: writeback)"},
    {"snapshot", "l", "SNAPSHOT", 'l', "Source", "read an internal snapshot"},
    {"salvage", "", NULL, OPTION_SALVAGE, "Source", "zeros for what cannot be read"},
    {"target-format", "O", "FMT", 'O', "Target", "raw (default) or qcow2"},
    {"target-format-options", "o", "OPTS", 'o', "Target",
     "KEY=VALUE,...; -o help lists them"},
    {"target-cache", "t", "MODE", Q2_OPTION_CACHE, "Target",
     "cache mode (default: unsafe; with -n writeback)"},
    {"backing", "Bb", "FILE", 'B', "Target", "on top of FILE"},
    {"backing-format", "F", "FMT", 'F', "Target", "format of that FILE"},
    {"compress", "c", NULL, 'c', "Target", "compress (qcow2)"},
    {"compression-level", "", "LEVEL", OPTION_LEVEL | Q2_OPTION_OURS, "Target",
     "with -c: fast, best, or 1 to 9"},
    {"sparse-size", "S", "SIZE", 'S', "Target", "zeros that make a hole (default: 4k)"},
    {"no-create", "n", NULL, 'n', "Target", "write into the image that is there"},
    {"target-is-zero", "", NULL, OPTION_TARGET_IS_ZERO, "Target", "with -n: it is empty"},
    {"parallel", "m", "N", 'm', "Copying", "threads, 1 to 16 (default: processors)"},
    {"oob-writes", "W", NULL, 'W', "Copying", "no effect: order costs nothing here"},
    {"copy-range-offloading", "C", NULL, 'C', "Copying",
     "let the file system copy, or share space"},
    {"rate-limit", "r", "RATE", 'r', "Copying", "bytes per second"},
    {"image-opts", "", NULL, Q2_OPTION_IMAGE_OPTS, "Source", "SOURCE is KEY=VALUE,..."},
    {"target-image-opts", "", NULL, OPTION_TARGET_IMAGE_OPTS, "Target",
     "with -n: TARGET is KEY=VALUE,..."},
    {"bitmaps", "", NULL, OPTION_BITMAPS, "Source", "copy persistent bitmaps, too"},
    {"skip-broken-bitmaps", "", NULL, OPTION_SKIP_BROKEN, "Source",
     "but not inconsistent ones"},
    Q2_ROW_PROGRESS,
    Q2_ROW_QUIET,
    Q2_SHARE_ROW("Source"),
    Q2_OBJECT_ROW("Source"),
    Q2_ROW_END,
};

static int take_sparse(struct q2_convert_settings *s, const char *value,
                       struct q2_error *err)
{
    uint64_t size;
    int rc = q2_value_size("buffer size for sparse output", value, &size, err);
    if (rc)
        return rc;
    if (size % SECTOR || size > MAX_SPARSE)
        return q2_fail(err, -EINVAL,
                       "Invalid buffer size for sparse output specified. Valid sizes are "
                       "multiples of %u up to %u. Select 0 to disable sparse detection "
                       "(fully allocates output).",
                       SECTOR, MAX_SPARSE);
    s->copy.sparse_grain = (size_t)size;
    s->sparse_given = true;
    return 0;
}

static int take_threads(struct q2_convert_settings *s, const char *value,
                        struct q2_error *err)
{
    uint64_t n;
    int rc = q2_value_number("number of coroutines", value, 1, MAX_THREADS, &n, err);
    if (!rc)
        s->copy.n_threads = (unsigned)n;
    return rc;
}

// The options whose value is a plain text.
static const char **text_setting(struct q2_convert_settings *s, int code)
{
    switch (code) {
    case 'l':
        return &s->snapshot;
    case 'O':
        return &s->target_format;
    case 'B':
        return &s->backing_file;
    case 'F':
        return &s->backing_format;
    case OPTION_LEVEL:
        return &s->level;
    }
    return NULL;
}

// The options that take no value.
static bool *flag_setting(struct q2_convert_settings *s, int code)
{
    switch (code) {
    case 'c':
        return &s->copy.compress;
    case 'n':
        return &s->no_create;
    case 'C':
        return &s->copy.copy_range;
    case OPTION_TARGET_IMAGE_OPTS:
        return &s->target_image_opts;
    case OPTION_SALVAGE:
        return &s->copy.salvage;
    case OPTION_TARGET_IS_ZERO:
        return &s->copy.target_is_zero;
    case OPTION_BITMAPS:
        return &s->bitmaps;
    case OPTION_SKIP_BROKEN:
        return &s->skip_broken_bitmaps;
    }
    return NULL;
}

static int take_option(struct q2_command_line *line, int code, const char *value,
                       struct q2_error *err)
{
    struct q2_convert_settings *s = line->settings;
    switch (code) {
    case 'o':
        return q2_option_list_append(&s->lists, value, err);
    case 'S':
        return take_sparse(s, value, err);
    case 'm':
        return take_threads(s, value, err);
    case 'r':
        return q2_value_size("rate limit", value, &s->copy.rate_limit, err);
    }
    bool *flag = flag_setting(s, code);
    const char **text = text_setting(s, code);
    if (flag)
        *flag = true;
    if (text)
        *text = value;
    return 0;
}

static int check_together(const struct q2_convert_settings *s, struct q2_error *err)
{
    const struct {
        bool wrong;
        const char *message;
    } rules[] = {
        {s->copy.compress && s->copy.copy_range,
         "Cannot enable copy offloading when -c is used"},
        {s->sparse_given && s->copy.copy_range,
         "Cannot enable copy offloading when -S is used"},
        {s->copy.salvage && s->copy.copy_range,
         "Cannot use copy offloading in salvaging mode"},
        {s->no_create && s->lists, "-o has no effect when skipping image creation"},
        {s->target_image_opts && !s->no_create,
         "--target-image-opts requires use of -n flag"},
        {(s->common->image_opts && s->common->format) ||
             (s->target_image_opts && s->target_format),
         "--image-opts and --format are mutually exclusive"},
        {s->copy.target_is_zero && !s->no_create,
         "--target-is-zero requires use of -n flag"},
        {s->skip_broken_bitmaps && !s->bitmaps,
         "Use of --skip-broken-bitmaps requires --bitmaps"},
    };
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
        if (rules[i].wrong)
            return q2_fail(err, -EINVAL, "%s", rules[i].message);
    return 0;
}

static int convert_with(struct q2_command_line *line, struct q2_convert_settings *s,
                        struct q2_error *err)
{
    int rc = check_together(s, err);
    if (rc)
        return rc;
    if (s->lists && q2_option_list_asks_help(s->lists))
        return q2_key_print_help(s->target_format ? s->target_format : "raw",
                                 line->n_operands > 1, err);
    if (line->n_operands < 2)
        return q2_fail(err, -EINVAL, "Must specify image file name");
    // A new target that was cut short is made again; an image that was there is not.
    const char *cache = s->common->cache;
    if (!cache && !s->no_create)
        cache = "unsafe";
    rc = q2_value_cache(s->common->source_cache, true, &s->source_file, err);
    if (!rc)
        rc = q2_value_cache(cache, false, &s->target_file, err);
    return rc ? rc : q2_convert_images(line, s, err);
}

static int convert_run(struct q2_command_line *line, struct q2_error *err)
{
    struct q2_convert_settings s = {.common = &line->common,
                                    .copy = {.sparse_grain = 4096}};
    line->settings = &s;
    int rc = q2_options_parse(line, take_option, err);
    if (!rc)
        rc = convert_with(line, &s, err);
    free(s.lists);
    return rc < 0;
}

const struct q2_command q2_cmd_convert = {
    .name = "convert",
    .summary = "Copy disks into an image, of another format if need be",
    .operands = "SOURCE... TARGET",
    .options = convert_options,
    .examples = {"convert -O qcow2 disk.raw disk.qcow2",
                 "convert -p -c -O qcow2 -l before-update vm.qcow2 small.qcow2"},
    .writes = true,
    .run = convert_run,
};
