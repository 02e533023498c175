// SPDX-License-Identifier: MIT
// The metadata cache: what was changed and marked gets to the file, what was not is not
// written, in every size of tables.
#include "image/cache.h"

#include "base/endian.h"
#include "io/memory.h"

#include "test.h"

#define N_TABLES 12U
#define N_ROUNDS 60U

struct run {
    struct q2_io *io;
    struct q2_cache *cache;
    enum q2_cache_form form;
    uint32_t cluster_size;
    uint8_t *model; // what the file should hold
    uint64_t random;
};

static void give_up(const struct q2_error *err)
{
    printf("Bail out! %s\n", err->message);
    exit(1);
}

static struct q2_table *table(struct run *r, uint64_t index)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_table *t;
    if (q2_cache_get(r->cache, r->io, index * r->cluster_size, "table", &t, &err) < 0)
        give_up(&err);
    return t;
}

// Changes some entries of a table, in the cache and in the model, and marks them.
static void change(struct run *r, uint64_t index)
{
    struct q2_table *t = table(r, index);
    uint64_t n = r->cluster_size / 8, first = test_random(&r->random) % n;
    uint64_t count = 1 + test_random(&r->random) % (n - first);
    if (test_random(&r->random) % 2)
        count = 1;
    for (uint64_t i = first; i < first + count; i++) {
        uint64_t value = test_random(&r->random);
        uint64_t *entry = (uint64_t *)t->data + i;
        q2_store_be64(r->model + index * r->cluster_size + i * 8, value);
        if (r->form == Q2_CACHE_ENTRIES)
            *entry = value;
        else
            q2_store_be64((uint8_t *)entry, value);
    }
    q2_cache_mark_range(r->cache, t, first * 8, count * 8);
}

// A table that is new, and all zeros but for one entry.
static void renew(struct run *r, uint64_t index)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_table *t;
    if (q2_cache_add(r->cache, index * r->cluster_size, &t, &err) < 0)
        give_up(&err);
    memset(r->model + index * r->cluster_size, 0, r->cluster_size);
    change(r, index);
}

static bool play(struct run *r)
{
    struct q2_error err = Q2_ERROR_INIT;
    size_t n_bytes = (size_t)N_TABLES * r->cluster_size;
    uint8_t *now = malloc(n_bytes);
    bool good = now != NULL;
    for (unsigned round = 0; round < N_ROUNDS && good; round++) {
        for (uint64_t n = test_random(&r->random) % (2 * N_TABLES); n > 0; n--) {
            uint64_t index = test_random(&r->random) % N_TABLES;
            (test_random(&r->random) % 8 ? change : renew)(r, index);
        }
        good = q2_cache_write_back(r->cache, r->io, &err) == 0 &&
               !q2_cache_has_dirty(r->cache) &&
               q2_io_read(r->io, 0, now, n_bytes, &err) == 0 &&
               memcmp(now, r->model, n_bytes) == 0;
        q2_cache_trim(r->cache);
    }
    free(now);
    return good;
}

// One entry in the middle is changed: what of the file is written, in bytes?
static uint64_t written_for_one(struct run *r)
{
    struct q2_error err = Q2_ERROR_INIT;
    uint64_t n_bytes = 0, middle = r->cluster_size / 16 * 8;
    uint8_t *other = malloc(r->cluster_size);
    struct q2_table *t = table(r, 1);
    if (!other)
        exit(1);
    memset(other, 0xee, r->cluster_size);
    q2_cache_mark_range(r->cache, t, middle, 8);
    if (q2_io_write(r->io, r->cluster_size, other, r->cluster_size, &err) < 0 ||
        q2_cache_write_back(r->cache, r->io, &err) < 0 ||
        q2_io_read(r->io, r->cluster_size, other, r->cluster_size, &err) < 0)
        give_up(&err);
    const uint8_t *should = r->model + r->cluster_size;
    bool good = memcmp(other + middle, should + middle, 8) == 0;
    for (uint32_t i = 0; i < r->cluster_size; i++)
        n_bytes += other[i] != 0xee;
    free(other);
    return good ? n_bytes : 0;
}

static void test_form(enum q2_cache_form form, const char *name, uint32_t cluster_size)
{
    struct run r = {.form = form, .cluster_size = cluster_size, .random = cluster_size};
    struct q2_error err = Q2_ERROR_INIT;
    size_t n_bytes = (size_t)N_TABLES * cluster_size;
    r.model = calloc(1, n_bytes);
    r.cache = q2_cache_new(form, cluster_size, 4 * (uint64_t)cluster_size);
    if (!r.model || !r.cache ||
        q2_memory_open("cache", r.model, n_bytes, &r.io, &err) < 0)
        give_up(&err);
    ok(play(&r), "%s of %u bytes: what is marked gets to the file", name, cluster_size);
    uint64_t written = written_for_one(&r);
    ok(written > 0 && written <= 4096,
       "%s of %u bytes: one entry writes a block (%" PRIu64 ")", name, cluster_size,
       written);
    q2_cache_free(r.cache);
    q2_io_close(r.io);
    free(r.model);
}

int main(void)
{
    for (uint32_t size = 512; size <= 2 << 20; size *= 8) {
        test_form(Q2_CACHE_ENTRIES, "entries", size);
        test_form(Q2_CACHE_RAW, "raw tables", size);
    }
    return done_testing();
}
