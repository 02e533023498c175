// SPDX-License-Identifier: MIT
// Several threads write to one image, each to clusters of its own, which lie between
// those of the others; all may read anything. Nothing of one is lost by another, also
// where a write fails now and then and is tried again.
#include "tests/crash/judge.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <pthread.h>

#include "base/checked.h"

#define N_THREADS 4U

struct team {
    struct stage stage;
    struct q2_io *fault;
    unsigned n_rounds;
    bool faults;
};

struct worker {
    struct team *team;
    pthread_t thread;
    unsigned number;
    uint64_t random;
    uint8_t *buf;
    uint64_t n_failed;
    char why[512];
};

// A part of a cluster that is this worker's, with a byte of its own kind.
static int write_once(struct worker *w, struct q2_error *err)
{
    struct q2_image *img = w->team->stage.img;
    struct model *m = &w->team->stage.model;
    uint64_t cluster = img->cluster_size, n = m->n_bytes / cluster / N_THREADS;
    uint64_t at = (test_random(&w->random) % n * N_THREADS + w->number) * cluster;
    uint64_t skip = test_random(&w->random) % 2 ? 0 : test_random(&w->random) % cluster;
    size_t n_bytes = (size_t)(1 + test_random(&w->random) % (cluster - skip));
    bool packed =
        skip == 0 && test_random(&w->random) % 4 == 0 && !w->team->stage.no_packed;
    if (packed)
        n_bytes = (size_t)cluster;
    memset(w->buf, (int)(1 + test_random(&w->random) % 255), n_bytes);
    int ret = 0;
    for (unsigned tries = 0; tries < 100; tries++) {
        ret = packed ? q2_disk_write_compressed(&img->disk, at, w->buf, n_bytes, err)
                     : q2_disk_write(&img->disk, at + skip, w->buf, n_bytes, err);
        if (ret != -ENOSPC)
            break;
        w->n_failed++;
    }
    memcpy(m->bytes + at + skip, w->buf, n_bytes);
    return ret;
}

// Some cluster, anyone's: it can be read.
static int read_once(struct worker *w, struct q2_error *err)
{
    struct q2_image *img = w->team->stage.img;
    size_t cluster = (size_t)img->cluster_size;
    uint64_t at = test_random(&w->random) % (img->disk.size / cluster) * cluster;
    return q2_disk_read(&img->disk, at, w->buf, cluster, err);
}

static void *work(void *opaque)
{
    struct worker *w = opaque;
    struct q2_error err = Q2_ERROR_INIT;
    int ret = 0;
    for (unsigned i = 0; i < w->team->n_rounds && ret == 0; i++) {
        ret = write_once(w, &err);
        if (ret == 0 && i % 4 == 0)
            ret = read_once(w, &err);
    }
    if (ret < 0)
        snprintf(w->why, sizeof(w->why), "%.500s", err.message);
    return NULL;
}

static bool run_workers(struct team *t, uint64_t *n_failed, char *why, size_t room)
{
    struct worker workers[N_THREADS];
    const struct q2_fault_rule none_left = {
        .n_pass = 300, .code = -ENOSPC, .kinds = 1U << Q2_FAULT_WRITE};
    bool good = true;
    if (t->faults)
        q2_fault_arm(t->fault, &none_left);
    for (unsigned i = 0; i < N_THREADS; i++) {
        workers[i] = (struct worker){
            .team = t, .number = i, .random = 77 + i, .buf = malloc(2 << 20)};
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0)
            give_up("no thread");
    }
    for (unsigned i = 0; i < N_THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        *n_failed += workers[i].n_failed;
        if (workers[i].why[0]) {
            snprintf(why, room, "worker %u: %s", i, workers[i].why);
            good = false;
        }
        free(workers[i].buf);
    }
    return good;
}

static void run(const struct recipe *r, unsigned options, bool faults)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct fixture f;
    struct team t = {.n_rounds = 400, .faults = faults};
    struct judge j;
    uint64_t n_failed = 0;
    char why[1024] = "";
    fixture_make(&f, r, 0);
    fixture_choose_runtime(&f, options);
    stage_open(&t.stage, &f, 1);
    t.fault = f.fault;
    judge_new(&j, &f, &t.stage);
    bool good = run_workers(&t, &n_failed, why, sizeof(why));
    if (good && q2_disk_finish(&t.stage.img->disk, &err) < 0)
        good = !snprintf(why, sizeof(why), "finish: %.900s", err.message);
    if (good && !judge_clean(&j, f.memory, false))
        good = !snprintf(why, sizeof(why), "%.1000s", j.why);
    ok(good, "%s%s", f.name, faults ? ", with an error" : "");
    if (!good)
        printf("#   %s\n", why);
    if (faults)
        is_u64(q2_fault_n_failed(f.fault), 1, "one write failed");
    // Nobody else, where a reader's try to have a full cache written back failed.
    ok(n_failed <= faults, "and one worker at most was told");
    judge_clear(&j);
    stage_close(&t.stage);
    fixture_clear(&f);
}

int main(void)
{
    static const struct recipe recipes[] = {
        {.version = 3, .cluster_bits = 9, .refcount_order = 4, .size = 512 << 10},
        {.version = 3,
         .cluster_bits = 9,
         .refcount_order = 6,
         .size = 2 << 20,
         .backing = true},
        {.version = 2,
         .cluster_bits = 12,
         .refcount_order = 4,
         .size = 2 << 20,
         .backing = true},
        {.version = 3,
         .cluster_bits = 16,
         .refcount_order = 4,
         .size = 8 << 20,
         .lazy_refcounts = true},
        {.version = 3,
         .cluster_bits = 14,
         .refcount_order = 4,
         .size = 2 << 20,
         .extended_l2 = true,
         .backing = true},
        {.version = 3,
         .cluster_bits = 12,
         .refcount_order = 4,
         .size = 2 << 20,
         .backing = true,
         .data_file = true},
    };
    for (size_t i = 0; i < sizeof(recipes) / sizeof(*recipes); i++) {
        run(&recipes[i], 0, false);
        run(&recipes[i], 1, false);
        run(&recipes[i], 7, true);
    }
    return done_testing();
}
