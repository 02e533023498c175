// SPDX-License-Identifier: MIT
// A library to be preloaded: the file system knows no locks of open files. Each call that
// takes or tests one fails with the error NO_LOCKS, a number. NO_LOCKS_EXCEPT=test: those
// that test go through.
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int is_refused(int command)
{
    const char *except = getenv("NO_LOCKS_EXCEPT");
    if (command == F_OFD_GETLK)
        return !except || strcmp(except, "test") != 0;
    return command == F_OFD_SETLK || command == F_OFD_SETLKW;
}

static int control(int fd, int command, void *argument)
{
    const char *error = getenv("NO_LOCKS");
    if (error && is_refused(command)) {
        errno = atoi(error);
        return -1;
    }
#ifdef SYS_fcntl64
    return (int)syscall(SYS_fcntl64, fd, command, argument);
#else
    return (int)syscall(SYS_fcntl, fd, command, argument);
#endif
}

int fcntl(int fd, int command, ...)
{
    va_list list;
    va_start(list, command);
    void *argument = va_arg(list, void *);
    va_end(list);
    return control(fd, command, argument);
}

int fcntl64(int fd, int command, ...)
{
    va_list list;
    va_start(list, command);
    void *argument = va_arg(list, void *);
    va_end(list);
    return control(fd, command, argument);
}

// Where time has 64 bits on a processor of 32.
int __fcntl_time64(int fd, int command, ...)
{
    va_list list;
    va_start(list, command);
    void *argument = va_arg(list, void *);
    va_end(list);
    return control(fd, command, argument);
}
