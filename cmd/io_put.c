// SPDX-License-Identifier: MIT
// io: how a write is carried out.
#include <errno.h>

#include "base/checked.h"
#include "cmd/io_write.h"
#include "image/image.h"

// Does the range read as zeros, and is that known without reading it?
static int reads_as_zeros(struct q2_disk *d, uint64_t start, uint64_t end, bool *zeros,
                          struct q2_error *err)
{
    struct q2_extent e;
    unsigned depth;
    for (; *zeros && start < end; start += e.n_bytes) {
        int rc = q2_disk_status_above(d, NULL, start, end - start, &e, &depth, err);
        if (rc)
            return rc;
        *zeros = !e.allocated || e.zero;
    }
    return 0;
}

// A cluster of which from .. to are to become zeros: the rest reads as zeros, and nothing
// is stored in it.
static int may_zero_all(struct q2_disk *d, uint64_t from, uint64_t to, bool *may,
                        struct q2_error *err)
{
    struct q2_extent e;
    uint64_t start = q2_align_down(from, d->cluster_size);
    uint64_t end = q2_min_u64(start + d->cluster_size, d->size);
    if (start == from && end == to)
        return 0;
    int rc = q2_disk_status(d, start, end - start, &e, err);
    *may = *may && !e.data;
    if (!rc)
        rc = reads_as_zeros(d, start, from, may, err);
    return rc ? rc : reads_as_zeros(d, to, end, may, err);
}

// Zeros that are to be cheap: a format without zero clusters has none, and of a cluster
// that is cut the rest must be zeros already.
static int refuse_fallback(struct q2_disk *d, uint64_t offset, uint64_t n_bytes,
                           struct q2_error *err)
{
    if (d->ops != &q2_image_disk_ops || !n_bytes)
        return 0;
    bool may = q2_image_of(d)->header.version >= 3;
    uint64_t end = offset + n_bytes, cluster = d->cluster_size;
    uint64_t first_end = q2_min_u64(q2_align_down(offset, cluster) + cluster, end);
    uint64_t last_start = q2_max_u64(q2_align_down(end - 1, cluster), offset);
    int rc = may_zero_all(d, offset, first_end, &may, err);
    if (!rc && last_start >= first_end)
        rc = may_zero_all(d, last_start, end, &may, err);
    if (rc)
        return rc;
    return may ? 0 : q2_fail(err, -ENOTSUP, "%s", "");
}

static int write_zeroes(struct q2_disk *d, const struct q2_shell_writing *r,
                        struct q2_error *err)
{
    int rc =
        r->no_fallback ? refuse_fallback(d, r->report.offset, r->report.n_bytes, err) : 0;
    return rc ? rc
              : q2_disk_write_zeroes(d, r->report.offset, r->report.n_bytes,
                                     r->unmap ? Q2_ZERO_UNMAP : 0, err);
}

static int write_compressed(struct q2_disk *d, const struct q2_shell_writing *r,
                            const uint8_t *buf, struct q2_error *err)
{
    uint64_t at = r->report.offset, end = at + r->report.n_bytes;
    uint32_t cluster = d->cluster_size;
    if (!cluster)
        return q2_fail(err, -ENOTSUP, "%s", "");
    if (at % cluster || (end % cluster && end != d->size))
        return q2_fail(err, -EINVAL, "%s", "");
    int rc = 0;
    for (; !rc && at < end; at += cluster)
        rc = q2_disk_write_compressed(d, at, buf + (at - r->report.offset),
                                      (size_t)q2_min_u64(cluster, end - at), err);
    return rc;
}

static int write_vm_state(struct q2_disk *d, const struct q2_shell_writing *r,
                          const uint8_t *buf, struct q2_error *err)
{
    if (d->ops != &q2_image_disk_ops)
        return q2_fail(err, -ENOTSUP, "%s", "");
    return q2_image_write_vmstate(q2_image_of(d), r->report.offset, buf,
                                  (size_t)r->report.n_bytes, err);
}

int q2_shell_put(struct q2_shell *shell, const struct q2_shell_writing *r,
                 const uint8_t *buf, struct q2_error *err)
{
    struct q2_disk *d = shell->disk;
    int rc = r->vm_state
                 ? 0
                 : q2_shell_check_range(d, r->report.offset, r->report.n_bytes, err);
    if (rc || !r->report.n_bytes)
        return rc;
    if (r->vm_state)
        rc = write_vm_state(d, r, buf, err);
    else if (r->zeroes)
        rc = write_zeroes(d, r, err);
    else if (r->compressed)
        rc = write_compressed(d, r, buf, err);
    else
        rc = q2_disk_write(d, r->report.offset, buf, (size_t)r->report.n_bytes, err);
    if (!rc && (r->durable || !shell->mode.write_back))
        rc = q2_disk_flush(d, err);
    return rc;
}
