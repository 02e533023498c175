// SPDX-License-Identifier: MIT
// Storing bitmaps. Pieces that have changed, the tables of their bitmaps and the
// directory are written to new places and flushed, with the refcounts of these; one write
// within a sector makes the new directory count; what it replaces is free after that.
// Pieces that have not changed stay where they are, in the new table too.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/zero.h"
#include "image/bitmaps_private.h"
#include "image/metadata.h"
#include "image/overlap.h"

#define SECTOR 512U

// A bitmap's new table.
struct placed {
    uint64_t *table; // NULL: keeps the one that it has
    uint32_t n;
    uint64_t offset; // 0: no place yet
};

struct job {
    struct q2_image *img;
    struct q2_bitmaps *all;
    struct placed *placed;    // for each of the list
    uint8_t *old, *directory; // as the file has it, as it is to be
    uint64_t n_bytes;
    uint64_t offset; // of a new place for the directory; 0: none
    bool switching;  // the file may name what is new: whatever fails, that is not free
};

static void job_clear(struct job *j)
{
    for (unsigned i = 0; j->placed && i < j->all->n; i++)
        free(j->placed[i].table);
    free(j->placed);
    free(j->old);
    free(j->directory);
}

// --- new places ----------------------------------------------------------------------

static int place(struct q2_image *img, const void *bytes, uint64_t n_bytes,
                 const char *what, uint64_t *offset, struct q2_error *err)
{
    uint64_t n = q2_div_round_up(n_bytes, img->cluster_size);
    int ret = q2_alloc_exact(img, n, what, offset, err);
    return ret < 0
               ? ret
               : q2_io_write(img->disk.file, *offset, bytes, q2_to_size(n_bytes), err);
}

// A piece's new entry; *placed: it names a new cluster.
static int place_piece(struct q2_image *img, const struct q2_live_bitmap *b, uint64_t i,
                       uint64_t *entry, struct q2_error *err)
{
    struct q2_piece p;
    if (!q2_bits_piece(b, i, &p))
        *entry = q2_bits_stored(b, i);
    else if (!p.bits)
        *entry = p.ones ? Q2_BITMAP_ALL_ONES : 0;
    else if (q2_is_zero(p.bits, img->cluster_size))
        *entry = 0;
    else
        return place(img, p.bits, img->cluster_size, "bitmap", entry, err);
    return 0;
}

static int place_table(struct q2_image *img, struct placed *p, struct q2_error *err)
{
    uint64_t n_bytes = q2_align_up((uint64_t)p->n * 8, SECTOR);
    uint8_t *buf = calloc(1, q2_to_size(n_bytes));
    if (!buf)
        return q2_fail_memory(err, n_bytes);
    q2_table_encode(p->table, buf, p->n);
    int ret = place(img, buf, n_bytes, "bitmap table", &p->offset, err);
    free(buf);
    return ret;
}

static int place_bitmap(struct q2_image *img, const struct q2_live_bitmap *b,
                        struct placed *p, struct q2_error *err)
{
    int ret = 0;
    p->n = (uint32_t)b->n_pieces;
    p->table = calloc(p->n, 8);
    if (!p->table)
        return q2_fail_memory(err, (uint64_t)p->n * 8);
    for (uint64_t i = 0; i < p->n && ret == 0; i++)
        ret = place_piece(img, b, i, &p->table[i], err);
    if (ret == 0)
        ret = place_table(img, p, err);
    return ret < 0 ? q2_context(err, "Failed to write bitmap '%s' to file", b->entry.name)
                   : 0;
}

// Takes back what place_bitmap has taken.
static void undo_bitmap(struct q2_image *img, const struct q2_live_bitmap *b,
                        const struct placed *p)
{
    for (uint64_t i = 0; p->table && i < p->n; i++) {
        uint64_t at = p->table[i] & Q2_OFFSET_MASK;
        if (at != 0 && at != (q2_bits_stored(b, i) & Q2_OFFSET_MASK))
            q2_alloc_undo(img, at, img->cluster_size);
    }
    if (p->offset != 0)
        q2_alloc_undo(img, p->offset, (uint64_t)p->n * 8);
}

static void undo(const struct job *j)
{
    for (unsigned i = 0; j->placed && i < j->all->n; i++)
        undo_bitmap(j->img, &j->all->list[i], &j->placed[i]);
    if (j->offset != 0)
        q2_alloc_undo(j->img, j->offset, j->n_bytes);
}

static int place_bitmaps(struct job *j, struct q2_error *err)
{
    int ret = 0;
    j->placed = calloc(j->all->n + 1, sizeof(*j->placed));
    if (!j->placed)
        return q2_fail_memory(err, (j->all->n + 1) * sizeof(*j->placed));
    for (unsigned i = 0; i < j->all->n && ret == 0; i++) {
        const struct q2_live_bitmap *b = &j->all->list[i];
        if (!b->inconsistent && b->changed)
            ret = place_bitmap(j->img, b, &j->placed[i], err);
    }
    return ret;
}

// Everything new is durable, its refcounts too.
static int settle(struct q2_image *img, struct q2_error *err)
{
    int ret = q2_image_commit_all(img, err);
    return ret < 0 || img->unpublished ? ret : q2_io_flush(img->disk.file, err);
}

// --- the directory -------------------------------------------------------------------

// As it is once the bitmaps are at their new places and in nobody's use.
static int encode_directory(struct job *j, struct q2_error *err)
{
    struct q2_bitmaps then = *j->all;
    then.list = calloc(then.n + 1, sizeof(*then.list));
    if (!then.list)
        return q2_fail_memory(err, (then.n + 1) * sizeof(*then.list));
    for (unsigned i = 0; i < then.n; i++) {
        then.list[i] = j->all->list[i];
        then.list[i].in_use = false;
        if (j->placed[i].table) {
            then.list[i].entry.table_offset = j->placed[i].offset;
            then.list[i].entry.table_size = j->placed[i].n;
        }
    }
    j->directory = q2_bitmaps_encode(&then, &j->n_bytes);
    free(then.list);
    if (!j->directory)
        return q2_fail_memory(err, j->n_bytes);
    if (then.n > Q2_MAX_BITMAPS || j->n_bytes > Q2_MAX_BITMAP_DIRECTORY_BYTES)
        return q2_fail(err, -EFBIG, "Bitmap directory is too large");
    return 0;
}

// Can the directory be rewritten where it lies, by one write that nothing tears? *at: its
// sector, counted from the directory's start.
static int find_sector(struct job *j, bool *found, uint64_t *at, struct q2_error *err)
{
    const struct q2_image *img = j->img;
    uint64_t n = img->header.bitmap_directory_size, first = 0, last = 0;
    *found = false;
    if (!img->header.has_bitmaps || n != j->n_bytes)
        return 0;
    j->old = malloc(q2_to_size(n));
    if (!j->old)
        return q2_fail_memory(err, n);
    int ret = q2_io_read(img->disk.file, img->header.bitmap_directory_offset, j->old,
                         q2_to_size(n), err);
    if (ret < 0)
        return ret;
    for (first = 0; first < n && j->old[first] == j->directory[first];)
        first++;
    for (last = n; last > first && j->old[last - 1] == j->directory[last - 1];)
        last--;
    *at = q2_align_down(first, SECTOR);
    *found = last <= *at + SECTOR;
    return 0;
}

static int write_in_place(struct job *j, uint64_t at, struct q2_error *err)
{
    struct q2_image *img = j->img;
    uint64_t offset = img->header.bitmap_directory_offset + at;
    uint64_t n = q2_min_u64(SECTOR, j->n_bytes - at);
    int ret = settle(img, err);
    if (ret == 0)
        ret = q2_overlap_check(img, Q2_OVERLAP_BITMAP_DIRECTORY, offset, n, err);
    if (ret < 0)
        return ret;
    j->switching = true;
    ret = q2_io_write(img->disk.file, offset, j->directory + at, q2_to_size(n), err);
    return ret < 0 ? ret : q2_io_flush(img->disk.file, err);
}

static void drop_extension(struct q2_header *h)
{
    unsigned n = 0;
    for (unsigned i = 0; i < h->n_extensions; i++) {
        if (h->extensions[i].type == Q2_EXT_BITMAPS)
            free(h->extensions[i].data);
        else
            h->extensions[n++] = h->extensions[i];
    }
    h->n_extensions = n;
}

static void name_directory(const struct job *j, struct q2_header *h)
{
    h->has_bitmaps = j->all->n > 0;
    h->nb_bitmaps = j->all->n;
    h->bitmap_directory_size = j->n_bytes;
    h->bitmap_directory_offset = j->offset;
    h->autoclear_features &= ~Q2_AUTOCLEAR_BITMAPS;
    if (h->has_bitmaps)
        h->autoclear_features |= Q2_AUTOCLEAR_BITMAPS;
    else
        drop_extension(h);
}

// The one write after which the header names the new directory, or none.
static int switch_header(struct job *j, struct q2_error *err)
{
    struct q2_image *img = j->img;
    struct q2_header h;
    if (img->unpublished) {
        name_directory(j, &img->header);
        return 0;
    }
    int ret = q2_header_copy(&img->header, &h, err);
    if (ret < 0)
        return ret;
    name_directory(j, &h);
    ret = q2_image_replace_header(img, &h, err);
    q2_header_clear(&h);
    return ret;
}

// --- what is left over ---------------------------------------------------------------

// Nothing in here fails the store: at worst, clusters leak. (A wrong entry may have led
// to metadata.)
static void free_later(struct q2_image *img, uint64_t offset, uint64_t n_bytes)
{
    struct q2_error ignored = Q2_ERROR_INIT;
    if (n_bytes > 0 && !q2_overlap_any(img, offset, n_bytes))
        q2_alloc_free_later(img, offset, n_bytes, Q2_FREE_OTHER, &ignored);
}

// The pieces of the old table that the new one (NULL: there is none) does not keep, and
// the table itself.
static void free_old(struct q2_image *img, const struct q2_live_bitmap *b,
                     const struct placed *p)
{
    for (uint64_t i = 0; b->table && i < b->entry.table_size; i++) {
        uint64_t at = b->table[i] & Q2_OFFSET_MASK;
        bool kept = p && i < p->n && (p->table[i] & Q2_OFFSET_MASK) == at;
        if (at != 0 && !kept)
            free_later(img, at, img->cluster_size);
    }
    free_later(img, b->entry.table_offset, (uint64_t)b->entry.table_size * 8);
}

static void adopt_table(struct q2_image *img, struct q2_live_bitmap *b, struct placed *p)
{
    if (p->table) {
        free_old(img, b, p);
        free(b->table);
        b->table = p->table;
        b->entry.table_offset = p->offset;
        b->entry.table_size = p->n;
        p->table = NULL;
    }
    if (!b->inconsistent)
        q2_bits_settle(b);
    b->in_use = false;
}

static void adopt(struct job *j, uint64_t old_offset, uint64_t old_bytes)
{
    struct q2_bitmaps *all = j->all;
    for (unsigned i = 0; i < all->n; i++)
        adopt_table(j->img, &all->list[i], &j->placed[i]);
    for (unsigned i = 0; i < all->n_removed; i++) {
        free_old(j->img, &all->removed[i], NULL);
        q2_bitmaps_clear_one(&all->removed[i]);
    }
    all->n_removed = 0;
    all->changed = false;
    free_later(j->img, old_offset, old_bytes);
}

// --- the whole -----------------------------------------------------------------------

static int move_directory(struct job *j, struct q2_error *err)
{
    struct q2_image *img = j->img;
    int ret = 0;
    if (j->all->n > 0)
        ret = place(img, j->directory, j->n_bytes, "bitmap directory", &j->offset, err);
    if (ret == 0)
        ret = settle(img, err);
    if (ret < 0)
        return ret;
    j->switching = true;
    return switch_header(j, err);
}

static int store(struct job *j, struct q2_error *err)
{
    struct q2_image *img = j->img;
    bool in_place = false;
    uint64_t at = 0, old_offset = img->header.bitmap_directory_offset;
    uint64_t old_bytes = img->header.has_bitmaps ? img->header.bitmap_directory_size : 0;
    int ret = place_bitmaps(j, err);
    if (ret == 0)
        ret = encode_directory(j, err);
    if (ret == 0)
        ret = find_sector(j, &in_place, &at, err);
    if (ret == 0)
        ret = in_place ? write_in_place(j, at, err) : move_directory(j, err);
    if (ret < 0) {
        if (!j->switching)
            undo(j);
        return q2_context(err, "Failed to update bitmap extension");
    }
    adopt(j, old_offset, in_place ? 0 : old_bytes);
    return settle(img, err);
}

static bool anything_changed(const struct q2_bitmaps *all)
{
    bool any = all->changed;
    for (unsigned i = 0; i < all->n; i++)
        any = any || all->list[i].changed || all->list[i].in_use;
    return any;
}

int q2_bitmaps_store(struct q2_image *img, struct q2_error *err)
{
    struct job j = {.img = img, .all = img->bitmaps};
    if (!img->bitmaps || !anything_changed(img->bitmaps))
        return 0;
    int ret = q2_image_trim(img, err);
    if (ret == 0)
        ret = store(&j, err);
    job_clear(&j);
    return ret;
}
