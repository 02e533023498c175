// SPDX-License-Identifier: MIT
// Guest data that is kept in another form, a sector at a time: requests of any length are
// widened, and what is around them stays.
#include "image/disk.h"

#include "base/checked.h"
#include "io/memory.h"
#include "test.h"

#define SECTOR 512U
#define SIZE (16U * SECTOR)

static unsigned n_unaligned;

// The form: every byte is changed by its sector's guest and host offset.
static void turn(uint64_t guest_offset, uint64_t host_offset, uint8_t *buf,
                 size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++)
        buf[i] ^= (uint8_t)(0x5a + (guest_offset + i) / SECTOR * 3 +
                            (host_offset + i) / SECTOR * 7);
}

static void look(const struct q2_disk *d, uint64_t guest_offset, uint64_t host_offset,
                 size_t n_bytes)
{
    n_unaligned += !q2_is_aligned(guest_offset, d->data_align) ||
                   !q2_is_aligned(host_offset, d->data_align) ||
                   !q2_is_aligned(n_bytes, d->data_align) || n_bytes == 0;
}

static int load(struct q2_disk *d, uint64_t guest_offset, uint64_t host_offset, void *buf,
                size_t n_bytes, struct q2_error *err)
{
    look(d, guest_offset, host_offset, n_bytes);
    int ret = q2_io_read(d->data, host_offset, buf, n_bytes, err);
    turn(guest_offset, host_offset, buf, n_bytes);
    return ret;
}

static int store(struct q2_disk *d, uint64_t guest_offset, uint64_t host_offset,
                 const void *buf, size_t n_bytes, struct q2_error *err)
{
    uint8_t copy[SIZE];
    look(d, guest_offset, host_offset, n_bytes);
    memcpy(copy, buf, n_bytes);
    turn(guest_offset, host_offset, copy, n_bytes);
    return q2_io_write(d->data, host_offset, copy, n_bytes, err);
}

static void release(struct q2_disk *d)
{
    (void)d;
}

static const struct q2_disk_ops ops = {
    .format = "turned", .load = load, .store = store, .release = release};

static struct q2_disk open_disk(uint32_t align)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_disk d = {.ops = &ops, .data_align = align, .size = SIZE};
    if (q2_memory_open("memory", NULL, 0, &d.file, &err) < 0)
        abort();
    d.data = d.file;
    return d;
}

// Every start and length around two borders of sectors, guest and host apart.
static void any_request(uint32_t align)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_disk d = open_disk(align);
    const uint64_t shift = 4 * SECTOR; // of host offsets
    static const size_t starts[] = {0, 1, 511, 512, 513, 1000, 1024};
    static const size_t lengths[] = {1, 2, 511, 512, 513, 1023, 1024, 1025, 2048, 3000};
    uint8_t model[SIZE], got[SIZE];
    unsigned n_wrong = 0, value = 0;
    memset(model, 0x11, sizeof(model));
    n_unaligned = 0;
    bool good = q2_disk_store(&d, 0, shift, model, SIZE - shift, &err) == 0;
    for (size_t i = 0; i < sizeof(starts) / sizeof(*starts); i++)
        for (size_t k = 0; k < sizeof(lengths) / sizeof(*lengths); k++) {
            size_t at = starts[i], n = lengths[k];
            memset(model + at, (int)(++value % 251), n);
            good = good && q2_disk_store(&d, at, shift + at, model + at, n, &err) == 0 &&
                   q2_disk_load(&d, at, shift + at, got, n, &err) == 0;
            n_wrong += memcmp(got, model + at, n) != 0;
            good = good && q2_disk_load(&d, 0, shift, got, SIZE - shift, &err) == 0;
            n_wrong += memcmp(got, model, SIZE - shift) != 0;
        }
    ok(good, "grain %u: no error", (unsigned)align);
    is_u64(n_wrong, 0, "grain %u: the rest stays", (unsigned)align);
    is_u64(n_unaligned, 0, "grain %u: the form sees whole sectors", (unsigned)align);
    q2_disk_close(&d);
}

// In another form they are none.
static void zeros_are_written(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_disk d = open_disk(SECTOR);
    uint8_t zeros[2 * SECTOR] = {0}, got[2 * SECTOR];
    const struct q2_write w = {.n_bytes = sizeof(zeros), .fresh = true};
    ok(q2_disk_write_data(&d, &w, zeros, SECTOR, &err) == 0 &&
           q2_io_read(d.data, 0, got, sizeof(got), &err) == 0 && got[0] != 0 &&
           got[SECTOR] != 0,
       "zeros are written where they have another form");
    ok(q2_disk_load(&d, 0, 0, got, sizeof(got), &err) == 0 &&
           memcmp(got, zeros, sizeof(zeros)) == 0,
       "and come back");
    q2_disk_close(&d);
}

int main(void)
{
    any_request(1);
    any_request(SECTOR);
    zeros_are_written();
    return done_testing();
}
