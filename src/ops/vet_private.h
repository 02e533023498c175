// SPDX-License-Identifier: MIT
// What the parts of vet share; for src/ops/vet*.c alone.
#ifndef Q2_OPS_VET_PRIVATE_H
#define Q2_OPS_VET_PRIVATE_H

#include "io/io.h"
#include "ops/vet.h"

// An image at work.
struct q2_vetting {
    const struct q2_vet_request *request;
    const struct q2_monitor *mon;
    struct q2_io *io;
    struct q2_vet_report *report;
};

// What an objection says; members that the reason's message does not have count for
// nothing.
struct q2_vet_words {
    const char *text; // NULL: none
    uint64_t value, limit;
    uint64_t count; // 0 is 1
};

// Adds an objection, or counts one more.
int q2_vet_object(struct q2_vetting *v, enum q2_vet_reason reason,
                  const struct q2_vet_words *words, struct q2_error *err);
int q2_vet_object_to_finding(struct q2_vetting *v, const struct q2_finding *f,
                             struct q2_error *err);
// Does anything speak against the image that is not allowed?
bool q2_vet_rejected(const struct q2_vet_report *r);
// The disk, or (of: behind its name in the message) a snapshot's, is not too large.
int q2_vet_virtual_size(struct q2_vetting *v, const char *of, uint64_t size,
                        struct q2_error *err);

// vet_formats.c: what else a raw file, or a qcow2 image, could be taken for; and a raw
// file's partition table.
int q2_vet_formats(struct q2_vetting *v, struct q2_error *err);
// What the start of a file looks like that is no qcow2 image; NULL: nothing that is
// known.
const char *q2_vet_looks_like(const uint8_t *buf, size_t n_bytes);

// vet_qcow2.c
int q2_vet_qcow2(struct q2_vetting *v, struct q2_error *err);

#endif
