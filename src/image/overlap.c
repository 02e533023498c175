// SPDX-License-Identifier: MIT
// Guarding metadata. What the header names are a few ranges; L2 tables and refcount
// blocks are many, and found by their host cluster; L1 tables of snapshots are ranges in
// order.
#include "image/overlap.h"
#include "base/search.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/checked.h"
#include "image/cluster_set.h"

// More than all key slots need. A length that is damaged must not make every write look
// like one on the LUKS header.
#define MAX_LUKS_BYTES (UINT64_C(4) << 20)

struct range {
    uint64_t start, end;
};

struct q2_places {
    struct q2_cluster_set *tables; // kinds by host cluster
    struct range *l1s;             // of snapshots, sorted, none inside another
    size_t n_l1s;
    uint64_t snapshot_table_bytes;
};

static const struct {
    enum q2_overlap kind;
    const char *name;
} kinds[] = {
    {Q2_OVERLAP_MAIN_HEADER, "qcow2_header"},
    {Q2_OVERLAP_ACTIVE_L1, "active L1 table"},
    {Q2_OVERLAP_ACTIVE_L2, "active L2 table"},
    {Q2_OVERLAP_REFCOUNT_TABLE, "refcount table"},
    {Q2_OVERLAP_REFCOUNT_BLOCK, "refcount block"},
    {Q2_OVERLAP_SNAPSHOT_TABLE, "snapshot table"},
    {Q2_OVERLAP_INACTIVE_L1, "inactive L1 table"},
    {Q2_OVERLAP_INACTIVE_L2, "inactive L2 table"},
    {Q2_OVERLAP_BITMAP_DIRECTORY, "bitmap directory"},
    {Q2_OVERLAP_LUKS_HEADER, "LUKS header"},
};

void q2_overlap_forget(struct q2_image *img)
{
    if (!img->places)
        return;
    q2_cluster_set_free(img->places->tables);
    free(img->places->l1s);
    free(img->places);
    img->places = NULL;
}

static int add_tables(struct q2_image *img, const uint64_t *entries, uint64_t n,
                      enum q2_overlap kind, struct q2_error *err)
{
    int ret = 0;
    for (uint64_t i = 0; i < n && ret == 0; i++) {
        uint64_t offset = entries[i] & Q2_OFFSET_MASK;
        if (offset != 0)
            ret = q2_cluster_set_add(img->places->tables, offset >> img->cluster_bits,
                                     kind, err);
    }
    return ret;
}

static int by_start(const void *a, const void *b)
{
    const struct range *x = a, *y = b;
    return (x->start > y->start) - (x->start < y->start);
}

// Sorts the ranges and joins those that touch.
static void join_ranges(struct q2_places *p)
{
    size_t n = 0;
    qsort(p->l1s, p->n_l1s, sizeof(*p->l1s), by_start);
    for (size_t i = 0; i < p->n_l1s; i++) {
        if (n > 0 && p->l1s[i].start <= p->l1s[n - 1].end)
            p->l1s[n - 1].end = q2_max_u64(p->l1s[n - 1].end, p->l1s[i].end);
        else
            p->l1s[n++] = p->l1s[i];
    }
    p->n_l1s = n;
}

// The L2 tables that the L1 tables in the range name, a piece at a time.
static int add_inactive_tables(struct q2_image *img, const struct range *r,
                               uint64_t file_size, struct q2_error *err)
{
    uint64_t piece[4096], end = q2_min_u64(r->end, file_size);
    int ret = 0;
    for (uint64_t at = q2_align_down(r->start, 8); at < end && ret == 0;) {
        size_t n = (size_t)q2_min_u64(q2_div_round_up(end - at, 8), sizeof(piece) / 8);
        ret = q2_io_read(img->disk.file, at, piece, n * 8, err);
        if (ret < 0)
            break;
        q2_table_decode(piece, piece, n);
        ret = add_tables(img, piece, n, Q2_OVERLAP_INACTIVE_L2, err);
        at += n * 8;
    }
    return ret;
}

static int add_snapshots(struct q2_image *img, struct q2_error *err)
{
    struct q2_places *p = img->places;
    uint64_t file_size;
    int ret = q2_image_load_snapshots(img, err);
    if (ret == 0)
        ret = q2_io_get_size(img->disk.file, &file_size, err);
    if (ret < 0 || img->n_snapshots == 0)
        return ret;
    p->l1s = malloc(img->n_snapshots * sizeof(*p->l1s));
    if (!p->l1s)
        return q2_fail_memory(err, img->n_snapshots * sizeof(*p->l1s));
    for (unsigned i = 0; i < img->n_snapshots; i++) {
        const struct q2_snapshot *s = &img->snapshots[i];
        struct range r = {.start = s->l1_table_offset};
        p->snapshot_table_bytes += q2_snapshot_bytes(s);
        if (q2_add_u64(r.start, (uint64_t)s->l1_size * 8, &r.end))
            p->l1s[p->n_l1s++] = r;
    }
    // Joined, each byte of the file is read once, however many tables claim it.
    join_ranges(p);
    for (size_t i = 0; i < p->n_l1s && ret == 0; i++) {
        if (img->overlap_check & Q2_OVERLAP_INACTIVE_L2)
            ret = add_inactive_tables(img, &p->l1s[i], file_size, err);
    }
    return ret;
}

static int find_places(struct q2_image *img, struct q2_error *err)
{
    const unsigned of_snapshots =
        Q2_OVERLAP_SNAPSHOT_TABLE | Q2_OVERLAP_INACTIVE_L1 | Q2_OVERLAP_INACTIVE_L2;
    img->places = calloc(1, sizeof(*img->places));
    if (!img->places)
        return q2_fail_memory(err, sizeof(*img->places));
    img->places->tables = q2_cluster_set_new();
    int ret = img->places->tables ? 0 : q2_fail_memory(err, sizeof(*img->places));
    if (ret == 0)
        ret = add_tables(img, img->l1, img->l1_size, Q2_OVERLAP_ACTIVE_L2, err);
    if (ret == 0)
        ret = add_tables(img, img->refcount_table, img->refcount_table_size,
                         Q2_OVERLAP_REFCOUNT_BLOCK, err);
    if (ret == 0 && (img->overlap_check & of_snapshots))
        ret = add_snapshots(img, err);
    if (ret < 0)
        q2_overlap_forget(img);
    return ret;
}

// offset + n_bytes may come from a damaged header.
static bool meets(uint64_t start, uint64_t end, uint64_t offset, uint64_t n_bytes)
{
    uint64_t last;
    if (!q2_add_u64(offset, n_bytes, &last))
        last = UINT64_MAX;
    return offset < end && start < last;
}

// What of the ranges that the header names lies in start .. end.
static unsigned hit_ranges(const struct q2_image *img, uint64_t start, uint64_t end)
{
    const struct q2_header *h = &img->header;
    const struct {
        enum q2_overlap kind;
        uint64_t offset, n_bytes;
    } ranges[] = {
        {Q2_OVERLAP_MAIN_HEADER, 0, img->cluster_size},
        {Q2_OVERLAP_ACTIVE_L1, h->l1_table_offset, (uint64_t)h->l1_size * 8},
        {Q2_OVERLAP_REFCOUNT_TABLE, h->refcount_table_offset,
         (uint64_t)h->refcount_table_clusters << img->cluster_bits},
        {Q2_OVERLAP_SNAPSHOT_TABLE, h->snapshots_offset,
         img->places->snapshot_table_bytes},
        {Q2_OVERLAP_BITMAP_DIRECTORY, h->bitmap_directory_offset,
         h->has_bitmaps ? h->bitmap_directory_size : 0},
        {Q2_OVERLAP_LUKS_HEADER, h->crypto_header_offset,
         h->has_crypto ? q2_min_u64(h->crypto_header_length, MAX_LUKS_BYTES) : 0},
    };
    unsigned hit = 0;
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        if (meets(start, end, ranges[i].offset, ranges[i].n_bytes))
            hit |= ranges[i].kind;
    }
    return hit;
}

static bool hit_inactive_l1(const struct q2_places *p, uint64_t start, uint64_t end)
{
    // The first range that ends behind start.
    size_t low = q2_search_from(p->l1s, p->n_l1s, sizeof(*p->l1s),
                                offsetof(struct range, end), start + 1);
    return low < p->n_l1s && p->l1s[low].start < end;
}

static unsigned find_hits(const struct q2_image *img, uint64_t start, uint64_t end)
{
    unsigned hit = hit_ranges(img, start, end);
    uint64_t first = start >> img->cluster_bits, last = (end - 1) >> img->cluster_bits;
    hit |= q2_cluster_set_all(img->places->tables, first, last - first + 1);
    if (hit_inactive_l1(img->places, start, end))
        hit |= Q2_OVERLAP_INACTIVE_L1;
    return hit;
}

static const char *first_name(unsigned hit)
{
    size_t i = 0;
    while (!(hit & kinds[i].kind))
        i++;
    return kinds[i].name;
}

static void tell(struct q2_image *img, const char *why)
{
    const char *mark =
        img->disk.writable ? "Marking image as corrupt" : "Image is corrupt";
    const char *more = img->disk.writable ? "" : "non-fatal ";
    if (!img->corrupt_told)
        q2_monitor_note(img->disk.monitor,
                        "qcow2: %s: %s; further %scorruption events will be suppressed",
                        mark, why, more);
    img->corrupt_told = true;
}

int q2_overlap_corrupt(struct q2_image *img, struct q2_error *err, const char *fmt, ...)
{
    struct q2_error ignored = Q2_ERROR_INIT; // the caller hears of the worse error
    char why[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    tell(img, why);
    if (!img->disk.writable)
        return q2_fail(err, -EIO, "'%s': %s", img->disk.path, why);
    img->corrupt = true;
    q2_image_set_incompatible(
        img, img->header.incompatible_features | Q2_INCOMPAT_CORRUPT, &ignored);
    return q2_fail(err, -EIO, "'%s': %s; the image must be repaired first",
                   img->disk.path, why);
}

// Which of the guarded kinds lie in the range.
static int look(struct q2_image *img, unsigned guarded, uint64_t host_offset,
                uint64_t n_bytes, unsigned *hit, struct q2_error *err)
{
    int ret = guarded == 0 || img->places ? 0 : find_places(img, err);
    *hit = 0;
    if (ret == 0 && guarded != 0)
        *hit = find_hits(img, host_offset, host_offset + n_bytes) & guarded;
    return ret;
}

int q2_overlap_check(struct q2_image *img, unsigned ignore, uint64_t host_offset,
                     uint64_t n_bytes, struct q2_error *err)
{
    unsigned hit;
    int ret = look(img, img->overlap_check & ~ignore, host_offset, n_bytes, &hit, err);
    if (ret < 0 || hit == 0)
        return ret;
    return q2_overlap_corrupt(img, err,
                              "Preventing invalid write on metadata (overlaps with %s)",
                              first_name(hit));
}

bool q2_overlap_any(struct q2_image *img, uint64_t host_offset, uint64_t n_bytes)
{
    struct q2_error ignored = Q2_ERROR_INIT;
    unsigned hit;
    return look(img, img->overlap_check, host_offset, n_bytes, &hit, &ignored) < 0 ||
           hit != 0;
}

int q2_overlap_add(struct q2_image *img, enum q2_overlap kind, uint64_t host_offset,
                   struct q2_error *err)
{
    if (!img->places)
        return 0;
    return q2_cluster_set_add(img->places->tables, host_offset >> img->cluster_bits, kind,
                              err);
}

void q2_overlap_remove(struct q2_image *img, enum q2_overlap kind, uint64_t host_offset)
{
    if (img->places)
        q2_cluster_set_remove(img->places->tables, host_offset >> img->cluster_bits,
                              kind);
}
