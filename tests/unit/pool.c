// SPDX-License-Identifier: MIT
// The worker pool: all shares are done, by several threads, and errors come back.
#include "base/pool.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "test.h"

#define MAX_THREADS 16

struct job {
    _Atomic unsigned next;
    unsigned total;
    _Atomic unsigned done;
    _Atomic unsigned calls[MAX_THREADS];
    pthread_t caller;
    _Atomic bool index_0_is_caller;
    unsigned fail_index;
    int fail_code;
};

static int work(void *opaque, unsigned index)
{
    struct job *j = opaque;

    j->calls[index]++;
    if (index == 0)
        j->index_0_is_caller = pthread_equal(pthread_self(), j->caller) != 0;
    while (atomic_fetch_add(&j->next, 1) < j->total)
        j->done++;
    return j->fail_code && index == j->fail_index ? j->fail_code : 0;
}

static void all_is_done(unsigned n_threads)
{
    struct job j = {.total = 10000, .caller = pthread_self()};

    is_int(q2_pool_run(n_threads, work, &j), 0, "%u threads: success", n_threads);
    is_u64(j.done, j.total, "%u threads: all is done", n_threads);
    ok(j.index_0_is_caller, "%u threads: the caller is one of them", n_threads);
    for (unsigned i = 0; i < n_threads; i++)
        is_u64(j.calls[i], 1, "%u threads: share %u is called once", n_threads, i);
}

static void errors(void)
{
    struct job j = {.total = 10, .fail_index = 2, .fail_code = -EIO};
    is_int(q2_pool_run(4, work, &j), -EIO, "an error of one share is returned");
    is_u64(j.done, 10, "the others go on");

    struct job alone = {.total = 10, .fail_index = 0, .fail_code = -ENOSPC};
    is_int(q2_pool_run(1, work, &alone), -ENOSPC, "an error of a single thread too");
}

// A barrier: all threads must be there at once.
static int meet(void *opaque, unsigned index)
{
    (void)index;
    pthread_barrier_wait(opaque);
    return 0;
}

static void at_the_same_time(void)
{
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, NULL, 3);
    is_int(q2_pool_run(3, meet, &barrier), 0, "three threads run at the same time");
    pthread_barrier_destroy(&barrier);
}

int main(void)
{
    ok(q2_pool_processors() >= 1, "there is a processor");
    all_is_done(1);
    all_is_done(2);
    all_is_done(MAX_THREADS);
    errors();
    at_the_same_time();
    return done_testing();
}
