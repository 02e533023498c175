// SPDX-License-Identifier: MIT
// A library to be preloaded: counts what a program asks of the system and of the heap,
// and lets one of these calls fail. What stdio reads and writes counts, too: its streams
// are made anew, on top of the calls here.
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
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "calls.h"

#define MAX_LOGGED (1U << 20)
#define MAX_FDS 1024

static enum mode mode;
static unsigned fault_at;
static bool counting, threads, trace, lies;
static const char *log_name;
static atomic_uint n_calls;
static unsigned char logged[MAX_LOGGED];
static atomic_int failing = -1; // the call that failed first
// Nothing counts before main, nor what is called from here.
static atomic_bool armed;
static _Thread_local bool inside __attribute__((tls_model("initial-exec")));

// What was written to a descriptor and not yet made durable, nor said to be in order by a
// close of another descriptor of the same open file.
static atomic_bool unsaved[MAX_FDS];
static atomic_int dup_of[MAX_FDS]; // plus one

#define REAL(name) ((__typeof__(&(name)))find(#name))

static void *find(const char *name)
{
    bool was = inside;
    inside = true;
    void *p = dlsym(RTLD_NEXT, name);
    inside = was;
    return p;
}

static void say(const char *a, const char *b)
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

// 0, or the code that this call fails with; in mode SHORT -1: it is to do a part.
static int fault(int call)
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

static bool fails(int call)
{
    int code = fault(call);
    if (code > 0)
        errno = code;
    return code > 0;
}

// --- memory ---------------------------------------------------------------------------

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);
extern void *__libc_memalign(size_t alignment, size_t n);

// A sanitizer's heap, if there is one behind this library; else libc's, by names that
// need no looking up (which would itself allocate).
static bool other_heap;

void *malloc(size_t n)
{
    if (fails(C_MALLOC))
        return NULL;
    return other_heap ? REAL(malloc)(n) : __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    if (fails(C_CALLOC))
        return NULL;
    return other_heap ? REAL(calloc)(n, size) : __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    if (fails(C_REALLOC))
        return NULL;
    return other_heap ? REAL(realloc)(p, n) : __libc_realloc(p, n);
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
    if (fails(C_MEMALIGN))
        return NULL;
    return other_heap ? REAL(aligned_alloc)(alignment, n) : __libc_memalign(alignment, n);
}

int posix_memalign(void **out, size_t alignment, size_t n)
{
    int code = fault(C_MEMALIGN);
    if (code)
        return code;
    if (other_heap)
        return REAL(posix_memalign)(out, alignment, n);
    *out = __libc_memalign(alignment, n);
    return *out ? 0 : ENOMEM;
}

void *mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset)
{
    return fails(C_MMAP) ? MAP_FAILED : REAL(mmap)(at, n, protection, flags, fd, offset);
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

// --- names ----------------------------------------------------------------------------

static int open_file(const char *path, int flags, mode_t permissions)
{
    if (fails(C_OPEN))
        return -1;
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, permissions);
}

#define OPEN(name)                                                                     \
    int name(const char *path, int flags, ...)                                         \
    {                                                                                  \
        va_list ap;                                                                    \
        va_start(ap, flags);                                                           \
        mode_t permissions = flags & (O_CREAT | __O_TMPFILE) ? va_arg(ap, mode_t) : 0; \
        va_end(ap);                                                                    \
        return open_file(path, flags, permissions);                                    \
    }

OPEN(open)
OPEN(open64)

int mkostemp(char *name, int flags)
{
    return fails(C_MKSTEMP) ? -1 : REAL(mkostemp)(name, flags);
}

int mkstemp(char *name)
{
    return fails(C_MKSTEMP) ? -1 : REAL(mkstemp)(name);
}

int mkostemp64(char *name, int flags)
{
    return mkostemp(name, flags);
}

int mkstemp64(char *name)
{
    return mkstemp(name);
}

#define STAT(name, call, type)                          \
    int name(const char *path, struct type *st)         \
    {                                                   \
        return fails(call) ? -1 : REAL(name)(path, st); \
    }

STAT(stat, C_STAT, stat)
STAT(lstat, C_LSTAT, stat)

int fstat(int fd, struct stat *st)
{
    return fails(C_FSTAT) ? -1 : REAL(fstat)(fd, st);
}

int access(const char *path, int wanted)
{
    return fails(C_ACCESS) ? -1 : REAL(access)(path, wanted);
}

int unlink(const char *path)
{
    return fails(C_UNLINK) ? -1 : REAL(unlink)(path);
}

int rename(const char *from, const char *to)
{
    return fails(C_RENAME) ? -1 : REAL(rename)(from, to);
}

// --- descriptors ----------------------------------------------------------------------

static void mark(int fd, bool is_unsaved)
{
    if (fd >= 0 && fd < MAX_FDS)
        unsaved[fd] = is_unsaved;
}

// The descriptor that stands for the open file.
static int first_of(int fd)
{
    return fd >= 0 && fd < MAX_FDS && dup_of[fd] ? dup_of[fd] - 1 : fd;
}

// What a file system that writes late has to say when a file is closed. A file without a
// name is nobody's.
static void tell_lost(int fd)
{
    struct stat st;
    if (fd < 0 || fd >= MAX_FDS || !unsaved[fd] || REAL(fstat)(fd, &st) < 0)
        return;
    if (st.st_nlink > 0 && S_ISREG(st.st_mode))
        say("lost ", "close");
}

int close(int fd)
{
    bool failed = fails(C_CLOSE);
    int code = errno, first = first_of(fd);
    if (failed) {
        inside = true;
        tell_lost(first);
        inside = false;
    } else {
        mark(first, false);
    }
    if (fd >= 0 && fd < MAX_FDS)
        dup_of[fd] = 0;
    int ret = (int)syscall(SYS_close, fd);
    if (failed)
        errno = code;
    return failed ? -1 : ret;
}

int dup(int fd)
{
    int copy = fails(C_DUP) ? -1 : (int)syscall(SYS_dup, fd);
    if (copy >= 0 && copy < MAX_FDS)
        dup_of[copy] = first_of(fd) + 1;
    return copy;
}

static size_t part_of(size_t n)
{
    return n > 1 ? n / 2 : n;
}

ssize_t read(int fd, void *buf, size_t n)
{
    int code = fault(C_READ);
    if (code > 0) {
        errno = code;
        return -1;
    }
    return REAL(read)(fd, buf, code < 0 ? part_of(n) : n);
}

ssize_t write(int fd, const void *buf, size_t n)
{
    // There is nobody to tell that messages are lost.
    int code = first_of(fd) == STDERR_FILENO ? 0 : fault(C_WRITE);
    if (code > 0) {
        errno = code;
        return -1;
    }
    mark(first_of(fd), true);
    return REAL(write)(fd, buf, code < 0 ? part_of(n) : n);
}

ssize_t pread(int fd, void *buf, size_t n, off_t offset)
{
    int code = fault(C_PREAD);
    if (code > 0) {
        errno = code;
        return -1;
    }
    return REAL(pread)(fd, buf, code < 0 ? part_of(n) : n, offset);
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t offset)
{
    int code = fault(C_PWRITE);
    if (code > 0 && lies)
        return (ssize_t)n;
    if (code > 0) {
        errno = code;
        return -1;
    }
    mark(first_of(fd), true);
    return REAL(pwrite)(fd, buf, code < 0 ? part_of(n) : n, offset);
}

ssize_t copy_file_range(int in, off_t *in_offset, int out, off_t *out_offset, size_t n,
                        unsigned flags)
{
    int code = fault(C_COPY);
    if (code > 0) {
        errno = code;
        return -1;
    }
    mark(first_of(out), true);
    return REAL(copy_file_range)(in, in_offset, out, out_offset,
                                 code < 0 ? part_of(n) : n, flags);
}

int fdatasync(int fd)
{
    if (fails(C_FDATASYNC))
        return -1;
    mark(first_of(fd), false);
    return REAL(fdatasync)(fd);
}

int fsync(int fd)
{
    if (fails(C_FSYNC))
        return -1;
    mark(first_of(fd), false);
    return REAL(fsync)(fd);
}

int ftruncate(int fd, off_t size)
{
    if (fails(C_FTRUNCATE))
        return -1;
    mark(first_of(fd), true);
    return REAL(ftruncate)(fd, size);
}

int fallocate(int fd, int how, off_t offset, off_t n)
{
    if (fails(C_FALLOCATE))
        return -1;
    mark(first_of(fd), true);
    return REAL(fallocate)(fd, how, offset, n);
}

off_t lseek(int fd, off_t offset, int whence)
{
    bool asks = whence == SEEK_DATA || whence == SEEK_HOLE;
    return fails(asks ? C_SEEK_DATA : C_SEEK) ? -1 : REAL(lseek)(fd, offset, whence);
}

int posix_fadvise(int fd, off_t offset, off_t n, int advice)
{
    int code = fault(C_ADVISE);
    return code ? code : REAL(posix_fadvise)(fd, offset, n, advice);
}

static int call_of_fcntl(int command, intptr_t arg)
{
    if (command == F_SETFL && (arg & O_DIRECT))
        return C_SET_DIRECT;
    if (command == F_OFD_SETLK)
        return C_LOCK;
    if (command == F_OFD_GETLK)
        return C_TEST_LOCK;
    return command == F_SETFL ? C_SET_FLAGS : C_FCNTL;
}

// The argument of all that is asked here is a pointer, or a number that fits in one.
#define FCNTL(name)                                       \
    int name(int fd, int command, ...)                    \
    {                                                     \
        va_list ap;                                       \
        va_start(ap, command);                            \
        void *arg = va_arg(ap, void *);                   \
        va_end(ap);                                       \
        if (fails(call_of_fcntl(command, (intptr_t)arg))) \
            return -1;                                    \
        return REAL(name)(fd, command, arg);              \
    }

FCNTL(fcntl)
FCNTL(fcntl64)

int ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    va_start(ap, request);
    void *arg = va_arg(ap, void *);
    va_end(ap);
    return fails(C_IOCTL) ? -1 : REAL(ioctl)(fd, request, arg);
}

#if __SIZEOF_LONG__ == 8
// The same functions under a second name.
ssize_t pread64(int fd, void *buf, size_t n, off_t offset)
{
    return pread(fd, buf, n, offset);
}

ssize_t pwrite64(int fd, const void *buf, size_t n, off_t offset)
{
    return pwrite(fd, buf, n, offset);
}

int ftruncate64(int fd, off_t size)
{
    return ftruncate(fd, size);
}

int fallocate64(int fd, int how, off_t offset, off_t n)
{
    return fallocate(fd, how, offset, n);
}

off_t lseek64(int fd, off_t offset, int whence)
{
    return lseek(fd, offset, whence);
}

void *mmap64(void *at, size_t n, int protection, int flags, int fd, off_t offset)
{
    return mmap(at, n, protection, flags, fd, offset);
}
#endif

// --- streams --------------------------------------------------------------------------

static ssize_t stream_read(void *cookie, char *buf, size_t n)
{
    ssize_t got;
    do
        got = read((int)(intptr_t)cookie, buf, n);
    while (got < 0 && errno == EINTR);
    return got;
}

// A cookie may neither do a part nor say that it was interrupted: it is libc's loop that
// is missing here.
static ssize_t stream_write(void *cookie, const char *buf, size_t n)
{
    size_t done = 0;
    while (done < n) {
        ssize_t put = write((int)(intptr_t)cookie, buf + done, n - done);
        if (put < 0 && errno != EINTR)
            break;
        done += put > 0 ? (size_t)put : 0;
    }
    return (ssize_t)done;
}

static int stream_close(void *cookie)
{
    return close((int)(intptr_t)cookie);
}

static const cookie_io_functions_t stream = {
    .read = stream_read, .write = stream_write, .close = stream_close};

FILE *fdopen(int fd, const char *how)
{
    return fopencookie((void *)(intptr_t)fd, how, stream);
}

FILE *fopen(const char *path, const char *how)
{
    int flags = O_CLOEXEC;
    flags |= how[0] == 'r' ? O_RDONLY : O_WRONLY | O_CREAT | O_TRUNC;
    int fd = open(path, flags, 0666);
    FILE *f = fd < 0 ? NULL : fdopen(fd, how);
    if (fd >= 0 && !f)
        syscall(SYS_close, fd);
    return f;
}

FILE *fopen64(const char *path, const char *how)
{
    return fopen(path, how);
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
    other_heap = dlsym(RTLD_DEFAULT, "__asan_init") != NULL;
    stdout = fdopen(1, "w");
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
