// SPDX-License-Identifier: MIT
// The fault injector: calls fail when they should, and its states are just what a power
// cut may leave.
#include "io/fault.h"

#include <errno.h>

#include "io/memory.h"
#include "test.h"

#define SECTOR Q2_FAULT_SECTOR

static struct q2_io *below, *fault;
static uint8_t buf[16 * SECTOR];

static void start(size_t n_sectors, uint8_t fill, size_t max_bytes)
{
    struct q2_error err = Q2_ERROR_INIT;
    memset(buf, fill, sizeof(buf));
    if (q2_memory_open("memory", buf, n_sectors * SECTOR, &below, &err) < 0 ||
        q2_fault_open(below, max_bytes, &fault, &err) < 0)
        abort();
}

static void end(void)
{
    q2_io_close(fault);
    q2_io_close(below);
}

static int put(uint64_t offset, size_t n, uint8_t fill)
{
    struct q2_error err = Q2_ERROR_INIT;
    memset(buf, fill, n);
    return q2_io_write(fault, offset, buf, n, &err);
}

static void flush(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    if (q2_io_flush(fault, &err) < 0)
        abort();
}

static bool all(void *opaque, size_t number, uint64_t sector)
{
    (void)opaque;
    (void)number;
    (void)sector;
    return true;
}

static bool none(void *opaque, size_t number, uint64_t sector)
{
    return !all(opaque, number, sector);
}

static bool odd_sectors(void *opaque, size_t number, uint64_t sector)
{
    (void)opaque;
    (void)number;
    return sector % 2 == 1;
}

// The first byte of each sector, as letters; '.' is zero, "|" the end.
static void is_state(size_t n_calls, q2_fault_keep *keep, const char *want,
                     const char *what)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *state;
    uint64_t size = 0;
    char got[64] = "";
    if (q2_fault_state(fault, n_calls, keep, NULL, &state, &err) < 0 ||
        q2_io_get_size(state, &size, &err) < 0 ||
        q2_io_read(state, 0, buf, (size_t)size, &err) < 0)
        abort();
    for (size_t i = 0; i * SECTOR < size; i++) {
        got[i] = buf[i * SECTOR] ? (char)buf[i * SECTOR] : '.';
        got[i + 1] = '|';
        if (buf[i * SECTOR] != buf[i * SECTOR + SECTOR - 1])
            got[i] = '?';
    }
    is_str(got, want, "%s", what);
    q2_io_close(state);
}

static void test_states(void)
{
    start(4, 'a', 1 << 20);
    put(0, 2 * SECTOR, 'b');
    flush();
    put(SECTOR, 4 * SECTOR, 'c');
    put(0, SECTOR, 'd');
    is_state(0, all, "aaaa|", "before the first call");
    is_state(1, none, "aaaa|", "a call that was not flushed may be lost");
    is_state(1, all, "bbaa|", "or be there");
    is_state(1, odd_sectors, "abaa|", "or be torn");
    is_state(2, none, "bbaa|", "what was flushed is there");
    is_state(4, none, "bbaa|", "and stays");
    is_state(3, all, "bcccc|", "a write behind the end makes the file longer");
    is_state(4, odd_sectors, "bbcac|", "and leaves what was there where it is torn");
    is_state(4, all, "dcccc|", "all of it");
    struct q2_error err = Q2_ERROR_INIT;
    uint64_t size;
    q2_io_get_size(below, &size, &err);
    is_u64(size, 5 * SECTOR, "the file itself has the new size");
    end();
}

static void test_sizes(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    start(4, 'a', 1 << 20);
    is_int(q2_io_set_size(fault, 2 * SECTOR, &err), 0, "made shorter");
    is_int(q2_io_set_size(fault, 3 * SECTOR, &err), 0, "made longer");
    is_int(q2_io_zero(fault, 0, SECTOR, true, &err), 0, "zeroed");
    is_int(q2_io_discard(fault, SECTOR, 8 * SECTOR, &err), 0, "discarded");
    is_state(4, none, "aaaa|", "nothing of it");
    is_state(1, all, "aa|", "shorter");
    is_state(2, all, "aa.|", "and longer, with zeros");
    is_state(3, all, ".a.|", "and zeroed");
    is_state(4, all, "...|", "and discarded, no further than the file goes");
    is_state(0, all, "aaaa|", "states do not change one another");
    end();
}

static void test_unaligned(void)
{
    start(2, 'a', 1 << 20);
    put(SECTOR - 1, 2, 'b');
    is_state(1, odd_sectors, "a?|", "sectors are the file's, not the call's");
    is_state(1, all, "??|", "a byte of each");
    end();
}

static void test_failing(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    const struct q2_fault_rule third = {.n_pass = 2, .code = -ENOSPC, .n_torn = 1};
    start(4, 'a', 1 << 20);
    q2_fault_arm(fault, &third);
    is_int(put(0, SECTOR, 'b'), 0, "the first call passes");
    is_int(q2_io_flush(fault, &err), 0, "so does the second");
    is_int(put(2 * SECTOR, 2 * SECTOR, 'c'), -ENOSPC, "the third fails");
    is_state(3, all, "baca|", "torn, as was asked");
    is_state(3, none, "baaa|", "or not done at all");
    is_int(put(SECTOR, SECTOR, 'd'), 0, "the fourth passes again");
    is_u64(q2_fault_n_failed(fault), 1, "one has failed");

    const struct q2_fault_rule flushes = {
        .code = -EIO, .forever = true, .kinds = 1U << Q2_FAULT_FLUSH};
    q2_fault_arm(fault, &flushes);
    is_int(put(0, SECTOR, 'e'), 0, "what does not count passes");
    is_int(q2_io_flush(fault, &err), -EIO, "a flush fails");
    has_str(err.message, "Could not flush", "and says so");
    is_int(q2_io_flush(fault, &err), -EIO, "and fails again");
    is_state(7, none, "baaa|", "a flush that failed makes nothing durable");
    const struct q2_fault_rule reads = {.code = -EIO, .kinds = 1U << Q2_FAULT_READ};
    q2_fault_arm(fault, &reads);
    is_int(q2_io_read(fault, 0, buf, SECTOR, &err), -EIO, "a read fails");
    is_int(q2_io_read(fault, 0, buf, SECTOR, &err), 0, "once");
    const struct q2_fault_rule liar = {.forever = true, .kinds = 1U << Q2_FAULT_FLUSH};
    q2_fault_arm(fault, &liar);
    is_int(q2_io_flush(fault, &err), 0, "a flush may also lie");
    is_state(8, none, "baaa|", "and nothing is durable");
    q2_fault_arm(fault, NULL);
    is_int(q2_io_flush(fault, &err), 0, "without a rule nothing fails");
    is_state(9, none, "edca|", "and what is flushed is there");
    end();
}

static void test_bounds(void)
{
    size_t n;
    start(4, 'a', 4 * SECTOR);
    is_int(put(0, SECTOR, 'b'), 0, "fits");
    is_int(put(0, SECTOR, 'c'), 0, "fits, with what it replaces");
    is_int(put(0, SECTOR, 'd'), -ENOMEM, "fits no more");
    flush();
    is_int(put(SECTOR, SECTOR, 'e'), 0, "what was flushed makes room");
    is_u64(q2_fault_n_forgotten(fault), 3, "three calls were forgotten");
    q2_fault_calls(fault, &n);
    is_u64(n, 1, "one is there");
    is_state(1, none, "caaa|", "forgetting does not change the states");
    is_state(1, all, "ceaa|", "either of them");
    flush();
    q2_fault_forget(fault);
    q2_fault_calls(fault, &n);
    is_u64(n, 0, "forgotten");
    end();
    start(4, 'a', 0);
    is_int(put(0, 2 * SECTOR, 'b'), 0, "without a record nothing is kept");
    q2_fault_calls(fault, &n);
    is_u64(n, 0, "no calls");
    end();
}

int main(void)
{
    test_states();
    test_sizes();
    test_unaligned();
    test_failing();
    test_bounds();
    return done_testing();
}
