// SPDX-License-Identifier: MIT
// A simple benchmark.
#include "ops/bench.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/checked.h"
#include "base/pool.h"

#define MAX_THREADS 64U
#define BUFFER_ALIGN 4096U

struct run {
    struct q2_disk *d;
    const struct q2_bench *b;
    const struct q2_monitor *mon;
    pthread_mutex_t lock; // all below
    uint64_t offset;      // of the next request
    uint64_t n_left;
    bool failed;
    struct q2_error *err;
};

static unsigned count_threads(const struct q2_disk *d, const struct q2_bench *b)
{
    uint64_t most = b->direct ? MAX_THREADS : q2_pool_processors();
    if (b->write && (d->cluster_size > 0 || b->step < b->n_bytes || b->flush_interval))
        return 1;
    return (unsigned)q2_min_u64(q2_min_u64(b->depth, most), b->count);
}

// Round the disk, as QEMU goes.
static uint64_t next_offset(const struct run *r)
{
    uint64_t size = r->d->size;
    if (size <= r->b->n_bytes)
        return 0;
    return (r->offset + r->b->step) % (size - r->b->n_bytes);
}

static bool take_request(struct run *r, uint64_t *offset)
{
    pthread_mutex_lock(&r->lock);
    bool more = !r->failed && r->n_left > 0 && !q2_monitor_cancelled(r->mon);
    if (more) {
        *offset = r->offset;
        r->offset = next_offset(r);
        r->n_left--;
        q2_monitor_progress(r->mon, r->b->count - r->n_left, r->b->count);
    }
    pthread_mutex_unlock(&r->lock);
    return more;
}

static int do_request(const struct run *r, uint64_t offset, void *buf,
                      struct q2_error *err)
{
    uint64_t end;
    if (!q2_add_u64(offset, r->b->n_bytes, &end) || end > r->d->size)
        return q2_fail(err, -EIO, "Failed request: %s", strerror(EIO));
    int ret = r->b->write ? q2_disk_write(r->d, offset, buf, r->b->n_bytes, err)
                          : q2_disk_read(r->d, offset, buf, r->b->n_bytes, err);
    return ret < 0 ? q2_context(err, "Failed request") : 0;
}

static void record_failure(struct run *r, const struct q2_error *err)
{
    pthread_mutex_lock(&r->lock);
    if (!r->failed)
        *r->err = *err;
    r->failed = true;
    pthread_mutex_unlock(&r->lock);
}

static int work(void *opaque, unsigned index)
{
    struct run *r = opaque;
    struct q2_error err = Q2_ERROR_INIT;
    uint64_t offset, n_done = 0;
    void *buf;
    int ret = 0;
    (void)index;
    if (posix_memalign(&buf, BUFFER_ALIGN, r->b->n_bytes) != 0) {
        buf = NULL;
        ret = q2_fail_memory(&err, r->b->n_bytes);
    } else {
        memset(buf, r->b->pattern, r->b->n_bytes);
    }
    while (ret == 0 && take_request(r, &offset)) {
        ret = do_request(r, offset, buf, &err);
        if (ret == 0 && r->b->flush_interval && ++n_done % r->b->flush_interval == 0)
            ret = q2_disk_flush(r->d, &err);
    }
    free(buf);
    if (ret < 0)
        record_failure(r, &err);
    return ret;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int q2_bench_run(struct q2_disk *d, const struct q2_bench *b,
                 const struct q2_monitor *mon, double *seconds, struct q2_error *err)
{
    struct run r = {
        .d = d, .b = b, .mon = mon, .offset = b->offset, .n_left = b->count, .err = err};
    double start = now();
    pthread_mutex_init(&r.lock, NULL);
    int ret = q2_pool_run(count_threads(d, b), work, &r);
    pthread_mutex_destroy(&r.lock);
    *seconds = now() - start;
    if (ret == 0 && q2_monitor_cancelled(mon))
        ret = q2_fail(err, -ECANCELED, "Stopped");
    return ret;
}
