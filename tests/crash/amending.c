// SPDX-License-Identifier: MIT
// Cuts the power behind every write of an amendment: version up and down, refcounts of
// every width, lazy refcounts on and off. Whatever is left must be sound, at worst with
// leaks, and read as before in the active state and in every snapshot. Between the
// amendments a guest works on the image. Now and then a write fails instead, and
// amendments that are refused must not have written anything.
//
//   amending                  images made here
//   amending [-o FOLDER] IMAGE...
//                             images from files; FOLDER gets a sample of the states
//
// The environment's Q2_SEED plays other operations, and the same ones again.
#include "ops/amend.h"
#include "tests/crash/cuts.h"
#include "tests/crash/judge.h"
#include "tests/unit/test.h"

#include <errno.h>

#define MAX_RECORD (UINT32_C(64) << 20)
#define N_AMENDMENTS 12
#define OPS_BETWEEN 8
// Calls of one amendment behind which the power is cut; all that stand beside a flush.
#define MAX_CALLS 40
// One state of so many is saved.
#define SAMPLE 61

static const char *folder; // where states are saved; NULL: nowhere

struct run {
    struct fixture *f;
    struct stage stage;
    struct judge judge;
    uint64_t random;
    bool lies; // flushes do nothing: this must be noticed
    unsigned n_saved, n_done, n_refused, n_failed;
    struct q2_header header; // as it was at first
    char what[128];
    char why[4096];
};

static uint64_t below(struct run *r, uint64_t limit)
{
    return (test_random(&r->random) >> 20) % limit;
}

static void save_some(struct run *r, struct q2_io *state)
{
    char path[4096];
    if (!folder || r->judge.n_states % SAMPLE != 1 || r->n_saved >= 12)
        return;
    snprintf(path, sizeof(path), "%s/%s-cut%02u", folder, r->f->name, r->n_saved++);
    fixture_save(r->f, state, path);
}

static void load_header(struct q2_io *io, struct q2_header *out)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_image *img;
    if (q2_image_open(io, false, true, &img, &err) < 0 ||
        q2_header_copy(&img->header, out, &err) < 0)
        give_up("%s", err.message);
    img->disk.ops->release(&img->disk);
}

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

// What a header has and no amendment changes: names, and what nobody knows.
static bool same_header(const struct q2_header *a, const struct q2_header *b)
{
    bool same = same_text(a->backing_file, b->backing_file) &&
                same_text(a->backing_format, b->backing_format);
    for (unsigned i = 0; i < a->n_extensions && same; i++) {
        const struct q2_extension *x = &a->extensions[i], *y = b->extensions;
        unsigned k = 0;
        if (x->type == Q2_EXT_FEATURE_TABLE)
            continue;
        while (k < b->n_extensions && y[k].type != x->type)
            k++;
        same = k < b->n_extensions && y[k].n_bytes == x->n_bytes &&
               memcmp(y[k].data, x->data, x->n_bytes) == 0;
    }
    return same;
}

static bool header_stays(struct run *r, struct q2_io *state)
{
    struct q2_header h;
    load_header(state, &h);
    bool same = same_header(&r->header, &h);
    q2_header_clear(&h);
    if (!same)
        snprintf(r->judge.why, sizeof(r->judge.why), "names or extensions have changed");
    return same;
}

static bool judge_cut(void *opaque, struct q2_io *state)
{
    struct run *r = opaque;
    save_some(r, state);
    return judge_state(&r->judge, state) && header_stays(r, state);
}

static bool try_calls(struct run *r)
{
    struct cuts cuts = {.fault = r->f->fault,
                        .random = test_random(&r->random) | 1,
                        .judge = judge_cut,
                        .opaque = r};
    return cuts_try(&cuts, MAX_CALLS) ||
           !snprintf(r->why, sizeof(r->why), "%s: cut behind call %zu, %s: %.2000s",
                     r->what, cuts.call, cuts.kept, r->judge.why);
}

static struct q2_amend_options choose(struct run *r)
{
    static const unsigned widths[] = {1, 2, 4, 8, 16, 32, 64};
    struct q2_amend_options o = {.set_version = false};
    const struct q2_header *h = &r->stage.img->header;
    unsigned kind = (unsigned)below(r, 10);
    o.set_lazy_refcounts = kind >= 8;
    o.lazy_refcounts = below(r, 2);
    o.set_refcount_bits = kind >= 4 && kind < 8;
    o.refcount_bits = widths[below(r, sizeof(widths) / sizeof(widths[0]))];
    o.set_version = kind < 4 || (h->version == 2 && below(r, 2));
    o.version = h->version == 2 ? 3 : 2;
    if (o.set_version && o.version == 2) { // else nothing but refusals
        o.set_refcount_bits = true;
        o.refcount_bits = 16;
        o.set_lazy_refcounts = false;
    }
    snprintf(r->what, sizeof(r->what), "%s%s%s",
             o.set_version ? (o.version == 2 ? "version 2, " : "version 3, ") : "",
             o.set_lazy_refcounts ? (o.lazy_refcounts ? "lazy, " : "not lazy, ") : "",
             o.set_refcount_bits ? "bits " : "");
    if (o.set_refcount_bits)
        snprintf(r->what + strlen(r->what), 8, "%u", (unsigned)o.refcount_bits);
    return o;
}

static void arm(struct run *r, bool fails)
{
    const struct q2_fault_rule lie = {.forever = true, .kinds = 1U << Q2_FAULT_FLUSH};
    const struct q2_fault_rule fail = {.n_pass = below(r, 12), .code = -EIO};
    q2_fault_arm(r->f->fault, r->lies ? &lie : fails ? &fail : NULL);
}

static bool reopen(struct run *r)
{
    struct q2_error err = Q2_ERROR_INIT;
    fixture_close(r->stage.img);
    if (fixture_open(r->f, r->f->fault, true, &r->stage.img, &err) == 0)
        return true;
    r->stage.img = NULL;
    return !snprintf(r->why, sizeof(r->why), "%s: does not open: %.2000s", r->what,
                     err.message);
}

static bool is_sound(struct run *r, bool may_leak)
{
    if (may_leak ? judge_state(&r->judge, r->f->memory)
                 : judge_clean(&r->judge, r->f->memory, false))
        return true;
    return !snprintf(r->why, sizeof(r->why), "%s: afterwards: %.2000s", r->what,
                     r->judge.why);
}

static bool refused(struct run *r, const struct q2_error *err)
{
    size_t n;
    q2_fault_calls(r->f->fault, &n);
    r->n_refused++;
    return n == 0 ||
           !snprintf(r->why, sizeof(r->why), "%s: refused after %zu calls: %.2000s",
                     r->what, n, err->message);
}

// Amends; with all cuts in it, or with a write that fails.
static bool amend(struct run *r)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_disk *d = &r->stage.img->disk;
    struct q2_amend_options o = choose(r);
    bool fails = !r->lies && below(r, 4) == 0;
    if (getenv("Q2_VERBOSE"))
        printf("# %s%s\n", r->what, fails ? ", fails" : "");
    q2_fault_forget(r->f->fault);
    arm(r, fails);
    int ret = q2_amend(d, &o, NULL, &err);
    if (ret == 0)
        ret = q2_disk_finish(d, &err);
    bool failed = q2_fault_n_failed(r->f->fault) > 0 && !r->lies;
    arm(r, false);
    r->n_failed += failed;
    r->n_done += ret == 0;
    if (failed)
        return is_sound(r, true) && reopen(r);
    if (ret == -EINVAL || ret == -ENOTSUP || ret == -ENOSPC)
        return refused(r, &err) && reopen(r);
    if (ret < 0)
        return !snprintf(r->why, sizeof(r->why), "%s: %.2000s", r->what, err.message);
    return try_calls(r) && is_sound(r, r->n_failed > 0) && reopen(r);
}

static bool play(struct run *r, enum op_kind last)
{
    struct q2_error err = Q2_ERROR_INIT;
    for (unsigned i = 0; i <= OPS_BETWEEN; i++) {
        struct op op = op_random(&r->stage);
        if (i == OPS_BETWEEN)
            op.kind = last;
        op_model(&r->stage, &op);
        if (op_image(&r->stage, &op, &err) < 0)
            return !snprintf(r->why, sizeof(r->why), "%s: %.2000s", op_text(&op),
                             err.message);
        q2_fault_forget(r->f->fault);
    }
    stage_flushed(&r->stage);
    return true;
}

static bool run_one(struct fixture *f, uint64_t seed, bool lies)
{
    struct run r = {.f = f, .random = seed * 2 + 1, .lies = lies};
    stage_open(&r.stage, f, seed);
    r.stage.most = r.stage.model.n_bytes / 8;
    r.stage.sectors = true;
    judge_new(&r.judge, f, &r.stage);
    load_header(f->memory, &r.header);
    bool good = true;
    for (unsigned i = 0; i < N_AMENDMENTS && good; i++) {
        arm(&r, false);
        good = play(&r, OP_REOPEN) && amend(&r);
    }
    if (!lies) {
        ok(good,
           "%s: %u amendments, %u refused, %u failed, %" PRIu64 " states, %" PRIu64
           " with leaks",
           f->name, r.n_done, r.n_refused, r.n_failed, r.judge.n_states,
           r.judge.n_leaking);
        if (!good)
            printf("#   %s\n", r.why);
    }
    q2_header_clear(&r.header);
    judge_clear(&r.judge);
    stage_close(&r.stage);
    return good;
}

static const struct recipe recipes[] = {
    {.version = 3, .cluster_bits = 9, .refcount_order = 4},
    {.version = 3, .cluster_bits = 9, .refcount_order = 4, .backing = true},
    {.version = 2, .cluster_bits = 9, .refcount_order = 4},
    {.version = 2, .cluster_bits = 10, .refcount_order = 4, .backing = true},
    {.version = 3, .cluster_bits = 12, .refcount_order = 0, .backing = true},
    {.version = 3, .cluster_bits = 12, .refcount_order = 5, .lazy_refcounts = true},
    {.version = 3, .cluster_bits = 16, .refcount_order = 6, .backing = true},
    {.version = 3, .cluster_bits = 14, .refcount_order = 3, .extended_l2 = true},
    {.version = 3, .cluster_bits = 10, .refcount_order = 4, .encryption = Q2_CRYPT_LUKS},
    {.version = 2, .cluster_bits = 12, .refcount_order = 4, .encryption = Q2_CRYPT_AES},
    {.version = 3, .cluster_bits = 12, .refcount_order = 2, .data_file = true},
    // More clusters than one cluster of refcount table can describe.
    {.version = 3, .cluster_bits = 9, .refcount_order = 6, .size = 2200 << 10},
};

int main(int argc, char **argv)
{
    bool named = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-o") == 0 && i + 1 < argc) {
            folder = argv[++i];
            continue;
        }
        struct fixture f;
        named = true;
        for (unsigned k = 0; k < play_runs(2); k++) {
            fixture_load(&f, argv[i], MAX_RECORD);
            run_one(&f, play_seed() + k * 100 + (unsigned)i, false);
            fixture_clear(&f);
        }
    }
    if (named)
        return done_testing();
    const struct play_matrix matrix = {.recipes = recipes,
                                       .n_recipes = sizeof(recipes) / sizeof(*recipes),
                                       .max_record = MAX_RECORD,
                                       .run = run_one};
    ok(play_matrix(&matrix), "flushes that do nothing are noticed");
    return done_testing();
}
