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
    unsigned n_writers;   // threads with a higher number flush
    pthread_mutex_t lock; // all below
    pthread_cond_t changed;
    uint64_t offset; // of the next request
    uint64_t n_left; // not taken yet
    unsigned in_flight;
    uint64_t flushes_due;
    bool failed;
    struct q2_error *err;
};

static unsigned count_threads(const struct q2_disk *d, const struct q2_bench *b)
{
    uint64_t most = b->deep ? MAX_THREADS : q2_pool_processors();
    if (b->write && (d->cluster_size > 0 || b->step < b->n_bytes))
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

static bool goes_on(const struct run *r)
{
    return !r->failed && !q2_monitor_cancelled(r->mon);
}

// *flush: one is due behind this request.
static bool take_request(struct run *r, uint64_t *offset, bool *flush)
{
    const struct q2_bench *b = r->b;
    pthread_mutex_lock(&r->lock);
    while (goes_on(r) && !b->no_drain && r->flushes_due > 0)
        pthread_cond_wait(&r->changed, &r->lock);
    bool more = goes_on(r) && r->n_left > 0;
    if (more) {
        *offset = r->offset;
        r->offset = next_offset(r);
        r->n_left--;
        r->in_flight++;
        *flush = b->flush_interval && r->n_left % b->flush_interval == 0;
        if (*flush && !b->no_drain)
            r->flushes_due++; // from here on nobody begins
        q2_monitor_progress(r->mon, b->count - r->n_left, b->count);
    }
    pthread_mutex_unlock(&r->lock);
    return more;
}

static void flush_done(struct run *r)
{
    pthread_mutex_lock(&r->lock);
    r->flushes_due--;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

// True if it is for the caller to flush: the last one that was under way.
static bool end_request(struct run *r, bool flush)
{
    pthread_mutex_lock(&r->lock);
    r->in_flight--;
    if (flush && r->b->no_drain)
        r->flushes_due++;
    bool mine = !r->b->no_drain && r->flushes_due > 0 && r->in_flight == 0;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    return mine;
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
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

static int request(struct run *r, void *buf, bool *more, struct q2_error *err)
{
    uint64_t offset;
    bool flush;
    *more = take_request(r, &offset, &flush);
    if (!*more)
        return 0;
    int ret = do_request(r, offset, buf, err);
    if (ret < 0 || !end_request(r, flush))
        return ret;
    ret = q2_disk_flush(r->d, err);
    flush_done(r);
    return ret;
}

static int send(struct run *r, struct q2_error *err)
{
    void *buf;
    bool more = true;
    int ret = 0;
    if (posix_memalign(&buf, BUFFER_ALIGN, r->b->n_bytes) != 0)
        return q2_fail_memory(err, r->b->n_bytes);
    memset(buf, r->b->pattern, r->b->n_bytes);
    while (ret == 0 && more)
        ret = request(r, buf, &more, err);
    free(buf);
    return ret;
}

// Waits for the next flush that is due; false: there will be none.
static bool await_flush(struct run *r)
{
    pthread_mutex_lock(&r->lock);
    while (goes_on(r) && r->flushes_due == 0 && (r->n_left > 0 || r->in_flight > 0))
        pthread_cond_wait(&r->changed, &r->lock);
    bool due = goes_on(r) && r->flushes_due > 0;
    pthread_mutex_unlock(&r->lock);
    return due;
}

// Beside the writes.
static int flush_when_due(struct run *r, struct q2_error *err)
{
    int ret = 0;
    while (ret == 0 && await_flush(r)) {
        ret = q2_disk_flush(r->d, err);
        flush_done(r);
    }
    return ret;
}

static int work(void *opaque, unsigned index)
{
    struct run *r = opaque;
    struct q2_error err = Q2_ERROR_INIT;
    int ret = index < r->n_writers ? send(r, &err) : flush_when_due(r, &err);
    if (ret < 0)
        record_failure(r, &err);
    // One that waits is to see that the others were stopped.
    pthread_mutex_lock(&r->lock);
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
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
    struct run r = {.d = d,
                    .b = b,
                    .mon = mon,
                    .n_writers = count_threads(d, b),
                    .offset = b->offset,
                    .n_left = b->count,
                    .err = err};
    bool beside = b->flush_interval && b->no_drain;
    double start = now();
    pthread_mutex_init(&r.lock, NULL);
    pthread_cond_init(&r.changed, NULL);
    int ret = q2_pool_run(r.n_writers + (beside ? 1 : 0), work, &r);
    pthread_cond_destroy(&r.changed);
    pthread_mutex_destroy(&r.lock);
    *seconds = now() - start;
    if (ret == 0 && q2_monitor_cancelled(mon))
        ret = q2_fail(err, -ECANCELED, "Stopped");
    return ret;
}
