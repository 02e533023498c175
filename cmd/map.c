// SPDX-License-Identifier: MIT
// map: which file holds which part of a disk.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "cmd/opening.h"
#include "cmd/options.h"
#include "cmd/output.h"
#include "cmd/progress.h"
#include "ops/map.h"

static const struct q2_option map_options[] = {
    Q2_ROW_FORMAT,
    {"start-offset", "s", "OFFSET", 's', "Range", "begin here (default: 0)"},
    {"max-length", "l", "LENGTH", 'l', "Range", "at most so much (default: all)"},
    Q2_ROW_IMAGE_OPTS,
    Q2_ROW_OUTPUT,
    Q2_ROW_SHARE,
    Q2_ROW_OBJECT,
    Q2_ROW_END,
};

struct settings {
    uint64_t start, length;
    bool any; // something was printed
};

static int take_option(struct q2_command_line *line, int code, const char *value,
                       struct q2_error *err)
{
    struct settings *s = line->settings;
    switch (code) {
    case 's':
        return q2_value_size("start offset", value, &s->start, err);
    case 'l':
        return q2_value_size("max length", value, &s->length, err);
    }
    return 0;
}

static const char *json_bool(bool value)
{
    return value ? "true" : "false";
}

// A long map ends when nobody reads it any more; main says that output was lost.
static int check_output(struct q2_error *err)
{
    return ferror(stdout) ? q2_fail(err, -EPIPE, "%s", "") : 0;
}

static int print_json(void *opaque, const struct q2_map_entry *e, struct q2_error *err)
{
    struct settings *s = opaque;
    printf("%s{ \"start\": %" PRIu64 ", \"length\": %" PRIu64 ", \"depth\": %u, "
           "\"present\": %s, \"zero\": %s, \"data\": %s, \"compressed\": %s",
           s->any ? ",\n" : "", e->start, e->n_bytes, e->depth, json_bool(e->present),
           json_bool(e->zero), json_bool(e->data), json_bool(e->compressed));
    if (e->has_offset)
        printf(", \"offset\": %" PRIu64, e->offset);
    putchar('}');
    s->any = true;
    return check_output(err);
}

// People are shown stored bytes alone.
static int print_human(void *opaque, const struct q2_map_entry *e, struct q2_error *err)
{
    (void)opaque;
    if (!e->data || e->zero)
        return 0;
    if (!e->has_offset)
        return q2_fail(err, -ENOTSUP,
                       "File contains external, encrypted or compressed clusters.");
    printf("%#-16" PRIx64 "%#-16" PRIx64 "%#-16" PRIx64, e->start, e->n_bytes, e->offset);
    q2_output_text(stdout, e->filename ? e->filename : "");
    putchar('\n');
    return check_output(err);
}

static int print_map(struct q2_disk *d, struct settings *s, bool json,
                     const struct q2_monitor *mon, struct q2_error *err)
{
    if (json)
        putchar('[');
    else
        printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
    int rc = q2_map(d, s->start, s->length, mon, json ? print_json : print_human, s, err);
    if (rc || !json)
        return rc;
    if (!s->any) { // an empty range is an entry too
        struct q2_map_entry empty = {.start = s->start};
        print_json(s, &empty, err);
    }
    printf("]\n");
    return 0;
}

static int map_image(struct q2_command_line *line, struct settings *s,
                     struct q2_error *err)
{
    const struct q2_open_options options = {.beside_writer = true};
    struct q2_progress progress;
    struct q2_disk *d;
    int rc = q2_open_operand(line, line->operands[0], &options, NULL, &d, err);
    if (rc)
        return rc;
    q2_progress_start(&progress, line, false, 1);
    rc = print_map(d, s, line->common.json, &progress.monitor, err);
    q2_disk_close(d);
    return rc;
}

static int map_run(struct q2_command_line *line, struct q2_error *err)
{
    struct settings s = {.length = UINT64_MAX};
    line->settings = &s;
    int rc = q2_options_parse(line, take_option, err);
    if (!rc)
        rc = q2_options_one_image(line, err);
    if (!rc)
        rc = map_image(line, &s, err);
    return rc < 0;
}

const struct q2_command q2_cmd_map = {
    .name = "map",
    .summary = "List which file holds which part of a disk",
    .operands = "FILE",
    .options = map_options,
    .examples = {"map disk.qcow2", "map --output=json -s 1G -l 64M disk.qcow2"},
    .run = map_run,
};
