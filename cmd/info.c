// SPDX-License-Identifier: MIT
// info: what images say of themselves.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cmd/info_output.h"
#include "cmd/lost_header.h"
#include "cmd/opening.h"
#include "cmd/options.h"
#include "cmd/output.h"

enum { OPTION_BACKING_CHAIN = Q2_OPTION_FIRST_OWN, OPTION_LIMITS };

static const struct q2_option info_options[] = {
    Q2_ROW_FORMAT,
    {"backing-chain", "", NULL, OPTION_BACKING_CHAIN, "Image", "its backing files too"},
    Q2_ROW_IMAGE_OPTS,
    {"cache", "t", "MODE", Q2_OPTION_CACHE, "Image",
     "cache mode; nothing that is told depends on it"},
    {"limits", "", NULL, OPTION_LIMITS, "Output",
     "refused: QEMU's block drivers have them"},
    Q2_ROW_OUTPUT,
    Q2_ROW_SHARE,
    Q2_ROW_OBJECT,
    Q2_ROW_END,
};

struct settings {
    const struct q2_common_options *common;
    const char *program;
    bool chain;
};

struct chain {
    struct q2_info images[Q2_MAX_CHAIN];
    struct stat files[Q2_MAX_CHAIN];
    unsigned n;
};

static int take_option(struct q2_command_line *line, int code, const char *value,
                       struct q2_error *err)
{
    struct settings *s = line->settings;
    (void)value;
    if (code == OPTION_BACKING_CHAIN)
        s->chain = true;
    if (code == OPTION_LIMITS)
        return q2_fail(err, -ENOTSUP,
                       "--limits tells of QEMU's block drivers, which are not used here");
    return 0;
}

// The same file under another name counts too: a chain that comes back to it has no end.
static int refuse_loop(struct chain *chain, const char *path, struct q2_error *err)
{
    struct stat *st = &chain->files[chain->n];
    if (stat(path, st))
        memset(st, 0, sizeof(*st)); // the open that follows says why
    for (unsigned i = 0; i < chain->n; i++)
        if (st->st_ino && st->st_ino == chain->files[i].st_ino &&
            st->st_dev == chain->files[i].st_dev)
            return q2_fail(err, -ELOOP, "Backing file '%s' creates an infinite loop.",
                           path);
    return 0;
}

static int add_image(struct chain *chain, const char *path, const char *format,
                     bool shared, const struct q2_runtime *runtime, struct q2_error *err)
{
    if (chain->n == Q2_MAX_CHAIN)
        return q2_fail(err, -ELOOP, "The backing chain is longer than %u images",
                       Q2_MAX_CHAIN);
    int rc = refuse_loop(chain, path, err);
    if (!rc)
        rc = q2_info_read(path, format, shared, runtime, &chain->images[chain->n], err);
    if (!rc)
        chain->n++;
    return rc;
}

// What the image is called, and each part of the file that lies below it.
static int set_titles(const struct q2_image_name *name, struct q2_info *info,
                      struct q2_error *err)
{
    if (name->is_part)
        info->n_parts--; // that one is the image
    for (unsigned i = 0; i < info->n_parts; i++) {
        info->parts[i].title = strdup(name->parts[i].title);
        if (!info->parts[i].title)
            return q2_fail_memory(err, strlen(name->parts[i].title));
    }
    return q2_image_name_title(name, info->format, &info->title, err);
}

// Each image is told of by itself, as it stands in its header.
static int refuse_backing_options(const struct q2_image_name *name, const char *text,
                                  struct q2_error *err)
{
    if (!name->backing_option)
        return 0;
    q2_fail(err, -EINVAL, "Block format 'qcow2' does not support the option 'backing.%s'",
            name->backing_option);
    return q2_named_context(name, text, err);
}

static int add_named(struct chain *chain, const char *text, const struct settings *s,
                     struct q2_error *err)
{
    const struct q2_common_options *c = s->common;
    struct q2_image_name name;
    int rc = q2_named_parse(text, c->image_opts, c->format, &name, err);
    if (!rc && add_image(chain, name.path, name.format,
                         c->shared || name.force_share == Q2_ON, &name.runtime, err))
        rc = q2_named_context(&name, text, err);
    if (!rc)
        q2_lost_header_note(chain->images[0].disk, s->program);
    else if (name.path)
        q2_lost_header_hint(name.path, s->program, err);
    if (!rc)
        rc = refuse_backing_options(&name, text, err);
    if (!rc)
        rc = set_titles(&name, &chain->images[0], err);
    q2_image_name_clear(&name);
    return rc;
}

static int read_chain(struct chain *chain, const char *text, const struct settings *s,
                      struct q2_error *err)
{
    int rc = add_named(chain, text, s, err);
    while (!rc && s->chain && chain->images[chain->n - 1].header.backing_file) {
        const struct q2_info *last = &chain->images[chain->n - 1];
        char *next;
        rc = q2_backing_path(last->filename, last->header.backing_file, &next, err);
        if (rc) {
            q2_context(err, "Could not open '%s'", last->header.backing_file);
            break;
        }
        rc = add_image(chain, next, last->header.backing_format, s->common->shared, NULL,
                       err);
        free(next);
    }
    return rc;
}

static int print_human(const struct chain *chain, struct q2_error *err)
{
    int rc = 0;
    for (unsigned i = 0; !rc && i < chain->n; i++) {
        if (i)
            putchar('\n');
        rc = q2_info_print(&chain->images[i], err);
    }
    return rc;
}

static int print_json(const struct chain *chain, bool as_list, struct q2_error *err)
{
    struct q2_long_lists lists = {.n = 0};
    json_t *list = json_array();
    int rc = 0;
    lists.list = calloc(chain->n, Q2_INFO_LONG_LISTS * sizeof(*lists.list));
    for (unsigned i = 0; !rc && i < chain->n; i++) {
        if (!lists.list ||
            json_array_append_new(list, q2_info_to_json(&chain->images[i], &lists)))
            rc = q2_fail_memory(err, 0);
    }
    if (!rc)
        rc = q2_output_long_json(json_incref(as_list ? list : json_array_get(list, 0)),
                                 &lists, err);
    json_decref(list);
    free(lists.list);
    return rc;
}

static int show(const char *path, const struct settings *s, struct q2_error *err)
{
    struct chain *chain = calloc(1, sizeof(*chain));
    if (!chain)
        return q2_fail_memory(err, sizeof(*chain));
    int rc = read_chain(chain, path, s, err);
    if (!rc)
        rc = s->common->json ? print_json(chain, s->chain, err) : print_human(chain, err);
    for (unsigned i = 0; i < chain->n; i++)
        q2_info_clear(&chain->images[i]);
    free(chain);
    return rc;
}

static int info_run(struct q2_command_line *line, struct q2_error *err)
{
    struct settings s = {.common = &line->common, .program = line->program};
    struct q2_file_options ignored;
    line->settings = &s;
    int rc = q2_options_parse(line, take_option, err);
    if (!rc)
        rc = q2_value_cache(line->common.cache, false, &ignored, err);
    if (!rc)
        rc = q2_options_one_image(line, err);
    if (!rc)
        rc = show(line->operands[0], &s, err);
    return rc < 0;
}

const struct q2_command q2_cmd_info = {
    .name = "info",
    .summary = "Tell what an image says of itself",
    .operands = "FILE",
    .options = info_options,
    .examples = {"info disk.qcow2", "info --backing-chain --output=json overlay.qcow2"},
    .run = info_run,
};
