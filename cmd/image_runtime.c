// SPDX-License-Identifier: MIT
// Options of an open image: those that every format takes, and qcow2's own.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "cmd/choices.h"
#include "cmd/image_opts.h"
#include "cmd/objects.h"
#include "cmd/options.h"

int q2_image_take_switch(struct q2_pairs *pairs, const char *prefix, const char *key,
                         enum q2_tristate *out, struct q2_error *err)
{
    const struct q2_pair *p = q2_pairs_take(pairs, prefix, key);
    bool on = false;
    int rc = p ? q2_value_parameter_switch(key, p->value, &on, err) : 0;
    if (p && !rc)
        *out = on ? Q2_ON : Q2_OFF;
    return rc;
}

// --- every format --------------------------------------------------------------------

static int invalid_value(const char *value, struct q2_error *err)
{
    return q2_fail(err, -EINVAL, "invalid parameter value: %s", value ? value : "null");
}

static int take_discard(struct q2_pairs *pairs, const char *prefix,
                        struct q2_image_name *out, struct q2_error *err)
{
    const struct q2_pair *p = q2_pairs_take(pairs, prefix, "discard");
    const char *value = p && p->value ? p->value : "";
    if (!p)
        return 0;
    const struct q2_choice *c = q2_choice_find(q2_choices_discard, value);
    if (!c)
        return q2_fail(err, -EINVAL, "Invalid discard option");
    out->discard_set = true;
    out->runtime.discard_unmap = c->value;
    return 0;
}

static int take_detect_zeroes(struct q2_pairs *pairs, const char *prefix,
                              struct q2_image_name *out, struct q2_error *err)
{
    const struct q2_pair *p = q2_pairs_take(pairs, prefix, "detect-zeroes");
    const char *value = p && p->value ? p->value : "";
    if (!p)
        return 0;
    bool unmap = !strcmp(value, "unmap");
    if (!unmap && strcmp(value, "on") != 0 && strcmp(value, "off") != 0)
        return invalid_value(p->value, err);
    if (unmap && out->discard_set && !out->runtime.discard_unmap)
        return q2_fail(err, -EINVAL,
                       "setting detect-zeroes to unmap is not allowed without setting "
                       "discard operation to unmap");
    out->runtime.detect_zeroes = strcmp(value, "off") != 0;
    out->runtime.detect_zeroes_unmap = unmap;
    return 0;
}

int q2_image_take_common(struct q2_pairs *pairs, const char *prefix,
                         struct q2_image_name *out, struct q2_error *err)
{
    enum q2_tristate ignored;
    const struct {
        const char *key;
        enum q2_tristate *value;
    } switches[] = {
        {"read-only", &out->read_only}, {"force-share", &out->force_share},
        {"cache.direct", &out->direct}, {"cache.no-flush", &out->no_flush},
        {"auto-read-only", &ignored},
    };
    int rc = 0;
    for (size_t i = 0; !rc && i < sizeof(switches) / sizeof(switches[0]); i++)
        rc = q2_image_take_switch(pairs, prefix, switches[i].key, switches[i].value, err);
    q2_pairs_take(pairs, prefix, "node-name"); // there is nobody to ask for it
    if (!rc)
        rc = take_discard(pairs, prefix, out, err);
    return rc ? rc : take_detect_zeroes(pairs, prefix, out, err);
}

// --- qcow2 ---------------------------------------------------------------------------

static int take_size(struct q2_pairs *pairs, const char *prefix, const char *key,
                     uint64_t *out, struct q2_error *err)
{
    const struct q2_pair *p = q2_pairs_take(pairs, prefix, key);
    return p ? q2_value_parameter_size(key, p->value, out, err) : 0;
}

// Taken for what it says; memory is not given back while an image is idle.
static int take_interval(struct q2_pairs *pairs, const char *prefix, struct q2_error *err)
{
    const struct q2_pair *p = q2_pairs_take(pairs, prefix, "cache-clean-interval");
    char *end = NULL;
    if (!p)
        return 0;
    errno = 0;
    uintmax_t seconds = p->value ? strtoumax(p->value, &end, 0) : 0;
    if (errno || !end || end == p->value || *end || strchr(p->value, '-'))
        return q2_fail(err, -EINVAL, "Parameter 'cache-clean-interval' expects a number");
    if (seconds > UINT32_MAX)
        return q2_fail(err, -EINVAL, "Cache clean interval too big");
    return 0;
}

static int parse_template(const char *value, unsigned *out, struct q2_error *err)
{
    static const struct {
        const char *name;
        unsigned bits;
    } templates[] = {{"none", Q2_OVERLAP_NONE},
                     {"constant", Q2_OVERLAP_CONSTANT},
                     {"cached", Q2_OVERLAP_CACHED},
                     {"all", Q2_OVERLAP_ALL}};
    for (size_t i = 0; i < sizeof(templates) / sizeof(templates[0]); i++) {
        if (!value || strcmp(value, templates[i].name) != 0)
            continue;
        *out = templates[i].bits;
        return 0;
    }
    return q2_fail(err, -EINVAL,
                   "Unsupported value '%s' for qcow2 option 'overlap-check'. Allowed are "
                   "any of the following: none, constant, cached, all",
                   value ? value : "null");
}

static int take_overlap_template(struct q2_pairs *pairs, const char *prefix,
                                 struct q2_runtime *out, struct q2_error *err)
{
    const struct q2_pair *plain = q2_pairs_take(pairs, prefix, "overlap-check");
    const struct q2_pair *deep = q2_pairs_take(pairs, prefix, "overlap-check.template");
    if (!out->overlap_check_set)
        out->overlap_check = Q2_OVERLAP_CACHED;
    if (plain && deep && plain->value && deep->value &&
        strcmp(plain->value, deep->value) != 0)
        return q2_fail(err, -EINVAL,
                       "Conflicting values for qcow2 options 'overlap-check' ('%s') and "
                       "'overlap-check.template' ('%s')",
                       plain->value, deep->value);
    out->overlap_check_set = out->overlap_check_set || plain || deep;
    return plain || deep ? parse_template(plain ? plain->value : deep->value,
                                          &out->overlap_check, err)
                         : 0;
}

static int take_overlap(struct q2_pairs *pairs, const char *prefix,
                        struct q2_runtime *out, struct q2_error *err)
{
    // In the order of the bits of enum q2_overlap.
    static const char *const kinds[] = {
        "main-header",    "active-l1",      "active-l2",
        "refcount-table", "refcount-block", "snapshot-table",
        "inactive-l1",    "inactive-l2",    "bitmap-directory"};
    int rc = take_overlap_template(pairs, prefix, out, err);
    for (unsigned i = 0; !rc && i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        char key[64];
        enum q2_tristate value = Q2_UNSET;
        snprintf(key, sizeof(key), "overlap-check.%s", kinds[i]);
        rc = q2_image_take_switch(pairs, prefix, key, &value, err);
        if (rc || value == Q2_UNSET)
            continue;
        out->overlap_check_set = true;
        out->overlap_check &= ~(1U << i);
        out->overlap_check |= value == Q2_ON ? 1U << i : 0;
    }
    return rc;
}

static int take_switches(struct q2_pairs *pairs, const char *prefix,
                         struct q2_runtime *out, struct q2_error *err)
{
    enum q2_tristate no_unref = Q2_UNSET;
    const struct {
        const char *key;
        enum q2_tristate *value;
    } switches[] = {
        {"lazy-refcounts", &out->lazy_refcounts},
        {"pass-discard-request", &out->pass_discard_request},
        {"pass-discard-snapshot", &out->pass_discard_snapshot},
        {"pass-discard-other", &out->pass_discard_other},
        {"discard-no-unref", &no_unref},
    };
    int rc = 0;
    for (size_t i = 0; !rc && i < sizeof(switches) / sizeof(switches[0]); i++)
        rc = q2_image_take_switch(pairs, prefix, switches[i].key, switches[i].value, err);
    if (no_unref != Q2_UNSET)
        out->discard_no_unref = no_unref == Q2_ON;
    return rc;
}

int q2_image_take_qcow2(struct q2_pairs *pairs, const char *prefix,
                        struct q2_image_name *out, struct q2_error *err)
{
    struct q2_runtime *r = &out->runtime;
    const struct {
        const char *key;
        uint64_t *value;
    } sizes[] = {
        {"cache-size", &r->cache_size},
        {"l2-cache-size", &r->l2_cache_size},
        {"l2-cache-entry-size", &out->l2_entry_size},
        {"refcount-cache-size", &r->refcount_cache_size},
    };
    int rc = take_switches(pairs, prefix, r, err);
    for (size_t i = 0; !rc && i < sizeof(sizes) / sizeof(sizes[0]); i++)
        rc = take_size(pairs, prefix, sizes[i].key, sizes[i].value, err);
    if (!rc)
        rc = take_interval(pairs, prefix, err);
    return rc ? rc : take_overlap(pairs, prefix, r, err);
}

// --- encryption ----------------------------------------------------------------------

static int take_text(struct q2_pairs *pairs, const char *prefix, const char *key,
                     char **out, struct q2_error *err)
{
    const struct q2_pair *p = q2_pairs_take(pairs, prefix, key);
    if (!p || !p->value)
        return 0;
    *out = strdup(p->value);
    return *out ? 0 : q2_fail_memory(err, strlen(p->value));
}

int q2_image_take_encryption(struct q2_pairs *pairs, const char *prefix,
                             struct q2_image_name *out, struct q2_error *err)
{
    int rc = take_text(pairs, prefix, "format", &out->encrypt_format, err);
    if (!rc)
        rc = take_text(pairs, prefix, "key-secret", &out->encrypt_key_secret, err);
    if (rc)
        return rc;
    out->runtime.secrets = q2_object_secrets();
    out->runtime.encrypt_format = out->encrypt_format;
    out->runtime.encrypt_key_secret = out->encrypt_key_secret;
    const char *key = q2_pairs_unused(pairs, prefix);
    return key ? q2_fail(err, -EINVAL, "Parameter '%s' is unexpected", key) : 0;
}
