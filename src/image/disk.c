// SPDX-License-Identifier: MIT
// What raw files and qcow2 images do alike.
#include "image/disk.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/zero.h"
#include "image/codec.h"
#include "image/probe.h"

// A write up to this length goes out together with the old content around it.
#define MERGED_BYTES (UINT32_C(1) << 20)

static int check_range(const struct q2_disk *d, uint64_t guest_offset, uint64_t n_bytes,
                       struct q2_error *err)
{
    uint64_t end;
    if (q2_add_u64(guest_offset, n_bytes, &end) && end <= d->size)
        return 0;
    return q2_fail(err, -EIO,
                   "'%s': %" PRIu64 " bytes at guest offset %" PRIu64
                   " reach beyond the disk's end (%" PRIu64 ")",
                   d->path, n_bytes, guest_offset, d->size);
}

static int check_write(const struct q2_disk *d, uint64_t guest_offset, uint64_t n_bytes,
                       struct q2_error *err)
{
    if (!d->writable)
        return q2_fail(err, -EACCES, "'%s' is open for reading only", d->path);
    return check_range(d, guest_offset, n_bytes, err);
}

int q2_disk_read(struct q2_disk *d, uint64_t guest_offset, void *buf, size_t n_bytes,
                 struct q2_error *err)
{
    int ret = check_range(d, guest_offset, n_bytes, err);
    return ret < 0 ? ret : d->ops->read(d, guest_offset, buf, n_bytes, err);
}

// Old guest content; what lies behind the disk's end is zeros.
static int read_edge(struct q2_disk *d, uint64_t guest_offset, uint8_t *buf,
                     size_t n_bytes, struct q2_error *err)
{
    size_t inside = 0;
    if (guest_offset < d->size)
        inside = (size_t)q2_min_u64(n_bytes, d->size - guest_offset);
    memset(buf + inside, 0, n_bytes - inside);
    return inside > 0 ? d->ops->read(d, guest_offset, buf, inside, err) : 0;
}

// Copies old guest content to its new host place.
static int copy_edge(struct q2_disk *d, uint64_t guest_offset, uint64_t host_offset,
                     size_t n_bytes, bool fresh, struct q2_error *err)
{
    if (n_bytes == 0)
        return 0;
    uint8_t *buf = malloc(n_bytes);
    if (!buf)
        return q2_fail_memory(err, n_bytes);
    int ret = read_edge(d, guest_offset, buf, n_bytes, err);
    if (ret == 0 && !(fresh && q2_is_zero(buf, n_bytes)))
        ret = q2_disk_store(d, guest_offset, host_offset, buf, n_bytes, err);
    free(buf);
    return ret;
}

static int write_sparsely(struct q2_disk *d, const struct q2_write *w, const uint8_t *buf,
                          size_t grain, struct q2_error *err)
{
    int ret = 0;
    for (size_t at = 0, n; at < w->n_bytes && ret == 0; at += n) {
        bool zero;
        n = q2_zero_run(buf + at, w->n_bytes - at, grain, &zero);
        if (!zero)
            ret = q2_disk_store(d, w->guest_offset + at, w->host_offset + at, buf + at, n,
                                err);
    }
    return ret;
}

// May zeros be left out? In another form they are no zeros.
static bool fresh_zeros(const struct q2_disk *d, const struct q2_write *w)
{
    return w->fresh && d->data_align == 1;
}

// Old content and new in one write. Where the place reads as zeros anyway, edges of zeros
// are left out.
static int write_with_edges(struct q2_disk *d, const struct q2_write *w, const void *data,
                            struct q2_error *err)
{
    bool fresh = fresh_zeros(d, w);
    size_t total = w->head + w->n_bytes + w->tail, first = 0, end = total;
    uint64_t start = w->guest_offset - w->head;
    uint8_t *buf = malloc(total);
    if (!buf)
        return q2_fail_memory(err, total);
    uint8_t *tail = buf + w->head + w->n_bytes;
    int ret = read_edge(d, start, buf, w->head, err);
    if (ret == 0)
        ret = read_edge(d, w->guest_offset + w->n_bytes, tail, w->tail, err);
    if (ret == 0) {
        memcpy(buf + w->head, data, w->n_bytes);
        if (fresh && q2_is_zero(buf, w->head))
            first = w->head;
        if (fresh && q2_is_zero(tail, w->tail))
            end = w->head + w->n_bytes;
        ret = q2_disk_store(d, start + first, w->host_offset - w->head + first,
                            buf + first, end - first, err);
    }
    free(buf);
    return ret;
}

// A guest must not turn a disk whose format was only guessed into another format, not in
// pieces either: what counts is the first sector as it would be.
static int check_probed_raw(struct q2_disk *d, uint64_t guest_offset, const void *buf,
                            size_t n_bytes, struct q2_error *err)
{
    uint8_t start[512];
    if (!d->probed_raw || guest_offset >= sizeof(start))
        return 0;
    int ret = read_edge(d, 0, start, sizeof(start), err);
    if (ret < 0)
        return ret;
    memcpy(start + guest_offset, buf,
           q2_to_size(q2_min_u64(n_bytes, sizeof(start) - guest_offset)));
    if (!q2_probe_magic(start, sizeof(start)))
        return 0;
    return q2_fail(
        err, -EPERM,
        "'%s': the format was guessed as raw, so the first sector cannot be "
        "overwritten with another format's header; name the format to allow it",
        d->path);
}

int q2_disk_write_data(struct q2_disk *d, const struct q2_write *w, const void *buf,
                       size_t zero_grain, struct q2_error *err)
{
    bool fresh = fresh_zeros(d, w), sparsely = fresh && zero_grain > 0;
    if (w->compressed_bytes > 0)
        return q2_io_write(d->file, w->host_offset, buf, w->compressed_bytes, err);
    int ret = check_probed_raw(d, w->guest_offset, buf, q2_to_size(w->n_bytes), err);
    if (ret < 0)
        return ret;
    if (!sparsely && w->head + w->tail > 0 &&
        w->head + w->n_bytes + w->tail <= MERGED_BYTES)
        return write_with_edges(d, w, buf, err);
    ret = copy_edge(d, w->guest_offset - w->head, w->host_offset - w->head, w->head,
                    fresh, err);
    if (ret == 0)
        ret = sparsely ? write_sparsely(d, w, buf, zero_grain, err)
                       : q2_disk_store(d, w->guest_offset, w->host_offset, buf,
                                       w->n_bytes, err);
    if (ret == 0)
        ret = copy_edge(d, w->guest_offset + w->n_bytes, w->host_offset + w->n_bytes,
                        w->tail, fresh, err);
    return ret;
}

int q2_disk_put(struct q2_disk *d, uint64_t guest_offset, const void *buf, size_t n_bytes,
                struct q2_error *err)
{
    const uint8_t *at = buf;
    int ret = 0;
    while (n_bytes > 0 && ret == 0) {
        struct q2_write w;
        ret = d->ops->write_begin(d, guest_offset, n_bytes, &w, err);
        if (ret < 0)
            break;
        ret = q2_disk_write_data(d, &w, at, 0, err);
        if (ret < 0) {
            d->ops->write_cancel(d, &w);
            break;
        }
        ret = d->ops->write_finish(d, &w, err);
        guest_offset += w.n_bytes;
        at += w.n_bytes;
        n_bytes -= w.n_bytes;
    }
    return ret;
}

// The end of a write: ret is how it went so far.
static int flush_write(struct q2_disk *d, int ret, struct q2_error *err)
{
    return ret == 0 && d->flush_writes ? d->ops->flush(d, err) : ret;
}

size_t q2_disk_read_step(const struct q2_disk *d)
{
    size_t step = 512U << 10;
    for (; d; d = d->backing)
        step = d->cluster_size > step ? d->cluster_size : step;
    return step;
}

int q2_disk_write(struct q2_disk *d, uint64_t guest_offset, const void *buf,
                  size_t n_bytes, struct q2_error *err)
{
    int ret = check_write(d, guest_offset, n_bytes, err);
    if (ret < 0 || n_bytes == 0)
        return ret;
    if (d->detect_zeroes && q2_is_zero(buf, n_bytes))
        ret = d->ops->write_zeroes(d, guest_offset, n_bytes,
                                   d->detect_zeroes_unmap ? Q2_ZERO_UNMAP : 0, err);
    else
        ret = q2_disk_put(d, guest_offset, buf, n_bytes, err);
    return flush_write(d, ret, err);
}

int q2_disk_write_zeroes(struct q2_disk *d, uint64_t guest_offset, uint64_t n_bytes,
                         unsigned flags, struct q2_error *err)
{
    int ret = check_write(d, guest_offset, n_bytes, err);
    if (ret < 0 || n_bytes == 0)
        return ret;
    ret = d->ops->write_zeroes(d, guest_offset, n_bytes, flags, err);
    return flush_write(d, ret, err);
}

int q2_disk_discard(struct q2_disk *d, uint64_t guest_offset, uint64_t n_bytes,
                    struct q2_error *err)
{
    int ret = check_write(d, guest_offset, n_bytes, err);
    if (ret < 0 || n_bytes == 0 || !d->ops->discard)
        return ret;
    ret = d->ops->discard(d, guest_offset, n_bytes, err);
    return flush_write(d, ret, err);
}

static int put_compressed(struct q2_disk *d, uint64_t guest_offset, const void *packed,
                          size_t n_packed, struct q2_error *err)
{
    struct q2_write w;
    int ret = d->ops->write_begin_compressed(d, guest_offset, n_packed, &w, err);
    if (ret < 0)
        return ret;
    ret = q2_disk_write_data(d, &w, packed, 0, err);
    if (ret < 0) {
        d->ops->write_cancel(d, &w);
        return ret;
    }
    return d->ops->write_finish(d, &w, err);
}

// Compresses the cluster into packed, behind a zero-padded copy of it; 0: does not
// shrink.
static int pack(const struct q2_disk *d, const void *buf, size_t n_bytes, uint8_t *padded,
                size_t *n_packed, struct q2_error *err)
{
    size_t cluster_size = d->cluster_size;
    struct q2_compressor *c;
    int ret = q2_compressor_new(d->compression, 0, &c, err);
    if (ret < 0)
        return ret;
    memcpy(padded, buf, n_bytes);
    memset(padded + n_bytes, 0, cluster_size - n_bytes);
    *n_packed = q2_compress(c, padded, cluster_size, padded + cluster_size);
    q2_compressor_free(c);
    return 0;
}

int q2_disk_write_compressed(struct q2_disk *d, uint64_t guest_offset, const void *buf,
                             size_t n_bytes, struct q2_error *err)
{
    int ret = check_write(d, guest_offset, n_bytes, err);
    if (ret < 0)
        return ret;
    if (!d->ops->write_begin_compressed)
        return q2_fail(err, -ENOTSUP, "Compression not supported for this file format");
    size_t n_packed;
    if (!q2_is_aligned(guest_offset, d->cluster_size) || n_bytes > d->cluster_size ||
        (n_bytes < d->cluster_size && guest_offset + n_bytes != d->size))
        return q2_fail(err, -EINVAL,
                       "'%s': %zu bytes at guest offset %" PRIu64
                       " are not a cluster to compress",
                       d->path, n_bytes, guest_offset);
    uint8_t *padded = malloc(2 * (size_t)d->cluster_size);
    if (!padded)
        return q2_fail_memory(err, 2 * (size_t)d->cluster_size);
    ret = pack(d, buf, n_bytes, padded, &n_packed, err);
    if (ret == 0)
        ret = n_packed > 0 ? put_compressed(d, guest_offset, padded + d->cluster_size,
                                            n_packed, err)
                           : q2_disk_put(d, guest_offset, buf, n_bytes, err);
    free(padded);
    return flush_write(d, ret, err);
}

int q2_disk_flush(struct q2_disk *d, struct q2_error *err)
{
    return d->ops->flush(d, err);
}

int q2_disk_finish(struct q2_disk *d, struct q2_error *err)
{
    return d->ops->finish ? d->ops->finish(d, err) : d->ops->flush(d, err);
}

int q2_disk_status(struct q2_disk *d, uint64_t guest_offset, uint64_t n_bytes,
                   struct q2_extent *e, struct q2_error *err)
{
    int ret = check_range(d, guest_offset, 1, err);
    if (ret < 0)
        return ret;
    n_bytes = q2_min_u64(n_bytes, d->size - guest_offset);
    ret = d->ops->status(d, guest_offset, n_bytes, e, err);
    if (ret < 0 || e->allocated)
        return ret;
    // Unallocated: zeros where no backing file shows through.
    if (!d->backing || guest_offset >= d->backing->size)
        e->zero = true;
    else
        e->n_bytes = q2_min_u64(e->n_bytes, d->backing->size - guest_offset);
    return 0;
}

int q2_disk_status_above(struct q2_disk *d, const struct q2_disk *base,
                         uint64_t guest_offset, uint64_t n_bytes, struct q2_extent *e,
                         unsigned *depth, struct q2_error *err)
{
    *depth = 0;
    int ret = q2_disk_status(d, guest_offset, n_bytes, e, err);
    if (ret < 0 || e->allocated || d == base)
        return ret;
    for (struct q2_disk *p = d->backing; p && p != base; p = p->backing) {
        ++*depth;
        if (guest_offset >= p->size) {
            // Zeros behind a short layer's end count as that layer's.
            e->zero = e->allocated = true;
            return 0;
        }
        ret = q2_disk_status(p, guest_offset, e->n_bytes, e, err);
        if (ret < 0 || e->allocated)
            return ret;
    }
    return 0;
}

void q2_disk_drop(struct q2_disk *d)
{
    struct q2_io *data = d->data != d->file ? d->data : NULL;
    char *path = d->path;
    d->ops->release(d);
    q2_io_close(data);
    free(path);
}

void q2_disk_close(struct q2_disk *d)
{
    while (d) {
        struct q2_disk *backing = d->backing;
        struct q2_io *file = d->file;
        q2_disk_drop(d);
        q2_io_close(file);
        d = backing;
    }
}
