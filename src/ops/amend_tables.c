// SPDX-License-Identifier: MIT
// The L2 tables of an image, whoever refers to them: found by way of all L1 tables, read
// in long runs.
#include "ops/amend_steps.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/checked.h"

#define RUN_BYTES (UINT32_C(16) << 20)
#define L1_PIECE 8192U // entries

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

// Sorts the list; what is there more than once goes.
static void tidy(struct q2_amend_tables *t)
{
    size_t n = 0;
    if (t->n > 0)
        qsort(t->offsets, t->n, sizeof(*t->offsets), by_value);
    for (size_t i = 0; i < t->n; i++) {
        if (n == 0 || t->offsets[n - 1] != t->offsets[i])
            t->offsets[n++] = t->offsets[i];
    }
    t->n = n;
}

// Tables that snapshots share come again and again: the list grows only when it is full
// of different ones.
static int make_room(struct q2_amend_tables *t, struct q2_error *err)
{
    if (t->n < t->max)
        return 0;
    tidy(t);
    if (t->n < t->max / 2)
        return 0;
    size_t max = t->max ? t->max * 2 : 1024;
    uint64_t *offsets = realloc(t->offsets, max * sizeof(*offsets));
    if (!offsets)
        return q2_fail_memory(err, max * sizeof(*offsets));
    t->offsets = offsets;
    t->max = max;
    return 0;
}

static int add_entries(struct q2_amend_tables *t, const uint64_t *l1, uint64_t n,
                       struct q2_error *err)
{
    for (uint64_t i = 0; i < n; i++) {
        uint64_t offset = l1[i] & Q2_OFFSET_MASK;
        if (offset == 0)
            continue;
        int ret = make_room(t, err);
        if (ret < 0)
            return ret;
        t->offsets[t->n++] = offset;
    }
    return 0;
}

struct range {
    uint64_t start, end;
};

static int by_start(const void *a, const void *b)
{
    const struct range *x = a, *y = b;
    return (x->start > y->start) - (x->start < y->start);
}

// The entries from start to end in the file, holes left out.
static int add_range(struct q2_amend_tables *t, uint64_t start, uint64_t end,
                     struct q2_error *err)
{
    struct q2_io *io = t->img->disk.file;
    uint64_t piece[L1_PIECE];
    int ret = 0;
    while (start < end && ret == 0) {
        uint64_t n_bytes;
        bool data;
        ret = q2_io_extent(io, start, &n_bytes, &data, err);
        if (ret < 0)
            break;
        // A hole's edge need not be that of an entry.
        n_bytes = data ? q2_min_u64(sizeof(piece), end - start)
                       : q2_min_u64(n_bytes & ~UINT64_C(7), end - start);
        n_bytes = q2_max_u64(n_bytes, 8);
        if (data || n_bytes == 8) {
            ret = q2_io_read(io, start, piece, q2_to_size(n_bytes), err);
            if (ret == 0) {
                q2_table_decode(piece, piece, q2_to_size(n_bytes / 8));
                ret = add_entries(t, piece, n_bytes / 8, err);
            }
        }
        start += n_bytes;
    }
    return ret;
}

static int snapshot_range(const struct q2_image *img, const struct q2_snapshot *s,
                          uint64_t file_size, struct range *out, struct q2_error *err)
{
    uint64_t n_bytes = (uint64_t)s->l1_size * 8, end;
    if (n_bytes > Q2_MAX_L1_BYTES ||
        !q2_is_aligned(s->l1_table_offset, img->cluster_size) ||
        !q2_add_u64(s->l1_table_offset, n_bytes, &end) ||
        end > q2_align_up(file_size, img->cluster_size))
        return q2_fail(err, -EINVAL,
                       "'%s': snapshot '%s': L1 table of %" PRIu32
                       " entries at offset 0x%" PRIx64
                       " is too large, not aligned or beyond the end of the file",
                       img->disk.path, s->name, s->l1_size, s->l1_table_offset);
    *out = (struct range){.start = s->l1_table_offset, .end = q2_min_u64(end, file_size)};
    return 0;
}

// L1 tables of snapshots may be the same in a damaged image: each byte is looked at once.
static int add_snapshots(struct q2_amend_tables *t, struct q2_error *err)
{
    struct q2_image *img = t->img;
    uint64_t file_size, done = 0;
    int ret = q2_image_load_snapshots(img, err);
    if (ret == 0)
        ret = q2_io_get_size(img->disk.file, &file_size, err);
    if (ret < 0 || img->n_snapshots == 0)
        return ret;
    struct range *ranges = malloc(img->n_snapshots * sizeof(*ranges));
    if (!ranges)
        return q2_fail_memory(err, img->n_snapshots * sizeof(*ranges));
    for (unsigned i = 0; i < img->n_snapshots && ret == 0; i++)
        ret = snapshot_range(img, &img->snapshots[i], file_size, &ranges[i], err);
    if (ret == 0)
        qsort(ranges, img->n_snapshots, sizeof(*ranges), by_start);
    for (unsigned i = 0; i < img->n_snapshots && ret == 0; i++) {
        ret = add_range(t, q2_max_u64(ranges[i].start, done), ranges[i].end, err);
        done = q2_max_u64(done, ranges[i].end);
    }
    free(ranges);
    return ret;
}

static int check_places(const struct q2_amend_tables *t, struct q2_error *err)
{
    const struct q2_image *img = t->img;
    uint64_t file_size;
    int ret = q2_io_get_size(img->disk.file, &file_size, err);
    for (size_t i = 0; i < t->n && ret == 0; i++) {
        if (!q2_is_aligned(t->offsets[i], img->cluster_size) ||
            t->offsets[i] >= file_size)
            ret = q2_fail(err, -EIO,
                          "'%s': an L1 entry has an L2 table at offset 0x%" PRIx64
                          ", which is not aligned or beyond the end of the file; check "
                          "the image first",
                          img->disk.path, t->offsets[i]);
    }
    return ret;
}

int q2_amend_find_tables(struct q2_image *img, struct q2_amend_tables *t,
                         struct q2_error *err)
{
    *t = (struct q2_amend_tables){.img = img};
    int ret = add_entries(t, img->l1, img->l1_size, err);
    if (ret == 0)
        ret = add_snapshots(t, err);
    tidy(t);
    return ret < 0 ? ret : check_places(t, err);
}

void q2_amend_clear_tables(struct q2_amend_tables *t)
{
    free(t->offsets);
    t->offsets = NULL;
}

static size_t run_length(const struct q2_amend_tables *t, size_t i, size_t max)
{
    size_t n = 1;
    while (n < max && i + n < t->n &&
           t->offsets[i + n] == t->offsets[i] + ((uint64_t)n << t->img->cluster_bits))
        n++;
    return n;
}

int q2_amend_visit_tables(const struct q2_amend_tables *t,
                          const struct q2_amend_visitor *v, struct q2_error *err)
{
    size_t room = q2_to_size(q2_max_u64(1, RUN_BYTES >> t->img->cluster_bits));
    uint8_t *buf =
        malloc(q2_to_size(q2_min_u64(room, q2_max_u64(t->n, 1)) << t->img->cluster_bits));
    int ret = buf ? 0 : q2_fail_memory(err, RUN_BYTES);
    for (size_t i = 0; i < t->n && ret == 0;) {
        size_t n = run_length(t, i, room);
        ret = q2_io_read(t->img->disk.file, t->offsets[i], buf, n << t->img->cluster_bits,
                         err);
        if (ret == 0)
            ret = v->visit(v->opaque, t->offsets[i], buf, n, err);
        i += n;
        if (ret == 0)
            q2_monitor_progress(v->mon, i, t->n);
        if (ret == 0 && q2_monitor_cancelled(v->mon))
            ret = q2_fail(err, -ECANCELED, "Interrupted");
    }
    if (ret == 0 && t->n == 0)
        q2_monitor_progress(v->mon, 1, 1);
    free(buf);
    return ret;
}
