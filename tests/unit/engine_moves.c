// SPDX-License-Identifier: MIT
// A cluster moves while it is read, and its old place becomes another's: the reader must
// not see that. The file calls back in the middle of the read, so that it always happens.
#include "engine.h"

#define CLUSTER 512U

struct trap {
    struct q2_io io; // first
    struct q2_io *below;
    uint64_t host_offset; // of the read that springs it; 0: not set
    void (*spring)(void);
};

static struct engine e;
static struct trap trap;
static unsigned n_sprung;
static bool pack; // what cluster 0 becomes: compressed, which it is not before

static int trap_read(struct q2_io *io, uint64_t offset, void *buf, size_t n_bytes,
                     struct q2_error *err)
{
    (void)io;
    if (trap.host_offset && offset <= trap.host_offset &&
        trap.host_offset < offset + n_bytes) {
        trap.host_offset = 0;
        n_sprung++;
        trap.spring();
    }
    return q2_io_read(trap.below, offset, buf, n_bytes, err);
}

static int trap_write(struct q2_io *io, uint64_t offset, const void *buf, size_t n_bytes,
                      struct q2_error *err)
{
    (void)io;
    return q2_io_write(trap.below, offset, buf, n_bytes, err);
}

static int trap_flush(struct q2_io *io, struct q2_error *err)
{
    (void)io;
    return q2_io_flush(trap.below, err);
}

static int trap_set_size(struct q2_io *io, uint64_t size, struct q2_error *err)
{
    (void)io;
    return q2_io_set_size(trap.below, size, err);
}

static int trap_get_size(struct q2_io *io, uint64_t *size, struct q2_error *err)
{
    (void)io;
    return q2_io_get_size(trap.below, size, err);
}

// The rest is not asked for here.
static const struct q2_io_ops trap_ops = {.read = trap_read,
                                          .write = trap_write,
                                          .flush = trap_flush,
                                          .set_size = trap_set_size,
                                          .get_size = trap_get_size};

static void start(void)
{
    const struct recipe r = {
        .version = 3, .cluster_bits = 9, .refcount_order = 4, .size = 64 * CLUSTER};
    fixture_make(&e.f, &r, 0);
    trap = (struct trap){.io = {.ops = &trap_ops,
                                .name = e.f.memory->name,
                                .writable = true,
                                .sparse_growth = true},
                         .below = e.f.fault};
    if (fixture_open(&e.f, &trap.io, true, &e.img, &e.err) < 0)
        give_up("%s", e.err.message);
    e.d = &e.img->disk;
}

// Cluster 0 goes elsewhere, and cluster 1 comes to its old place.
static void swap_places(void)
{
    uint64_t left = engine_run(&e, 0).host_offset;
    uint8_t text[CLUSTER];
    memset(text, 2, sizeof(text));
    q2_disk_write_zeroes(e.d, 0, CLUSTER, Q2_ZERO_UNMAP, &e.err);
    engine_fill(&e, 2 * CLUSTER, CLUSTER, 7);
    if (pack)
        q2_disk_write_compressed(e.d, 0, text, CLUSTER, &e.err);
    else
        q2_disk_write(e.d, 0, text, CLUSTER, &e.err);
    q2_disk_flush(e.d, &e.err);
    engine_fill(&e, CLUSTER, CLUSTER, 0xbb);
    is_u64(engine_run(&e, CLUSTER).host_offset / CLUSTER, left / CLUSTER,
           "the place has become another's");
}

static void test_plain(void)
{
    start();
    pack = true;
    engine_fill(&e, 0, CLUSTER, 1);
    trap.spring = swap_places;
    trap.host_offset = engine_run(&e, 0).host_offset;
    ok(engine_reads(&e, 0, CLUSTER, 2), "a plain cluster: what it has become is read");
    is_u64(n_sprung, 1, "it did move during the read");
    engine_end(&e);
}

static void test_compressed(void)
{
    uint8_t text[CLUSTER];
    memset(text, 1, sizeof(text));
    start();
    pack = false;
    q2_disk_write_compressed(e.d, 0, text, CLUSTER, &e.err);
    trap.spring = swap_places;
    trap.host_offset = engine_run(&e, 0).host_offset;
    ok(engine_reads(&e, 0, CLUSTER, 2), "a compressed one: no error, either");
    is_u64(n_sprung, 2, "it did move, too");
    engine_end(&e);
}

int main(void)
{
    test_plain();
    test_compressed();
    return done_testing();
}
