// SPDX-License-Identifier: MIT
// An open image in memory for the tests of the write engine, and looks at it.
#ifndef Q2_TESTS_UNIT_ENGINE_H
#define Q2_TESTS_UNIT_ENGINE_H

#include "check/scan.h"
#include "test.h"
#include "tests/crash/fixture.h"

struct engine {
    struct fixture f;
    struct q2_image *img;
    struct q2_disk *d;
    struct q2_error err;
};

static inline void engine_open(struct engine *e)
{
    e->err = (struct q2_error)Q2_ERROR_INIT;
    if (fixture_open(&e->f, e->f.fault, true, &e->img, &e->err) < 0)
        give_up("%s", e->err.message);
    e->d = &e->img->disk;
}

static inline void engine_make(struct engine *e, const struct recipe *r,
                               const struct q2_runtime *runtime)
{
    fixture_make(&e->f, r, 64U << 20);
    if (runtime)
        e->f.runtime = *runtime;
    engine_open(e);
}

// As a crash would: nothing is written.
static inline void engine_drop(struct engine *e)
{
    fixture_close(e->img);
    e->img = NULL;
}

static inline void engine_end(struct engine *e)
{
    if (e->img)
        fixture_close(e->img);
    fixture_clear(&e->f);
}

static inline int engine_fill(struct engine *e, uint64_t offset, size_t n_bytes,
                              uint8_t value)
{
    uint8_t *buf = malloc(n_bytes);
    if (!buf)
        abort();
    memset(buf, value, n_bytes);
    int ret = q2_disk_write(e->d, offset, buf, n_bytes, &e->err);
    free(buf);
    return ret;
}

static inline bool engine_reads(struct engine *e, uint64_t offset, size_t n_bytes,
                                uint8_t value)
{
    uint8_t *buf = malloc(n_bytes);
    bool same = buf && q2_disk_read(e->d, offset, buf, n_bytes, &e->err) == 0;
    for (size_t i = 0; i < n_bytes && same; i++)
        same = buf[i] == value;
    free(buf);
    return same;
}

// The mapping of one byte.
static inline struct q2_run engine_run(struct engine *e, uint64_t offset)
{
    struct q2_run run = {0};
    pthread_mutex_lock(&e->img->lock);
    if (q2_mapping_lookup(e->img, offset, 1, &run, &e->err) < 0)
        give_up("%s", e->err.message);
    pthread_mutex_unlock(&e->img->lock);
    return run;
}

static inline int engine_kind(struct engine *e, uint64_t offset)
{
    return (int)engine_run(e, offset).kind;
}

static inline uint64_t engine_refcount(struct engine *e, uint64_t host_offset)
{
    uint64_t count = 0;
    pthread_mutex_lock(&e->img->lock);
    if (q2_refcount_get(e->img, host_offset / e->img->cluster_size, &count, &e->err) < 0)
        give_up("%s", e->err.message);
    pthread_mutex_unlock(&e->img->lock);
    return count;
}

static inline uint64_t engine_file_size(struct engine *e)
{
    uint64_t size = 0;
    if (q2_io_get_size(e->f.memory, &size, &e->err) < 0)
        give_up("%s", e->err.message);
    return size;
}

// What a scan of the file as it lies finds: corruptions * 1000 + leaks.
static inline uint64_t engine_damage(struct engine *e)
{
    struct q2_scan scan;
    if (q2_scan_run(&scan, e->f.memory, false, NULL, &e->err) < 0)
        give_up("%s", e->err.message);
    uint64_t damage = scan.corruptions * 1000 + scan.leaks;
    q2_scan_clear(&scan);
    return damage;
}

static inline uint64_t engine_features(struct engine *e) // as the file says
{
    uint8_t field[8];
    if (q2_io_read(e->f.memory, 72, field, 8, &e->err) < 0)
        give_up("%s", e->err.message);
    return field[7];
}

#endif
