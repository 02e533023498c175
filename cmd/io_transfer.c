// SPDX-License-Identifier: MIT
// io: the table of what moves data, and discard, flush and their kin.
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "cmd/io.h"
#include "ops/resize.h"

static int discard(struct q2_shell *shell, const struct q2_shell_report *r,
                   struct q2_error *err)
{
    int rc = q2_shell_check_range(shell->disk, r->offset, r->n_bytes, err);
    if (rc || !r->n_bytes || !shell->mode.discard)
        return rc;
    return q2_disk_discard(shell->disk, r->offset, r->n_bytes, err);
}

static int run_discard(struct q2_shell *shell, const struct q2_shell_command *self,
                       int argc, char **argv)
{
    struct q2_shell_report r = {.done = "discard"};
    struct q2_error err = Q2_ERROR_INIT;
    int letter;
    while ((letter = getopt(argc, argv, "Cq")) != -1) {
        if (letter != 'C' && letter != 'q')
            return q2_shell_usage(self);
        r.terse = r.terse || letter == 'C';
        r.quiet = r.quiet || letter == 'q';
    }
    if (optind != argc - 2)
        return q2_shell_usage(self);
    if (!q2_shell_size(argv[optind], &r.offset) ||
        !q2_shell_length(argv[optind + 1], "", &r.n_bytes))
        return -EINVAL;
    if (!q2_shell_writable(shell))
        return -EROFS;
    q2_shell_start(&r);
    if (discard(shell, &r, &err))
        return q2_shell_failed(shell, "discard", &err);
    q2_shell_print_report(&r);
    return 0;
}

static int run_flush(struct q2_shell *shell, const struct q2_shell_command *self,
                     int argc, char **argv)
{
    struct q2_error err = Q2_ERROR_INIT;
    (void)self;
    (void)argc;
    (void)argv;
    if (shell->mode.read_only || !q2_disk_flush(shell->disk, &err))
        return 0;
    return q2_shell_failed(shell, "flush", &err);
}

// Every request is complete when its command ends.
static int run_aio_flush(struct q2_shell *shell, const struct q2_shell_command *self,
                         int argc, char **argv)
{
    (void)shell;
    (void)self;
    (void)argc;
    (void)argv;
    return 0;
}

static int parse_preallocation(const char *mode, enum q2_preallocation *value,
                               struct q2_error *err)
{
    static const char *const modes[] = {"off", "metadata", "falloc", "full"};
    for (unsigned i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        if (strcmp(mode, modes[i]) != 0)
            continue;
        *value = (enum q2_preallocation)i;
        return 0;
    }
    return q2_fail(err, -EINVAL, "Invalid preallocation mode '%s'", mode);
}

static int run_truncate(struct q2_shell *shell, const struct q2_shell_command *self,
                        int argc, char **argv)
{
    struct q2_error err = Q2_ERROR_INIT;
    enum q2_preallocation mode = Q2_PREALLOC_OFF;
    uint64_t size;
    int letter, rc = 0;
    while (!rc && (letter = getopt(argc, argv, "m:")) != -1) {
        if (letter != 'm')
            return q2_shell_usage(self);
        rc = parse_preallocation(optarg, &mode, &err);
    }
    if (!rc && optind != argc - 1)
        return q2_shell_usage(self);
    if (!rc && !q2_shell_size(argv[optind], &size))
        return -EINVAL;
    if (!rc && !q2_shell_writable(shell))
        return -EROFS;
    if (!rc)
        rc = q2_resize(shell->disk, size, mode, NULL, &err);
    if (rc)
        q2_shell_print_error(shell, &err);
    return rc;
}

#define READ_HELP                                                       \
    " -C  print bytes,operations,time,bytes/s,operations/s\n"           \
    " -P  fail unless every byte is the pattern (a number up to 255)\n" \
    " -q  print no statistics\n"                                        \
    " -v  print the bytes that were read\n"

#define WRITE_HELP                                            \
    " -C  print bytes,operations,time,bytes/s,operations/s\n" \
    " -f  durable when the command ends\n"                    \
    " -P  fill with this byte (0xcd)\n"                       \
    " -q  print no statistics\n"

#define AIO_HELP                                        \
    " -i  count the request as invalid, do nothing\n\n" \
    "The command succeeds whatever becomes of the request.\n"

#define ZERO_HELP                               \
    " -z  write zeros, by the cheapest means\n" \
    " -u  with -z: the space may be given back\n"

const struct q2_shell_command q2_shell_transfer_commands[] = {
    {"read", "r", 2, -1, false, "[-abCqv] [-P pattern [-s off] [-l len]] off len",
     "read len bytes from off on",
     READ_HELP " -a  of no effect, as -p\n"
               " -b  read the state of the virtual machine, not its disk\n"
               " -s, -l  which part of the bytes -P looks at\n",
     q2_shell_read},
    {"write", "w", 2, -1, false, "[-bcCfnquz] [-P pattern | -s source_file] off len",
     "write len bytes from off on",
     WRITE_HELP ZERO_HELP
     " -n  with -z: fail where zeros would have to be written as data\n"
     " -b  write the state of the virtual machine, not its disk\n"
     " -c  write compressed clusters\n"
     " -p  of no effect\n"
     " -s  fill with copies of this file\n",
     q2_shell_write},
    {"readv", NULL, 2, -1, false, "[-Cqv] [-P pattern] off len [len..]",
     "read the lengths together from off on", READ_HELP, q2_shell_read},
    {"writev", NULL, 2, -1, false, "[-Cfq] [-P pattern] off len [len..]",
     "write the lengths together from off on", WRITE_HELP, q2_shell_write},
    {"aio_read", NULL, 2, -1, false, "[-Ciqv] [-P pattern] off len [len..]",
     "submit a read", READ_HELP AIO_HELP, q2_shell_read},
    {"aio_write", NULL, 2, -1, false, "[-Cfiquz] [-P pattern] off len [len..]",
     "submit a write", WRITE_HELP ZERO_HELP AIO_HELP, q2_shell_write},
    {"aio_flush", NULL, 0, 0, false, "", "wait for what was submitted", NULL,
     run_aio_flush},
    {"discard", "d", 2, -1, false, "[-Cq] off len",
     "tell that len bytes from off on are of no use",
     " -C  print bytes,operations,time,bytes/s,operations/s\n"
     " -q  print no statistics\n",
     run_discard},
    {"flush", "f", 0, 0, false, "", "make all that was written durable", NULL, run_flush},
    {"truncate", "t", 1, -1, false, "[-m prealloc_mode] off", "resize the disk",
     " -m  off, metadata, falloc or full: how new space is backed\n", run_truncate},
    {.name = NULL},
};
