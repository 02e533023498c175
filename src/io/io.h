// SPDX-License-Identifier: MIT
// Bytes at offsets. Everything that holds an image (a file, memory, later an overlay, an
// undo journal, a fault injector) is one of these; nothing here knows what the bytes
// mean.
#ifndef Q2_IO_IO_H
#define Q2_IO_IO_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct q2_io;

// What an implementation provides. Calls may come from several threads at a time.
struct q2_io_ops {
    // Exactly n_bytes that lie inside the file; a short read is an error.
    int (*read)(struct q2_io *io, uint64_t offset, void *buf, size_t n_bytes,
                struct q2_error *err);
    // Exactly n_bytes; grows the file when needed.
    int (*write)(struct q2_io *io, uint64_t offset, const void *buf, size_t n_bytes,
                 struct q2_error *err);
    // Makes everything written durable.
    int (*flush)(struct q2_io *io, struct q2_error *err);
    int (*set_size)(struct q2_io *io, uint64_t size, struct q2_error *err);
    // Current size in bytes (block devices too).
    int (*get_size)(struct q2_io *io, uint64_t *size, struct q2_error *err);
    // The range (inside the file) reads as zeros afterwards. Cheapest way first: punch
    // when unmap, else zero without giving the space back; real zeros when neither is
    // possible.
    int (*zero)(struct q2_io *io, uint64_t offset, uint64_t n_bytes, bool unmap,
                struct q2_error *err);
    // A hint that the range's content is of no use; never fails for lack of support.
    int (*discard)(struct q2_io *io, uint64_t offset, uint64_t n_bytes,
                   struct q2_error *err);
    // Backs the range with disk space; grows the file when needed; contents stay.
    int (*allocate)(struct q2_io *io, uint64_t offset, uint64_t n_bytes,
                    struct q2_error *err);
    // From offset (inside the file): *n_bytes (> 0) that are all hole (*data false, they
    // read as zeros) or may hold data (*data true). Without knowledge: everything is
    // data.
    int (*extent)(struct q2_io *io, uint64_t offset, uint64_t *n_bytes, bool *data,
                  struct q2_error *err);
    // Copies n_bytes inside another file to here, without a way through memory of ours:
    // shares their space where the file system can. -ENOTSUP when it is not possible;
    // after that or another failure the range's content is undefined. NULL: never
    // possible.
    int (*copy)(struct q2_io *io, uint64_t offset, const struct q2_io *from,
                uint64_t from_offset, uint64_t n_bytes, struct q2_error *err);
    // Bytes of disk space the file takes (st_blocks * 512).
    int (*disk_usage)(struct q2_io *io, uint64_t *n_bytes, struct q2_error *err);
    // Releases everything, io itself too.
    void (*close)(struct q2_io *io);
};

// The head of every implementation's own struct.
struct q2_io {
    const struct q2_io_ops *ops;
    char *name; // as the user named it, for messages; owned
    bool writable;
    bool sparse_growth; // bytes added by growing read as zeros (regular files, memory)
    bool new_content;   // made empty by us: everything in it was written through this io
    bool copies; // asked to copy, the system below may do better than to read and write
    // Largest size seen so far (0 at first), kept by the functions below: a read that
    // ends below it need not ask for the size.
    _Atomic uint64_t known_size;
};

// Reads n_bytes at offset. What lies beyond the end of the file reads as zeros (an image
// may end before its last cluster does); a read that fails inside the file is an error
// that names the file and the offset, and so is one below an end that the file once had.
int q2_io_read(struct q2_io *io, uint64_t offset, void *buf, size_t n_bytes,
               struct q2_error *err);
// As q2_io_read, but fails when any of the range is beyond the end.
int q2_io_read_exact(struct q2_io *io, uint64_t offset, void *buf, size_t n_bytes,
                     struct q2_error *err);
int q2_io_write(struct q2_io *io, uint64_t offset, const void *buf, size_t n_bytes,
                struct q2_error *err);
int q2_io_flush(struct q2_io *io, struct q2_error *err);
int q2_io_set_size(struct q2_io *io, uint64_t size, struct q2_error *err);
int q2_io_get_size(struct q2_io *io, uint64_t *size, struct q2_error *err);
int q2_io_zero(struct q2_io *io, uint64_t offset, uint64_t n_bytes, bool unmap,
               struct q2_error *err);
int q2_io_discard(struct q2_io *io, uint64_t offset, uint64_t n_bytes,
                  struct q2_error *err);
int q2_io_allocate(struct q2_io *io, uint64_t offset, uint64_t n_bytes,
                   struct q2_error *err);
int q2_io_extent(struct q2_io *io, uint64_t offset, uint64_t *n_bytes, bool *data,
                 struct q2_error *err);
// -ENOTSUP: not between these; copy by reading and writing.
int q2_io_copy(struct q2_io *io, uint64_t offset, const struct q2_io *from,
               uint64_t from_offset, uint64_t n_bytes, struct q2_error *err);
int q2_io_disk_usage(struct q2_io *io, uint64_t *n_bytes, struct q2_error *err);
// NULL is fine. A write that must be durable is flushed before, not here.
void q2_io_close(struct q2_io *io);

#endif
