// SPDX-License-Identifier: MIT
// Comparing two disks. One cursor walks both allocation maps in guest order and hands out
// what has to be read; every processor reads and compares. The lowest offset at which
// anything happened is the result, so that it does not depend on their number.
#include "ops/compare.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/pool.h"
#include "base/zero.h"

#define SECTOR 512U
#define BUFFER_ALIGN 4096U

struct side {
    struct q2_disk *disk;
    uint64_t start, end; // what extent is about
    struct q2_extent extent;
};

struct piece {
    uint64_t offset;
    size_t n_bytes;
    bool read[2]; // the other one reads as zeros
};

struct comparison {
    pthread_mutex_t lock; // all below
    struct side sides[2];
    uint64_t offset, size; // of the longer one
    size_t step;           // read at a time, at most
    bool strict;
    const struct q2_monitor *mon;
    // What happened at the lowest offset so far.
    bool happened;
    uint64_t at;
    struct q2_compare_result result;
    struct q2_error *err;
};

// The cursor stays behind everything that was handed out, so that what happens there or
// later cannot be the first thing that happened.
static void record(struct comparison *c, uint64_t at, enum q2_compare_verdict verdict,
                   const struct q2_error *err, bool was_read)
{
    if (c->happened && at >= c->at)
        return;
    c->happened = true;
    c->at = at;
    c->result.verdict = verdict;
    c->result.offset = at;
    c->result.read_failed = err && was_read;
    *c->err = err ? *err : (struct q2_error)Q2_ERROR_INIT;
}

static int refresh(struct comparison *c, struct side *s, struct q2_error *err)
{
    if (c->offset >= s->start && c->offset < s->end)
        return 0;
    s->start = c->offset;
    if (c->offset >= s->disk->size) { // the longer one is compared with zeros
        s->extent = (struct q2_extent){.zero = true};
        s->end = c->size;
        return 0;
    }
    unsigned depth;
    uint64_t n = q2_min_u64(s->disk->size - c->offset, q2_disk_map_step(s->disk->size));
    int rc = q2_disk_status_above(s->disk, NULL, c->offset, n, &s->extent, &depth, err);
    if (rc)
        return q2_context(err, "Sector allocation test failed for %s", s->disk->path);
    s->end = c->offset + s->extent.n_bytes;
    return 0;
}

static bool same_status(const struct q2_extent *a, const struct q2_extent *b)
{
    return a->allocated == b->allocated && a->zero == b->zero && a->data == b->data &&
           a->compressed == b->compressed && a->has_offset == b->has_offset;
}

static bool has_bytes(const struct side *s)
{
    return s->extent.allocated && !s->extent.zero;
}

// With the lock held: moves the cursor over the next piece that has to be read. False
// when there is none, or nothing that could still be the first.
static bool next_piece(struct comparison *c, struct piece *p, struct q2_error *err)
{
    struct side *a = &c->sides[0], *b = &c->sides[1];
    while (c->offset < c->size && !c->happened) {
        if (q2_monitor_cancelled(c->mon))
            q2_fail(err, -ECANCELED, "Stopped");
        if (err->code || refresh(c, a, err) || refresh(c, b, err)) {
            record(c, c->offset, Q2_COMPARE_CONTENT, err, false);
            return false;
        }
        if (c->strict && !same_status(&a->extent, &b->extent)) {
            record(c, c->offset, Q2_COMPARE_STATUS, NULL, false);
            return false;
        }
        uint64_t n = q2_min_u64(a->end, b->end) - c->offset;
        p->offset = c->offset;
        p->read[0] = has_bytes(a);
        p->read[1] = has_bytes(b);
        bool found = p->read[0] || p->read[1];
        p->n_bytes = (size_t)(found ? q2_min_u64(n, c->step) : 0);
        c->offset += found ? p->n_bytes : n;
        if (found)
            return true;
    }
    return false;
}

static int read_side(const struct side *s, const struct piece *p, void *buf,
                     struct q2_error *err)
{
    int rc = q2_disk_read(s->disk, p->offset, buf, p->n_bytes, err);
    if (rc)
        q2_context(err, "Error while reading offset %" PRIu64 " of %s", p->offset,
                   s->disk->path);
    return rc;
}

static bool sectors_equal(const uint8_t *a, const uint8_t *b, size_t n)
{
    return a && b ? !memcmp(a, b, n) : q2_is_zero(a ? a : b, n);
}

// Index of the first byte of the first sector that differs, n if none does. NULL: zeros.
static size_t first_difference(const uint8_t *a, const uint8_t *b, size_t n)
{
    if (sectors_equal(a, b, n))
        return n;
    size_t i = 0;
    while (sectors_equal(a ? a + i : NULL, b ? b + i : NULL,
                         n - i < SECTOR ? n - i : SECTOR))
        i += SECTOR;
    return i;
}

static void compare_piece(struct comparison *c, const struct piece *p,
                          uint8_t *const bufs[2], struct q2_error *err)
{
    const uint8_t *data[2] = {NULL, NULL};
    int rc = 0;
    for (int i = 0; !rc && i < 2; i++) {
        if (p->read[i])
            rc = read_side(&c->sides[i], p, bufs[i], err);
        data[i] = p->read[i] ? bufs[i] : NULL;
    }
    size_t same = rc ? 0 : first_difference(data[0], data[1], p->n_bytes);
    pthread_mutex_lock(&c->lock);
    if (rc)
        record(c, p->offset, Q2_COMPARE_CONTENT, err, true);
    else if (same < p->n_bytes)
        record(c, p->offset + same, Q2_COMPARE_CONTENT, NULL, false);
    else
        q2_monitor_progress(c->mon, c->offset, c->size);
    pthread_mutex_unlock(&c->lock);
}

static int work(void *opaque, unsigned index)
{
    struct comparison *c = opaque;
    struct q2_error err = Q2_ERROR_INIT;
    struct piece p;
    uint8_t *bufs[2] = {aligned_alloc(BUFFER_ALIGN, c->step),
                        aligned_alloc(BUFFER_ALIGN, c->step)};
    (void)index;
    if (!bufs[0] || !bufs[1])
        q2_fail_memory(&err, 2 * c->step);
    for (bool more = true; more;) {
        pthread_mutex_lock(&c->lock);
        more = next_piece(c, &p, &err);
        pthread_mutex_unlock(&c->lock);
        if (more)
            compare_piece(c, &p, bufs, &err);
    }
    free(bufs[0]);
    free(bufs[1]);
    return 0;
}

int q2_compare(struct q2_disk *a, struct q2_disk *b, bool strict,
               const struct q2_monitor *mon, struct q2_compare_result *result,
               struct q2_error *err)
{
    struct comparison c = {
        .sides = {{.disk = a}, {.disk = b}},
        .size = q2_max_u64(a->size, b->size),
        .step = q2_max_size(q2_disk_read_step(a), q2_disk_read_step(b)),
        .strict = strict,
        .mon = mon,
        .err = err,
    };
    if (strict && a->size != b->size) {
        *result = (struct q2_compare_result){.verdict = Q2_COMPARE_SIZE};
        return 0;
    }
    pthread_mutex_init(&c.lock, NULL);
    q2_pool_run(q2_pool_processors(), work, &c);
    pthread_mutex_destroy(&c.lock);
    c.result.sizes_differ =
        a->size != b->size && (!c.happened || c.at >= q2_min_u64(a->size, b->size));
    *result = c.result;
    return c.happened ? err->code : 0;
}
