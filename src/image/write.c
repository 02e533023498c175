// SPDX-License-Identifier: MIT
// Writing guest data: begin finds or allocates host clusters, the caller puts the data
// there (q2_disk_write_data), finish links them. Until then the mapping shows the old
// content.
#include "image/image.h"

#include <errno.h>
#include <inttypes.h>

#include "base/checked.h"
#include "image/bitmaps.h"
#include "image/overlap.h"

// The part of an L2 table that a request touches.
struct span {
    struct q2_table *table;
    uint64_t *l2;
    uint64_t index; // first entry
    uint64_t n;     // entries
};

// May the entry's host cluster be written in place?
static bool in_place(const struct q2_l2_entry *e)
{
    return e->copied && e->has_cluster && e->kind != Q2_CLUSTER_INVALID;
}

static int check_entry(struct q2_image *img, const struct q2_l2_entry *e,
                       uint64_t guest_offset, struct q2_error *err)
{
    if (e->kind == Q2_CLUSTER_INVALID)
        return q2_mapping_refuse_invalid(img, guest_offset, err);
    if (!e->has_cluster || q2_is_aligned(e->host_offset, img->cluster_size))
        return q2_mapping_check_place(img, e, guest_offset, err);
    return q2_overlap_corrupt(
        img, err, "%s offset %#" PRIx64 " unaligned (guest offset: %#" PRIx64 ")",
        e->kind == Q2_CLUSTER_ZERO_ALLOCATED ? "Preallocated zero cluster"
                                             : "Data cluster",
        e->host_offset, guest_offset);
}

// Clusters in place one behind the other; *link: not all that the request touches of them
// is stored there by now. from, to: the request, counted from the first cluster's start.
static uint64_t count_in_place(const struct q2_image *img, const struct span *s,
                               const struct q2_l2_entry *first, uint64_t from,
                               uint64_t to, bool *link)
{
    uint64_t n = 0;
    *link = false;
    for (; n < s->n; n++) {
        struct q2_l2_entry e = q2_mapping_entry(img, s->l2, s->index + n);
        if (!in_place(&e) ||
            e.host_offset != first->host_offset + (n << img->cluster_bits))
            break;
        *link = *link || (q2_mapping_touched(img, n, from, to) & ~e.allocated) != 0;
    }
    return n;
}

static uint64_t count_to_allocate(const struct q2_image *img, const struct span *s)
{
    uint64_t n = 1;
    for (; n < s->n; n++) {
        if (!img->extended_l2 && s->l2[s->index + n] == 0)
            continue;
        struct q2_l2_entry e = q2_mapping_entry(img, s->l2, s->index + n);
        if (in_place(&e) || e.kind == Q2_CLUSTER_INVALID)
            break;
    }
    return n;
}

// Images of these kinds can be made, but not filled by this version.
int q2_image_refuse_write(const struct q2_image *img, bool packed, struct q2_error *err)
{
    if (packed && q2_image_has_data_file(img))
        return q2_fail(err, -ENOTSUP,
                       "'%s': nothing is compressed in an external data file",
                       img->disk.path);
    // A compressed cluster would stand in the file for everybody to read.
    if (packed && q2_image_is_encrypted(img))
        return q2_fail(err, -ENOTSUP,
                       "Compression and encryption not supported at the same time");
    return 0;
}

static int find_span(struct q2_image *img, uint64_t guest_offset, size_t n_bytes,
                     bool packed, struct span *s, struct q2_error *err)
{
    int ret = q2_image_refuse_write(img, packed, err);
    if (ret == 0)
        ret = q2_image_trim(img, err);
    if (ret == 0)
        ret = q2_bitmaps_record(img, guest_offset, packed ? img->cluster_size : n_bytes,
                                err);
    if (ret == 0)
        ret = q2_mapping_l2_for_write(img, guest_offset, &s->table, err);
    if (ret != 0)
        return ret;
    uint64_t in_cluster = guest_offset & (img->cluster_size - 1);
    s->l2 = s->table->data;
    s->index = q2_mapping_l2_index(img, guest_offset);
    s->n = q2_min_u64(q2_div_round_up(in_cluster + n_bytes, img->cluster_size),
                      q2_image_l2_entries(img) - s->index);
    return 0;
}

// How much old content is to be copied before the request, which begins at in_cluster of
// a cluster with entry e. What else is stored there comes along where the cluster gets a
// new place.
static uint64_t head_of(const struct q2_image *img, const struct q2_l2_entry *e,
                        uint64_t in_cluster, bool moves)
{
    uint64_t start = q2_align_down(in_cluster, UINT64_C(1) << img->grain_bits);
    if (moves && e->kind == Q2_CLUSTER_COMPRESSED)
        return in_cluster;
    if (moves && e->allocated != 0)
        start = q2_min_u64(start, (uint64_t)__builtin_ctz(e->allocated)
                                      << (img->cluster_bits - Q2_SUBCLUSTER_BITS));
    // In place, what is stored there is not touched.
    if (!moves &&
        (q2_mapping_touched(img, 0, in_cluster, in_cluster + 1) & e->allocated) != 0)
        return 0;
    return in_cluster - start;
}

// The same behind the request, which ends at in_cluster (1 .. cluster size).
static uint64_t tail_of(const struct q2_image *img, const struct q2_l2_entry *e,
                        uint64_t in_cluster, bool moves)
{
    uint64_t end = q2_align_up(in_cluster, UINT64_C(1) << img->grain_bits);
    if (moves && e->kind == Q2_CLUSTER_COMPRESSED)
        return img->cluster_size - in_cluster;
    if (moves && e->allocated != 0)
        end = q2_max_u64(end, (uint64_t)(32 - __builtin_clz(e->allocated))
                                  << (img->cluster_bits - Q2_SUBCLUSTER_BITS));
    if (!moves &&
        (q2_mapping_touched(img, 0, in_cluster - 1, in_cluster) & e->allocated) != 0)
        return 0;
    return end - in_cluster;
}

// Fills w for n clusters at host_offset (the first cluster's start).
static void fill_write(const struct q2_image *img, const struct span *s,
                       uint64_t guest_offset, size_t n_bytes, uint64_t host_offset,
                       uint64_t n, struct q2_write *w)
{
    uint64_t in_cluster = guest_offset & (img->cluster_size - 1);
    uint64_t room = (n << img->cluster_bits) - in_cluster;
    w->guest_offset = guest_offset;
    w->n_bytes = (size_t)q2_min_u64(n_bytes, room);
    w->host_offset = host_offset + in_cluster;
    if (!w->link)
        return;
    uint64_t last = (in_cluster + w->n_bytes - 1) >> img->cluster_bits;
    uint64_t end = in_cluster + w->n_bytes - (last << img->cluster_bits);
    struct q2_l2_entry e = q2_mapping_entry(img, s->l2, s->index);
    w->head = (size_t)head_of(img, &e, in_cluster, w->taken);
    if (last > 0)
        e = q2_mapping_entry(img, s->l2, s->index + last);
    w->tail = (size_t)tail_of(img, &e, end, w->taken);
    // A data file does not grow beyond the disk for the last cluster's sake.
    uint64_t behind = guest_offset + w->n_bytes;
    if (q2_image_has_data_file(img) && behind <= img->disk.size)
        w->tail = (size_t)q2_min_u64(w->tail, img->disk.size - behind);
}

// A place for the clusters of guest_offset and the next ones, as many as get one. In a
// data file that is theirs from the start.
static int take_place(struct q2_image *img, const struct span *s, uint64_t guest_offset,
                      uint64_t *host_offset, uint64_t *n, struct q2_write *w,
                      struct q2_error *err)
{
    const struct q2_io *data = img->disk.data;
    uint64_t wanted = count_to_allocate(img, s);
    w->link = w->taken = true;
    if (!q2_image_has_data_file(img))
        return q2_alloc_run(img, wanted, "data cluster", host_offset, n, &w->fresh, err);
    if (!data)
        return q2_fail(err, -EIO, "'%s': the data file is not open", img->disk.path);
    *host_offset = q2_align_down(guest_offset, img->cluster_size);
    *n = wanted;
    // Until the image is whole, nothing is written twice.
    w->fresh = img->unpublished && data->new_content && data->sparse_growth;
    return 0;
}

static int begin_locked(struct q2_image *img, uint64_t guest_offset, size_t n_bytes,
                        struct q2_write *w, struct q2_error *err)
{
    uint64_t in_cluster = guest_offset & (img->cluster_size - 1);
    struct span s;
    uint64_t host_offset, n;
    int ret = find_span(img, guest_offset, n_bytes, false, &s, err);
    if (ret != 0)
        return ret;
    struct q2_l2_entry e = q2_mapping_entry(img, s.l2, s.index);
    ret = check_entry(img, &e, guest_offset, err);
    if (ret < 0)
        return ret;
    if (in_place(&e)) {
        n = count_in_place(img, &s, &e, in_cluster, in_cluster + n_bytes, &w->link);
        host_offset = e.host_offset;
        if (!q2_image_has_data_file(img))
            ret = q2_overlap_check(img, 0, host_offset, n << img->cluster_bits, err);
    } else {
        ret = take_place(img, &s, guest_offset, &host_offset, &n, w, err);
    }
    if (ret == 0)
        fill_write(img, &s, guest_offset, n_bytes, host_offset, n, w);
    return ret;
}

int q2_image_write_begin(struct q2_disk *d, uint64_t guest_offset, size_t n_bytes,
                         struct q2_write *w, struct q2_error *err)
{
    struct q2_image *img = q2_image_of(d);
    *w = (struct q2_write){0};
    pthread_mutex_lock(&img->lock);
    int ret = begin_locked(img, guest_offset, n_bytes, w, err);
    pthread_mutex_unlock(&img->lock);
    return ret;
}

int q2_image_write_begin_compressed(struct q2_disk *d, uint64_t guest_offset,
                                    size_t compressed_bytes, struct q2_write *w,
                                    struct q2_error *err)
{
    struct q2_image *img = q2_image_of(d);
    struct span s;
    *w = (struct q2_write){.guest_offset = guest_offset,
                           .n_bytes = img->cluster_size,
                           .compressed_bytes = compressed_bytes,
                           .taken = true,
                           .link = true};
    pthread_mutex_lock(&img->lock);
    int ret = find_span(img, guest_offset, 1, true, &s, err);
    if (ret == 0)
        ret = q2_alloc_bytes(img, compressed_bytes, &w->host_offset, err);
    pthread_mutex_unlock(&img->lock);
    return ret;
}

int q2_image_release_entry(struct q2_image *img, const struct q2_l2_entry *e,
                           enum q2_free_reason why, struct q2_error *err)
{
    if (e->kind == Q2_CLUSTER_COMPRESSED)
        return q2_alloc_free_later(img, e->host_offset, e->n_bytes, why, err);
    // In a data file every guest cluster keeps its place.
    if (!e->has_cluster || q2_image_has_data_file(img))
        return 0;
    if (!q2_is_aligned(e->host_offset, img->cluster_size))
        return q2_overlap_corrupt(img, err, "Cannot free unaligned cluster %#" PRIx64,
                                  e->host_offset);
    return q2_alloc_free_later(img, e->host_offset, img->cluster_size, why, err);
}

// Replaces an entry; what the old one referenced is given back.
static int link_entry(struct q2_image *img, struct q2_table *t, uint64_t index,
                      const struct q2_l2_entry *new, struct q2_error *err)
{
    struct q2_l2_entry old = q2_mapping_entry(img, t->data, index);
    int ret = 0;
    if (old.host_offset != new->host_offset || old.kind == Q2_CLUSTER_COMPRESSED)
        ret = q2_image_release_entry(img, &old, Q2_FREE_OTHER, err);
    if (ret == 0)
        q2_mapping_set_entry(img, t, index, *new);
    return ret;
}

static void give_back(struct q2_image *img, const struct q2_write *w)
{
    uint64_t start = w->host_offset, n_bytes = w->compressed_bytes;
    if (!w->taken || q2_image_has_data_file(img))
        return;
    if (n_bytes == 0) {
        start = q2_align_down(w->host_offset - w->head, img->cluster_size);
        n_bytes =
            q2_align_up(w->host_offset + w->n_bytes + w->tail, img->cluster_size) - start;
    }
    q2_alloc_undo(img, start, n_bytes);
}

// The entry of a cluster at host_offset after a write: mask says what was written.
static struct q2_l2_entry written_entry(const struct q2_write *w,
                                        const struct q2_l2_entry *old,
                                        uint64_t host_offset, uint32_t mask)
{
    // What is stored at the old place alone was copied, and is in the mask.
    return (struct q2_l2_entry){.copied = true,
                                .has_cluster = true,
                                .host_offset = host_offset,
                                .allocated = w->taken ? mask : old->allocated | mask,
                                .zero = old->zero & ~mask};
}

// Nothing was written. Where subclusters exist, they stay as they were. Elsewhere the new
// cluster is data, and reads as zeros as it is; an encrypted one must be told to.
static struct q2_l2_entry reserved_entry(const struct q2_image *img,
                                         const struct q2_write *w,
                                         const struct q2_l2_entry *old,
                                         uint64_t host_offset)
{
    bool plain = !img->extended_l2 && !q2_image_is_encrypted(img);
    struct q2_l2_entry e = written_entry(w, old, host_offset, plain ? UINT32_MAX : 0);
    if (!plain && !img->extended_l2)
        e.zero = ~e.allocated;
    return e;
}

// Empty entries of n whole clusters that become data side by side, in one go. Returns how
// many these are, from the first on; 0: these are no such ones.
static uint64_t link_empty(struct q2_image *img, struct q2_table *t,
                           const struct q2_write *w, uint64_t index, uint64_t n,
                           uint64_t host_offset)
{
    uint64_t *l2 = t->data, count = 0;
    struct q2_l2_entry empty = {0};
    if (img->extended_l2 || (w->reserve && q2_image_is_encrypted(img)))
        return 0;
    while (count < n && l2[index + count] == 0)
        count++;
    if (count < 2)
        return 0;
    // The first one as always; the others differ from it by their place alone.
    q2_mapping_set_entry(img, t, index,
                         written_entry(w, &empty, host_offset, UINT32_MAX));
    for (uint64_t i = 1; i < count; i++)
        l2[index + i] = l2[index] + (i << img->cluster_bits);
    q2_cache_mark_range(img->l2_cache, t, index * 8, count * 8);
    return count;
}

static int link_clusters(struct q2_image *img, struct q2_table *t,
                         const struct q2_write *w, struct q2_error *err)
{
    uint64_t index = q2_mapping_l2_index(img, w->guest_offset);
    uint64_t in_cluster = w->guest_offset & (img->cluster_size - 1);
    uint64_t from = in_cluster - w->head, to = in_cluster + w->n_bytes + w->tail;
    uint64_t n = q2_div_round_up(to, img->cluster_size),
             n_whole = to >> img->cluster_bits;
    int ret = 0;
    for (uint64_t i = 0, done = 0; i < n && ret == 0; i += done) {
        uint64_t host_offset = w->host_offset - in_cluster + (i << img->cluster_bits);
        bool whole = i << img->cluster_bits >= from && i < n_whole;
        done = whole ? link_empty(img, t, w, index + i, n_whole - i, host_offset) : 0;
        if (done > 0)
            continue;
        done = 1;
        struct q2_l2_entry old = q2_mapping_entry(img, t->data, index + i), e;
        if (w->reserve)
            e = reserved_entry(img, w, &old, host_offset);
        else
            e = written_entry(w, &old, host_offset, q2_mapping_touched(img, i, from, to));
        ret = link_entry(img, t, index + i, &e, err);
    }
    return ret;
}

static int finish_locked(struct q2_image *img, const struct q2_write *w,
                         struct q2_error *err)
{
    const struct q2_l2_entry packed = {.kind = Q2_CLUSTER_COMPRESSED,
                                       .host_offset = w->host_offset,
                                       .n_bytes = (uint32_t)w->compressed_bytes};
    struct q2_table *t;
    int ret = q2_mapping_l2_for_write(img, w->guest_offset, &t, err);
    if (ret < 0) {
        give_back(img, w);
        return ret;
    }
    if (w->compressed_bytes == 0)
        return link_clusters(img, t, w, err);
    return link_entry(img, t, q2_mapping_l2_index(img, w->guest_offset), &packed, err);
}

int q2_image_write_finish(struct q2_disk *d, const struct q2_write *w,
                          struct q2_error *err)
{
    struct q2_image *img = q2_image_of(d);
    if (!w->link)
        return 0;
    pthread_mutex_lock(&img->lock);
    int ret = finish_locked(img, w, err);
    pthread_mutex_unlock(&img->lock);
    return ret;
}

void q2_image_write_cancel(struct q2_disk *d, const struct q2_write *w)
{
    struct q2_image *img = q2_image_of(d);
    pthread_mutex_lock(&img->lock);
    give_back(img, w);
    pthread_mutex_unlock(&img->lock);
}
