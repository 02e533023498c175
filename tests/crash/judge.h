// SPDX-License-Identifier: MIT
// Judges an image as a power cut or an error left it.
#ifndef Q2_TESTS_CRASH_JUDGE_H
#define Q2_TESTS_CRASH_JUDGE_H

#include "tests/crash/play.h"

struct snapshot_content {
    char *id;
    uint8_t *bytes;
    size_t n_bytes;
};

struct judge {
    const struct fixture *f;
    const struct model *model, *vmstate;
    struct snapshot_content *snapshots; // as they were at first
    unsigned n_snapshots;
    uint8_t *buf; // the disk, and the VM state behind it
    char why[2048];
    unsigned repair_every; // so manieth dirty state is repaired too: it takes long
    uint64_t n_states, n_dirty, n_leaking; // seen
    uint64_t leaks;                        // clusters, in the last image that was judged
};

void judge_new(struct judge *j, const struct fixture *f, const struct stage *s);
void judge_clear(struct judge *j);

// Nothing worse than leaks, or dirty and repaired without a loss (in the state itself);
// guest and snapshots as they may be. j->buf has the guest's content then. False: j->why.
bool judge_state(struct judge *j, struct q2_io *state);
// The same, without a look at what it holds.
bool judge_structure(struct judge *j, struct q2_io *state);
// Of an image after a clean end: no leak either, not dirty, the content is exactly the
// model's. may_leak: leaks are fine.
bool judge_clean(struct judge *j, struct q2_io *image, bool may_leak);

#endif
