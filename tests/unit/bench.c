// SPDX-License-Identifier: MIT
// bench: how many flushes there are, and whether writes go on beside them.
#include "ops/bench.h"

#include <stdatomic.h>

#include "image/raw.h"
#include "io/memory.h"
#include "test.h"

// A file in memory that counts.
struct counting {
    struct q2_io io;
    struct q2_io *below;
    atomic_uint writing, writes, flushes, beside;
    atomic_uint most; // writes at a time
};

static struct counting *counting_of(struct q2_io *io)
{
    return (struct counting *)io;
}

static int count_write(struct q2_io *io, uint64_t offset, const void *buf, size_t n_bytes,
                       struct q2_error *err)
{
    struct counting *c = counting_of(io);
    unsigned now = ++c->writing, most = c->most;
    while (now > most && !atomic_compare_exchange_weak(&c->most, &most, now))
        ;
    int ret = q2_io_write(c->below, offset, buf, n_bytes, err);
    c->writes++;
    c->writing--;
    return ret;
}

static int count_flush(struct q2_io *io, struct q2_error *err)
{
    struct counting *c = counting_of(io);
    (void)err;
    c->flushes++;
    c->beside += c->writing > 0;
    return 0;
}

static int count_size(struct q2_io *io, uint64_t *size, struct q2_error *err)
{
    return q2_io_get_size(counting_of(io)->below, size, err);
}

static void count_close(struct q2_io *io)
{
    q2_io_close(counting_of(io)->below);
}

static const struct q2_io_ops counting_ops = {
    .write = count_write,
    .flush = count_flush,
    .get_size = count_size,
    .close = count_close,
};

static void run(struct counting *c, const struct q2_bench *b)
{
    static char zeros[1 << 20];
    static char name[] = "memory";
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_disk *d;
    double seconds = -1;
    memset(c, 0, sizeof(*c));
    c->io = (struct q2_io){.ops = &counting_ops, .name = name, .writable = true};
    if (q2_memory_open("below", zeros, sizeof(zeros), &c->below, &err) ||
        q2_raw_open(&c->io, true, &d, &err))
        abort();
    is_int(q2_bench_run(d, b, NULL, &seconds, &err), 0, "it ends well: %s", err.message);
    ok(seconds >= 0, "and took some time");
    is_u64(c->writes, b->count, "with all its writes");
    q2_disk_close(d);
}

int main(void)
{
    static struct counting c;
    struct q2_bench b = {.write = true,
                         .count = 1000,
                         .depth = 8,
                         .n_bytes = 4096,
                         .step = 4096,
                         .deep = true};
    run(&c, &b);
    is_u64(c.flushes, 0, "no flush is asked for");
    ok(c.most <= 8, "the depth is not exceeded: %u", c.most);

    b.flush_interval = 64;
    run(&c, &b);
    is_u64(c.flushes, 16, "a flush whenever a multiple of 64 is left");
    is_u64(c.beside, 0, "no write beside a flush");

    b.no_drain = true;
    run(&c, &b);
    is_u64(c.flushes, 16, "as many without waiting");

    b.depth = 1;
    b.flush_interval = 1;
    run(&c, &b);
    is_u64(c.flushes, 1000, "one behind each write");

    b.no_drain = false;
    b.step = 512; // they overlap: one after the other
    b.depth = 8;
    b.flush_interval = 10;
    run(&c, &b);
    is_u64(c.flushes, 100, "flushes between writes that overlap");
    is_u64(c.most, 1, "which go out one by one");
    return done_testing();
}
