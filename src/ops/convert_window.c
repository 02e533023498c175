// SPDX-License-Identifier: MIT
// Windows of a conversion: memory, extent, and their way into the target.
#include "ops/convert_window.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/checked.h"
#include "ops/convert_offload.h"
#include "ops/convert_segment.h"

int q2_window_init(const struct q2_convert_job *job, struct q2_window *w,
                   struct q2_error *err)
{
    *w = (struct q2_window){0};
    if (posix_memalign((void **)&w->buf, 4096, job->window_bytes) != 0) {
        w->buf = NULL;
        return q2_fail_memory(err, job->window_bytes);
    }
    if (!job->options->compress)
        return 0;
    size_t n_clusters = job->window_bytes / job->target->cluster_size;
    w->packed = malloc(job->window_bytes);
    w->packed_bytes = calloc(n_clusters, sizeof(size_t));
    if (!w->packed || !w->packed_bytes)
        return q2_fail_memory(err, job->window_bytes);
    return q2_compressor_new(job->target->compression, job->options->level,
                             &w->compressor, err);
}

void q2_window_clear(struct q2_window *w)
{
    free(w->buf);
    free(w->packed);
    free(w->packed_bytes);
    free(w->segments);
    free(w->placed);
    q2_compressor_free(w->compressor);
    *w = (struct q2_window){0};
}

// Space for one more compressed or plain piece that has its place.
static int add_placed(struct q2_window *w, const struct q2_write *write,
                      const uint8_t *data, struct q2_error *err)
{
    if (w->n_placed == w->max_placed) {
        size_t max = w->max_placed ? w->max_placed * 2 : 32;
        struct q2_placed *p = realloc(w->placed, max * sizeof(*p));
        if (!p)
            return q2_fail_memory(err, max * sizeof(*p));
        w->placed = p;
        w->max_placed = max;
    }
    w->placed[w->n_placed++] = (struct q2_placed){.write = *write, .data = data};
    return 0;
}

static void cancel_placed(struct q2_disk *target, struct q2_window *w, size_t from)
{
    for (size_t i = from; i < w->n_placed; i++)
        target->ops->write_cancel(target, &w->placed[i].write);
    w->n_placed = 0;
}

static int place_plain(struct q2_disk *target, struct q2_window *w, size_t start,
                       size_t n_bytes, struct q2_error *err)
{
    while (n_bytes > 0) {
        struct q2_write write;
        int ret =
            target->ops->write_begin(target, w->start + start, n_bytes, &write, err);
        if (ret == 0)
            ret = add_placed(w, &write, w->buf + start, err);
        if (ret < 0)
            return ret;
        start += write.n_bytes;
        n_bytes -= write.n_bytes;
    }
    return 0;
}

// Clusters of a data segment: compressed ones where they shrank, runs of plain ones
// between.
static int place_packed(struct q2_disk *target, struct q2_window *w, size_t start,
                        size_t n_bytes, const uint8_t **packed, struct q2_error *err)
{
    size_t cluster = target->cluster_size, end = start + n_bytes;
    int ret = 0;
    for (size_t at = start; at < end && ret == 0; at += cluster) {
        size_t length = w->packed_bytes[at / cluster];
        struct q2_write write;
        if (length == 0) {
            ret = place_plain(target, w, at, q2_min_size(cluster, end - at), err);
            continue;
        }
        ret = target->ops->write_begin_compressed(target, w->start + at, length, &write,
                                                  err);
        if (ret == 0)
            ret = add_placed(w, &write, *packed, err);
        *packed += length;
    }
    return ret;
}

// The next data segment behind the i-th begins here.
static size_t next_data(const struct q2_window *w, size_t i)
{
    while (++i < w->n_segments) {
        if (w->segments[i].kind == Q2_SEGMENT_DATA)
            return w->segments[i].start;
    }
    return SIZE_MAX;
}

static int put(struct q2_disk *target, struct q2_window *w, size_t start, size_t end,
               struct q2_error *err)
{
    return q2_disk_put(target, w->start + start, w->buf + start, end - start, err);
}

// Where a cluster is allocated in parts, several segments may lie in one. It takes one
// write at a time, so these are written here and now; what is between them gets its
// place. behind: where the data segment before the i-th ended.
static int place_parts(struct q2_disk *target, struct q2_window *w, size_t i,
                       size_t behind, struct q2_error *err)
{
    size_t cluster = target->cluster_size, start = w->segments[i].start;
    size_t end = start + w->segments[i].n_bytes, first = start, last = end;
    if (behind > q2_align_down(start, cluster))
        first = q2_min_size((size_t)q2_align_up(start, cluster), end);
    if (next_data(w, i) < q2_align_up(end, cluster))
        last = q2_max_size((size_t)q2_align_down(end, cluster), first);
    int ret = put(target, w, start, first, err);
    if (ret == 0)
        ret = place_plain(target, w, first, last - first, err);
    return ret < 0 ? ret : put(target, w, last, end, err);
}

static int place_data(const struct q2_convert_job *job, struct q2_window *w,
                      struct q2_error *err)
{
    const struct q2_disk *target = job->target;
    const uint8_t *packed = w->packed;
    size_t behind = 0;
    int ret = 0;
    w->n_placed = 0;
    for (size_t i = 0; i < w->n_segments && ret == 0; i++) {
        const struct q2_segment *s = &w->segments[i];
        if (s->kind != Q2_SEGMENT_DATA)
            continue;
        if (job->options->compress)
            ret = place_packed(job->target, w, s->start, s->n_bytes, &packed, err);
        else if (target->grain_size < target->cluster_size)
            ret = place_parts(job->target, w, i, behind, err);
        else
            ret = place_plain(job->target, w, s->start, s->n_bytes, err);
        behind = s->start + s->n_bytes;
    }
    if (ret < 0)
        cancel_placed(job->target, w, 0);
    return ret;
}

static int write_zero_segments(const struct q2_convert_job *job, struct q2_window *w,
                               struct q2_error *err)
{
    if (w->uniform)
        return w->kind == Q2_SEGMENT_ZERO
                   ? q2_disk_write_zeroes(job->target, w->start, w->n_bytes,
                                          Q2_ZERO_UNMAP, err)
                   : 0;
    int ret = 0;
    for (size_t i = 0; i < w->n_segments && ret == 0; i++) {
        const struct q2_segment *s = &w->segments[i];
        if (s->kind == Q2_SEGMENT_ZERO)
            ret = q2_disk_write_zeroes(job->target, w->start + s->start, s->n_bytes,
                                       Q2_ZERO_UNMAP, err);
    }
    return ret;
}

// Neighbours that lie side by side in memory and in the file go out with one write.
static size_t count_packed_run(const struct q2_window *w, size_t from, size_t *n_bytes)
{
    const struct q2_placed *p = &w->placed[from];
    size_t n = 1;
    *n_bytes = p->write.compressed_bytes;
    for (; from + n < w->n_placed; n++) {
        const struct q2_placed *q = &p[n];
        if (q->write.compressed_bytes == 0 ||
            q->write.host_offset != p->write.host_offset + *n_bytes ||
            q->data != p->data + *n_bytes)
            break;
        *n_bytes += q->write.compressed_bytes;
    }
    return n;
}

static int write_placed(const struct q2_convert_job *job, struct q2_window *w,
                        struct q2_error *err)
{
    struct q2_disk *target = job->target;
    for (size_t i = 0; i < w->n_placed;) {
        const struct q2_placed *p = &w->placed[i];
        size_t n = 1, n_bytes;
        int ret;
        if (p->write.compressed_bytes > 0) {
            n = count_packed_run(w, i, &n_bytes);
            ret = q2_io_write(target->file, p->write.host_offset, p->data, n_bytes, err);
        } else if (w->unread) {
            ret = q2_offload_placed(job, w, p, err);
        } else {
            ret = q2_disk_write_data(target, &p->write, p->data,
                                     job->options->sparse_grain, err);
        }
        for (size_t k = 0; k < n && ret == 0; k++, i++)
            ret = target->ops->write_finish(target, &w->placed[i].write, err);
        if (ret < 0) {
            cancel_placed(target, w, i);
            return ret;
        }
    }
    w->n_placed = 0;
    return 0;
}

int q2_window_place(const struct q2_convert_job *job, struct q2_window *w,
                    struct q2_error *err)
{
    int ret = 0;
    w->n_placed = 0;
    if (!w->uniform)
        ret = place_data(job, w, err);
    if (ret < 0 || job->options->target_is_zero)
        return ret;
    // A target with content of its own takes everything in guest order.
    ret = write_placed(job, w, err);
    return ret < 0 ? ret : write_zero_segments(job, w, err);
}

int q2_window_write(const struct q2_convert_job *job, struct q2_window *w,
                    struct q2_error *err)
{
    return write_placed(job, w, err);
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int q2_rate_wait(struct q2_rate *rate, uint64_t n_bytes, const struct q2_monitor *mon,
                 struct q2_error *err)
{
    const int64_t nap_ns = 50000000; // short enough to notice that it was stopped
    const double max_lag_ns = 200e6;
    if (rate->bytes_per_second == 0)
        return 0;
    if (rate->started_ns == 0)
        rate->started_ns = now_ns();
    rate->n_bytes += n_bytes;
    double due = (double)rate->n_bytes / (double)rate->bytes_per_second * 1e9;
    for (;;) {
        double left = (double)rate->started_ns + due - (double)now_ns();
        if (q2_monitor_cancelled(mon))
            return q2_fail(err, -ECANCELED, "The conversion was stopped");
        if (left <= 0) {
            // What was late by more than that is not made up for in one rush.
            if (left < -max_lag_ns)
                rate->started_ns += (int64_t)(-max_lag_ns - left);
            return 0;
        }
        long ns = left < (double)nap_ns ? (long)left : (long)nap_ns;
        nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
    }
}
