// SPDX-License-Identifier: MIT
// recover: bring back an image whose header or L1 table is lost.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "cmd/opening.h"
#include "cmd/options.h"
#include "cmd/progress.h"
#include "cmd/recover_output.h"
#include "ops/recover.h"

enum {
    OPTION_DRY_RUN = Q2_OPTION_FIRST_OWN,
    OPTION_SIZE,
    OPTION_CLUSTER_SIZE,
    OPTION_VERSION,
    OPTION_CANDIDATE,
    OPTION_LEFTOVERS,
    OPTION_FORCE,
    OPTION_DATA_FILE
};

static const struct q2_option recover_options[] = {
    {"dry-run", "", NULL, OPTION_DRY_RUN, "What is done",
     "tell what was found, write nothing"},
    {"target-format", "O", "FMT", 'O', "What is done",
     "qcow2 (default), or raw: the active state"},
    {"force", "", NULL, OPTION_FORCE, "What is done", "overwrite NEW if it is there"},
    {"leftovers", "", "DIR", OPTION_LEFTOVERS, "What is done",
     "write what could not be used into files there"},
    {"size", "", "SIZE", OPTION_SIZE, "What is known", "of the guest's disk"},
    {"cluster-size", "", "SIZE", OPTION_CLUSTER_SIZE, "What is known", "of the image"},
    {"version", "", "N", OPTION_VERSION, "What is known", "2 or 3"},
    {"backing", "b", "FILE", 'b', "What is known", "the backing file"},
    {"backing-format", "F", "FMT", 'F', "What is known", "its format"},
    {"data-file", "", "FILE", OPTION_DATA_FILE, "What is known",
     "the external data file"},
    {"candidate", "", "N", OPTION_CANDIDATE, "What is known",
     "take the N-th L1 table of the report, or none"},
    Q2_ROW_OUTPUT,
    Q2_ROW_PROGRESS,
    Q2_ROW_QUIET,
    Q2_ROW_END,
};

struct settings {
    struct q2_recover_request request;
    bool dry_run;
    const char *format;
};

static int take_number(const char *what, const char *value, uint64_t least, uint64_t most,
                       uint64_t *out, struct q2_error *err)
{
    int rc = q2_value_size(what, value, out, err);
    if (!rc && (*out < least || *out > most))
        rc = q2_fail(err, -EINVAL, "Invalid %s '%s': it is %" PRIu64 " to %" PRIu64, what,
                     value, least, most);
    return rc;
}

static int take_option(struct q2_command_line *line, int code, const char *value,
                       struct q2_error *err)
{
    struct settings *s = line->settings;
    struct q2_recover_options *o = &s->request.options;
    uint64_t number;
    int rc = 0;
    switch (code) {
    case OPTION_DRY_RUN:
        s->dry_run = true;
        break;
    case OPTION_FORCE:
        s->request.force = true;
        break;
    case OPTION_DATA_FILE:
        o->data_file = value;
        break;
    case OPTION_LEFTOVERS:
        s->request.leftovers = value;
        break;
    case 'O':
        s->format = value;
        break;
    case OPTION_SIZE:
        return take_number("size", value, 1, INT64_MAX, &o->size, err);
    case OPTION_CLUSTER_SIZE:
        rc = take_number("cluster size", value, 512, 2 << 20, &number, err);
        if (!rc && !q2_is_power_of_2(number))
            return q2_fail(err, -EINVAL,
                           "Cluster size must be a power of two between 512 and 2048k");
        o->cluster_bits = rc ? 0 : q2_log2(number);
        break;
    case OPTION_VERSION:
        rc = take_number("version", value, 2, 3, &number, err);
        o->version = rc ? 0 : (uint32_t)number;
        break;
    case OPTION_CANDIDATE:
        o->no_l1 = strcmp(value, "none") == 0;
        o->candidate = 0;
        if (o->no_l1)
            break;
        rc = take_number("candidate", value, 1, UINT32_MAX, &number, err);
        o->candidate = rc ? 0 : (unsigned)number;
        break;
    case 'b':
        o->backing_file = value;
        break;
    case 'F':
        o->backing_format = value;
        break;
    }
    return rc;
}

static int check_line(const struct q2_command_line *line, struct q2_error *err)
{
    struct settings *s = line->settings;
    if (line->n_operands != 2 && !(s->dry_run && line->n_operands == 1))
        return q2_fail(err, -EINVAL,
                       "Expecting the broken image and a name for the new one");
    if (strcmp(s->format, "qcow2") != 0 && strcmp(s->format, "raw") != 0)
        return q2_fail(err, -EINVAL, "Invalid target format '%s': it is qcow2 or raw",
                       s->format);
    if (s->request.options.backing_format && !s->request.options.backing_file)
        return q2_fail(err, -EINVAL,
                       "Backing format cannot be used without backing file");
    if (s->request.options.backing_file && !s->request.options.backing_format)
        return q2_fail(err, -EINVAL, "backing file specified without its format, use -F");
    return 0;
}

static int recover(struct q2_command_line *line, struct q2_error *err)
{
    struct settings *s = line->settings;
    struct q2_recover_report report;
    struct q2_progress progress;
    s->request.path = line->operands[0];
    s->request.raw = strcmp(s->format, "raw") == 0;
    int rc = 0;
    if (!s->dry_run)
        rc = q2_new_path(line->operands[1], &s->request.target, err);
    if (rc)
        return rc;
    q2_progress_start(&progress, line, true, 2);
    rc = q2_recover(&s->request, &progress.monitor, &report, err);
    q2_progress_end(&progress, rc == 0);
    if (rc)
        return rc;
    if (line->common.json)
        rc = q2_output_recover_json(&s->request, &report, err);
    else if (!line->common.quiet)
        q2_output_recover(&s->request, &report);
    q2_recover_report_clear(&report);
    return rc;
}

static int recover_run(struct q2_command_line *line, struct q2_error *err)
{
    struct settings s = {.format = "qcow2"};
    line->settings = &s;
    int rc = q2_options_parse(line, take_option, err);
    if (!rc)
        rc = check_line(line, err);
    if (!rc)
        rc = recover(line, err);
    return rc < 0;
}

const struct q2_command q2_cmd_recover = {
    .name = "recover",
    .summary = "Bring back an image that nothing can open",
    .operands = "BROKEN NEW",
    .options = recover_options,
    .examples = {"recover broken.qcow2 new.qcow2", "recover --dry-run broken.qcow2"},
    .writes = true,
    .run = recover_run,
};
