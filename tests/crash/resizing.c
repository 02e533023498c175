// SPDX-License-Identifier: MIT
// A disk is made longer and shorter, and the power goes behind any write of it: the disk
// has its old size or the new one, what both have in common is as it was, what is new
// reads as zeros, and the image is sound (or dirty, and healed without a loss).
//
// The environment's Q2_SEED plays other sizes and writes, and the same ones again.
#include "tests/crash/judge.h"
#include "tests/crash/play.h"
#include "tests/unit/test.h"

#include "base/checked.h"
#include "image/data_file.h"
#include "ops/resize.h"

#define MAX_RECORD (UINT32_C(64) << 20)
#define N_STEPS 24U

struct run {
    struct fixture f;
    struct q2_image *img;
    uint64_t random;
    uint8_t *bytes; // what the guest reads; room for the largest size
    size_t size, most;
    uint64_t n_states;
    char why[4096];
};

enum choice { NONE, ALL, HALF, HALF_AGAIN, N_CHOICES };

struct keeping {
    enum choice choice;
    uint64_t *random;
};

static bool keep(void *opaque, size_t call, uint64_t sector)
{
    struct keeping *k = opaque;
    (void)call;
    (void)sector;
    return k->choice == ALL || (k->choice != NONE && test_random(k->random) >> 63);
}

// A data file is never shorter than the disk, and a raw one is what the guest reads.
static bool check_data_file(struct run *r, struct q2_image *img, const uint8_t *bytes)
{
    struct q2_error err = Q2_ERROR_INIT;
    uint64_t length;
    size_t size = (size_t)img->disk.size;
    if (!q2_image_has_data_file(img))
        return true;
    uint8_t *raw = calloc(1, r->most);
    if (!raw || q2_io_get_size(img->disk.data, &length, &err) < 0 ||
        q2_io_read(img->disk.data, 0, raw, size, &err) < 0)
        give_up("%s", err.message);
    bool good =
        length >= size && (!q2_data_file_is_raw(img) || memcmp(raw, bytes, size) == 0);
    if (!good)
        snprintf(r->why, sizeof(r->why),
                 "data file (%" PRIu64 " bytes) and disk (%zu bytes) differ", length,
                 size);
    free(raw);
    return good;
}

// The state's disk has one of the two sizes, and the content that goes with it.
static bool read_state(struct run *r, struct q2_io *state, uint64_t new_size)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_image *img;
    if (fixture_open(&r->f, state, false, &img, &err) < 0)
        return !snprintf(r->why, sizeof(r->why), "does not open: %.500s", err.message);
    size_t size = q2_to_size(img->disk.size), common = q2_min_size(size, r->size);
    uint8_t *buf = calloc(1, r->most);
    bool good = size == r->size || size == new_size;
    if (!good)
        snprintf(r->why, sizeof(r->why), "%zu bytes, not %zu or %" PRIu64, size, r->size,
                 new_size);
    if (good && q2_disk_read(&img->disk, 0, buf, size, &err) < 0)
        good = !snprintf(r->why, sizeof(r->why), "%.500s", err.message);
    for (size_t i = 0; i < size && good; i++)
        if (buf[i] != (i < common ? r->bytes[i] : 0))
            good = !snprintf(r->why, sizeof(r->why),
                             "guest byte 0x%zx reads %02x (disk of %zu bytes, was %zu)",
                             i, buf[i], size, r->size);
    good = good && check_data_file(r, img, buf);
    free(buf);
    fixture_close(img);
    return good;
}

static bool try_state(struct run *r, struct judge *j, size_t n_calls, enum choice choice,
                      uint64_t new_size)
{
    struct keeping k = {.choice = choice, .random = &r->random};
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *state;
    if (q2_fault_state(r->f.fault, n_calls, keep, &k, &state, &err) < 0)
        give_up("%s", err.message);
    r->n_states++;
    bool good = judge_structure(j, state);
    if (!good)
        snprintf(r->why, sizeof(r->why), "%.2000s", j->why);
    good = good && read_state(r, state, new_size);
    q2_io_close(state);
    return good;
}

static bool try_all(struct run *r, struct judge *j, uint64_t new_size)
{
    size_t n, used;
    q2_fault_calls(r->f.fault, &n);
    for (size_t i = 1; i <= n; i++)
        for (enum choice c = 0; c < N_CHOICES; c++)
            if (!try_state(r, j, i, c, new_size)) {
                used = strlen(r->why);
                snprintf(r->why + used, sizeof(r->why) - used, " [call %zu, choice %d]",
                         i - 1, c);
                return false;
            }
    return true;
}

// Something to lose, here and there, and durable.
static int fill_some(struct run *r, struct q2_error *err)
{
    int ret = 0;
    for (unsigned i = 0; i < 4 && ret == 0; i++) {
        size_t at = (size_t)(test_random(&r->random) % r->size);
        size_t n = (size_t)(1 + test_random(&r->random) % (r->most / 6));
        n = q2_min_size(n, r->size - at);
        if (i == 3) // up to the end
            at = r->size - n;
        memset(r->bytes + at, (int)(1 + test_random(&r->random) % 255), n);
        ret = q2_disk_write(&r->img->disk, at, r->bytes + at, n, err);
    }
    return ret < 0 ? ret : q2_disk_flush(&r->img->disk, err);
}

static bool step(struct run *r, struct judge *j)
{
    struct q2_error err = Q2_ERROR_INIT;
    size_t n;
    size_t new_size = (size_t)(1 + test_random(&r->random) % (r->most / 512)) * 512;
    if (fill_some(r, &err) < 0)
        return !snprintf(r->why, sizeof(r->why), "write: %.500s", err.message);
    q2_fault_forget(r->f.fault);
    if (q2_disk_resize(&r->img->disk, new_size, &err) < 0 ||
        q2_disk_flush(&r->img->disk, &err) < 0)
        return !snprintf(r->why, sizeof(r->why), "resize: %.500s", err.message);
    if (!try_all(r, j, new_size))
        return false;
    if (new_size > r->size)
        memset(r->bytes + r->size, 0, new_size - r->size);
    r->size = new_size;
    q2_fault_calls(r->f.fault, &n);
    return try_state(r, j, n, NONE, new_size); // flushed: the old size does not come back
}

static bool end(struct run *r, struct judge *j)
{
    struct q2_error err = Q2_ERROR_INIT;
    if (q2_disk_finish(&r->img->disk, &err) < 0)
        return !snprintf(r->why, sizeof(r->why), "finish: %.500s", err.message);
    bool good = judge_structure(j, r->f.memory) && j->leaks == 0;
    if (!good)
        snprintf(r->why, sizeof(r->why), "at the end: %.500s", j->why);
    return good && read_state(r, r->f.memory, r->size);
}

static void run(const struct recipe *recipe, unsigned options, uint64_t seed)
{
    struct run r = {.random = seed, .most = 2 * (size_t)recipe->size};
    struct q2_error err = Q2_ERROR_INIT;
    struct judge j = {.f = &r.f, .repair_every = 1};
    bool good = true;
    fixture_make(&r.f, recipe, MAX_RECORD);
    fixture_choose_runtime(&r.f, options);
    r.bytes = calloc(1, r.most);
    if (fixture_open(&r.f, r.f.fault, true, &r.img, &err) < 0)
        give_up("%s", err.message);
    r.size = (size_t)r.img->disk.size;
    if (q2_disk_read(&r.img->disk, 0, r.bytes, r.size, &err) < 0)
        give_up("%s", err.message);
    unsigned i = 0;
    for (; i < N_STEPS && good; i++)
        good = step(&r, &j);
    good = good && end(&r, &j);
    ok(good, "%s: %" PRIu64 " states", r.f.name, r.n_states);
    if (!good)
        printf("#   Q2_SEED=%" PRIu64 ", step %u: %s\n", seed, i, r.why);
    fixture_close(r.img);
    free(r.bytes);
    fixture_clear(&r.f);
}

int main(void)
{
    static const struct recipe recipes[] = {
        {.version = 3, .cluster_bits = 9, .refcount_order = 4, .size = 128 << 10},
        {.version = 3,
         .cluster_bits = 10,
         .refcount_order = 4,
         .size = 128 << 10,
         .backing = true},
        {.version = 2,
         .cluster_bits = 9,
         .refcount_order = 4,
         .size = 128 << 10,
         .backing = true},
        {.version = 2, .cluster_bits = 12, .refcount_order = 4, .size = 256 << 10},
        {.version = 3,
         .cluster_bits = 9,
         .refcount_order = 5,
         .size = 128 << 10,
         .lazy_refcounts = true},
        {.version = 3,
         .cluster_bits = 14,
         .refcount_order = 4,
         .size = 512 << 10,
         .extended_l2 = true,
         .backing = true},
        {.version = 3,
         .cluster_bits = 10,
         .refcount_order = 4,
         .size = 128 << 10,
         .backing = true,
         .data_file = true},
        {.version = 3,
         .cluster_bits = 9,
         .refcount_order = 4,
         .size = 128 << 10,
         .data_file = true,
         .data_file_raw = true},
        {.version = 3,
         .cluster_bits = 9,
         .refcount_order = 4,
         .size = 64 << 10,
         .encryption = Q2_CRYPT_LUKS,
         .backing = true},
    };
    play_recipes(recipes, sizeof(recipes) / sizeof(*recipes), run);
    return done_testing();
}
