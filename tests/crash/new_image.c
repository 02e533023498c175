// SPDX-License-Identifier: MIT
// A new image is filled, and the power goes behind any write: what is there is no image,
// or it is whole: sound, and with everything that was put into it.
#include "tests/crash/judge.h"
#include "tests/unit/test.h"

#include "image/probe.h"
#include "io/memory.h"
#include "ops/convert.h"
#include "ops/create.h"

#define MAX_RECORD (UINT32_C(64) << 20)

struct run {
    struct fixture f;
    struct stage stage; // of the finished image
    struct judge judge;
    uint64_t random;
    char backing_name[1024]; // a long one: the header needs more than a sector
    uint64_t n_states, n_whole;
    char why[4096];
};

enum choice { NONE, ALL, LAST, HALF, N_CHOICES };

struct keeping {
    enum choice choice;
    size_t last;
    uint64_t *random;
};

static bool keep(void *opaque, size_t call, uint64_t sector)
{
    struct keeping *k = opaque;
    switch (k->choice) {
    case NONE:
        return false;
    case ALL:
        return true;
    case LAST: // and of it the first sector alone
        return call == k->last ? sector == 0 : true;
    case HALF:
    case N_CHOICES:
        break;
    }
    return test_random(k->random) >> 63;
}

static void must(int ret, const struct q2_error *err)
{
    if (ret < 0)
        give_up("%s", err->message);
}

// The image, as convert makes it: filled, then published.
static void make(struct run *r, const struct recipe *recipe)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_image *img;
    struct q2_header header = {
        .version = recipe->version,
        .cluster_bits = recipe->cluster_bits,
        .size = recipe->size,
        .refcount_order = recipe->refcount_order,
        .header_length = recipe->version == 2 ? Q2_HEADER_V2_BYTES : Q2_HEADER_V3_BYTES,
        .backing_file = recipe->backing ? strdup(r->backing_name) : NULL,
        .backing_format = recipe->backing ? strdup("raw") : NULL,
    };
    const struct q2_crypt_options *crypt = fixture_encryption(&r->f, recipe);
    if (crypt)
        q2_crypt_announce(crypt, &header);
    must(q2_image_new(r->f.fault, &header, &img, &err), &err);
    if (crypt)
        must(q2_crypt_make(img, crypt, &err), &err);
    img->disk.path = strdup("image");
    size_t size = (size_t)recipe->size;
    uint8_t *buf = malloc(size);
    for (size_t i = 0; i < size; i++)
        buf[i] = (uint8_t)(i / 512 % 5 ? i / 512 % 251 : 0);
    must(q2_disk_write(&img->disk, 0, buf, size, &err), &err);
    must(q2_create_publish(&img->disk, &err), &err);
    free(buf);
    fixture_close(img);
}

static bool same_name(const struct run *r, struct q2_io *state)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_image *img;
    if (!r->f.backing || q2_image_open(state, false, true, &img, &err) < 0)
        return !r->f.backing;
    bool same = strcmp(img->header.backing_file, r->backing_name) == 0;
    img->disk.ops->release(&img->disk);
    return same;
}

static bool try_state(struct run *r, size_t n_calls, enum choice choice)
{
    struct keeping k = {.choice = choice, .last = n_calls - 1, .random = &r->random};
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *state;
    uint8_t start[512];
    must(q2_fault_state(r->f.fault, n_calls, keep, &k, &state, &err), &err);
    must(q2_io_read(state, 0, start, sizeof(start), &err), &err);
    r->n_states++;
    bool good = true;
    if (q2_probe_magic(start, sizeof(start))) {
        r->n_whole++;
        good = judge_clean(&r->judge, state, false);
        if (good && !same_name(r, state)) {
            snprintf(r->judge.why, sizeof(r->judge.why), "another backing file");
            good = false;
        }
    }
    if (!good)
        snprintf(r->why, sizeof(r->why), "call %zu, choice %d: %.2000s", n_calls - 1,
                 choice, r->judge.why);
    q2_io_close(state);
    return good;
}

static void run(const struct recipe *recipe)
{
    struct run r = {.random = 4711};
    struct q2_error err = Q2_ERROR_INIT;
    size_t n;
    bool good = true;
    fixture_make(&r.f, recipe, MAX_RECORD);
    // What fixture_make made is not wanted, but its backing file is.
    q2_io_close(r.f.fault);
    q2_io_close(r.f.memory);
    must(q2_memory_open("image", NULL, 0, &r.f.memory, &err), &err);
    must(q2_fault_open(r.f.memory, MAX_RECORD, &r.f.fault, &err), &err);
    memset(r.backing_name, 'n', recipe->cluster_bits > 9 ? 1000 : 60);
    make(&r, recipe);
    q2_fault_calls(r.f.fault, &n);
    stage_open(&r.stage, &r.f, 1);
    judge_new(&r.judge, &r.f, &r.stage);
    for (size_t i = 1; i <= n && good; i++)
        for (enum choice c = 0; c < N_CHOICES && good; c++)
            good = try_state(&r, i, c) && (c != HALF || try_state(&r, i, c));
    ok(good && r.n_whole > 0 && r.n_whole < r.n_states,
       "%s: %" PRIu64 " states, %" PRIu64 " of them whole", r.f.name, r.n_states,
       r.n_whole);
    if (!good)
        printf("#   %s\n", r.why);
    judge_clear(&r.judge);
    stage_close(&r.stage);
    fixture_clear(&r.f);
}

int main(void)
{
    static const struct recipe recipes[] = {
        {.version = 3, .cluster_bits = 9, .refcount_order = 4, .size = 64 << 10},
        {.version = 3,
         .cluster_bits = 12,
         .refcount_order = 4,
         .size = 256 << 10,
         .backing = true},
        {.version = 2,
         .cluster_bits = 12,
         .refcount_order = 4,
         .size = 256 << 10,
         .backing = true},
        {.version = 3, .cluster_bits = 16, .refcount_order = 0, .size = 2 << 20},
        {.version = 3,
         .cluster_bits = 12,
         .refcount_order = 4,
         .size = 256 << 10,
         .encryption = Q2_CRYPT_LUKS},
    };
    for (size_t i = 0; i < sizeof(recipes) / sizeof(*recipes); i++)
        run(&recipes[i]);
    return done_testing();
}
