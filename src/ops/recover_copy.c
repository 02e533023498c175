// SPDX-License-Identifier: MIT
// Of a file that a recovery has looked through, what is in use, copied into a new one.
#include "ops/recover_copy.h"

#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/zero.h"

#define COPY_BYTES ((size_t)1 << 20)
#define ZERO_GRAIN 4096U

// Zeros are left out: the target is new.
static int put(struct q2_io *to, uint64_t offset, const uint8_t *buf, size_t n_bytes,
               struct q2_error *err)
{
    int ret = 0;
    bool zero;
    for (size_t at = 0, n; at < n_bytes && ret == 0; at += n) {
        n = q2_zero_run(buf + at, n_bytes - at, ZERO_GRAIN, &zero);
        if (!zero)
            ret = q2_io_write(to, offset + at, buf + at, n, err);
    }
    return ret;
}

// The clusters from start on, without the header's: that one comes last.
static int copy_run(struct q2_io *from, struct q2_io *to, uint64_t start, uint64_t end,
                    uint8_t *buf, const struct q2_monitor *mon, struct q2_error *err)
{
    int ret = 0;
    bool data;
    for (uint64_t at = start, n; at < end && ret == 0; at += n) {
        n = end - at;
        ret = q2_io_extent(from, at, &n, &data, err);
        n = q2_min_u64(n, end - at);
        if (ret < 0 || !data)
            continue;
        n = q2_min_u64(n, COPY_BYTES);
        ret = q2_io_read(from, at, buf, (size_t)n, err);
        if (ret == 0)
            ret = put(to, at, buf, (size_t)n, err);
        if (ret == 0 && q2_monitor_cancelled(mon))
            ret = q2_fail(err, -ECANCELED, "Interrupted");
    }
    return ret;
}

static int copy_used(const struct q2_plan *p, struct q2_io *to, uint8_t *buf,
                     const struct q2_monitor *mon, struct q2_error *err)
{
    const struct q2_scan *s = &p->after;
    unsigned bits = s->cluster_bits;
    uint64_t start, n, value, file_size, last = 1;
    int ret = q2_io_get_size(p->overlay, &file_size, err);
    file_size = q2_align_up(file_size, s->cluster_size);
    for (uint64_t at = 1;
         ret == 0 && q2_counters_next(s->references, at, &start, &n, &value);
         at = start + n) {
        uint64_t end = q2_min_u64((start + n) << bits, file_size);
        last = q2_max_u64(last, q2_min_u64(start + n, file_size >> bits));
        ret = copy_run(p->overlay, to, start << bits, end, buf, mon, err);
        q2_monitor_progress(mon, end, file_size);
    }
    return ret < 0 ? ret : q2_io_set_size(to, last << bits, err);
}

int q2_recover_copy(const struct q2_plan *p, struct q2_io *to,
                    const struct q2_monitor *mon, struct q2_error *err)
{
    size_t cluster_size = p->after.cluster_size;
    size_t n_bytes = cluster_size > COPY_BYTES ? cluster_size : COPY_BYTES;
    uint8_t *buf = malloc(n_bytes);
    int ret = buf ? copy_used(p, to, buf, mon, err) : q2_fail_memory(err, n_bytes);
    if (ret == 0)
        ret = q2_io_flush(to, err);
    if (ret == 0)
        ret = q2_io_read(p->overlay, 0, buf, cluster_size, err);
    if (ret == 0)
        ret = q2_io_write(to, 0, buf, cluster_size, err);
    if (ret == 0)
        ret = q2_io_flush(to, err);
    free(buf);
    return ret;
}
