// SPDX-License-Identifier: MIT
// Plain guest clusters in the file that holds them. Most are kept as the guest sees them;
// a disk that keeps them in another form does so by whole sectors.
#include "image/disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

static int refuse_closed(const struct q2_disk *d, struct q2_error *err)
{
    return q2_fail(err, -EIO, "'%s': the file that holds its guest data is not open",
                   d->path);
}

static bool is_whole(const struct q2_disk *d, uint64_t host_offset, size_t n_bytes)
{
    return q2_is_aligned(host_offset, d->data_align) &&
           q2_is_aligned(n_bytes, d->data_align);
}

// A request widened to whole sectors.
struct widened {
    size_t head;    // bytes before it
    size_t n_bytes; // all
    uint8_t *buf;
};

static int widen(const struct q2_disk *d, uint64_t host_offset, size_t n_bytes,
                 struct widened *w, struct q2_error *err)
{
    w->head = (size_t)(host_offset & (d->data_align - 1));
    w->n_bytes = (size_t)q2_align_up(w->head + n_bytes, d->data_align);
    w->buf = malloc(w->n_bytes);
    return w->buf ? 0 : q2_fail_memory(err, w->n_bytes);
}

static int load_part(struct q2_disk *d, uint64_t guest_offset, uint64_t host_offset,
                     void *buf, size_t n_bytes, struct q2_error *err)
{
    struct widened w;
    int ret = widen(d, host_offset, n_bytes, &w, err);
    if (ret < 0)
        return ret;
    ret = d->ops->load(d, guest_offset - w.head, host_offset - w.head, w.buf, w.n_bytes,
                       err);
    if (ret == 0)
        memcpy(buf, w.buf + w.head, n_bytes);
    free(w.buf);
    return ret;
}

int q2_disk_load(struct q2_disk *d, uint64_t guest_offset, uint64_t host_offset,
                 void *buf, size_t n_bytes, struct q2_error *err)
{
    if (!d->data)
        return refuse_closed(d, err);
    if (d->data_align == 1)
        return q2_io_read(d->data, host_offset, buf, n_bytes, err);
    return is_whole(d, host_offset, n_bytes)
               ? d->ops->load(d, guest_offset, host_offset, buf, n_bytes, err)
               : load_part(d, guest_offset, host_offset, buf, n_bytes, err);
}

static int store_part(struct q2_disk *d, uint64_t guest_offset, uint64_t host_offset,
                      const void *buf, size_t n_bytes, struct q2_error *err)
{
    struct widened w;
    size_t sector = d->data_align;
    int ret = widen(d, host_offset, n_bytes, &w, err);
    if (ret < 0)
        return ret;
    uint64_t guest = guest_offset - w.head, host = host_offset - w.head;
    // The first and the last sector may be one and the same.
    size_t last = w.n_bytes - sector;
    if (w.head > 0)
        ret = d->ops->load(d, guest, host, w.buf, sector, err);
    if (ret == 0 && w.head + n_bytes < w.n_bytes && (last > 0 || w.head == 0))
        ret = d->ops->load(d, guest + last, host + last, w.buf + last, sector, err);
    if (ret == 0) {
        memcpy(w.buf + w.head, buf, n_bytes);
        ret = d->ops->store(d, guest, host, w.buf, w.n_bytes, err);
    }
    free(w.buf);
    return ret;
}

int q2_disk_store(struct q2_disk *d, uint64_t guest_offset, uint64_t host_offset,
                  const void *buf, size_t n_bytes, struct q2_error *err)
{
    if (!d->data)
        return refuse_closed(d, err);
    if (d->data_align == 1)
        return q2_io_write(d->data, host_offset, buf, n_bytes, err);
    return is_whole(d, host_offset, n_bytes)
               ? d->ops->store(d, guest_offset, host_offset, buf, n_bytes, err)
               : store_part(d, guest_offset, host_offset, buf, n_bytes, err);
}
