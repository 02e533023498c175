// SPDX-License-Identifier: MIT
// Cuts the power behind writes to a disk that bitmaps record, and behind changes of the
// bitmaps. Whatever is left must be sound, and no bitmap may lie: it is as before or as
// afterwards, and where it says that nothing was written nothing was; or it is in use,
// where the guest has written. Now and then a write fails instead.
//
// The environment's Q2_SEED plays other operations, and the same ones again.
#include "ops/bitmap.h"

#include <errno.h>

#include "image/bitmaps.h"
#include "ops/resize.h"
#include "tests/crash/cuts.h"
#include "tests/crash/judge.h"
#include "tests/unit/test.h"

#define MAX_RECORD (UINT32_C(64) << 20)
#define N_SESSIONS 24
#define MAX_OPS 6
#define MAX_ACTIONS 3
#define MAX_CALLS 24
#define N_NAMES 4

// What a bitmap is known to be.
struct track {
    bool exists, enabled;
    bool whole; // it was enabled ever since the disk was as base says
    unsigned granularity_bits;
    uint8_t *set; // a byte for each sector of the disk
    uint8_t *base;
};

struct run {
    struct fixture *f;
    struct stage stage;
    struct judge judge;
    uint64_t random;
    bool lies;                               // flushes do nothing: this must be noticed
    bool wrote;                              // the guest has, in this session
    struct track old[N_NAMES], now[N_NAMES]; // at its start, and at its end
    unsigned n_sessions, n_failed, n_in_use;
    char what[256];
    char why[4096];
};

// Two names of this length, and the directory is not in one sector.
#define LONG                                                          \
    "a name of many bytes that fill a sector of the directory: 64 of" \
    "them, and 64 again, and again, until there is no room for more"  \
    "a name of many bytes that fill a sector of the directory: 64 of" \
    "them, and 64 again, and again, until there is no room for more"

static const char *const names[N_NAMES] = {"a", LONG " 1", "the third of them",
                                           LONG " 2"};

static uint64_t below(struct run *r, uint64_t limit)
{
    return (test_random(&r->random) >> 20) % limit;
}

static size_t n_sectors(const struct run *r)
{
    return r->stage.model.n_bytes / SECTOR;
}

// --- what is known -------------------------------------------------------------------

static void track_copy(const struct run *r, const struct track *from, struct track *to)
{
    struct track copy = *from;
    copy.set = to->set;
    copy.base = to->base;
    memcpy(copy.set, from->set, n_sectors(r));
    memcpy(copy.base, from->base, r->stage.model.n_bytes);
    *to = copy;
}

static void track_clear(const struct run *r, struct track *t)
{
    memset(t->set, 0, n_sectors(r));
    memcpy(t->base, r->stage.model.bytes, r->stage.model.n_bytes);
    t->whole = t->enabled;
}

// Whole granules.
static void track_set(const struct run *r, struct track *t, uint64_t start, uint64_t end)
{
    uint64_t grain = UINT64_C(1) << t->granularity_bits;
    start = start / grain * grain;
    end = (end + grain - 1) / grain * grain;
    for (uint64_t at = start; at < end && at < r->stage.model.n_bytes; at += SECTOR)
        t->set[at / SECTOR] = 1;
}

static void track_op(struct run *r, const struct op *op)
{
    uint64_t n = op->kind == OP_PACKED ? r->stage.img->cluster_size : op->n_bytes;
    bool writes = op->kind != OP_READ && op->kind != OP_VMSTATE && !op_is_flush(op);
    // The VM state is written as the disk is, but lies behind it.
    r->wrote = r->wrote || writes || op->kind == OP_VMSTATE;
    for (unsigned i = 0; i < N_NAMES && writes; i++) {
        if (r->now[i].exists && r->now[i].enabled)
            track_set(r, &r->now[i], op->offset, op->offset + n);
    }
}

static void merge_tracks(const struct run *r, const struct track *from, struct track *to)
{
    for (size_t i = 0; i < n_sectors(r); i++) {
        if (from->set[i])
            track_set(r, to, i * SECTOR, (i + 1) * SECTOR);
    }
}

// --- states --------------------------------------------------------------------------

struct seen {
    uint8_t *set;
    size_t n;
};

static int take_run(void *opaque, uint64_t start, uint64_t end, struct q2_error *err)
{
    struct seen *s = opaque;
    if (end > s->n * SECTOR)
        return q2_fail(err, -EINVAL, "bits behind the end of the disk");
    memset(s->set + start / SECTOR, 1, (size_t)(end - start) / SECTOR);
    return 0;
}

// Is that what t says, of a disk that holds bytes?
static bool is_track(const struct run *r, const struct q2_live_bitmap *b,
                     const uint8_t *set, const struct track *t, const uint8_t *bytes)
{
    if (!t->exists || t->granularity_bits != b->entry.granularity_bits ||
        t->enabled != ((b->entry.flags & Q2_BITMAP_AUTO) != 0) ||
        memcmp(t->set, set, n_sectors(r)) != 0)
        return false;
    for (size_t i = 0; i < n_sectors(r) && t->whole; i++) {
        if (!set[i] && memcmp(bytes + i * SECTOR, t->base + i * SECTOR, SECTOR) != 0)
            return false;
    }
    return true;
}

static bool judge_bitmap(struct run *r, struct q2_image *img, unsigned i)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_live_bitmap *b = q2_bitmaps_find(img, names[i]);
    const struct track *old = &r->old[i], *now = &r->now[i];
    struct seen seen = {.set = calloc(1, n_sectors(r)), .n = n_sectors(r)};
    const char *wrong = NULL;
    if (!seen.set)
        give_up("no memory");
    if (!b)
        wrong = old->exists && now->exists ? "is not there" : NULL;
    else if (b->inconsistent)
        wrong = r->wrote && old->exists && old->enabled ? NULL : "is in use";
    else if (q2_bits_each(img, b, take_run, &seen, &err) < 0)
        wrong = err.message;
    else if (!is_track(r, b, seen.set, old, r->judge.buf) &&
             !is_track(r, b, seen.set, now, r->judge.buf))
        wrong = "says what is not so";
    r->n_in_use += b && b->inconsistent;
    free(seen.set);
    return !wrong ||
           !snprintf(r->why, sizeof(r->why), "bitmap '%s' %.500s", names[i], wrong);
}

static bool judge_bitmaps(struct run *r, struct q2_io *state)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_image *img;
    if (fixture_open(r->f, state, false, &img, &err) < 0)
        return !snprintf(r->why, sizeof(r->why), "%.2000s", err.message);
    bool good = q2_bitmaps_load(img, &err) == 0;
    if (!good)
        snprintf(r->why, sizeof(r->why), "%.2000s", err.message);
    for (unsigned i = 0; i < N_NAMES && good; i++)
        good = judge_bitmap(r, img, i);
    fixture_close(img);
    return good;
}

static bool judge_cut(void *opaque, struct q2_io *state)
{
    struct run *r = opaque;
    if (judge_state(&r->judge, state))
        return judge_bitmaps(r, state);
    return !snprintf(r->why, sizeof(r->why), "%.2000s", r->judge.why);
}

// --- sessions ------------------------------------------------------------------------

static bool fails(struct run *r, const char *what, const struct q2_error *err)
{
    return !snprintf(r->why, sizeof(r->why), "%s: %.2000s", what, err->message);
}

static void arm(struct run *r, bool fail)
{
    const struct q2_fault_rule lie = {.forever = true, .kinds = 1U << Q2_FAULT_FLUSH};
    const struct q2_fault_rule rule = {.n_pass = below(r, 16), .code = -EIO};
    q2_fault_arm(r->f->fault, r->lies ? &lie : fail ? &rule : NULL);
}

// A guest writes, here and there.
static bool write_some(struct run *r)
{
    struct q2_error err = Q2_ERROR_INIT;
    uint64_t n = below(r, MAX_OPS);
    snprintf(r->what, sizeof(r->what), "%u operations of a guest", (unsigned)n);
    for (uint64_t i = 0; i < n; i++) {
        struct op op = op_random(&r->stage);
        if (op.kind == OP_REOPEN)
            op.kind = OP_WRITE;
        track_op(r, &op);
        op_model(&r->stage, &op);
        if (op_image(&r->stage, &op, &err) < 0)
            return fails(r, op_text(&op), &err);
    }
    return true;
}

// What the action does to what is known of bitmap i; false: it is to be refused.
static bool act_on_track(struct run *r, unsigned i, const struct q2_bitmap_action *a,
                         unsigned source, unsigned granularity_bits)
{
    struct track *t = &r->now[i];
    if (t->exists == (a->act == Q2_BITMAP_ADD) ||
        (a->act == Q2_BITMAP_MERGE && !r->now[source].exists))
        return false;
    switch (a->act) {
    case Q2_BITMAP_ADD:
        t->exists = t->enabled = true;
        t->granularity_bits = granularity_bits;
        track_clear(r, t);
        break;
    case Q2_BITMAP_REMOVE:
        t->exists = false;
        break;
    case Q2_BITMAP_CLEAR:
        track_clear(r, t);
        break;
    case Q2_BITMAP_ENABLE:
        t->enabled = true;
        break;
    case Q2_BITMAP_DISABLE:
        t->enabled = t->whole = false;
        break;
    case Q2_BITMAP_MERGE:
        merge_tracks(r, &r->now[source], t);
        break;
    }
    return true;
}

// Some actions in one go, of which the last one may be refused. fail: a write does not
// succeed.
static bool change_bitmaps(struct run *r, bool fail)
{
    static const enum q2_bitmap_act often[8] = {
        Q2_BITMAP_ADD,     Q2_BITMAP_REMOVE, Q2_BITMAP_CLEAR, Q2_BITMAP_ENABLE,
        Q2_BITMAP_DISABLE, Q2_BITMAP_MERGE,  Q2_BITMAP_MERGE, Q2_BITMAP_ENABLE};
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_bitmap_action actions[MAX_ACTIONS];
    unsigned n = 0, wanted = 1 + (unsigned)below(r, MAX_ACTIONS);
    unsigned i = (unsigned)below(r, N_NAMES), bits = 9 + (unsigned)below(r, 5);
    bool done = true;
    snprintf(r->what, sizeof(r->what), "bitmap '%s':", names[i]);
    while (n < wanted && done) {
        struct q2_bitmap_action *a = &actions[n++];
        unsigned source = (unsigned)below(r, N_NAMES);
        *a =
            (struct q2_bitmap_action){.act = often[below(r, 8)], .source = names[source]};
        if (!r->now[i].exists && below(r, 8) > 0)
            a->act = Q2_BITMAP_ADD;
        size_t used = strlen(r->what);
        snprintf(r->what + used, sizeof(r->what) - used, " %d", (int)a->act);
        done = act_on_track(r, i, a, source, bits);
    }
    const struct q2_bitmap_request request = {.name = names[i],
                                              .granularity = UINT64_C(1) << bits,
                                              .actions = actions,
                                              .n_actions = n};
    arm(r, fail);
    int ret = q2_bitmap_change(&r->stage.img->disk, &request, &err);
    bool failed = !r->lies && q2_fault_n_failed(r->f->fault) > 0;
    arm(r, false);
    r->n_failed += failed;
    return failed || done == (ret == 0) || fails(r, r->what, &err);
}

static bool reopen(struct run *r)
{
    struct q2_error err = Q2_ERROR_INIT;
    const struct op op = {.kind = OP_REOPEN};
    return op_image(&r->stage, &op, &err) == 0 || fails(r, "reopen", &err);
}

// After a failure nobody knows which it is, but it is one of the two.
static bool look_again(struct run *r)
{
    if (!judge_cut(r, r->f->memory))
        return false;
    fixture_close(r->stage.img);
    r->stage.img = NULL;
    struct q2_error ignored = Q2_ERROR_INIT;
    if (!reopen(r))
        return false;
    q2_io_flush(r->f->fault, &ignored); // it stays what it is now
    for (unsigned i = 0; i < N_NAMES; i++) {
        struct q2_live_bitmap *b = q2_bitmaps_find(r->stage.img, names[i]);
        struct seen seen = {.set = calloc(1, n_sectors(r)), .n = n_sectors(r)};
        struct q2_error err = Q2_ERROR_INIT;
        if (!seen.set || (b && q2_bits_each(r->stage.img, b, take_run, &seen, &err) < 0))
            give_up("no memory");
        bool is_now = b ? is_track(r, b, seen.set, &r->now[i], r->stage.model.bytes)
                        : !r->now[i].exists;
        if (!is_now)
            track_copy(r, &r->old[i], &r->now[i]);
        free(seen.set);
    }
    return true;
}

static bool session(struct run *r)
{
    struct cuts cuts = {
        .fault = r->f->fault, .random = r->random | 1, .judge = judge_cut, .opaque = r};
    unsigned n_failed = r->n_failed;
    arm(r, false);
    r->wrote = false;
    bool good = below(r, 2) == 0 ? write_some(r)
                                 : change_bitmaps(r, !r->lies && below(r, 4) == 0);
    if (getenv("Q2_VERBOSE"))
        printf("# %s%s\n", r->what, r->n_failed > n_failed ? ", fails" : "");
    if (r->n_failed > n_failed)
        good = good && look_again(r);
    else
        good = good && reopen(r) && cuts_try(&cuts, MAX_CALLS);
    r->n_sessions++;
    size_t used = strlen(r->why);
    if (!good)
        snprintf(r->why + used, sizeof(r->why) - used,
                 " [%.200s; cut behind call %zu, %s]", r->what, cuts.call,
                 cuts.kept ? cuts.kept : "-");
    stage_flushed(&r->stage);
    q2_fault_forget(r->f->fault);
    for (unsigned i = 0; i < N_NAMES; i++)
        track_copy(r, &r->now[i], &r->old[i]);
    return good;
}

// --- resizing ------------------------------------------------------------------------

// Of a disk whose size has changed a bitmap says the same of what was there, and nothing
// of what is new.
static bool is_resized(const struct run *r, const struct q2_live_bitmap *b,
                       const uint8_t *set, const struct track *t)
{
    size_t n = (size_t)(b->disk_size / SECTOR),
           grain = (size_t)1 << (t->granularity_bits - 9);
    size_t common = n < n_sectors(r) ? n : n_sectors(r);
    if (!t->exists || memcmp(set, t->set, common) != 0)
        return false;
    for (size_t i = (common + grain - 1) / grain * grain; i < n; i++) {
        if (set[i])
            return false;
    }
    return true;
}

static bool judge_resized(void *opaque, struct q2_io *state)
{
    struct run *r = opaque;
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_image *img;
    if (!judge_structure(&r->judge, state))
        return !snprintf(r->why, sizeof(r->why), "%.2000s", r->judge.why);
    if (fixture_open(r->f, state, false, &img, &err) < 0)
        return fails(r, "open", &err);
    bool good = q2_bitmaps_load(img, &err) == 0 || fails(r, "load", &err);
    struct seen seen = {.n = (size_t)img->disk.size / SECTOR};
    for (unsigned i = 0; i < N_NAMES && good; i++) {
        struct q2_live_bitmap *b = q2_bitmaps_find(img, names[i]);
        seen.set = calloc(1, seen.n);
        good = (b != NULL) == r->now[i].exists;
        if (good && b && !b->inconsistent)
            good = seen.set && q2_bits_each(img, b, take_run, &seen, &err) == 0 &&
                   is_resized(r, b, seen.set, &r->now[i]);
        free(seen.set);
        if (!good)
            snprintf(r->why, sizeof(r->why),
                     "bitmap '%s' of a disk of %zu sectors: %.500s", names[i], seen.n,
                     err.message);
    }
    fixture_close(img);
    return good;
}

// The model does not follow: this is the last thing that is done to the disk.
static bool resize(struct run *r)
{
    struct cuts cuts = {.fault = r->f->fault,
                        .random = r->random | 1,
                        .judge = judge_resized,
                        .opaque = r};
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_disk *d = &r->stage.img->disk;
    uint64_t size = r->stage.model.n_bytes;
    size = below(r, 2) ? size / 1024 / 3 * 512 : size + size / 1024 / 3 * 512;
    if (q2_disk_resize(d, size, &err) < 0 || q2_disk_finish(d, &err) < 0)
        return fails(r, "resize", &err);
    if (cuts_try(&cuts, MAX_CALLS) && judge_resized(r, r->f->memory))
        return true;
    size_t used = strlen(r->why);
    snprintf(r->why + used, sizeof(r->why) - used,
             " [resize to %" PRIu64 "; cut behind call %zu, %s]", size, cuts.call,
             cuts.kept ? cuts.kept : "-");
    return false;
}

static void make_tracks(struct run *r, struct track *tracks)
{
    for (unsigned i = 0; i < N_NAMES; i++) {
        tracks[i].set = calloc(1, n_sectors(r));
        tracks[i].base = calloc(1, r->stage.model.n_bytes);
        if (!tracks[i].set || !tracks[i].base)
            give_up("no memory");
    }
}

static void clear_tracks(struct track *tracks)
{
    for (unsigned i = 0; i < N_NAMES; i++) {
        free(tracks[i].set);
        free(tracks[i].base);
    }
}

static bool at_the_end(struct run *r)
{
    if (judge_clean(&r->judge, r->f->memory, r->n_failed > 0))
        return judge_bitmaps(r, r->f->memory);
    return !snprintf(r->why, sizeof(r->why), "at the end: %.2000s", r->judge.why);
}

static bool run_one(struct fixture *f, uint64_t seed, bool lies)
{
    struct run r = {.f = f, .random = seed * 2 + 1, .lies = lies};
    stage_open(&r.stage, f, seed);
    r.stage.most = 24 << 10;
    judge_new(&r.judge, f, &r.stage);
    make_tracks(&r, r.old);
    make_tracks(&r, r.now);
    bool good = true;
    for (unsigned i = 0; i < N_SESSIONS && good; i++)
        good = session(&r);
    good = good && at_the_end(&r) && resize(&r);
    if (!lies) {
        ok(good,
           "%s: %u sessions, %u failed, %" PRIu64 " states, %" PRIu64
           " with leaks, %u bitmaps in use",
           f->name, r.n_sessions, r.n_failed, r.judge.n_states, r.judge.n_leaking,
           r.n_in_use);
        if (!good)
            printf("#   %s\n", r.why);
    }
    judge_clear(&r.judge);
    stage_close(&r.stage);
    clear_tracks(r.old);
    clear_tracks(r.now);
    return good;
}

int main(void)
{
    static const struct recipe recipes[] = {
        {.version = 3, .cluster_bits = 9, .refcount_order = 4, .size = 192 << 10},
        {.version = 3,
         .cluster_bits = 9,
         .refcount_order = 0,
         .size = 192 << 10,
         .backing = true},
        {.version = 3,
         .cluster_bits = 12,
         .refcount_order = 5,
         .size = 256 << 10,
         .lazy_refcounts = true},
        {.version = 3, .cluster_bits = 16, .refcount_order = 4, .size = 1 << 20},
        {.version = 3,
         .cluster_bits = 14,
         .refcount_order = 4,
         .size = 384 << 10,
         .extended_l2 = true},
        {.version = 3,
         .cluster_bits = 12,
         .refcount_order = 4,
         .size = 256 << 10,
         .data_file = true},
        // Bitmaps of several clusters.
        {.version = 3, .cluster_bits = 9, .refcount_order = 4, .size = 4500 << 10},
    };
    const struct play_matrix matrix = {.recipes = recipes,
                                       .n_recipes = sizeof(recipes) / sizeof(*recipes),
                                       .max_record = MAX_RECORD,
                                       .runtime = 64 + 7,
                                       .run = run_one};
    ok(play_matrix(&matrix), "flushes that do nothing are noticed");
    return done_testing();
}
