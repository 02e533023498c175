// SPDX-License-Identifier: MIT
// Threads that all run one function.
#include "base/pool.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

struct worker {
    int (*work)(void *opaque, unsigned index);
    void *opaque;
    unsigned index;
    pthread_t thread;
    int ret;
};

unsigned q2_pool_processors(void)
{
    cpu_set_t set;
    // Fails on machines with more processors than cpu_set_t holds.
    if (sched_getaffinity(0, sizeof(set), &set) == 0) {
        int n = CPU_COUNT(&set);
        return n > 0 ? (unsigned)n : 1;
    }
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (unsigned)n : 1;
}

static void *run_worker(void *arg)
{
    struct worker *w = arg;
    w->ret = w->work(w->opaque, w->index);
    return NULL;
}

// Starts workers 1 .. n-1; returns how many workers run, the caller included. Signals
// stay with the thread that called: its handlers expect to interrupt it.
static unsigned start_workers(struct worker *workers, unsigned n)
{
    sigset_t all;
    sigset_t old;
    unsigned started = 1;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    while (started < n && pthread_create(&workers[started].thread, NULL, run_worker,
                                         &workers[started]) == 0)
        started++;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return started;
}

static int run_alone(unsigned n, int (*work)(void *opaque, unsigned index), void *opaque)
{
    int ret = 0;
    for (unsigned i = 0; i < n; i++) {
        int r = work(opaque, i);
        if (ret == 0)
            ret = r;
    }
    return ret;
}

int q2_pool_run(unsigned n_threads, int (*work)(void *opaque, unsigned index),
                void *opaque)
{
    struct worker *workers = n_threads > 1 ? calloc(n_threads, sizeof(*workers)) : NULL;
    if (!workers)
        return run_alone(n_threads ? n_threads : 1, work, opaque);

    for (unsigned i = 0; i < n_threads; i++)
        workers[i] = (struct worker){.work = work, .opaque = opaque, .index = i};
    unsigned started = start_workers(workers, n_threads);

    run_worker(&workers[0]);
    // A share that found no thread is done here; where shares are taken from a common
    // queue nothing is left by now.
    for (unsigned i = started; i < n_threads; i++)
        run_worker(&workers[i]);

    for (unsigned i = 1; i < started; i++)
        pthread_join(workers[i].thread, NULL);

    int ret = 0;
    for (unsigned i = 0; i < n_threads && ret == 0; i++)
        ret = workers[i].ret;
    free(workers);
    return ret;
}
