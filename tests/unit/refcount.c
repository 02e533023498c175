// SPDX-License-Identifier: MIT
// Refcount entries of every width, against a plain array.
#include "disk/refcount.h"

#include "test.h"

#define BLOCK 512U

static uint64_t entries_of(unsigned order)
{
    return (uint64_t)BLOCK * 8 >> order;
}

static void layout(void)
{
    uint8_t block[16] = {0};
    const struct {
        unsigned order;
        uint64_t index, value;
        const char *bytes;
    } cases[] = {
        {0, 9, 1, "\0\2\0\0\0\0\0\0"},
        {1, 5, 3, "\0\xc\0\0\0\0\0\0"},
        {2, 3, 10, "\0\xa0\0\0\0\0\0\0"},
        {3, 2, 200, "\0\0\xc8\0\0\0\0\0"},
        {4, 1, 0x102, "\0\0\1\2\0\0\0\0"},
        {5, 1, 0x1020304, "\0\0\0\0\1\2\3\4"},
        {6, 0, 0x102030405060708, "\1\2\3\4\5\6\7\10"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct q2_refcount_format *f = q2_refcount_format(cases[i].order);
        memset(block, 0, sizeof(block));
        f->set(block, cases[i].index, cases[i].value);
        ok(memcmp(block, cases[i].bytes, 8) == 0, "width %u: bytes", 1U << f->order);
        is_u64(f->get(block, cases[i].index), cases[i].value, "width %u: value",
               1U << f->order);
    }
}

static bool same(const struct q2_refcount_format *f, const void *block,
                 const uint64_t *model)
{
    for (uint64_t i = 0; i < entries_of(f->order); i++)
        if (f->get(block, i) != model[i])
            return false;
    return true;
}

// Random sets and fills do the same to a block as to an array; the bytes around stay.
static bool model_holds(const struct q2_refcount_format *f, uint64_t *seed)
{
    static uint64_t model[BLOCK * 8];
    uint8_t room[BLOCK + 2];
    uint8_t *block = room + 1;
    uint64_t n = entries_of(f->order);

    memset(model, 0, sizeof(model));
    memset(room, 0, sizeof(room));
    room[0] = room[BLOCK + 1] = 0xa5;
    for (unsigned round = 0; round < 300; round++) {
        uint64_t index = test_random(seed) % n;
        uint64_t count = round % 2 ? 1 : test_random(seed) % (n - index + 1);
        uint64_t value = test_random(seed) & f->max;
        if (round % 2)
            f->set(block, index, value);
        else
            q2_refcount_fill(f, block, index, count, value);
        for (uint64_t i = 0; i < count; i++)
            model[index + i] = value;
        if (!same(f, block, model))
            return false;
    }
    return room[0] == 0xa5 && room[BLOCK + 1] == 0xa5;
}

static uint64_t plain_next(const struct q2_refcount_format *f, const void *block,
                           uint64_t index, uint64_t limit, bool zero)
{
    while (index < limit && (f->get(block, index) == 0) != zero)
        index++;
    return index;
}

static uint64_t plain_run_end(const struct q2_refcount_format *f, const void *block,
                              uint64_t index, uint64_t limit)
{
    uint64_t value = f->get(block, index);
    while (index < limit && f->get(block, index) == value)
        index++;
    return index;
}

static bool searches_hold(const struct q2_refcount_format *f, uint64_t *seed)
{
    uint8_t block[BLOCK];
    uint64_t n = entries_of(f->order);

    for (unsigned round = 0; round < 400; round++) {
        // long runs of one kind, with some entries of the other in them
        memset(block, 0, sizeof(block));
        if (round % 2)
            q2_refcount_fill(f, block, 0, n, f->max);
        for (unsigned i = 0; i < round % 5; i++)
            f->set(block, test_random(seed) % n, round % 2 ? 0 : 1);
        uint64_t limit = test_random(seed) % (n + 1);
        uint64_t index = test_random(seed) % (limit + 1);
        if (q2_refcount_next_zero(f, block, index, limit) !=
                plain_next(f, block, index, limit, true) ||
            q2_refcount_next_used(f, block, index, limit) !=
                plain_next(f, block, index, limit, false))
            return false;
        if (index < limit && q2_refcount_run_end(f, block, index, limit) !=
                                 plain_run_end(f, block, index, limit))
            return false;
    }
    return true;
}

// Values whose bits could be taken for an entry that is zero.
static bool finds_no_false_zero(const struct q2_refcount_format *f)
{
    uint8_t block[BLOCK] = {0};
    uint64_t n = entries_of(f->order);
    uint64_t values[] = {1, f->max, (f->max >> 1) + 1,
                         f->max & UINT64_C(0x0100010001000100)};

    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        if (values[i] == 0)
            continue;
        q2_refcount_fill(f, block, 0, n, values[i]);
        if (q2_refcount_next_zero(f, block, 0, n) != n)
            return false;
        f->set(block, n - 1, 0);
        if (q2_refcount_next_zero(f, block, 0, n) != n - 1)
            return false;
    }
    return true;
}

int main(void)
{
    uint64_t seed = 1;

    layout();
    ok(q2_refcount_format(7) == NULL, "there is no width of 128 bits");
    for (unsigned order = 0; order <= 6; order++) {
        const struct q2_refcount_format *f = q2_refcount_format(order);
        unsigned width = 1U << order;
        is_u64(f->order, order, "width %u: order", width);
        is_u64(f->max, order == 6 ? UINT64_MAX : (UINT64_C(1) << width) - 1,
               "width %u: largest count", width);
        ok(model_holds(f, &seed), "width %u: set and fill are right", width);
        ok(searches_hold(f, &seed), "width %u: searches are right", width);
        ok(finds_no_false_zero(f), "width %u: only zero is zero", width);
    }
    return done_testing();
}
