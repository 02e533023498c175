// SPDX-License-Identifier: MIT
// Zero detection at every length, alignment and place of the odd byte.
#include "base/zero.h"

#include "test.h"

#define MAX 1100

// Every length up to MAX, at several alignments, with one byte set at every place.
static bool finds_every_byte(size_t align)
{
    static unsigned char room[MAX + 64];
    unsigned char *p = room + align;

    for (size_t n = 0; n <= MAX; n++) {
        if (!q2_is_zero(p, n))
            return false;
        // what is around does not count
        p[n] = 0xff;
        if (align)
            p[-1] = 0xff;
        if (!q2_is_zero(p, n))
            return false;
        p[n] = 0;
        if (align)
            p[-1] = 0;
    }
    for (size_t n = 1; n <= MAX; n += n < 300 ? 1 : 37)
        for (size_t i = 0; i < n; i++) {
            p[i] = (unsigned char)(1U << (i % 8));
            bool zero = q2_is_zero(p, n);
            p[i] = 0;
            if (zero)
                return false;
        }
    return true;
}

static void is_zero(void)
{
    for (size_t align = 0; align < 33; align += 1 + align / 4)
        ok(finds_every_byte(align), "every byte counts, at alignment %zu", align);
}

static void run_of(const char *grains, size_t tail, size_t want, bool want_zero)
{
    unsigned char buf[64 * 8] = {0};
    size_t n = 0;
    bool zero = !want_zero;

    for (; grains[n]; n++)
        if (grains[n] == 'x')
            buf[n * 8 + n % 8] = 1;
    size_t n_bytes = n * 8 - (tail ? 8 - tail : 0);
    is_u64(q2_zero_run(buf, n_bytes, 8, &zero), want, "run of \"%s\", last grain %zu",
           grains, tail ? tail : 8);
    is_int(zero, want_zero, "is of the right kind");
}

static void runs(void)
{
    run_of("0", 0, 8, true);
    run_of("x", 0, 8, false);
    run_of("0000", 0, 32, true);
    run_of("xxxx", 0, 32, false);
    run_of("000x", 0, 24, true);
    run_of("xxx0", 0, 24, false);
    run_of("0x0x", 0, 8, true);
    run_of("x0x0", 0, 8, false);
    run_of("000", 1, 17, true);
    run_of("00x", 3, 19 - 3, true);
    run_of("x0", 1, 8, false);
    run_of("0", 5, 5, true);
}

int main(void)
{
    is_zero();
    runs();
    return done_testing();
}
