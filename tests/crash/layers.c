// SPDX-License-Identifier: MIT
// Cuts the power behind every write of a rebase and of a commit. A rebased image must
// read as before on whichever backing file its header names; a committed one on its base
// as that one is by then. Now and then a write fails instead.
//
// The environment's Q2_SEED plays other operations, and the same ones again.
#include "ops/commit.h"
#include "ops/rebase.h"

#include <errno.h>

#include "base/checked.h"
#include "image/open.h"
#include "image/raw.h"
#include "io/memory.h"
#include "tests/crash/cuts.h"
#include "tests/crash/judge.h"
#include "tests/unit/test.h"

#define MAX_RECORD (UINT32_C(64) << 20)
#define MAX_CALLS 40
#define N_OPS 16
#define N_ROUNDS 4

struct run {
    struct fixture *f;
    struct stage stage;
    struct judge judge;
    uint64_t random;
    bool lies;            // flushes do nothing: this must be noticed
    struct q2_io *old;    // of a rebase
    struct q2_io *new;    // NULL: none
    char name[16];        // of the new one
    struct q2_io *fault;  // over the base of a commit
    struct q2_io *before; // the top of a commit, as it was
    unsigned n_rebased, n_committed, n_failed;
    char why[4096];
};

static uint64_t below(struct run *r, uint64_t limit)
{
    return (test_random(&r->random) >> 20) % limit;
}

static bool fails(struct run *r, const char *what, const char *why)
{
    return !snprintf(r->why, sizeof(r->why), "%s: %.2000s", what, why);
}

// A guest writes; everything is durable and clean afterwards.
static bool play(struct run *r)
{
    struct q2_error err = Q2_ERROR_INIT;
    for (unsigned i = 0; i <= N_OPS; i++) {
        struct op op = op_random(&r->stage);
        if (op.kind == OP_VMSTATE)
            op.kind = OP_WRITE;
        if (i == N_OPS)
            op.kind = OP_REOPEN;
        op_model(&r->stage, &op);
        if (op_image(&r->stage, &op, &err) < 0)
            return fails(r, op_text(&op), err.message);
        q2_fault_forget(r->f->fault);
    }
    stage_flushed(&r->stage);
    return true;
}

static struct q2_io *copy_of(struct q2_io *io, uint64_t size)
{
    size_t n = q2_to_size(size);
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *copy;
    void *buf = malloc(n);
    if (!buf || q2_io_read(io, 0, buf, n, &err) < 0 ||
        q2_memory_open("base", buf, n, &copy, &err) < 0)
        give_up("%s", err.message);
    free(buf);
    return copy;
}

static void arm(struct run *r, struct q2_io *fault, bool fail)
{
    const struct q2_fault_rule lie = {.forever = true, .kinds = 1U << Q2_FAULT_FLUSH};
    const struct q2_fault_rule rule = {.n_pass = below(r, 24), .code = -EIO};
    q2_fault_arm(fault, r->lies ? &lie : fail ? &rule : NULL);
}

static bool reopen(struct run *r)
{
    struct q2_error err = Q2_ERROR_INIT;
    if (r->stage.img)
        fixture_close(r->stage.img);
    r->stage.img = NULL;
    return fixture_open(r->f, r->f->fault, true, &r->stage.img, &err) == 0 ||
           fails(r, "does not open", err.message);
}

// --- rebase --------------------------------------------------------------------------

static struct q2_io *named_backing(struct run *r, struct q2_io *state)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_image *img;
    if (q2_image_open(state, false, true, &img, &err) < 0)
        give_up("%s", err.message);
    const char *name = img->header.backing_file;
    struct q2_io *io = !name ? NULL : strcmp(name, r->name) == 0 ? r->new : r->old;
    img->disk.ops->release(&img->disk);
    return io;
}

static bool judge_rebased(void *opaque, struct q2_io *state)
{
    struct run *r = opaque;
    r->f->backing = named_backing(r, state);
    return judge_state(&r->judge, state) || fails(r, "rebase", r->judge.why);
}

// Partly as the old one, longer or shorter, or none.
static void make_new_backing(struct run *r)
{
    struct q2_error err = Q2_ERROR_INIT;
    uint64_t size = r->stage.model.n_bytes;
    char other[3 * SECTOR];
    memset(other, 0x5a, sizeof(other));
    r->new = NULL;
    snprintf(r->name, sizeof(r->name), "new-%u", r->n_rebased + r->n_failed);
    if (below(r, 4) == 0)
        return;
    size = (size / 2 + below(r, size)) / SECTOR * SECTOR;
    r->new = r->old ? copy_of(r->old, size) : NULL;
    if (!r->new &&q2_memory_open("base", NULL, 0, &r->new, &err) < 0)
        give_up("%s", err.message);
    for (unsigned i = 0; i < 6; i++) {
        uint64_t at = below(r, size / SECTOR) * SECTOR;
        if (q2_io_write(r->new, at, other, sizeof(other), &err) < 0)
            give_up("%s", err.message);
    }
}

static int rebase(struct run *r, struct q2_error *err)
{
    const struct q2_rebase_options o = {.backing_file = r->new ? r->name : NULL,
                                        .backing_format = r->new ? "raw" : NULL,
                                        .compress = below(r, 3) == 0};
    struct q2_disk *d = &r->stage.img->disk, *backing = NULL;
    if (r->new &&q2_raw_open(r->new, false, &backing, err) < 0)
        give_up("%s", err->message);
    if (backing)
        backing->path = strdup(r->name);
    int ret = q2_rebase_check(d, &o, err);
    if (ret == 0)
        ret = q2_rebase(d, backing, &o, NULL, err);
    if (backing)
        q2_disk_drop(backing);
    return ret;
}

static bool rebase_and_cut(struct run *r)
{
    struct cuts cuts = {.fault = r->f->fault,
                        .random = test_random(&r->random) | 1,
                        .judge = judge_rebased,
                        .opaque = r};
    struct q2_error err = Q2_ERROR_INIT;
    bool fail = !r->lies && below(r, 4) == 0;
    r->old = r->f->backing;
    make_new_backing(r);
    arm(r, r->f->fault, fail);
    int ret = rebase(r, &err);
    bool failed = !r->lies && q2_fault_n_failed(r->f->fault) > 0;
    arm(r, r->f->fault, false);
    r->n_rebased += ret == 0;
    r->n_failed += failed;
    bool good = ret == 0 || failed || fails(r, "rebase", err.message);
    if (good && !failed)
        good = cuts_try(&cuts, MAX_CALLS);
    good = good && judge_rebased(r, r->f->memory);
    r->f->backing = named_backing(r, r->f->memory);
    q2_io_close(r->f->backing == r->new ? r->old : r->new);
    q2_fault_forget(r->f->fault);
    return reopen(r) && good;
}

// --- commit --------------------------------------------------------------------------

// The base is cut: of the top nothing has been touched.
static bool judge_base(void *opaque, struct q2_io *state)
{
    struct run *r = opaque;
    struct q2_io *base = r->f->backing;
    r->f->backing = state;
    bool good = judge_state(&r->judge, r->before) || fails(r, "base", r->judge.why);
    r->f->backing = base;
    return good;
}

// The top is cut: the base is what is durable of it.
static bool judge_top(void *opaque, struct q2_io *state)
{
    struct run *r = opaque;
    return judge_state(&r->judge, state) || fails(r, "top", r->judge.why);
}

static bool keep_none(void *opaque, size_t call, uint64_t sector)
{
    (void)opaque;
    (void)call;
    (void)sector;
    return false;
}

static bool cut_top(struct run *r)
{
    struct cuts cuts = {.fault = r->f->fault,
                        .random = test_random(&r->random) | 1,
                        .judge = judge_top,
                        .opaque = r};
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *base = r->f->backing, *durable;
    size_t n;
    q2_fault_calls(r->fault, &n);
    if (q2_fault_state(r->fault, n, keep_none, NULL, &durable, &err) < 0)
        give_up("%s", err.message);
    r->f->backing = durable;
    bool good = cuts_try(&cuts, MAX_CALLS) && judge_top(r, r->f->memory);
    r->f->backing = base;
    q2_io_close(durable);
    return good;
}

static int commit(struct run *r, struct q2_error *err)
{
    const struct q2_commit_options o = {.keep = false};
    struct q2_disk *top = &r->stage.img->disk, *base;
    q2_disk_drop(top->backing);
    if (q2_raw_open(r->fault, true, &base, err) < 0)
        give_up("%s", err->message);
    base->path = strdup("base");
    top->backing = base;
    return q2_commit(top, base, &o, NULL, err);
}

static bool commit_and_cut(struct run *r)
{
    struct cuts cuts = {
        .random = test_random(&r->random) | 1, .judge = judge_base, .opaque = r};
    struct q2_error err = Q2_ERROR_INIT;
    uint64_t size;
    bool fail = !r->lies && below(r, 4) == 0;
    if (q2_io_get_size(r->f->memory, &size, &err) < 0 ||
        q2_fault_open(r->f->backing, MAX_RECORD, &r->fault, &err) < 0)
        give_up("%s", err.message);
    r->before = copy_of(r->f->memory, size);
    arm(r, r->fault, fail);
    arm(r, r->f->fault, fail && below(r, 2));
    int ret = commit(r, &err);
    bool failed = !r->lies &&
                  (q2_fault_n_failed(r->fault) > 0 || q2_fault_n_failed(r->f->fault) > 0);
    arm(r, r->fault, false);
    arm(r, r->f->fault, false);
    r->n_committed += ret == 0;
    r->n_failed += failed;
    cuts.fault = r->fault;
    bool good = ret == 0 || failed || fails(r, "commit", err.message);
    if (good && !failed)
        good = cuts_try(&cuts, MAX_CALLS) && cut_top(r);
    good = good && judge_top(r, r->f->memory);
    fixture_close(r->stage.img);
    r->stage.img = NULL;
    q2_io_close(r->fault);
    q2_io_close(r->before);
    q2_fault_forget(r->f->fault);
    return reopen(r) && good;
}

// -------------------------------------------------------------------------------------

static bool run_one(struct fixture *f, uint64_t seed, bool lies)
{
    struct run r = {.f = f, .random = seed * 2 + 1, .lies = lies};
    stage_open(&r.stage, f, seed);
    r.stage.sectors = true;
    judge_new(&r.judge, f, &r.stage);
    bool good = true;
    for (unsigned i = 0; i < N_ROUNDS && good; i++) {
        good = play(&r);
        if (good && f->backing)
            good = commit_and_cut(&r) && play(&r);
        good = good && rebase_and_cut(&r);
    }
    if (!lies) {
        ok(good,
           "%s: %u commits, %u rebases, %u failed, %" PRIu64 " states, %" PRIu64
           " with leaks",
           f->name, r.n_committed, r.n_rebased, r.n_failed, r.judge.n_states,
           r.judge.n_leaking);
        if (!good)
            printf("#   %s\n", r.why);
    }
    judge_clear(&r.judge);
    stage_close(&r.stage);
    return good;
}

int main(void)
{
    static const struct recipe recipes[] = {
        {.version = 3, .cluster_bits = 9, .refcount_order = 4, .size = 192 << 10},
        {.version = 2, .cluster_bits = 9, .refcount_order = 4, .size = 192 << 10},
        {.version = 3,
         .cluster_bits = 12,
         .refcount_order = 5,
         .size = 256 << 10,
         .lazy_refcounts = true},
        {.version = 3, .cluster_bits = 16, .refcount_order = 4, .size = 1 << 20},
        {.version = 3,
         .cluster_bits = 14,
         .refcount_order = 3,
         .size = 400 << 10,
         .extended_l2 = true},
    };
    const struct play_matrix matrix = {.recipes = recipes,
                                       .n_recipes = sizeof(recipes) / sizeof(*recipes),
                                       .max_record = MAX_RECORD,
                                       .runtime = 7,
                                       .backing = true,
                                       .run = run_one};
    ok(play_matrix(&matrix), "flushes that do nothing are noticed");
    return done_testing();
}
