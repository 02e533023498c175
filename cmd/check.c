// SPDX-License-Identifier: MIT
// check: find what is wrong with an image, and heal it.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/check_chain.h"
#include "cmd/check_options.h"
#include "cmd/check_output.h"
#include "cmd/check_plan.h"
#include "cmd/lost_header.h"
#include "cmd/opening.h"
#include "cmd/output.h"
#include "cmd/progress.h"
#include "cmd/signals.h"

// Exit codes besides 0 and 1.
enum { EXIT_CORRUPT = 2, EXIT_LEAKS = 3, EXIT_NO_CHECKS = 63 };

// The findings go with their scan; --details prints them after the repair.
static void keep_findings(struct q2_check_settings *s, const struct q2_scan *scan)
{
    size_t n = scan->findings.n + scan->late.n;
    free(s->found.list);
    s->found.n = 0;
    s->found.list = n ? malloc(n * sizeof(*s->found.list)) : NULL;
    s->lost = n && !s->found.list;
    if (!s->found.list)
        return;
    s->found.n = n;
    for (size_t i = 0; i < n; i++)
        s->found.list[i] = i < scan->findings.n ? scan->findings.list[i]
                                                : scan->late.list[i - scan->findings.n];
}

static void on_found(void *opaque, const struct q2_scan *scan)
{
    struct q2_check_settings *s = opaque;
    q2_output_findings(&scan->findings, NULL);
    q2_output_findings(&scan->late, NULL);
    if (s->details)
        keep_findings(s, scan);
}

static void on_planned(void *opaque, const struct q2_plan *plan,
                       const struct q2_check_edits *edits)
{
    struct q2_check_settings *s = opaque;
    q2_output_findings(&plan->healed, "Repairing");
    if (plan->leaks_kept)
        fprintf(
            stderr,
            "The leaked clusters are kept: damaged entries may have lost them. Repair "
            "with -r all.\n");
    if (s->common->json)
        s->more = q2_output_plan_json(plan, edits);
    if (s->common->json || s->common->quiet)
        return;
    if (s->request.dry_run && q2_plan_has_edits(plan))
        q2_output_plan(plan);
    q2_output_losses(plan);
}

static void on_applying(void *opaque, bool begins)
{
    (void)opaque;
    q2_signals_hold(begins);
}

static void on_curable(void *opaque, const struct q2_finding *header_field)
{
    struct q2_check_settings *s = opaque;
    s->header = *header_field;
}

// The header cannot be used: says what a repair would make of it. Not to those who want
// QEMU's own words.
static void output_cure(struct q2_check_settings *s, const char *program,
                        struct q2_error *err)
{
    char text[Q2_FINDING_TEXT_MAX];
    if (s->header.has == 0 || err->code == -ECANCELED)
        return;
    q2_finding_format(&s->header, "ERROR", text);
    if (strcmp(program, "qemu-img") != 0)
        q2_hint(err, "%s\nThe header can be repaired: run '%s check -r all'", text,
                program);
    struct q2_check_report report = {.scan = {.corruptions = 1}};
    struct q2_findings findings = {.list = &s->header, .n = 1};
    if (s->common->json && s->details)
        json_array_append_new(s->layers,
                              q2_output_check_json(&report, s->shown, &findings, NULL));
    s->header.has = 0;
}

static int exit_code(const struct q2_check_settings *s, const struct q2_scan *scan,
                     struct q2_error *err)
{
    if (scan->check_errors > 0 || s->lost) {
        q2_fail_errno(err, -ENOMEM, "Not everything that was found is told");
        return 1;
    }
    if (scan->corruptions > 0)
        return EXIT_CORRUPT;
    return scan->leaks > 0 ? EXIT_LEAKS : 0;
}

// The summary. JSON is kept: with --backing-chain it is one array of all layers.
static int output_report(struct q2_check_settings *s,
                         const struct q2_check_report *report, struct q2_error *err)
{
    int ret = 0;
    if (s->common->json) {
        json_t *o = q2_output_check_json(report, s->shown, s->details ? &s->found : NULL,
                                         s->more);
        if (json_array_append_new(s->layers, o) < 0)
            ret = q2_fail_memory(err, sizeof(o));
    } else if (!s->common->quiet) {
        q2_output_check(report);
    }
    json_decref(s->more);
    s->more = NULL;
    return ret;
}

static int check_layer(const struct q2_command_line *line, struct q2_check_settings *s,
                       struct q2_check_chain *chain, bool *more, struct q2_error *err)
{
    struct q2_check_report report;
    struct q2_progress progress;
    *more = false;
    q2_progress_start(&progress, line, true, 2);
    int ret = q2_check(&s->request, &progress.monitor, &report, err);
    q2_progress_end(&progress, ret == 0);
    if (ret < 0) {
        output_cure(s, line->program, err);
        q2_check_chain_context(chain, err);
        if (chain->n == 0)
            q2_named_context(&s->name, line->operands[0], err);
        q2_lost_header_hint(s->request.path, line->program, err);
        return 1;
    }
    if (report.unsupported && chain->n > 0)
        return 0; // a raw file: the end
    if (report.unsupported) {
        q2_fail(err, -ENOTSUP, "This image format does not support checks");
        if (!s->request.format)
            q2_lost_header_hint(s->request.path, line->program, err);
        return EXIT_NO_CHECKS;
    }
    int code = exit_code(s, &report.scan, err);
    if (output_report(s, &report, err) < 0)
        code = 1;
    if (s->chain && code != 1 &&
        q2_check_chain_step(chain, s->request.path, &report.scan.header, more, err) < 0)
        code = 1;
    q2_check_clear(&report);
    return code;
}

// The worst of two exit codes.
static int worse(int a, int b)
{
    static const int order[] = {1, EXIT_CORRUPT, EXIT_LEAKS};
    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
        if (a == order[i] || b == order[i])
            return order[i];
    }
    return a;
}

// The image, and with --backing-chain every layer below it.
static int check_layers(const struct q2_command_line *line, struct q2_check_settings *s,
                        struct q2_error *err)
{
    struct q2_check_chain chain = {0};
    bool more;
    int code = check_layer(line, s, &chain, &more, err);
    while (more && !err->code) {
        if (!s->common->json && !s->common->quiet)
            printf("\nBacking file '%s':\n", chain.path);
        s->request.path = s->shown = chain.path;
        s->request.runtime = NULL;
        s->request.format = chain.format;
        code = worse(code, check_layer(line, s, &chain, &more, err));
    }
    q2_check_chain_clear(&chain);
    return code;
}

// What was found before an error ended it is printed, too.
static int output_layers(struct q2_check_settings *s, struct q2_error *err)
{
    json_t *out = s->layers;
    if (s->common->quiet) // as QEMU
        return 0;
    if (!s->chain && json_array_size(out) > 0)
        out = json_incref(json_array_get(s->layers, 0));
    else if (json_array_size(out) > 0)
        json_incref(out);
    else
        return 0;
    return q2_output_json(out, err);
}

static int check_images(const struct q2_command_line *line, struct q2_check_settings *s,
                        struct q2_error *err)
{
    s->request.found = on_found;
    s->request.planned = on_planned;
    s->request.curable = on_curable;
    s->request.applying = on_applying;
    s->request.opaque = s;
    s->layers = json_array();
    int code = check_layers(line, s, err);
    if (output_layers(s, err) < 0)
        code = 1;
    json_decref(s->layers);
    json_decref(s->more);
    free(s->found.list);
    return code;
}

static int check_run(struct q2_command_line *line, struct q2_error *err)
{
    struct q2_check_settings s = {.undo = NULL};
    int ret = q2_check_options_parse(line, &s, err);
    int status = ret < 0;
    if (ret == 0 && s.undo)
        status = q2_check_undo(&s.request, s.undo, err) < 0;
    else if (ret == 0)
        status = check_images(line, &s, err);
    q2_image_name_clear(&s.name);
    return status;
}

const struct q2_command q2_cmd_check = {
    .name = "check",
    .summary = "Find what is wrong with an image, and heal it",
    .operands = "FILE",
    .options = q2_check_options,
    .examples = {"check disk.qcow2", "check -r all --undo-file disk.undo disk.qcow2"},
    .writes = true,
    .run = check_run,
};
