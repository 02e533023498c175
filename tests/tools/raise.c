// SPDX-License-Identifier: MIT
// A library to be preloaded: the process gets signals in the middle of its work. With
// RAISE_CALL "pread", "pwrite" or "close" and RAISE_AT N, call N of that function on the
// file RAISE_FILE (which may not be there yet when the process starts) raises
// RAISE_SIGNAL (a number) RAISE_TIMES times, and then does what it should; close has done
// it by then, and counts where the file is not open any more. RAISE_AT 0: every call.
//
// The process sees one processor alone and starts no threads to share the work: they
// would make it another call each time, and keep signals to themselves.
#include <dlfcn.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int number(const char *name)
{
    const char *text = getenv(name);
    return text ? atoi(text) : 0;
}

static int is_the_file(int fd)
{
    const char *name = getenv("RAISE_FILE");
    struct stat64 wanted;
    struct stat64 st;
    return name && stat64(name, &wanted) == 0 && fstat64(fd, &st) == 0 &&
           st.st_dev == wanted.st_dev && st.st_ino == wanted.st_ino;
}

static int is_counted(const char *name, int fd)
{
    const char *call = getenv("RAISE_CALL");
    return call && strcmp(call, name) == 0 && is_the_file(fd);
}

static void count(void)
{
    static int n;
    n++;
    if (number("RAISE_AT") != 0 && number("RAISE_AT") != n)
        return;
    for (int i = 0; i < number("RAISE_TIMES"); i++)
        raise(number("RAISE_SIGNAL"));
}

static void called(const char *name, int fd)
{
    if (is_counted(name, fd))
        count();
}

static ssize_t read_at(int fd, void *buf, size_t n_bytes, off64_t offset)
{
    ssize_t (*real)(int, void *, size_t, off64_t);
    *(void **)&real = dlsym(RTLD_NEXT, "pread64");
    called("pread", fd);
    return real(fd, buf, n_bytes, offset);
}

static ssize_t write_at(int fd, const void *buf, size_t n_bytes, off64_t offset)
{
    ssize_t (*real)(int, const void *, size_t, off64_t);
    *(void **)&real = dlsym(RTLD_NEXT, "pwrite64");
    called("pwrite", fd);
    return real(fd, buf, n_bytes, offset);
}

ssize_t pread(int fd, void *buf, size_t n_bytes, off_t offset)
{
    return read_at(fd, buf, n_bytes, offset);
}

ssize_t pread64(int fd, void *buf, size_t n_bytes, off64_t offset)
{
    return read_at(fd, buf, n_bytes, offset);
}

ssize_t pwrite(int fd, const void *buf, size_t n_bytes, off_t offset)
{
    return write_at(fd, buf, n_bytes, offset);
}

ssize_t pwrite64(int fd, const void *buf, size_t n_bytes, off64_t offset)
{
    return write_at(fd, buf, n_bytes, offset);
}

// A copy of a descriptor is closed to hear what the file system says; the file stays
// open.
static int is_open_still(void)
{
    int fd = 0;
    while (fd < 64 && !is_the_file(fd))
        fd++;
    return fd < 64;
}

int close(int fd)
{
    int (*real)(int);
    *(void **)&real = dlsym(RTLD_NEXT, "close");
    int is_image = is_counted("close", fd);
    int ret = real(fd);
    if (is_image && !is_open_still())
        count();
    return ret;
}

int sched_getaffinity(pid_t pid, size_t n_bytes, cpu_set_t *set)
{
    (void)pid;
    memset(set, 0, n_bytes);
    CPU_SET_S(0, n_bytes, set);
    return 0;
}
