// SPDX-License-Identifier: MIT
// A worker pool: run one function on several threads until there is no work.
#ifndef Q2_BASE_POOL_H
#define Q2_BASE_POOL_H

#include "base/error.h"

// Processors this process may run on, at least 1.
unsigned q2_pool_processors(void);

// Runs work(opaque, index) on n_threads threads (index 0 .. n_threads-1; the calling
// thread is index 0) and waits for all. When fewer threads than asked can be started the
// rest of the work is done by those that could. Returns 0, or the first negative code
// that a call of work returned (the callee reports its own error text through opaque).
int q2_pool_run(unsigned n_threads, int (*work)(void *opaque, unsigned index),
                void *opaque);

#endif
