// SPDX-License-Identifier: MIT
// Reading a window: its segments, its bytes, its compressed form.
#include "ops/convert_segment.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/zero.h"
#include "ops/convert_offload.h"

// How finely unreadable parts are told from readable ones with salvage.
#define SALVAGE_GRAIN 512U
// Extents looked at for one uniform window.
#define MAX_UNIFORM_EXTENTS 4096U

struct q2_disk *q2_segment_source(const struct q2_convert_job *job, uint64_t offset,
                                  uint64_t *in_source)
{
    unsigned i = 0;
    while (i + 1 < job->n_sources && offset >= job->sources[i]->size)
        offset -= job->sources[i++]->size;
    *in_source = offset;
    return job->sources[i];
}

// The layer below those that are copied; NULL: all are.
static const struct q2_disk *stop_layer(const struct q2_convert_options *o,
                                        const struct q2_disk *source)
{
    return o->target_has_backing ? source->backing : o->above;
}

static enum q2_segment_kind kind_of(const struct q2_convert_job *job, uint64_t offset,
                                    const struct q2_extent *e)
{
    const struct q2_convert_options *o = job->options;
    if (o->above && !e->allocated)
        return Q2_SEGMENT_SKIP;
    if (e->zero) {
        if (o->target_has_backing && offset >= o->target_backing_size)
            return Q2_SEGMENT_SKIP; // behind the backing file's end it is zero anyway
        return o->sparse_grain > 0 ? Q2_SEGMENT_ZERO : Q2_SEGMENT_DATA;
    }
    return e->data || !o->target_has_backing ? Q2_SEGMENT_DATA : Q2_SEGMENT_SKIP;
}

int q2_segment_status(const struct q2_convert_job *job, uint64_t offset,
                      uint64_t max_bytes, enum q2_segment_kind *kind, uint64_t *n_bytes,
                      struct q2_error *err)
{
    const struct q2_convert_options *o = job->options;
    uint64_t in_source;
    unsigned depth;
    struct q2_extent e;
    struct q2_disk *source = q2_segment_source(job, offset, &in_source);
    max_bytes = q2_min_u64(max_bytes, source->size - in_source);
    if (o->target_has_backing && offset < o->target_backing_size)
        max_bytes = q2_min_u64(max_bytes, o->target_backing_size - offset);
    int ret = q2_disk_status_above(source, stop_layer(o, source), in_source, max_bytes,
                                   &e, &depth, err);
    if (ret < 0 && o->salvage) {
        // Reading it will say what is lost.
        *kind = Q2_SEGMENT_DATA;
        *n_bytes = q2_min_u64(max_bytes, SALVAGE_GRAIN);
        return 0;
    }
    if (ret < 0)
        return q2_context(err, "error while reading block status at offset %" PRIu64,
                          in_source);
    *kind = kind_of(job, offset, &e);
    *n_bytes = q2_min_u64(e.n_bytes, max_bytes);
    return 0;
}

int q2_segment_add(struct q2_window *w, enum q2_segment_kind kind, size_t start,
                   size_t n_bytes, struct q2_error *err)
{
    struct q2_segment *last = w->n_segments ? &w->segments[w->n_segments - 1] : NULL;
    if (last && last->kind == kind && last->start + last->n_bytes == start) {
        last->n_bytes += n_bytes;
        return 0;
    }
    if (!w->segments || w->n_segments == w->max_segments) {
        size_t max = w->max_segments ? w->max_segments * 2 : 64;
        struct q2_segment *s = realloc(w->segments, max * sizeof(*s));
        if (!s)
            return q2_fail_memory(err, max * sizeof(*s));
        w->segments = s;
        w->max_segments = max;
    }
    w->segments[w->n_segments++] =
        (struct q2_segment){.kind = kind, .start = start, .n_bytes = n_bytes};
    return 0;
}

int q2_window_plan(const struct q2_convert_job *job, uint64_t start, struct q2_window *w,
                   struct q2_error *err)
{
    uint64_t left = job->size - start, alike = 0, n;
    uint64_t step = q2_disk_map_step(job->size);
    enum q2_segment_kind kind, next;
    w->start = start;
    w->n_bytes = q2_min_u64(left, job->window_bytes);
    w->uniform = false;
    w->n_segments = 0;
    w->n_data = 0;
    int ret = q2_segment_status(job, start, q2_min_u64(left, step), &kind, &alike, err);
    if (ret < 0 || kind == Q2_SEGMENT_DATA)
        return ret;
    for (unsigned i = 0; i < MAX_UNIFORM_EXTENTS && alike < left; i++) {
        ret = q2_segment_status(job, start + alike, q2_min_u64(left - alike, step), &next,
                                &n, err);
        if (ret < 0)
            return ret;
        if (next != kind)
            break;
        alike += n;
    }
    if (alike < left)
        alike = q2_align_down(alike, job->window_bytes);
    if (alike > 0) {
        w->uniform = true;
        w->kind = kind;
        w->n_bytes = alike;
    }
    return 0;
}

// Reads what can be read, in small pieces; the rest becomes zeros.
static void salvage(const struct q2_convert_job *job, struct q2_disk *source,
                    uint64_t in_source, uint64_t offset, uint8_t *buf, size_t n_bytes)
{
    struct q2_error why = Q2_ERROR_INIT, first = Q2_ERROR_INIT;
    size_t n_bad = 0, bad_at = 0;
    for (size_t at = 0; at <= n_bytes; at += SALVAGE_GRAIN) {
        size_t n = q2_min_size(SALVAGE_GRAIN, n_bytes - at);
        bool bad = n > 0 && q2_disk_read(source, in_source + at, buf + at, n, &why) < 0;
        if (bad) {
            memset(buf + at, 0, n);
            if (n_bad == 0) {
                bad_at = at;
                first = why;
            }
            n_bad += n;
        } else if (n_bad > 0) {
            pthread_mutex_lock(job->report_lock);
            q2_monitor_warn(job->mon,
                            "error while reading offset %" PRIu64
                            ": %s; %zu bytes become zeros",
                            offset + bad_at, first.message, n_bad);
            pthread_mutex_unlock(job->report_lock);
            n_bad = 0;
        }
    }
}

int q2_segment_read(const struct q2_convert_job *job, uint64_t offset, uint8_t *buf,
                    size_t n_bytes, struct q2_error *err)
{
    while (n_bytes > 0) {
        uint64_t in_source;
        struct q2_disk *source = q2_segment_source(job, offset, &in_source);
        size_t n = (size_t)q2_min_u64(n_bytes, source->size - in_source);
        int ret = q2_disk_read(source, in_source, buf, n, err);
        if (ret < 0 && !job->options->salvage)
            return q2_context(err, "error while reading at byte %" PRIu64, offset);
        if (ret < 0)
            salvage(job, source, in_source, offset, buf, n);
        offset += n;
        buf += n;
        n_bytes -= n;
    }
    return 0;
}

// Splits data at its zeros; data that was not read is taken as it is.
static int add_data(const struct q2_convert_job *job, struct q2_window *w, size_t start,
                    size_t n_bytes, struct q2_error *err)
{
    size_t grain = job->options->sparse_grain;
    w->n_data += n_bytes;
    if (grain == 0 || w->unread)
        return q2_segment_add(w, Q2_SEGMENT_DATA, start, n_bytes, err);
    while (n_bytes > 0) {
        bool zero;
        size_t n = q2_zero_run(w->buf + start, n_bytes, grain, &zero);
        int ret =
            q2_segment_add(w, zero ? Q2_SEGMENT_ZERO : Q2_SEGMENT_DATA, start, n, err);
        if (ret < 0)
            return ret;
        start += n;
        n_bytes -= n;
    }
    return 0;
}

static int read_segments(const struct q2_convert_job *job, struct q2_window *w,
                         struct q2_error *err)
{
    for (size_t at = 0; at < w->n_bytes;) {
        enum q2_segment_kind kind;
        uint64_t n;
        int ret = q2_segment_status(job, w->start + at, w->n_bytes - at, &kind, &n, err);
        if (ret == 0 && kind == Q2_SEGMENT_DATA) {
            if (!w->unread)
                ret = q2_segment_read(job, w->start + at, w->buf + at, (size_t)n, err);
            if (ret == 0)
                ret = add_data(job, w, at, (size_t)n, err);
        } else if (ret == 0) {
            memset(w->buf + at, 0, (size_t)n);
            ret = q2_segment_add(w, kind, at, (size_t)n, err);
        }
        if (ret < 0)
            return ret;
        at += (size_t)n;
    }
    return 0;
}

// What the target allocates together and is of mixed kinds becomes data as a whole: what
// the backing file has is read.
static int fill_skipped(const struct q2_convert_job *job, struct q2_window *w,
                        const struct q2_segment *s, size_t from, size_t to,
                        struct q2_error *err)
{
    size_t start = q2_max_size(s->start, from),
           end = q2_min_size(s->start + s->n_bytes, to);
    if (s->kind != Q2_SEGMENT_SKIP || start >= end || w->unread)
        return 0;
    return q2_segment_read(job, w->start + start, w->buf + start, end - start, err);
}

// Cuts the segments at the target's grain: each is skipped, zero, or data.
static int round_to_grain(const struct q2_convert_job *job, struct q2_window *w,
                          struct q2_error *err)
{
    size_t grain =
        job->options->compress ? job->target->cluster_size : job->target->grain_size;
    size_t n_old = w->n_segments, i = 0;
    struct q2_segment *old = w->segments;
    int ret = 0;
    w->segments = NULL;
    w->n_segments = w->max_segments = 0;
    for (size_t at = 0; at < w->n_bytes && ret == 0;) {
        while (old[i].start + old[i].n_bytes <= at)
            i++;
        enum q2_segment_kind kind = old[i].kind;
        size_t end = q2_to_size(q2_min_u64(w->n_bytes, at + grain));
        size_t reach = old[i].start + old[i].n_bytes;
        if (reach >= end) { // as many as the segment holds
            end = reach == w->n_bytes ? reach : (size_t)q2_align_down(reach, grain);
        } else {
            size_t k = i + 1;
            bool mixed = false;
            for (; k < n_old && old[k].start < end; k++)
                mixed |= old[k].kind != kind;
            if (mixed)
                kind = Q2_SEGMENT_DATA;
            for (k = i; mixed && k < n_old && old[k].start < end && ret == 0; k++)
                ret = fill_skipped(job, w, &old[k], at, end, err);
        }
        if (ret == 0)
            ret = q2_segment_add(w, kind, at, end - at, err);
        at = end;
    }
    free(old);
    return ret;
}

// A cluster whose end the sources do not reach keeps what the target has behind it.
static bool must_stay_plain(const struct q2_convert_job *job, const struct q2_window *w,
                            size_t at)
{
    uint64_t end = w->start + at + job->target->cluster_size;
    return end > job->size && job->size < job->target->size;
}

static void compress_segment(const struct q2_convert_job *job, struct q2_window *w,
                             const struct q2_segment *s, uint8_t **packed)
{
    size_t cluster = job->target->cluster_size;
    assert(cluster > 0);
    for (size_t at = s->start; at < s->start + s->n_bytes; at += cluster) {
        size_t n = 0;
        if (!must_stay_plain(job, w, at))
            n = q2_compress(w->compressor, w->buf + at, cluster, *packed);
        w->packed_bytes[at / cluster] = n;
        *packed += n;
    }
}

static void compress_window(const struct q2_convert_job *job, struct q2_window *w)
{
    size_t end = (size_t)w->n_bytes;
    size_t padded = (size_t)q2_align_up(end, job->target->cluster_size);
    uint8_t *packed = w->packed;
    memset(w->buf + end, 0, padded - end);
    for (size_t i = 0; i < w->n_segments; i++) {
        if (w->segments[i].kind == Q2_SEGMENT_DATA)
            compress_segment(job, w, &w->segments[i], &packed);
    }
}

int q2_window_read(const struct q2_convert_job *job, struct q2_window *w,
                   struct q2_error *err)
{
    if (w->uniform)
        return 0;
    w->unread = q2_offload_wanted(job);
    int ret = read_segments(job, w, err);
    if (ret == 0 && job->target->cluster_size > 0)
        ret = round_to_grain(job, w, err);
    if (ret == 0 && job->options->compress)
        compress_window(job, w);
    return ret;
}
