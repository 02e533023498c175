// SPDX-License-Identifier: MIT
// Every input that once made a target fail, again, without libFuzzer: any build can do
// it. In the suite, all of them; with arguments, these:
//
//   replay [TARGET FILE...]
//
// An input that takes more than a time that it cannot need is a failure, too.
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"

#define MAX_INPUT_BYTES (1U << 20)
// Of processor time, for each input: a hundred times what the slowest one takes.
#define MAX_SECONDS 60
#define MAX_MIB 512

static FILE *tap; // standard output itself: targets print, too

static void start_clock(void)
{
    const struct itimerval limit = {.it_value = {.tv_sec = MAX_SECONDS}};
    setitimer(ITIMER_PROF, &limit, NULL); // SIGPROF ends the process
}

static void run_file(const struct fuzz_target *t, const char *path)
{
    FILE *f = fopen(path, "rb");
    uint8_t *buf = malloc(MAX_INPUT_BYTES);
    if (!f || !buf)
        fuzz_give_up(path);
    size_t n = fread(buf, 1, MAX_INPUT_BYTES, f);
    fclose(f);
    // Of exactly its size, so that a read behind its end is seen.
    uint8_t *exact = malloc(n > 0 ? n : 1);
    if (!exact)
        fuzz_give_up("no memory");
    memcpy(exact, buf, n);
    free(buf);
    fprintf(stderr, "# %s %s\n", t->name, path);
    start_clock();
    t->run(exact, n);
    free(exact);
}

static int is_input(const struct dirent *e)
{
    return e->d_name[0] != '.';
}

static int run_folder(const struct fuzz_target *t, const char *folder)
{
    struct dirent **list;
    char path[8192];
    int n = scandir(folder, &list, is_input, alphasort);
    if (n < 0 && errno != ENOENT)
        fuzz_give_up(folder);
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof(path), "%s/%s", folder, list[i]->d_name);
        run_file(t, path);
        free(list[i]);
    }
    if (n >= 0)
        free(list);
    return n < 0 ? 0 : n;
}

// The sanitizers keep what was freed.
static bool is_small(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return getenv("Q2_TEST_ASAN") || used.ru_maxrss <= MAX_MIB * 1024L;
}

static int run_all(const char *tests)
{
    char folder[4096];
    int number = 0, total = 0;
    for (const struct fuzz_target *t = fuzz_targets; t->name; t++) {
        snprintf(folder, sizeof(folder), "%s/fuzz/fixtures/%s", tests, t->name);
        int n = run_folder(t, folder);
        total += n;
        fprintf(tap, "%s %d - %s: %d inputs\n", is_small() ? "ok" : "not ok", ++number,
                t->name, n);
        fflush(tap);
    }
    fprintf(tap, "%s %d - there are inputs\n1..%d\n", total > 0 ? "ok" : "not ok",
            number + 1, number + 1);
    return total > 0 && is_small() ? 0 : 1;
}

int main(int argc, char **argv)
{
    const char *tests = getenv("TEST_SRCDIR");
    tap = fdopen(dup(STDOUT_FILENO), "w");
    if (!tap || !freopen("/dev/null", "w", stdout))
        fuzz_give_up("no standard output");
    if (argc < 2)
        return run_all(tests ? tests : "tests");
    const struct fuzz_target *t = fuzz_target_find(argv[1]);
    if (!t)
        fuzz_give_up("no such target");
    for (int i = 2; i < argc; i++)
        run_file(t, argv[i]);
    return 0;
}
