// SPDX-License-Identifier: MIT
// Vetting an image: the table of reasons, objections, and what is the same for both
// formats.
#include "ops/vet.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "ops/vet_private.h"

static const struct q2_vet_reason_info reasons[Q2_N_VET_REASONS] = {
#define Q2_VET_REASON(id, slug, allow, message) {slug, Q2_VET_ALLOW_##allow, message},
#include "ops/vet_reasons.def"
#undef Q2_VET_REASON
};

const struct q2_vet_reason_info *q2_vet_reason_info(enum q2_vet_reason reason)
{
    return &reasons[reason];
}

void q2_vet_clear(struct q2_vet_report *report)
{
    free(report->objections);
    *report = (struct q2_vet_report){.accepted = false};
}

bool q2_vet_rejected(const struct q2_vet_report *r)
{
    for (size_t i = 0; i < r->n_objections; i++)
        if (!r->objections[i].allowed)
            return true;
    return false;
}

// --- objections ------------------------------------------------------------------------

// The objection with that id; *is_new: it was not there yet, and has nothing but its id.
static int find_objection(struct q2_vetting *v, enum q2_vet_reason reason, const char *id,
                          struct q2_vet_objection **out, bool *is_new,
                          struct q2_error *err)
{
    struct q2_vet_report *r = v->report;
    *is_new = false;
    for (size_t i = 0; i < r->n_objections; i++) {
        *out = &r->objections[i];
        if (strcmp((*out)->id, id) == 0)
            return 0;
    }
    if (r->n_objections == r->max_objections) {
        size_t max = r->max_objections ? r->max_objections * 2 : 8;
        void *list = realloc(r->objections, max * sizeof(*r->objections));
        if (!list)
            return q2_fail_memory(err, max * sizeof(*r->objections));
        r->objections = list;
        r->max_objections = max;
    }
    *out = &r->objections[r->n_objections++];
    **out = (struct q2_vet_objection){
        .reason = reason,
        .id = id,
        .allowed = reason < Q2_N_VET_REASONS &&
                   reasons[reason].allow == Q2_VET_ALLOW_ASKED &&
                   v->request->allow[reason],
    };
    *is_new = true;
    return 0;
}

// One {field} of a message; false if there is no such field.
static bool word_text(const struct q2_vet_words *w, const char *name, size_t n_name,
                      char *out, size_t room)
{
    if (n_name != 5 && n_name != 4)
        return false;
    if (strncmp(name, "text", n_name) == 0)
        snprintf(out, room, "%s", w->text ? w->text : "");
    else if (strncmp(name, "value", n_name) == 0)
        snprintf(out, room, "%" PRIu64, w->value);
    else if (strncmp(name, "limit", n_name) == 0)
        snprintf(out, room, "%" PRIu64, w->limit);
    else
        return false;
    return true;
}

static void format(const char *message, const struct q2_vet_words *w,
                   char out[Q2_FINDING_TEXT_MAX])
{
    size_t n = 0;
    for (const char *p = message; *p && n + 1 < Q2_FINDING_TEXT_MAX;) {
        size_t n_name = strcspn(p + 1, "}");
        if (*p == '{' && word_text(w, p + 1, n_name, out + n, Q2_FINDING_TEXT_MAX - n)) {
            n += strlen(out + n);
            p += n_name + 2;
        } else {
            out[n++] = *p++;
        }
    }
    out[n] = '\0';
}

int q2_vet_object(struct q2_vetting *v, enum q2_vet_reason reason,
                  const struct q2_vet_words *words, struct q2_error *err)
{
    const struct q2_vet_reason_info *info = &reasons[reason];
    struct q2_vet_objection *o;
    bool is_new;
    int ret = find_objection(v, reason, info->id, &o, &is_new, err);
    if (ret != 0)
        return ret;
    o->count += words->count ? words->count : 1;
    if (!is_new)
        return 0;
    o->has_value = strstr(info->message, "{value}") != NULL;
    o->has_limit = strstr(info->message, "{limit}") != NULL;
    o->value = words->value;
    o->limit = words->limit;
    format(info->message, words, o->message);
    return 0;
}

// Leaks are one reason; of corruptions, each problem is.
int q2_vet_object_to_finding(struct q2_vetting *v, const struct q2_finding *f,
                             struct q2_error *err)
{
    const struct q2_problem_info *info = q2_problem_info(f->problem);
    bool leak = info->severity == Q2_SEVERITY_LEAK;
    enum q2_vet_reason reason = leak ? Q2_VET_LEAKS : Q2_N_VET_REASONS;
    struct q2_vet_objection *o;
    bool is_new;
    int ret = find_objection(v, reason, leak ? reasons[reason].id : info->slug, &o,
                             &is_new, err);
    if (ret < 0)
        return ret;
    o->count += f->has & Q2_HAS_CLUSTER ? f->count : 1;
    if (!is_new)
        return 0;
    o->has_finding = true;
    o->finding = *f;
    o->finding.snapshot_name = o->finding.bitmap_name = NULL; // they go with the scan
    q2_finding_format(f, leak ? "Leaked" : "ERROR", o->message);
    return 0;
}

int q2_vet_virtual_size(struct q2_vetting *v, const char *of, uint64_t size,
                        struct q2_error *err)
{
    const struct q2_vet_words words = {
        .text = of, .value = size, .limit = v->request->max_virtual_size};
    return size > words.limit ? q2_vet_object(v, Q2_VET_VIRTUAL_SIZE, &words, err) : 0;
}

// --- the file --------------------------------------------------------------------------

static int vet_raw(struct q2_vetting *v, struct q2_error *err)
{
    v->report->has_virtual_size = true;
    v->report->virtual_size = v->report->file_size;
    return q2_vet_virtual_size(v, "", v->report->virtual_size, err);
}

static int vet_io(struct q2_vetting *v, struct q2_error *err)
{
    struct q2_vet_report *r = v->report;
    int ret = q2_io_get_size(v->io, &r->file_size, err);
    const struct q2_vet_words words = {.value = r->file_size,
                                       .limit = v->request->max_file_size};
    if (ret == 0 && words.value > words.limit)
        ret = q2_vet_object(v, Q2_VET_FILE_SIZE, &words, err);
    if (ret == 0)
        ret = q2_vet_formats(v, err);
    if (ret < 0)
        return ret;
    return strcmp(v->request->format, "raw") == 0 ? vet_raw(v, err)
                                                  : q2_vet_qcow2(v, err);
}

int q2_vet_file(struct q2_io *io, const struct q2_vet_request *request,
                const struct q2_monitor *mon, struct q2_vet_report *out,
                struct q2_error *err)
{
    struct q2_vetting v = {.request = request, .mon = mon, .io = io, .report = out};
    *out = (struct q2_vet_report){.accepted = false};
    int ret = vet_io(&v, err);
    out->accepted = ret == 0 && !q2_vet_rejected(out);
    if (ret < 0)
        q2_vet_clear(out);
    return ret;
}

int q2_vet(const struct q2_vet_request *request, const struct q2_monitor *mon,
           struct q2_vet_report *out, struct q2_error *err)
{
    const struct q2_file_options options = {.lock = Q2_LOCK_READ};
    struct q2_io *io;
    int ret = q2_file_open(request->path, &options, &io, err);
    if (ret == 0) {
        // What a device holds may be another thing each time it is read.
        ret = q2_file_is_device(io)
                  ? q2_fail(err, -EINVAL, "Only regular files can be vetted")
                  : q2_vet_file(io, request, mon, out, err);
        q2_io_close(io);
    }
    return ret < 0 ? q2_context(err, "Could not open '%s'", request->path) : 0;
}
