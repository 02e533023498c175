// SPDX-License-Identifier: MIT
// Images that are a part of their file, and what they are called.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/image_opts.h"
#include "cmd/options.h"
#include "cmd/output.h"

// --- names ---------------------------------------------------------------------------

// A number as the user gave it; NULL: none given.
static json_t *as_given(const struct q2_pair *pair)
{
    if (!pair->value)
        return NULL;
    return pair->is_text ? q2_output_string(pair->value)
                         : json_loads(pair->value, JSON_DECODE_ANY, NULL);
}

// A raw driver over a node, which it takes over.
static json_t *part_object(const struct q2_named_part *part, json_t *below)
{
    return json_pack("{s:o*, s:s, s:o*, s:o}", "offset", as_given(&part->offset),
                     "driver", "raw", "size", as_given(&part->size), "file", below);
}

// The file with its first n parts.
static json_t *node_object(const struct q2_image_name *name, unsigned n)
{
    json_t *object = json_pack("{s:s, s:o}", "driver", "file", "filename",
                               q2_output_string(name->path));
    for (unsigned i = 0; i < n; i++)
        object = part_object(&name->parts[i], object);
    return object;
}

// Takes object over.
static int title_of(json_t *object, char **title, struct q2_error *err)
{
    char *text = object ? json_dumps(object, JSON_ENSURE_ASCII) : NULL;
    if (!text || asprintf(title, "json:%s", text) < 0)
        *title = NULL;
    free(text);
    json_decref(object);
    return *title ? 0 : q2_fail_memory(err, 0);
}

int q2_image_name_title(const struct q2_image_name *name, const char *format,
                        char **title, struct q2_error *err)
{
    const char *secret = name->encrypt_key_secret;
    unsigned n = name->runtime.windows.n;
    *title = NULL;
    if (!secret && !n)
        return 0;
    if (name->is_part)
        return title_of(node_object(name, n), title, err);
    return title_of(json_pack("{s:o*, s:s, s:o}", "encrypt.key-secret",
                              secret ? q2_output_string(secret) : NULL, "driver", format,
                              "file", node_object(name, n)),
                    title, err);
}

// --- taking them ---------------------------------------------------------------------

// What a pair says, kept as it was said, too.
static int take_number(struct q2_pairs *pairs, const char *prefix, const char *key,
                       struct q2_pair *said, uint64_t *out, struct q2_error *err)
{
    const struct q2_pair *p = q2_pairs_take(pairs, prefix, key);
    int rc = p ? q2_value_parameter_size(key, p->value, out, err) : 0;
    if (!p || rc)
        return rc;
    *said = (struct q2_pair){.value = strdup(p->value), .is_text = p->is_text};
    return said->value ? 0 : q2_fail_memory(err, strlen(p->value));
}

// The next part: as large as a raw driver with these options makes it.
static int take_next(struct q2_image_name *name, struct q2_pairs *pairs,
                     const char *prefix, struct q2_error *err)
{
    struct q2_windows *all = &name->runtime.windows;
    if (all->n == Q2_MAX_WINDOWS)
        return q2_fail(err, -EINVAL, "The options of the image are nested too deep");
    struct q2_window *window = &all->list[all->n];
    struct q2_named_part *part = &name->parts[all->n++];
    int rc = take_number(pairs, prefix, "offset", &part->offset, &window->start, err);
    if (!rc)
        rc = take_number(pairs, prefix, "size", &part->size, &window->size, err);
    window->has_size = part->size.value;
    return rc;
}

// Whether the part is less than all of what it lies over.
static bool cuts(const struct q2_named_part *part)
{
    return part->offset.value || part->size.value;
}

bool q2_image_name_is_cut(const struct q2_image_name *name)
{
    bool cut = false;
    for (unsigned i = 0; i < name->runtime.windows.n; i++)
        cut = cut || cuts(&name->parts[i]);
    return cut;
}

int q2_image_name_add_part(struct q2_image_name *name, struct q2_pairs *pairs,
                           const char *prefix, struct q2_error *err)
{
    struct q2_windows *all = &name->runtime.windows;
    int rc = take_next(name, pairs, prefix, err);
    if (rc)
        return rc;
    char **title = &name->parts[all->n - 1].title;
    rc = title_of(node_object(name, all->n), title, err);
    // A raw driver alone changes nothing that a message would have to tell.
    if (!rc && cuts(&name->parts[all->n - 1]))
        all->list[all->n - 1].name = *title;
    return rc;
}

int q2_image_name_take_part(struct q2_image_name *name, struct q2_pairs *pairs,
                            const char *prefix, struct q2_error *err)
{
    int rc = take_next(name, pairs, prefix, err);
    name->is_part = !rc && cuts(&name->parts[name->runtime.windows.n - 1]);
    if (!rc && !name->is_part)
        name->runtime.windows.n--;
    return rc;
}
