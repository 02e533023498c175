// SPDX-License-Identifier: MIT
// Big-endian access and checked arithmetic.
#include "base/endian.h"

#include "base/checked.h"
#include "test.h"

static void endian(void)
{
    uint8_t buf[17] = {0};

    q2_store_be16(buf + 1, 0x0102);
    ok(memcmp(buf, "\0\1\2\0", 4) == 0, "16 bits, big end first, unaligned");
    is_u64(q2_load_be16(buf + 1), 0x0102, "and back");
    q2_store_be32(buf + 3, 0xfffefdfcU);
    ok(memcmp(buf + 3, "\xff\xfe\xfd\xfc\0", 5) == 0, "32 bits");
    is_u64(q2_load_be32(buf + 3), 0xfffefdfcU, "and back");
    q2_store_be64(buf + 7, UINT64_C(0x0102030405060708));
    ok(memcmp(buf + 7, "\1\2\3\4\5\6\7\10\0", 9) == 0, "64 bits");
    is_u64(q2_load_be64(buf + 7), UINT64_C(0x0102030405060708), "and back");
}

static void checked(void)
{
    uint64_t out = 42;

    ok(q2_add_u64(UINT64_MAX - 1, 1, &out) && out == UINT64_MAX, "a sum that just fits");
    out = 42;
    ok(!q2_add_u64(UINT64_MAX, 1, &out) && out == 42,
       "one that does not changes nothing");
    ok(q2_mul_u64(UINT64_C(1) << 32, UINT32_MAX, &out) && out == UINT64_MAX - UINT32_MAX,
       "a product that fits");
    out = 42;
    ok(!q2_mul_u64(UINT64_C(1) << 32, UINT64_C(1) << 32, &out) && out == 42,
       "one that does not");
    is_u64(q2_align_down(4097, 4096), 4096, "align down");
    is_u64(q2_align_up(4097, 4096), 8192, "align up");
    is_u64(q2_align_up(4096, 4096), 4096, "aligned already");
    ok(q2_is_aligned(8192, 4096) && !q2_is_aligned(8193, 4096), "is aligned");
    ok(q2_is_power_of_2(1) && q2_is_power_of_2(UINT64_C(1) << 63), "powers of two");
    ok(!q2_is_power_of_2(0) && !q2_is_power_of_2(6), "no powers of two");
    is_u64(q2_div_round_up(UINT64_MAX, 2), UINT64_C(1) << 63, "division of the largest");
    is_u64(q2_div_round_up(0, 7), 0, "division of zero");
    is_u64(q2_log2(UINT64_C(1) << 40), 40, "log2");
}

int main(void)
{
    endian();
    checked();
    return done_testing();
}
