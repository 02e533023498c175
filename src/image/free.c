// SPDX-License-Identifier: MIT
// Giving host clusters back: not before everything that pointed to them is gone from the
// disk. Until then they wait in a list, and nobody gets them.
#include "image/image.h"

#include <stdlib.h>

#include "base/checked.h"
#include "image/overlap.h"

// So much may wait before a commit is due, lest an image under steady rewrite grow: this,
// or a sixteenth of the file if that is more, but not more than the last.
#define MIN_WAITING_BYTES (UINT64_C(1) << 20)
#define MAX_WAITING_BYTES (UINT64_C(256) << 20)
#define MAX_WAITING_RUNS 65536U

static bool passes(const struct q2_image *img, enum q2_free_reason why)
{
    return img->pass_discard[why] && !img->unpublished;
}

static int grow_list(struct q2_image *img, struct q2_error *err)
{
    if (img->pending_free && img->n_pending_free < img->max_pending_free)
        return 0;
    size_t max = img->max_pending_free ? img->max_pending_free * 2 : 64;
    struct q2_pending_free *p = realloc(img->pending_free, max * sizeof(*p));
    if (!p)
        return q2_fail_memory(err, max * sizeof(*p));
    img->pending_free = p;
    img->max_pending_free = max;
    return 0;
}

int q2_alloc_free_later(struct q2_image *img, uint64_t host_offset, uint64_t n_bytes,
                        enum q2_free_reason why, struct q2_error *err)
{
    uint64_t first = host_offset >> img->cluster_bits;
    uint64_t n = ((host_offset + n_bytes - 1) >> img->cluster_bits) - first + 1;
    bool punch = passes(img, why);
    struct q2_pending_free *last =
        img->n_pending_free ? &img->pending_free[img->n_pending_free - 1] : NULL;
    if (last && last->cluster + last->n_clusters == first && last->punch == punch) {
        last->n_clusters += n;
    } else {
        int ret = grow_list(img, err);
        if (ret < 0)
            return ret;
        img->pending_free[img->n_pending_free++] =
            (struct q2_pending_free){.cluster = first, .n_clusters = n, .punch = punch};
    }
    img->n_pending_clusters += n;
    return 0;
}

bool q2_alloc_free_is_due(const struct q2_image *img)
{
    uint64_t share = q2_min_u64(img->data_end / 16, MAX_WAITING_BYTES);
    return img->n_pending_free >= MAX_WAITING_RUNS ||
           (!img->only_frees && img->n_pending_clusters << img->cluster_bits >=
                                    q2_max_u64(share, MIN_WAITING_BYTES));
}

static bool is_nobodys(struct q2_image *img, uint64_t cluster)
{
    struct q2_error ignored = Q2_ERROR_INIT;
    uint64_t count;
    return q2_refcount_get(img, cluster, &count, &ignored) == 0 && count == 0 &&
           !q2_overlap_any(img, cluster << img->cluster_bits, img->cluster_size);
}

// The clusters of p that nobody references any more become holes in the file, so that it
// does not matter what a failure leaves in them. (A wrong entry may have led to
// metadata.)
static void punch_holes(struct q2_image *img, const struct q2_pending_free *p)
{
    struct q2_error ignored = Q2_ERROR_INIT;
    uint64_t end = p->cluster + p->n_clusters, start = end;
    for (uint64_t c = p->cluster; c <= end; c++) {
        bool free = c < end && is_nobodys(img, c);
        if (free && start == end) {
            start = c;
        } else if (!free && start < end) {
            q2_io_discard(img->disk.file, start << img->cluster_bits,
                          (c - start) << img->cluster_bits, &ignored);
            start = end;
        }
    }
}

int q2_alloc_free_waiting(struct q2_image *img, struct q2_error *err)
{
    int ret = 0;
    // One that cannot be freed leaks; the others need not.
    for (size_t i = 0; i < img->n_pending_free; i++) {
        struct q2_error later = Q2_ERROR_INIT;
        const struct q2_pending_free *p = &img->pending_free[i];
        int one =
            q2_refcount_add(img, p->cluster, p->n_clusters, -1, ret == 0 ? err : &later);
        if (one == 0 && p->punch)
            punch_holes(img, p);
        ret = ret < 0 ? ret : one;
    }
    img->n_pending_free = 0;
    img->n_pending_clusters = 0;
    return ret;
}
