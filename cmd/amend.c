// SPDX-License-Identifier: MIT
// amend: change what an image is.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/create_options.h"
#include "cmd/objects.h"
#include "cmd/opening.h"
#include "cmd/options.h"
#include "cmd/progress.h"
#include "image/probe.h"
#include "ops/amend.h"

enum { OPTION_FORCE = Q2_OPTION_FIRST_OWN };

static const struct q2_option amend_options[] = {
    {"options", "o", "OPTS", 'o', "Image", "KEY=VALUE,...; -o help lists them"},
    Q2_ROW_FORMAT,
    {"cache", "t", "MODE", Q2_OPTION_CACHE, "Image", "cache mode (default: writeback)"},
    Q2_ROW_IMAGE_OPTS,
    {"force", "", NULL, OPTION_FORCE, "Image", "allow unsafe changes of encryption"},
    Q2_ROW_PROGRESS,
    Q2_ROW_QUIET,
    Q2_ROW_OBJECT,
    Q2_ROW_END,
};

struct settings {
    char *lists;      // of -o; owned
    bool help, sizes; // what -o asks for
    bool force;
    struct q2_amend_keys slots;
    const struct q2_amend_keys *keys; // slots; NULL: not asked for
};

static int take_option(struct q2_command_line *line, int code, const char *value,
                       struct q2_error *err)
{
    struct settings *s = line->settings;
    if (code == OPTION_FORCE)
        s->force = true;
    return code == 'o' ? q2_option_list_append(&s->lists, value, err) : 0;
}

static int refuse_format(const char *format, struct q2_error *err)
{
    return q2_fail(err, -ENOTSUP, "Format driver '%s' does not support option amendment",
                   format);
}

static int print_help(const char *format, struct q2_error *err)
{
    if (!q2_format_known(format))
        return q2_fail(err, -EINVAL, "Unknown file format '%s'", format);
    if (strcmp(format, "qcow2") != 0)
        return refuse_format(format, err);
    q2_key_print_amend_help();
    return 0;
}

static int take_version(const char *text, struct q2_amend_options *out,
                        struct q2_error *err)
{
    bool old = !strcmp(text, "0.10") || !strcmp(text, "v2");
    if (!old && strcmp(text, "1.1") != 0 && strcmp(text, "v3") != 0)
        return q2_fail(err, -EINVAL, "Unknown compatibility level %s", text);
    out->set_version = true;
    out->version = old ? 2 : 3;
    return 0;
}

static bool is_given(const struct q2_new_image *image, enum q2_create_key key)
{
    return image->text[key] != NULL;
}

// The key slots of an encrypted image. NULL: nothing was said of them.
static const struct q2_amend_keys *take_keys(const struct q2_new_image *image, bool force,
                                             struct q2_amend_keys *out)
{
    const char *const *text = (const char *const *)image->text;
    *out = (struct q2_amend_keys){
        .secrets = q2_object_secrets(),
        .state = text[Q2_KEY_ENCRYPT_STATE],
        .new_secret = text[Q2_KEY_ENCRYPT_NEW_SECRET],
        .old_secret = text[Q2_KEY_ENCRYPT_OLD_SECRET],
        .set_keyslot = is_given(image, Q2_KEY_ENCRYPT_KEYSLOT),
        .keyslot = (int64_t)image->number[Q2_KEY_ENCRYPT_KEYSLOT],
        .set_iter_time = is_given(image, Q2_KEY_ENCRYPT_ITER_TIME),
        .iter_time = image->number[Q2_KEY_ENCRYPT_ITER_TIME],
        .force = force,
    };
    return out->state || out->new_secret || out->old_secret || out->set_keyslot ||
                   out->set_iter_time
               ? out
               : NULL;
}

static int take_values(const struct q2_new_image *image, struct q2_amend_options *out,
                       struct q2_error *err)
{
    const char *const *text = (const char *const *)image->text;
    out->set_size = is_given(image, Q2_KEY_SIZE);
    out->size = image->number[Q2_KEY_SIZE];
    out->set_lazy_refcounts = is_given(image, Q2_KEY_LAZY_REFCOUNTS);
    out->lazy_refcounts = image->number[Q2_KEY_LAZY_REFCOUNTS];
    out->set_refcount_bits = is_given(image, Q2_KEY_REFCOUNT_BITS);
    out->refcount_bits = image->number[Q2_KEY_REFCOUNT_BITS];
    out->set_data_file = is_given(image, Q2_KEY_DATA_FILE);
    out->data_file = text[Q2_KEY_DATA_FILE];
    out->set_data_file_raw = is_given(image, Q2_KEY_DATA_FILE_RAW);
    out->data_file_raw = image->number[Q2_KEY_DATA_FILE_RAW];
    out->set_backing =
        is_given(image, Q2_KEY_BACKING_FILE) || is_given(image, Q2_KEY_BACKING_FORMAT);
    out->backing_file = text[Q2_KEY_BACKING_FILE];
    out->backing_format = text[Q2_KEY_BACKING_FORMAT];
    return text[Q2_KEY_COMPAT] ? take_version(text[Q2_KEY_COMPAT], out, err) : 0;
}

static int amend_disk(const struct q2_command_line *line, struct q2_disk *d,
                      const struct q2_new_image *image, const struct q2_monitor *monitor,
                      struct q2_error *err)
{
    const struct settings *s = line->settings;
    struct q2_amend_options amend = {.keys = s->keys};
    int rc = take_values(image, &amend, err);
    if (!rc)
        rc = q2_amend(d, &amend, monitor, err);
    if (rc && amend.set_backing && !strcmp(err->message, "Cannot amend the backing file"))
        q2_hint(err, "You can use '%s rebase' instead.", line->program);
    return rc ? rc : q2_disk_finish(d, err);
}

static int open_image(const struct q2_command_line *line, const struct settings *s,
                      const struct q2_monitor *monitor, struct q2_disk **out,
                      struct q2_error *err)
{
    // What is in the guest's disk matters only where that is cut or made longer.
    struct q2_open_options options = {
        .writable = true, .metadata_only = !s->sizes, .need_key = s->keys != NULL};
    int rc = q2_value_cache(line->common.cache, false, &options.file, err);
    return rc ? rc
              : q2_open_operand(line, line->operands[0], &options, monitor, out, err);
}

// Options are judged by the format, and that of an image that is not told is known once
// it is open.
static int amend_image(const struct q2_command_line *line, struct settings *s,
                       struct q2_error *err)
{
    struct q2_new_image image = {.format = "qcow2", .amends = true};
    struct q2_progress progress;
    struct q2_error later = Q2_ERROR_INIT;
    struct q2_disk *d = NULL;
    int parsed = q2_new_image_parse(&image, s->lists, &later);
    s->sizes = is_given(&image, Q2_KEY_SIZE);
    s->keys = take_keys(&image, s->force, &s->slots);
    q2_progress_start(&progress, line, false, 1);
    int rc = open_image(line, s, &progress.monitor, &d, err);
    if (!rc)
        q2_warn_of_probing(d);
    if (!rc && strcmp(d->ops->format, "qcow2") != 0) {
        rc = refuse_format(d->ops->format, err);
    } else if (!rc && s->help) {
        rc = print_help(d->ops->format, err);
    } else if (!rc && parsed) {
        *err = later;
        rc = parsed;
    } else if (!rc) {
        q2_progress_start(&progress, line, true, 1);
        rc = amend_disk(line, d, &image, &progress.monitor, err);
    }
    q2_progress_end(&progress, !rc);
    q2_disk_close(d);
    q2_new_image_clear(&image);
    return rc;
}

static int amend_with(struct q2_command_line *line, struct settings *s,
                      struct q2_error *err)
{
    if (!s->lists)
        return q2_options_misuse(line, err, "Must specify options (-o)");
    s->help = q2_option_list_asks_help(s->lists);
    if (s->help && line->common.format)
        return print_help(line->common.format, err);
    if (line->n_operands != 1) // without the hint, as QEMU
        return q2_fail(err, -EINVAL, "Expecting one image file name");
    return amend_image(line, s, err);
}

static int amend_run(struct q2_command_line *line, struct q2_error *err)
{
    struct settings s = {.lists = NULL};
    line->settings = &s;
    int rc = q2_options_parse(line, take_option, err);
    if (!rc)
        rc = amend_with(line, &s, err);
    free(s.lists);
    return rc < 0;
}

const struct q2_command q2_cmd_amend = {
    .name = "amend",
    .summary = "Change an image's version, refcount width and other properties",
    .operands = "FILE",
    .options = amend_options,
    .examples = {"amend -o compat=1.1,lazy_refcounts=on disk.qcow2",
                 "amend -p -o compat=0.10 disk.qcow2"},
    .writes = true,
    .run = amend_run,
};
