// SPDX-License-Identifier: MIT
// What the write engine does with clusters: discards, zeros, compressed data, VM state,
// and writes that would land on metadata.
#include "engine.h"

#include <errno.h>

#include "io/memory.h"

#define CLUSTER 4096U
#define N_CLUSTERS 64U

static const struct recipe plain = {
    .version = 3, .cluster_bits = 12, .refcount_order = 4, .size = N_CLUSTERS * CLUSTER};
static const struct recipe overlay = {.version = 3,
                                      .cluster_bits = 12,
                                      .refcount_order = 4,
                                      .size = N_CLUSTERS * CLUSTER,
                                      .backing = true};
static const struct recipe old = {
    .version = 2, .cluster_bits = 12, .refcount_order = 4, .size = N_CLUSTERS * CLUSTER};
static const struct recipe old_overlay = {.version = 2,
                                          .cluster_bits = 12,
                                          .refcount_order = 4,
                                          .size = N_CLUSTERS * CLUSTER,
                                          .backing = true};

static void test_discard_kinds(void)
{
    struct engine e;
    uint8_t text[CLUSTER] = "compresses well";
    engine_make(&e, &plain, NULL);
    engine_fill(&e, 0, 2 * CLUSTER, 1);
    is_int(q2_disk_write_compressed(e.d, 2 * CLUSTER, text, CLUSTER, &e.err), 0,
           "a compressed cluster");
    is_int(engine_kind(&e, 2 * CLUSTER), Q2_CLUSTER_COMPRESSED, "which it is");
    is_int(q2_disk_discard(e.d, 0, 8 * CLUSTER, &e.err), 0, "all discarded, and more");
    is_int(engine_kind(&e, 0), Q2_CLUSTER_ZERO, "a written cluster is zeros now");
    is_int(engine_kind(&e, 2 * CLUSTER), Q2_CLUSTER_ZERO, "a compressed one, too");
    is_int(engine_kind(&e, 5 * CLUSTER), Q2_CLUSTER_UNALLOCATED,
           "what was never written stays so");
    is_int(q2_disk_finish(e.d, &e.err), 0, "finished");
    is_u64(engine_damage(&e), 0, "sound, nothing leaks");
    engine_end(&e);
}

static void test_discard_above_backing(void)
{
    struct engine e;
    engine_make(&e, &overlay, NULL);
    is_int(q2_disk_discard(e.d, 0, CLUSTER, &e.err), 0, "discarded");
    ok(engine_reads(&e, 0, CLUSTER, 0), "the backing file is hidden");
    engine_end(&e);

    engine_make(&e, &old_overlay, NULL);
    engine_fill(&e, 0, CLUSTER, 7);
    is_int(q2_disk_discard(e.d, 0, CLUSTER, &e.err), 0, "version 2: no error");
    ok(engine_reads(&e, 0, CLUSTER, 7), "but nothing done");
    engine_end(&e);

    engine_make(&e, &old, NULL);
    engine_fill(&e, 0, CLUSTER, 7);
    q2_disk_discard(e.d, 0, CLUSTER, &e.err);
    is_int(engine_kind(&e, 0), Q2_CLUSTER_UNALLOCATED,
           "version 2 without a backing file: unallocated");
    engine_end(&e);
}

static void test_discard_parts(void)
{
    struct engine e;
    engine_make(&e, &plain, NULL);
    engine_fill(&e, 0, 3 * CLUSTER, 9);
    q2_disk_discard(e.d, CLUSTER - 512, CLUSTER + 1024, &e.err);
    ok(engine_reads(&e, 0, CLUSTER, 9), "a part at the start stays");
    ok(engine_reads(&e, CLUSTER, CLUSTER, 0), "the whole one goes");
    ok(engine_reads(&e, 2 * CLUSTER, CLUSTER, 9), "a part at the end stays");
    engine_end(&e);
}

// The freed clusters serve again: the file does not grow with what is rewritten.
static void test_steady_rewrite(void)
{
    struct engine e;
    const struct recipe large = {
        .version = 3, .cluster_bits = 12, .refcount_order = 4, .size = UINT64_C(4) << 20};
    engine_make(&e, &large, NULL);
    int ret = 0;
    for (unsigned i = 0; i < 100 && ret == 0; i++) {
        ret = engine_fill(&e, 0, 1U << 20, (uint8_t)(i + 1));
        if (ret == 0)
            ret = q2_disk_discard(e.d, 0, 1U << 20, &e.err);
    }
    is_int(ret, 0, "written and discarded a hundred times");
    ok(engine_file_size(&e) <= 4U << 20, "in %" PRIu64 " bytes of file",
       engine_file_size(&e));
    q2_disk_finish(e.d, &e.err);
    is_u64(engine_damage(&e), 0, "sound");
    engine_end(&e);
}

static bool is_hole(struct engine *e, uint64_t host_offset)
{
    uint64_t n = 0;
    bool data = true;
    if (q2_io_extent(e->f.memory, host_offset, &n, &data, &e->err) < 0)
        give_up("%s", e->err.message);
    return !data && n >= CLUSTER;
}

static void test_pass_discard(void)
{
    struct engine e;
    struct q2_runtime unmap = {.discard_unmap = true};
    engine_make(&e, &plain, &unmap);
    engine_fill(&e, 0, 2 * CLUSTER, 3);
    q2_disk_flush(e.d, &e.err);
    uint64_t host = engine_run(&e, 0).host_offset;
    q2_disk_discard(e.d, 0, CLUSTER, &e.err);
    ok(!is_hole(&e, host), "what is not safely gone is still in the file");
    q2_disk_flush(e.d, &e.err);
    ok(is_hole(&e, host), "then it is a hole");
    ok(!is_hole(&e, host + CLUSTER), "its neighbour is not");
    engine_end(&e);

    engine_make(&e, &plain, NULL);
    engine_fill(&e, 0, CLUSTER, 3);
    host = engine_run(&e, 0).host_offset;
    q2_disk_discard(e.d, 0, CLUSTER, &e.err);
    q2_disk_flush(e.d, &e.err);
    ok(!is_hole(&e, host), "without unmap the file keeps its space");
    is_u64(engine_refcount(&e, host), 0, "but the cluster is free");
    engine_end(&e);
}

static void test_no_unref(void)
{
    struct engine e;
    struct q2_runtime keep = {.discard_unmap = true, .discard_no_unref = true};
    engine_make(&e, &plain, &keep);
    engine_fill(&e, 0, CLUSTER, 3);
    uint64_t host = engine_run(&e, 0).host_offset;
    q2_disk_discard(e.d, 0, CLUSTER, &e.err);
    is_int(engine_kind(&e, 0), Q2_CLUSTER_ZERO_ALLOCATED, "zeros, still allocated");
    is_u64(engine_run(&e, 0).host_offset, host, "where it was");
    ok(is_hole(&e, host), "without its space");
    engine_fill(&e, 512, 512, 4);
    is_u64(engine_run(&e, 0).host_offset, host, "written in its place again");
    ok(engine_reads(&e, 0, 512, 0) && engine_reads(&e, 512, 512, 4) &&
           engine_reads(&e, 1024, CLUSTER - 1024, 0),
       "with zeros around it");
    engine_end(&e);
}

static void test_compressed(void)
{
    struct engine e;
    uint8_t text[CLUSTER] = "compresses well", noise[CLUSTER];
    uint64_t state = 88172645463325252U;
    for (size_t i = 0; i < CLUSTER; i += 8) {
        uint64_t word = test_random(&state);
        memcpy(noise + i, &word, 8);
    }
    const struct recipe odd = {
        .version = 3, .cluster_bits = 12, .refcount_order = 4, .size = 2 * CLUSTER + 512};
    engine_make(&e, &odd, NULL);
    is_int(q2_disk_write_compressed(e.d, 0, noise, CLUSTER, &e.err), 0, "noise");
    is_int(engine_kind(&e, 0), Q2_CLUSTER_NORMAL, "does not shrink: stored plain");
    is_int(q2_disk_write_compressed(e.d, 0, text, CLUSTER, &e.err), 0, "over it");
    is_int(engine_kind(&e, 0), Q2_CLUSTER_COMPRESSED, "compressed");
    is_int(q2_disk_write_compressed(e.d, 2 * CLUSTER, text, 512, &e.err), 0,
           "the disk's end");
    is_int(q2_disk_write_compressed(e.d, 512, text, CLUSTER, &e.err), -EINVAL,
           "not between clusters");
    is_int(q2_disk_write_compressed(e.d, 0, text, 512, &e.err), -EINVAL,
           "no part of a cluster");
    engine_fill(&e, 100, 10, 5);
    is_int(engine_kind(&e, 0), Q2_CLUSTER_NORMAL, "a plain write unpacks it");
    uint8_t back[CLUSTER];
    q2_disk_read(e.d, 0, back, CLUSTER, &e.err);
    memset(text + 100, 5, 10);
    ok(memcmp(back, text, CLUSTER) == 0, "what was around it is still there");
    q2_disk_finish(e.d, &e.err);
    is_u64(engine_damage(&e), 0, "sound");
    engine_end(&e);
}

static void test_zeroes(void)
{
    struct engine e;
    engine_make(&e, &plain, NULL);
    engine_fill(&e, 0, 2 * CLUSTER, 3);
    uint64_t host = engine_run(&e, 0).host_offset;
    q2_disk_write_zeroes(e.d, 0, CLUSTER, 0, &e.err);
    is_int(engine_kind(&e, 0), Q2_CLUSTER_ZERO_ALLOCATED, "zeros keep their cluster");
    q2_disk_write_zeroes(e.d, CLUSTER, CLUSTER, Q2_ZERO_UNMAP, &e.err);
    is_int(engine_kind(&e, CLUSTER), Q2_CLUSTER_ZERO, "or give it back");
    engine_fill(&e, 0, 512, 4);
    is_u64(engine_run(&e, 0).host_offset, host, "and are filled in their place");
    ok(engine_reads(&e, 512, CLUSTER - 512, 0), "the rest stays zeros");
    engine_end(&e);

    engine_make(&e, &old_overlay, NULL);
    q2_disk_write_zeroes(e.d, 512, 2 * CLUSTER, Q2_ZERO_UNMAP, &e.err);
    ok(engine_reads(&e, 512, 2 * CLUSTER, 0), "version 2 hides the backing file");
    is_int(engine_kind(&e, CLUSTER), Q2_CLUSTER_NORMAL, "with real zeros");
    uint64_t size = engine_file_size(&e);
    q2_disk_write_zeroes(e.d, 50 * CLUSTER, CLUSTER, 0, &e.err);
    q2_disk_flush(e.d, &e.err);
    is_u64(engine_file_size(&e), size, "but not where it has ended");
    engine_end(&e);
}

static void test_detect_zeroes(void)
{
    struct engine e;
    struct q2_runtime detect = {.detect_zeroes = true, .detect_zeroes_unmap = true};
    engine_make(&e, &plain, &detect);
    e.d->detect_zeroes = e.d->detect_zeroes_unmap = true;
    engine_fill(&e, 0, CLUSTER, 3);
    engine_fill(&e, 0, CLUSTER, 0);
    is_int(engine_kind(&e, 0), Q2_CLUSTER_ZERO, "written zeros are found and unmapped");
    engine_end(&e);
}

static void test_vmstate(void)
{
    struct engine e;
    uint8_t state[3 * CLUSTER + 100], back[sizeof(state)];
    memset(state, 0x5a, sizeof(state));
    engine_make(&e, &overlay, NULL);
    engine_fill(&e, 0, CLUSTER, 1);
    uint32_t l1_size = e.img->l1_size;
    uint64_t l1_offset = e.img->header.l1_table_offset;
    is_int(q2_image_write_vmstate(e.img, 50, state, sizeof(state), &e.err), 0,
           "VM state written: %s", e.err.message);
    ok(e.img->l1_size > l1_size, "the L1 table has grown");
    is_int(q2_image_read_vmstate(e.img, 50, back, sizeof(back), &e.err), 0, "and read");
    ok(memcmp(back, state, sizeof(state)) == 0, "the same");
    q2_image_read_vmstate(e.img, 0, back, 50, &e.err);
    ok(back[0] == 0 && back[49] == 0, "what was never written is zeros");
    is_int(q2_disk_finish(e.d, &e.err), 0, "finished");
    is_u64(engine_refcount(&e, l1_offset), 0, "the old L1 table is free");
    is_u64(engine_damage(&e), 0, "sound");
    engine_drop(&e);
    engine_open(&e);
    ok(engine_reads(&e, 0, CLUSTER, 1), "opened again: the disk is there");
    q2_image_read_vmstate(e.img, 50, back, sizeof(back), &e.err);
    ok(memcmp(back, state, sizeof(state)) == 0, "the VM state, too");
    engine_end(&e);
}

static void note(void *opaque, const char *text)
{
    snprintf(opaque, 256, "%s", text);
}

// Entries that lead to metadata: whatever it is.
static void test_overlap(uint64_t host_offset, const char *name)
{
    struct engine e;
    char text[256] = "";
    const struct q2_monitor monitor = {.opaque = text, .note = note};
    engine_make(&e, &plain, NULL);
    engine_fill(&e, 0, 2 * CLUSTER, 1);
    q2_disk_finish(e.d, &e.err);
    uint64_t l2 = e.img->l1[0] & Q2_OFFSET_MASK;
    uint64_t hit = host_offset ? host_offset : l2;
    engine_drop(&e);
    uint8_t entry[8] = {0x80, 0, 0, 0, 0, (uint8_t)(hit >> 16), (uint8_t)(hit >> 8), 0};
    q2_io_write(e.f.memory, l2, entry, 8, &e.err);
    engine_open(&e);
    e.d->monitor = &monitor;
    is_int(engine_fill(&e, 0, 512, 2), -EIO, "%s: not written", name);
    has_str(text, "qcow2: Marking image as corrupt: Preventing invalid write on metadata",
            "%s: said", name);
    has_str(text, name, "%s: by name", name);
    is_u64(engine_features(&e), 2, "%s: the file says corrupt", name);
    is_int(engine_fill(&e, CLUSTER, 512, 2), -EIO, "%s: nothing is written any more",
           name);
    is_int(q2_disk_discard(e.d, CLUSTER, CLUSTER, &e.err), -EIO, "%s: or discarded",
           name);
    ok(engine_reads(&e, CLUSTER, CLUSTER, 1), "%s: but read", name);
    engine_end(&e);
}

static void test_overlap_none(void)
{
    struct engine e;
    const struct q2_runtime none = {.overlap_check_set = true};
    engine_make(&e, &plain, &none);
    pthread_mutex_lock(&e.img->lock);
    e.img->overlap_check = Q2_OVERLAP_NONE;
    struct q2_table *t;
    q2_mapping_l2_for_write(e.img, 0, &t, &e.err);
    ((uint64_t *)t->data)[0] = UINT64_C(30) * CLUSTER | Q2_FLAG_COPIED;
    pthread_mutex_unlock(&e.img->lock);
    is_int(engine_fill(&e, 0, 512, 2), 0, "nothing is looked at when nobody asks");
    ok(e.img->places == NULL, "not even where metadata lies");
    engine_end(&e);
}

static int open_with(const struct q2_runtime *runtime, char *message, size_t room)
{
    struct engine e;
    struct q2_image *img;
    fixture_make(&e.f, &old, 0);
    e.err = (struct q2_error)Q2_ERROR_INIT;
    if (q2_image_open(e.f.memory, false, false, &img, &e.err) < 0)
        give_up("%s", e.err.message);
    int ret = q2_image_configure(img, runtime, &e.err);
    snprintf(message, room, "%.400s", e.err.message);
    img->disk.ops->release(&img->disk);
    fixture_clear(&e.f);
    return ret;
}

static void test_refusals(void)
{
    char text[512];
    is_int(open_with(&(struct q2_runtime){.cache_size = 3 << 20,
                                          .l2_cache_size = 1 << 20,
                                          .refcount_cache_size = 1 << 20},
                     text, sizeof(text)),
           -EINVAL, "three sizes");
    is_str(text,
           "cache-size, l2-cache-size and refcount-cache-size may not be set at the same "
           "time",
           "are one too many");
    open_with(&(struct q2_runtime){.cache_size = 1, .l2_cache_size = 2}, text,
              sizeof(text));
    is_str(text, "l2-cache-size may not exceed cache-size", "L2 tables alone");
    open_with(&(struct q2_runtime){.cache_size = 1, .refcount_cache_size = 2}, text,
              sizeof(text));
    is_str(text, "refcount-cache-size may not exceed cache-size", "refcounts alone");
    open_with(&(struct q2_runtime){.l2_cache_size = UINT64_MAX}, text, sizeof(text));
    is_str(text, "L2 cache size too big", "more than there can be");
    open_with(&(struct q2_runtime){.refcount_cache_size = UINT64_MAX}, text,
              sizeof(text));
    is_str(text, "Refcount cache size too big", "of refcounts, too");
    open_with(&(struct q2_runtime){.lazy_refcounts = Q2_ON}, text, sizeof(text));
    is_str(text,
           "Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility "
           "level",
           "lazy refcounts in version 2");
    open_with(&(struct q2_runtime){.discard_no_unref = true}, text, sizeof(text));
    is_str(text, "discard-no-unref is only supported since qcow2 version 3",
           "discard-no-unref in version 2");
    is_int(
        open_with(&(struct q2_runtime){.cache_size = 1 << 20, .l2_cache_size = 1 << 19},
                  text, sizeof(text)),
        0, "two sizes are fine");
}

int main(void)
{
    test_discard_kinds();
    test_discard_above_backing();
    test_discard_parts();
    test_steady_rewrite();
    test_pass_discard();
    test_no_unref();
    test_compressed();
    test_zeroes();
    test_detect_zeroes();
    test_vmstate();
    // As the image was made: header, refcount table, refcount block, L1 table.
    test_overlap(CLUSTER, "refcount table");
    test_overlap(2 * CLUSTER, "refcount block");
    test_overlap(3 * CLUSTER, "active L1 table");
    test_overlap(0, "active L2 table");
    test_overlap_none();
    test_refusals();
    return done_testing();
}
