// SPDX-License-Identifier: MIT
// What the parts of the file implementation share; for src/io/ alone.
#ifndef Q2_IO_FILE_PRIVATE_H
#define Q2_IO_FILE_PRIVATE_H

#include <pthread.h>
#include <sys/stat.h>

#include "io/io.h"

enum q2_file_kind { Q2_FILE_REGULAR, Q2_FILE_BLOCK, Q2_FILE_CHARACTER };

struct q2_file {
    struct q2_io io; // first: a q2_io is cast to this
    int fd;
    enum q2_file_kind kind;
    bool direct; // O_DIRECT
    bool no_flush;
    // With O_DIRECT: held while blocks are read and written back, and while the file
    // grows.
    pthread_mutex_t edge_lock;
    // Of a file that is only read: the last extent of data that the file system told of.
    // Some look through all of it for each answer.
    pthread_mutex_t extent_lock;
    uint64_t data_start, data_end;
    // Ways that were tried and that the file system does not know.
    _Atomic bool no_punch;
    _Atomic bool no_zero_range;
    // The first failure of a flush. The kernel tells it once and forgets the pages: no
    // later flush may claim success.
    _Atomic int flush_error;
};

static inline struct q2_file *q2_file_of(struct q2_io *io)
{
    return (struct q2_file *)io;
}

// transfer.c
int q2_file_read(struct q2_io *io, uint64_t offset, void *buf, size_t n_bytes,
                 struct q2_error *err);
int q2_file_write(struct q2_io *io, uint64_t offset, const void *buf, size_t n_bytes,
                  struct q2_error *err);
int q2_file_flush(struct q2_io *io, struct q2_error *err);
int q2_file_copy(struct q2_io *io, uint64_t offset, const struct q2_io *from,
                 uint64_t from_offset, uint64_t n_bytes, struct q2_error *err);

// space.c
int q2_file_set_size(struct q2_io *io, uint64_t size, struct q2_error *err);
int q2_file_get_size(struct q2_io *io, uint64_t *size, struct q2_error *err);
int q2_file_zero(struct q2_io *io, uint64_t offset, uint64_t n_bytes, bool unmap,
                 struct q2_error *err);
int q2_file_discard(struct q2_io *io, uint64_t offset, uint64_t n_bytes,
                    struct q2_error *err);
int q2_file_allocate(struct q2_io *io, uint64_t offset, uint64_t n_bytes,
                     struct q2_error *err);
int q2_file_extent(struct q2_io *io, uint64_t offset, uint64_t *n_bytes, bool *data,
                   struct q2_error *err);
int q2_file_disk_usage(struct q2_io *io, uint64_t *n_bytes, struct q2_error *err);

#endif
