// SPDX-License-Identifier: MIT
// Cuts the power behind every write, flush, and change of size of random operations. Each
// state that the file may be in then must open, have nothing worse than leaks (or say
// that it is dirty, and be healed without a loss), and read for the guest as it was when
// it was last flushed, or as it became since; snapshots as they always were. Now and then
// the operations go on from such a state.
//
//   powercut                              images made here
//   powercut [-n OPERATIONS] [-o FOLDER] IMAGE...
//                                         images from files, with what is in them;
//                                         FOLDER gets a sample of the states
//
// The environment's Q2_SEED plays other operations, and the same ones again.
#include "tests/crash/judge.h"
#include "tests/unit/test.h"

#include "io/memory.h"

#define MAX_RECORD (UINT32_C(64) << 20)
// States of one call in which sectors are there or not by chance.
#define N_RANDOM 3
#define MAX_CALLS 24
// One state of so many is saved.
#define SAMPLE 97
// So manieth dirty state is repaired, too: that takes longer than all the rest.
#define REPAIR_EVERY 2

struct options {
    uint64_t seed;
    unsigned n_ops, n_runs;
    bool lies;          // flushes do nothing: this must be noticed
    const char *folder; // NULL: no samples
};

struct run {
    struct fixture *f;
    struct stage stage;
    struct judge judge;
    uint64_t random;
    const struct options *options;
    unsigned n_saved, number;
    char why[4096];
};

// Which of the unflushed sectors are there.
struct choice {
    enum { NONE, ALL, TORN, ALONE, SOME, N_CHOICES } kind;
    size_t last;     // call
    uint64_t random; // state, and of a hundred how many
    unsigned percent;
};

static const char *const choice_names[N_CHOICES] = {
    "nothing that was not flushed", "everything", "the last call torn",
    "the last call alone", "some sectors"};

static bool keep(void *opaque, size_t call, uint64_t sector)
{
    struct choice *c = opaque;
    switch (c->kind) {
    case NONE:
        return false;
    case ALL:
        return true;
    case TORN:
        return call < c->last || sector < c->random;
    case ALONE:
        return call == c->last;
    case SOME:
    case N_CHOICES:
        break;
    }
    return test_random(&c->random) >> 33 <
           (uint64_t)c->percent * (UINT64_C(1) << 31) / 100;
}

static void save_sample(struct run *r, struct q2_io *state, const char *name)
{
    char path[4096];
    if (!r->options->folder)
        return;
    snprintf(path, sizeof(path), "%s/%s-%u-%s", r->options->folder, r->f->name, r->number,
             name);
    fixture_save(r->f, state, path);
}

static void save_some(struct run *r, struct q2_io *state)
{
    char name[32];
    snprintf(name, sizeof(name), "cut%02u", r->n_saved);
    if (r->judge.n_states % SAMPLE != 1 || r->n_saved >= 12)
        return;
    r->n_saved++;
    save_sample(r, state, name);
}

static bool try_state(struct run *r, size_t n_calls, struct choice c)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *state;
    struct choice again = c;
    c.last = n_calls - 1;
    if (q2_fault_state(r->f->fault, n_calls, keep, &c, &state, &err) < 0)
        give_up("%s", err.message);
    save_some(r, state);
    bool good = judge_state(&r->judge, state);
    q2_io_close(state);
    if (good)
        return true;
    snprintf(r->why, sizeof(r->why), "call %zu, %s (random %" PRIu64 ", %u%%): %.2000s",
             n_calls - 1, choice_names[again.kind], again.random, again.percent,
             r->judge.why);
    again.last = n_calls - 1;
    if (q2_fault_state(r->f->fault, n_calls, keep, &again, &state, &err) == 0) {
        save_sample(r, state, "bad");
        q2_io_close(state);
    }
    return false;
}

static bool try_call(struct run *r, const struct q2_fault_call *calls, size_t i)
{
    uint64_t n_sectors = calls[i].n_bytes / Q2_FAULT_SECTOR + 2;
    bool whole = calls[i].kind != Q2_FAULT_WRITE || n_sectors <= 3;
    if (calls[i].kind == Q2_FAULT_FLUSH)
        return try_state(r, i + 1, (struct choice){.kind = NONE});
    bool good = try_state(r, i + 1, (struct choice){.kind = ALL}) &&
                try_state(r, i + 1, (struct choice){.kind = ALONE});
    if (good && !whole)
        good = try_state(
            r, i + 1,
            (struct choice){.kind = TORN,
                            .random = 1 + test_random(&r->random) % (n_sectors - 2)});
    for (int k = 0; k < N_RANDOM && good; k++)
        good = try_state(r, i + 1,
                         (struct choice){.kind = SOME,
                                         .random = test_random(&r->random) | 1,
                                         .percent = k == 0   ? 50
                                                    : k == 1 ? 85
                                                             : 15});
    return good;
}

static void arm(struct run *r)
{
    const struct q2_fault_rule lie = {.forever = true, .kinds = 1U << Q2_FAULT_FLUSH};
    q2_fault_arm(r->f->fault, r->options->lies ? &lie : NULL);
}

// The power goes; what is left is healed if need be, and the operations go on from it.
static void crash(struct run *r)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct choice c = {.kind = SOME,
                       .random = test_random(&r->random) | 1,
                       .percent = (unsigned)(test_random(&r->random) % 100)};
    struct q2_io *state, *memory;
    uint64_t size;
    size_t n;
    r->judge.repair_every = 1; // this one is repaired in any case
    q2_fault_calls(r->f->fault, &n);
    if (q2_fault_state(r->f->fault, n, keep, &c, &state, &err) < 0 ||
        !judge_state(&r->judge, state) || q2_io_get_size(state, &size, &err) < 0)
        give_up("%s%s", err.message, r->judge.why);
    void *bytes = malloc((size_t)size);
    if (!bytes || q2_io_read(state, 0, bytes, (size_t)size, &err) < 0 ||
        q2_memory_open("image", bytes, (size_t)size, &memory, &err) < 0)
        give_up("%s", err.message);
    free(bytes);
    q2_io_close(state);
    fixture_close(r->stage.img);
    q2_io_close(r->f->fault);
    q2_io_close(r->f->memory);
    r->f->memory = memory;
    if (q2_fault_open(memory, MAX_RECORD, &r->f->fault, &err) < 0 ||
        fixture_open(r->f, r->f->fault, true, &r->stage.img, &err) < 0)
        give_up("%s", err.message);
    r->judge.repair_every = REPAIR_EVERY;
    model_become(&r->stage.model, r->judge.buf);
    model_become(&r->stage.vmstate, r->judge.buf + r->stage.model.n_bytes);
    arm(r);
}

// One operation, and all the cuts in it.
static bool step(struct run *r, const struct op *op)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct stage *s = &r->stage;
    size_t n, start;
    q2_fault_forget(r->f->fault);
    q2_fault_calls(r->f->fault, &start);
    op_model(s, op);
    if (op_image(s, op, &err) < 0)
        return !snprintf(r->why, sizeof(r->why), "%.2000s", err.message);
    const struct q2_fault_call *calls = q2_fault_calls(r->f->fault, &n);
    // Of a long row of calls a part; those beside a flush are what matters most.
    size_t stride = (n - start) / MAX_CALLS + 1;
    size_t turn = (size_t)(test_random(&r->random) % stride);
    for (size_t i = start; i < n; i++) {
        bool edge = calls[i].kind == Q2_FAULT_FLUSH || i + 1 == n ||
                    calls[i + 1].kind == Q2_FAULT_FLUSH;
        if ((edge || i % stride == turn) && !try_call(r, calls, i))
            return false;
    }
    if (op_is_flush(op)) {
        stage_flushed(s);
        // Until now these cuts might have lost what the flush makes durable.
        return try_state(r, n, (struct choice){.kind = NONE});
    }
    return true;
}

static bool run_ops(struct run *r)
{
    const bool loud = getenv("Q2_VERBOSE") != NULL;
    const unsigned copies = r->stage.model.n_bytes > (2 << 20) ? 3 : 31;
    for (unsigned i = 0; i < r->options->n_ops; i++) {
        struct op op = i % 32 == copies ? op_copy(&r->stage) : op_random(&r->stage);
        if (loud)
            printf("# %s\n", op_text(&op));
        if (!step(r, &op)) {
            size_t used = strlen(r->why);
            snprintf(r->why + used, sizeof(r->why) - used, " [in operation %s]",
                     op_text(&op));
            return false;
        }
        if (test_random(&r->random) % 24 == 0)
            crash(r);
    }
    return true;
}

// The end is a clean one: what leaks is what the cuts left.
static bool run_end(struct run *r)
{
    struct q2_error err = Q2_ERROR_INIT;
    if (q2_disk_finish(&r->stage.img->disk, &err) < 0)
        return !snprintf(r->why, sizeof(r->why), "finish: %.2000s", err.message);
    bool good = judge_clean(&r->judge, r->f->memory, true);
    if (!good)
        snprintf(r->why, sizeof(r->why), "at the end: %.2000s", r->judge.why);
    return good;
}

static void run_one(struct fixture *f, uint64_t seed, unsigned number,
                    const struct options *o)
{
    struct run r = {.f = f, .options = o, .number = number, .random = seed * 2 + 1};
    stage_open(&r.stage, f, seed);
    r.stage.most = r.stage.model.n_bytes / 16;
    r.stage.sectors = true; // nobody promises anything for parts of them
    judge_new(&r.judge, f, &r.stage);
    r.judge.repair_every = REPAIR_EVERY;
    arm(&r);
    bool good = run_ops(&r) && run_end(&r);
    if (o->lies)
        ok(!good, "%s: flushes that do nothing are noticed", f->name);
    else
        ok(good, "%s: %" PRIu64 " states, %" PRIu64 " dirty, %" PRIu64 " with leaks",
           f->name, r.judge.n_states, r.judge.n_dirty, r.judge.n_leaking);
    if (!good && !o->lies)
        printf("#   Q2_SEED=%" PRIu64 ": %s\n", o->seed, r.why);
    judge_clear(&r.judge);
    stage_close(&r.stage);
}

static const struct recipe recipes[] = {
    {.version = 3, .cluster_bits = 9, .refcount_order = 4},
    {.version = 3, .cluster_bits = 9, .refcount_order = 6, .backing = true},
    {.version = 3, .cluster_bits = 9, .refcount_order = 4, .lazy_refcounts = true},
    {.version = 2, .cluster_bits = 9, .refcount_order = 4},
    {.version = 2, .cluster_bits = 10, .refcount_order = 4, .backing = true},
    {.version = 3, .cluster_bits = 12, .refcount_order = 0},
    {.version = 3,
     .cluster_bits = 12,
     .refcount_order = 5,
     .lazy_refcounts = true,
     .backing = true},
    {.version = 3, .cluster_bits = 16, .refcount_order = 4},
    {.version = 3,
     .cluster_bits = 10,
     .refcount_order = 4,
     .backing = true,
     .encryption = Q2_CRYPT_LUKS},
    {.version = 2, .cluster_bits = 12, .refcount_order = 4, .encryption = Q2_CRYPT_AES},
    {.version = 3, .cluster_bits = 14, .refcount_order = 4, .extended_l2 = true},
    {.version = 3,
     .cluster_bits = 14,
     .refcount_order = 3,
     .extended_l2 = true,
     .backing = true},
    {.version = 3,
     .cluster_bits = 15,
     .refcount_order = 4,
     .extended_l2 = true,
     .lazy_refcounts = true},
    {.version = 3, .cluster_bits = 9, .refcount_order = 4, .data_file = true},
    {.version = 3,
     .cluster_bits = 12,
     .refcount_order = 4,
     .lazy_refcounts = true,
     .backing = true,
     .data_file = true},
    {.version = 3,
     .cluster_bits = 9,
     .refcount_order = 4,
     .data_file = true,
     .data_file_raw = true},
    // More clusters than one cluster of refcount table can describe.
    {.version = 3, .cluster_bits = 9, .refcount_order = 6, .size = 2200 << 10},
};

static void run_matrix(const struct options *o)
{
    for (unsigned k = 0; k < o->n_runs; k++) {
        for (size_t i = 0; i < sizeof(recipes) / sizeof(*recipes); i++) {
            struct fixture f;
            struct recipe r = recipes[i];
            if (r.size == 0)
                r.size = r.cluster_bits < 12 ? 192 << 10 : UINT64_C(24) << r.cluster_bits;
            fixture_make(&f, &r, MAX_RECORD);
            if (k > 0)
                fixture_choose_runtime(&f, (unsigned)((o->seed + k + i) * 37 % 128));
            run_one(&f, o->seed + k * 100 + i, k, o);
            fixture_clear(&f);
        }
    }
}

int main(int argc, char **argv)
{
    struct options o = {.seed = play_seed(), .n_ops = 60, .n_runs = play_runs(3)};
    bool named = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-n") == 0 && i + 1 < argc) {
            o.n_ops = (unsigned)strtoul(argv[++i], NULL, 0);
        } else if (strcmp(argv[i], "-o") == 0 && i + 1 < argc) {
            o.folder = argv[++i];
        } else {
            struct fixture f;
            named = true;
            for (unsigned k = 0; k < o.n_runs; k++) {
                fixture_load(&f, argv[i], MAX_RECORD);
                if (k > 0)
                    fixture_choose_runtime(&f, (unsigned)((o.seed + k) * 37 % 128));
                run_one(&f, o.seed + k * 100 + (unsigned)i, k, &o);
                fixture_clear(&f);
            }
        }
    }
    if (named)
        return done_testing();
    run_matrix(&o);
    o.lies = true;
    o.n_runs = 1;
    run_matrix(&o);
    return done_testing();
}
