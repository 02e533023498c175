// SPDX-License-Identifier: MIT
// The targets under libFuzzer. One program for all: it is called by the target's name.
// Q2_FUZZ_PLAIN=1 leaves all mutations to libFuzzer.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/luks.h"

// Of processor time, for an input: libFuzzer's own limit is on the clock, which means
// little on a busy machine.
#define MAX_SECONDS 20

// What libFuzzer calls, and what it lends.
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n_bytes, size_t max_bytes,
                               unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t n_bytes, size_t max_bytes);

static const struct fuzz_target *target;
static bool plain;

static void too_long(int number)
{
    (void)number;
    fuzz_broken("more than %d s of processor time", MAX_SECONDS);
}

static void limit_time(unsigned seconds) // 0: no more
{
    const struct itimerval limit = {.it_value = {.tv_sec = seconds}};
    setitimer(ITIMER_PROF, &limit, NULL);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *slash = strrchr((*argv)[0], '/');
    (void)argc;
    target = fuzz_target_find(slash ? slash + 1 : (*argv)[0]);
    if (!target)
        fuzz_give_up("called by a name that is no target's");
    plain = getenv("Q2_FUZZ_PLAIN") != NULL;
    signal(SIGPROF, too_long);
    // What targets print is for nobody.
    if (!freopen("/dev/null", "w", stdout))
        fuzz_give_up("no /dev/null");
    return 0;
}

// Tens of thousands of snapshots are the same again and again, and take long.
static bool is_tedious(const uint8_t *data, size_t n_bytes)
{
    return target->form == FUZZ_IMAGE && n_bytes >= 64 &&
           (data[60] || data[61] || data[62] || data[63] > 64);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    if (is_tedious(data, n_bytes))
        return -1; // into no corpus
    limit_time(MAX_SECONDS);
    target->run(data, n_bytes);
    limit_time(0);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n_bytes, size_t max_bytes,
                               unsigned seed)
{
    if (plain || target->form != FUZZ_IMAGE || seed % 4 == 0)
        return LLVMFuzzerMutate(data, n_bytes, max_bytes);
    size_t n = fuzz_mutate_image(data, n_bytes, max_bytes, seed);
    if (seed % 8 < 5)
        fuzz_luks_fit(data, n);
    return n;
}
