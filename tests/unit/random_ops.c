// SPDX-License-Identifier: MIT
// Random operations on images of all kinds, with a plain byte array as the model: every
// read agrees with it, and at the end check finds nothing.
//
//   random_ops                                     images made here
//   random_ops [-n OPERATIONS] -o FOLDER IMAGE...  images from files, with what is in
//                      them; FOLDER gets each as it is at the end, and NAME.raw, the
//                      model
//
// The environment's Q2_SEED plays other operations, and the same ones again.
#include <errno.h>

#include "test.h"
#include "tests/crash/judge.h"

#define RECORD_NOTHING 0

static uint64_t seed = 1;
static uint64_t shift; // of the seed, for one more run

static bool all_agrees(struct stage *s)
{
    struct op all = {.kind = OP_READ, .n_bytes = s->model.n_bytes, .number = s->n_ops};
    struct q2_error err = Q2_ERROR_INIT;
    return op_image(s, &all, &err) == 0 ||
           !snprintf(s->why, sizeof(s->why), "%.1000s", err.message);
}

// False: it failed, and s->why says how.
static bool play(struct stage *s, unsigned n_ops)
{
    struct q2_error err = Q2_ERROR_INIT;
    const bool loud = getenv("Q2_VERBOSE") != NULL;
    for (unsigned i = 0; i < n_ops; i++) {
        struct op op = op_random(s);
        if (loud)
            printf("# %s\n", op_text(&op));
        op_model(s, &op);
        bool good = op_image(s, &op, &err) == 0;
        if (!good)
            snprintf(s->why, sizeof(s->why), "%s: %.900s", op_text(&op), err.message);
        else if (i % 50 == 49)
            good = all_agrees(s);
        if (!good)
            return false;
    }
    return true;
}

static bool finish(struct stage *s)
{
    struct q2_error err = Q2_ERROR_INIT;
    if (q2_disk_finish(&s->img->disk, &err) < 0)
        return !snprintf(s->why, sizeof(s->why), "finish: %.900s", err.message);
    struct judge j;
    judge_new(&j, s->f, s);
    bool good = judge_clean(&j, s->f->memory, false);
    if (!good)
        snprintf(s->why, sizeof(s->why), "at the end: %.900s", j.why);
    judge_clear(&j);
    return good;
}

static void save(const struct stage *s, const char *folder)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", folder, s->f->name);
    fixture_save(s->f, s->f->memory, path);
    snprintf(path, sizeof(path), "%s/%s.raw", folder, s->f->name);
    save_bytes(path, s->model.bytes, s->model.n_bytes);
}

static void run(struct fixture *f, uint64_t this_seed, unsigned n_ops, const char *folder)
{
    struct stage s;
    stage_open(&s, f, this_seed);
    bool good = play(&s, n_ops) && finish(&s);
    ok(good, "%s", f->name);
    if (!good)
        printf("#   Q2_SEED=%" PRIu64 ": %s\n", seed, s.why);
    if (folder)
        save(&s, folder);
    stage_close(&s);
}

static void run_recipe(const struct recipe *r, unsigned options, unsigned n_ops)
{
    struct fixture f;
    fixture_make(&f, r, RECORD_NOTHING);
    fixture_choose_runtime(&f, options);
    run(&f, seed + shift + r->cluster_bits * 64 + r->refcount_order * 4 + r->version,
        n_ops, NULL);
    fixture_clear(&f);
}

// Enough clusters for several L2 tables and refcount blocks where these are small.
static uint64_t disk_size(unsigned cluster_bits)
{
    if (cluster_bits < 12)
        return (UINT64_C(5) << 19) + 1536;
    return cluster_bits < 16 ? (UINT64_C(4) << 20) + 512
                             : UINT64_C(24) << (cluster_bits - 1);
}

static void run_data_files(void)
{
    static const unsigned sizes[] = {9, 12, 16};
    for (unsigned k = 0; k < 6; k++) {
        const struct recipe r = {.version = 3,
                                 .cluster_bits = sizes[k / 2],
                                 .refcount_order = 4,
                                 .size = disk_size(sizes[k / 2]),
                                 .lazy_refcounts = k == 4,
                                 .backing = k == 2,
                                 .extended_l2 = k > 3 && seed % 2 == 0,
                                 .data_file = true,
                                 .data_file_raw = k % 2 == 1};
        run_recipe(&r, (unsigned)(seed + shift + k) * 37 % 128, 400);
    }
}

static void run_matrix(void)
{
    static const unsigned sizes[] = {9, 10, 12, 14, 16};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        unsigned bits = sizes[i];
        struct recipe r = {.cluster_bits = bits, .size = disk_size(bits)};
        for (unsigned k = 0; k < 9; k++) {
            r.version = k < 7 ? 3 : 2;
            r.refcount_order = k < 7 ? (k + bits) % 7 : 4;
            r.backing = k % 2 == 1;
            r.lazy_refcounts = k % 3 == 1 && r.version == 3;
            r.encryption = k % 4 == 2   ? Q2_CRYPT_LUKS
                           : k % 4 == 3 ? Q2_CRYPT_AES
                                        : Q2_CRYPT_NONE;
            run_recipe(&r, 0, 400);
            run_recipe(&r, (unsigned)(seed + shift + i + k) * 37 % 128, 400);
        }
    }
    struct recipe parted = {.version = 3, .cluster_bits = 14, .extended_l2 = true};
    for (unsigned k = 0; k < 4; k++) {
        parted.cluster_bits = 14 + k % 3;
        parted.size = (UINT64_C(20) << parted.cluster_bits) + 512;
        parted.refcount_order = (k + 3) % 7;
        parted.backing = k % 2 == 1;
        parted.lazy_refcounts = k == 2;
        run_recipe(&parted, 0, 400);
        run_recipe(&parted, (unsigned)(seed + shift + k) * 37 % 128, 400);
    }
    run_data_files();
    const struct recipe large = {.version = 3,
                                 .cluster_bits = 21,
                                 .refcount_order = 4,
                                 .size = UINT64_C(13) << 20,
                                 .backing = true};
    run_recipe(&large, 0, 60);
}

int main(int argc, char **argv)
{
    unsigned n_ops = 1000;
    const char *folder = NULL;
    if (getenv("Q2_SEED"))
        seed = strtoull(getenv("Q2_SEED"), NULL, 0);
    printf("# Q2_SEED=%" PRIu64 "\n", seed);
    for (unsigned k = 0; k < play_runs(1) && argc == 1; k++, shift += 1000)
        run_matrix();
    for (int i = 1; i < argc; i++) {
        struct fixture f;
        if (strcmp(argv[i], "-n") == 0 && i + 1 < argc) {
            n_ops = (unsigned)strtoul(argv[++i], NULL, 0);
        } else if (strcmp(argv[i], "-o") == 0 && i + 1 < argc) {
            folder = argv[++i];
        } else {
            fixture_load(&f, argv[i], RECORD_NOTHING);
            run(&f, seed + (uint64_t)i * 1000, n_ops, folder);
            fixture_clear(&f);
        }
    }
    return done_testing();
}
