// SPDX-License-Identifier: MIT
// A file whose changes are recorded, can be made to fail, and from whose record every
// state can be made that the file may be in after the power went: what was flushed is
// there; of what came after the last flush any sectors are, and any are not.
#ifndef Q2_IO_FAULT_H
#define Q2_IO_FAULT_H

#include "io/io.h"

// What a disk writes whole or not at all.
#define Q2_FAULT_SECTOR 512U

enum q2_fault_kind {
    Q2_FAULT_WRITE,
    Q2_FAULT_ZERO,
    Q2_FAULT_DISCARD,
    Q2_FAULT_SET_SIZE,
    Q2_FAULT_ALLOCATE,
    Q2_FAULT_FLUSH,
    Q2_FAULT_READ, // for rules: reads are not in the record
};

// One call that changes the file, or makes changes durable.
struct q2_fault_call {
    enum q2_fault_kind kind;
    uint64_t offset, n_bytes; // the sectors that it changes; of Q2_FAULT_SET_SIZE: the
                              // new size, and what is cut off behind it
    int ret;                  // what the caller was told
    bool done;
    uint64_t size_before, size_after; // of the file
    uint8_t *before, *after; // content of the n_bytes (zeros behind the end); NULL: none
};

// Which calls fail. Kinds are counted that are set in kinds (1 << kind; 0: all but
// reads).
struct q2_fault_rule {
    uint64_t n_pass; // that many still succeed
    int code;        // negative errno; 0: nothing is done, but success is claimed
    bool forever;    // all later ones fail too; else just one
    uint64_t n_torn; // sectors of a failing write that reach the file all the same
    unsigned kinds;
};

// Chooses what is left of an unflushed call; sector counts from the call's first one. A
// change of size is one sector.
typedef bool q2_fault_keep(void *opaque, size_t call, uint64_t sector);

// Changes go through to below, which stays the caller's, must outlive the result and must
// not be changed by anyone else. The record holds up to max_bytes of content: what was
// flushed is forgotten first, and a change that still does not fit fails with -ENOMEM.
// max_bytes 0: records nothing.
int q2_fault_open(struct q2_io *below, size_t max_bytes, struct q2_io **out,
                  struct q2_error *err);

// NULL: nothing fails. Counting begins anew.
void q2_fault_arm(struct q2_io *fault, const struct q2_fault_rule *rule);
// Calls that failed by the rule since it was set.
uint64_t q2_fault_n_failed(struct q2_io *fault);

// The calls since the last q2_fault_forget (or since older ones had to go), oldest first;
// good until the next call.
const struct q2_fault_call *q2_fault_calls(const struct q2_io *fault, size_t *n);

// Calls that have been forgotten: the index of a call that stays is lower by as many.
size_t q2_fault_n_forgotten(const struct q2_io *fault);

// Forgets what no state from now on needs: the calls up to the last flush.
void q2_fault_forget(struct q2_io *fault);

// The file as a cut right behind the first n_calls of the record may leave it: all of
// them up to the last flush, and of later ones what keep says. *out lies over the file:
// the next call to fault spoils it. What is done to *out stays there.
int q2_fault_state(struct q2_io *fault, size_t n_calls, q2_fault_keep *keep, void *opaque,
                   struct q2_io **out, struct q2_error *err);

#endif
