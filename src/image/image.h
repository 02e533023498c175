// SPDX-License-Identifier: MIT
// An open qcow2 image: the state that the files of this folder share. Outside of it only
// check and ops look in here.
//
// One lock guards all metadata; guest data is read and written outside of it.
#ifndef Q2_IMAGE_IMAGE_H
#define Q2_IMAGE_IMAGE_H

#include <pthread.h>

#include "disk/entry.h"
#include "disk/header.h"
#include "disk/refcount.h"
#include "disk/snapshot.h"
#include "disk/subcluster.h"
#include "image/cache.h"
#include "image/disk.h"
#include "image/runtime.h"

// Clusters to give back once nothing on disk points to them any more.
struct q2_pending_free {
    uint64_t cluster;
    uint64_t n_clusters;
    bool punch; // out of the file, too
};

// Why clusters become free: index of q2_image.pass_discard.
enum q2_free_reason {
    Q2_FREE_REQUEST,  // the guest has discarded them, or zeroed them with leave to unmap
    Q2_FREE_SNAPSHOT, // a snapshot was deleted
    Q2_FREE_OTHER,
    Q2_N_FREE_REASONS,
};

// The metadata caches, unless asked for otherwise.
#define Q2_L2_CACHE_BYTES (UINT64_C(32) << 20)
// A new image is filled in order, and writing its tables waits for nothing.
#define Q2_NEW_L2_CACHE_BYTES (UINT64_C(4) << 20)
#define Q2_REFCOUNT_CACHE_BYTES (UINT64_C(8) << 20)

// So many are kept for the next readers of compressed clusters.
#define Q2_IDLE_DECOMPRESSORS 16U

// Which part of a table in memory is newer than the file.
struct q2_dirty_span {
    uint64_t first, end; // entries; first == end: nothing
};

struct q2_decompressor;

struct q2_image {
    struct q2_disk disk; // first: a q2_disk pointer of this format is a q2_image pointer
    struct q2_header header;
    pthread_mutex_t lock;

    unsigned cluster_bits;
    uint32_t cluster_size;
    bool extended_l2;    // an L2 entry is two words, a cluster has subclusters
    unsigned l2_bits;    // log2 of the entries of an L2 table
    unsigned grain_bits; // log2 of the least that is allocated and copied on write: of a
                         // subcluster, or of a cluster where there are none

    uint64_t *l1; // of the active state or of the snapshot that was asked for
    uint32_t l1_size;
    struct q2_dirty_span l1_dirty;
    struct q2_cache *l2_cache;
    uint64_t hole_start, hole_end; // the last hole of the file in which an L2 table lay

    const struct q2_refcount_format *refcounts;
    uint64_t *refcount_table;     // loaded for writers; NULL until then
    uint64_t refcount_table_size; // entries in memory
    struct q2_dirty_span refcount_table_dirty;
    bool refcount_table_moved; // grown: lies at a new place, the header does not know yet
    uint64_t old_refcount_table_offset; // the place it leaves
    uint32_t old_refcount_table_clusters;
    struct q2_cache *refcount_cache;

    struct q2_snapshot *snapshots;
    unsigned n_snapshots;

    struct q2_bitmaps *bitmaps; // loaded; NULL: there are none, or not yet

    uint64_t free_hint;  // no free cluster lies below this cluster index
    uint64_t fresh_from; // from this host offset on the file was never written: it reads
                         // as zeros
    uint64_t data_end;   // end of the last host cluster handed out for data or tables
    uint64_t compressed_next; // where the next compressed cluster may go; 0: in a new
                              // host cluster

    struct q2_pending_free *pending_free;
    size_t n_pending_free, max_pending_free;
    uint64_t n_pending_clusters;
    bool only_frees; // nothing is allocated now: what becomes free can wait

    bool lazy_refcounts;                  // v3 only
    bool pass_discard[Q2_N_FREE_REASONS]; // punch what becomes free out of the file
    bool discard_no_unref;                // v3 only
    unsigned overlap_check;               // bits of enum q2_overlap
    struct q2_places *places;             // of metadata, see overlap.c; NULL: not known
    bool corrupt_told;                    // the monitor has heard of damage
    bool corrupt; // a write was about to hit metadata: nothing is written any more

    struct q2_crypt *crypt; // owned; NULL: not encrypted, or not unlocked
    // Readers of compressed clusters that nobody uses now; owned.
    struct q2_decompressor *idle_decompressors[Q2_IDLE_DECOMPRESSORS];
    unsigned n_idle_decompressors;

    bool data_file_made; // by creating the image; else it was there, and was emptied

    bool unpublished; // a new image without its header: order and flushes do not matter
                      // yet
    bool checked_preallocation, looks_preallocated;
};

static inline struct q2_image *q2_image_of(struct q2_disk *d)
{
    return (struct q2_image *)d;
}

static inline uint64_t q2_image_l2_entries(const struct q2_image *img)
{
    return UINT64_C(1) << img->l2_bits;
}

// Does anything show through where this layer has nothing? (A name in the header counts
// even where the file was not opened.)
static inline bool q2_image_has_backing(const struct q2_image *img)
{
    return img->disk.backing || img->header.backing_file;
}

// Do guest clusters lie in a file of their own, at their guest offsets?
static inline bool q2_image_has_data_file(const struct q2_image *img)
{
    return img->header.incompatible_features & Q2_INCOMPAT_DATA_FILE;
}

static inline bool q2_image_is_encrypted(const struct q2_image *img)
{
    return img->header.crypt_method != Q2_CRYPT_NONE;
}

// Guest bytes that one L2 table maps.
static inline uint64_t q2_image_l2_span(const struct q2_image *img)
{
    return UINT64_C(1) << (img->l2_bits + img->cluster_bits);
}

static inline void q2_span_add(struct q2_dirty_span *s, uint64_t index)
{
    if (s->first == s->end) {
        s->first = index;
        s->end = index + 1;
    } else {
        s->first = index < s->first ? index : s->first;
        s->end = index >= s->end ? index + 1 : s->end;
    }
}

// L1 entries that a disk of this size needs.
uint64_t q2_image_l1_entries(uint64_t size, unsigned cluster_bits, unsigned l2_bits);

// --- image.c: life -------------------------------------------------------------------

// Opens the image in io (owned by the result on success). Nothing is written, but that a
// writable open clears unknown autoclear bits. image_only: only the description is
// loaded.
int q2_image_open(struct q2_io *io, bool writable, bool image_only, struct q2_image **out,
                  struct q2_error *err);

// A new image in memory for the given header (taken over by the image): nothing is
// mapped, cluster 0 is the header's, the refcount table is cluster 1, its first block
// cluster 2.
int q2_image_new(struct q2_io *io, struct q2_header *header, struct q2_image **out,
                 struct q2_error *err);

// Replaces the L1 table in memory by the one at offset.
int q2_image_load_l1(struct q2_image *img, uint64_t offset, uint32_t n_entries,
                     struct q2_error *err);

// Reads the snapshot table, an entry at a time: little memory whatever there is. take may
// keep what *s owns if it clears *s.
typedef int q2_take_snapshot(void *opaque, struct q2_snapshot *s, struct q2_error *err);
int q2_image_each_snapshot(struct q2_image *img, q2_take_snapshot *take, void *opaque,
                           struct q2_error *err);

// Reads the snapshot table (once).
int q2_image_load_snapshots(struct q2_image *img, struct q2_error *err);

// Makes the image read as the snapshot did. spec: id or name, or
// "snapshot.id=I,snapshot.name=N".
int q2_image_select_snapshot(struct q2_image *img, const char *spec,
                             struct q2_error *err);

// Writes the header cluster from img->header. What the header names must be in its place:
// commit before.
int q2_image_write_header(struct q2_image *img, struct q2_error *err);

// Sets up what is asked for this run, right after opening (NULL: the defaults, which
// opening itself sets).
int q2_image_configure(struct q2_image *img, const struct q2_runtime *runtime,
                       struct q2_error *err);

extern const struct q2_disk_ops q2_image_disk_ops;

// --- update.c ------------------------------------------------------------------------

// Each is one durable write within the header's first sector, and changes img->header
// when the file says so. With the lock held.
// Version 2 has no such bits: nothing happens.
int q2_image_set_incompatible(struct q2_image *img, uint64_t bits, struct q2_error *err);
int q2_image_set_autoclear(struct q2_image *img, uint64_t bits, struct q2_error *err);
// To what img->header says; refcount_table_moved is cleared.
int q2_image_switch_refcount_table(struct q2_image *img, struct q2_error *err);
int q2_image_switch_l1(struct q2_image *img, uint64_t offset, uint32_t n_entries,
                       struct q2_error *err);

// --- l1.c ----------------------------------------------------------------------------

// With the lock held: the active L1 table has at least n_entries afterwards.
int q2_image_grow_l1(struct q2_image *img, uint64_t n_entries, struct q2_error *err);

// --- vmstate.c -----------------------------------------------------------------------

// Reads or writes the VM state of the active state, which lies behind the guest disk; pos
// counts from its start.
int q2_image_read_vmstate(struct q2_image *img, uint64_t pos, void *buf, size_t n_bytes,
                          struct q2_error *err);
int q2_image_write_vmstate(struct q2_image *img, uint64_t pos, const void *buf,
                           size_t n_bytes, struct q2_error *err);

// --- mapping.c -----------------------------------------------------------------------

// What the mapping says of a guest range: one kind, host clusters contiguous.
struct q2_run {
    enum q2_cluster_kind kind;
    uint64_t n_bytes;     // guest bytes from the asked offset on, > 0
    bool has_cluster;     // not compressed: a host cluster belongs to it, whether or not
                          // it is read from there
    uint64_t host_offset; // of the asked guest offset's byte; compressed: of the data
    uint32_t compressed_bytes; // upper bound
};

// With the lock held. n_bytes > 0, the range lies inside the disk (or the VM state).
int q2_mapping_lookup(struct q2_image *img, uint64_t guest_offset, uint64_t n_bytes,
                      struct q2_run *run, struct q2_error *err);

// With the lock held: the L2 table that maps guest_offset, made or unshared so that it
// can be changed.
int q2_mapping_l2_for_write(struct q2_image *img, uint64_t guest_offset,
                            struct q2_table **out, struct q2_error *err);

static inline uint64_t q2_mapping_l2_index(const struct q2_image *img,
                                           uint64_t guest_offset)
{
    return (guest_offset >> img->cluster_bits) & (q2_image_l2_entries(img) - 1);
}

// For the next: the same in an image with an external data file, where offset 0 is one
// like any other, and nothing is compressed.
struct q2_l2_entry q2_mapping_data_file_entry(const struct q2_image *img,
                                              const uint64_t *l2, uint64_t index);

// The entry of a guest cluster in the words of its L2 table.
static inline struct q2_l2_entry q2_mapping_entry(const struct q2_image *img,
                                                  const uint64_t *l2, uint64_t index)
{
    if (q2_image_has_data_file(img))
        return q2_mapping_data_file_entry(img, l2, index);
    if (img->extended_l2)
        return q2_l2_decode_extended(l2[2 * index], l2[2 * index + 1], img->cluster_bits,
                                     false);
    return q2_l2_decode(l2[index], img->cluster_bits, img->header.version);
}

// Stores an entry of a table that can be changed, and marks it to be written if it
// differs.
void q2_mapping_set_entry(struct q2_image *img, struct q2_table *t, uint64_t index,
                          struct q2_l2_entry e);

// Fails, and marks the image: the entry of guest_offset contradicts itself.
int q2_mapping_refuse_invalid(struct q2_image *img, uint64_t guest_offset,
                              struct q2_error *err);

// Fails, and marks the image, where the entry of guest_offset leads to another place in
// the data file.
int q2_mapping_check_place(struct q2_image *img, const struct q2_l2_entry *e,
                           uint64_t guest_offset, struct q2_error *err);

// Of the n-th cluster from some cluster on: the subclusters (all, where there are none)
// that the bytes from .. to touch, which are counted from the first one's start.
static inline uint32_t q2_mapping_touched(const struct q2_image *img, uint64_t n,
                                          uint64_t from, uint64_t to)
{
    uint64_t start = n << img->cluster_bits, end = start + img->cluster_size;
    uint64_t grain = UINT64_C(1) << img->grain_bits;
    unsigned bits = img->cluster_bits - Q2_SUBCLUSTER_BITS;
    from = (from > start ? from - start : 0) & ~(grain - 1);
    to = ((to < end ? to : end) - start + grain - 1) & ~(grain - 1);
    return q2_subcluster_mask((unsigned)(from >> bits), (unsigned)((to - from) >> bits));
}

// --- refcount.c ----------------------------------------------------------------------

// All with the lock held. The range lies inside what refcounts can describe, or it is an
// error.
int q2_refcount_load_table(struct q2_image *img, struct q2_error *err);
int q2_refcount_get(struct q2_image *img, uint64_t cluster, uint64_t *value,
                    struct q2_error *err);
// Adds delta (1 or -1) to each; overflow and underflow are errors.
int q2_refcount_add(struct q2_image *img, uint64_t cluster, uint64_t n, int delta,
                    struct q2_error *err);
// Sets each to 1; they are free now.
int q2_refcount_take(struct q2_image *img, uint64_t cluster, uint64_t n,
                     struct q2_error *err);
// The block that describes cluster; *out is NULL where there is none.
int q2_refcount_block(struct q2_image *img, uint64_t cluster, struct q2_table **out,
                      struct q2_error *err);
// Makes the missing block that describes cluster (free, the first one that is), in
// cluster.
int q2_refcount_add_block(struct q2_image *img, uint64_t cluster, struct q2_error *err);
// Makes sure that blocks for the range exist, placing new ones outside of it.
int q2_refcount_cover(struct q2_image *img, uint64_t cluster, uint64_t n,
                      struct q2_error *err);
// Lets go of the block of that index if it describes nothing but itself. The next commit
// with refcounts makes it true. Nothing may wait to be freed.
int q2_refcount_drop_block(struct q2_image *img, uint64_t index, bool *dropped,
                           struct q2_error *err);
static inline unsigned q2_refcount_block_bits(const struct q2_image *img)
{
    return img->cluster_bits + 3 - img->refcounts->order;
}

// --- alloc.c -------------------------------------------------------------------------

// All with the lock held. The clusters have refcount 1 afterwards.
// what: what they are for, for messages.
// At most n contiguous ones, at least one; *fresh says that they read as zeros.
int q2_alloc_run(struct q2_image *img, uint64_t n, const char *what,
                 uint64_t *host_offset, uint64_t *n_got, bool *fresh,
                 struct q2_error *err);
// Exactly n contiguous ones.
int q2_alloc_exact(struct q2_image *img, uint64_t n, const char *what,
                   uint64_t *host_offset, struct q2_error *err);
// A place for n_bytes (at most a cluster) of compressed data.
int q2_alloc_bytes(struct q2_image *img, size_t n_bytes, uint64_t *host_offset,
                   struct q2_error *err);
// A free cluster outside of avoid .. avoid+n_avoid, from `from` on; not taken yet.
int q2_alloc_find(struct q2_image *img, uint64_t from, uint64_t avoid, uint64_t n_avoid,
                  uint64_t *cluster, struct q2_error *err);
// Takes the references of clusters back at once (they were never linked).
void q2_alloc_undo(struct q2_image *img, uint64_t host_offset, uint64_t n_bytes);

// --- free.c --------------------------------------------------------------------------

// With the lock held. Drops a reference once the pointers that were there are gone from
// the disk.
int q2_alloc_free_later(struct q2_image *img, uint64_t host_offset, uint64_t n_bytes,
                        enum q2_free_reason why, struct q2_error *err);
// Does so much wait to be freed that it is time for a commit?
bool q2_alloc_free_is_due(const struct q2_image *img);
// For commit: the pointers are gone.
int q2_alloc_free_waiting(struct q2_image *img, struct q2_error *err);

// --- commit.c ------------------------------------------------------------------------

// With the lock held: writes metadata back, in an order that survives a power cut; with
// lazy refcounts all but these.
int q2_image_commit(struct q2_image *img, struct q2_error *err);
// As commit, deferred refcounts too; the image stays marked dirty if it was.
int q2_image_commit_all(struct q2_image *img, struct q2_error *err);
int q2_image_finish(struct q2_disk *d, struct q2_error *err);
// With the lock held, before a writing operation looks at its first table: keeps the
// caches and what waits to be freed in bounds. Fails for an image marked as corrupt.
int q2_image_trim(struct q2_image *img, struct q2_error *err);
// The same for reading, which never fails for it.
void q2_image_shrink_caches(struct q2_image *img);

// --- write.c, zero.c, discard.c ------------------------------------------------------

// Fails for images whose features this version cannot write; packed: compressed clusters.
int q2_image_refuse_write(const struct q2_image *img, bool packed, struct q2_error *err);
int q2_image_write_begin(struct q2_disk *d, uint64_t guest_offset, size_t n_bytes,
                         struct q2_write *w, struct q2_error *err);
int q2_image_write_begin_compressed(struct q2_disk *d, uint64_t guest_offset,
                                    size_t compressed_bytes, struct q2_write *w,
                                    struct q2_error *err);
int q2_image_write_finish(struct q2_disk *d, const struct q2_write *w,
                          struct q2_error *err);
void q2_image_write_cancel(struct q2_disk *d, const struct q2_write *w);
int q2_image_write_zeroes(struct q2_disk *d, uint64_t guest_offset, uint64_t n_bytes,
                          unsigned flags, struct q2_error *err);
int q2_image_discard(struct q2_disk *d, uint64_t guest_offset, uint64_t n_bytes,
                     struct q2_error *err);
// With the lock held: drops the references of an entry that is being replaced.
int q2_image_release_entry(struct q2_image *img, const struct q2_l2_entry *e,
                           enum q2_free_reason why, struct q2_error *err);

// How entries are replaced, without touching any data.
struct q2_marking {
    // mask: the subclusters that are meant; of a compressed cluster always all.
    void (*change)(const struct q2_image *img, struct q2_l2_entry *e, uint32_t mask,
                   unsigned flags);
    unsigned flags;
    enum q2_free_reason why;
    bool keep_holes; // unallocated clusters stay that
};
// The range begins and ends at a multiple of the grain, or at the disk's end, which
// counts as that of a cluster. Parts of compressed clusters are left as they are.
int q2_image_mark_clusters(struct q2_image *img, uint64_t guest_offset, uint64_t n_bytes,
                           const struct q2_marking *marking, struct q2_error *err);

// --- read.c --------------------------------------------------------------------------

int q2_image_read(struct q2_disk *d, uint64_t guest_offset, void *buf, size_t n_bytes,
                  struct q2_error *err);
int q2_image_status(struct q2_disk *d, uint64_t guest_offset, uint64_t n_bytes,
                    struct q2_extent *extent, struct q2_error *err);

#endif
