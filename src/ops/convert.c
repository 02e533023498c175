// SPDX-License-Identifier: MIT
// The copy pipeline. Every thread takes the next window of the disk, reads it, finds its
// zeros and compresses; then, in guest order (so that the same input gives the same bytes
// whatever the number of threads), places it in the target; and writes its data outside
// of the turn again.
#include "ops/convert.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/pool.h"
#include "ops/convert_offload.h"
#include "ops/convert_segment.h"
#include "ops/convert_window.h"

struct pipeline {
    struct q2_convert_job job;
    pthread_mutex_t lock, report_lock;
    pthread_cond_t turned;
    uint64_t next_offset; // where the next window begins
    uint64_t next_ticket; // its number
    uint64_t turn;        // the ticket that may place its window now
    uint64_t n_copied;    // bytes of data before it, for the progress
    bool failed;
    struct q2_error *err; // the first error's
    struct q2_rate rate;
};

static void record_failure(struct pipeline *p, const struct q2_error *err)
{
    pthread_mutex_lock(&p->lock);
    if (!p->failed) {
        p->failed = true;
        *p->err = *err;
    }
    pthread_cond_broadcast(&p->turned);
    pthread_mutex_unlock(&p->lock);
}

// Hands out the next window; false when there is none, or when it is over.
static int take_window(struct pipeline *p, struct q2_window *w, bool *got,
                       struct q2_error *err)
{
    int ret = 0;
    pthread_mutex_lock(&p->lock);
    *got = !p->failed && p->next_offset < p->job.size;
    if (*got) {
        ret = q2_window_plan(&p->job, p->next_offset, w, err);
        p->next_offset = w->start + w->n_bytes;
        w->ticket = p->next_ticket++;
    }
    pthread_mutex_unlock(&p->lock);
    return ret;
}

// Waits until it is this window's turn; false when the whole has failed meanwhile.
static bool await_turn(struct pipeline *p, uint64_t ticket)
{
    pthread_mutex_lock(&p->lock);
    while (!p->failed && p->turn != ticket)
        pthread_cond_wait(&p->turned, &p->lock);
    bool ok = !p->failed;
    pthread_mutex_unlock(&p->lock);
    return ok;
}

// What is packed a cluster at a time is told so, too.
static void report_copied(struct pipeline *p, uint64_t n_bytes)
{
    const struct q2_convert_job *job = &p->job;
    uint64_t step = job->options->compress ? job->target->cluster_size : n_bytes;
    uint64_t end = q2_min_u64(p->n_copied + n_bytes, job->n_data);
    while (p->n_copied < end) {
        p->n_copied += q2_min_u64(step, end - p->n_copied);
        q2_monitor_progress(job->mon, p->n_copied, job->n_data);
    }
}

static void end_turn(struct pipeline *p, const struct q2_window *w)
{
    pthread_mutex_lock(&p->report_lock);
    if (p->job.counted)
        report_copied(p, w->n_data);
    else
        q2_monitor_progress(p->job.mon, w->start + w->n_bytes, p->job.size);
    pthread_mutex_unlock(&p->report_lock);
    pthread_mutex_lock(&p->lock);
    p->turn++;
    pthread_cond_broadcast(&p->turned);
    pthread_mutex_unlock(&p->lock);
}

static int one_window(struct pipeline *p, struct q2_window *w, struct q2_error *err)
{
    int ret = q2_window_read(&p->job, w, err);
    if (ret == 0 && q2_monitor_cancelled(p->job.mon))
        ret = q2_fail(err, -ECANCELED, "The conversion was stopped");
    if (ret < 0 || !await_turn(p, w->ticket))
        return ret;
    ret = q2_rate_wait(&p->rate, w->n_data, p->job.mon, err);
    if (ret == 0)
        ret = q2_window_place(&p->job, w, err);
    if (ret < 0)
        return ret;
    end_turn(p, w);
    return q2_window_write(&p->job, w, err);
}

static int work(void *opaque, unsigned index)
{
    struct pipeline *p = opaque;
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_window w;
    bool got = true;
    (void)index;
    int ret = q2_window_init(&p->job, &w, &err);
    while (ret == 0 && got) {
        ret = take_window(p, &w, &got, &err);
        if (ret == 0 && got)
            ret = one_window(p, &w, &err);
    }
    if (ret < 0)
        record_failure(p, &err);
    q2_window_clear(&w);
    return ret;
}

// And how large the windows are.
static int settle_sizes(struct q2_convert_job *job, struct q2_error *err)
{
    job->size = 0;
    job->window_bytes = q2_disk_read_step(job->target);
    for (unsigned i = 0; i < job->n_sources; i++) {
        if (!q2_add_u64(job->size, job->sources[i]->size, &job->size))
            return q2_fail(err, -EFBIG, "The sources together are too large");
    }
    for (unsigned i = 0; i < job->n_sources; i++)
        job->window_bytes =
            q2_max_size(job->window_bytes, q2_disk_read_step(job->sources[i]));
    if (job->target->size < job->size)
        return q2_fail(err, -EINVAL, "Output file is smaller than input file");
    return 0;
}

// Where unreadable parts are to be passed over, the mapping is not looked at twice.
static int count_data(struct q2_convert_job *job, struct q2_error *err)
{
    uint64_t step = q2_disk_map_step(job->size), n;
    enum q2_segment_kind kind;
    job->counted = job->options->count_first && !job->options->salvage;
    for (uint64_t at = 0; job->counted && at < job->size; at += n) {
        if (q2_monitor_cancelled(job->mon))
            return q2_fail(err, -ECANCELED, "The conversion was stopped");
        int ret =
            q2_segment_status(job, at, q2_min_u64(step, job->size - at), &kind, &n, err);
        if (ret < 0)
            return ret;
        if (kind == Q2_SEGMENT_DATA)
            job->n_data += n;
    }
    return 0;
}

// Where the file system copies, it does so under the file's lock: two threads would
// mostly wait for each other, and not asleep.
//
// Windows are not alike in what packing or unpacking them costs, and take their turn in
// order: with more threads than processors some work while others wait for the slowest.
static unsigned count_threads(const struct q2_convert_job *job)
{
    unsigned n = job->options->n_threads;
    bool uneven = job->options->compress;
    for (unsigned i = 0; i < job->n_sources; i++)
        uneven |= job->sources[i]->cluster_size > 0;
    if (n == 0 && q2_offload_wanted(job))
        n = 1;
    if (n == 0)
        n = q2_pool_processors() * (uneven ? 2 : 1);
    return n;
}

int q2_convert(struct q2_disk *const *sources, unsigned n_sources, struct q2_disk *target,
               const struct q2_convert_options *options, const struct q2_monitor *mon,
               struct q2_error *err)
{
    atomic_bool offload_failed = !target->data || !target->data->copies;
    struct pipeline p = {
        .job = {.sources = sources,
                .n_sources = n_sources,
                .target = target,
                .options = options,
                .mon = mon,
                .offload_failed = &offload_failed},
        .err = err,
        .rate = {.bytes_per_second = options->rate_limit},
    };
    int ret = settle_sizes(&p.job, err);
    if (ret < 0)
        return ret;
    if (options->compress && !target->ops->write_begin_compressed)
        return q2_fail(err, -ENOTSUP, "Compression not supported for this file format");
    ret = count_data(&p.job, err);
    if (ret < 0)
        return ret;
    pthread_mutex_init(&p.lock, NULL);
    pthread_mutex_init(&p.report_lock, NULL);
    p.job.report_lock = &p.report_lock;
    pthread_cond_init(&p.turned, NULL);
    ret = q2_pool_run(count_threads(&p.job), work, &p);
    pthread_cond_destroy(&p.turned);
    pthread_mutex_destroy(&p.lock);
    pthread_mutex_destroy(&p.report_lock);
    return p.failed ? err->code : ret;
}
