// SPDX-License-Identifier: MIT
// What the active state uses of its file, and what of it more than once.
#include "check/uses.h"

#include <stdlib.h>

#include "base/checked.h"

int q2_scan_uses_init(struct q2_scan_uses *u, struct q2_error *err)
{
    *u = (struct q2_scan_uses){.plain = q2_counters_new()};
    return u->plain ? 0 : q2_fail_memory(err, sizeof(*u));
}

void q2_scan_uses_clear(struct q2_scan_uses *u)
{
    q2_counters_free(u->plain);
    free(u->packed);
    *u = (struct q2_scan_uses){0};
}

void q2_scan_uses_reset(struct q2_scan_uses *u)
{
    q2_counters_free(u->plain);
    u->plain = q2_counters_new(); // without memory the next use of it fails
    u->n_packed = 0;
    u->n_repeated = 0;
}

int q2_scan_use_plain(struct q2_scan_uses *u, uint64_t cluster, uint64_t n,
                      uint64_t times, struct q2_error *err)
{
    if (times == 0)
        return 0;
    return u->plain ? q2_counters_add(u->plain, cluster, n, times, err)
                    : q2_fail_memory(err, sizeof(*u));
}

int q2_scan_use_packed(struct q2_scan_uses *u, uint64_t offset, uint64_t times,
                       struct q2_error *err)
{
    void *list = u->packed;
    if (times == 0)
        return 0;
    int ret = q2_scan_grow(&list, &u->max_packed, u->n_packed, sizeof(*u->packed), err);
    if (ret < 0)
        return ret;
    u->packed = list;
    u->packed[u->n_packed++] = offset;
    u->n_repeated += times - 1;
    return 0;
}

static int by_offset(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

// A cluster cannot be compressed to less: deflate makes at most 258 bytes of two bits;
// zstd has a header and four bytes for 128 KiB.
static uint64_t least_bytes(const struct q2_scan *s)
{
    if (s->header.compression_type == Q2_COMPRESSION_ZSTD)
        return 6 + 4 * q2_div_round_up(s->cluster_size, 128U << 10);
    return q2_max_u64(s->cluster_size / (258 * 4), 1);
}

uint64_t q2_scan_uses_shared(struct q2_scan_uses *u, const struct q2_scan *s)
{
    uint64_t start, n, times, shared = u->n_repeated, least = least_bytes(s);
    for (uint64_t at = 0; q2_counters_next(u->plain, at, &start, &n, &times);
         at = start + n)
        shared += n * (times - 1);
    if (u->n_packed > 1)
        qsort(u->packed, u->n_packed, sizeof(*u->packed), by_offset);
    for (size_t i = 1; i < u->n_packed; i++)
        shared += u->packed[i] - u->packed[i - 1] < least;
    return shared;
}
