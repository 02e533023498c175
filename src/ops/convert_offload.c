// SPDX-License-Identifier: MIT
// Copying data that does not pass through the process: the file system is asked to copy
// ranges, or to share them.
#include "ops/convert_offload.h"

#include <errno.h>

#include "base/checked.h"
#include "ops/convert_segment.h"

// Data that changes on the way, or that is looked at, has to be read.
static bool is_possible(const struct q2_convert_job *job)
{
    const struct q2_disk *t = job->target;
    return job->options->copy_range && !job->options->compress && t->data &&
           t->data_align == 1 && t->grain_size == t->cluster_size;
}

bool q2_offload_wanted(const struct q2_convert_job *job)
{
    return is_possible(job) && !atomic_load(job->offload_failed);
}

// The file that has what the extent tells of as the guest sees it; NULL: none.
static const struct q2_io *plain_file(const struct q2_disk *top, unsigned depth,
                                      const struct q2_extent *e)
{
    const struct q2_disk *layer = top;
    while (depth-- > 0)
        layer = layer->backing;
    bool plain = e->data && !e->compressed && e->has_offset && layer->data_align == 1;
    return plain ? e->file : NULL;
}

// Reads and stores what cannot be copied.
static int pass_through(const struct q2_convert_job *job, struct q2_window *w,
                        uint64_t guest_offset, uint64_t host_offset, uint64_t n_bytes,
                        struct q2_error *err)
{
    uint8_t *buf = w->buf + (guest_offset - w->start);
    size_t n = (size_t)n_bytes; // it is part of the window
    int ret = q2_segment_read(job, guest_offset, buf, n, err);
    return ret < 0 ? ret
                   : q2_disk_store(job->target, guest_offset, host_offset, buf, n, err);
}

// What the sources say in one piece of the range at guest_offset, n_bytes at most: *done.
static int copy_extent(const struct q2_convert_job *job, struct q2_window *w,
                       const struct q2_write *write, uint64_t at, uint64_t *done,
                       struct q2_error *err)
{
    uint64_t guest_offset = write->guest_offset + at, in_source;
    uint64_t host_offset = write->host_offset + at, n_bytes = write->n_bytes - at;
    struct q2_error unseen = Q2_ERROR_INIT; // reading and writing will say it better
    unsigned depth;
    struct q2_extent e;
    struct q2_disk *source = q2_segment_source(job, guest_offset, &in_source);
    n_bytes = q2_min_u64(n_bytes, source->size - in_source);
    int ret = q2_disk_status_above(source, NULL, in_source, n_bytes, &e, &depth, err);
    if (ret < 0)
        return ret;
    *done = q2_min_u64(n_bytes, e.n_bytes);
    if (e.zero && write->fresh)
        return 0;
    const struct q2_io *from = plain_file(source, depth, &e);
    if (from && !atomic_load(job->offload_failed)) {
        if (q2_io_copy(job->target->data, host_offset, from, e.host_offset, *done,
                       &unseen) == 0)
            return 0;
        atomic_store(job->offload_failed, true);
    }
    return pass_through(job, w, guest_offset, host_offset, *done, err);
}

int q2_offload_placed(const struct q2_convert_job *job, struct q2_window *w,
                      const struct q2_placed *p, struct q2_error *err)
{
    const struct q2_write *write = &p->write;
    uint8_t *buf = w->buf + (write->guest_offset - w->start);
    uint64_t n = 0;
    int ret = 0;
    if (write->head + write->tail > 0) { // with old content around it
        ret = q2_segment_read(job, write->guest_offset, buf, write->n_bytes, err);
        return ret < 0 ? ret : q2_disk_write_data(job->target, write, buf, 0, err);
    }
    for (uint64_t at = 0; at < write->n_bytes && ret == 0; at += n)
        ret = copy_extent(job, w, write, at, &n, err);
    return ret;
}
