// SPDX-License-Identifier: MIT
// An image in memory, under a fault injector, with a raw backing file or without.
#ifndef Q2_TESTS_CRASH_FIXTURE_H
#define Q2_TESTS_CRASH_FIXTURE_H

#include "image/crypt.h"
#include "image/image.h"
#include "image/runtime.h"
#include "io/fault.h"

struct fixture {
    char name[256];
    struct q2_io *memory;
    struct q2_io *fault;   // over memory
    struct q2_io *backing; // NULL: none
    struct q2_runtime runtime;
};

struct recipe {
    uint32_t version, cluster_bits, refcount_order;
    uint64_t size;
    bool lazy_refcounts, backing, extended_l2;
    // Guest data behind the image, in the same file, so that a cut comes to both.
    bool data_file, data_file_raw;
    enum q2_crypt_method encryption;
};

// Ends the program: what is wrong is the test's surroundings, not what is tested.
_Noreturn void give_up(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

// The image file at path and its raw backing file, if it names one. max_record: bytes of
// changes that are kept for states.
void fixture_load(struct fixture *f, const char *path, size_t max_record);
// A new, empty image; the backing file is three quarters as long as the disk.
void fixture_make(struct fixture *f, const struct recipe *r, size_t max_record);
// How the recipe's image is encrypted, with as few iterations as there may be; NULL: not.
// f learns the passphrase. Good until the next call.
const struct q2_crypt_options *fixture_encryption(struct fixture *f,
                                                  const struct recipe *r);
void fixture_clear(struct fixture *f);

// Writes the image (and the backing file, when it was made here) to a file.
void fixture_save(const struct fixture *f, struct q2_io *image, const char *path);
void save_bytes(const char *path, const void *bytes, size_t n_bytes);

// Opens the image in io, which stays the caller's (as the backing file stays f's).
int fixture_open(const struct fixture *f, struct q2_io *io, bool writable,
                 struct q2_image **out, struct q2_error *err);
// Chooses what is asked of the image for this run; 0: nothing.
void fixture_choose_runtime(struct fixture *f, unsigned number);
// The data file of an image that has one, in io with it. The caller closes it.
struct q2_io *fixture_data_file(struct q2_io *io);
// Closes it and nothing else.
void fixture_close(struct q2_image *img);

#endif
