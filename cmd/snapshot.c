// SPDX-License-Identifier: MIT
// snapshot: internal snapshots are listed, made, applied, deleted.
#include <errno.h>
#include <stdio.h>

#include "cmd/info_output.h"
#include "cmd/opening.h"
#include "cmd/options.h"
#include "cmd/output.h"
#include "cmd/progress.h"
#include "ops/snapshot.h"

static const struct q2_option snapshot_options[] = {
    {"list", "l", NULL, 'l', "Action", "list the snapshots (default)"},
    {"create", "c", "NAME", 'c', "Action", "make a snapshot of this name"},
    {"apply", "a", "SNAPSHOT", 'a', "Action", "go back to this id or name"},
    {"delete", "d", "NAME", 'd', "Action", "delete the snapshot of this name"},
    Q2_ROW_FORMAT,
    Q2_ROW_IMAGE_OPTS,
    Q2_ROW_OUR_OUTPUT,
    Q2_ROW_OUR_PROGRESS,
    Q2_ROW_QUIET,
    Q2_ROW_SHARE,
    Q2_ROW_OBJECT,
    Q2_ROW_END,
};

struct settings {
    int action;       // its letter; 0: not given
    const char *name; // of the snapshot
};

// What is not common to all commands is an action.
static int take_option(struct q2_command_line *line, int code, const char *value,
                       struct q2_error *err)
{
    struct settings *s = line->settings;
    if (s->action)
        return q2_options_misuse(line, err, "Cannot mix '-l', '-a', '-c', '-d'");
    s->action = code;
    s->name = value;
    return 0;
}

static int count_one(void *opaque, struct q2_snapshot *s, struct q2_error *err)
{
    (void)s;
    (void)err;
    ++*(unsigned *)opaque;
    return 0;
}

static int print_one(void *opaque, struct q2_snapshot *s, struct q2_error *err)
{
    (void)opaque;
    (void)err;
    q2_output_snapshot(s);
    return 0;
}

struct stream {
    q2_take_item *take;
    void *to;
};

static int pass_one(void *opaque, struct q2_snapshot *s, struct q2_error *err)
{
    const struct stream *stream = opaque;
    json_t *item = q2_snapshot_to_json(s);
    return item ? stream->take(stream->to, item, err) : q2_fail_memory(err, 0);
}

static int each_item(const void *source, q2_take_item *take, void *to,
                     struct q2_error *err)
{
    struct q2_disk *const *d = source;
    return q2_snapshot_each(*d, pass_one, &(struct stream){take, to}, err);
}

static int print_json(struct q2_disk *d, struct q2_error *err)
{
    json_t *place = json_array();
    struct q2_long_list list = {.place = place, .each = each_item, .source = &d};
    return q2_output_long_json(place, &(struct q2_long_lists){1, &list}, err);
}

// They are counted first: what cannot be read is said before anything is printed.
static int list_snapshots(const struct q2_command_line *line, const char *path,
                          struct q2_error *err)
{
    const struct q2_open_options options = {.image_only = true};
    struct q2_disk *d;
    unsigned n = 0;
    int rc = q2_open_operand(line, path, &options, NULL, &d, err);
    if (rc)
        return rc;
    rc = q2_snapshot_each(d, count_one, &n, err);
    if (!rc && line->common.json) {
        rc = print_json(d, err);
    } else if (!rc && n > 0) {
        q2_output_snapshot_heading();
        rc = q2_snapshot_each(d, print_one, NULL, err);
    }
    q2_disk_close(d);
    return rc;
}

static int act(struct q2_disk *d, const struct settings *s, const struct q2_monitor *mon,
               struct q2_error *err)
{
    int rc;
    switch (s->action) {
    case 'c':
        rc = q2_snapshot_create(d, s->name, mon, err);
        return rc ? q2_context(err, "Could not create snapshot '%s'", s->name) : 0;
    case 'a':
        rc = q2_snapshot_apply(d, s->name, mon, err);
        return rc ? q2_context(err, "Could not apply snapshot '%s'", s->name) : 0;
    default:
        rc = q2_snapshot_delete(d, s->name, mon, err);
        return rc ? q2_context(err, "Could not delete snapshot '%s'", s->name) : 0;
    }
}

static int change_snapshots(const struct q2_command_line *line, const char *path,
                            const struct settings *s, struct q2_error *err)
{
    const struct q2_open_options options = {.writable = true, .metadata_only = true};
    struct q2_progress progress;
    struct q2_disk *d;
    q2_progress_start(&progress, line, false, 1);
    int rc = q2_open_operand(line, path, &options, &progress.monitor, &d, err);
    if (rc)
        return rc;
    q2_warn_of_probing(d);
    q2_progress_start(&progress, line, true, 1);
    rc = act(d, s, &progress.monitor, err);
    q2_progress_end(&progress, !rc);
    q2_disk_close(d);
    return rc;
}

static int snapshot_run(struct q2_command_line *line, struct q2_error *err)
{
    struct settings s = {.action = 0};
    line->settings = &s;
    int rc = q2_options_parse(line, take_option, err);
    if (!rc)
        rc = q2_options_one_image(line, err);
    if (rc)
        return rc < 0;
    if (!s.action || s.action == 'l')
        return list_snapshots(line, line->operands[0], err) < 0;
    return change_snapshots(line, line->operands[0], &s, err) < 0;
}

const struct q2_command q2_cmd_snapshot = {
    .name = "snapshot",
    .summary = "List, make, apply and delete internal snapshots",
    .operands = "FILE",
    .options = snapshot_options,
    .examples = {"snapshot -c before-upgrade vm.qcow2", "snapshot -l vm.qcow2"},
    .writes = true,
    .run = snapshot_run,
};
