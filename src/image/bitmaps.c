// SPDX-License-Identifier: MIT
// The bitmaps of an open image: loading them, the list, the marks that say that they are
// in use.
#include "image/bitmaps.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "image/bitmaps_private.h"
#include "image/overlap.h"
#include "io/ahead.h"

// Of the tables of all bitmaps together, lest a file of holes fill the memory.
#define MAX_TABLE_BYTES (UINT64_C(256) << 20)

// --- the directory -------------------------------------------------------------------

static int check_directory(struct q2_io *io, const struct q2_header *h,
                           struct q2_error *err)
{
    uint64_t file_size, end;
    int ret = q2_io_get_size(io, &file_size, err);
    if (ret == 0 &&
        (!q2_add_u64(h->bitmap_directory_offset, h->bitmap_directory_size, &end) ||
         end > file_size))
        ret =
            q2_fail(err, -EINVAL, "The bitmap directory lies beyond the end of the file");
    return ret;
}

int q2_bitmaps_read_directory(struct q2_io *io, const struct q2_header *h,
                              struct q2_bitmap **out, unsigned *n, struct q2_error *err)
{
    uint64_t n_bytes = h->bitmap_directory_size;
    *out = NULL;
    *n = 0;
    if (!h->has_bitmaps)
        return 0;
    int ret = check_directory(io, h, err);
    if (ret < 0)
        return ret;
    uint8_t *buf = malloc(q2_to_size(n_bytes));
    struct q2_bitmap *list = calloc(h->nb_bitmaps, sizeof(*list));
    ret = buf && list ? 0 : q2_fail_memory(err, n_bytes);
    if (ret == 0)
        ret = q2_io_read(io, h->bitmap_directory_offset, buf, q2_to_size(n_bytes), err);
    if (ret == 0)
        ret = q2_bitmap_directory_decode(buf, q2_to_size(n_bytes), h->nb_bitmaps, list,
                                         err);
    free(buf);
    if (ret < 0) {
        free(list);
        return ret;
    }
    *out = list;
    *n = h->nb_bitmaps;
    return 0;
}

// Decodes the entry at a place in the directory, of which so many bytes are left. The
// name stands behind the extra data, which can be as long as the directory.
static int read_entry(struct q2_ahead *ahead, uint64_t at, uint64_t left, unsigned index,
                      struct q2_bitmap *out, uint64_t *used, struct q2_error *err)
{
    uint8_t entry[Q2_BITMAP_FIXED_BYTES + Q2_MAX_BITMAP_NAME];
    const uint8_t *p;
    uint64_t extra, name;
    size_t ignored;
    int ret = 0;
    if (left < Q2_BITMAP_FIXED_BYTES)
        return q2_bitmap_incomplete(index, err);
    ret = q2_ahead_read(ahead, at, Q2_BITMAP_FIXED_BYTES, &p, err);
    if (ret != 0)
        return ret;
    memcpy(entry, p, Q2_BITMAP_FIXED_BYTES);
    q2_bitmap_drop_extra(entry, &extra, &name);
    size_t n_name = (size_t)q2_min_u64(name, Q2_MAX_BITMAP_NAME);
    *used = q2_align_up(Q2_BITMAP_FIXED_BYTES + extra + n_name, 8);
    if (*used > left)
        return q2_bitmap_incomplete(index, err);
    ret = q2_ahead_read(ahead, at + Q2_BITMAP_FIXED_BYTES + extra, n_name, &p, err);
    if (ret < 0)
        return ret;
    memcpy(entry + Q2_BITMAP_FIXED_BYTES, p, n_name);
    return q2_bitmap_decode(entry, Q2_BITMAP_FIXED_BYTES + n_name, index, out, &ignored,
                            err);
}

int q2_bitmaps_each(struct q2_io *io, const struct q2_header *h, q2_take_bitmap *take,
                    void *opaque, struct q2_error *err)
{
    struct q2_ahead ahead = {.io = io};
    uint64_t at = h->bitmap_directory_offset, left = h->bitmap_directory_size;
    int ret = h->has_bitmaps ? check_directory(io, h, err) : 0;
    for (unsigned i = 0; h->has_bitmaps && i < h->nb_bitmaps && ret == 0; i++) {
        struct q2_bitmap b;
        uint64_t used;
        ret = read_entry(&ahead, at, left, i, &b, &used, err);
        if (ret != 0)
            break;
        at += used;
        left -= used;
        ret = take(opaque, &b, err);
        q2_bitmap_clear(&b);
    }
    if (ret == 0 && h->has_bitmaps && left > 0)
        ret = q2_bitmap_too_many(err);
    q2_ahead_clear(&ahead);
    return ret;
}

// --- loading -------------------------------------------------------------------------

void q2_bitmaps_clear_one(struct q2_live_bitmap *b)
{
    if (b->pieces)
        q2_bits_settle(b);
    free(b->pieces);
    free(b->table);
    q2_bitmap_clear(&b->entry);
}

void q2_bitmaps_free(struct q2_image *img)
{
    struct q2_bitmaps *all = img->bitmaps;
    if (!all)
        return;
    for (unsigned i = 0; i < all->n; i++)
        q2_bitmaps_clear_one(&all->list[i]);
    for (unsigned i = 0; i < all->n_removed; i++)
        q2_bitmaps_clear_one(&all->removed[i]);
    free(all->list);
    free(all->removed);
    free(all);
    img->bitmaps = NULL;
}

static int check_table(const struct q2_image *img, const struct q2_live_bitmap *b,
                       uint64_t file_size, struct q2_error *err)
{
    for (uint32_t i = 0; i < b->entry.table_size; i++) {
        uint64_t raw = b->table[i];
        if (!q2_bitmap_table_entry_valid(raw, img->cluster_bits) ||
            (raw & Q2_OFFSET_MASK) >= file_size)
            return q2_fail(err, -EINVAL,
                           "bitmap table entry %" PRIu32 " is invalid (0x%" PRIx64 ")", i,
                           raw);
    }
    return 0;
}

int q2_bitmaps_read_table(struct q2_image *img, struct q2_live_bitmap *b,
                          struct q2_error *err)
{
    uint64_t n_bytes = (uint64_t)b->entry.table_size * 8, end, file_size;
    int ret = q2_io_get_size(img->disk.file, &file_size, err);
    if (ret == 0 && (!q2_add_u64(b->entry.table_offset, n_bytes, &end) ||
                     end > q2_align_up(file_size, img->cluster_size)))
        ret = q2_fail(err, -EINVAL, "it lies beyond the end of the file");
    if (ret < 0)
        return ret;
    b->table = malloc(q2_to_size(n_bytes));
    if (!b->table)
        return q2_fail_memory(err, n_bytes);
    ret = q2_io_read(img->disk.file, b->entry.table_offset, b->table, q2_to_size(n_bytes),
                     err);
    if (ret == 0) {
        q2_table_decode(b->table, b->table, b->entry.table_size);
        ret = check_table(img, b, file_size, err);
    }
    if (ret < 0) {
        free(b->table);
        b->table = NULL;
    }
    return ret;
}

// What the bitmaps may still take, so that the cost of one is not that of a thousand
// which share its clusters.
struct room {
    uint64_t table_bytes;
    uint64_t clusters; // of bits: of no file more than it has
};

static int take_room(struct room *room, const struct q2_live_bitmap *b,
                     struct q2_error *err)
{
    uint64_t n_bytes = (uint64_t)b->entry.table_size * 8, n = 0;
    for (uint32_t i = 0; b->table && i < b->entry.table_size; i++)
        n += (b->table[i] & Q2_OFFSET_MASK) != 0;
    if (n_bytes > room->table_bytes || n > room->clusters)
        return q2_fail(err, -EFBIG, "The bitmaps are too large together");
    room->table_bytes -= n_bytes;
    room->clusters -= n;
    return 0;
}

static int load_bitmap(struct q2_image *img, struct q2_live_bitmap *b, struct room *room,
                       struct q2_error *err)
{
    uint64_t disk_size = q2_align_up(img->header.size, 512);
    int ret = q2_bitmap_check(&b->entry, disk_size, img->cluster_bits, err);
    if (ret < 0)
        return ret;
    b->inconsistent = (b->entry.flags & Q2_BITMAP_IN_USE) != 0;
    b->entry.flags &= ~Q2_BITMAP_IN_USE;
    if (b->inconsistent)
        return 0;
    if (b->entry.table_size !=
        q2_bitmap_table_entries(disk_size, b->entry.granularity_bits, img->cluster_bits))
        return q2_fail(err, -EINVAL,
                       "Could not read bitmap '%s' from image: its table has %" PRIu32
                       " entries, which is not what the disk needs",
                       b->entry.name, b->entry.table_size);
    ret = q2_bitmaps_read_table(img, b, err);
    if (ret == 0)
        ret = take_room(room, b, err);
    if (ret < 0)
        return q2_context(err,
                          "Could not read bitmap_table table from image for bitmap '%s'",
                          b->entry.name);
    return q2_bits_open(img, b, disk_size, err);
}

static int by_name(const void *a, const void *b)
{
    const char *const *x = a, *const *y = b;
    return strcmp(*x, *y);
}

static int refuse_namesakes(const struct q2_bitmaps *all, struct q2_error *err)
{
    const char **names = malloc(all->n * sizeof(*names));
    int ret = 0;
    if (!names)
        return q2_fail_memory(err, all->n * sizeof(*names));
    for (unsigned i = 0; i < all->n; i++)
        names[i] = all->list[i].entry.name;
    qsort(names, all->n, sizeof(*names), by_name);
    for (unsigned i = 1; i < all->n && ret == 0; i++) {
        if (strcmp(names[i - 1], names[i]) == 0)
            ret = q2_fail(err, -EINVAL, "Bitmap already exists: %s", names[i]);
    }
    free(names);
    return ret;
}

static int load_list(struct q2_image *img, const struct q2_bitmap *entries, unsigned n,
                     struct q2_error *err)
{
    struct q2_bitmaps *all = img->bitmaps;
    struct room room = {.table_bytes = MAX_TABLE_BYTES};
    uint64_t file_size;
    int ret = q2_io_get_size(img->disk.file, &file_size, err);
    if (ret < 0)
        return ret;
    room.clusters = q2_div_round_up(file_size, img->cluster_size);
    all->list = calloc(n, sizeof(*all->list));
    if (!all->list)
        return q2_fail_memory(err, n * sizeof(*all->list));
    for (unsigned i = 0; i < n; i++)
        all->list[i].entry = entries[i];
    all->n = n;
    ret = refuse_namesakes(all, err);
    for (unsigned i = 0; i < n && ret == 0; i++)
        ret = load_bitmap(img, &all->list[i], &room, err);
    return ret;
}

int q2_bitmaps_load(struct q2_image *img, struct q2_error *err)
{
    struct q2_bitmap *entries;
    unsigned n;
    if (img->bitmaps)
        return 0;
    int ret = q2_bitmaps_read_directory(img->disk.file, &img->header, &entries, &n, err);
    if (ret < 0)
        return ret;
    img->bitmaps = calloc(1, sizeof(*img->bitmaps));
    if (!img->bitmaps)
        ret = q2_fail_memory(err, sizeof(*img->bitmaps));
    else if (n > 0)
        ret = load_list(img, entries, n, err);
    // Without the list the entries are nobody's.
    for (unsigned i = 0; i < n && !(img->bitmaps && img->bitmaps->list); i++)
        q2_bitmap_clear(&entries[i]);
    free(entries);
    if (ret < 0)
        q2_bitmaps_free(img);
    return ret;
}

// --- the list ------------------------------------------------------------------------

unsigned q2_bitmaps_count(const struct q2_image *img)
{
    return img->bitmaps ? img->bitmaps->n : 0;
}

struct q2_live_bitmap *q2_bitmaps_get(struct q2_image *img, unsigned index)
{
    return &img->bitmaps->list[index];
}

struct q2_live_bitmap *q2_bitmaps_find(struct q2_image *img, const char *name)
{
    for (unsigned i = 0; i < q2_bitmaps_count(img); i++) {
        struct q2_live_bitmap *b = q2_bitmaps_get(img, i);
        if (strcmp(b->entry.name, name) == 0)
            return b;
    }
    return NULL;
}

int q2_bitmaps_refuse_inconsistent(const struct q2_live_bitmap *b, struct q2_error *err)
{
    if (!b->inconsistent)
        return 0;
    q2_fail(err, -EUCLEAN, "Bitmap '%s' is inconsistent and cannot be used",
            b->entry.name);
    return q2_hint(err, "Try block-dirty-bitmap-remove to delete this bitmap from disk");
}

static int append(struct q2_live_bitmap **list, unsigned *n,
                  const struct q2_live_bitmap *b, struct q2_error *err)
{
    struct q2_live_bitmap *longer = realloc(*list, (*n + 1) * sizeof(*longer));
    if (!longer)
        return q2_fail_memory(err, (*n + 1) * sizeof(*longer));
    longer[(*n)++] = *b;
    *list = longer;
    return 0;
}

int q2_bitmaps_add(struct q2_image *img, const char *name, unsigned granularity_bits,
                   struct q2_live_bitmap **out, struct q2_error *err)
{
    struct q2_live_bitmap b = {
        .entry = {.flags = Q2_BITMAP_AUTO,
                  .type = Q2_BITMAP_TYPE_DIRTY,
                  .granularity_bits = (uint8_t)granularity_bits,
                  .name = strdup(name)},
        .changed = true,
        .in_use = true, // as far as the directory knows: it appears with a store
    };
    int ret = b.entry.name ? 0 : q2_fail_memory(err, strlen(name) + 1);
    if (ret == 0)
        ret = q2_bitmaps_load(img, err);
    if (ret == 0)
        ret = q2_bits_open(img, &b, q2_align_up(img->header.size, 512), err);
    if (ret == 0)
        ret = append(&img->bitmaps->list, &img->bitmaps->n, &b, err);
    if (ret != 0) {
        q2_bitmaps_clear_one(&b);
        return ret;
    }
    img->bitmaps->changed = true;
    *out = &img->bitmaps->list[img->bitmaps->n - 1];
    return 0;
}

int q2_bitmaps_remove(struct q2_image *img, struct q2_live_bitmap *b,
                      struct q2_error *err)
{
    struct q2_bitmaps *all = img->bitmaps;
    struct q2_error ignored = Q2_ERROR_INIT;
    // What an inconsistent one has in the file is to be freed, if that can be read.
    if (b->inconsistent && !b->table)
        q2_bitmaps_read_table(img, b, &ignored);
    int ret = append(&all->removed, &all->n_removed, b, err);
    if (ret < 0)
        return ret;
    unsigned index = (unsigned)(b - all->list);
    all->n--;
    memmove(b, b + 1, (all->n - index) * sizeof(*b));
    all->changed = true;
    return 0;
}

void q2_bitmaps_enable(struct q2_image *img, struct q2_live_bitmap *b, bool enable)
{
    uint32_t flags = b->entry.flags & ~Q2_BITMAP_AUTO;
    flags |= enable ? Q2_BITMAP_AUTO : 0;
    img->bitmaps->changed = img->bitmaps->changed || flags != b->entry.flags;
    b->entry.flags = flags;
}

// --- in use --------------------------------------------------------------------------

uint8_t *q2_bitmaps_encode(const struct q2_bitmaps *all, uint64_t *n_bytes)
{
    uint64_t at = 0;
    for (unsigned i = 0; i < all->n; i++)
        at += q2_bitmap_bytes(&all->list[i].entry);
    uint8_t *buf = calloc(1, q2_to_size(q2_align_up(at, 512) + 512));
    *n_bytes = at;
    at = 0;
    for (unsigned i = 0; buf && i < all->n; i++) {
        const struct q2_live_bitmap *b = &all->list[i];
        struct q2_bitmap entry = b->entry;
        entry.flags |= b->inconsistent || b->in_use ? Q2_BITMAP_IN_USE : 0;
        q2_bitmap_encode(&entry, buf + at);
        at += q2_bitmap_bytes(&entry);
    }
    return buf;
}

// The directory is written where it lies: only flags change, each of them in one sector,
// and whichever of them a power cut lets through, no bitmap says what is not true.
static int write_marks(struct q2_image *img, struct q2_error *err)
{
    uint64_t n_bytes, offset = img->header.bitmap_directory_offset;
    uint8_t *buf = q2_bitmaps_encode(img->bitmaps, &n_bytes);
    int ret = buf ? 0 : q2_fail_memory(err, n_bytes);
    if (ret == 0)
        ret = q2_overlap_check(img, Q2_OVERLAP_BITMAP_DIRECTORY, offset, n_bytes, err);
    if (ret == 0)
        ret = q2_io_write(img->disk.file, offset, buf, q2_to_size(n_bytes), err);
    if (ret == 0)
        ret = q2_io_flush(img->disk.file, err);
    free(buf);
    return ret < 0 ? q2_context(err, "Can't update bitmap directory") : 0;
}

static unsigned mark(struct q2_image *img, bool all)
{
    unsigned n = 0;
    for (unsigned i = 0; i < q2_bitmaps_count(img); i++) {
        struct q2_live_bitmap *b = q2_bitmaps_get(img, i);
        bool now =
            !b->inconsistent && !b->in_use && (all || (b->entry.flags & Q2_BITMAP_AUTO));
        b->in_use = b->in_use || now;
        n += now;
    }
    return n;
}

int q2_bitmaps_begin(struct q2_image *img, bool all, struct q2_error *err)
{
    // (A corrupt image is not written: that will be said of the write.)
    if (!img->bitmaps || img->corrupt)
        return 0;
    int ret = img->bitmaps->changed ? q2_bitmaps_store(img, err) : 0;
    if (ret < 0 || mark(img, all) == 0)
        return ret;
    ret = write_marks(img, err);
    // Whatever has reached the file: nothing was written that a bitmap would have to
    // know.
    for (unsigned i = 0; ret < 0 && i < q2_bitmaps_count(img); i++)
        q2_bitmaps_get(img, i)->in_use = false;
    return ret;
}

int q2_bitmaps_record(struct q2_image *img, uint64_t guest_offset, uint64_t n_bytes,
                      struct q2_error *err)
{
    int ret = q2_bitmaps_begin(img, false, err);
    for (unsigned i = 0; i < q2_bitmaps_count(img) && ret == 0; i++) {
        struct q2_live_bitmap *b = q2_bitmaps_get(img, i);
        if (!b->inconsistent && (b->entry.flags & Q2_BITMAP_AUTO))
            ret = q2_bits_set(img, b, guest_offset, guest_offset + n_bytes, err);
    }
    return ret;
}

int q2_bitmaps_note(struct q2_image *img, uint64_t guest_offset, uint64_t n_bytes,
                    struct q2_error *err)
{
    if (!img->bitmaps)
        return 0;
    pthread_mutex_lock(&img->lock);
    int ret = q2_bitmaps_record(img, guest_offset, n_bytes, err);
    pthread_mutex_unlock(&img->lock);
    return ret;
}

int q2_bitmaps_check_size(const struct q2_image *img, uint64_t disk_size,
                          unsigned granularity_bits, struct q2_error *err)
{
    if (disk_size == 0) // a table has at least one entry
        return q2_fail(err, -EINVAL, "A disk of no size has no bitmaps");
    if (q2_bitmap_table_entries(disk_size, granularity_bits, img->cluster_bits)
            << img->cluster_bits >
        Q2_MAX_BITMAP_BYTES)
        return q2_fail(err, -EINVAL,
                       "Too much space will be occupied by the bitmap. Use larger "
                       "granularity");
    return 0;
}

int q2_bitmaps_try_resize(const struct q2_image *img, uint64_t disk_size,
                          struct q2_error *err)
{
    int ret = 0;
    for (unsigned i = 0; i < q2_bitmaps_count(img) && ret == 0; i++) {
        const struct q2_live_bitmap *b = &img->bitmaps->list[i];
        ret = q2_bitmaps_refuse_inconsistent(b, err);
        if (ret == 0 &&
            q2_bitmaps_check_size(img, disk_size, b->entry.granularity_bits, err) < 0)
            ret = q2_context(err, "Bitmap '%s' doesn't satisfy the constraints",
                             b->entry.name);
    }
    return ret;
}

int q2_bitmaps_resize(struct q2_image *img, uint64_t disk_size, struct q2_error *err)
{
    int ret = 0;
    for (unsigned i = 0; i < q2_bitmaps_count(img) && ret == 0; i++) {
        struct q2_live_bitmap *b = q2_bitmaps_get(img, i);
        if (!b->inconsistent)
            ret = q2_bits_resize(img, b, disk_size, err);
    }
    return ret;
}
