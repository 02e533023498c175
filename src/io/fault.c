// SPDX-License-Identifier: MIT
// The fault injector. The record holds what each call replaced, so that a state is made
// by taking calls back, in an overlay, and doing a part of them again.
#include "io/fault.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "io/overlay.h"

struct fault {
    struct q2_io io; // first
    pthread_mutex_t lock;
    struct q2_io *below;
    size_t max_bytes, n_bytes; // of content in the record
    struct q2_fault_call *calls;
    size_t n_calls, max_calls, n_forgotten;
    bool armed;
    struct q2_fault_rule rule;
    uint64_t n_counted, n_failed;
};

static struct fault *fault_of(const struct q2_io *io)
{
    return (struct fault *)io;
}

// --- the record ------------------------------------------------------------------------

static size_t content_bytes(const struct q2_fault_call *c)
{
    size_t n = (size_t)c->n_bytes;
    return (c->before ? n : 0) + (c->after ? n : 0);
}

static void clear_call(struct q2_fault_call *c)
{
    free(c->before);
    free(c->after);
}

// The index behind the last flush among the first n calls.
static size_t behind_flush(const struct fault *f, size_t n)
{
    while (n > 0 && (f->calls[n - 1].kind != Q2_FAULT_FLUSH || !f->calls[n - 1].done))
        n--;
    return n;
}

static void forget(struct fault *f)
{
    size_t n = behind_flush(f, f->n_calls);
    for (size_t i = 0; i < n; i++) {
        f->n_bytes -= content_bytes(&f->calls[i]);
        clear_call(&f->calls[i]);
    }
    if (n > 0)
        memmove(f->calls, f->calls + n, (f->n_calls - n) * sizeof(*f->calls));
    f->n_calls -= n;
    f->n_forgotten += n;
}

static int make_room(struct fault *f, uint64_t n_bytes, struct q2_error *err)
{
    if (n_bytes > f->max_bytes - f->n_bytes)
        forget(f);
    if (n_bytes > f->max_bytes - f->n_bytes)
        return q2_fail(err, -ENOMEM,
                       "'%s': %" PRIu64 " bytes more do not fit into the record (%zu of "
                       "%zu bytes are in use)",
                       f->io.name, n_bytes, f->n_bytes, f->max_bytes);
    if (f->n_calls < f->max_calls)
        return 0;
    size_t max = f->max_calls ? f->max_calls * 2 : 64;
    struct q2_fault_call *calls = realloc(f->calls, max * sizeof(*calls));
    if (!calls)
        return q2_fail_memory(err, max * sizeof(*calls));
    f->calls = calls;
    f->max_calls = max;
    return 0;
}

static int read_content(struct fault *f, uint64_t offset, uint64_t n_bytes, uint8_t **out,
                        struct q2_error *err)
{
    uint8_t *buf = malloc(n_bytes > 0 ? (size_t)n_bytes : 1);
    if (!buf)
        return q2_fail_memory(err, n_bytes);
    int ret = q2_io_read(f->below, offset, buf, (size_t)n_bytes, err);
    if (ret < 0)
        free(buf);
    else
        *out = buf;
    return ret;
}

// The range whose content a call changes, in whole sectors: what a disk has of a sector
// is what all calls so far made of it. Of a new size: what it cuts off.
static void widen(struct q2_fault_call *c)
{
    uint64_t end = c->offset + c->n_bytes;
    if (c->kind == Q2_FAULT_SET_SIZE) {
        c->n_bytes = c->size_before > c->offset ? c->size_before - c->offset : 0;
    } else if (c->kind == Q2_FAULT_ALLOCATE || c->kind == Q2_FAULT_FLUSH) {
        c->n_bytes = 0;
    } else {
        c->offset = q2_align_down(c->offset, Q2_FAULT_SECTOR);
        c->n_bytes = q2_align_up(end, Q2_FAULT_SECTOR) - c->offset;
    }
}

// Notes what is there before the call.
static int record_before(struct fault *f, struct q2_fault_call *c, struct q2_error *err)
{
    int ret = q2_io_get_size(f->below, &c->size_before, err);
    if (ret < 0 || f->max_bytes == 0)
        return ret;
    widen(c);
    ret = make_room(f, 2 * c->n_bytes, err);
    return ret < 0 || c->n_bytes == 0
               ? ret
               : read_content(f, c->offset, c->n_bytes, &c->before, err);
}

// Adds the call, done or failed, to the record.
static int record_after(struct fault *f, struct q2_fault_call *c, struct q2_error *err)
{
    int ret = q2_io_get_size(f->below, &c->size_after, err);
    if (ret < 0 || f->max_bytes == 0)
        return ret;
    if (c->n_bytes > 0 && c->kind != Q2_FAULT_SET_SIZE)
        ret = read_content(f, c->offset, c->n_bytes, &c->after, err);
    if (ret < 0)
        return ret;
    f->n_bytes += content_bytes(c);
    f->calls[f->n_calls++] = *c;
    return 0;
}

// --- calls -----------------------------------------------------------------------------

// Is it this call's turn to fail?
static bool must_fail(struct fault *f, enum q2_fault_kind kind)
{
    unsigned kinds = f->rule.kinds ? f->rule.kinds : ~(1U << Q2_FAULT_READ);
    if (!f->armed || !(kinds & (1U << kind)))
        return false;
    uint64_t number = f->n_counted++;
    if (number < f->rule.n_pass || (number > f->rule.n_pass && !f->rule.forever))
        return false;
    f->n_failed++;
    return true;
}

// What a caller asks for.
struct request {
    enum q2_fault_kind kind;
    uint64_t offset, n_bytes;
    const void *buf;
    bool unmap;
};

static int do_request(struct fault *f, const struct request *r, struct q2_error *err)
{
    switch (r->kind) {
    case Q2_FAULT_WRITE:
        return q2_io_write(f->below, r->offset, r->buf, (size_t)r->n_bytes, err);
    case Q2_FAULT_ZERO:
        return q2_io_zero(f->below, r->offset, r->n_bytes, r->unmap, err);
    case Q2_FAULT_DISCARD:
        return q2_io_discard(f->below, r->offset, r->n_bytes, err);
    case Q2_FAULT_SET_SIZE:
        return q2_io_set_size(f->below, r->offset, err);
    case Q2_FAULT_ALLOCATE:
        return q2_io_allocate(f->below, r->offset, r->n_bytes, err);
    case Q2_FAULT_FLUSH:
        return q2_io_flush(f->below, err);
    case Q2_FAULT_READ:
        break;
    }
    return 0;
}

// A write that fails may be torn: its first sectors are there.
static int fail_request(struct fault *f, const struct request *r, struct q2_error *err)
{
    static const char *const verbs[] = {"write",  "zero",     "discard",
                                        "resize", "allocate", "flush"};
    struct request torn = *r;
    uint64_t end = q2_align_down(r->offset, Q2_FAULT_SECTOR) +
                   q2_min_u64(f->rule.n_torn, UINT32_MAX) * Q2_FAULT_SECTOR;
    if (r->kind == Q2_FAULT_WRITE && end > r->offset) {
        torn.n_bytes = q2_min_u64(r->n_bytes, end - r->offset);
        int ret = do_request(f, &torn, err);
        if (ret < 0)
            return ret;
    }
    if (f->rule.code == 0)
        return 0;
    return q2_fail_errno(err, f->rule.code,
                         "Could not %s %" PRIu64 " bytes at offset %" PRIu64 " of '%s'",
                         verbs[r->kind], r->n_bytes, r->offset, f->io.name);
}

static int request_locked(struct fault *f, const struct request *r, struct q2_error *err)
{
    struct q2_fault_call c = {
        .kind = r->kind, .offset = r->offset, .n_bytes = r->n_bytes};
    struct q2_error why = Q2_ERROR_INIT;
    int ret = record_before(f, &c, err);
    if (ret < 0)
        return ret;
    bool fails = must_fail(f, r->kind);
    c.ret = fails ? fail_request(f, r, err) : do_request(f, r, err);
    c.done = !fails && c.ret == 0;
    ret = record_after(f, &c, &why);
    if (ret == 0)
        return c.ret;
    clear_call(&c);
    *err = why;
    return ret;
}

static int request(struct q2_io *io, const struct request *r, struct q2_error *err)
{
    struct fault *f = fault_of(io);
    pthread_mutex_lock(&f->lock);
    int ret = request_locked(f, r, err);
    pthread_mutex_unlock(&f->lock);
    return ret;
}

static int fault_read(struct q2_io *io, uint64_t offset, void *buf, size_t n_bytes,
                      struct q2_error *err)
{
    struct fault *f = fault_of(io);
    pthread_mutex_lock(&f->lock);
    int code = must_fail(f, Q2_FAULT_READ) ? f->rule.code : 0;
    pthread_mutex_unlock(&f->lock);
    return code < 0
               ? q2_fail_errno(err, code,
                               "Could not read %zu bytes at offset %" PRIu64 " of '%s'",
                               n_bytes, offset, io->name)
               : q2_io_read_exact(f->below, offset, buf, n_bytes, err);
}

static int fault_write(struct q2_io *io, uint64_t offset, const void *buf, size_t n_bytes,
                       struct q2_error *err)
{
    const struct request r = {
        .kind = Q2_FAULT_WRITE, .offset = offset, .n_bytes = n_bytes, .buf = buf};
    return request(io, &r, err);
}

static int fault_flush(struct q2_io *io, struct q2_error *err)
{
    const struct request r = {.kind = Q2_FAULT_FLUSH};
    return request(io, &r, err);
}

static int fault_set_size(struct q2_io *io, uint64_t size, struct q2_error *err)
{
    const struct request r = {.kind = Q2_FAULT_SET_SIZE, .offset = size};
    return request(io, &r, err);
}

static int fault_get_size(struct q2_io *io, uint64_t *size, struct q2_error *err)
{
    return q2_io_get_size(fault_of(io)->below, size, err);
}

static int fault_zero(struct q2_io *io, uint64_t offset, uint64_t n_bytes, bool unmap,
                      struct q2_error *err)
{
    const struct request r = {
        .kind = Q2_FAULT_ZERO, .offset = offset, .n_bytes = n_bytes, .unmap = unmap};
    return request(io, &r, err);
}

static int fault_discard(struct q2_io *io, uint64_t offset, uint64_t n_bytes,
                         struct q2_error *err)
{
    const struct request r = {
        .kind = Q2_FAULT_DISCARD, .offset = offset, .n_bytes = n_bytes};
    return request(io, &r, err);
}

static int fault_allocate(struct q2_io *io, uint64_t offset, uint64_t n_bytes,
                          struct q2_error *err)
{
    const struct request r = {
        .kind = Q2_FAULT_ALLOCATE, .offset = offset, .n_bytes = n_bytes};
    return request(io, &r, err);
}

static int fault_extent(struct q2_io *io, uint64_t offset, uint64_t *n_bytes, bool *data,
                        struct q2_error *err)
{
    return q2_io_extent(fault_of(io)->below, offset, n_bytes, data, err);
}

static int fault_disk_usage(struct q2_io *io, uint64_t *n_bytes, struct q2_error *err)
{
    return q2_io_disk_usage(fault_of(io)->below, n_bytes, err);
}

static void fault_close(struct q2_io *io)
{
    struct fault *f = fault_of(io);
    for (size_t i = 0; i < f->n_calls; i++)
        clear_call(&f->calls[i]);
    free(f->calls);
    pthread_mutex_destroy(&f->lock);
    free(f->io.name);
    free(f);
}

static const struct q2_io_ops fault_ops = {
    .read = fault_read,
    .write = fault_write,
    .flush = fault_flush,
    .set_size = fault_set_size,
    .get_size = fault_get_size,
    .zero = fault_zero,
    .discard = fault_discard,
    .allocate = fault_allocate,
    .extent = fault_extent,
    .disk_usage = fault_disk_usage,
    .close = fault_close,
};

int q2_fault_open(struct q2_io *below, size_t max_bytes, struct q2_io **out,
                  struct q2_error *err)
{
    struct fault *f = calloc(1, sizeof(*f));
    char *name = strdup(below->name);
    if (!f || !name) {
        free(f);
        free(name);
        return q2_fail_memory(err, sizeof(*f));
    }
    pthread_mutex_init(&f->lock, NULL);
    f->io.ops = &fault_ops;
    f->io.name = name;
    f->io.writable = below->writable;
    f->io.sparse_growth = below->sparse_growth;
    f->io.new_content = below->new_content;
    f->below = below;
    f->max_bytes = max_bytes;
    *out = &f->io;
    return 0;
}

void q2_fault_arm(struct q2_io *io, const struct q2_fault_rule *rule)
{
    struct fault *f = fault_of(io);
    pthread_mutex_lock(&f->lock);
    f->armed = rule != NULL;
    if (rule)
        f->rule = *rule;
    f->n_counted = f->n_failed = 0;
    pthread_mutex_unlock(&f->lock);
}

uint64_t q2_fault_n_failed(struct q2_io *io)
{
    struct fault *f = fault_of(io);
    pthread_mutex_lock(&f->lock);
    uint64_t n = f->n_failed;
    pthread_mutex_unlock(&f->lock);
    return n;
}

const struct q2_fault_call *q2_fault_calls(const struct q2_io *io, size_t *n)
{
    *n = fault_of(io)->n_calls;
    return fault_of(io)->calls;
}

size_t q2_fault_n_forgotten(const struct q2_io *io)
{
    return fault_of(io)->n_forgotten;
}

void q2_fault_forget(struct q2_io *io)
{
    struct fault *f = fault_of(io);
    pthread_mutex_lock(&f->lock);
    forget(f);
    pthread_mutex_unlock(&f->lock);
}

// --- states ----------------------------------------------------------------------------

// Puts back what the call replaced.
static int take_back(struct q2_io *state, const struct q2_fault_call *c,
                     struct q2_error *err)
{
    uint64_t size;
    int ret = 0;
    if (c->before)
        ret = q2_io_write(state, c->offset, c->before, (size_t)c->n_bytes, err);
    if (ret == 0)
        ret = q2_io_get_size(state, &size, err);
    if (ret == 0 && size != c->size_before)
        ret = q2_io_set_size(state, c->size_before, err);
    return ret;
}

static int write_part(struct q2_io *state, const struct q2_fault_call *c, uint64_t start,
                      uint64_t end, struct q2_error *err)
{
    return q2_io_write(state, start, c->after + (start - c->offset),
                       (size_t)(end - start), err);
}

// Does the kept sectors of a call again, neighbours in one go.
static int do_sectors(struct q2_io *state, const struct q2_fault_call *c, size_t index,
                      q2_fault_keep *keep, void *opaque, struct q2_error *err)
{
    uint64_t end = q2_min_u64(c->offset + c->n_bytes, c->size_after), size;
    int ret = q2_io_get_size(state, &size, err);
    if (ret < 0)
        return ret;
    if (c->kind == Q2_FAULT_DISCARD) // never makes a file longer
        end = q2_min_u64(end, size);
    uint64_t run = UINT64_MAX; // where kept ones begin
    for (uint64_t at = c->offset, n = 0; at < end; at += Q2_FAULT_SECTOR, n++) {
        bool kept = keep(opaque, index, n);
        if (kept && run == UINT64_MAX)
            run = at;
        if (!kept && run != UINT64_MAX) {
            ret = write_part(state, c, run, at, err);
            if (ret < 0)
                return ret;
            run = UINT64_MAX;
        }
    }
    return run != UINT64_MAX ? write_part(state, c, run, end, err) : 0;
}

static int do_again(struct q2_io *state, const struct q2_fault_call *c, size_t index,
                    q2_fault_keep *keep, void *opaque, struct q2_error *err)
{
    if (c->kind == Q2_FAULT_FLUSH)
        return 0;
    if (c->kind != Q2_FAULT_SET_SIZE && c->kind != Q2_FAULT_ALLOCATE)
        return do_sectors(state, c, index, keep, opaque, err);
    uint64_t size;
    int ret = q2_io_get_size(state, &size, err);
    if (ret < 0 || c->size_before == c->size_after || !keep(opaque, index, 0) ||
        (c->kind == Q2_FAULT_ALLOCATE && c->size_after <= size))
        return ret;
    return q2_io_set_size(state, c->size_after, err);
}

int q2_fault_state(struct q2_io *io, size_t n_calls, q2_fault_keep *keep, void *opaque,
                   struct q2_io **out, struct q2_error *err)
{
    struct fault *f = fault_of(io);
    struct q2_io *state;
    size_t flushed = behind_flush(f, n_calls);
    int ret = q2_overlay_open(f->below, &state, err);
    if (ret < 0)
        return ret;
    for (size_t i = f->n_calls; i > flushed && ret == 0; i--)
        ret = take_back(state, &f->calls[i - 1], err);
    for (size_t i = flushed; i < n_calls && ret == 0; i++)
        ret = do_again(state, &f->calls[i], i, keep, opaque, err);
    if (ret < 0)
        q2_io_close(state);
    else
        *out = state;
    return ret;
}
