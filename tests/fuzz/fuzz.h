// SPDX-License-Identifier: MIT
// Fuzzing: what the targets share. A target takes any bytes, and does with them what a
// command would do with a file that holds them, in memory alone. It ends the process when
// a promise is broken; the sanitizers do for the rest.
#ifndef Q2_TESTS_FUZZ_FUZZ_H
#define Q2_TESTS_FUZZ_FUZZ_H

#include "image/image.h"

// --- targets.c -----------------------------------------------------------------------

enum fuzz_form { FUZZ_IMAGE, FUZZ_TEXT, FUZZ_BYTES }; // what its input is, for mutations

struct fuzz_target {
    const char *name;
    void (*run)(const uint8_t *data, size_t n_bytes);
    enum fuzz_form form;
};

extern const struct fuzz_target fuzz_targets[]; // a row without a name is the last

const struct fuzz_target *fuzz_target_find(const char *name); // NULL: there is none

void fuzz_target_info(const uint8_t *data, size_t n_bytes);
void fuzz_target_read(const uint8_t *data, size_t n_bytes);
void fuzz_target_check(const uint8_t *data, size_t n_bytes);
void fuzz_target_vet(const uint8_t *data, size_t n_bytes);
void fuzz_target_repair(const uint8_t *data, size_t n_bytes);
void fuzz_target_undo(const uint8_t *data, size_t n_bytes);
void fuzz_target_snapshots(const uint8_t *data, size_t n_bytes);
void fuzz_target_amend(const uint8_t *data, size_t n_bytes);
void fuzz_target_bitmaps(const uint8_t *data, size_t n_bytes);
void fuzz_target_luks(const uint8_t *data, size_t n_bytes);
void fuzz_target_recover(const uint8_t *data, size_t n_bytes);
void fuzz_target_copy(const uint8_t *data, size_t n_bytes);
void fuzz_target_parts(const uint8_t *data, size_t n_bytes);
void fuzz_target_options(const uint8_t *data, size_t n_bytes);

// --- common.c ------------------------------------------------------------------------

// A promise is broken: says which, and aborts.
_Noreturn void fuzz_broken(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
// Our own surroundings fail: there is no memory, as a rule.
_Noreturn void fuzz_give_up(const char *what);

// The bytes as a file; closed by q2_io_close.
struct q2_io *fuzz_file(const uint8_t *data, size_t n_bytes);

enum fuzz_mode {
    FUZZ_DESCRIPTION, // as info
    FUZZ_READ,        // guest data, too
    FUZZ_METADATA,    // metadata are changed: snapshot, amend
    FUZZ_KEYS,        // the same, and the key is known
    FUZZ_WRITE,       // guest data are written
};

// As q2_disk_open does it. io stays the caller's. A backing file is never opened; an
// external data file is one of our own; encrypted images
// open by the passphrase "fuzz", if the header does not ask for more iterations than we
// have time for. Returns NULL where it is refused.
struct q2_image *fuzz_open(struct q2_io *io, enum fuzz_mode mode);
void fuzz_close(struct q2_image *img);
// What they are opened with; for amend.
const struct q2_secrets *fuzz_secrets(void);

// --- content.c -----------------------------------------------------------------------

// What an image says that its guests read: the active state, and the first snapshots.
#define FUZZ_MAX_STATES 4U
#define FUZZ_MAX_BLOCKS 256U

struct fuzz_block {
    uint64_t guest_offset;
    uint32_t n_bytes;
    bool readable;
    uint64_t hash;
};

struct fuzz_state {
    char *id;      // NULL: the active state
    bool readable; // it could be opened
    uint64_t size;
    unsigned n;
    struct fuzz_block blocks[FUZZ_MAX_BLOCKS];
};

struct fuzz_content {
    unsigned n_states, n_snapshots;
    struct fuzz_state states[FUZZ_MAX_STATES]; // [0] is the active one
};

// Reads what is stored, and some of what is not, up to a bound.
struct fuzz_content *fuzz_content_read(struct q2_io *io);
void fuzz_content_free(struct fuzz_content *c);

// Whoever changed the image tells what was lost.
struct fuzz_excuse {
    bool (*is_excused)(const void *opaque, unsigned state, const struct fuzz_block *b);
    const void *opaque;
};

// Does all that could be read before read the same now? If not, why says where. excuse
// NULL: nothing may be lost, nor a snapshot be gone.
bool fuzz_content_same(struct q2_io *io, const struct fuzz_content *before,
                       const struct fuzz_excuse *excuse, char why[512]);

// --- operations.c --------------------------------------------------------------------

// The last bytes of an input say what is done to the image before them.
#define FUZZ_OPERATION_BYTES 16U

struct fuzz_operation {
    enum fuzz_mode mode;
    bool changes; // what a state reads; else all states stay as they are
    int (*run)(struct q2_image *img, const uint8_t arguments[3], struct q2_error *err);
};

// Does what the end of the input says, by operations of the list, each on an image that
// is opened anew. An image that was sound stays that, whatever an operation says; one
// that is damaged is used as it is, or repaired first.
void fuzz_operate(const uint8_t *data, size_t n_bytes, const struct fuzz_operation *list,
                  unsigned n);

// Does a check find nothing? If not, why says what it finds.
bool fuzz_is_sound(struct q2_io *io, char why[512]);
// The same, and of the file, too, once it has grown.
bool fuzz_stays_sound(struct q2_io *io, char why[512]);

// --- mutate.c ------------------------------------------------------------------------

// Changes an image as one who knows the format would: entries and fields, by values that
// mean something.
size_t fuzz_mutate_image(uint8_t *data, size_t n_bytes, size_t max_bytes, unsigned seed);

#endif
