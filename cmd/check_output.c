// SPDX-License-Identifier: MIT
// What check prints: findings, plans, the summary.
#include "cmd/check_output.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "base/checked.h"
#include "cmd/output.h"

// Clusters with the same finding side by side: so many get a line of their own, and so
// many of all findings. Small images can be made that have millions.
#define MAX_LINES UINT64_C(65536)
#define MAX_LINES_IN_ALL UINT64_C(262144)

static const char *verb_of(const struct q2_finding *f)
{
    return q2_problem_info(f->problem)->severity == Q2_SEVERITY_LEAK ? "Leaked" : "ERROR";
}

// One finding, a line for each cluster that it is about, but no more than there is room
// for.
static void output_finding(FILE *to, struct q2_finding f, const char *verb,
                           uint64_t *room)
{
    char text[Q2_FINDING_TEXT_MAX];
    uint64_t n = f.has & Q2_HAS_CLUSTER ? f.count : 1;
    uint64_t n_lines = q2_min_u64(n, q2_max_u64(q2_min_u64(MAX_LINES, *room), 1));
    *room -= q2_min_u64(*room, n_lines);
    for (uint64_t k = 0; k < n_lines; k++, f.cluster++) {
        q2_finding_format(&f, verb ? verb : verb_of(&f), text);
        q2_output_text(to, text);
        fputc('\n', to);
    }
    if (n > n_lines)
        fprintf(to, "(and the same for all clusters up to %" PRIu64 ")\n",
                f.cluster + n - n_lines - 1);
}

void q2_output_findings(const struct q2_findings *findings, const char *verb)
{
    // Standard error itself is not buffered; there may be very many lines.
    int fd = findings->n > 0 ? dup(STDERR_FILENO) : -1;
    FILE *to = fd >= 0 ? fdopen(fd, "w") : NULL;
    uint64_t room = MAX_LINES_IN_ALL;
    fflush(stdout);
    for (size_t i = 0; i < findings->n; i++)
        output_finding(to ? to : stderr, findings->list[i], verb, &room);
    if (to)
        fclose(to);
    else if (fd >= 0)
        close(fd);
}

static void output_counts(const struct q2_scan *s)
{
    if (s->corruptions == 0 && s->leaks == 0 && s->check_errors == 0) {
        printf("No errors were found on the image.\n");
        return;
    }
    if (s->corruptions > 0)
        printf("\n%" PRIu64 " errors were found on the image.\n"
               "Data may be corrupted, or further writes to the image may corrupt it.\n",
               s->corruptions);
    if (s->leaks > 0)
        printf("\n%" PRIu64 " leaked clusters were found on the image.\n"
               "This means waste of disk space, but no harm to data.\n",
               s->leaks);
    if (s->check_errors > 0)
        printf("\n%" PRIu64 " internal errors have occurred during the check.\n",
               s->check_errors);
}

static uint64_t end_offset(const struct q2_scan *s)
{
    return (s->highest_cluster + 1) << s->cluster_bits;
}

void q2_output_check(const struct q2_check_report *r)
{
    const struct q2_scan *s = &r->scan;
    if (r->corruptions_fixed > 0 || r->leaks_fixed > 0)
        printf("The following inconsistencies were found and repaired:\n\n"
               "    %" PRIu64 " leaked clusters\n    %" PRIu64 " corruptions\n\n"
               "Double checking the fixed image now...\n",
               r->leaks_fixed, r->corruptions_fixed);
    output_counts(s);
    if (s->total_clusters > 0 && s->allocated_clusters > 0)
        printf("%" PRIu64 "/%" PRIu64 " = %0.2f%% allocated, %0.2f%% fragmented, "
               "%0.2f%% compressed clusters\n",
               s->allocated_clusters, s->total_clusters,
               (double)s->allocated_clusters * 100.0 / (double)s->total_clusters,
               (double)s->fragmented_clusters * 100.0 / (double)s->allocated_clusters,
               (double)s->compressed_clusters * 100.0 / (double)s->allocated_clusters);
    // Of an image whose header cannot be used nothing else is known.
    if (s->cluster_size > 0)
        printf("Image end offset: %" PRIu64 "\n", end_offset(s));
}

// A member that stands only where it is not zero.
static void set_count(json_t *o, const char *key, uint64_t value)
{
    if (value > 0)
        json_object_set_new(o, key, json_integer((json_int_t)value));
}

// 64 bits do not fit in a JSON number that all readers take.
static void set_hexadecimal(json_t *o, const char *key, uint64_t value, int digits)
{
    char text[24];
    snprintf(text, sizeof(text), "0x%0*" PRIx64, digits, value);
    json_object_set_new(o, key, json_string(text));
}

json_t *q2_output_finding_json(const struct q2_finding *f)
{
    const struct {
        unsigned has;
        const char *key;
        uint64_t value;
    } members[] = {
        {Q2_HAS_OFFSET, "host-offset", f->offset},
        {Q2_HAS_SIZE, "size", f->size},
        {Q2_HAS_CLUSTER, "cluster", f->cluster},
        {Q2_HAS_CLUSTER, "count", f->count},
        {Q2_HAS_INDEX, "index", f->index},
        {Q2_HAS_REFCOUNT, "refcount", f->refcount},
        {Q2_HAS_REFERENCE, "reference", f->reference},
        {Q2_HAS_GUEST, "guest-offset", f->guest_offset},
        {Q2_HAS_GUEST, "guest-bytes", f->guest_bytes},
    };
    static const char *const repairs[] = {"leaks", "safe", "lossy", "none"};
    const struct q2_problem_info *info = q2_problem_info(f->problem);
    json_t *o = json_object();
    json_object_set_new(o, "problem", json_string(info->slug));
    json_object_set_new(
        o, "severity",
        json_string(info->severity == Q2_SEVERITY_LEAK ? "leak" : "corruption"));
    json_object_set_new(o, "repair", json_string(repairs[info->repair]));
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        if (f->has & members[i].has)
            json_object_set_new(o, members[i].key,
                                json_integer((json_int_t)members[i].value));
    }
    if (f->has & Q2_HAS_ENTRY)
        set_hexadecimal(o, "entry", f->entry, 16);
    if (f->has & Q2_HAS_BITMAP)
        set_hexadecimal(o, "subclusters", f->bitmap, 16);
    if (f->field) {
        json_object_set_new(o, "field", json_string(f->field));
        set_hexadecimal(o, "value", f->value, 1);
        set_hexadecimal(o, "wanted", f->wanted, 1);
    }
    if ((f->has & Q2_HAS_SNAPSHOT) && f->snapshot >= 0)
        json_object_set_new(o, "snapshot-index", json_integer(f->snapshot));
    if (f->has & Q2_HAS_EDIT)
        json_object_set_new(o, "lossy", json_boolean(f->lossy));
    return o;
}

json_t *q2_output_check_json(const struct q2_check_report *r, const char *path,
                             const struct q2_findings *details, json_t *more)
{
    const struct q2_scan *s = &r->scan;
    json_t *o = json_object();
    if (s->cluster_size > 0)
        json_object_set_new(o, "image-end-offset",
                            json_integer((json_int_t)end_offset(s)));
    set_count(o, "compressed-clusters", s->compressed_clusters);
    set_count(o, "total-clusters", s->total_clusters);
    set_count(o, "corruptions", s->corruptions);
    set_count(o, "corruptions-fixed", r->corruptions_fixed);
    json_object_set_new(o, "check-errors", json_integer((json_int_t)s->check_errors));
    set_count(o, "leaks", s->leaks);
    set_count(o, "leaks-fixed", r->leaks_fixed);
    set_count(o, "allocated-clusters", s->allocated_clusters);
    json_object_set_new(o, "filename", q2_output_string(path));
    json_object_set_new(o, "format", json_string("qcow2"));
    set_count(o, "fragmented-clusters", s->fragmented_clusters);
    if (more)
        json_object_update(o, more);
    if (details) {
        json_t *list = json_array();
        for (size_t i = 0; i < details->n; i++)
            json_array_append_new(list, q2_output_finding_json(&details->list[i]));
        json_object_set_new(o, "findings", list);
    }
    return o;
}
