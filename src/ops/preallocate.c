// SPDX-License-Identifier: MIT
// Preallocation: the same steps as a write, with nothing written between begin and
// finish.
#include "ops/preallocate.h"

#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "image/image.h"

#define STEP_BYTES (UINT64_C(1) << 30)
#define ZERO_PIECE_BYTES (UINT32_C(2) << 20)

static int write_zeros(struct q2_io *io, uint64_t host_offset, uint64_t n_bytes,
                       const struct q2_monitor *mon, struct q2_error *err)
{
    void *zeros = calloc(1, ZERO_PIECE_BYTES);
    int ret = zeros ? 0 : q2_fail_memory(err, ZERO_PIECE_BYTES);
    while (n_bytes > 0 && ret == 0) {
        size_t n = (size_t)q2_min_u64(n_bytes, ZERO_PIECE_BYTES);
        if (q2_monitor_cancelled(mon))
            ret = q2_fail(err, -ECANCELED, "Preallocation was stopped");
        else
            ret = q2_io_write(io, host_offset, zeros, n, err);
        host_offset += n;
        n_bytes -= n;
    }
    free(zeros);
    return ret;
}

int q2_preallocate_file(struct q2_io *io, uint64_t offset, uint64_t n_bytes,
                        enum q2_preallocation mode, const struct q2_monitor *mon,
                        struct q2_error *err)
{
    if (mode == Q2_PREALLOC_FALLOC)
        return q2_io_allocate(io, offset, n_bytes, err);
    if (mode == Q2_PREALLOC_FULL)
        return write_zeros(io, offset, n_bytes, mon, err);
    return 0;
}

// A cluster that was in use before may be handed out again: its old content must not
// show.
static int clear_used(struct q2_io *io, uint64_t host_offset, uint64_t n_bytes,
                      struct q2_error *err)
{
    uint64_t file_size;
    int ret = q2_io_get_size(io, &file_size, err);
    if (ret < 0 || host_offset >= file_size)
        return ret;
    return q2_io_zero(io, host_offset, q2_min_u64(n_bytes, file_size - host_offset),
                      false, err);
}

// Where the space does not suffice, what is left of it is needed to take back the rest.
static void give_back(struct q2_disk *d, const struct q2_write *w)
{
    struct q2_error ignored = Q2_ERROR_INIT;
    uint64_t host_offset = w->host_offset - w->head, file_size;
    uint64_t n_bytes = w->head + w->n_bytes + w->tail;
    if (!w->taken || q2_io_get_size(d->data, &file_size, &ignored) < 0 ||
        host_offset >= file_size)
        return;
    q2_io_discard(d->data, host_offset, q2_min_u64(n_bytes, file_size - host_offset),
                  &ignored);
}

static int back_with_space(struct q2_disk *d, const struct q2_write *w, bool clear,
                           enum q2_preallocation mode, const struct q2_monitor *mon,
                           struct q2_error *err)
{
    uint64_t host_offset = w->host_offset - w->head;
    uint64_t n_bytes = w->head + w->n_bytes + w->tail;
    int ret = 0;
    if (clear && !w->fresh && mode != Q2_PREALLOC_FULL)
        ret = clear_used(d->data, host_offset, n_bytes, err);
    if (ret == 0)
        ret = q2_preallocate_file(d->data, host_offset, n_bytes, mode, mon, err);
    return ret;
}

// Version 2 cannot say that what an encrypted cluster holds by chance reads as zeros:
// these are written.
static int write_encrypted_zeros(struct q2_disk *d, const struct q2_write *w,
                                 struct q2_error *err)
{
    if (d->ops != &q2_image_disk_ops || !q2_image_is_encrypted(q2_image_of(d)) ||
        q2_image_of(d)->header.version >= 3)
        return 0;
    return d->ops->write_zeroes(d, w->guest_offset, w->n_bytes, 0, err);
}

static int preallocate(struct q2_disk *d, uint64_t from, bool clear,
                       enum q2_preallocation mode, const struct q2_monitor *mon,
                       struct q2_error *err)
{
    if (mode == Q2_PREALLOC_OFF)
        return 0;
    for (uint64_t at = from; at < d->size;) {
        struct q2_write w;
        if (q2_monitor_cancelled(mon))
            return q2_fail(err, -ECANCELED, "Preallocation was stopped");
        int ret = d->ops->write_begin(d, at, (size_t)q2_min_u64(d->size - at, STEP_BYTES),
                                      &w, err);
        if (ret < 0)
            return ret;
        w.reserve = true;
        ret = back_with_space(d, &w, clear, mode, mon, err);
        if (ret == 0) {
            ret = d->ops->write_finish(d, &w, err);
        } else {
            give_back(d, &w);
            d->ops->write_cancel(d, &w);
        }
        if (ret == 0)
            ret = write_encrypted_zeros(d, &w, err);
        if (ret < 0)
            return ret;
        at += w.n_bytes;
        q2_monitor_progress(mon, at - from, d->size - from);
    }
    return 0;
}

int q2_preallocate(struct q2_disk *d, enum q2_preallocation mode,
                   const struct q2_monitor *mon, struct q2_error *err)
{
    return preallocate(d, 0, false, mode, mon, err);
}

int q2_preallocate_from(struct q2_disk *d, uint64_t from, enum q2_preallocation mode,
                        const struct q2_monitor *mon, struct q2_error *err)
{
    return preallocate(d, from, true, mode, mon, err);
}
