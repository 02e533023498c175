// SPDX-License-Identifier: MIT
// What is used of an image's file, what of it more than once, and whether all of it that
// is compressed inflates.
#include "check/uses.h"

#include <errno.h>
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

int q2_scan_use_packed(struct q2_scan_uses *u, const struct q2_l2_entry *e,
                       uint64_t times, struct q2_error *err)
{
    void *list = u->packed;
    int ret = q2_scan_grow(&list, &u->max_packed, u->n_packed, sizeof(*u->packed), err);
    if (ret < 0)
        return ret;
    u->packed = list;
    u->packed[u->n_packed++] = (struct q2_packed_use){
        .offset = e->host_offset, .n_bytes = e->n_bytes, .active = times > 0};
    if (times > 1)
        u->n_repeated += times - 1;
    return 0;
}

// A cluster cannot be compressed to less: deflate makes at most 258 bytes of two bits;
// zstd has a header and four bytes for 128 KiB.
static uint64_t least_bytes(const struct q2_scan *s)
{
    if (s->header.compression_type == Q2_COMPRESSION_ZSTD)
        return 6 + 4 * q2_div_round_up(s->cluster_size, 128U << 10);
    return q2_max_u64(s->cluster_size / (258 * 4), 1);
}

static int by_place(const void *a, const void *b)
{
    const struct q2_packed_use *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return (x->n_bytes > y->n_bytes) - (x->n_bytes < y->n_bytes);
}

// A snapshot and the active state may use the same; what is not the same is apart.
static uint64_t settle_packed(struct q2_scan_uses *u, uint64_t least)
{
    uint64_t shared = 0;
    size_t n = 0;
    if (u->n_packed > 1)
        qsort(u->packed, u->n_packed, sizeof(*u->packed), by_place);
    for (size_t i = 0; i < u->n_packed; i++) {
        struct q2_packed_use *last = n > 0 ? &u->packed[n - 1] : NULL;
        const struct q2_packed_use *now = &u->packed[i];
        if (last && by_place(last, now) == 0) {
            shared += last->active && now->active;
            last->active |= now->active;
        } else {
            shared += last && now->offset - last->offset < least;
            u->packed[n++] = *now;
        }
    }
    u->n_packed = n;
    return shared;
}

uint64_t q2_scan_uses_settle(struct q2_scan_uses *u, const struct q2_scan *s)
{
    uint64_t start, n, times, shared = u->n_repeated;
    for (uint64_t at = 0; q2_counters_next(u->plain, at, &start, &n, &times);
         at = start + n)
        shared += n * (times - 1);
    return shared + settle_packed(u, least_bytes(s));
}

int q2_scan_uses_inflate(const struct q2_scan_uses *u, struct q2_scan *s,
                         const struct q2_monitor *mon, uint64_t *n_broken,
                         struct q2_finding *first, struct q2_error *err)
{
    int ret = 0;
    *n_broken = 0;
    for (size_t i = 0; i < u->n_packed && ret == 0; i++) {
        const struct q2_packed_use *p = &u->packed[i];
        const struct q2_l2_entry e = {.kind = Q2_CLUSTER_COMPRESSED,
                                      .host_offset = p->offset,
                                      .n_bytes = p->n_bytes};
        bool yes = false;
        ret = q2_scan_inflates(s, &e, &yes, err);
        if (ret == 0 && !yes && (*n_broken)++ == 0)
            *first = (struct q2_finding){.problem = Q2_PROBLEM_COMPRESSED_BROKEN,
                                         .has = Q2_HAS_OFFSET | Q2_HAS_SIZE,
                                         .offset = p->offset,
                                         .size = p->n_bytes};
        q2_monitor_progress(mon, i + 1, u->n_packed);
        if (ret == 0 && q2_monitor_cancelled(mon))
            ret = q2_fail(err, -ECANCELED, "The check was stopped");
    }
    return ret;
}
