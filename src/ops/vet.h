// SPDX-License-Identifier: MIT
// Vetting: may an image that a stranger made be used? It must stand alone, be sound, and
// be what it is said to be. No other file is opened than the one that is named.
#ifndef Q2_OPS_VET_H
#define Q2_OPS_VET_H

#include "base/error.h"
#include "base/monitor.h"
#include "check/finding.h"
#include "io/io.h"

enum q2_vet_reason {
#define Q2_VET_REASON(id, slug, allow, message) Q2_VET_##id,
#include "ops/vet_reasons.def"
#undef Q2_VET_REASON
    Q2_N_VET_REASONS // of an objection: the problem's own slug is the reason
};

enum q2_vet_allow { Q2_VET_ALLOW_NEVER, Q2_VET_ALLOW_ASKED };

struct q2_vet_reason_info {
    const char *id;
    enum q2_vet_allow allow;
    const char *message; // with {text}, {value}, {limit}
};

const struct q2_vet_reason_info *q2_vet_reason_info(enum q2_vet_reason reason);

struct q2_vet_request {
    const char *path;
    const char *format;                       // "qcow2" or "raw": what it is said to be
    uint64_t max_virtual_size, max_file_size; // UINT64_MAX: any
    bool allow[Q2_N_VET_REASONS];             // those that may be allowed
};

// What speaks against the image. There is one of each id; of what was found more than
// once it has the first.
struct q2_vet_objection {
    enum q2_vet_reason reason;
    const char *id;
    bool allowed;
    uint64_t count; // how often it was found
    bool has_value, has_limit;
    uint64_t value, limit;
    bool has_finding;
    struct q2_finding finding; // its names are not kept
    char message[Q2_FINDING_TEXT_MAX];
};

struct q2_vet_report {
    bool accepted;
    bool has_virtual_size; // false: it is not told from the file
    uint64_t virtual_size, file_size;
    struct q2_vet_objection *objections; // owned
    size_t n_objections, max_objections;
};

// An image that is rejected is no error: the report says why. On success the caller
// clears the report.
int q2_vet(const struct q2_vet_request *request, const struct q2_monitor *mon,
           struct q2_vet_report *out, struct q2_error *err);
// The same for a file that is open, and stays that.
int q2_vet_file(struct q2_io *io, const struct q2_vet_request *request,
                const struct q2_monitor *mon, struct q2_vet_report *out,
                struct q2_error *err);
void q2_vet_clear(struct q2_vet_report *report);

#endif
