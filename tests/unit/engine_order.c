// SPDX-License-Identifier: MIT
// In which order the write engine writes, and how often it flushes: read from the record
// of what reached the file.
#include "engine.h"

#include <errno.h>

#define CLUSTER 4096U
#define HEADER_FEATURES 72U

static const struct recipe plain = {
    .version = 3, .cluster_bits = 12, .refcount_order = 4, .size = UINT64_C(16) << 20};
static const struct recipe lazy = {.version = 3,
                                   .cluster_bits = 12,
                                   .refcount_order = 4,
                                   .size = UINT64_C(16) << 20,
                                   .lazy_refcounts = true};

// Index of the first call from `from` on that is of this kind and touches offset; -1:
// there is none.
static long find_call(struct engine *e, long from, enum q2_fault_kind kind,
                      uint64_t offset)
{
    size_t n;
    const struct q2_fault_call *calls = q2_fault_calls(e->f.fault, &n);
    for (long i = from < 0 ? 0 : from; i < (long)n; i++) {
        const struct q2_fault_call *c = &calls[i];
        if (c->kind == kind && (kind == Q2_FAULT_FLUSH ||
                                (c->offset <= offset && offset < c->offset + c->n_bytes)))
            return i;
    }
    return -1;
}

static long find_write(struct engine *e, long from, uint64_t offset)
{
    return find_call(e, from, Q2_FAULT_WRITE, offset);
}

static long find_flush(struct engine *e, long from)
{
    return find_call(e, from, Q2_FAULT_FLUSH, 0);
}

static unsigned count_calls(struct engine *e, enum q2_fault_kind kind)
{
    size_t n;
    unsigned count = 0;
    const struct q2_fault_call *calls = q2_fault_calls(e->f.fault, &n);
    for (size_t i = 0; i < n; i++)
        count += calls[i].kind == kind;
    return count;
}

// Is there a flush between the two calls, and are they there at all?
static bool parted(struct engine *e, long first, long second)
{
    long flush = first < 0 ? -1 : find_flush(e, first);
    return flush >= 0 && flush < second;
}

static void start(struct engine *e, const struct recipe *r, const struct q2_runtime *rt)
{
    engine_make(e, r, rt);
    q2_fault_forget(e->f.fault);
}

static void test_order_of_a_write(void)
{
    struct engine e;
    start(&e, &plain, NULL);
    uint64_t block = e.img->refcount_table[0];
    is_int(engine_fill(&e, 0, CLUSTER, 1), 0, "written");
    uint64_t host = engine_run(&e, 0).host_offset;
    uint64_t l2 = e.img->l1[0] & Q2_OFFSET_MASK;
    is_int(q2_disk_flush(e.d, &e.err), 0, "flushed");
    long data = find_write(&e, 0, host), count = find_write(&e, 0, block);
    long table = find_write(&e, 0, l2);
    long l1 = find_write(&e, 0, e.img->header.l1_table_offset);
    ok(parted(&e, data, table), "data before the L2 table");
    ok(parted(&e, count, table), "refcounts before the L2 table");
    ok(parted(&e, table, l1), "the L2 table before the L1 table");
    ok(find_flush(&e, l1) > l1, "and all of it before the end of the flush");
    ok(find_write(&e, 0, 0) < 0, "the header is left alone");
    engine_end(&e);
}

static void test_order_of_a_free(void)
{
    struct engine e;
    const struct q2_runtime unmap = {.discard_unmap = true};
    start(&e, &plain, &unmap);
    engine_fill(&e, 0, CLUSTER, 1);
    q2_disk_flush(e.d, &e.err);
    q2_fault_forget(e.f.fault);
    uint64_t host = engine_run(&e, 0).host_offset;
    uint64_t l2 = e.img->l1[0] & Q2_OFFSET_MASK, block = e.img->refcount_table[0];
    q2_disk_discard(e.d, 0, CLUSTER, &e.err);
    engine_fill(&e, CLUSTER, CLUSTER, 2);
    ok(engine_run(&e, CLUSTER).host_offset != host, "not handed out at once");
    q2_disk_flush(e.d, &e.err);
    long table = find_write(&e, 0, l2);
    long punched = find_call(&e, 0, Q2_FAULT_DISCARD, host);
    long freed = find_write(&e, table, block);
    ok(parted(&e, table, freed), "the pointer is gone before the refcount");
    ok(parted(&e, table, punched), "and before the space");
    engine_fill(&e, 2 * CLUSTER, CLUSTER, 3);
    is_u64(engine_run(&e, 2 * CLUSTER).host_offset, host, "then it is the first to go");
    engine_end(&e);
}

// A zero cluster that keeps its place is filled before its flag goes.
static void test_order_in_place(void)
{
    struct engine e;
    start(&e, &plain, NULL);
    engine_fill(&e, 0, CLUSTER, 1);
    q2_disk_write_zeroes(e.d, 0, CLUSTER, 0, &e.err);
    q2_disk_flush(e.d, &e.err);
    q2_fault_forget(e.f.fault);
    uint64_t host = engine_run(&e, 0).host_offset;
    engine_fill(&e, 0, 512, 2);
    q2_disk_flush(e.d, &e.err);
    long data = find_write(&e, 0, host);
    long table = find_write(&e, 0, e.img->l1[0] & Q2_OFFSET_MASK);
    ok(parted(&e, data, table), "data before the flag");
    is_u64(count_calls(&e, Q2_FAULT_WRITE), 2, "in two writes");
    engine_end(&e);
}

static void test_few_flushes(void)
{
    struct engine e;
    start(&e, &plain, NULL);
    int ret = 0;
    for (unsigned i = 0; i < 2048 && ret == 0; i++)
        ret = engine_fill(&e, (uint64_t)i * CLUSTER, CLUSTER, (uint8_t)i);
    is_int(ret, 0, "eight megabytes in small writes");
    is_u64(count_calls(&e, Q2_FAULT_FLUSH), 0, "without a flush");
    q2_disk_flush(e.d, &e.err);
    is_u64(count_calls(&e, Q2_FAULT_FLUSH), 4, "and with four at the end");
    q2_fault_forget(e.f.fault);
    q2_disk_flush(e.d, &e.err);
    is_u64(count_calls(&e, Q2_FAULT_FLUSH), 1, "a flush of nothing is one");
    engine_end(&e);
}

static void test_one_write(void)
{
    struct engine e;
    start(&e, &plain, NULL);
    engine_fill(&e, CLUSTER + 100, 20 * CLUSTER, 1);
    is_u64(count_calls(&e, Q2_FAULT_WRITE), 1, "a run of clusters is one write");
    q2_disk_flush(e.d, &e.err);
    q2_disk_discard(e.d, CLUSTER, CLUSTER, &e.err);
    q2_disk_flush(e.d, &e.err);
    q2_fault_forget(e.f.fault);
    engine_fill(&e, CLUSTER + 100, 100, 2);
    is_u64(count_calls(&e, Q2_FAULT_WRITE), 1, "a part with what is around it, too");
    engine_end(&e);
}

static void test_writethrough(void)
{
    struct engine e;
    start(&e, &plain, NULL);
    e.d->flush_writes = true;
    engine_fill(&e, 0, CLUSTER, 1);
    long l1 = find_write(&e, 0, e.img->header.l1_table_offset);
    ok(l1 >= 0 && find_flush(&e, l1) > l1, "each write is durable with its metadata");
    engine_drop(&e);
    engine_open(&e);
    ok(engine_reads(&e, 0, CLUSTER, 1), "it is there after a crash");
    is_u64(engine_damage(&e), 0, "and all is sound");
    engine_end(&e);
}

static void test_lazy(void)
{
    struct engine e;
    start(&e, &lazy, NULL);
    uint64_t block = e.img->refcount_table[0];
    q2_disk_flush(e.d, &e.err);
    is_u64(engine_features(&e), 0, "clean while nothing is written");
    engine_fill(&e, 0, 8 * CLUSTER, 1);
    q2_disk_flush(e.d, &e.err);
    uint64_t l2 = e.img->l1[0] & Q2_OFFSET_MASK;
    long mark = find_write(&e, 0, HEADER_FEATURES);
    ok(parted(&e, mark, find_write(&e, 0, l2)), "dirty before the first change");
    ok(find_write(&e, 0, block) < 0, "refcounts wait");
    is_u64(engine_features(&e), 1, "the file says dirty");
    engine_fill(&e, CLUSTER * 8, CLUSTER, 2);
    q2_fault_forget(e.f.fault);
    q2_disk_flush(e.d, &e.err);
    ok(find_write(&e, 0, 0) < 0, "said once");
    q2_fault_forget(e.f.fault);
    is_int(q2_disk_finish(e.d, &e.err), 0, "finished");
    long counts = find_write(&e, 0, block);
    ok(parted(&e, counts, find_write(&e, 0, HEADER_FEATURES)),
       "refcounts before the mark goes");
    is_u64(engine_features(&e), 0, "clean");
    is_u64(engine_damage(&e), 0, "sound");
    engine_end(&e);
}

static void test_lazy_override(void)
{
    struct engine e;
    const struct q2_runtime off = {.lazy_refcounts = Q2_OFF},
                            on = {.lazy_refcounts = Q2_ON};
    start(&e, &lazy, &off);
    engine_fill(&e, 0, CLUSTER, 1);
    q2_disk_flush(e.d, &e.err);
    is_u64(engine_features(&e), 0, "off for this run: never dirty");
    is_u64(engine_damage(&e), 0, "refcounts are there");
    engine_end(&e);
    start(&e, &plain, &on);
    engine_fill(&e, 0, CLUSTER, 1);
    q2_disk_flush(e.d, &e.err);
    is_u64(engine_features(&e), 1, "on for this run: dirty");
    engine_end(&e);
}

// With room for a few refcount blocks only, they are written although they could wait.
static void test_lazy_bounded(void)
{
    struct engine e;
    const struct recipe small = {.version = 3,
                                 .cluster_bits = 9,
                                 .refcount_order = 6,
                                 .size = UINT64_C(1) << 20,
                                 .lazy_refcounts = true};
    const struct q2_runtime tight = {.refcount_cache_size = 1, .l2_cache_size = 1};
    start(&e, &small, &tight);
    uint64_t block = e.img->refcount_table[0];
    int ret = 0;
    for (unsigned i = 0; i < 2048 && ret == 0; i++)
        ret = engine_fill(&e, (uint64_t)i * 512, 512, (uint8_t)i);
    is_int(ret, 0, "written");
    ok(find_write(&e, 0, block) >= 0, "refcounts are written when their cache is full");
    is_u64(engine_features(&e), 1, "dirty all the same");
    is_int(q2_disk_finish(e.d, &e.err), 0, "finished");
    is_u64(engine_damage(&e), 0, "sound");
    engine_end(&e);
}

static void test_vmstate_switch(void)
{
    struct engine e;
    uint8_t state[CLUSTER] = {1};
    start(&e, &plain, NULL);
    engine_fill(&e, 0, CLUSTER, 1);
    is_int(q2_image_write_vmstate(e.img, 0, state, sizeof(state), &e.err), 0, "written");
    uint64_t l1 = e.img->header.l1_table_offset;
    long header = find_write(&e, 0, 40);
    ok(parted(&e, find_write(&e, 0, l1), header), "the new L1 table before the header");
    ok(parted(&e, find_write(&e, 0, e.img->l1[0] & Q2_OFFSET_MASK),
              find_write(&e, 0, l1)) ||
           parted(&e, find_write(&e, 0, e.img->l1[0] & Q2_OFFSET_MASK), header),
       "and what it names");
    size_t n;
    const struct q2_fault_call *calls = q2_fault_calls(e.f.fault, &n);
    ok(header >= 0 && calls[header].offset == 0 && calls[header].n_bytes == 512,
       "one sector of the header");
    engine_end(&e);
}

struct dice {
    uint64_t state;
    unsigned kind; // 0: none is kept, 1: all, 2: by chance
};

static bool keep(void *opaque, size_t call, uint64_t sector)
{
    struct dice *d = opaque;
    (void)call;
    (void)sector;
    return d->kind == 1 || (d->kind == 2 && test_random(&d->state) % 2 == 0);
}

// What the file may be if the power goes behind its first n calls.
static bool sound_after_cut(struct engine *e, size_t n, struct dice *d)
{
    struct q2_io *state;
    struct q2_scan scan;
    if (q2_fault_state(e->f.fault, n, keep, d, &state, &e->err) < 0)
        give_up("%s", e->err.message);
    bool sound = q2_scan_run(&scan, state, NULL, NULL, &e->err) == 0;
    if (sound) {
        sound = scan.corruptions == 0 && scan.check_errors == 0;
        q2_scan_clear(&scan);
    }
    q2_io_close(state);
    return sound;
}

static void check_cuts(struct engine *e, const char *what)
{
    size_t n, bad = SIZE_MAX;
    struct dice d = {.state = 4711};
    q2_fault_calls(e->f.fault, &n);
    for (size_t i = 0; i <= n && bad == SIZE_MAX; i++) {
        for (d.kind = 0; d.kind < 3 && bad == SIZE_MAX; d.kind++) {
            if (!sound_after_cut(e, i, &d))
                bad = i;
        }
    }
    ok(bad == SIZE_MAX, "%s: sound after a cut behind each of %zu calls", what, n);
}

// Small clusters and wide refcounts: the refcount table has to grow, and more than once.
static void test_refcount_table_growth(void)
{
    const struct recipe small = {
        .version = 3, .cluster_bits = 9, .refcount_order = 6, .size = UINT64_C(12) << 20};
    const struct q2_runtime tight = {.refcount_cache_size = 1, .l2_cache_size = 1};
    for (int with_tight = 0; with_tight < 2; with_tight++) {
        struct engine e;
        start(&e, &small, with_tight ? &tight : NULL);
        uint64_t was = e.img->header.refcount_table_offset;
        // Up to shortly before the first table is full, then over its end.
        engine_fill(&e, 0, 1800U << 10, 1);
        q2_disk_flush(e.d, &e.err);
        q2_fault_forget(e.f.fault);
        is_int(engine_fill(&e, 1800U << 10, 200U << 10, 2), 0, "written");
        is_int(q2_disk_flush(e.d, &e.err), 0, "flushed");
        ok(e.img->header.refcount_table_offset != was, "the table has moved");
        check_cuts(&e, with_tight ? "growth with small caches" : "growth");
        // Twice between two flushes.
        q2_fault_forget(e.f.fault);
        was = e.img->header.refcount_table_offset;
        is_int(engine_fill(&e, 2000U << 10, 10000U << 10, 3), 0, "much is written");
        is_int(q2_disk_finish(e.d, &e.err), 0, "finished");
        ok(e.img->header.refcount_table_offset != was, "the table has moved again");
        is_u64(engine_damage(&e), 0, "nothing is wrong, nothing leaks");
        engine_end(&e);
    }
}

static void test_l1_growth_cuts(void)
{
    struct engine e;
    uint8_t state[64 * 1024];
    const struct recipe small = {
        .version = 3, .cluster_bits = 9, .refcount_order = 4, .size = UINT64_C(1) << 20};
    memset(state, 7, sizeof(state));
    start(&e, &small, NULL);
    engine_fill(&e, 0, 100 * 512, 1);
    int ret = 0;
    for (unsigned i = 0; i < 8 && ret == 0; i++)
        ret = q2_image_write_vmstate(e.img, (uint64_t)i * sizeof(state), state,
                                     sizeof(state), &e.err);
    is_int(ret, 0, "half a megabyte of VM state");
    q2_disk_finish(e.d, &e.err);
    check_cuts(&e, "VM state");
    is_u64(engine_damage(&e), 0, "and in the end nothing leaks");
    engine_end(&e);
}

int main(void)
{
    test_order_of_a_write();
    test_order_of_a_free();
    test_order_in_place();
    test_few_flushes();
    test_one_write();
    test_writethrough();
    test_lazy();
    test_lazy_override();
    test_lazy_bounded();
    test_vmstate_switch();
    test_refcount_table_growth();
    test_l1_growth_cuts();
    return done_testing();
}
