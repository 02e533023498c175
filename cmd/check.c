// SPDX-License-Identifier: MIT
// check: find what is wrong with an image, and heal it.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/check_output.h"
#include "cmd/options.h"
#include "cmd/progress.h"
#include "image/open.h"

// Exit codes besides 0 and 1.
enum { EXIT_CORRUPT = 2, EXIT_LEAKS = 3, EXIT_NO_CHECKS = 63 };

enum {
    OPTION_DRY_RUN = Q2_OPTION_FIRST_OWN,
    OPTION_UNDO_FILE,
    OPTION_UNDO,
    OPTION_DETAILS,
    OPTION_READ_DATA,
    OPTION_CLEAR_FEATURE,
    OPTION_CHAIN,
};

static const struct q2_option check_options[] = {
    {"repair", "r", "WHAT", 'r', "Repair",
     "leaks, or all (may lose guest data, and says so)"},
    {"dry-run", "", NULL, OPTION_DRY_RUN, "Repair", "show the repair, write nothing"},
    {"undo-file", "", "FILE", OPTION_UNDO_FILE, "Repair",
     "keep what is needed to take it back"},
    {"undo", "", "FILE", OPTION_UNDO, "Repair", "take the repair of that file back"},
    {"clear-feature", "", "BIT", OPTION_CLEAR_FEATURE, "Repair",
     "clear an unknown incompatible feature bit"},
    {"backing-chain", "", NULL, OPTION_CHAIN, "Check", "check the backing files, too"},
    {"read-data", "", NULL, OPTION_READ_DATA, "Check",
     "read and inflate every cluster, too"},
    {"details", "", NULL, OPTION_DETAILS, "Check",
     "with --output=json: list the findings"},
    Q2_ROW_FORMAT,
    {"cache", "T", "MODE", 'T', "Image", "cache mode (default: writeback)"},
    Q2_ROW_IMAGE_OPTS,
    Q2_ROW_OUTPUT,
    Q2_ROW_PROGRESS,
    Q2_ROW_QUIET,
    Q2_ROW_SHARE,
    Q2_ROW_OBJECT,
    Q2_ROW_END,
};

struct settings {
    struct q2_check_request request;
    const char *cache, *undo;
    bool json, progress, quiet, details, chain;
    struct q2_findings found; // a copy, for --details after a repair
};

static int take_repair(struct q2_command_line *line, struct settings *s,
                       const char *value, struct q2_error *err)
{
    s->request.repair = true;
    if (strcmp(value, "leaks") == 0)
        s->request.mode = Q2_REPAIR_MODE_LEAKS;
    else if (strcmp(value, "all") == 0)
        s->request.mode = Q2_REPAIR_MODE_ALL;
    else
        return q2_options_misuse(
            line, err, "--repair (-r) expects 'leaks' or 'all', not '%s'", value);
    return 0;
}

static int take_feature(struct settings *s, const char *value, struct q2_error *err)
{
    uint64_t bit = 0;
    int ret = q2_value_number("--clear-feature", value, 0, 63, &bit, err);
    if (ret < 0)
        return ret;
    if (Q2_INCOMPAT_KNOWN & (UINT64_C(1) << bit))
        return q2_fail(err, -EINVAL,
                       "Feature bit %" PRIu64 " is known; check does not clear it", bit);
    s->request.clear_features |= UINT64_C(1) << bit;
    return 0;
}

static int take_option(struct q2_command_line *line, int code, const char *value,
                       struct q2_error *err)
{
    struct settings *s = line->settings;
    switch (code) {
    case 'f':
        s->request.format = value;
        break;
    case 'r':
        return take_repair(line, s, value, err);
    case 'T':
        s->cache = value;
        break;
    case 'p':
        s->progress = true;
        break;
    case 'q':
        s->quiet = true;
        break;
    case 'U':
        s->request.shared = true;
        break;
    case OPTION_DRY_RUN:
        s->request.dry_run = true;
        break;
    case OPTION_UNDO_FILE:
        s->request.undo_file = value;
        break;
    case OPTION_UNDO:
        s->undo = value;
        break;
    case OPTION_DETAILS:
        s->details = true;
        break;
    case OPTION_CHAIN:
        s->chain = true;
        break;
    case OPTION_CLEAR_FEATURE:
        return take_feature(s, value, err);
    case OPTION_READ_DATA:
        s->request.read_data = true;
        break;
    case Q2_OPTION_OUTPUT:
        return q2_value_output(line, value, &s->json, err);
    }
    return 0;
}

// The findings go with their scan; --details prints them after the repair.
static void keep_findings(struct settings *s, const struct q2_scan *scan)
{
    size_t n = scan->findings.n + scan->late.n;
    free(s->found.list);
    s->found.n = 0;
    s->found.list = n ? malloc(n * sizeof(*s->found.list)) : NULL;
    if (!s->found.list)
        return;
    s->found.n = n;
    for (size_t i = 0; i < n; i++)
        s->found.list[i] = i < scan->findings.n ? scan->findings.list[i]
                                                : scan->late.list[i - scan->findings.n];
}

static void on_found(void *opaque, const struct q2_scan *scan)
{
    struct settings *s = opaque;
    q2_output_findings(&scan->findings, NULL);
    q2_output_findings(&scan->late, NULL);
    if (s->details)
        keep_findings(s, scan);
}

static void on_planned(void *opaque, const struct q2_plan *plan)
{
    struct settings *s = opaque;
    q2_output_findings(&plan->healed, "Repairing");
    if (plan->leaks_kept)
        fprintf(
            stderr,
            "The leaked clusters are kept: damaged entries may have lost them. Repair "
            "with -r all.\n");
    if (s->json || s->quiet)
        return;
    if (s->request.dry_run && q2_plan_has_edits(plan))
        q2_output_plan(plan);
    q2_output_losses(plan);
}

static int exit_code(const struct q2_scan *s)
{
    if (s->corruptions > 0)
        return EXIT_CORRUPT;
    return s->leaks > 0 ? EXIT_LEAKS : 0;
}

// What is the next layer, if the chain is to be checked? Names are malloced.
static int next_layer(const struct settings *s, const struct q2_scan *scan, char **path,
                      char **format, struct q2_error *err)
{
    const struct q2_header *h = &scan->header;
    *path = *format = NULL;
    if (!s->chain || !h->backing_file)
        return 0;
    if (h->backing_format) {
        *format = strdup(h->backing_format);
        if (!*format)
            return q2_fail_memory(err, strlen(h->backing_format));
    }
    return q2_backing_path(s->request.path, h->backing_file, path, err);
}

static int check_layer(const struct q2_command_line *line, struct settings *s,
                       char **next_path, char **next_format, struct q2_error *err)
{
    struct q2_check_report report;
    struct q2_progress progress;
    *next_path = *next_format = NULL;
    s->request.found = on_found;
    s->request.planned = on_planned;
    s->request.opaque = s;
    q2_progress_start(&progress, line, s->progress, s->quiet, 2);
    int ret = q2_check(&s->request, &progress.monitor, &report, err);
    q2_progress_end(&progress, ret == 0);
    if (ret < 0)
        return 1;
    if (report.unsupported) {
        q2_fail(err, -ENOTSUP, "This image format does not support checks");
        return EXIT_NO_CHECKS;
    }
    if (s->json)
        ret =
            q2_output_check_json(&report, s->request.path, s->details ? &s->found : NULL);
    else if (!s->quiet)
        q2_output_check(&report);
    int code = ret < 0 ? 1 : exit_code(&report.scan);
    if (next_layer(s, &report.scan, next_path, next_format, err) < 0)
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

// The image, and with --backing-chain every layer below it; the chain ends with the first
// raw file.
static int check_images(const struct q2_command_line *line, struct settings *s,
                        struct q2_error *err)
{
    char *path = NULL, *format = NULL;
    int code = 0;
    s->request.path = line->operands[0];
    for (unsigned n = 0; n < Q2_MAX_CHAIN; n++) {
        char *next_path, *next_format;
        int one = check_layer(line, s, &next_path, &next_format, err);
        if (n > 0 && one == EXIT_NO_CHECKS) {
            *err = (struct q2_error)Q2_ERROR_INIT;
            one = 0;
        }
        code = n == 0 ? one : worse(code, one);
        free(path);
        free(format);
        path = next_path;
        format = next_format;
        if (!path || err->code)
            break;
        if (!s->json && !s->quiet)
            printf("\nBacking file '%s':\n", path);
        s->request.path = path;
        s->request.format = format;
    }
    free(path);
    free(format);
    return code;
}

static int check_usage(struct q2_command_line *line, const struct settings *s,
                       struct q2_error *err)
{
    struct q2_file_options ignored = {0};
    int ret = q2_options_one_image(line, err);
    if (ret == 0 && !s->request.repair && (s->request.dry_run || s->request.undo_file))
        ret = q2_options_misuse(line, err, "--dry-run and --undo-file go with --repair");
    if (ret == 0 && s->request.shared &&
        (s->undo || (s->request.repair && !s->request.dry_run)))
        ret =
            q2_fail(err, -EINVAL,
                    "Could not open '%s': force-share=on can only be used with read-only "
                    "images",
                    line->operands[0]);
    if (ret == 0 && s->undo && s->request.repair)
        ret = q2_options_misuse(line, err, "--undo and --repair exclude each other");
    return ret < 0 ? ret : q2_value_cache(s->cache, true, &ignored, err);
}

static int check_run(struct q2_command_line *line, struct q2_error *err)
{
    struct settings s = {.cache = "writeback"};
    line->settings = &s;
    int ret = q2_options_parse(line, take_option, err);
    if (ret == 0)
        ret = check_usage(line, &s, err);
    if (ret != 0)
        return ret < 0;
    if (s.undo)
        return q2_check_undo(line->operands[0], s.undo, err) < 0;
    int code = check_images(line, &s, err);
    free(s.found.list);
    return code;
}

const struct q2_command q2_cmd_check = {
    .name = "check",
    .summary = "Find what is wrong with an image, and heal it",
    .operands = "FILE",
    .options = check_options,
    .examples = {"check disk.qcow2", "check -r all --undo-file disk.undo disk.qcow2"},
    .writes = true,
    .run = check_run,
};
