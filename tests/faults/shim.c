// SPDX-License-Identifier: MIT
// A library to be preloaded: counts what a program asks of the system and of the heap,
// and lets one of these calls fail. Here: which one that is, memory and processes.
//
//   FAULT_MODE  once: call FAULT_AT fails
//               ever: and so do all later ones of its class
//               short: that read or write does a part of its work
//               eintr: that call is interrupted by a signal, once
//               refuse: that call, and all later ones of its name, are not supported
//   FAULT_AT    from 1; only calls count that the mode may hit. 0: none fails
//   FAULT_LOG   a file. At 0 it gets the names of all calls in their order, and by what
//   modes
//               besides "once" they may be hit (s, e, r); else the name of the call that
//               failed, "lost NAME" if what was written before may be lost with it, and
//               with FAULT_TRACE set where it was called from
//
// The process sees one processor, so that it starts no threads to share its work and
// makes the same calls in every run; FAULT_THREADS leaves it all of them. With FAULT_LIES
// writes to files that are to fail do nothing, and say nothing: who judges the program
// must notice.
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shim.h"

#define MAX_LOGGED (1U << 20)
#define MAX_FDS 1024

static enum mode mode;
static unsigned fault_at;
static bool counting, threads, trace;
bool lies;
static const char *log_name;
static atomic_uint n_calls;
static unsigned char logged[MAX_LOGGED];
static atomic_int failing = -1; // the call that failed first
static atomic_bool armed;       // nothing counts before main
_Thread_local bool inside;

void *find(const char *name)
{
    bool was = inside;
    inside = true;
    void *p = dlsym(RTLD_NEXT, name);
    inside = was;
    return p;
}

void say(const char *a, const char *b)
{
    char text[128];
    size_t n = 0;
    for (const char *p = a; *p && n < 60; p++)
        text[n++] = *p;
    for (const char *p = b; *p && n < 120; p++)
        text[n++] = *p;
    text[n++] = '\n';
    int fd = (int)syscall(SYS_openat, AT_FDCWD, log_name,
                          O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0)
        return;
    if (syscall(SYS_write, fd, text, n) < 0)
        text[0] = 0;
    if (trace) {
        void *frames[32];
        backtrace_symbols_fd(frames, backtrace(frames, 32), fd);
    }
    syscall(SYS_close, fd);
}

static bool can_hit(const struct call *c)
{
    switch (mode) {
    case SHORT:
        return c->suffers & IS_SHORT;
    case EINTR_ONCE:
        return c->suffers & IS_EINTR;
    case REFUSE:
        return c->refusal != 0;
    default:
        return true;
    }
}

static bool goes_on_failing(int call)
{
    int first = failing;
    if (first < 0)
        return false;
    return (mode == EVER && calls[first].class == calls[call].class) ||
           (mode == REFUSE && first == call);
}

static int code_of(int call)
{
    if (mode == EINTR_ONCE)
        return EINTR;
    return mode == REFUSE ? calls[call].refusal : calls[call].code;
}

int fault(int call)
{
    if (!armed || inside || !can_hit(&calls[call]))
        return 0;
    unsigned n = atomic_fetch_add(&n_calls, 1);
    if (counting && n < MAX_LOGGED)
        logged[n] = (unsigned char)call;
    if (n + 1 != fault_at)
        return goes_on_failing(call) ? code_of(call) : 0;
    inside = true;
    failing = call;
    say("failed ", calls[call].name);
    inside = false;
    return mode == SHORT ? -1 : code_of(call);
}

bool fails(int call)
{
    int code = fault(call);
    if (code > 0)
        errno = code;
    return code > 0;
}

// --- memory ---------------------------------------------------------------------------

// Of a program with a sanitizer, which then judges all memory that is given here; else
// libc's. These names need no looking up (which would itself allocate).
#define HEAP(name) (__interceptor_##name ? __interceptor_##name : __libc_##name)

extern void *__interceptor_malloc(size_t n) __attribute__((weak));
extern void *__interceptor_calloc(size_t n, size_t size) __attribute__((weak));
extern void *__interceptor_realloc(void *p, size_t n) __attribute__((weak));
extern void *__interceptor_memalign(size_t alignment, size_t n) __attribute__((weak));
extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);
extern void *__libc_memalign(size_t alignment, size_t n);

void *malloc(size_t n)
{
    return fails(C_MALLOC) ? NULL : HEAP(malloc)(n);
}

void *calloc(size_t n, size_t size)
{
    return fails(C_CALLOC) ? NULL : HEAP(calloc)(n, size);
}

void *realloc(void *p, size_t n)
{
    return fails(C_REALLOC) ? NULL : HEAP(realloc)(p, n);
}

void *reallocarray(void *p, size_t n, size_t size)
{
    size_t n_bytes;
    if (__builtin_mul_overflow(n, size, &n_bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(p, n_bytes);
}

void *aligned_alloc(size_t alignment, size_t n)
{
    return fails(C_MEMALIGN) ? NULL : HEAP(memalign)(alignment, n);
}

int posix_memalign(void **out, size_t alignment, size_t n)
{
    int code = fault(C_MEMALIGN);
    if (code)
        return code;
    *out = HEAP(memalign)(alignment, n);
    return *out ? 0 : ENOMEM;
}

void *mmap64(void *at, size_t n, int protection, int flags, int fd, off64_t offset)
{
    return fails(C_MMAP) ? MAP_FAILED
                         : REAL(mmap64)(at, n, protection, flags, fd, offset);
}

void *mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset)
{
    return mmap64(at, n, protection, flags, fd, offset);
}

int mlock(const void *at, size_t n)
{
    return fails(C_MLOCK) ? -1 : REAL(mlock)(at, n);
}

// --- threads and processes ------------------------------------------------------------

int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *),
                   void *arg)
{
    int code = fault(C_THREAD);
    return code ? code : REAL(pthread_create)(thread, attr, start, arg);
}

// A sanitizer asks this of each thread that begins, and cannot do without.
int pthread_getattr_np(pthread_t thread, pthread_attr_t *attr)
{
    bool was = inside;
    inside = true;
    int code = REAL(pthread_getattr_np)(thread, attr);
    inside = was;
    return code;
}

pid_t fork(void)
{
    return fails(C_FORK) ? -1 : REAL(fork)();
}

int sched_getaffinity(pid_t pid, size_t n_bytes, cpu_set_t *set)
{
    if (threads)
        return REAL(sched_getaffinity)(pid, n_bytes, set);
    memset(set, 0, n_bytes);
    CPU_SET_S(0, n_bytes, set);
    return 0;
}

// --- beginning and end ----------------------------------------------------------------

static enum mode mode_named(const char *name)
{
    static const char *const names[] = {"once", "ever", "short", "eintr", "refuse"};
    for (int i = 0; i < 5; i++)
        if (name && strcmp(name, names[i]) == 0)
            return (enum mode)((int)ONCE + i);
    return NONE;
}

__attribute__((constructor)) static void begin(void)
{
    const char *at = getenv("FAULT_AT");
    inside = true;
    mode = mode_named(getenv("FAULT_MODE"));
    log_name = getenv("FAULT_LOG");
    threads = getenv("FAULT_THREADS") != NULL;
    trace = getenv("FAULT_TRACE") != NULL;
    lies = getenv("FAULT_LIES") != NULL;
    fault_at = at ? (unsigned)strtoul(at, NULL, 10) : 0;
    counting = fault_at == 0;
    renew_stdout();
    inside = false;
    armed = mode != NONE && log_name;
}

__attribute__((destructor)) static void end(void)
{
    bool was_armed = armed;
    armed = false;
    inside = true;
    FILE *f = was_armed && counting ? fopen(log_name, "w") : NULL;
    for (unsigned i = 0; f && i < n_calls && i < MAX_LOGGED; i++)
        fprintf(f, "%s %s%s%s\n", calls[logged[i]].name,
                calls[logged[i]].suffers & IS_SHORT ? "s" : "",
                calls[logged[i]].suffers & IS_EINTR ? "e" : "",
                calls[logged[i]].refusal ? "r" : "");
    if (f)
        fclose(f);
}
