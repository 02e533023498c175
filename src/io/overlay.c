// SPDX-License-Identifier: MIT
// The overlay: a memory file holds the pages that were written, counters say which these
// are.
#include "io/overlay.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/counters.h"
#include "io/memory.h"

#define PAGE_BYTES UINT64_C(4096)
#define SECTOR_BYTES 512U // what a power cut does not tear

struct overlay {
    struct q2_io io; // first
    pthread_mutex_t lock;
    struct q2_io *below;
    struct q2_io *pages;         // content of the pages that are present
    struct q2_counters *present; // by page number
    uint64_t size;
    uint64_t below_end; // bytes of below that show through
    struct q2_overlay_entry *log;
    size_t n_log, max_log;
};

static struct overlay *overlay_of(const struct q2_io *io)
{
    return (struct overlay *)io;
}

// The part of below that shows through at offset; zeros behind it.
static int read_below(struct overlay *o, uint64_t offset, uint8_t *buf, size_t n_bytes,
                      struct q2_error *err)
{
    size_t n = 0;
    if (offset < o->below_end)
        n = (size_t)q2_min_u64(n_bytes, o->below_end - offset);
    memset(buf + n, 0, n_bytes - n);
    return n > 0 ? q2_io_read(o->below, offset, buf, n, err) : 0;
}

// A hole that is longer, and may be as long as a header says, is not walked through.
#define MANY_PAGES UINT64_C(1024)

// How far from offset the pages are alike: all present or all not.
static size_t alike(struct overlay *o, uint64_t offset, size_t n_bytes, bool *present)
{
    uint64_t end = offset + n_bytes, at = q2_align_down(offset, PAGE_BYTES);
    *present = q2_counters_get(o->present, at / PAGE_BYTES) > 0;
    if (!*present && n_bytes > MANY_PAGES * PAGE_BYTES) {
        uint64_t start, n, value;
        if (!q2_counters_next(o->present, at / PAGE_BYTES, &start, &n, &value) ||
            start > (end - 1) / PAGE_BYTES)
            return n_bytes;
        return (size_t)(start * PAGE_BYTES - offset);
    }
    do
        at += PAGE_BYTES;
    while (at < end && (q2_counters_get(o->present, at / PAGE_BYTES) > 0) == *present);
    return (size_t)(q2_min_u64(at, end) - offset);
}

static int overlay_read_locked(struct overlay *o, uint64_t offset, uint8_t *buf,
                               size_t n_bytes, struct q2_error *err)
{
    while (n_bytes > 0) {
        bool present;
        size_t n = alike(o, offset, n_bytes, &present);
        int ret = present ? q2_io_read(o->pages, offset, buf, n, err)
                          : read_below(o, offset, buf, n, err);
        if (ret < 0)
            return ret;
        offset += n;
        buf += n;
        n_bytes -= n;
    }
    return 0;
}

static int overlay_read(struct q2_io *io, uint64_t offset, void *buf, size_t n_bytes,
                        struct q2_error *err)
{
    struct overlay *o = overlay_of(io);
    pthread_mutex_lock(&o->lock);
    int ret = overlay_read_locked(o, offset, buf, n_bytes, err);
    pthread_mutex_unlock(&o->lock);
    return ret;
}

// Brings the page into the overlay.
static int fetch_page(struct overlay *o, uint64_t page, struct q2_error *err)
{
    uint8_t buf[PAGE_BYTES];
    if (q2_counters_get(o->present, page) > 0)
        return 0;
    int ret = read_below(o, page * PAGE_BYTES, buf, sizeof(buf), err);
    if (ret == 0)
        ret = q2_io_write(o->pages, page * PAGE_BYTES, buf, sizeof(buf), err);
    return ret < 0 ? ret : q2_counters_add(o->present, page, 1, 1, err);
}

static int append(struct overlay *o, enum q2_overlay_kind kind, uint64_t offset,
                  const void *buf, size_t n_bytes, struct q2_error *err)
{
    if (!o->log || o->n_log == o->max_log) {
        size_t max = o->max_log ? o->max_log * 2 : 64;
        struct q2_overlay_entry *log = realloc(o->log, max * sizeof(*log));
        if (!log)
            return q2_fail_memory(err, max * sizeof(*log));
        o->log = log;
        o->max_log = max;
    }
    uint8_t *data = NULL;
    if (n_bytes > 0) {
        data = malloc(n_bytes);
        if (!data)
            return q2_fail_memory(err, n_bytes);
        memcpy(data, buf, n_bytes);
    }
    o->log[o->n_log++] = (struct q2_overlay_entry){
        .kind = kind, .offset = offset, .n_bytes = n_bytes, .data = data};
    return 0;
}

// What lies between the start of one and the end of the other goes out as it is; it is in
// the pages by now.
static int widen(struct overlay *o, struct q2_overlay_entry *e, uint64_t offset,
                 size_t n_bytes, struct q2_error *err)
{
    uint64_t from = q2_min_u64(e->offset, offset);
    uint64_t end = q2_max_u64(e->offset + e->n_bytes, offset + n_bytes);
    size_t n = (size_t)(end - from);
    uint8_t *data = malloc(n);
    if (!data)
        return q2_fail_memory(err, n);
    int ret = q2_io_read(o->pages, from, data, n, err);
    if (ret < 0) {
        free(data);
        return ret;
    }
    free(e->data);
    *e = (struct q2_overlay_entry){
        .kind = Q2_OVERLAY_WRITE, .offset = from, .n_bytes = n, .data = data};
    return 0;
}

// A sector that is changed in several places, one after the other, is written once: a
// power cut must leave none of the changes or all.
static int log_write(struct overlay *o, uint64_t offset, const void *buf, size_t n_bytes,
                     struct q2_error *err)
{
    struct q2_overlay_entry *e = o->n_log > 0 ? &o->log[o->n_log - 1] : NULL;
    uint64_t sector = offset / SECTOR_BYTES;
    if (e && e->kind == Q2_OVERLAY_WRITE && e->offset / SECTOR_BYTES == sector &&
        (e->offset + e->n_bytes - 1) / SECTOR_BYTES == sector &&
        (offset + n_bytes - 1) / SECTOR_BYTES == sector)
        return widen(o, e, offset, n_bytes, err);
    return append(o, Q2_OVERLAY_WRITE, offset, buf, n_bytes, err);
}

static int write_locked(struct overlay *o, uint64_t offset, const void *buf,
                        size_t n_bytes, struct q2_error *err)
{
    uint64_t first = offset / PAGE_BYTES, last = (offset + n_bytes - 1) / PAGE_BYTES;
    int ret = 0;
    for (uint64_t p = first; p <= last && ret == 0; p++)
        ret = fetch_page(o, p, err);
    if (ret == 0)
        ret = q2_io_write(o->pages, offset, buf, n_bytes, err);
    if (ret == 0)
        ret = log_write(o, offset, buf, n_bytes, err);
    if (ret == 0)
        o->size = q2_max_u64(o->size, offset + n_bytes);
    return ret;
}

static int overlay_write(struct q2_io *io, uint64_t offset, const void *buf,
                         size_t n_bytes, struct q2_error *err)
{
    struct overlay *o = overlay_of(io);
    if (n_bytes == 0)
        return 0;
    pthread_mutex_lock(&o->lock);
    int ret = write_locked(o, offset, buf, n_bytes, err);
    pthread_mutex_unlock(&o->lock);
    return ret;
}

static int overlay_flush(struct q2_io *io, struct q2_error *err)
{
    struct overlay *o = overlay_of(io);
    pthread_mutex_lock(&o->lock);
    int ret = 0;
    if (o->n_log > 0 && o->log[o->n_log - 1].kind != Q2_OVERLAY_FLUSH)
        ret = append(o, Q2_OVERLAY_FLUSH, 0, NULL, 0, err);
    pthread_mutex_unlock(&o->lock);
    return ret;
}

static int overlay_set_size(struct q2_io *io, uint64_t size, struct q2_error *err)
{
    struct overlay *o = overlay_of(io);
    pthread_mutex_lock(&o->lock);
    int ret = append(o, Q2_OVERLAY_SET_SIZE, size, NULL, 0, err);
    uint64_t stored;
    if (ret == 0)
        ret = q2_io_get_size(o->pages, &stored, err);
    if (ret == 0 && size < stored)
        ret = q2_io_set_size(o->pages, size, err);
    if (ret == 0) {
        o->size = size;
        o->below_end = q2_min_u64(o->below_end, size);
    }
    pthread_mutex_unlock(&o->lock);
    return ret;
}

static int overlay_get_size(struct q2_io *io, uint64_t *size, struct q2_error *err)
{
    struct overlay *o = overlay_of(io);
    (void)err;
    pthread_mutex_lock(&o->lock);
    *size = o->size;
    pthread_mutex_unlock(&o->lock);
    return 0;
}

static int overlay_zero(struct q2_io *io, uint64_t offset, uint64_t n_bytes, bool unmap,
                        struct q2_error *err)
{
    static const uint8_t zeros[PAGE_BYTES];
    int ret = 0;
    (void)unmap;
    while (n_bytes > 0 && ret == 0) {
        size_t n = (size_t)q2_min_u64(n_bytes, sizeof(zeros));
        ret = overlay_write(io, offset, zeros, n, err);
        offset += n;
        n_bytes -= n;
    }
    return ret;
}

static int overlay_nothing(struct q2_io *io, uint64_t offset, uint64_t n_bytes,
                           struct q2_error *err)
{
    (void)io;
    (void)offset;
    (void)n_bytes;
    (void)err;
    return 0;
}

static int overlay_extent(struct q2_io *io, uint64_t offset, uint64_t *n_bytes,
                          bool *data, struct q2_error *err)
{
    struct overlay *o = overlay_of(io);
    pthread_mutex_lock(&o->lock);
    size_t n = alike(o, offset, (size_t)q2_min_u64(*n_bytes, SIZE_MAX / 2), data);
    uint64_t below_end = o->below_end;
    pthread_mutex_unlock(&o->lock);
    *n_bytes = n;
    if (*data || offset >= below_end)
        return 0;
    *n_bytes = q2_min_u64(n, below_end - offset);
    return q2_io_extent(o->below, offset, n_bytes, data, err);
}

static int overlay_disk_usage(struct q2_io *io, uint64_t *n_bytes, struct q2_error *err)
{
    return q2_io_disk_usage(overlay_of(io)->below, n_bytes, err);
}

static void overlay_close(struct q2_io *io)
{
    struct overlay *o = overlay_of(io);
    for (size_t i = 0; i < o->n_log; i++)
        free(o->log[i].data);
    free(o->log);
    q2_counters_free(o->present);
    q2_io_close(o->pages);
    pthread_mutex_destroy(&o->lock);
    free(o->io.name);
    free(o);
}

static const struct q2_io_ops overlay_ops = {
    .read = overlay_read,
    .write = overlay_write,
    .flush = overlay_flush,
    .set_size = overlay_set_size,
    .get_size = overlay_get_size,
    .zero = overlay_zero,
    .discard = overlay_nothing,
    .allocate = overlay_nothing,
    .extent = overlay_extent,
    .disk_usage = overlay_disk_usage,
    .close = overlay_close,
};

int q2_overlay_open(struct q2_io *below, struct q2_io **out, struct q2_error *err)
{
    struct overlay *o = calloc(1, sizeof(*o));
    if (!o)
        return q2_fail_memory(err, sizeof(*o));
    pthread_mutex_init(&o->lock, NULL);
    o->io = (struct q2_io){.ops = &overlay_ops,
                           .name = strdup(below->name),
                           .writable = true,
                           .sparse_growth = true};
    o->below = below;
    o->present = q2_counters_new();
    int ret = o->io.name && o->present ? q2_io_get_size(below, &o->size, err)
                                       : q2_fail_memory(err, sizeof(*o));
    if (ret == 0)
        ret = q2_memory_open("overlay", NULL, 0, &o->pages, err);
    if (ret < 0) {
        overlay_close(&o->io);
        return ret;
    }
    o->below_end = o->size;
    *out = &o->io;
    return 0;
}

const struct q2_overlay_entry *q2_overlay_log(const struct q2_io *overlay, size_t *n)
{
    const struct overlay *o = overlay_of(overlay);
    *n = o->n_log;
    return o->log;
}
