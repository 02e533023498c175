// SPDX-License-Identifier: MIT
// The bits of a bitmap. A piece is a host cluster's worth of them; it is read when some
// of its bits change, and a piece that becomes all ones or all zeros takes no memory.
#include "image/bitmaps.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

// What b->pieces holds for these.
static uint8_t all_zeros[1], all_ones[1];

static bool is_loaded(const uint8_t *piece)
{
    return piece && piece != all_zeros && piece != all_ones;
}

static void put_piece(struct q2_live_bitmap *b, uint64_t i, uint8_t *piece)
{
    if (is_loaded(b->pieces[i]))
        free(b->pieces[i]);
    b->pieces[i] = piece;
    b->changed = true;
}

bool q2_bits_piece(const struct q2_live_bitmap *b, uint64_t i, struct q2_piece *p)
{
    const uint8_t *piece = b->pieces[i];
    uint64_t stored = q2_bits_stored(b, i);
    *p = (struct q2_piece){0};
    if (is_loaded(piece))
        p->bits = piece;
    else if (piece)
        p->ones = piece == all_ones;
    else if (stored & Q2_OFFSET_MASK)
        p->host_offset = stored & Q2_OFFSET_MASK;
    else
        p->ones = (stored & Q2_BITMAP_ALL_ONES) != 0;
    return piece != NULL;
}

void q2_bits_settle(struct q2_live_bitmap *b)
{
    for (uint64_t i = 0; i < b->n_pieces; i++) {
        if (b->pieces[i])
            put_piece(b, i, NULL);
    }
    b->changed = false;
}

// The piece as bytes in memory. One that cannot be read becomes all ones: whoever relies
// on the bitmap then copies too much, never too little.
static int load_piece(struct q2_image *img, struct q2_live_bitmap *b, uint64_t i,
                      struct q2_error *err)
{
    struct q2_error ignored = Q2_ERROR_INIT;
    struct q2_piece p;
    q2_bits_piece(b, i, &p);
    if (p.bits)
        return 0;
    uint8_t *bits = malloc(img->cluster_size);
    if (!bits)
        return q2_fail_memory(err, img->cluster_size);
    memset(bits, p.ones ? 0xff : 0, img->cluster_size);
    if (p.host_offset &&
        q2_io_read(img->disk.file, p.host_offset, bits, img->cluster_size, &ignored) < 0)
        memset(bits, 0xff, img->cluster_size);
    put_piece(b, i, bits);
    return 0;
}

// Bits first .. end - 1 become value.
static void fill_bits(uint8_t *bits, uint64_t first, uint64_t end, bool value)
{
    while (first < end) {
        uint64_t in_byte = first & 7, n = q2_min_u64(8 - in_byte, end - first);
        if (in_byte == 0 && end - first >= 8) {
            n = q2_align_down(end - first, 8);
            memset(bits + first / 8, value ? 0xff : 0, q2_to_size(n / 8));
        } else {
            uint8_t mask = (uint8_t)(((1U << n) - 1) << in_byte);
            bits[first / 8] =
                (uint8_t)(value ? bits[first / 8] | mask : bits[first / 8] & ~mask);
        }
        first += n;
    }
}

static int set_in_piece(struct q2_image *img, struct q2_live_bitmap *b, uint64_t i,
                        uint64_t first, uint64_t end, struct q2_error *err)
{
    uint64_t per_piece = (uint64_t)img->cluster_size * 8;
    struct q2_piece p;
    q2_bits_piece(b, i, &p);
    if (p.ones)
        return 0;
    if (first == 0 && end == per_piece) {
        put_piece(b, i, all_ones);
        return 0;
    }
    int ret = load_piece(img, b, i, err);
    if (ret == 0)
        fill_bits(b->pieces[i], first, end, true);
    return ret;
}

int q2_bits_set(struct q2_image *img, struct q2_live_bitmap *b, uint64_t start,
                uint64_t end, struct q2_error *err)
{
    uint64_t per_piece = (uint64_t)img->cluster_size * 8;
    end = q2_min_u64(end, b->disk_size);
    if (start >= end)
        return 0;
    uint64_t bit = start >> b->entry.granularity_bits;
    uint64_t stop = ((end - 1) >> b->entry.granularity_bits) + 1;
    int ret = 0;
    while (bit < stop && ret == 0) {
        uint64_t i = bit / per_piece, first = bit % per_piece;
        uint64_t n = q2_min_u64(stop - bit, per_piece - first);
        ret = set_in_piece(img, b, i, first, first + n, err);
        bit += n;
    }
    return ret;
}

void q2_bits_clear(struct q2_live_bitmap *b)
{
    for (uint64_t i = 0; i < b->n_pieces; i++)
        put_piece(b, i, all_zeros);
    b->changed = true;
}

// What the last piece says of granules behind the end of the disk goes.
static int clear_tail(struct q2_image *img, struct q2_live_bitmap *b,
                      struct q2_error *err)
{
    uint64_t per_piece = (uint64_t)img->cluster_size * 8;
    uint64_t n_bits =
        q2_div_round_up(b->disk_size, UINT64_C(1) << b->entry.granularity_bits);
    uint64_t end = n_bits % per_piece, i = n_bits / per_piece;
    struct q2_piece p;
    if (end == 0)
        return 0;
    q2_bits_piece(b, i, &p);
    if (!p.bits && !p.ones && !p.host_offset)
        return 0;
    int ret = load_piece(img, b, i, err);
    if (ret == 0)
        fill_bits(b->pieces[i], end, per_piece, false);
    return ret;
}

static int set_pieces(struct q2_live_bitmap *b, uint64_t n, struct q2_error *err)
{
    for (uint64_t i = n; i < b->n_pieces; i++)
        put_piece(b, i, NULL);
    uint8_t **pieces = realloc(b->pieces, q2_to_size(q2_max_u64(n, 1) * sizeof(*pieces)));
    if (!pieces)
        return q2_fail_memory(err, n * sizeof(*pieces));
    // Beyond what the disk had, a piece of an earlier, larger one means nothing.
    for (uint64_t i = b->n_pieces; i < n; i++)
        pieces[i] = all_zeros;
    b->pieces = pieces;
    b->n_pieces = n;
    return 0;
}

int q2_bits_resize(struct q2_image *img, struct q2_live_bitmap *b, uint64_t disk_size,
                   struct q2_error *err)
{
    uint64_t n =
        q2_bitmap_table_entries(disk_size, b->entry.granularity_bits, img->cluster_bits);
    bool grows = disk_size > b->disk_size;
    int ret = grows ? clear_tail(img, b, err) : 0;
    if (ret == 0)
        ret = set_pieces(b, n, err);
    if (ret < 0)
        return ret;
    b->disk_size = disk_size;
    b->changed = true;
    return grows ? 0 : clear_tail(img, b, err);
}

int q2_bits_open(struct q2_image *img, struct q2_live_bitmap *b, uint64_t disk_size,
                 struct q2_error *err)
{
    uint64_t n =
        q2_bitmap_table_entries(disk_size, b->entry.granularity_bits, img->cluster_bits);
    b->pieces = calloc(q2_to_size(q2_max_u64(n, 1)), sizeof(*b->pieces));
    if (!b->pieces)
        return q2_fail_memory(err, n * sizeof(*b->pieces));
    b->n_pieces = n;
    b->disk_size = disk_size;
    return 0;
}

// --- looking -------------------------------------------------------------------------

struct walk {
    struct q2_live_bitmap *b;
    int (*take)(void *opaque, uint64_t start, uint64_t end, struct q2_error *err);
    void *opaque;
};

// Bits, counted over the whole bitmap.
static int give_run(const struct walk *w, uint64_t first, uint64_t end,
                    struct q2_error *err)
{
    unsigned bits = w->b->entry.granularity_bits;
    uint64_t start = first << bits;
    uint64_t stop = q2_min_u64(end << bits, w->b->disk_size);
    return start < stop ? w->take(w->opaque, start, stop, err) : 0;
}

static bool bit_at(const uint8_t *bits, uint64_t i)
{
    return (bits[i / 8] >> (i & 7)) & 1;
}

// From bit i on: the first that has this value, or n.
static uint64_t next_bit(const uint8_t *bits, uint64_t i, uint64_t n, bool value)
{
    const uint8_t skip = value ? 0 : 0xff;
    while (i < n && bit_at(bits, i) != value)
        i += (i & 7) == 0 && bits[i / 8] == skip ? 8 : 1;
    return q2_min_u64(i, n);
}

static int walk_bits(const struct walk *w, const uint8_t *bits, uint64_t base, uint64_t n,
                     struct q2_error *err)
{
    uint64_t i = next_bit(bits, 0, n, true);
    int ret = 0;
    while (i < n && ret == 0) {
        uint64_t end = next_bit(bits, i, n, false);
        ret = give_run(w, base + i, base + end, err);
        i = next_bit(bits, end, n, true);
    }
    return ret;
}

static int walk_piece(struct q2_image *img, const struct walk *w, uint64_t i,
                      uint8_t *scratch, struct q2_error *err)
{
    uint64_t per_piece = (uint64_t)img->cluster_size * 8, base = i * per_piece;
    struct q2_piece p;
    q2_bits_piece(w->b, i, &p);
    if (p.ones)
        return give_run(w, base, base + per_piece, err);
    if (p.host_offset) {
        int ret =
            q2_io_read(img->disk.file, p.host_offset, scratch, img->cluster_size, err);
        if (ret < 0)
            return q2_context(err, "Could not read bitmap '%s' from image",
                              w->b->entry.name);
        p.bits = scratch;
    }
    return p.bits ? walk_bits(w, p.bits, base, per_piece, err) : 0;
}

int q2_bits_each(struct q2_image *img, struct q2_live_bitmap *b,
                 int (*take)(void *opaque, uint64_t start, uint64_t end,
                             struct q2_error *err),
                 void *opaque, struct q2_error *err)
{
    const struct walk w = {.b = b, .take = take, .opaque = opaque};
    uint8_t *scratch = malloc(img->cluster_size);
    int ret = scratch ? 0 : q2_fail_memory(err, img->cluster_size);
    for (uint64_t i = 0; i < b->n_pieces && ret == 0; i++)
        ret = walk_piece(img, &w, i, scratch, err);
    free(scratch);
    return ret;
}
