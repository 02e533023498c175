// SPDX-License-Identifier: MIT
// The values that options take: sizes, numbers, cache modes, forms of output.
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "cmd/choices.h"
#include "cmd/options.h"

static int out_of_range(const char *name, uint64_t min, uint64_t max,
                        struct q2_error *err)
{
    return q2_fail(err, -ERANGE,
                   "Invalid %s specified. Must be between %" PRIu64 " and %" PRIu64 ".",
                   name, min, max);
}

// Since 8.0 QEMU takes these for numbers that are too small, if they have no suffix.
static bool is_negative(const char *text)
{
    return text[0] == '-' && text[1] && !text[1 + strspn(text + 1, "0123456789")];
}

int q2_value_size_in(const char *name, const char *text, uint64_t min, uint64_t max,
                     uint64_t *value, struct q2_error *err)
{
    uint64_t v;
    int rc = q2_size_parse(text, 1, NULL, &v);
    if (rc == -ERANGE || (!rc && (v < min || v > max)) || is_negative(text))
        return out_of_range(name, min, max, err);
    if (rc)
        return q2_fail(err, -EINVAL, "Invalid %s specified: '%s'", name, text);
    *value = v;
    return 0;
}

int q2_value_size(const char *name, const char *text, uint64_t *value,
                  struct q2_error *err)
{
    return q2_value_size_in(name, text, 0, INT64_MAX, value, err);
}

int q2_value_number(const char *name, const char *text, uint64_t min, uint64_t max,
                    uint64_t *value, struct q2_error *err)
{
    char *end;
    errno = 0;
    uintmax_t v = strtoumax(text, &end, 0);
    if (end == text || *end)
        return q2_fail(err, -EINVAL, "Invalid %s specified: '%s'", name, text);
    if (errno || v < min || v > max || strchr(text, '-'))
        return out_of_range(name, min, max, err);
    *value = v;
    return 0;
}

int q2_value_parameter_size(const char *key, const char *text, uint64_t *value,
                            struct q2_error *err)
{
    if (text && !q2_size_parse(text, 1, NULL, value))
        return 0;
    q2_fail(err, -EINVAL, "Parameter '%s' expects a non-negative number below 2^64", key);
    return q2_hint(err, "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, "
                        "tera-, peta-\nand exabytes, respectively.");
}

int q2_value_parameter_switch(const char *key, const char *text, bool *on,
                              struct q2_error *err)
{
    const struct q2_choice *c = text ? q2_choice_find(q2_choices_switch, text) : NULL;
    if (!c)
        return q2_fail(err, -EINVAL, "Parameter '%s' expects 'on' or 'off'", key);
    *on = c->value;
    return 0;
}

char *q2_value_next_item(const char **list)
{
    char *item = malloc(strlen(*list) + 1), *to = item;
    const char *p = *list;
    for (; item && *p; p++) {
        if (*p == ',' && *++p != ',')
            break;
        *to++ = *p;
    }
    if (item)
        *to = '\0';
    *list = p;
    return item;
}

int q2_value_output(const struct q2_command_line *line, const char *text, bool *json,
                    struct q2_error *err)
{
    const struct q2_choice *c = q2_choice_find(q2_choices_output, text);
    if (!c)
        return q2_options_misuse(line, err,
                                 "--output expects 'human' or 'json', not '%s'", text);
    *json = c->value;
    return 0;
}

int q2_value_cache(const char *text, bool source, struct q2_file_options *options,
                   struct q2_error *err)
{
    const struct q2_choice *c =
        q2_choice_find(q2_choices_cache, text ? text : "writeback");
    if (!c)
        return q2_fail(err, -EINVAL, "Invalid %scache option: %s",
                       source ? "source " : "", text);
    options->direct = c->value & Q2_CACHE_DIRECT;
    options->sync_writes = c->value & Q2_CACHE_SYNC_WRITES;
    options->no_flush = c->value & Q2_CACHE_NO_FLUSH;
    return 0;
}
