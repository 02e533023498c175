// SPDX-License-Identifier: MIT
// Disks as the command line names them, and backing files of images to be made.
#include "cmd/opening.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/lost_header.h"
#include "image/image.h"
#include "image/path.h"
#include "ops/open_rw.h"

// "Could not open 'x': why" of the user's own files is "why" where the file is not the
// one that the command is about.
static void drop_context(struct q2_error *err, const char *path)
{
    char context[Q2_ERROR_MESSAGE_MAX];
    int n = snprintf(context, sizeof(context), "Could not open '%s': ", path);
    size_t length = (size_t)n;
    if (n > 0 && length < sizeof(context) && !strncmp(err->message, context, length))
        memmove(err->message, err->message + length, strlen(err->message + length) + 1);
}

int q2_open_backing(const char *overlay_path, const char *backing_name,
                    const struct q2_open_options *options, struct q2_disk **out,
                    struct q2_error *err)
{
    char *path;
    int rc = q2_backing_path(overlay_path, backing_name, &path, err);
    if (rc)
        return rc;
    rc = q2_disk_open(path, options, out, err);
    if (rc)
        drop_context(err, path);
    free(path);
    return rc;
}

// --- names of the command line -------------------------------------------------------

// What the name says, over what the command asks for.
static int merge_options(const struct q2_image_name *name, struct q2_open_options *o,
                         struct q2_error *err)
{
    if (o->writable && name->read_only == Q2_ON)
        return q2_fail(err, -EROFS, "Block node is read-only");
    o->unsafe_share = o->unsafe_share || name->force_share == Q2_ON;
    if (o->writable && o->unsafe_share)
        return q2_fail(err, -EINVAL,
                       "force-share=on can only be used with read-only images");
    o->format = name->format;
    if (name->direct != Q2_UNSET)
        o->file.direct = name->direct == Q2_ON;
    if (name->no_flush != Q2_UNSET)
        o->file.no_flush = name->no_flush == Q2_ON;
    if (name->native_aio && !o->file.direct)
        return q2_fail(err, -EINVAL,
                       "aio=native was specified, but it requires cache.direct=on, which "
                       "was not specified.");
    if (!name->plain)
        o->runtime = &name->runtime;
    // A passphrase that was given is tried, whether it is needed or not.
    o->need_key = o->need_key || name->runtime.encrypt_key_secret;
    return 0;
}

static int open_given_backing(struct q2_disk *d, const struct q2_image_name *name,
                              const struct q2_open_options *top, struct q2_error *err)
{
    const struct q2_header *h = &q2_image_of(d)->header;
    struct q2_image_name backing = *name;
    struct q2_open_options o = {.unsafe_share = top->unsafe_share, .file = top->file};
    char *path = NULL;
    int rc = 0;
    if (!backing.path && !h->backing_file)
        return 0;
    if (!backing.path) {
        rc = q2_backing_path(d->path, h->backing_file, &path, err);
        backing.path = path;
        if (!backing.format)
            backing.format = h->backing_format;
    }
    if (!rc)
        rc = q2_open_image_name(&backing, &o, NULL, &d->backing, err);
    free(path);
    return rc ? q2_context(err, "Could not open backing file") : 0;
}

static int open_merged(const struct q2_image_name *name, const struct q2_open_options *o,
                       const struct q2_monitor *monitor, struct q2_disk **out,
                       struct q2_error *err)
{
    struct q2_disk *d = NULL;
    int rc = o->writable ? q2_open_rw(name->path, o, monitor, &d, err)
                         : q2_disk_open(name->path, o, &d, err);
    if (!rc)
        rc = q2_image_name_check(name, d->ops->format, d->cluster_size, err);
    if (!rc && name->backing)
        rc = open_given_backing(d, name->backing, o, err);
    if (rc)
        q2_disk_close(d);
    else
        *out = d;
    return rc;
}

int q2_open_image_name(const struct q2_image_name *name,
                       const struct q2_open_options *options,
                       const struct q2_monitor *monitor, struct q2_disk **out,
                       struct q2_error *err)
{
    struct q2_open_options o = *options;
    int rc = merge_options(name, &o, err);
    if (rc)
        return rc;
    rc = open_merged(name, &o, monitor, out, err);
    if (rc)
        drop_context(err, name->path);
    return rc;
}

int q2_named_parse(const char *text, bool image_opts, const char *format,
                   struct q2_image_name *name, struct q2_error *err)
{
    *name = (struct q2_image_name){.path = NULL};
    if (image_opts && format)
        return q2_fail(err, -EINVAL, "--image-opts and --format are mutually exclusive");
    int rc = q2_image_name_parse(text, image_opts, "file", format, name, err);
    return rc ? q2_context(err, "Could not open '%s'", text) : 0;
}

int q2_named_context(const struct q2_image_name *name, const char *text,
                     struct q2_error *err)
{
    if (name->plain)
        return err->code;
    drop_context(err, name->path);
    return q2_context(err, "Could not open '%s'", text);
}

int q2_new_path(const char *text, const char **path, struct q2_error *err)
{
    return q2_path_plain(text, path, err);
}

static int open_named(const char *text, bool image_opts,
                      const struct q2_open_options *options,
                      const struct q2_monitor *monitor, struct q2_image_name *name,
                      struct q2_disk **out, struct q2_error *err)
{
    struct q2_open_options o = *options;
    int rc = q2_named_parse(text, image_opts, options->format, name, err);
    if (rc)
        return rc;
    if (merge_options(name, &o, err))
        return q2_context(err, "Could not open '%s'", text);
    return open_merged(name, &o, monitor, out, err) ? q2_named_context(name, text, err)
                                                    : 0;
}

int q2_open_named(const char *text, bool image_opts,
                  const struct q2_open_options *options, const struct q2_monitor *monitor,
                  struct q2_disk **out, struct q2_error *err)
{
    struct q2_image_name name;
    int rc = open_named(text, image_opts, options, monitor, &name, out, err);
    q2_image_name_clear(&name);
    return rc;
}

int q2_open_operand_name(const struct q2_command_line *line, const char *text,
                         const struct q2_open_options *options,
                         const struct q2_monitor *monitor, struct q2_image_name *name,
                         struct q2_disk **out, struct q2_error *err)
{
    struct q2_open_options o = *options;
    o.format = line->common.format;
    o.unsafe_share = line->common.shared;
    int rc = open_named(text, line->common.image_opts, &o, monitor, name, out, err);
    if (!rc)
        q2_lost_header_note(*out, line->program);
    else if (name->path)
        q2_lost_header_hint(name->path, line->program, err);
    return rc;
}

int q2_open_operand(const struct q2_command_line *line, const char *text,
                    const struct q2_open_options *options,
                    const struct q2_monitor *monitor, struct q2_disk **out,
                    struct q2_error *err)
{
    struct q2_image_name name;
    int rc = q2_open_operand_name(line, text, options, monitor, &name, out, err);
    q2_image_name_clear(&name);
    return rc;
}

int q2_reopen_layer(const struct q2_image_name *name, struct q2_disk *top,
                    struct q2_disk *layer, const struct q2_open_options *options,
                    const struct q2_monitor *monitor, struct q2_disk **out,
                    struct q2_error *err)
{
    struct q2_disk *overlay = top;
    const struct q2_image_name *given = name->backing;
    for (; overlay->backing != layer; overlay = overlay->backing)
        given = given ? given->backing : NULL;
    struct q2_image_name again = given ? *given : (struct q2_image_name){.path = NULL};
    char *path = strdup(layer->path);
    if (!path)
        return q2_fail_memory(err, strlen(layer->path));
    again.path = path;
    again.format = layer->probed_raw ? NULL : (char *)layer->ops->format;
    overlay->backing = NULL; // its lock would be in the way
    q2_disk_close(layer);
    int rc = q2_open_image_name(&again, options, monitor, out, err);
    if (!rc)
        overlay->backing = *out;
    else if (rc != -EAGAIN) // of a lock, the hint names the file
        q2_context(err, "Could not open '%s'", path);
    free(path);
    return rc;
}

void q2_warn_of_probing(const struct q2_disk *d)
{
    if (!d->probed_raw)
        return;
    fprintf(stderr,
            "WARNING: Image format was not specified for '%s' and probing guessed "
            "raw.\n         Automatically detecting the format is dangerous for raw "
            "images, write operations on block 0 will be restricted.\n         "
            "Specify the 'raw' format explicitly to remove the restrictions.\n",
            d->path);
}
