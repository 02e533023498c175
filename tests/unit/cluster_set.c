// SPDX-License-Identifier: MIT
// Sets of host clusters, against a plain array.
#include "image/cluster_set.h"

#include "test.h"

#define N 8192U

static void test_far_apart(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_cluster_set *s = q2_cluster_set_new();
    const uint64_t last = (UINT64_C(1) << 47) - 1;
    ok(q2_cluster_set_get(s, 0) == 0 && q2_cluster_set_get(s, last) == 0, "empty");
    is_int(q2_cluster_set_add(s, 0, 1, &err), 0, "cluster 0");
    is_int(q2_cluster_set_add(s, last, 4, &err), 0, "the last there can be");
    q2_cluster_set_add(s, 0, 2, &err);
    is_u64(q2_cluster_set_get(s, 0), 3, "kinds add up");
    is_u64(q2_cluster_set_get(s, last), 4, "and stay with their cluster");
    q2_cluster_set_remove(s, 0, 1);
    is_u64(q2_cluster_set_get(s, 0), 2, "one is taken away");
    q2_cluster_set_remove(s, 0, 2);
    is_u64(q2_cluster_set_get(s, 0), 0, "and the other");
    q2_cluster_set_remove(s, 12345, 2);
    is_u64(q2_cluster_set_get(s, 12345), 0, "from nothing nothing is taken");
    q2_cluster_set_free(s);
}

// Many come and go; those that went do not fill the table for ever.
static void test_against_array(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_cluster_set *s = q2_cluster_set_new();
    static uint8_t model[N];
    uint64_t state = 99;
    bool same = true;
    for (unsigned i = 0; i < 300000 && same; i++) {
        uint64_t word = test_random(&state);
        unsigned at = (unsigned)(word >> 8) % N, kind = 1U << (word >> 40) % 8;
        if (word & 1) {
            same = q2_cluster_set_add(s, (uint64_t)at << 14, kind, &err) == 0;
            model[at] = (uint8_t)(model[at] | kind);
        } else {
            q2_cluster_set_remove(s, (uint64_t)at << 14, kind);
            model[at] = (uint8_t)(model[at] & ~kind);
        }
        same = same && q2_cluster_set_get(s, (uint64_t)at << 14) == model[at];
    }
    for (unsigned at = 0; at < N; at++)
        same = same && q2_cluster_set_get(s, (uint64_t)at << 14) == model[at];
    ok(same, "as the array says");
    for (unsigned i = 0; i < 100 && same; i++) {
        unsigned at = (unsigned)test_random(&state) % (N + 4), n = 1 + i % 3, kinds = 0;
        for (unsigned k = at; k < at + n && k < N; k++)
            kinds |= model[k];
        same = q2_cluster_set_all(s, (uint64_t)at << 14, (uint64_t)n << 14) == kinds;
    }
    ok(same, "ranges: all that is in them, over the end, too");
    q2_cluster_set_free(s);
}

int main(void)
{
    test_far_apart();
    test_against_array();
    return done_testing();
}
