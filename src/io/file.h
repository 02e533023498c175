// SPDX-License-Identifier: MIT
// A file or block device of the system, with the image locks that QEMU keeps.
#ifndef Q2_IO_FILE_H
#define Q2_IO_FILE_H

#include "io/io.h"

// Which of QEMU's byte-range locks to take (table in the man page qcow2.1, "Locks").
enum q2_lock_mode {
    Q2_LOCK_NONE,
    Q2_LOCK_METADATA, // info: reads the image's description only
    Q2_LOCK_READ,     // reads guest data; no writer may be there
    Q2_LOCK_SHARED,   // -U: reads beside a writer
    Q2_LOCK_WRITE,
    Q2_LOCK_RAW, // reads a raw disk beside a writer, but not while it grows or shrinks
};

// Whether locks are taken at all.
enum q2_locking {
    Q2_LOCKING_AUTO, // where the file system knows them
    Q2_LOCKING_ON,   // an error where it does not
    Q2_LOCKING_OFF,
};

struct q2_file_options {
    bool writable;
    bool direct;      // O_DIRECT: cache modes none and directsync. File system permitting
    bool sync_writes; // O_DSYNC: writethrough and directsync
    bool no_flush;    // flush does nothing: cache mode unsafe
    bool sequential;  // tell the kernel that it will be read front to back
    bool exclusive;   // when it is made: an error if there is something of that name
    enum q2_lock_mode lock;
    enum q2_locking locking;
};

// Opens an existing file. Errors as qemu-img words them: "Could not open 'x': No such
// file or directory"; on a lock conflict "Failed to get \"write\" lock" with the hint "Is
// another process using the image [x]?".
int q2_file_open(const char *path, const struct q2_file_options *options,
                 struct q2_io **out, struct q2_error *err);

// Opens path for reading and writing as a new, empty file: makes it, or empties a regular
// file that is there (after the write lock was taken). *made says that it was not there.
int q2_file_create(const char *path, const struct q2_file_options *options,
                   struct q2_io **out, bool *made, struct q2_error *err);

// For a target that failed: removes the file if made, else (a regular file that was there
// before and was emptied) empties it again; never touches devices. Best effort, no error.
void q2_file_abandon(struct q2_io *io, bool made);

// The open file's descriptor (stays owned by io), or -1 if io is no file.
int q2_file_descriptor(const struct q2_io *io);

// True if both are files of the system, and the same one.
bool q2_file_same(const struct q2_io *a, const struct q2_io *b);

// True if io is a block or character device.
bool q2_file_is_device(const struct q2_io *io);

#endif
