// SPDX-License-Identifier: MIT
// Options of an image, from either notation into a flat list of pairs.
#include "cmd/image_pairs.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/secret.h"
#include "cmd/options.h"

// Takes both over. A value that is missing though it is no null: there was no memory.
static int append(struct q2_pairs *pairs, char *key, char *value, bool is_null,
                  bool is_text, struct q2_error *err)
{
    struct q2_pair *list = realloc(pairs->list, (pairs->n + 1) * sizeof(*list));
    if (list)
        pairs->list = list;
    if (!list || !key || (!value && !is_null)) {
        free(key);
        free(value);
        return q2_fail_memory(err, sizeof(*list));
    }
    list[pairs->n++] = (struct q2_pair){.key = key, .value = value, .is_text = is_text};
    return 0;
}

int q2_pairs_add(struct q2_pairs *pairs, const char *key, const char *value,
                 struct q2_error *err)
{
    return append(pairs, strdup(key), strdup(value), false, true, err);
}

void q2_pairs_clear(struct q2_pairs *pairs)
{
    for (size_t i = 0; i < pairs->n; i++) {
        struct q2_pair *p = &pairs->list[i];
        if (p->value)
            q2_secret_wipe(p->value, strlen(p->value));
        free(p->key);
        free(p->value);
    }
    free(pairs->list);
    *pairs = (struct q2_pairs){.list = NULL};
}

// --- KEY=VALUE,... -------------------------------------------------------------------

// A key without a value is a switch.
static int add_switch(struct q2_pairs *pairs, const char *key, struct q2_error *err)
{
    bool off = !strncmp(key, "no", 2) && strncmp(key, "node-", 5) != 0;
    return q2_pairs_add(pairs, off ? key + 2 : key, off ? "off" : "on", err);
}

// strict: no switches.
static int add_items(struct q2_pairs *pairs, const char *text, const char *implied,
                     bool strict, struct q2_error *err)
{
    const char *begin = text;
    int rc = 0;
    while (!rc && *text) {
        bool first = text == begin;
        char *item = q2_value_next_item(&text);
        if (!item)
            return q2_fail_memory(err, strlen(text));
        size_t n = strlen(item);
        char *equals = strchr(item, '=');
        if (equals) {
            *equals = '\0';
            rc = q2_pairs_add(pairs, item, equals + 1, err);
        } else if (first && implied && (*item || !strict)) {
            rc = q2_pairs_add(pairs, implied, item, err);
        } else if (!strict) {
            rc = *item ? add_switch(pairs, item, err) : 0;
        } else {
            rc = q2_fail(err, -EINVAL,
                         *item ? "Expected '=' after parameter '%s'"
                               : "Invalid parameter '%s'",
                         item);
        }
        q2_secret_wipe(item, n);
        free(item);
    }
    return rc;
}

int q2_pairs_add_list(struct q2_pairs *pairs, const char *text, const char *implied,
                      struct q2_error *err)
{
    return add_items(pairs, text, implied, false, err);
}

int q2_pairs_add_strict(struct q2_pairs *pairs, const char *text, const char *implied,
                        struct q2_error *err)
{
    return add_items(pairs, text, implied, true, err);
}

// --- JSON ----------------------------------------------------------------------------

static int add_value(struct q2_pairs *pairs, char *key, const json_t *value,
                     struct q2_error *err);

// Releases key.
static int add_members(struct q2_pairs *pairs, char *key, const json_t *object,
                       struct q2_error *err)
{
    const char *name;
    json_t *value;
    int rc = 0;
    json_object_foreach((json_t *)object, name, value)
    {
        char *below = NULL;
        if (asprintf(&below, "%s%s%s", key ? key : "", key ? "." : "", name) < 0)
            rc = q2_fail_memory(err, strlen(name));
        else
            rc = add_value(pairs, below, value, err);
        if (rc)
            break;
    }
    free(key);
    return rc;
}

// Takes key over.
static int add_value(struct q2_pairs *pairs, char *key, const json_t *value,
                     struct q2_error *err)
{
    char *text = NULL;
    if (json_is_object(value))
        return add_members(pairs, key, value, err);
    if (json_is_array(value)) { // no option takes a list
        free(key);
        return q2_fail(err, -EINVAL,
                       "Lists are not supported in the options of an image");
    }
    if (json_is_string(value))
        text = strdup(json_string_value(value));
    else if (json_is_boolean(value))
        text = strdup(json_is_true(value) ? "on" : "off");
    else if (!json_is_null(value))
        text = json_dumps(value, JSON_ENCODE_ANY);
    return append(pairs, key, text, json_is_null(value), json_is_string(value), err);
}

int q2_pairs_add_json(struct q2_pairs *pairs, const char *text, struct q2_error *err)
{
    json_error_t why;
    json_t *top = json_loads(text, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &why);
    if (!top)
        return q2_fail(err, -EINVAL, "Could not parse the JSON options: %s", why.text);
    int rc = json_is_object(top) ? add_members(pairs, NULL, top, err)
                                 : q2_fail(err, -EINVAL, "Invalid JSON object given");
    json_decref(top);
    return rc;
}

// --- looking up ----------------------------------------------------------------------

static bool is_key(const char *have, const char *prefix, const char *key)
{
    size_t n = strlen(prefix);
    return !strncmp(have, prefix, n) && !strcmp(have + n, key);
}

const struct q2_pair *q2_pairs_take(struct q2_pairs *pairs, const char *prefix,
                                    const char *key)
{
    const struct q2_pair *found = NULL;
    for (size_t i = 0; i < pairs->n; i++) {
        if (!is_key(pairs->list[i].key, prefix, key))
            continue;
        pairs->list[i].used = true;
        found = &pairs->list[i];
    }
    return found;
}

bool q2_pairs_has_below(const struct q2_pairs *pairs, const char *prefix, const char *key)
{
    size_t n = strlen(prefix), n_key = strlen(key);
    for (size_t i = 0; i < pairs->n; i++) {
        const char *have = pairs->list[i].key;
        if (!strncmp(have, prefix, n) && !strncmp(have + n, key, n_key) &&
            have[n + n_key] == '.')
            return true;
    }
    return false;
}

const char *q2_pairs_unused(const struct q2_pairs *pairs, const char *prefix)
{
    size_t n = strlen(prefix);
    for (size_t i = 0; i < pairs->n; i++)
        if (!pairs->list[i].used && !strncmp(pairs->list[i].key, prefix, n))
            return pairs->list[i].key + n;
    return NULL;
}
