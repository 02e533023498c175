// SPDX-License-Identifier: MIT
// Target: undo files. The one of a repair takes it back, to the last byte, once. What the
// end of the input makes of it and of the image is refused, and then nothing is written,
// or leaves an image as long as it was.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/checked.h"
#include "base/endian.h"
#include "check/undo.h"
#include "io/memory.h"
#include "ops/check.h"
#include "tests/fuzz/fuzz.h"

#define MAX_BYTES (UINT64_C(8) << 20) // a repair may make much of a small input

struct bytes {
    uint8_t *at;
    size_t n;
};

static struct bytes all_of(struct q2_io *io)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct bytes b = {NULL, 0};
    uint64_t size;
    if (q2_io_get_size(io, &size, &err) < 0)
        fuzz_give_up(err.message);
    b.n = q2_to_size(q2_min_u64(size, MAX_BYTES));
    b.at = malloc(b.n + 1);
    if (!b.at || q2_io_read(io, 0, b.at, b.n, &err) < 0)
        fuzz_give_up("no memory");
    return b;
}

static struct q2_io *file_of(const struct bytes *b)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *io;
    if (q2_memory_open("undo", b->at, b->n, &io, &err) < 0)
        fuzz_give_up(err.message);
    return io;
}

static bool holds(struct q2_io *io, const uint8_t *data, size_t n_bytes)
{
    struct bytes b = all_of(io);
    bool same = b.n == n_bytes && memcmp(b.at, data, n_bytes) == 0;
    free(b.at);
    return same;
}

struct repair {
    struct q2_io *image, *undo;
};

static void save(void *opaque, const struct q2_plan *plan,
                 const struct q2_check_edits *edits)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct repair *r = opaque;
    (void)edits;
    if (q2_undo_write(r->undo, r->image, plan->overlay, &err) < 0)
        fuzz_give_up(err.message);
}

// Repairs the image; *undo is what takes it back, empty if nothing was changed.
static void repair(struct q2_io *image, const uint8_t *data, size_t n_bytes,
                   struct bytes *undo)
{
    struct q2_error err = Q2_ERROR_INIT;
    const struct bytes none = {NULL, 0};
    struct repair r = {image, file_of(&none)};
    const struct q2_check_request request = {.format = "qcow2",
                                             .repair = true,
                                             .mode = Q2_REPAIR_MODE_ALL,
                                             .planned = save,
                                             .opaque = &r};
    struct q2_check_report report;
    if (q2_check_file(image, &request, NULL, &report, &err) == 0)
        q2_check_clear(&report);
    *undo = all_of(r.undo);
    if (holds(image, data, n_bytes))
        undo->n = 0;
    q2_io_close(r.undo);
}

static void require_old(struct q2_io *image, const struct bytes *undo,
                        const uint8_t *data, size_t n_bytes)
{
    struct q2_error err = Q2_ERROR_INIT, again = Q2_ERROR_INIT;
    struct q2_io *file = file_of(undo);
    if (q2_undo_read(file, image, &err) < 0)
        fuzz_broken("a repair is not taken back: %s", err.message);
    if (!holds(image, data, n_bytes))
        fuzz_broken("undo gives another image back than there was");
    if (q2_undo_read(file, image, &again) != -EALREADY)
        fuzz_broken("undo has something to do when it was done");
    q2_io_close(file);
}

// What three bytes of the input do to a file.
static void change(struct bytes *b, const uint8_t order[4])
{
    static const uint64_t values[] = {
        0, 1, 511, 512, UINT64_C(1) << 20, INT64_MAX, INT64_MAX - 511, UINT64_MAX};
    size_t at = b->n > 0 ? (size_t)(order[1] << 8 | order[2]) % b->n : 0;
    if (b->n < Q2_UNDO_HEADER_BYTES + Q2_UNDO_RECORD_BYTES)
        return;
    switch (order[0] % 4) {
    case 0:
        b->at[at] ^= order[3];
        break;
    case 1: // numbers of the header, and of the first record
        at = 8 + at % (Q2_UNDO_HEADER_BYTES + 8 - 8 + 1);
        q2_store_be64(b->at + at, values[order[3] % 8]);
        break;
    case 2:
        b->n -= at % 1024 < b->n ? at % 1024 : 0;
        break;
    default: // one number more or less
        at &= ~(size_t)3;
        if (at + 4 <= b->n)
            q2_store_be32(b->at + at, q2_load_be32(b->at + at) + order[3] - 128);
    }
}

// So that it is believed.
static void sum_up(struct bytes *b)
{
    if (b->n < Q2_UNDO_TRAILER_BYTES)
        return;
    size_t n = b->n - Q2_UNDO_TRAILER_BYTES;
    q2_store_be32(b->at + n, (uint32_t)crc32_z(crc32(0, NULL, 0), b->at, n));
}

// undo was changed, or the image.
static void try_other(const struct bytes *undo, const struct bytes *image)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *file = file_of(undo), *io = file_of(image);
    uint64_t size;
    if (q2_undo_read(file, io, &err) < 0) {
        if (!holds(io, image->at, image->n))
            fuzz_broken("undo refuses (%s), and has written", err.message);
        if (err.message[0] == '\0')
            fuzz_broken("undo refuses without a word");
    } else if (q2_io_get_size(io, &size, &err) < 0 ||
               size != q2_load_be64(undo->at + 16) || size > image->n) {
        fuzz_broken("undo leaves an image of another length");
    }
    q2_io_close(file);
    q2_io_close(io);
}

void fuzz_target_undo(const uint8_t *data, size_t n_bytes)
{
    struct bytes undo, repaired;
    if (n_bytes <= FUZZ_OPERATION_BYTES)
        return;
    n_bytes -= FUZZ_OPERATION_BYTES;
    const uint8_t *orders = data + n_bytes;
    struct q2_io *image = fuzz_file(data, n_bytes);
    repair(image, data, n_bytes, &undo);
    repaired = all_of(image);
    if (undo.n > 0 && undo.n < MAX_BYTES && repaired.n < MAX_BYTES) {
        require_old(image, &undo, data, n_bytes);
        for (unsigned i = 0; i < FUZZ_OPERATION_BYTES / 4; i++) {
            const uint8_t *order = orders + (size_t)4 * i;
            change(order[0] & 0x40 ? &repaired : &undo, order);
            if (!(order[0] & 0x80))
                sum_up(&undo);
            try_other(&undo, &repaired);
        }
    }
    free(undo.at);
    free(repaired.at);
    q2_io_close(image);
}
