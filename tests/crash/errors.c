// SPDX-License-Identifier: MIT
// Lets each read, write, flush and change of size of a row of random operations fail, one
// after the other: once or until further notice, cleanly or torn. The operation says so;
// the image as it lies is sound; and when the disk is well again, the operation works,
// and so does the rest.
//
//   errors                                images made here
//   errors [-n OPERATIONS] [-e EVERY] IMAGE...
//                                         images from files; every so manieth call fails
//
// The environment's Q2_SEED plays other operations, and the same ones again.
#include "tests/crash/judge.h"
#include "tests/unit/test.h"

#include <errno.h>

#include "io/memory.h"

#define MAX_RECORD (UINT32_C(64) << 20)
// Discards are hints: whoever gives them need not care.
#define COPY_AT 12U // the operation that is a convert -n
#define ALL_BUT_DISCARDS (~(1U << Q2_FAULT_DISCARD | 1U << Q2_FAULT_READ))

struct options {
    uint64_t seed;
    unsigned n_ops, every;
};

struct run {
    struct fixture *f;
    struct stage stage;
    struct judge judge;
    const struct options *options;
    bool fired; // a call has failed
    char why[4096];
};

static const struct q2_fault_rule rules[] = {
    {.code = -ENOSPC, .kinds = ALL_BUT_DISCARDS & ~(1U << Q2_FAULT_FLUSH)},
    {.code = -EIO, .kinds = ALL_BUT_DISCARDS, .n_torn = 1},
    {.code = -ENOSPC,
     .kinds = ALL_BUT_DISCARDS & ~(1U << Q2_FAULT_FLUSH),
     .forever = true},
    {.code = -EIO, .kinds = ALL_BUT_DISCARDS, .forever = true},
    {.code = -EIO, .kinds = 1U << Q2_FAULT_READ},
};

static bool all(void *opaque, size_t call, uint64_t sector)
{
    (void)opaque;
    (void)call;
    (void)sector;
    return true;
}

static bool none(void *opaque, size_t call, uint64_t sector)
{
    return !all(opaque, call, sector);
}

static bool half(void *opaque, size_t call, uint64_t sector)
{
    (void)call;
    (void)sector;
    return test_random(opaque) >> 63;
}

// The image as it lies, and as a power cut on top of the error may leave it.
static bool as_it_lies(struct run *r)
{
    static q2_fault_keep *const keeps[] = {all, none, half};
    struct q2_error err = Q2_ERROR_INIT;
    uint64_t random = r->options->seed * 2 + 1;
    bool good = true;
    size_t n;
    for (size_t i = 0; i < 3 && good; i++) {
        struct q2_io *state;
        q2_fault_calls(r->f->fault, &n);
        if (q2_fault_state(r->f->fault, n, keeps[i], &random, &state, &err) < 0)
            give_up("%s", err.message);
        good = judge_state(&r->judge, state);
        if (!good)
            snprintf(r->why, sizeof(r->why), "after the error%s: %.2000s",
                     i == 0   ? ""
                     : i == 1 ? " and a power cut that keeps nothing"
                              : " and a power cut that keeps a half",
                     r->judge.why);
        q2_io_close(state);
    }
    return good;
}

// Did the failing operation say what happened?
static bool reported(struct run *r, const struct q2_fault_rule *rule, int ret,
                     const char *message)
{
    if (q2_fault_n_failed(r->f->fault) == 0) {
        snprintf(r->why, sizeof(r->why), "fails by itself: %.2000s", message);
        return false;
    }
    if (ret == rule->code)
        return true;
    snprintf(r->why, sizeof(r->why), "returns %d, not %d: %.2000s", ret, rule->code,
             message);
    return false;
}

static bool step(struct run *r, const struct op *op, const struct q2_fault_rule *rule)
{
    struct q2_error err = Q2_ERROR_INIT;
    uint64_t before = q2_fault_n_failed(r->f->fault);
    op_model(&r->stage, op);
    int ret = op_image(&r->stage, op, &err);
    if (ret == 0 && q2_fault_n_failed(r->f->fault) > before)
        return !snprintf(r->why, sizeof(r->why), "does not say that it failed");
    r->fired = r->fired || ret < 0;
    if (ret < 0) {
        if (!reported(r, rule, ret, err.message) || !as_it_lies(r))
            return false;
        q2_fault_arm(r->f->fault, NULL);
        if (op_image(&r->stage, op, &err) < 0)
            return !snprintf(r->why, sizeof(r->why), "tried again: %.2000s", err.message);
    }
    if (op_is_flush(op))
        stage_flushed(&r->stage);
    return true;
}

static bool play(struct run *r, const struct q2_fault_rule *rule)
{
    struct q2_error err = Q2_ERROR_INIT;
    q2_fault_arm(r->f->fault, rule);
    for (unsigned i = 0; i < r->options->n_ops; i++) {
        struct op op = i == COPY_AT ? op_copy(&r->stage) : op_random(&r->stage);
        q2_fault_forget(r->f->fault);
        if (!step(r, &op, rule)) {
            size_t used = strlen(r->why);
            snprintf(r->why + used, sizeof(r->why) - used, " [in operation %s]",
                     op_text(&op));
            return false;
        }
    }
    q2_fault_arm(r->f->fault, NULL);
    if (q2_disk_finish(&r->stage.img->disk, &err) < 0)
        return !snprintf(r->why, sizeof(r->why), "finish: %.2000s", err.message);
    bool good = judge_clean(&r->judge, r->f->memory, true);
    if (!good)
        snprintf(r->why, sizeof(r->why), "at the end: %.2000s", r->judge.why);
    return good;
}

// What may leak in the end: a table whose place in the header was being changed when the
// error came, so that nobody knows what the file says. Where a table cannot be read when
// a write is linked, the place of that write too.
#define MAX_LEAKED 4U
#define MAX_LEAKED_WRITE 128U

// What all runs on one image found.
struct sum {
    uint64_t n_runs, n_leaking, most_leaks;
    char why[4096];
};

static void copy_image(const struct fixture *f, struct fixture *copy)
{
    struct q2_error err = Q2_ERROR_INIT;
    uint64_t size = 0;
    *copy = *f;
    void *bytes = NULL;
    if (q2_io_get_size(f->memory, &size, &err) == 0)
        bytes = malloc((size_t)size);
    if (!bytes || q2_io_read(f->memory, 0, bytes, (size_t)size, &err) < 0 ||
        q2_memory_open("image", bytes, (size_t)size, &copy->memory, &err) < 0 ||
        q2_fault_open(copy->memory, MAX_RECORD, &copy->fault, &err) < 0)
        give_up("%s", err.message);
    free(bytes);
}

// The operations once, on a copy of the image. *fired: the rule's turn came.
static bool run_once(const struct fixture *f, const struct q2_fault_rule *rule,
                     uint64_t seed, const struct options *o, struct sum *sum, bool *fired)
{
    struct fixture copy;
    struct run r = {.f = &copy, .options = o};
    copy_image(f, &copy);
    stage_open(&r.stage, &copy, seed);
    r.stage.most = r.stage.model.n_bytes / 16;
    r.stage.sectors = true;
    judge_new(&r.judge, &copy, &r.stage);
    r.judge.repair_every = 5;
    bool good = play(&r, rule);
    *fired = r.fired;
    sum->n_runs++;
    sum->n_leaking += good && r.judge.leaks > 0;
    if (good && r.judge.leaks > sum->most_leaks)
        sum->most_leaks = r.judge.leaks;
    bool reads = (rule->kinds & 1U << Q2_FAULT_READ) != 0;
    if (good && r.judge.leaks > MAX_LEAKED + (reads ? MAX_LEAKED_WRITE : 0)) {
        snprintf(r.why, sizeof(r.why), "%" PRIu64 " clusters leak", r.judge.leaks);
        good = false;
    }
    if (!good)
        snprintf(sum->why, sizeof(sum->why), "%s", r.why);
    judge_clear(&r.judge);
    stage_close(&r.stage);
    q2_io_close(copy.fault);
    q2_io_close(copy.memory);
    return good;
}

static void run_image(const struct fixture *f, uint64_t seed, unsigned every,
                      const struct options *o)
{
    struct sum sum = {0};
    bool good = true;
    for (size_t i = 0; i < sizeof(rules) / sizeof(*rules) && good; i++) {
        struct q2_fault_rule rule = rules[i];
        bool fired = true;
        for (rule.n_pass = i; fired && good; rule.n_pass += every)
            good = run_once(f, &rule, seed, o, &sum, &fired);
        if (!good)
            printf("# rule %zu, call %" PRIu64 ":\n", i, rule.n_pass - every);
    }
    ok(good,
       "%s: %" PRIu64 " runs, %" PRIu64 " leak in the end, at most %" PRIu64 " clusters",
       f->name, sum.n_runs, sum.n_leaking, sum.most_leaks);
    if (!good)
        printf("#   Q2_SEED=%" PRIu64 ": %s\n", o->seed, sum.why);
}

static void run_matrix(const struct options *o, uint64_t seed)
{
    static const struct recipe recipes[] = {
        {.version = 3, .cluster_bits = 9, .refcount_order = 4},
        {.version = 3, .cluster_bits = 9, .refcount_order = 6, .backing = true},
        {.version = 3, .cluster_bits = 9, .refcount_order = 4, .lazy_refcounts = true},
        {.version = 2, .cluster_bits = 10, .refcount_order = 4, .backing = true},
        {.version = 3, .cluster_bits = 12, .refcount_order = 0},
        {.version = 3, .cluster_bits = 16, .refcount_order = 4},
        {.version = 3,
         .cluster_bits = 12,
         .refcount_order = 4,
         .encryption = Q2_CRYPT_AES},
        {.version = 3, .cluster_bits = 14, .refcount_order = 3, .extended_l2 = true},
        {.version = 3, .cluster_bits = 9, .refcount_order = 4, .data_file = true},
        // More clusters than one cluster of refcount table can describe.
        {.version = 3, .cluster_bits = 9, .refcount_order = 6, .size = 2200 << 10},
    };
    for (size_t i = 0; i < sizeof(recipes) / sizeof(*recipes); i++) {
        struct fixture f;
        struct recipe r = recipes[i];
        unsigned every = r.size ? 100 * o->every : o->every; // each run is long
        if (r.size == 0)
            r.size = r.cluster_bits < 12 ? 96 << 10 : UINT64_C(12) << r.cluster_bits;
        fixture_make(&f, &r, 0);
        run_image(&f, seed + i, every, o);
        fixture_choose_runtime(&f, (unsigned)((seed + i) * 37 % 128) | 1);
        run_image(&f, seed + i + 100, every, o);
        fixture_clear(&f);
    }
}

int main(int argc, char **argv)
{
    struct options o = {.seed = play_seed(), .n_ops = 24, .every = 2};
    bool named = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-n") == 0 && i + 1 < argc) {
            o.n_ops = (unsigned)strtoul(argv[++i], NULL, 0);
        } else if (strcmp(argv[i], "-e") == 0 && i + 1 < argc) {
            o.every = (unsigned)strtoul(argv[++i], NULL, 0);
        } else {
            struct fixture f;
            named = true;
            fixture_load(&f, argv[i], 0);
            for (unsigned k = 0; k < (play_runs(1) + 4) / 5; k++)
                run_image(&f, o.seed + (unsigned)i + k * 1000, o.every, &o);
            fixture_clear(&f);
        }
    }
    for (unsigned k = 0; k < (play_runs(1) + 4) / 5 && !named; k++)
        run_matrix(&o, o.seed + k * 1000);
    return done_testing();
}
