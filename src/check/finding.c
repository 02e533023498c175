// SPDX-License-Identifier: MIT
// The table of problems, and the text of findings.
#include "check/finding.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct q2_problem_info problems[Q2_N_PROBLEMS] = {
#define Q2_PROBLEM(id, slug, severity, repair, message) \
    {slug, Q2_SEVERITY_##severity, Q2_REPAIR_##repair, message},
#include "check/problems.def"
#undef Q2_PROBLEM
};

const struct q2_problem_info *q2_problem_info(enum q2_problem problem)
{
    return &problems[problem];
}

// One field's text; false if there is no such field.
static bool field_text(const struct q2_finding *f, const char *name, size_t n_name,
                       const char *verb, char *out, size_t room)
{
    const struct {
        const char *name;
        uint64_t value;
        bool hex_prefix, hex;
    } numbers[] = {
        {"offset", f->offset, true, true},
        {"offset.x", f->offset, false, true},
        {"size", f->size, true, true},
        {"entry", f->entry, false, true},
        {"entry.0x", f->entry, true, true},
        {"cluster", f->cluster, false, false},
        {"index", f->index, false, false},
        {"refcount", f->refcount, false, false},
        {"reference", f->reference, false, false},
        {"value", f->value, false, false},
        {"wanted", f->wanted, false, false},
        {"wanted.0x", f->wanted, true, true},
    };
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        if (strlen(numbers[i].name) != n_name ||
            strncmp(name, numbers[i].name, n_name) != 0)
            continue;
        snprintf(out, room, numbers[i].hex ? "%s%" PRIx64 : "%s%" PRIu64,
                 numbers[i].hex_prefix ? "0x" : "", numbers[i].value);
        return true;
    }
    const char *text = NULL;
    if (n_name == 4 && strncmp(name, "verb", 4) == 0)
        text = verb;
    else if (n_name == 8 && strncmp(name, "snapshot", 8) == 0)
        text = f->snapshot < 0 ? "the active state" : f->snapshot_name;
    else if (n_name == 5 && strncmp(name, "field", 5) == 0)
        text = f->field;
    else if (n_name == 6 && strncmp(name, "bitmap", 6) == 0)
        text = f->bitmap_name ? f->bitmap_name : "";
    if (text)
        snprintf(out, room, "%s", text);
    return text != NULL;
}

void q2_finding_format(const struct q2_finding *f, const char *verb,
                       char out[Q2_FINDING_TEXT_MAX])
{
    const char *p = q2_problem_info(f->problem)->message;
    size_t n = 0;
    while (*p && n + 1 < Q2_FINDING_TEXT_MAX) {
        size_t n_name = strcspn(p + 1, "}");
        if (*p == '{' &&
            field_text(f, p + 1, n_name, verb, out + n, Q2_FINDING_TEXT_MAX - n)) {
            n += strlen(out + n);
            p += n_name + 2;
        } else {
            out[n++] = *p++;
        }
    }
    out[n] = '\0';
}
