// SPDX-License-Identifier: MIT
// vet: may an image that a stranger made be used?
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/check_output.h"
#include "cmd/choices.h"
#include "cmd/options.h"
#include "cmd/output.h"
#include "cmd/progress.h"
#include "image/probe.h"
#include "ops/vet.h"

// Exit codes besides 0 and 1.
enum { EXIT_REJECTED = 2 };

enum {
    OPTION_MAX_VIRTUAL_SIZE = Q2_OPTION_FIRST_OWN,
    OPTION_MAX_FILE_SIZE,
    OPTION_ALLOW,
};

static const struct q2_option vet_options[] = {
    {"format", "f", "FMT", Q2_OPTION_FORMAT, "Image",
     "what it must be: qcow2 (default) or raw"},
    {"max-virtual-size", "", "SIZE", OPTION_MAX_VIRTUAL_SIZE, "Limits",
     "reject larger disks"},
    {"max-file-size", "", "SIZE", OPTION_MAX_FILE_SIZE, "Limits", "reject larger files"},
    {"allow", "", "REASONS", OPTION_ALLOW, "Limits",
     "do not reject it for these; with commas"},
    Q2_ROW_OUTPUT,
    Q2_ROW_PROGRESS,
    Q2_ROW_QUIET,
    Q2_ROW_END,
};

// --- options ---------------------------------------------------------------------------

static int allow_one(struct q2_vet_request *r, const char *id, struct q2_error *err)
{
    char list[512] = "";
    size_t n = 0;
    const struct q2_choice *choice = q2_choice_find(q2_choices_reasons, id);
    if (choice) {
        r->allow[choice->value] = true;
        return 0;
    }
    for (choice = q2_choices_reasons; choice->name && n < sizeof(list); choice++)
        n += (size_t)snprintf(list + n, sizeof(list) - n, " %s", choice->name);
    q2_fail(err, -EINVAL, "--allow does not take '%s'", id);
    return q2_hint(err, "What can be allowed:%s", list);
}

static int take_allowed(struct q2_vet_request *r, const char *value, struct q2_error *err)
{
    int ret = 0;
    do {
        char *id = q2_value_next_item(&value);
        ret = id ? allow_one(r, id, err) : q2_fail_memory(err, strlen(value) + 1);
        free(id);
    } while (ret == 0 && *value);
    return ret;
}

static int take_option(struct q2_command_line *line, int code, const char *value,
                       struct q2_error *err)
{
    struct q2_vet_request *r = line->settings;
    switch (code) {
    case OPTION_MAX_VIRTUAL_SIZE:
        return q2_value_size("virtual size", value, &r->max_virtual_size, err);
    case OPTION_MAX_FILE_SIZE:
        return q2_value_size("file size", value, &r->max_file_size, err);
    case OPTION_ALLOW:
        return take_allowed(r, value, err);
    }
    return 0;
}

// --- output ----------------------------------------------------------------------------

static void output_objections(const struct q2_vet_report *r, bool allowed)
{
    for (size_t i = 0; i < r->n_objections; i++) {
        const struct q2_vet_objection *o = &r->objections[i];
        if (o->allowed != allowed)
            continue;
        printf("    %s: ", o->id);
        q2_output_text(stdout, o->message);
        if (o->count > 1)
            printf(" (and %" PRIu64 " more)", o->count - 1);
        putchar('\n');
    }
}

static void output_human(const struct q2_vet_request *request,
                         const struct q2_vet_report *r)
{
    bool any_allowed = false;
    for (size_t i = 0; i < r->n_objections; i++)
        any_allowed |= r->objections[i].allowed;
    q2_output_text(stdout, request->path);
    printf(": %s\n", r->accepted ? "accepted" : "rejected");
    output_objections(r, false);
    if (any_allowed) {
        printf("Allowed:\n");
        output_objections(r, true);
    }
}

static void set_number(json_t *o, const char *key, uint64_t value)
{
    json_object_set_new(o, key,
                        json_integer(value <= INT64_MAX ? (json_int_t)value : INT64_MAX));
}

static json_t *objection_json(const struct q2_vet_objection *o)
{
    json_t *out = json_object();
    json_object_set_new(out, "id", json_string(o->id));
    json_object_set_new(out, "message", q2_output_string(o->message));
    set_number(out, "count", o->count);
    if (o->has_value)
        set_number(out, "value", o->value);
    if (o->has_limit)
        set_number(out, "limit", o->limit);
    json_t *finding = o->has_finding ? q2_output_finding_json(&o->finding) : NULL;
    if (finding)
        json_object_update_missing(out, finding);
    json_decref(finding);
    return out;
}

static json_t *objections_json(const struct q2_vet_report *r, bool allowed)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->n_objections; i++)
        if (r->objections[i].allowed == allowed)
            json_array_append_new(list, objection_json(&r->objections[i]));
    return list;
}

static int output_json(const struct q2_vet_request *request,
                       const struct q2_vet_report *r, struct q2_error *err)
{
    json_t *o = json_object();
    json_object_set_new(o, "filename", q2_output_string(request->path));
    json_object_set_new(o, "format", json_string(request->format));
    json_object_set_new(o, "accepted", json_boolean(r->accepted));
    if (r->has_virtual_size)
        set_number(o, "virtual-size", r->virtual_size);
    set_number(o, "file-size", r->file_size);
    json_object_set_new(o, "reasons", objections_json(r, false));
    json_object_set_new(o, "allowed", objections_json(r, true));
    return q2_output_json(o, err);
}

// --- the command -----------------------------------------------------------------------

static int vet(const struct q2_command_line *line, const struct q2_vet_request *request,
               struct q2_error *err)
{
    struct q2_vet_report report;
    struct q2_progress progress;
    q2_progress_start(&progress, line, true, 2);
    int ret = q2_vet(request, &progress.monitor, &report, err);
    q2_progress_end(&progress, ret == 0);
    if (ret < 0)
        return 1;
    int status = report.accepted ? 0 : EXIT_REJECTED;
    if (line->common.json && !line->common.quiet) {
        if (output_json(request, &report, err) < 0)
            status = 1;
    } else if (!line->common.quiet) {
        output_human(request, &report);
    }
    q2_vet_clear(&report);
    return status;
}

static int vet_run(struct q2_command_line *line, struct q2_error *err)
{
    struct q2_vet_request r = {.max_virtual_size = UINT64_MAX,
                               .max_file_size = UINT64_MAX};
    line->settings = &r;
    int ret = q2_options_parse(line, take_option, err);
    if (ret == 0)
        ret = q2_options_one_image(line, err);
    if (ret != 0)
        return ret < 0;
    r.path = line->operands[0];
    r.format = line->common.format ? line->common.format : "qcow2";
    if (!q2_format_known(r.format)) {
        q2_fail(err, -EINVAL, "Unknown driver '%s'", r.format);
        return 1;
    }
    return vet(line, &r, err);
}

const struct q2_command q2_cmd_vet = {
    .name = "vet",
    .summary = "Tell whether an image from a stranger may be used",
    .operands = "FILE",
    .options = vet_options,
    .examples = {"vet --max-virtual-size 100G upload.qcow2",
                 "vet -f raw --output=json upload.img"},
    .run = vet_run,
};
