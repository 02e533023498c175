// SPDX-License-Identifier: MIT
// A virtual disk: what raw files and qcow2 images have in common. No operation asks which
// of the two it holds.
//
// Threads: read, status, write_begin, write_data and write_finish may be called from
// several threads at a time, as long as no two writes in flight touch the same guest
// cluster. The rest: one at a time.
#ifndef Q2_IMAGE_DISK_H
#define Q2_IMAGE_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/monitor.h"
#include "disk/header.h"
#include "io/io.h"

struct q2_disk;

// What one layer (not its backing chain) knows of a guest range.
struct q2_extent {
    uint64_t n_bytes; // > 0, at most what was asked
    bool allocated;   // this layer decides what is read here; else its backing file does
    bool zero; // reads as zeros (unallocated: there is no backing file here, or it ends
               // before)
    bool data; // stored bytes decide
    bool compressed;
    bool has_offset; // host_offset is where the bytes are (or would be) in file
    uint64_t host_offset;
    const struct q2_io *file; // the file that host_offset is in; NULL without has_offset
};

// A write in flight: from write_begin to write_finish or write_cancel.
struct q2_write {
    uint64_t guest_offset;
    size_t n_bytes;       // how much of the request this covers, > 0
    uint64_t host_offset; // where guest_offset's byte goes
    size_t head, tail;    // bytes of old content to copy before and behind it
    bool fresh; // the whole host range (head and tail too) reads as zeros now: zeros need
                // not be written
    bool taken; // the host clusters were allocated for it: cancel gives them back
    bool link;  // the mapping changes at finish
    bool reserve; // set by the caller after begin: nothing is written, the place is only
                  // kept for later (where the mapping can say so; else it is data)
    size_t compressed_bytes; // 0: plain
};

enum q2_zero_flags {
    Q2_ZERO_UNMAP = 1, // the space may be given back
};

struct q2_disk_ops {
    const char *format; // "raw", "qcow2"
    int (*read)(struct q2_disk *d, uint64_t guest_offset, void *buf, size_t n_bytes,
                struct q2_error *err);
    int (*status)(struct q2_disk *d, uint64_t guest_offset, uint64_t n_bytes,
                  struct q2_extent *extent, struct q2_error *err);
    int (*write_begin)(struct q2_disk *d, uint64_t guest_offset, size_t n_bytes,
                       struct q2_write *w, struct q2_error *err);
    // Places a compressed cluster: guest_offset is cluster aligned. NULL: not supported.
    int (*write_begin_compressed)(struct q2_disk *d, uint64_t guest_offset,
                                  size_t compressed_bytes, struct q2_write *w,
                                  struct q2_error *err);
    // On failure what begin took is given back, or linked in part.
    int (*write_finish)(struct q2_disk *d, const struct q2_write *w,
                        struct q2_error *err);
    // Gives back what begin took.
    void (*write_cancel)(struct q2_disk *d, const struct q2_write *w);
    int (*write_zeroes)(struct q2_disk *d, uint64_t guest_offset, uint64_t n_bytes,
                        unsigned flags, struct q2_error *err);
    // The range's content is of no use any more. What is left out (parts of clusters)
    // keeps its content. NULL: does nothing.
    int (*discard)(struct q2_disk *d, uint64_t guest_offset, uint64_t n_bytes,
                   struct q2_error *err);
    // Makes all that was written and finished durable, in an order that a power cut
    // survives.
    int (*flush)(struct q2_disk *d, struct q2_error *err);
    // flush, and what only a clean end may say (deferred refcounts, the dirty bit). NULL:
    // as flush.
    int (*finish)(struct q2_disk *d, struct q2_error *err);
    // Releases what belongs to the format (writes nothing); file, data and backing are
    // closed by the caller.
    void (*release)(struct q2_disk *d);
    // Bytes of plain guest clusters in d->data, which are kept in another form than the
    // guest sees (encrypted). Asked when d->data_align > 1; both offsets and n_bytes are
    // multiples of it. store leaves buf as it is. From several threads at a time.
    int (*load)(struct q2_disk *d, uint64_t guest_offset, uint64_t host_offset, void *buf,
                size_t n_bytes, struct q2_error *err);
    int (*store)(struct q2_disk *d, uint64_t guest_offset, uint64_t host_offset,
                 const void *buf, size_t n_bytes, struct q2_error *err);
};

// The head of struct q2_raw and struct q2_image.
struct q2_disk {
    const struct q2_disk_ops *ops;
    struct q2_io *file;  // owned
    struct q2_io *data;  // plain guest clusters lie here: file, or an external data file
                         // (owned, too). NULL: it was not opened, guest data cannot be
                         // read or written
    uint32_t data_align; // grain of load and store; 1: the bytes are as the guest sees
                         // them
    struct q2_disk *backing; // owned; NULL: none, or not opened
    char *path; // as the user (or the overlay, made absolute or relative to here) named
                // it; owned
    uint64_t size;                   // virtual size in bytes
    uint32_t cluster_size;           // guest cluster in bytes; 0 for raw
    uint32_t grain_size;             // what is allocated and copied on write together: a
                                     // cluster, or a part of one; 0 for raw
    enum q2_compression compression; // of compressed clusters
    bool writable;
    bool discard_unmap;                      // discards of a raw disk reach the file
    bool detect_zeroes, detect_zeroes_unmap; // writes of zeros become write_zeroes
    bool flush_writes; // every write is durable when it returns (cache mode writethrough)
    const struct q2_monitor *monitor; // hears of damage that is found; not owned, NULL:
                                      // nobody
    bool probed_raw; // format was guessed as raw: block 0 must not get another format's
                     // magic
};

// Reads through the backing chain; offset + n_bytes <= size.
int q2_disk_read(struct q2_disk *d, uint64_t guest_offset, void *buf, size_t n_bytes,
                 struct q2_error *err);

// Writes (allocates, copies on write). offset + n_bytes <= size.
int q2_disk_write(struct q2_disk *d, uint64_t guest_offset, const void *buf,
                  size_t n_bytes, struct q2_error *err);
int q2_disk_write_zeroes(struct q2_disk *d, uint64_t guest_offset, uint64_t n_bytes,
                         unsigned flags, struct q2_error *err);
int q2_disk_discard(struct q2_disk *d, uint64_t guest_offset, uint64_t n_bytes,
                    struct q2_error *err);
// One cluster: guest_offset is cluster aligned, n_bytes is a cluster or reaches the
// disk's end. Stored plain where it does not shrink. -ENOTSUP: the format cannot.
int q2_disk_write_compressed(struct q2_disk *d, uint64_t guest_offset, const void *buf,
                             size_t n_bytes, struct q2_error *err);
int q2_disk_flush(struct q2_disk *d, struct q2_error *err);
// The last call of a writer before q2_disk_close: flushes, and marks the image clean.
int q2_disk_finish(struct q2_disk *d, struct q2_error *err);

// q2_disk_write without a look at the disk's end.
int q2_disk_put(struct q2_disk *d, uint64_t guest_offset, const void *buf, size_t n_bytes,
                struct q2_error *err);

// --- guest_data.c: plain guest clusters in d->data -----------------------------------

// guest_offset's byte is (or shall be) at host_offset. Where the disk has a grain,
// requests are widened to it: a store rewrites what is around it with what is there.
// What lies behind the end of the file is read as zeros.
int q2_disk_load(struct q2_disk *d, uint64_t guest_offset, uint64_t host_offset,
                 void *buf, size_t n_bytes, struct q2_error *err);
int q2_disk_store(struct q2_disk *d, uint64_t guest_offset, uint64_t host_offset,
                  const void *buf, size_t n_bytes, struct q2_error *err);

// -------------------------------------------------------------------------------------

// The middle step of a write: puts w->n_bytes at buf (and the old content around it) in
// their place. Where w->fresh, runs of zero_grain bytes (0: never) that are zero are left
// out.
int q2_disk_write_data(struct q2_disk *d, const struct q2_write *w, const void *buf,
                       size_t zero_grain, struct q2_error *err);

// Status of this layer alone; guest_offset < size, n_bytes is cut at the disk's end.
int q2_disk_status(struct q2_disk *d, uint64_t guest_offset, uint64_t n_bytes,
                   struct q2_extent *extent, struct q2_error *err);

// Status through the chain, from d down to base (not included; NULL: all layers). *depth:
// 0 for d, 1 for its backing file ... the layer that decides, or the last one looked at.
// extent->allocated: some layer decides. What a shorter backing file does not reach reads
// as zeros and counts as allocated in the layer above its end.
int q2_disk_status_above(struct q2_disk *d, const struct q2_disk *base,
                         uint64_t guest_offset, uint64_t n_bytes,
                         struct q2_extent *extent, unsigned *depth, struct q2_error *err);

// Closes d, but neither its file nor its backing file.
void q2_disk_drop(struct q2_disk *d);

// Most that a map should be asked for at a time, of a disk of that size: bounds the
// tables that are looked through for one answer (again for each extent of the layers
// below), and the number of answers that the largest disk gives.
static inline uint64_t q2_disk_map_step(uint64_t disk_size)
{
    const uint64_t step = UINT64_C(1) << 30, part = disk_size / 4096;
    return part > step ? part : step;
}

// How much of d is best read at a time, a power of two and at least a cluster of any
// layer (a compressed one is inflated as a whole): as much as stays in a processor's
// cache until it was looked at and written.
size_t q2_disk_read_step(const struct q2_disk *d);

// Closes d and its backing chain; writes nothing (flush before). NULL is fine.
void q2_disk_close(struct q2_disk *d);

#endif
