// SPDX-License-Identifier: MIT
// The tree of options of an image: a format, the file below it, its backing file.
#include "cmd/image_opts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/choices.h"

// Where in the tree of options a node's are: "" or "file." or "backing.file." …
#define MAX_PREFIX 256U
#define MAX_DEPTH 8U

struct tree {
    struct q2_pairs *pairs;
    struct q2_image_name *out;
    struct q2_error *err;
};

static int join(const char *prefix, const char *key, char out[MAX_PREFIX],
                struct q2_error *err)
{
    size_t n = strlen(prefix), n_key = strlen(key);
    if (n + n_key + 2 > MAX_PREFIX)
        return q2_fail(err, -EINVAL,
                       "The options of the image are nested too deep: the names of nodes "
                       "have no more than %u characters",
                       MAX_PREFIX);
    memcpy(out, prefix, n);
    memcpy(out + n, key, n_key);
    memcpy(out + n + n_key, ".", 2);
    return 0;
}

// --- the file below the format -------------------------------------------------------

static bool is_protocol(const char *driver)
{
    return !strcmp(driver, "file") || !strcmp(driver, "host_device");
}

static int take_aio(const struct tree *t, const char *prefix)
{
    const struct q2_pair *p = q2_pairs_take(t->pairs, prefix, "aio");
    const char *value = p ? p->value : "threads";
    const struct q2_choice *c = value ? q2_choice_find(q2_choices_aio, value) : NULL;
    if (!c)
        return q2_fail(t->err, -EINVAL, "invalid parameter value: %s",
                       value ? value : "null");
    t->out->native_aio = t->out->native_aio || c->value == Q2_AIO_NATIVE;
    return 0;
}

static int take_locking(const struct tree *t, const char *prefix)
{
    static const char *const names[] = {
        [Q2_LOCKING_AUTO] = "auto", [Q2_LOCKING_ON] = "on", [Q2_LOCKING_OFF] = "off"};
    const struct q2_pair *p = q2_pairs_take(t->pairs, prefix, "locking");
    const char *value = p ? p->value : "auto";
    for (unsigned i = 0; value && i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(value, names[i]) == 0) {
            t->out->runtime.locking = (enum q2_locking)i;
            return 0;
        }
    }
    return q2_fail(t->err, -EINVAL, "invalid parameter value: %s",
                   value ? value : "null");
}

static int refuse_unused(const struct tree *t, const char *prefix, const char *driver)
{
    const char *key = q2_pairs_unused(t->pairs, prefix);
    if (!key)
        return 0;
    if (is_protocol(driver))
        return q2_fail(t->err, -EINVAL,
                       "Block protocol '%s' doesn't support the option '%s'", driver,
                       key);
    return q2_fail(t->err, -EINVAL, "Block format '%s' does not support the option '%s'",
                   driver, key);
}

static int take_file_options(const struct tree *t, const char *prefix, const char *driver)
{
    const struct q2_pair *name = q2_pairs_take(t->pairs, prefix, "filename");
    if (!name || !name->value || !*name->value)
        return q2_fail(t->err, -EINVAL, "The '%s' block driver requires a file name",
                       driver);
    int rc = q2_image_name_set_path(t->out, name->value, t->err);
    if (!rc)
        rc = take_aio(t, prefix);
    if (!rc)
        rc = take_locking(t, prefix);
    if (!rc)
        rc = q2_image_take_common(t->pairs, prefix, t->out, t->err);
    return rc ? rc : refuse_unused(t, prefix, driver);
}

static const char *driver_of(const struct tree *t, const char *prefix)
{
    const struct q2_pair *p = q2_pairs_take(t->pairs, prefix, "driver");
    return p && p->value ? p->value : NULL;
}

// The node that holds the bytes: a file, perhaps with raw drivers between, which can be
// parts of it.
static int take_file(const struct tree *t, const char *above, const char *key,
                     unsigned depth)
{
    char prefix[MAX_PREFIX];
    const struct q2_pair *reference = q2_pairs_take(t->pairs, above, key);
    bool below = q2_pairs_has_below(t->pairs, above, key);
    bool refers = reference && reference->is_text;
    if (refers && below)
        return q2_fail(
            t->err, -EINVAL,
            "Cannot reference an existing block device with additional options "
            "or a new filename");
    if (refers)
        return q2_fail(t->err, -EINVAL, "Cannot find device='%s' nor node-name='%s'",
                       reference->value, reference->value);
    if (depth > MAX_DEPTH)
        return q2_fail(t->err, -EINVAL,
                       "The options of the image are nested too deep: there are no more "
                       "than %u nodes below each other",
                       MAX_DEPTH);
    if (!below)
        return q2_fail(t->err, -EINVAL, "A block device must be specified for \"%s\"",
                       key);
    int rc = join(above, key, prefix, t->err);
    if (rc)
        return rc;
    const char *driver = driver_of(t, prefix);
    if (!driver || is_protocol(driver))
        return take_file_options(t, prefix, driver ? driver : "file");
    if (strcmp(driver, "raw") != 0)
        return q2_fail(t->err, -EINVAL,
                       strcmp(driver, "qcow2") ? "Unknown driver '%s'"
                                               : "An image inside of a '%s' image is not "
                                                 "supported",
                       driver);
    rc = take_file(t, prefix, "file", depth + 1);
    if (!rc)
        rc = q2_image_name_add_part(t->out, t->pairs, prefix, t->err);
    if (!rc)
        rc = q2_image_take_common(t->pairs, prefix, t->out, t->err);
    return rc ? rc : refuse_unused(t, prefix, driver);
}

// --- the format ----------------------------------------------------------------------

static int resolve(const struct tree *t, const char *prefix);

static int note_option(const char *key, char **out, struct q2_error *err)
{
    free(*out);
    *out = key ? strdup(key) : NULL;
    return key && !*out ? q2_fail_memory(err, strlen(key)) : 0;
}

static int take_backing(const struct tree *t, const char *above)
{
    char prefix[MAX_PREFIX];
    const struct q2_pair *p = q2_pairs_take(t->pairs, above, "backing");
    if (p && p->value && *p->value && strcmp(p->value, "null") != 0)
        return q2_fail(t->err, -EINVAL,
                       "Could not open backing file: Cannot find device='%s' nor "
                       "node-name='%s'",
                       p->value, p->value);
    bool below = q2_pairs_has_below(t->pairs, above, "backing");
    t->out->runtime.backing_off = p || below;
    if (!below)
        return 0;
    t->out->backing = calloc(1, sizeof(*t->out->backing));
    if (!t->out->backing)
        return q2_fail_memory(t->err, sizeof(*t->out->backing));
    int rc = join(above, "backing", prefix, t->err);
    if (!rc && !*above)
        rc = note_option(q2_pairs_unused(t->pairs, prefix), &t->out->backing_option,
                         t->err);
    if (!rc) {
        const struct tree deeper = {t->pairs, t->out->backing, t->err};
        rc = resolve(&deeper, prefix);
    }
    return rc ? q2_context(t->err, "Could not open backing file") : 0;
}

static int take_encryption(const struct tree *t, const char *above)
{
    char prefix[MAX_PREFIX];
    int rc = join(above, "encrypt", prefix, t->err);
    return rc ? rc : q2_image_take_encryption(t->pairs, prefix, t->out, t->err);
}

static int take_data_file(const struct tree *t, const char *above)
{
    const struct q2_pair *p = q2_pairs_take(t->pairs, above, "data-file");
    if (!(p && p->is_text) && !q2_pairs_has_below(t->pairs, above, "data-file"))
        return 0;
    t->out->data_file = calloc(1, sizeof(*t->out->data_file));
    if (!t->out->data_file)
        return q2_fail_memory(t->err, sizeof(*t->out->data_file));
    const struct tree deeper = {t->pairs, t->out->data_file, t->err};
    int rc = take_file(&deeper, above, "data-file", 0);
    if (!rc && q2_image_name_is_cut(t->out->data_file))
        rc = q2_fail(t->err, -ENOTSUP,
                     "A data file that is a part of another file is not supported");
    t->out->runtime.data_file = t->out->data_file->path;
    t->out->runtime.data_file_locking = t->out->data_file->runtime.locking;
    return rc;
}

static int take_qcow2(const struct tree *t, const char *prefix)
{
    const char *first = q2_pairs_unused(t->pairs, prefix);
    int rc = q2_image_take_qcow2(t->pairs, prefix, t->out, t->err);
    if (!rc)
        rc = take_encryption(t, prefix);
    if (!rc)
        rc = take_backing(t, prefix);
    if (!rc)
        rc = take_data_file(t, prefix);
    if (rc || first == q2_pairs_unused(t->pairs, prefix))
        return rc;
    // Of an image whose format is to be probed: what it must be for this option.
    return note_option(first, &t->out->only_qcow2, t->err);
}

static int take_format(const struct tree *t, const char *prefix, const char *driver)
{
    // Options for a backing file need not say which: the image does.
    bool named = q2_pairs_has_below(t->pairs, prefix, "file") ||
                 q2_pairs_take(t->pairs, prefix, "file");
    if (!driver && !named && !*prefix)
        return q2_fail(t->err, -EINVAL, "Must specify either driver or file");
    int rc = driver ? q2_image_name_set_format(t->out, driver, t->err) : 0;
    if (!rc && (named || !*prefix))
        rc = take_file(t, prefix, "file", 0);
    if (!rc)
        rc = q2_image_take_common(t->pairs, prefix, t->out, t->err);
    if (!rc && driver && !strcmp(driver, "raw"))
        rc = q2_image_name_take_part(t->out, t->pairs, prefix, t->err);
    else if (!rc)
        rc = take_qcow2(t, prefix);
    return rc ? rc : refuse_unused(t, prefix, driver ? driver : "qcow2");
}

static int resolve(const struct tree *t, const char *prefix)
{
    const char *driver = driver_of(t, prefix);
    if (driver && is_protocol(driver)) {
        int rc = q2_image_name_set_format(t->out, "raw", t->err);
        return rc ? rc : take_file_options(t, prefix, driver);
    }
    if (driver && strcmp(driver, "raw") != 0 && strcmp(driver, "qcow2") != 0)
        return q2_fail(t->err, -EINVAL, "Unknown driver '%s'", driver);
    return take_format(t, prefix, driver);
}

int q2_image_name_resolve(struct q2_pairs *pairs, struct q2_image_name *out,
                          struct q2_error *err)
{
    const struct tree t = {pairs, out, err};
    return resolve(&t, "");
}
