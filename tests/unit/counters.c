// SPDX-License-Identifier: MIT
// Sparse counters against a plain array, with counts of every width.
#include "base/counters.h"

#include "test.h"

#define SPAN 100000U

static uint64_t seed = 20261123;

static uint64_t next_random(uint64_t limit)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (seed >> 33) % limit;
}

// Adds random runs to both; amounts from 1 to beyond 32 bits.
static void fill(struct q2_counters *c, uint64_t *model)
{
    static const uint64_t amounts[] = {1, 1, 1, 2, 300, UINT64_C(1) << 33};
    struct q2_error err = Q2_ERROR_INIT;
    bool added = true;
    for (unsigned i = 0; i < 400; i++) {
        uint64_t start = next_random(SPAN), n = next_random(i % 8 ? 70 : 20000) + 1;
        uint64_t amount = amounts[next_random(i % 5 ? 3 : 6)];
        n = start + n > SPAN ? SPAN - start : n;
        added &= q2_counters_add(c, start, n, amount, &err) == 0;
        for (uint64_t k = start; k < start + n; k++)
            model[k] += amount;
    }
    ok(added, "all runs are added");
}

static void same_as_model(struct q2_counters *c, const uint64_t *model)
{
    unsigned n_wrong = 0;
    for (uint64_t i = 0; i < SPAN; i++)
        n_wrong += q2_counters_get(c, i) != model[i];
    is_u64(n_wrong, 0, "every counter is as in the model");

    uint64_t at = 0, start, n, value, seen = 0;
    n_wrong = 0;
    while (q2_counters_next(c, at, &start, &n, &value)) {
        for (uint64_t i = at; i < start; i++)
            n_wrong += model[i] != 0;
        for (uint64_t i = start; i < start + n; i++)
            n_wrong += model[i] != value;
        seen += n;
        at = start + n;
    }
    for (uint64_t i = at; i < SPAN; i++)
        n_wrong += model[i] != 0;
    is_u64(n_wrong, 0, "the runs are those of the model");
    ok(seen > 1000, "there were runs: %" PRIu64 " counters", seen);
}

static void edges(struct q2_counters *c)
{
    struct q2_error err = Q2_ERROR_INIT;
    uint64_t far = UINT64_C(1) << 54, start, n, value;
    ok(!q2_counters_next(c, 0, &start, &n, &value), "new counters are zero");
    is_int(q2_counters_add(c, far, 3, UINT64_MAX - 1, &err), 0, "a far one is counted");
    is_int(q2_counters_add(c, far + 1, 1, 5, &err), 0, "and once more");
    is_u64(q2_counters_get(c, far), UINT64_MAX - 1, "64 bits are kept");
    is_u64(q2_counters_get(c, far + 1), UINT64_MAX,
           "what overflows stays at the largest");
    q2_counters_take(c, far);
    q2_counters_take(c, 7);
    is_u64(q2_counters_get(c, far), UINT64_MAX - 2, "one is taken");
    is_u64(q2_counters_get(c, 7), 0, "nothing is taken from zero");
    ok(q2_counters_any(c, far - 50000, 50001), "any: the last of the range counts");
    ok(!q2_counters_any(c, far - 100000, 100000), "any: what lies behind does not");
    q2_counters_free(c);
}

// Ranges around those that are ones, at every place in a word.
static void ones(struct q2_counters *c)
{
    struct q2_error err = Q2_ERROR_INIT;
    unsigned n_wrong = 0;
    q2_counters_add(c, 16300, 200, 1, &err); // over the end of a page
    for (uint64_t start = 16290; start < 16510; start++)
        for (uint64_t n = 1; n < 220; n++)
            n_wrong += q2_counters_all_one(c, start, n) !=
                       (start >= 16300 && start + n <= 16500);
    is_u64(n_wrong, 0, "all one: exactly those that are");
    q2_counters_add(c, 16400, 1, 1, &err);
    ok(!q2_counters_all_one(c, 16350, 100), "all one: not with a two");
    ok(q2_counters_all_one(c, 16300, 100) && q2_counters_all_one(c, 16401, 99),
       "all one: beside the two");
    q2_counters_free(c);
}

static void compare_with_model(struct q2_counters *c)
{
    uint64_t *model = calloc(SPAN, sizeof(*model));
    fill(c, model);
    same_as_model(c, model);
    free(model);
    q2_counters_free(c);
}

int main(void)
{
    compare_with_model(q2_counters_new());
    compare_with_model(q2_counters_new_scattered());
    edges(q2_counters_new());
    edges(q2_counters_new_scattered());
    ones(q2_counters_new());
    ones(q2_counters_new_scattered());
    return done_testing();
}
