// SPDX-License-Identifier: MIT
// Target: copy. What a disk holds is the same after it was converted, committed, or put
// on another backing file.
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "image/raw.h"
#include "io/memory.h"
#include "ops/commit.h"
#include "ops/compare.h"
#include "ops/convert.h"
#include "ops/create.h"
#include "ops/measure.h"
#include "ops/rebase.h"
#include "tests/fuzz/fuzz.h"

#define BACKING_BYTES 65536U
#define MAX_DISK_BYTES (UINT64_C(1) << 40)
#define MAX_COPIED_BYTES (UINT64_C(4) << 20)
#define MAX_EXTENTS 2048U

// --- disks ---------------------------------------------------------------------------

static void require_message(int ret, const struct q2_error *err)
{
    if (ret < 0 && err->message[0] == '\0')
        fuzz_broken("a failure without a message");
}

// Some raw disk; every number makes another one.
static struct q2_disk *new_raw(unsigned number, const char *name)
{
    static uint8_t content[BACKING_BYTES];
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_disk *d;
    struct q2_io *io;
    for (size_t i = 0; i < sizeof(content); i++)
        content[i] =
            (uint8_t)(i / 512 % 3 == number % 3 ? 0 : i / 512 + i % (number + 1));
    size_t n_bytes = sizeof(content) >> number % 2;
    if (q2_memory_open(name, content, n_bytes, &io, &err) < 0 ||
        q2_raw_open(io, true, &d, &err) < 0)
        fuzz_give_up(err.message);
    d->path = strdup(name);
    return d;
}

// The image in io, which stays the caller's, on a backing file if it names one.
static struct q2_image *open_layers(struct q2_io *io, enum fuzz_mode mode,
                                    unsigned backing)
{
    struct q2_image *img = fuzz_open(io, mode);
    if (img && img->header.backing_file)
        img->disk.backing = new_raw(backing, "backing");
    return img;
}

static void close_layers(struct q2_image *img)
{
    struct q2_disk *backing = img->disk.backing;
    fuzz_close(img);
    q2_disk_close(backing);
}

static struct q2_io *copy_file(struct q2_io *io)
{
    struct q2_error err = Q2_ERROR_INIT;
    uint64_t n_bytes;
    if (q2_io_get_size(io, &n_bytes, &err) < 0)
        fuzz_give_up(err.message);
    size_t n = q2_to_size(n_bytes);
    uint8_t *bytes = malloc(n > 0 ? n : 1);
    if (!bytes || q2_io_read(io, 0, bytes, n, &err) < 0)
        fuzz_give_up("no memory");
    struct q2_io *copy = fuzz_file(bytes, n);
    free(bytes);
    return copy;
}

// A few clusters can be mapped a million times.
static bool is_small(struct q2_disk *d)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_extent e;
    unsigned n = 0, depth;
    uint64_t copied = 0;
    for (uint64_t at = 0; at < d->size; at += e.n_bytes) {
        uint64_t step = q2_min_u64(d->size - at, q2_disk_map_step(d->size));
        if (++n > MAX_EXTENTS || copied > MAX_COPIED_BYTES || d->size > MAX_DISK_BYTES ||
            q2_disk_status_above(d, NULL, at, step, &e, &depth, &err) < 0)
            return false;
        copied += e.allocated ? e.n_bytes : 0;
    }
    return copied <= MAX_COPIED_BYTES;
}

static void require_same(struct q2_disk *before, struct q2_disk *after, const char *what)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_compare_result r;
    // Not all has to be read for a change: damaged data may be left where they are.
    if (q2_compare(before, before, false, NULL, &r, &err) < 0)
        return;
    if (q2_compare(before, after, false, NULL, &r, &err) < 0)
        fuzz_broken("%s, but cannot be read: %s", what, err.message);
    if (r.verdict != Q2_COMPARE_IDENTICAL)
        fuzz_broken("%s, but differs at %llu", what, (unsigned long long)r.offset);
}

static void require_sound(struct q2_io *io, const char *what)
{
    char why[512];
    if (!fuzz_is_sound(io, why))
        fuzz_broken("%s, but not sound: %s", what, why);
}

// --- convert -------------------------------------------------------------------------

static struct q2_create_options choose_target(const uint8_t *a, uint64_t size)
{
    struct q2_create_options o = {
        .format = a[0] & 7 ? "qcow2" : "raw",
        .size = size,
        .version = a[0] & 8 ? 2 : 3,
        .cluster_size = UINT64_C(512) << (a[1] % 9),
        .refcount_bits = 16,
    };
    // Tables of an empty disk are there as a whole.
    if (size >> 33)
        o.cluster_size = UINT64_C(2) << 20;
    else if (size >> 24)
        o.cluster_size = q2_max_u64(o.cluster_size, 65536);
    if (o.version == 3) {
        o.refcount_bits = UINT64_C(1) << (a[1] >> 4) % 7;
        o.lazy_refcounts = a[2] & 1;
        o.extended_l2 = a[2] & 2 && o.cluster_size >= 16384;
        o.compression = a[2] & 4 ? Q2_COMPRESSION_ZSTD : Q2_COMPRESSION_ZLIB;
        if (a[2] & 8 && size < UINT64_C(16) << 20 && a[0] & 7)
            o.preallocation = Q2_PREALLOC_METADATA;
    }
    return o;
}

static struct q2_disk *create_target(const struct q2_create_options *o)
{
    const struct q2_file_options fo = {0};
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *io = fuzz_file(NULL, 0);
    struct q2_disk *d;
    io->sparse_growth = true;
    io->new_content = true;
    if (q2_create_in(io, o, &fo, NULL, &d, &err) == 0)
        return d;
    require_message(-1, &err);
    q2_io_close(io);
    return NULL;
}

static struct q2_disk *reopen(const struct q2_create_options *o, struct q2_io *io)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_disk *d;
    if (strcmp(o->format, "raw") != 0) {
        require_sound(io, "converted");
        struct q2_image *img = fuzz_open(io, FUZZ_READ);
        return img ? &img->disk : NULL;
    }
    if (q2_raw_open(io, false, &d, &err) < 0)
        fuzz_give_up(err.message);
    d->path = strdup("target");
    return d;
}

// The file is no larger than it was said to become.
static void require_measured(struct q2_disk *source, struct q2_io *io,
                             const struct q2_create_options *o)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_measurement m;
    uint64_t size;
    // Bitmaps are counted, too, and may be damaged.
    int ret = q2_measure(o, source, NULL, &m, &err);
    require_message(ret, &err);
    if (q2_io_get_size(io, &size, &err) < 0)
        fuzz_give_up(err.message);
    if (ret == 0 && size > m.required)
        fuzz_broken("%llu bytes, but %llu were measured", (unsigned long long)size,
                    (unsigned long long)m.required);
}

static void hold_to_source(struct q2_disk *source, struct q2_io *io,
                           const struct q2_create_options *o)
{
    struct q2_disk *d = reopen(o, io);
    if (!d)
        fuzz_broken("converted, but cannot be opened");
    require_same(source, d, "converted");
    q2_disk_drop(d);
}

// Holes of a raw file are not counted, nor what stands for clusters without data.
static bool is_measured(const struct q2_create_options *o,
                        const struct q2_convert_options *c)
{
    return strcmp(o->format, "qcow2") == 0 && o->preallocation == Q2_PREALLOC_OFF &&
           c->sparse_grain > 0;
}

static void convert(struct q2_io *io, const uint8_t *a)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_image *img = open_layers(io, FUZZ_READ, a[3]);
    struct q2_disk *source = &img->disk, *to;
    const struct q2_create_options o = choose_target(a, source->size);
    const struct q2_convert_options c = {
        .compress = a[4] & 1 && strcmp(o.format, "qcow2") == 0,
        .target_is_zero = true,
        .sparse_grain = a[4] & 2 ? 0 : UINT32_C(512) << (a[4] >> 5),
        .n_threads = a[4] & 4 ? 2 : 1,
        .copy_range = a[4] & 8,
        .count_first = a[4] & 16,
    };
    to = create_target(&o);
    if (to) {
        int ret = q2_convert(&source, 1, to, &c, NULL, &err);
        if (ret == 0)
            ret = q2_create_publish(to, &err);
        require_message(ret, &err);
        struct q2_io *file = to->file;
        q2_disk_drop(to);
        if (ret == 0)
            hold_to_source(source, file, &o);
        if (ret == 0 && is_measured(&o, &c))
            require_measured(source, file, &o);
        q2_io_close(file);
    }
    close_layers(img);
}

// --- commit, rebase ------------------------------------------------------------------

// A file that is not in the image keeps nothing here from one opening to the next.
static bool can_change(const struct q2_image *img)
{
    return img && !q2_image_has_data_file(img);
}

static void commit(struct q2_io *io, const uint8_t *a)
{
    const struct q2_commit_options o = {.keep = !(a[0] & 1)};
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *copy = copy_file(io);
    struct q2_image *before = open_layers(copy, FUZZ_READ, a[3]);
    struct q2_image *img = open_layers(io, FUZZ_WRITE, a[3]);
    if (can_change(img) && img->disk.backing) {
        int ret = q2_commit(&img->disk, img->disk.backing, &o, NULL, &err);
        require_message(ret, &err);
        if (ret == 0) {
            // What the base has behind the end of the image stays there.
            if (img->disk.backing->size <= img->disk.size)
                require_same(&before->disk, img->disk.backing, "committed");
            require_same(&before->disk, &img->disk, "committed, the image");
        }
        require_sound(io, "committed, the image");
    }
    if (img)
        close_layers(img);
    close_layers(before);
    q2_io_close(copy);
}

// Both have the same size in the end: the image's.
static void hold_rebased(struct q2_image *before, struct q2_io *io, struct q2_disk *below)
{
    struct q2_image *img = fuzz_open(io, FUZZ_READ);
    if (!img)
        fuzz_broken("rebased, but cannot be opened");
    if ((img->header.backing_file != NULL) != (below != NULL))
        fuzz_broken("rebased, but the header does not say so");
    img->disk.backing = below;
    require_same(&before->disk, &img->disk, "rebased");
    fuzz_close(img);
}

static void rebase(struct q2_io *io, const uint8_t *a)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_disk *below = a[0] & 3 ? new_raw(a[2] + 2U, "other") : NULL;
    const struct q2_rebase_options o = {.backing_file = below ? "other" : NULL,
                                        .backing_format = below ? "raw" : NULL,
                                        .compress = a[0] & 4};
    struct q2_io *copy = copy_file(io);
    struct q2_image *before = open_layers(copy, FUZZ_READ, a[3]);
    struct q2_image *img = open_layers(io, FUZZ_WRITE, a[3]);
    if (can_change(img)) {
        int ret = q2_rebase_check(&img->disk, &o, &err);
        if (ret == 0)
            ret = q2_rebase(&img->disk, below, &o, NULL, &err);
        require_message(ret, &err);
        require_sound(io, "rebased");
        if (ret == 0)
            hold_rebased(before, io, below);
    }
    if (img)
        close_layers(img);
    close_layers(before);
    q2_disk_close(below);
    q2_io_close(copy);
}

// Of an image that is sound.
static void change(struct q2_io *io, bool commits, const uint8_t *orders)
{
    if (commits)
        commit(io, orders);
    else
        rebase(io, orders);
}

void fuzz_target_copy(const uint8_t *data, size_t n_bytes)
{
    if (n_bytes <= FUZZ_OPERATION_BYTES)
        return;
    const uint8_t *orders = data + n_bytes - FUZZ_OPERATION_BYTES;
    struct q2_io *io = fuzz_file(data, n_bytes - FUZZ_OPERATION_BYTES);
    struct q2_image *img = open_layers(io, FUZZ_READ, orders[3]);
    char why[512];
    bool small = img && is_small(&img->disk);
    bool has_backing = img && img->disk.backing;
    if (img)
        close_layers(img);
    if (small && orders[15] & 4)
        convert(io, orders);
    else if (small && fuzz_stays_sound(io, why))
        change(io, has_backing && orders[15] & 2, orders + 8);
    q2_io_close(io);
}
