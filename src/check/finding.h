// SPDX-License-Identifier: MIT
// What a scan finds: one problem at one place, with typed values.
#ifndef Q2_CHECK_FINDING_H
#define Q2_CHECK_FINDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum q2_problem {
#define Q2_PROBLEM(id, slug, severity, repair, message) Q2_PROBLEM_##id,
#include "check/problems.def"
#undef Q2_PROBLEM
    Q2_N_PROBLEMS
};

enum q2_severity { Q2_SEVERITY_LEAK, Q2_SEVERITY_CORRUPTION };
enum q2_repair { Q2_REPAIR_LEAKS, Q2_REPAIR_SAFE, Q2_REPAIR_LOSSY, Q2_REPAIR_NONE };

struct q2_problem_info {
    const char *slug;
    enum q2_severity severity;
    enum q2_repair repair;
    const char *message; // with {fields}
};

const struct q2_problem_info *q2_problem_info(enum q2_problem problem);

// Which members of a finding have a meaning.
enum q2_finding_field {
    Q2_HAS_OFFSET = 1 << 0,
    Q2_HAS_SIZE = 1 << 1,
    Q2_HAS_CLUSTER = 1 << 2, // with count
    Q2_HAS_INDEX = 1 << 3,
    Q2_HAS_ENTRY = 1 << 4,
    Q2_HAS_REFCOUNT = 1 << 5,
    Q2_HAS_REFERENCE = 1 << 6,
    Q2_HAS_GUEST = 1 << 7,
    Q2_HAS_SNAPSHOT = 1 << 8,
    Q2_HAS_VALUE = 1 << 9,
    Q2_HAS_WANTED = 1 << 10,
    Q2_HAS_EDIT = 1 << 11,
    Q2_HAS_BITMAP = 1 << 12,
};

struct q2_finding {
    enum q2_problem problem;
    unsigned has;            // q2_finding_field bits
    uint64_t offset, size;   // host bytes
    uint64_t cluster, count; // host clusters, from cluster on, all alike
    uint64_t index;          // in the table that the problem names
    uint64_t entry;          // the table entry as it stands
    uint64_t bitmap;         // the second word of an extended L2 entry
    uint64_t refcount;       // as stored
    uint64_t reference;      // as counted
    uint64_t guest_offset, guest_bytes;
    int snapshot;              // index in the snapshot table; -1: the active state
    const char *snapshot_name; // "" for the active state
    const char *bitmap_name;   // NULL or "": not known, or not about a bitmap
    uint64_t value, wanted;
    const char *field; // of the header; a string constant, NULL if it is none
    // The eight bytes that heal it: at this host offset, this value. What the entry said
    // is lost when lossy is set: the guest range reads as zeros then.
    uint64_t edit_offset, edit_value;
    uint64_t edit_bitmap; // edit_wide: goes behind edit_value, as one entry
    uint32_t edit_count;  // that many times, one behind the other; 0 is 1
    uint32_t lost_bits;   // subclusters that are lost, a bit each; 0: all there are
    bool edit_wide;
    bool in_l1; // the edit is of an L1 table
    bool lossy;
    bool needs_zero_cluster; // version 2 with a backing file: zeros have to be stored
    bool wiped;              // the L2 table holds nothing, and did hold something
    bool recovered;          // the owner of an orphaned cluster was found
};

// Room for what q2_finding_format writes.
#define Q2_FINDING_TEXT_MAX 512

// The message, its fields filled in; verb stands for {verb} ("ERROR", "Repairing",
// "Leaked").
void q2_finding_format(const struct q2_finding *f, const char *verb,
                       char out[Q2_FINDING_TEXT_MAX]);

#endif
