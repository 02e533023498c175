// SPDX-License-Identifier: MIT
// Changing, copying and measuring persistent bitmaps. The messages are QEMU's; where it
// names a block node, the file is named.
#include "ops/bitmap.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "image/bitmaps.h"

// Granularity of bitmaps for which none was asked.
#define MIN_DEFAULT_BITS 12U
#define MAX_DEFAULT_BITS 16U

bool q2_bitmap_supported(const struct q2_disk *d)
{
    return d->ops == &q2_image_disk_ops &&
           ((const struct q2_image *)d)->header.version >= 3;
}

// NULL for disks whose format has no bitmaps.
static struct q2_image *image_of(struct q2_disk *d)
{
    return q2_bitmap_supported(d) ? q2_image_of(d) : NULL;
}

static int find(struct q2_image *img, const char *name, struct q2_live_bitmap **out,
                struct q2_error *err)
{
    *out = img ? q2_bitmaps_find(img, name) : NULL;
    return *out ? 0 : q2_fail(err, -ENOENT, "Dirty bitmap '%s' not found", name);
}

static int find_usable(struct q2_image *img, const char *name,
                       struct q2_live_bitmap **out, struct q2_error *err)
{
    int ret = find(img, name, out, err);
    return ret < 0 ? ret : q2_bitmaps_refuse_inconsistent(*out, err);
}

// --- add -----------------------------------------------------------------------------

static int check_granularity(const struct q2_disk *d, uint64_t granularity,
                             unsigned *bits, struct q2_error *err)
{
    unsigned cluster_bits = d->cluster_size ? q2_log2(d->cluster_size) : 0;
    *bits = (unsigned)q2_min_u64(q2_max_u64(cluster_bits, MIN_DEFAULT_BITS),
                                 MAX_DEFAULT_BITS);
    if (granularity == 0)
        return 0;
    if (!q2_is_power_of_2(granularity) ||
        granularity < UINT64_C(1) << Q2_MIN_BITMAP_GRANULARITY_BITS ||
        granularity > UINT64_C(1) << Q2_MAX_BITMAP_GRANULARITY_BITS)
        return q2_fail(err, -EINVAL, "Granularity must be power of 2 and at least 512");
    *bits = q2_log2(granularity);
    return 0;
}

// Is there room for one more of this name?
static int check_directory(struct q2_image *img, const char *name, struct q2_error *err)
{
    struct q2_bitmap entry = {.name = (char *)name};
    uint64_t n_bytes = q2_bitmap_bytes(&entry);
    if (q2_bitmaps_count(img) >= Q2_MAX_BITMAPS)
        return q2_fail(err, -EFBIG,
                       "Maximum number of persistent bitmaps is already reached");
    for (unsigned i = 0; i < q2_bitmaps_count(img); i++)
        n_bytes += q2_bitmap_bytes(&q2_bitmaps_get(img, i)->entry);
    if (n_bytes > Q2_MAX_BITMAP_DIRECTORY_BYTES)
        return q2_fail(err, -EFBIG, "Not enough space in the bitmap directory");
    return 0;
}

static int check_constraints(struct q2_image *img, const char *name, unsigned bits,
                             struct q2_error *err)
{
    if (img->header.version < 3)
        return q2_fail(err, -ENOTSUP, "Cannot store dirty bitmaps in qcow2 v2 files");
    int ret = q2_bitmaps_check_size(img, img->disk.size, bits, err);
    if (ret == 0 && strlen(name) > Q2_MAX_BITMAP_NAME)
        ret = q2_fail(err, -EINVAL, "Name length exceeds maximum (%u characters)",
                      Q2_MAX_BITMAP_NAME);
    return ret == 0 ? check_directory(img, name, err) : ret;
}

// *bits: of the granularity.
static int check_new(struct q2_disk *d, const char *name, uint64_t granularity,
                     unsigned *bits, struct q2_error *err)
{
    if (name[0] == '\0')
        return q2_fail(err, -EINVAL, "Bitmap name cannot be empty");
    int ret = check_granularity(d, granularity, bits, err);
    if (ret < 0)
        return ret;
    if (d->ops != &q2_image_disk_ops)
        return q2_fail(err, -ENOTSUP,
                       "Can't store persistent bitmaps to %s: Operation not supported",
                       d->path);
    struct q2_image *img = q2_image_of(d);
    if (q2_bitmaps_find(img, name))
        return q2_fail(err, -EEXIST, "Bitmap already exists: %s", name);
    ret = check_constraints(img, name, *bits, err);
    return ret != 0 ? q2_context(err, "Can't make bitmap '%s' persistent in '%s'", name,
                                 d->path)
                    : 0;
}

static int add(struct q2_disk *d, const char *name, uint64_t granularity,
               struct q2_live_bitmap **out, struct q2_error *err)
{
    unsigned bits;
    int ret = check_new(d, name, granularity, &bits, err);
    return ret != 0 ? ret : q2_bitmaps_add(q2_image_of(d), name, bits, out, err);
}

// --- merge ---------------------------------------------------------------------------

struct merge {
    struct q2_image *img;
    struct q2_live_bitmap *to;
};

static int take_run(void *opaque, uint64_t start, uint64_t end, struct q2_error *err)
{
    const struct merge *m = opaque;
    return q2_bits_set(m->img, m->to, start, end, err);
}

static int check_sizes(uint64_t to, uint64_t from, struct q2_error *err)
{
    if (from == to)
        return 0;
    return q2_fail(err, -EINVAL,
                   "Bitmaps are of different sizes (destination size is %" PRIu64
                   ", source size is %" PRIu64 ") and can't be merged",
                   to, from);
}

static int merge_bitmaps(struct q2_image *from_img, struct q2_live_bitmap *from,
                         struct q2_image *img, struct q2_live_bitmap *to,
                         struct q2_error *err)
{
    struct merge m = {.img = img, .to = to};
    int ret = check_sizes(to->disk_size, from->disk_size, err);
    return ret < 0 || from == to ? ret : q2_bits_each(from_img, from, take_run, &m, err);
}

static int merge(struct q2_image *img, struct q2_image *source, const char *name,
                 const char *source_name, struct q2_error *err)
{
    struct q2_live_bitmap *to = NULL, *from = NULL;
    int ret = find(img, name, &to, err);
    if (ret == 0)
        ret = find(source, source_name, &from, err);
    if (ret == 0)
        ret = q2_bitmaps_refuse_inconsistent(to, err);
    if (ret == 0)
        ret = q2_bitmaps_refuse_inconsistent(from, err);
    return ret != 0 ? ret : merge_bitmaps(source, from, img, to, err);
}

// --- the actions ---------------------------------------------------------------------

static int act(struct q2_disk *d, const struct q2_bitmap_request *r,
               const struct q2_bitmap_action *action, struct q2_error *err)
{
    struct q2_image *img = image_of(d);
    struct q2_image *source = r->source ? image_of(r->source) : img;
    struct q2_live_bitmap *b;
    int ret;
    switch (action->act) {
    case Q2_BITMAP_ADD:
        return add(d, r->name, r->granularity, &b, err);
    case Q2_BITMAP_MERGE:
        return merge(img, source, r->name, action->source, err);
    case Q2_BITMAP_REMOVE:
        ret = find(img, r->name, &b, err);
        return ret < 0 ? ret : q2_bitmaps_remove(img, b, err);
    case Q2_BITMAP_CLEAR:
        ret = find_usable(img, r->name, &b, err);
        if (ret == 0)
            q2_bits_clear(b);
        return ret;
    case Q2_BITMAP_ENABLE:
    case Q2_BITMAP_DISABLE:
        ret = find_usable(img, r->name, &b, err);
        if (ret == 0)
            q2_bitmaps_enable(img, b, action->act == Q2_BITMAP_ENABLE);
        return ret;
    }
    return 0;
}

static int act_all(struct q2_disk *d, const struct q2_bitmap_request *r,
                   struct q2_error *err)
{
    static const char *const names[] = {
        [Q2_BITMAP_ADD] = "add",         [Q2_BITMAP_REMOVE] = "remove",
        [Q2_BITMAP_CLEAR] = "clear",     [Q2_BITMAP_ENABLE] = "enable",
        [Q2_BITMAP_DISABLE] = "disable", [Q2_BITMAP_MERGE] = "merge",
    };
    for (unsigned i = 0; i < r->n_actions; i++) {
        if (act(d, r, &r->actions[i], err) < 0)
            return q2_context(err, "Operation %s on bitmap %s failed",
                              names[r->actions[i].act], r->name);
    }
    return 0;
}

static void lock(struct q2_disk *d)
{
    struct q2_image *img = d ? image_of(d) : NULL;
    if (img)
        pthread_mutex_lock(&img->lock);
}

static void unlock(struct q2_disk *d)
{
    struct q2_image *img = d ? image_of(d) : NULL;
    if (img)
        pthread_mutex_unlock(&img->lock);
}

static int load(struct q2_disk *d, struct q2_error *err)
{
    struct q2_image *img = image_of(d);
    lock(d);
    int ret = img ? q2_bitmaps_load(img, err) : 0;
    unlock(d);
    return ret < 0 ? q2_context(err, "Could not open '%s'", d->path) : 0;
}

static int store(struct q2_disk *d, struct q2_error *err)
{
    struct q2_image *img = image_of(d);
    lock(d);
    int ret = img ? q2_bitmaps_store(img, err) : 0;
    unlock(d);
    return ret;
}

int q2_bitmap_change(struct q2_disk *d, const struct q2_bitmap_request *request,
                     struct q2_error *err)
{
    struct q2_error later = Q2_ERROR_INIT;
    int ret = load(d, err);
    if (ret == 0 && request->source)
        ret = load(request->source, err);
    if (ret < 0)
        return ret;
    lock(d);
    lock(request->source);
    ret = act_all(d, request, err);
    unlock(request->source);
    unlock(d);
    // What went well before a failure stays.
    int stored = store(d, ret < 0 ? &later : err);
    return ret < 0 ? ret : stored;
}

// --- copying -------------------------------------------------------------------------

int q2_bitmap_check_copy(struct q2_disk *source, bool skip_broken,
                         const struct q2_monitor *mon, struct q2_error *err)
{
    struct q2_image *img = image_of(source);
    if (!img)
        return q2_fail(err, -ENOTSUP, "Source lacks bitmap support");
    int ret = load(source, err);
    for (unsigned i = q2_bitmaps_count(img); ret == 0 && i-- > 0;) {
        const struct q2_live_bitmap *b = q2_bitmaps_get(img, i);
        if (!b->inconsistent)
            continue;
        if (skip_broken) {
            q2_monitor_warn(mon, "Skipping inconsistent bitmap '%s'", b->entry.name);
            continue;
        }
        q2_fail(err, -EUCLEAN, "Cannot copy inconsistent bitmap '%s'", b->entry.name);
        return q2_hint(err, "Try --skip-broken-bitmaps, or use 'qemu-img bitmap "
                            "--remove' to delete it");
    }
    return ret;
}

// Does something with every bitmap of the source that is sound.
static int for_each(struct q2_disk *source, struct q2_disk *target, bool backwards,
                    int (*one)(struct q2_image *from, struct q2_live_bitmap *b,
                               struct q2_disk *to, struct q2_error *err),
                    struct q2_error *err)
{
    int ret = load(source, err);
    if (ret == 0)
        ret = load(target, err);
    lock(source);
    lock(target);
    struct q2_image *from = image_of(source);
    unsigned n = from ? q2_bitmaps_count(from) : 0;
    for (unsigned i = 0; ret == 0 && i < n; i++) {
        struct q2_live_bitmap *b = q2_bitmaps_get(from, backwards ? n - 1 - i : i);
        if (!b->inconsistent)
            ret = one(from, b, target, err);
    }
    unlock(target);
    unlock(source);
    return ret;
}

static int check_one(struct q2_image *from, struct q2_live_bitmap *b, struct q2_disk *to,
                     struct q2_error *err)
{
    const char *name = b->entry.name;
    unsigned bits;
    (void)from;
    if (check_new(to, name, UINT64_C(1) << b->entry.granularity_bits, &bits, err) < 0)
        return q2_context(err, "Failed to create bitmap %s", name);
    if (check_sizes(to->size, b->disk_size, err) < 0)
        return q2_context(err, "Failed to populate bitmap %s", name);
    return 0;
}

int q2_bitmap_check_target(struct q2_disk *source, struct q2_disk *target,
                           struct q2_error *err)
{
    if (!q2_bitmap_supported(target))
        return q2_fail(err, -ENOTSUP, "Format driver '%s' does not support bitmaps",
                       target->ops->format);
    // QEMU complains of the last one first.
    return for_each(source, target, true, check_one, err);
}

static int copy_one(struct q2_image *from, struct q2_live_bitmap *b, struct q2_disk *to,
                    struct q2_error *err)
{
    struct q2_live_bitmap *copy;
    const char *name = b->entry.name;
    if (add(to, name, UINT64_C(1) << b->entry.granularity_bits, &copy, err) != 0)
        return q2_context(err, "Failed to create bitmap %s", name);
    q2_bitmaps_enable(q2_image_of(to), copy, b->entry.flags & Q2_BITMAP_AUTO);
    if (merge_bitmaps(from, b, q2_image_of(to), copy, err) < 0)
        return q2_context(err, "Failed to populate bitmap %s", name);
    return 0;
}

int q2_bitmap_copy(struct q2_disk *source, struct q2_disk *target, struct q2_error *err)
{
    int ret = for_each(source, target, false, copy_one, err);
    return ret < 0 ? ret : store(target, err);
}

// --- measuring -----------------------------------------------------------------------

struct measuring {
    uint64_t disk_size, cluster_size;
    uint64_t n_bytes, directory_bytes;
};

static int measure_one(void *opaque, const struct q2_bitmap *b, struct q2_error *err)
{
    struct measuring *m = opaque;
    uint64_t bits = q2_bitmap_data_bytes(m->disk_size, b->granularity_bits);
    uint64_t clusters = q2_div_round_up(bits, m->cluster_size);
    (void)err;
    m->n_bytes += clusters * m->cluster_size + q2_align_up(clusters * 8, m->cluster_size);
    m->directory_bytes += q2_bitmap_bytes(b);
    return 0;
}

int q2_bitmap_measure(struct q2_disk *d, uint64_t cluster_size, uint64_t *n_bytes,
                      struct q2_error *err)
{
    struct q2_image *img = image_of(d);
    struct measuring m = {.disk_size = d->size, .cluster_size = cluster_size};
    int ret = img ? q2_bitmaps_each(d->file, &img->header, measure_one, &m, err) : 0;
    *n_bytes = m.n_bytes + q2_align_up(m.directory_bytes, cluster_size);
    return ret;
}
