// SPDX-License-Identifier: MIT
// The overlay: reads as if written, leaves what is below alone, and its log does to a
// copy of the file what was done to the overlay.
#include "io/overlay.h"

#include "io/memory.h"
#include "test.h"

#define SIZE 50000U

static uint64_t seed = 4711;

static size_t next_random(size_t limit)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (size_t)((seed >> 33) % limit);
}

static struct q2_io *memory_with(const uint8_t *bytes, size_t n)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *io = NULL;
    is_int(q2_memory_open("memory", bytes, n, &io, &err), 0, "a memory file opens");
    return io;
}

static void same(struct q2_io *io, const uint8_t *want, size_t n, const char *what)
{
    struct q2_error err = Q2_ERROR_INIT;
    uint8_t *got = calloc(1, n);
    uint64_t size = 0;
    is_int(q2_io_read(io, 0, got, n, &err), 0, "%s can be read", what);
    ok(memcmp(got, want, n) == 0, "%s holds the right bytes", what);
    q2_io_get_size(io, &size, &err);
    is_u64(size, n, "%s has the right size", what);
    free(got);
}

static void replay(struct q2_io *overlay, struct q2_io *to)
{
    struct q2_error err = Q2_ERROR_INIT;
    size_t n, n_flushes = 0;
    const struct q2_overlay_entry *log = q2_overlay_log(overlay, &n);
    bool done = n > 0;
    for (size_t i = 0; i < n; i++) {
        if (log[i].kind == Q2_OVERLAY_WRITE)
            done &=
                q2_io_write(to, log[i].offset, log[i].data, log[i].n_bytes, &err) == 0;
        else if (log[i].kind == Q2_OVERLAY_SET_SIZE)
            done &= q2_io_set_size(to, log[i].offset, &err) == 0;
        else
            n_flushes++;
    }
    ok(done, "the log can be done to a file");
    is_u64(n_flushes, 1, "two flushes without a write between them are one");
}

// Writes to one sector are one, with what is between them; a flush, another sector and a
// write that reaches into the next one begin anew.
static void one_write_a_sector(void)
{
    static const struct {
        uint64_t offset;
        size_t n_bytes;
    } want[] = {{516, 36}, {1024, 1}, {0, 0}, {1025, 1}, {1500, 100}, {1537, 1}};
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *overlay = NULL, *below;
    uint8_t bytes[4096], more[100];
    size_t n;
    memset(bytes, 7, sizeof(bytes));
    memset(more, 8, sizeof(more));
    below = memory_with(bytes, sizeof(bytes));
    is_int(q2_overlay_open(below, &overlay, &err), 0, "an overlay opens");
    q2_io_write(overlay, 544, more, 8, &err);
    q2_io_write(overlay, 516, more, 8, &err);
    q2_io_write(overlay, 1024, more, 1, &err);
    q2_io_flush(overlay, &err);
    q2_io_write(overlay, 1025, more, 1, &err);
    q2_io_write(overlay, 1500, more, 100, &err);
    q2_io_write(overlay, 1537, more, 1, &err);
    const struct q2_overlay_entry *log = q2_overlay_log(overlay, &n);
    is_u64(n, sizeof(want) / sizeof(*want), "so many entries are in the log");
    for (size_t i = 0; i < n && i < sizeof(want) / sizeof(*want); i++) {
        is_u64(log[i].offset, want[i].offset, "entry %zu: offset", i);
        is_u64(log[i].n_bytes, want[i].n_bytes, "entry %zu: length", i);
    }
    ok(log[0].data[0] == 8 && log[0].data[8] == 7 && log[0].data[28] == 8,
       "what is between two writes stays");
    q2_io_close(overlay);
    q2_io_close(below);
}

int main(void)
{
    one_write_a_sector();
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *overlay = NULL;
    uint8_t *before = calloc(1, SIZE), *after = calloc(1, SIZE + 10000);
    for (size_t i = 0; i < SIZE; i++)
        before[i] = after[i] = (uint8_t)next_random(256);
    struct q2_io *below = memory_with(before, SIZE), *copy = memory_with(before, SIZE);

    is_int(q2_overlay_open(below, &overlay, &err), 0, "an overlay opens");
    bool written = true;
    for (unsigned i = 0; i < 100; i++) {
        size_t n = next_random(i % 10 ? 20 : 9000) + 1, at = next_random(SIZE - n);
        for (size_t k = at; k < at + n; k++)
            after[k] = (uint8_t)next_random(256);
        written &= q2_io_write(overlay, at, after + at, n, &err) == 0;
    }
    ok(written, "writes to the overlay succeed");
    q2_io_flush(overlay, &err);
    q2_io_flush(overlay, &err);
    // Cut, then grown: what was below the cut must not come back.
    is_int(q2_io_set_size(overlay, 30000, &err), 0, "it can be cut");
    memset(after + 30000, 0, SIZE + 10000 - 30000);
    is_int(q2_io_write(overlay, SIZE + 9999, "x", 1, &err), 0, "and grown by a write");
    after[SIZE + 9999] = 'x';

    same(overlay, after, SIZE + 10000, "the overlay");
    same(below, before, SIZE, "the file below");
    replay(overlay, copy);
    same(copy, after, SIZE + 10000, "the file that the log was done to");
    q2_io_close(overlay);
    q2_io_close(below);
    q2_io_close(copy);
    free(before);
    free(after);
    return done_testing();
}
