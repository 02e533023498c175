// SPDX-License-Identifier: MIT
// Snapshots are made, applied and deleted, and the power goes behind any write of it: the
// list of snapshots and the active state are the old ones or the new ones, each reads as
// it was, and the image is sound, or dirty and healed without a loss. In version 2, which
// cannot say that it is dirty, refcounts may be too high and COPIED flags missing; but
// what is written to such an image next must not reach a snapshot.
#include "tests/crash/judge.h"
#include "tests/unit/test.h"

#include "base/checked.h"
#include "check/repair.h"
#include "io/memory.h"
#include "ops/resize.h"
#include "ops/snapshot.h"

#define MAX_RECORD (UINT32_C(64) << 20)
#define N_STEPS 9U
#define MAX_STATES 64U

struct content {
    char id[32]; // "": the active state
    uint8_t *bytes;
    size_t size;
};

// All that can be read: the active state is number 0, snapshots follow in their order.
struct world {
    struct content states[MAX_STATES];
    unsigned n;
};

struct run {
    struct fixture f;
    struct q2_image *img;
    uint64_t random;
    size_t most;
    struct world old, new;
    uint64_t n_states;
    char why[4096];
};

enum choice { NONE, ALL, HALF, MOST, N_CHOICES };

struct keeping {
    enum choice choice;
    uint64_t *random;
};

static bool keep(void *opaque, size_t call, uint64_t sector)
{
    struct keeping *k = opaque;
    (void)call;
    (void)sector;
    return k->choice == ALL || (k->choice != NONE && test_random(k->random) >> 61 <
                                                         (k->choice == HALF ? 4U : 7U));
}

static bool say(struct run *r, const char *what, const char *detail)
{
    snprintf(r->why, sizeof(r->why), "%s: %.2000s", what, detail);
    return false;
}

// --- what can be read ----------------------------------------------------------------

static void world_clear(struct world *w)
{
    for (unsigned i = 0; i < w->n; i++)
        free(w->states[i].bytes);
    *w = (struct world){.n = 0};
}

static int read_content(const struct run *r, struct q2_io *io, struct content *c,
                        struct q2_error *err)
{
    struct q2_image *img;
    int ret = fixture_open(&r->f, io, false, &img, err);
    if (ret < 0)
        return ret;
    if (c->id[0])
        ret = q2_image_select_snapshot(img, c->id, err);
    c->size = q2_to_size(img->disk.size);
    c->bytes = calloc(1, r->most);
    if (ret == 0 && c->size > r->most)
        ret = q2_fail(err, -1, "a disk of %zu bytes", c->size);
    if (ret == 0)
        ret = q2_disk_read(&img->disk, 0, c->bytes, c->size, err);
    fixture_close(img);
    return ret;
}

static int take_id(void *opaque, struct q2_snapshot *s, struct q2_error *err)
{
    struct world *w = opaque;
    (void)err;
    if (w->n < MAX_STATES)
        snprintf(w->states[w->n].id, sizeof(w->states[w->n].id), "%s", s->id);
    w->n++;
    return 0;
}

static int read_ids(const struct run *r, struct q2_io *io, struct world *w,
                    struct q2_error *err)
{
    struct q2_image *img;
    int ret = fixture_open(&r->f, io, false, &img, err);
    if (ret < 0)
        return ret;
    w->n = 1; // the active state
    ret = q2_snapshot_each(&img->disk, take_id, w, err);
    fixture_close(img);
    return ret;
}

static int world_read(const struct run *r, struct q2_io *io, struct world *w,
                      struct q2_error *err)
{
    *w = (struct world){.n = 0};
    int ret = read_ids(r, io, w, err);
    for (unsigned i = 0; i < w->n && ret == 0; i++)
        ret = read_content(r, io, &w->states[i], err);
    return ret;
}

// A snapshot is read as a disk that is no shorter than the active one; its own end is
// what counts, and behind it only the active disk's size differs.
static bool same_content(const struct content *a, const struct content *b, bool active)
{
    size_t n = q2_min_size(a->size, b->size);
    return strcmp(a->id, b->id) == 0 && (!active || a->size == b->size) &&
           memcmp(a->bytes, b->bytes, n) == 0;
}

static bool same_world(const struct world *a, const struct world *b, unsigned from)
{
    bool same = a->n == b->n;
    for (unsigned i = from; i < a->n && same; i++)
        same = same_content(&a->states[i], &b->states[i], i == 0);
    return same;
}

static bool world_allowed(struct run *r, struct q2_io *io, const char *when)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct world w;
    char text[128];
    bool good = true;
    if (world_read(r, io, &w, &err) < 0)
        good = say(r, when, err.message);
    else if (!same_world(&w, &r->old, 0) && !same_world(&w, &r->new, 0)) {
        snprintf(text, sizeof(text), "neither old nor new (%u states; old %u, new %u)",
                 w.n, r->old.n, r->new.n);
        good = say(r, when, text);
    }
    world_clear(&w);
    return good;
}

// --- version 2 -----------------------------------------------------------------------

// Space and needless copies is all that a cut may cost.
static bool costs_no_data(struct run *r, struct q2_io *io)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_scan scan;
    char text[Q2_FINDING_TEXT_MAX];
    bool good = true;
    if (q2_scan_run(&scan, io, false, NULL, &err) < 0)
        return say(r, "cannot be checked", err.message);
    for (size_t i = 0; i < scan.findings.n && good; i++) {
        const struct q2_finding *f = &scan.findings.list[i];
        bool flag =
            f->problem == Q2_PROBLEM_COPIED_L2 || f->problem == Q2_PROBLEM_COPIED_DATA;
        if (flag || q2_problem_info(f->problem)->severity == Q2_SEVERITY_LEAK)
            continue;
        q2_finding_format(f, "ERROR", text);
        good = say(r, "not sound", text);
    }
    q2_scan_clear(&scan);
    return good;
}

static bool repair(struct run *r, struct q2_io *io)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_plan plan;
    struct q2_scan scan;
    if (q2_plan_make(&plan, io, Q2_REPAIR_MODE_ALL, 0, false, NULL, &err) < 0)
        return say(r, "no repair", err.message);
    bool good = plan.n_lossy == 0 || say(r, "the repair loses guest data", "");
    if (good && q2_plan_apply(&plan, io, NULL, &err) < 0)
        good = say(r, "the repair fails", err.message);
    q2_plan_clear(&plan);
    if (!good)
        return false;
    if (q2_scan_run(&scan, io, false, NULL, &err) < 0)
        return say(r, "cannot be checked", err.message);
    good = scan.corruptions + scan.leaks == 0 || say(r, "not sound after a repair", "");
    q2_scan_clear(&scan);
    return good;
}

static void overwrite(struct run *r, struct q2_image *img, struct q2_error *err)
{
    uint8_t *bytes = malloc(r->most);
    for (unsigned i = 0; i < 3; i++) {
        uint64_t at = test_random(&r->random) % img->disk.size;
        size_t n = (size_t)q2_min_u64(img->disk.size - at, r->most / 3);
        memset(bytes, (int)(test_random(&r->random) % 256), r->most);
        if (q2_disk_write(&img->disk, at, bytes, n, err) < 0)
            break;
    }
    if (err->code == 0)
        q2_disk_finish(&img->disk, err);
    free(bytes);
}

// Writes to the image as it is: snapshots stay what they are.
static bool use_unrepaired(struct run *r, struct q2_io *io)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_image *img;
    struct world before, after;
    bool good = world_read(r, io, &before, &err) == 0 &&
                fixture_open(&r->f, io, true, &img, &err) == 0;
    if (!good)
        return say(r, "does not open for writing", err.message);
    overwrite(r, img, &err);
    fixture_close(img);
    if (err.code < 0 || world_read(r, io, &after, &err) < 0)
        good = say(r, "cannot be written", err.message);
    else if (!same_world(&before, &after, 1))
        good = say(r, "a write", "reaches a snapshot");
    world_clear(&before);
    world_clear(&after);
    return good && costs_no_data(r, io);
}

// --- cuts ----------------------------------------------------------------------------

static bool judge_one(struct run *r, struct judge *j, struct q2_io *state)
{
    if (!world_allowed(r, state, "as it is"))
        return false;
    if (r->img->header.version < 3)
        return costs_no_data(r, state) && use_unrepaired(r, state) && repair(r, state);
    if (!judge_structure(j, state))
        return say(r, "structure", j->why);
    return world_allowed(r, state, "repaired");
}

static bool try_state(struct run *r, struct judge *j, size_t n_calls, enum choice choice)
{
    struct keeping k = {.choice = choice, .random = &r->random};
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *state;
    size_t used;
    if (q2_fault_state(r->f.fault, n_calls, keep, &k, &state, &err) < 0)
        give_up("%s", err.message);
    r->n_states++;
    bool good = judge_one(r, j, state);
    q2_io_close(state);
    if (good)
        return true;
    used = strlen(r->why);
    snprintf(r->why + used, sizeof(r->why) - used, " [call %zu, choice %d]", n_calls - 1,
             choice);
    return false;
}

static bool try_all(struct run *r, struct judge *j)
{
    size_t n;
    q2_fault_calls(r->f.fault, &n);
    for (size_t i = 1; i <= n; i++)
        for (enum choice c = 0; c < N_CHOICES; c++)
            if (!try_state(r, j, i, c))
                return false;
    return true;
}

// --- operations ----------------------------------------------------------------------

static int write_some(struct run *r, struct q2_error *err)
{
    struct q2_disk *d = &r->img->disk;
    uint8_t *bytes = malloc(r->most);
    int ret = 0;
    for (unsigned i = 0; i < 4 && ret == 0; i++) {
        uint64_t at = test_random(&r->random) % d->size;
        uint64_t longest = 1 + test_random(&r->random) % (r->most / 6);
        size_t n = (size_t)q2_min_u64(longest, d->size - at);
        memset(bytes, (int)(test_random(&r->random) % 256), n);
        if (i == 3)
            ret = q2_disk_write_zeroes(d, at, n, Q2_ZERO_UNMAP, err);
        else
            ret = q2_disk_write(d, at, bytes, n, err);
    }
    size_t cluster = (size_t)q2_min_u64(d->cluster_size, d->size);
    memset(bytes, 5, cluster);
    if (ret == 0)
        ret = q2_disk_write_compressed(d, 0, bytes, cluster, err);
    free(bytes);
    return ret < 0 ? ret : q2_disk_flush(d, err);
}

// Snapshots get names by chance; some have the same one.
static int operate(struct run *r, char what[64], struct q2_error *err)
{
    struct q2_disk *d = &r->img->disk;
    unsigned n = r->old.n - 1, kind = (unsigned)(test_random(&r->random) >> 33) % 3;
    if (n == 0 || (kind == 0 && n < 4)) {
        char name[16];
        snprintf(name, sizeof(name), "n%u",
                 (unsigned)(test_random(&r->random) >> 60) % 3);
        snprintf(what, 64, "create %s", name);
        return q2_snapshot_create(d, name, NULL, err);
    }
    unsigned i = (unsigned)(test_random(&r->random) >> 33) % n;
    if (kind == 1) {
        snprintf(what, 64, "apply %s", r->old.states[i + 1].id);
        return q2_snapshot_apply(d, r->old.states[i + 1].id, NULL, err);
    }
    snprintf(what, 64, "delete %s", r->img->snapshots[i].name);
    return q2_snapshot_delete(d, r->img->snapshots[i].name, NULL, err);
}

// Version 2 cannot be resized with snapshots.
static int resize_some(struct run *r, struct q2_error *err)
{
    if (r->img->header.version < 3 || test_random(&r->random) >> 62 != 0)
        return 0;
    return q2_disk_resize(&r->img->disk,
                          (1 + test_random(&r->random) % (r->most / 4096)) * 4096, err);
}

static bool step(struct run *r, struct judge *j, char what[64])
{
    struct q2_error err = Q2_ERROR_INIT;
    size_t n;
    snprintf(what, 64, "write");
    if (resize_some(r, &err) < 0 || write_some(r, &err) < 0 ||
        world_read(r, r->f.fault, &r->old, &err) < 0)
        return say(r, "write", err.message);
    q2_fault_forget(r->f.fault);
    if (operate(r, what, &err) < 0 || world_read(r, r->f.memory, &r->new, &err) < 0)
        return say(r, what, err.message);
    bool good = try_all(r, j);
    world_clear(&r->old);
    r->old = r->new;
    r->new.n = 0;
    q2_fault_calls(r->f.fault, &n);
    // All of it is durable: what was before does not come back.
    good = good && try_state(r, j, n, NONE);
    world_clear(&r->old);
    return good;
}

static bool end(struct run *r, struct judge *j)
{
    struct q2_error err = Q2_ERROR_INIT;
    if (q2_disk_finish(&r->img->disk, &err) < 0)
        return say(r, "finish", err.message);
    if (!judge_structure(j, r->f.memory))
        return say(r, "at the end", j->why);
    return j->leaks == 0 || say(r, "at the end", "leaks");
}

static void run(const struct recipe *recipe, unsigned options, uint64_t seed)
{
    struct run r = {.random = seed * 2 + 1, .most = 2 * (size_t)recipe->size};
    struct q2_error err = Q2_ERROR_INIT;
    struct judge j = {.f = &r.f, .repair_every = 1};
    char what[64];
    bool good = true;
    fixture_make(&r.f, recipe, MAX_RECORD);
    fixture_choose_runtime(&r.f, options);
    if (fixture_open(&r.f, r.f.fault, true, &r.img, &err) < 0)
        give_up("%s", err.message);
    unsigned i = 0;
    for (; i < N_STEPS && good; i++)
        good = step(&r, &j, what);
    good = good && end(&r, &j);
    ok(good, "%s: %" PRIu64 " states", r.f.name, r.n_states);
    if (!good)
        printf("#   Q2_SEED=%" PRIu64 ", step %u, %s: %s\n", seed, i, what, r.why);
    fixture_close(r.img);
    world_clear(&r.old);
    world_clear(&r.new);
    fixture_clear(&r.f);
}

int main(void)
{
    static const struct recipe recipes[] = {
        {.version = 3, .cluster_bits = 9, .refcount_order = 4, .size = 96 << 10},
        {.version = 3,
         .cluster_bits = 10,
         .refcount_order = 3,
         .size = 128 << 10,
         .backing = true},
        {.version = 2,
         .cluster_bits = 9,
         .refcount_order = 4,
         .size = 96 << 10,
         .backing = true},
        {.version = 2, .cluster_bits = 12, .refcount_order = 4, .size = 256 << 10},
        {.version = 3,
         .cluster_bits = 9,
         .refcount_order = 6,
         .size = 96 << 10,
         .lazy_refcounts = true},
        {.version = 3,
         .cluster_bits = 14,
         .refcount_order = 4,
         .size = 512 << 10,
         .extended_l2 = true,
         .backing = true},
    };
    play_recipes(recipes, sizeof(recipes) / sizeof(*recipes), run);
    return done_testing();
}
