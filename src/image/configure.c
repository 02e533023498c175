// SPDX-License-Identifier: MIT
// What may be asked of an image for one run.
#include "image/image.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>

#include "base/checked.h"

// Refcount blocks that are kept in any case, and the L2 tables of a whole disk, as QEMU
// shares cache-size out.
#define MIN_REFCOUNT_BLOCKS 4U

struct cache_sizes {
    uint64_t l2, refcount;
};

static int check_sizes(const struct q2_runtime *r, struct q2_error *err)
{
    if (r->cache_size && r->l2_cache_size && r->refcount_cache_size)
        return q2_fail(err, -EINVAL,
                       "cache-size, l2-cache-size and refcount-cache-size may not be set "
                       "at the same time");
    if (r->cache_size && r->l2_cache_size > r->cache_size)
        return q2_fail(err, -EINVAL, "l2-cache-size may not exceed cache-size");
    if (r->cache_size && r->refcount_cache_size > r->cache_size)
        return q2_fail(err, -EINVAL, "refcount-cache-size may not exceed cache-size");
    return 0;
}

// The L2 tables first, as far as the disk has any; refcount blocks get the rest.
static struct cache_sizes share_out(const struct q2_image *img, uint64_t both)
{
    uint64_t l2 = q2_image_l1_entries(img->disk.size, img->cluster_bits, img->l2_bits)
                  << img->cluster_bits;
    uint64_t least = (uint64_t)MIN_REFCOUNT_BLOCKS << img->cluster_bits;
    uint64_t refcount =
        both >= l2 && both - l2 >= least ? both - l2 : q2_min_u64(both, least);
    return (struct cache_sizes){.l2 = both - refcount, .refcount = refcount};
}

static int set_caches(struct q2_image *img, const struct q2_runtime *r,
                      struct q2_error *err)
{
    struct cache_sizes size = {.l2 = img->unpublished ? Q2_NEW_L2_CACHE_BYTES
                                                      : Q2_L2_CACHE_BYTES,
                               .refcount = Q2_REFCOUNT_CACHE_BYTES};
    int ret = check_sizes(r, err);
    if (ret < 0)
        return ret;
    if (r->cache_size)
        size = share_out(img, r->cache_size);
    if (r->l2_cache_size) {
        size.l2 = r->l2_cache_size;
        size.refcount = r->cache_size ? r->cache_size - size.l2 : size.refcount;
    }
    if (r->refcount_cache_size) {
        size.refcount = r->refcount_cache_size;
        size.l2 = r->cache_size ? r->cache_size - size.refcount : size.l2;
    }
    if (size.l2 / img->cluster_size > INT_MAX)
        return q2_fail(err, -EINVAL, "L2 cache size too big");
    if (size.refcount / img->cluster_size > INT_MAX)
        return q2_fail(err, -EINVAL, "Refcount cache size too big");
    q2_cache_set_size(img->l2_cache, size.l2);
    q2_cache_set_size(img->refcount_cache, size.refcount);
    return 0;
}

static bool wanted(enum q2_tristate asked, bool otherwise)
{
    return asked == Q2_UNSET ? otherwise : asked == Q2_ON;
}

int q2_image_configure(struct q2_image *img, const struct q2_runtime *runtime,
                       struct q2_error *err)
{
    const struct q2_runtime defaults = {0}, *r = runtime ? runtime : &defaults;
    const struct q2_header *h = &img->header;
    img->lazy_refcounts = wanted(
        r->lazy_refcounts, (h->compatible_features & Q2_COMPAT_LAZY_REFCOUNTS) != 0);
    if (img->lazy_refcounts && h->version < 3)
        return q2_fail(err, -EINVAL,
                       "Lazy refcounts require a qcow2 image with at least qemu 1.1 "
                       "compatibility level");
    if (r->discard_no_unref && h->version < 3)
        return q2_fail(err, -EINVAL,
                       "discard-no-unref is only supported since qcow2 version 3");
    img->discard_no_unref = r->discard_no_unref;
    img->pass_discard[Q2_FREE_REQUEST] =
        wanted(r->pass_discard_request, r->discard_unmap);
    img->pass_discard[Q2_FREE_SNAPSHOT] = wanted(r->pass_discard_snapshot, true);
    img->pass_discard[Q2_FREE_OTHER] = wanted(r->pass_discard_other, false);
    img->overlap_check = r->overlap_check_set ? r->overlap_check : Q2_OVERLAP_CACHED;
    return set_caches(img, r, err);
}
