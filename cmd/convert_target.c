// SPDX-License-Identifier: MIT
// convert, the target: what was asked of it, and whether that can be.
#include <errno.h>
#include <string.h>

#include "cmd/choices.h"
#include "cmd/convert.h"
#include "cmd/opening.h"
#include "image/chain.h"
#include "image/codec.h"
#include "image/probe.h"
#include "ops/create.h"

static int collect_options(struct q2_conversion *c, struct q2_error *err)
{
    struct q2_convert_settings *s = c->settings;
    int rc = s->lists ? q2_new_image_parse(&c->image, s->lists, err) : 0;
    if (!rc)
        rc = q2_new_image_set_size(&c->image, c->size, err);
    if (!rc && s->backing_file)
        rc = q2_new_image_set(&c->image, Q2_KEY_BACKING_FILE, s->backing_file, err);
    if (!rc && s->backing_format)
        rc = q2_new_image_set(&c->image, Q2_KEY_BACKING_FORMAT, s->backing_format, err);
    if (c->image.text[Q2_KEY_BACKING_FILE])
        s->backing_file = c->image.text[Q2_KEY_BACKING_FILE];
    return rc;
}

static bool is_on(const struct q2_new_image *image, enum q2_create_key key)
{
    return image->text[key] && image->number[key];
}

static int check_backing(const struct q2_conversion *c, struct q2_error *err)
{
    const struct q2_convert_settings *s = c->settings;
    if (!s->backing_file)
        return 0;
    if (s->copy.target_is_zero)
        return q2_fail(err, -EINVAL,
                       "Cannot use --target-is-zero when the destination image has a "
                       "backing file");
    if (c->n_sources > 1)
        return q2_fail(err, -EINVAL,
                       "Having a backing file for the target makes no sense when "
                       "concatenating multiple input images");
    if (!s->no_create && !c->image.text[Q2_KEY_BACKING_FORMAT])
        return q2_fail(err, -EINVAL,
                       "Use of backing file requires explicit backing format");
    return 0;
}

static bool has_data_file(const struct q2_conversion *c)
{
    return c->target ? c->target->data != c->target->file
                     : c->image.text[Q2_KEY_DATA_FILE] != NULL;
}

static int set_level(const struct q2_conversion *c, struct q2_error *err)
{
    const char *in_list = c->image.text[Q2_KEY_COMPRESSION_LEVEL];
    const char *text = in_list ? in_list : c->settings->level;
    struct q2_convert_options *copy = &c->settings->copy;
    if (!text)
        return 0;
    if (!copy->compress)
        return q2_fail(err, -EINVAL, "A compression level requires use of -c flag");
    const struct q2_choice *level = q2_choice_find(q2_choices_level, text);
    if (!level)
        return q2_fail(err, -EINVAL,
                       "Invalid compression level '%s': it is fast, best, or 1 to 9",
                       text);
    copy->level = level->value;
    return 0;
}

static int check_compression(const struct q2_conversion *c, const char *format,
                             struct q2_error *err)
{
    const char *preallocation = c->image.text[Q2_KEY_PREALLOCATION];
    int rc = set_level(c, err);
    if (rc || !c->settings->copy.compress)
        return rc;
    if (strcmp(format, "qcow2") != 0)
        return q2_fail(err, -ENOTSUP, "Compression not supported for this file format");
    if (has_data_file(c))
        return q2_fail(err, -ENOTSUP,
                       "Compression not supported with an external data file");
    if (is_on(&c->image, Q2_KEY_ENCRYPTION) || c->image.text[Q2_KEY_ENCRYPT_FORMAT])
        return q2_fail(err, -EINVAL,
                       "Compression and encryption not supported at the same time");
    if (preallocation && strcmp(preallocation, "off") != 0)
        return q2_fail(err, -EINVAL,
                       "Compression and preallocation not supported at the same time");
    return 0;
}

// The target's backing file is read where the copy fills a cluster in part.
static int open_backing(struct q2_conversion *c, struct q2_error *err)
{
    struct q2_open_options options = {.format = c->image.text[Q2_KEY_BACKING_FORMAT],
                                      .unsafe_share = c->settings->common->shared,
                                      .file = c->settings->source_file};
    if (!c->settings->backing_file)
        return 0;
    int rc = q2_open_backing(c->target_name, c->settings->backing_file, &options,
                             &c->backing, err);
    if (!rc)
        return 0;
    q2_context(err, "Could not open backing file");
    return q2_context(err, "Could not open '%s'", c->target_name);
}

// Image locks tell too, but not with -U, nor on file systems without locks: and then the
// target would be emptied while it is still to be read.
static int refuse_read_file(const struct q2_conversion *c, const char *path,
                            struct q2_error *err)
{
    bool is_read = c->backing && q2_chain_has_file(c->backing, path);
    for (unsigned i = 0; i < c->n_sources; i++)
        is_read = is_read || q2_chain_has_file(c->sources[i], path);
    if (is_read)
        return q2_fail(err, -EINVAL, "'%s' cannot be the target: it is read for the copy",
                       path);
    return 0;
}

static int creation_failed(const struct q2_conversion *c, struct q2_error *err)
{
    return q2_context(err, "%s: error while converting %s", c->target_name,
                      c->image.format);
}

// What is wrong with the options is told before any more files are opened.
static int settle_options(struct q2_conversion *c, struct q2_create_options *options,
                          struct q2_error *err)
{
    int rc = q2_new_image_resolve(&c->image, options, err);
    if (!rc)
        rc = q2_create_validate(options, err);
    if (rc)
        return creation_failed(c, err);
    if (c->settings->bitmaps &&
        (strcmp(options->format, "qcow2") != 0 || options->version < 3))
        return q2_fail(err, -ENOTSUP, "Format driver '%s' does not support bitmaps",
                       options->format);
    return 0;
}

static int create_target(struct q2_conversion *c, const struct q2_create_options *options,
                         const struct q2_monitor *mon, struct q2_error *err)
{
    int rc = q2_create_open(c->target_path, options, &c->settings->target_file, mon,
                            &c->target, &c->made, err);
    if (rc)
        return creation_failed(c, err);
    if (!c->target->backing) {
        c->target->backing = c->backing;
        c->backing = NULL;
    }
    return 0;
}

// New clusters of a qcow2 image read as zeros wherever it lies; bytes of a file that was
// made longer do, those of a device do not.
static bool reads_as_zeros(const struct q2_conversion *c)
{
    bool raw_data =
        c->image.text[Q2_KEY_DATA_FILE_RAW] && c->image.number[Q2_KEY_DATA_FILE_RAW];
    bool preallocated = c->image.text[Q2_KEY_PREALLOCATION] &&
                        strcmp(c->image.text[Q2_KEY_PREALLOCATION], "off") != 0;
    if (c->target->backing)
        return false;
    return c->target->data->sparse_growth ||
           (!strcmp(c->image.format, "qcow2") && !preallocated && !raw_data);
}

int q2_convert_check_new(struct q2_conversion *c, struct q2_create_options *options,
                         struct q2_error *err)
{
    if (!q2_format_known(c->image.format))
        return q2_fail(err, -EINVAL, "Unknown file format '%s'", c->image.format);
    int rc = collect_options(c, err);
    if (!rc)
        rc = check_backing(c, err);
    if (!rc)
        rc = check_compression(c, c->image.format, err);
    if (!rc)
        rc = settle_options(c, options, err);
    return rc;
}

int q2_convert_prepare_new(struct q2_conversion *c, const struct q2_monitor *mon,
                           struct q2_error *err)
{
    struct q2_convert_options *copy = &c->settings->copy;
    struct q2_create_options options;
    int rc = q2_convert_check_new(c, &options, err);
    if (!rc)
        rc = open_backing(c, err);
    if (!rc)
        rc = refuse_read_file(c, c->target_path, err);
    if (!rc && options.data_file)
        rc = refuse_read_file(c, options.data_file, err);
    if (!rc)
        rc = create_target(c, &options, mon, err);
    if (rc)
        return rc;
    copy->target_is_zero = reads_as_zeros(c);
    copy->target_has_backing = c->target->backing != NULL;
    copy->target_backing_size = c->target->backing ? c->target->backing->size : 0;
    return 0;
}

static int open_target(struct q2_conversion *c, const struct q2_monitor *mon,
                       struct q2_error *err)
{
    const struct q2_convert_settings *s = c->settings;
    const char *text = c->target_name;
    const struct q2_open_options options = {.writable = true, .file = s->target_file};
    struct q2_image_name name;
    int rc = q2_named_parse(text, s->target_image_opts,
                            s->target_image_opts ? NULL : c->image.format, &name, err);
    if (!rc)
        rc = refuse_read_file(c, name.path, err);
    if (!rc && q2_open_image_name(&name, &options, mon, &c->target, err))
        rc = q2_context(err, "Could not open '%s'", text);
    q2_image_name_clear(&name);
    return rc;
}

int q2_convert_prepare_existing(struct q2_conversion *c, const struct q2_monitor *mon,
                                struct q2_error *err)
{
    struct q2_convert_options *copy = &c->settings->copy;
    int rc = check_backing(c, err);
    if (!rc)
        rc = open_target(c, mon, err);
    if (!rc)
        rc = check_compression(c, c->target->ops->format, err);
    if (!rc && c->target->size < c->size)
        rc = q2_fail(err, -ENOSPC, "output file is smaller than input file");
    copy->target_has_backing = c->settings->backing_file != NULL;
    copy->target_backing_size = UINT64_MAX; // where it ends is its image's own affair
    return rc;
}
