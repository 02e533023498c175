// SPDX-License-Identifier: MIT
// How the command line names an image.
#include "cmd/image_opts.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "cmd/options.h"

// A colon in the name of a file is no protocol where the name is said to be a file's.
int q2_image_name_set_path(struct q2_image_name *name, const char *path,
                           struct q2_error *err)
{
    bool colon = !name->plain && path[strcspn(path, ":/")] == ':';
    free(name->path);
    if (asprintf(&name->path, "%s%s", colon ? "./" : "", path) >= 0)
        return 0;
    name->path = NULL;
    return q2_fail_memory(err, strlen(path));
}

int q2_image_name_set_format(struct q2_image_name *name, const char *format,
                             struct q2_error *err)
{
    free(name->format);
    name->format = strdup(format);
    return name->format ? 0 : q2_fail_memory(err, strlen(format));
}

static int set_both(struct q2_image_name *name, const char *path, const char *format,
                    struct q2_error *err)
{
    int rc = q2_image_name_set_path(name, path, err);
    return rc || !format ? rc : q2_image_name_set_format(name, format, err);
}

int q2_image_name_parse(const char *text, bool image_opts, const char *implied,
                        const char *format, struct q2_image_name *out,
                        struct q2_error *err)
{
    struct q2_pairs pairs = {.list = NULL};
    int rc = 0;
    *out = (struct q2_image_name){.path = NULL};
    if (image_opts && format)
        return q2_fail(err, -EINVAL, "--image-opts and --format are mutually exclusive");
    if (!image_opts && !strncmp(text, "file:", 5))
        return set_both(out, text + 5, format, err);
    if (!image_opts && strncmp(text, "json:", 5) != 0) {
        out->plain = true;
        return set_both(out, text, format, err);
    }
    if (format)
        rc = q2_pairs_add(&pairs, "driver", format, err);
    if (!rc)
        rc = image_opts ? q2_pairs_add_list(&pairs, text, implied, err)
                        : q2_pairs_add_json(&pairs, text + 5, err);
    if (!rc)
        rc = q2_image_name_resolve(&pairs, out, err);
    q2_pairs_clear(&pairs);
    return rc;
}

void q2_image_name_clear(struct q2_image_name *name)
{
    struct q2_image_name *backing = name->backing, *data_file = name->data_file;
    free(name->path);
    free(name->format);
    free(name->only_qcow2);
    free(name->backing_option);
    for (unsigned i = 0; i < Q2_MAX_WINDOWS; i++) {
        free(name->parts[i].offset.value);
        free(name->parts[i].size.value);
        free(name->parts[i].title);
    }
    free(name->encrypt_format);
    free(name->encrypt_key_secret);
    *name = (struct q2_image_name){.path = NULL};
    if (backing)
        q2_image_name_clear(backing);
    free(backing);
    if (data_file)
        q2_image_name_clear(data_file);
    free(data_file);
}

int q2_image_name_check(const struct q2_image_name *name, const char *format,
                        uint64_t cluster_size, struct q2_error *err)
{
    uint64_t n = name->l2_entry_size;
    if (name->only_qcow2 && strcmp(format, "qcow2") != 0)
        return q2_fail(err, -EINVAL, "Block format '%s' does not support the option '%s'",
                       format, name->only_qcow2);
    if (n && (n < 512 || n > cluster_size || !q2_is_power_of_2(n)))
        return q2_fail(err, -EINVAL,
                       "L2 cache entry size must be a power of two between 512 and the "
                       "cluster size (%" PRIu64 ")",
                       cluster_size);
    return 0;
}
