// SPDX-License-Identifier: MIT
// Random operations of a guest, on an image and on the model alike.
#ifndef Q2_TESTS_CRASH_PLAY_H
#define Q2_TESTS_CRASH_PLAY_H

#include "tests/crash/fixture.h"
#include "tests/crash/model.h"

enum op_kind {
    OP_WRITE,
    OP_ZERO,
    OP_ZERO_UNMAP,
    OP_DISCARD,
    OP_PACKED,
    OP_VMSTATE, // written behind the disk
    OP_READ,
    OP_FLUSH,
    OP_REOPEN, // finish, close, open
    OP_COPY,   // convert -n: the whole disk; never by chance
    N_OP_KINDS
};

#define VMSTATE_BYTES (UINT32_C(96) << 10)

struct op {
    enum op_kind kind;
    uint32_t number;
    uint64_t offset;
    size_t n_bytes;
    uint64_t seed; // of the data
};

// What is played on.
struct stage {
    struct fixture *f;
    struct q2_image *img;
    struct model model;
    struct model vmstate; // nothing at first
    uint32_t n_ops;
    uint64_t random; // state of the generator
    size_t most;     // bytes of one request
    bool sectors;    // requests are whole sectors
    bool no_packed;
    uint8_t *buf; // room for the whole disk
    char why[1024];
};

// The environment's Q2_CRASH_RUNS: how often everything is played, each time otherwise.
unsigned play_runs(unsigned otherwise);

// The environment's Q2_SEED, or 1. Printed, so that a failure can be played again.
uint64_t play_seed(void);

// Every recipe in a row, n_runs times, each time with another seed. A size of 0 is one
// that suits the clusters.
struct play_matrix {
    const struct recipe *recipes;
    size_t n_recipes, max_record;
    // What is asked of the image in each second run (fixture_choose_runtime).
    unsigned runtime;
    bool backing; // for all of them
    // False: something was wrong. lies: flushes do nothing, and that must be noticed.
    bool (*run)(struct fixture *f, uint64_t seed, bool lies);
};

// Plays it, and once more with flushes that lie: were those noticed? (The caller says it:
// the tests are counted in the file with main.)
bool play_matrix(const struct play_matrix *m);
// For programs that make their fixtures: each recipe with two kinds of runtime.
void play_recipes(const struct recipe *recipes, size_t n_recipes,
                  void (*run)(const struct recipe *r, unsigned runtime, uint64_t seed));

// Opens the image of f and reads what is on it.
void stage_open(struct stage *s, struct fixture *f, uint64_t seed);
void stage_close(struct stage *s);
// All that was done is durable.
void stage_flushed(struct stage *s);

struct op op_random(struct stage *s);
// Converts another disk onto this one.
struct op op_copy(struct stage *s);
// "write 0x1200+512"
const char *op_text(const struct op *op);
// Does it to the model alone. Twice is once.
void op_model(struct stage *s, const struct op *op);
// Does it to the image alone; a read is compared with the model. OP_FLUSH and OP_REOPEN
// do not tell the model that all is durable: stage_flushed does.
int op_image(struct stage *s, const struct op *op, struct q2_error *err);
static inline bool op_is_flush(const struct op *op)
{
    return op->kind == OP_FLUSH || op->kind == OP_REOPEN;
}

#endif
