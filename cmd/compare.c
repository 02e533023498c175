// SPDX-License-Identifier: MIT
// compare: do two disks hold the same bytes?
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "cmd/opening.h"
#include "cmd/options.h"
#include "cmd/progress.h"
#include "ops/compare.h"

// Exit codes besides 0 and 1 (they differ, or misuse).
enum { EXIT_OPEN = 2, EXIT_STATUS = 3, EXIT_READ = 4 };

static const struct q2_option compare_options[] = {
    {"a-format", "f", "FMT", Q2_OPTION_FORMAT, "Images",
     "format of FILE1 (default: probed)"},
    {"b-format", "F", "FMT", 'F', "Images", "format of FILE2"},
    {"cache", "T", "MODE", Q2_OPTION_SOURCE_CACHE, "Images",
     "cache mode (default: writeback)"},
    {"strict", "s", NULL, 's', "Comparison", "sizes and allocation must be equal too"},
    {"image-opts", "", NULL, Q2_OPTION_IMAGE_OPTS, "Images",
     "FILE1 and FILE2 are KEY=VALUE,..."},
    Q2_ROW_PROGRESS,
    Q2_ROW_QUIET,
    Q2_SHARE_ROW("Images"),
    Q2_OBJECT_ROW("Images"),
    Q2_ROW_END,
};

struct settings {
    const char *second_format;
    bool strict;
};

static int take_option(struct q2_command_line *line, int code, const char *value,
                       struct q2_error *err)
{
    struct settings *s = line->settings;
    (void)err;
    switch (code) {
    case 'F':
        s->second_format = value;
        break;
    case 's':
        s->strict = true;
        break;
    }
    return 0;
}

static int open_images(const struct q2_command_line *line, const struct settings *s,
                       struct q2_disk *disks[2], struct q2_error *err)
{
    const struct q2_common_options *c = &line->common;
    const char *const formats[2] = {c->format, s->second_format};
    struct q2_open_options options = {.unsafe_share = c->shared, .beside_writer = true};
    int rc = q2_value_cache(c->source_cache, true, &options.file, err);
    options.file.sequential = true;
    for (int i = 0; !rc && i < 2; i++) {
        options.format = formats[i];
        rc = q2_open_named(line->operands[i], c->image_opts, &options, NULL, &disks[i],
                           err);
    }
    return rc;
}

static void tell(const struct q2_compare_result *r)
{
    if (r->sizes_differ)
        printf("Warning: Image size mismatch!\n");
    switch (r->verdict) {
    case Q2_COMPARE_IDENTICAL:
        printf("Images are identical.\n");
        break;
    case Q2_COMPARE_CONTENT:
        printf("Content mismatch at offset %" PRIu64 "!\n", r->offset);
        break;
    case Q2_COMPARE_STATUS:
        printf("Strict mode: Offset %" PRIu64 " block status mismatch!\n", r->offset);
        break;
    case Q2_COMPARE_SIZE:
        printf("Strict mode: Image size mismatch!\n");
        break;
    }
}

static int compare_images(const struct q2_command_line *line, const struct settings *s,
                          struct q2_disk *disks[2], struct q2_error *err)
{
    struct q2_compare_result result;
    struct q2_progress progress;
    q2_progress_start(&progress, line, true, 2);
    int rc = q2_compare(disks[0], disks[1], s->strict, &progress.monitor, &result, err);
    q2_progress_end(&progress, !rc && result.verdict == Q2_COMPARE_IDENTICAL);
    if (rc)
        return result.read_failed ? EXIT_READ : EXIT_STATUS;
    if (!line->common.quiet)
        tell(&result);
    return result.verdict != Q2_COMPARE_IDENTICAL;
}

static int compare_run(struct q2_command_line *line, struct q2_error *err)
{
    struct settings s = {.second_format = NULL};
    struct q2_disk *disks[2] = {NULL, NULL};
    line->settings = &s;
    int rc = q2_options_parse(line, take_option, err);
    if (!rc && line->n_operands != 2)
        rc = q2_options_misuse(line, err, "Expecting two image file names");
    if (rc) // a secret that cannot be had counts as an image that cannot be opened
        return rc > 0 ? 0 : line->bad_object || rc == -ENOMEM ? EXIT_OPEN : 1;
    int status = open_images(line, &s, disks, err) ? EXIT_OPEN
                                                   : compare_images(line, &s, disks, err);
    q2_disk_close(disks[0]);
    q2_disk_close(disks[1]);
    return status;
}

const struct q2_command q2_cmd_compare = {
    .name = "compare",
    .summary = "Tell whether two disks hold the same bytes",
    .operands = "FILE1 FILE2",
    .options = compare_options,
    .examples = {"compare disk.raw disk.qcow2", "compare -f raw -F qcow2 a.img b.img"},
    .lost_status = EXIT_OPEN,
    .run = compare_run,
};
