// SPDX-License-Identifier: MIT
// A library to be preloaded, instead of a file system that copies ranges in its own way.
// COPY_RANGE_LOG names a file that gets a line for each call: the bytes that were copied,
// or -1. With COPY_RANGE_FAIL N, call N (from 1) and all behind it fail with the error
// COPY_RANGE_ERRNO; with COPY_RANGE_MOST N no call copies more than that. Files seem to
// be on NFS, which copies by itself, unless COPY_RANGE_PLAIN is set.
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <linux/magic.h>

static long number(const char *name)
{
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

static void log_call(ssize_t result)
{
    const char *name = getenv("COPY_RANGE_LOG");
    FILE *f = name ? fopen(name, "a") : NULL;
    if (!f)
        return;
    fprintf(f, "%zd\n", result);
    fclose(f);
}

ssize_t copy_file_range(int in, off64_t *in_offset, int out, off64_t *out_offset,
                        size_t n, unsigned flags)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static long n_calls;
    ssize_t (*real)(int, off64_t *, int, off64_t *, size_t, unsigned);
    *(void **)&real = dlsym(RTLD_NEXT, "copy_file_range");
    size_t most = (size_t)number("COPY_RANGE_MOST");
    pthread_mutex_lock(&lock);
    long fail = number("COPY_RANGE_FAIL"), call = ++n_calls;
    ssize_t done = -1;
    int code = (int)number("COPY_RANGE_ERRNO");
    if (fail == 0 || call < fail) {
        done = real(in, in_offset, out, out_offset, most && n > most ? most : n, flags);
        code = errno;
    }
    log_call(done);
    pthread_mutex_unlock(&lock);
    errno = code;
    return done;
}

static int seem_nfs(int ret, __fsword_t *type)
{
    if (ret == 0 && !getenv("COPY_RANGE_PLAIN"))
        *type = NFS_SUPER_MAGIC;
    return ret;
}

int fstatfs(int fd, struct statfs *st)
{
    int (*real)(int, struct statfs *);
    *(void **)&real = dlsym(RTLD_NEXT, "fstatfs");
    return seem_nfs(real(fd, st), &st->f_type);
}

// What a program calls that was built for large files.
int fstatfs64(int fd, struct statfs64 *st)
{
    int (*real)(int, struct statfs64 *);
    *(void **)&real = dlsym(RTLD_NEXT, "fstatfs64");
    return seem_nfs(real(fd, st), &st->f_type);
}
