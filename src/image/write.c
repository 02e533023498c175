// SPDX-License-Identifier: MIT
// Writing guest data: begin finds or allocates host clusters, the caller puts the data
// there (q2_disk_write_data), finish links them. Until then the mapping shows the old
// content.
#include "image/image.h"

#include <errno.h>
#include <inttypes.h>

#include "base/checked.h"
#include "image/overlap.h"

// The part of an L2 table that a request touches.
struct span {
    struct q2_table *table;
    uint64_t *l2;
    uint64_t index; // first entry
    uint64_t n;     // entries
};

static struct q2_l2_entry decode(const struct q2_image *img, uint64_t raw)
{
    return q2_l2_decode(raw, img->cluster_bits, img->header.version);
}

// May the entry's host cluster be written in place?
static bool in_place(const struct q2_l2_entry *e)
{
    return e->copied &&
           (e->kind == Q2_CLUSTER_NORMAL || e->kind == Q2_CLUSTER_ZERO_ALLOCATED);
}

static int check_entry(struct q2_image *img, const struct q2_l2_entry *e,
                       uint64_t guest_offset, struct q2_error *err)
{
    if (e->kind == Q2_CLUSTER_COMPRESSED ||
        q2_is_aligned(e->host_offset, img->cluster_size))
        return 0;
    return q2_overlap_corrupt(
        img, err, "%s offset %#" PRIx64 " unaligned (guest offset: %#" PRIx64 ")",
        e->kind == Q2_CLUSTER_NORMAL ? "Data cluster" : "Preallocated zero cluster",
        e->host_offset, guest_offset);
}

static uint64_t count_in_place(const struct q2_image *img, const struct span *s,
                               const struct q2_l2_entry *first)
{
    uint64_t n = 1;
    for (; n < s->n; n++) {
        struct q2_l2_entry e = decode(img, s->l2[s->index + n]);
        if (!in_place(&e) || e.kind != first->kind ||
            e.host_offset != first->host_offset + (n << img->cluster_bits))
            break;
    }
    return n;
}

static uint64_t count_to_allocate(const struct q2_image *img, const struct span *s)
{
    uint64_t n = 1;
    for (; n < s->n; n++) {
        struct q2_l2_entry e = decode(img, s->l2[s->index + n]);
        if (in_place(&e))
            break;
    }
    return n;
}

// Images of these kinds can be made, but not filled by this version.
int q2_image_refuse_write(const struct q2_image *img, bool packed, struct q2_error *err)
{
    if (img->header.incompatible_features & Q2_INCOMPAT_EXTENDED_L2)
        return q2_fail(err, -ENOTSUP,
                       "'%s': this version cannot write to an image with extended L2 "
                       "entries",
                       img->disk.path);
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
        ret = q2_mapping_l2_for_write(img, guest_offset, &s->table, err);
    if (ret < 0)
        return ret;
    uint64_t in_cluster = guest_offset & (img->cluster_size - 1);
    s->l2 = s->table->data;
    s->index = q2_mapping_l2_index(img, guest_offset);
    s->n = q2_min_u64(q2_div_round_up(in_cluster + n_bytes, img->cluster_size),
                      q2_image_l2_entries(img) - s->index);
    return 0;
}

// Fills w for n clusters at host_offset (the first cluster's start).
static void fill_write(const struct q2_image *img, uint64_t guest_offset, size_t n_bytes,
                       uint64_t host_offset, uint64_t n, struct q2_write *w)
{
    uint64_t in_cluster = guest_offset & (img->cluster_size - 1);
    uint64_t room = (n << img->cluster_bits) - in_cluster;
    w->guest_offset = guest_offset;
    w->n_bytes = (size_t)q2_min_u64(n_bytes, room);
    w->host_offset = host_offset + in_cluster;
    if (w->link) {
        w->head = (size_t)in_cluster;
        w->tail = (size_t)(room - w->n_bytes);
    }
}

static int begin_locked(struct q2_image *img, uint64_t guest_offset, size_t n_bytes,
                        struct q2_write *w, struct q2_error *err)
{
    struct span s;
    uint64_t host_offset, n;
    int ret = find_span(img, guest_offset, n_bytes, false, &s, err);
    if (ret < 0)
        return ret;
    struct q2_l2_entry e = decode(img, s.l2[s.index]);
    ret = check_entry(img, &e, guest_offset, err);
    if (ret < 0)
        return ret;
    if (in_place(&e)) {
        n = count_in_place(img, &s, &e);
        host_offset = e.host_offset;
        w->link = e.kind != Q2_CLUSTER_NORMAL;
        ret = q2_overlap_check(img, 0, host_offset, n << img->cluster_bits, err);
    } else {
        ret = q2_alloc_run(img, count_to_allocate(img, &s), "data cluster", &host_offset,
                           &n, &w->fresh, err);
        w->link = w->taken = true;
    }
    if (ret == 0)
        fill_write(img, guest_offset, n_bytes, host_offset, n, w);
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

int q2_image_release_entry(struct q2_image *img, uint64_t raw, enum q2_free_reason why,
                           struct q2_error *err)
{
    struct q2_l2_entry e = decode(img, raw);
    if (e.host_offset == 0)
        return 0;
    if (e.kind != Q2_CLUSTER_COMPRESSED &&
        !q2_is_aligned(e.host_offset, img->cluster_size))
        return q2_overlap_corrupt(img, err, "Cannot free unaligned cluster %#" PRIx64,
                                  e.host_offset);
    return q2_alloc_free_later(
        img, e.host_offset,
        e.kind == Q2_CLUSTER_COMPRESSED ? e.n_bytes : img->cluster_size, why, err);
}

// Replaces an entry; what the old one referenced is given back.
static int link_entry(struct q2_image *img, struct q2_table *t, uint64_t index,
                      uint64_t raw, struct q2_error *err)
{
    uint64_t *l2 = t->data;
    struct q2_l2_entry old = decode(img, l2[index]), new = decode(img, raw);
    int ret = 0;
    if (old.host_offset != new.host_offset || old.kind == Q2_CLUSTER_COMPRESSED)
        ret = q2_image_release_entry(img, l2[index], Q2_FREE_OTHER, err);
    if (ret < 0)
        return ret;
    l2[index] = raw;
    q2_cache_mark_dirty(img->l2_cache, t);
    return 0;
}

static void give_back(struct q2_image *img, const struct q2_write *w)
{
    if (w->taken)
        q2_alloc_undo(img, w->host_offset - w->head,
                      w->compressed_bytes ? w->compressed_bytes
                                          : w->head + w->n_bytes + w->tail);
}

static int finish_locked(struct q2_image *img, const struct q2_write *w,
                         struct q2_error *err)
{
    struct q2_table *t;
    int ret = q2_mapping_l2_for_write(img, w->guest_offset, &t, err);
    if (ret < 0) {
        give_back(img, w);
        return ret;
    }
    uint64_t index = q2_mapping_l2_index(img, w->guest_offset);
    struct q2_l2_entry e = {.kind = Q2_CLUSTER_NORMAL, .copied = true};
    if (w->compressed_bytes > 0) {
        e = (struct q2_l2_entry){.kind = Q2_CLUSTER_COMPRESSED,
                                 .host_offset = w->host_offset,
                                 .n_bytes = (uint32_t)w->compressed_bytes};
        return link_entry(img, t, index, q2_l2_encode(&e, img->cluster_bits), err);
    }
    uint64_t n = (w->head + w->n_bytes + w->tail) >> img->cluster_bits;
    for (uint64_t i = 0; i < n && ret == 0; i++) {
        e.host_offset = w->host_offset - w->head + (i << img->cluster_bits);
        ret = link_entry(img, t, index + i, q2_l2_encode(&e, img->cluster_bits), err);
    }
    return ret;
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
