// SPDX-License-Identifier: MIT
// The states that a power cut may leave.
#include "tests/crash/cuts.h"

#include "tests/unit/test.h"

// States of one call in which sectors are there or not by chance.
#define N_RANDOM 3

// Which of the unflushed sectors are there.
struct choice {
    enum { NONE, ALL, ALONE, SOME } kind;
    size_t last; // call
    uint64_t random;
    unsigned percent;
};

static bool keep(void *opaque, size_t call, uint64_t sector)
{
    struct choice *c = opaque;
    (void)sector;
    if (c->kind != SOME)
        return c->kind == ALL || (c->kind == ALONE && call == c->last);
    return (test_random(&c->random) >> 33) % 100 < c->percent;
}

static bool try_state(struct cuts *c, size_t n_calls, struct choice choice)
{
    static const char *const names[] = {"none", "all", "the last alone", "some"};
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *state;
    choice.last = n_calls - 1;
    c->call = n_calls - 1;
    c->kept = names[choice.kind];
    if (q2_fault_state(c->fault, n_calls, keep, &choice, &state, &err) < 0)
        give_up("%s", err.message);
    bool good = c->judge(c->opaque, state);
    q2_io_close(state);
    return good;
}

static bool try_call(struct cuts *c, const struct q2_fault_call *calls, size_t i)
{
    static const unsigned percents[N_RANDOM] = {50, 85, 15};
    if (calls[i].kind == Q2_FAULT_FLUSH)
        return try_state(c, i + 1, (struct choice){.kind = NONE});
    bool good = try_state(c, i + 1, (struct choice){.kind = ALL}) &&
                try_state(c, i + 1, (struct choice){.kind = ALONE});
    for (int k = 0; k < N_RANDOM && good; k++)
        good = try_state(c, i + 1,
                         (struct choice){.kind = SOME,
                                         .random = test_random(&c->random) | 1,
                                         .percent = percents[k]});
    return good;
}

bool cuts_try(struct cuts *c, size_t max_calls)
{
    size_t n;
    const struct q2_fault_call *calls = q2_fault_calls(c->fault, &n);
    size_t stride = n / max_calls + 1;
    size_t turn = (size_t)(test_random(&c->random) >> 20) % stride;
    for (size_t i = 0; i < n; i++) {
        bool edge = calls[i].kind == Q2_FAULT_FLUSH || i + 1 == n ||
                    calls[i + 1].kind == Q2_FAULT_FLUSH;
        if ((edge || i % stride == turn) && !try_call(c, calls, i))
            return false;
    }
    return n == 0 || try_state(c, n, (struct choice){.kind = NONE});
}
