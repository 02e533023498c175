// SPDX-License-Identifier: MIT
// A guest that rewrites a region over and over, with discards between: the image file
// does not grow beyond what its live data need and a bound that does not depend on how
// often.
#include "tests/crash/fixture.h"
#include "tests/unit/test.h"

#include "base/checked.h"
#include "ops/create.h"

#define ROUNDS 100U
#define PACKED_ROUNDS 30U // compressing takes its time

enum style { PLAIN, DISCARDED, PACKED, PACKED_OVER, SPARSE, N_STYLES };

static const char *const style_names[N_STYLES] = {
    "rewritten in place", "discarded and rewritten", "discarded and compressed anew",
    "compressed over itself", "parts discarded and rewritten"};

struct play {
    struct fixture f;
    struct q2_image *img;
    enum style style;
    uint64_t start, n_bytes; // the region
    uint8_t *buf;            // a cluster
    uint64_t random;
};

// Never the same; all but a quarter compresses well.
static void fill(struct play *p)
{
    for (size_t i = 0; i < p->img->cluster_size; i += 8) {
        uint64_t word = i % 32 == 0 ? test_random(&p->random) : i / 128;
        memcpy(p->buf + i, &word, 8);
    }
}

static int put_cluster(struct play *p, uint64_t guest_offset, struct q2_error *err)
{
    fill(p);
    if (p->style == PACKED || p->style == PACKED_OVER)
        return q2_disk_write_compressed(&p->img->disk, guest_offset, p->buf,
                                        p->img->cluster_size, err);
    return q2_disk_write(&p->img->disk, guest_offset, p->buf, p->img->cluster_size, err);
}

// All of the region, or (sparse) of every third cluster a run by chance.
static int one_round(struct play *p, struct q2_error *err)
{
    uint64_t cluster = p->img->cluster_size, at = p->start;
    bool discards = p->style == DISCARDED || p->style == PACKED || p->style == SPARSE;
    int ret = 0;
    while (at < p->start + p->n_bytes && ret == 0) {
        uint64_t n =
            p->style == SPARSE ? (1 + test_random(&p->random) % 5) * cluster : p->n_bytes;
        n = q2_min_u64(n, p->start + p->n_bytes - at);
        if (discards)
            ret = q2_disk_discard(&p->img->disk, at, n, err);
        for (uint64_t i = 0; i < n && ret == 0; i += cluster)
            ret = put_cluster(p, at + i, err);
        at += n + (p->style == SPARSE ? 3 * cluster : 0);
    }
    return ret;
}

static uint64_t file_size(struct play *p)
{
    struct q2_error err = Q2_ERROR_INIT;
    uint64_t size = 0;
    q2_io_get_size(p->f.memory, &size, &err);
    return size;
}

static void start(struct play *p, enum style style)
{
    struct q2_error err = Q2_ERROR_INIT;
    p->style = style;
    p->random = 4711;
    if (fixture_open(&p->f, p->f.fault, true, &p->img, &err) < 0)
        give_up("%s", err.message);
    p->n_bytes = q2_align_down(p->img->disk.size / 2, p->img->cluster_size);
    p->start = q2_align_down(p->img->disk.size / 4, p->img->cluster_size);
    p->buf = malloc(p->img->cluster_size);
}

static void end(struct play *p)
{
    fixture_close(p->img);
    fixture_clear(&p->f);
    free(p->buf);
}

// What is freed may be handed out again when the pointers to it are gone for certain, so
// that freed clusters wait for the next flush, but no more than WAITING_BYTES of them (or
// a sixteenth of a large file), and those of one request. Tables come on top.
#define WAITING_BYTES (UINT64_C(1) << 20)

static uint64_t bound(const struct play *p, uint64_t before)
{
    uint64_t tables = 16 * (uint64_t)p->img->cluster_size + p->n_bytes / 32;
    return before + p->n_bytes + (p->style == PLAIN ? 0 : WAITING_BYTES) + tables;
}

static void play(struct play *p, enum style style, unsigned flush_every)
{
    struct q2_error err = Q2_ERROR_INIT;
    int ret = 0;
    start(p, style);
    unsigned rounds = style == PACKED || style == PACKED_OVER ? PACKED_ROUNDS : ROUNDS;
    uint64_t before = file_size(p);
    for (unsigned i = 0; i < rounds && ret == 0; i++) {
        ret = one_round(p, &err);
        if (ret == 0 && i % flush_every == flush_every - 1)
            ret = q2_disk_flush(&p->img->disk, &err);
    }
    if (ret == 0)
        ret = q2_disk_finish(&p->img->disk, &err);
    is_int(ret, 0, "%s, %s, a flush every %u rounds: %s", p->f.name, style_names[style],
           flush_every, err.message);
    uint64_t size = file_size(p), limit = bound(p, before);
    ok(size <= limit,
       "%" PRIu64 " bytes were rewritten, and the file grew from %" PRIu64 " to %" PRIu64
       ", at most %" PRIu64,
       p->n_bytes, before, size, limit);
    end(p);
}

static void run_recipe(const struct recipe *r, enum style style, unsigned flush_every)
{
    struct play p = {0};
    fixture_make(&p.f, r, 0);
    play(&p, style, flush_every);
}

static void run_matrix(void)
{
    static const struct recipe recipes[] = {
        {.version = 3, .cluster_bits = 9, .refcount_order = 4, .size = 256 << 10},
        {.version = 3, .cluster_bits = 12, .refcount_order = 4, .size = 2 << 20},
        {.version = 3,
         .cluster_bits = 12,
         .refcount_order = 4,
         .size = 1 << 20,
         .lazy_refcounts = true},
        {.version = 2, .cluster_bits = 12, .refcount_order = 4, .size = 1 << 20},
        {.version = 3, .cluster_bits = 16, .refcount_order = 4, .size = 4 << 20},
    };
    for (size_t i = 0; i < sizeof(recipes) / sizeof(*recipes); i++) {
        for (unsigned style = 0; style < N_STYLES; style++) {
            run_recipe(&recipes[i], style, 1);
            if (recipes[i].cluster_bits < 16)
                run_recipe(&recipes[i], style, ROUNDS);
        }
    }
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        for (unsigned style = 0; style < N_STYLES; style++) {
            struct play p = {0};
            fixture_load(&p.f, argv[i], 0);
            play(&p, style, style % 2 ? 1 : ROUNDS);
        }
    }
    if (argc == 1)
        run_matrix();
    return done_testing();
}
