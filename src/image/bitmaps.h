// SPDX-License-Identifier: MIT
// Persistent bitmaps of an open image (qcow2 format: "Bitmaps"): which parts of the disk
// were written since somebody, a backup as a rule, last looked.
//
// They are loaded when the image is opened for writing, and on demand for reading. A
// bitmap that records is marked as in use in the file before the first write to the disk,
// marked in memory by every write, and stored again by q2_disk_finish. One that a program
// left in use says nothing any more: it is inconsistent, and can only be removed.
//
// Of a bitmap's bits only the pieces (a host cluster each) that change are in memory.
// All functions but q2_bitmaps_note are called with the image's lock held.
#ifndef Q2_IMAGE_BITMAPS_H
#define Q2_IMAGE_BITMAPS_H

#include "disk/bitmap.h"
#include "image/image.h"

struct q2_live_bitmap {
    struct q2_bitmap entry; // of the directory; flags without Q2_BITMAP_IN_USE
    bool inconsistent;      // somebody left it in use
    bool in_use;            // on our account: the file says so
    bool changed;           // bits or size are not what the file says
    uint64_t *table; // as it lies in the file, host-endian; NULL: none does, or not read
    uint64_t disk_size; // that the bits stand for
    // What has become of each piece since: NULL: nothing, else its bits.
    uint8_t **pieces;
    uint64_t n_pieces;
};

// The directory as the header says it lies in io: *n entries, which the caller clears and
// frees.
int q2_bitmaps_read_directory(struct q2_io *io, const struct q2_header *h,
                              struct q2_bitmap **out, unsigned *n, struct q2_error *err);

// The same, an entry at a time and without extra data: little memory whatever there is.
// b is cleared behind take.
typedef int q2_take_bitmap(void *opaque, const struct q2_bitmap *b, struct q2_error *err);
int q2_bitmaps_each(struct q2_io *io, const struct q2_header *h, q2_take_bitmap *take,
                    void *opaque, struct q2_error *err);

// Could the image hold a bitmap like this for a disk of this size? -EINVAL with QEMU's
// words.
int q2_bitmaps_check_size(const struct q2_image *img, uint64_t disk_size,
                          unsigned granularity_bits, struct q2_error *err);

// Loads directory and tables, and validates them; bits are read when they are needed.
// Nothing happens when that was done already.
int q2_bitmaps_load(struct q2_image *img, struct q2_error *err);
void q2_bitmaps_free(struct q2_image *img);

unsigned q2_bitmaps_count(const struct q2_image *img);
struct q2_live_bitmap *q2_bitmaps_get(struct q2_image *img, unsigned index);
// NULL: there is none of that name.
struct q2_live_bitmap *q2_bitmaps_find(struct q2_image *img, const char *name);

// -EUCLEAN for an inconsistent bitmap, with QEMU's words.
int q2_bitmaps_refuse_inconsistent(const struct q2_live_bitmap *b, struct q2_error *err);

// Changes in memory, for the next store. A new one is empty and records; the name is not
// in use yet.
int q2_bitmaps_add(struct q2_image *img, const char *name, unsigned granularity_bits,
                   struct q2_live_bitmap **out, struct q2_error *err);
int q2_bitmaps_remove(struct q2_image *img, struct q2_live_bitmap *b,
                      struct q2_error *err);
void q2_bitmaps_enable(struct q2_image *img, struct q2_live_bitmap *b, bool enable);

// Before the first change of the disk's size (or, all false, of its content) the file
// says that the bitmaps (those that record) are in use. One flushed write.
int q2_bitmaps_begin(struct q2_image *img, bool all, struct q2_error *err);

// A guest range is about to be written.
int q2_bitmaps_record(struct q2_image *img, uint64_t guest_offset, uint64_t n_bytes,
                      struct q2_error *err);

// The same without the lock.
int q2_bitmaps_note(struct q2_image *img, uint64_t guest_offset, uint64_t n_bytes,
                    struct q2_error *err);

// Could every bitmap be kept with this size of the disk? Inconsistent ones cannot.
int q2_bitmaps_try_resize(const struct q2_image *img, uint64_t disk_size,
                          struct q2_error *err);
// The disk has this size from now on; after q2_bitmaps_begin of all.
int q2_bitmaps_resize(struct q2_image *img, uint64_t disk_size, struct q2_error *err);

// --- bitmaps_store.c ------------------------------------------------------------------

// Writes what has changed, and takes the marks away. A power cut leaves the old
// directory or the new one. In an image that has no header yet, everything but the header
// is written.
int q2_bitmaps_store(struct q2_image *img, struct q2_error *err);

// --- bitmap_bits.c: the bits of one bitmap --------------------------------------------

// All ranges are guest bytes; what is touched of a granule counts as the whole.
int q2_bits_set(struct q2_image *img, struct q2_live_bitmap *b, uint64_t start,
                uint64_t end, struct q2_error *err);
void q2_bits_clear(struct q2_live_bitmap *b);
int q2_bits_resize(struct q2_image *img, struct q2_live_bitmap *b, uint64_t disk_size,
                   struct q2_error *err);
// Calls take for every run of set bits, in order, cut at the end of the disk.
int q2_bits_each(struct q2_image *img, struct q2_live_bitmap *b,
                 int (*take)(void *opaque, uint64_t start, uint64_t end,
                             struct q2_error *err),
                 void *opaque, struct q2_error *err);

// Sets up the pieces of a bitmap that has none yet: as b->table says, or zeros.
int q2_bits_open(struct q2_image *img, struct q2_live_bitmap *b, uint64_t disk_size,
                 struct q2_error *err);
// The file says what the bits are: nothing has changed since.
void q2_bits_settle(struct q2_live_bitmap *b);

// What a piece is now: bits in memory, or in a host cluster, or all ones, or (none of
// these) all zeros.
struct q2_piece {
    const uint8_t *bits;
    uint64_t host_offset;
    bool ones;
};
// Returns whether it is another than in the file.
bool q2_bits_piece(const struct q2_live_bitmap *b, uint64_t i, struct q2_piece *p);

// The table entry that a piece has had until now.
static inline uint64_t q2_bits_stored(const struct q2_live_bitmap *b, uint64_t piece)
{
    return b->table && piece < b->entry.table_size ? b->table[piece] : 0;
}

#endif
