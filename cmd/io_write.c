// SPDX-License-Identifier: MIT
// io: write, writev, aio_write.
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "cmd/io_write.h"
#include "cmd/streams.h"

static int take_letter(struct q2_shell_writing *r, int letter)
{
    bool *const flags[] = {
        ['b'] = &r->vm_state, ['c'] = &r->compressed,  ['C'] = &r->report.terse,
        ['f'] = &r->durable,  ['n'] = &r->no_fallback, ['q'] = &r->report.quiet,
        ['u'] = &r->unmap,    ['z'] = &r->zeroes,
    };
    if (letter == 'p') // of no meaning since long
        return 0;
    if (letter == 's') {
        r->source = optarg;
        return 0;
    }
    if (letter == 'P') {
        r->has_pattern = true;
        return q2_shell_pattern(optarg, &r->pattern) ? 0 : -EINVAL;
    }
    if (letter >= (int)(sizeof(flags) / sizeof(flags[0])) || !flags[letter])
        return 1;
    *flags[letter] = true;
    return 0;
}

// 1: the request was only to be counted as invalid.
static int parse_options(struct q2_shell_writing *r, const struct q2_shell_command *self,
                         int argc, char **argv)
{
    const char *letters = !strcmp(self->name, "write")    ? "bcCfnpP:qs:uz"
                          : !strcmp(self->name, "writev") ? "CfP:q"
                                                          : "CfiP:quz";
    int letter;
    while ((letter = getopt(argc, argv, letters)) != -1) {
        if (letter == 'i') {
            printf("injecting invalid write request\n");
            return 1;
        }
        int rc = take_letter(r, letter);
        if (rc)
            return rc < 0 ? rc : q2_shell_usage(self);
    }
    return 0;
}

static int check_together(const struct q2_shell_writing *r, bool pieces, int n_lengths)
{
    const struct {
        bool wrong;
        const char *message;
    } rules[] = {
        {r->vm_state && r->zeroes, "-b and -z cannot be specified at the same time"},
        {r->durable && (r->vm_state || r->compressed),
         "-f and -b or -c cannot be specified at the same time"},
        {r->no_fallback && !r->zeroes, "-n requires -z to be specified"},
        {r->unmap && !r->zeroes, "-u requires -z to be specified"},
        {!pieces && r->zeroes + r->has_pattern + !!r->source > 1,
         "Only one of -z, -P, and -s can be specified at the same time"},
        {pieces && r->zeroes && n_lengths != 1,
         "-z supports only a single length parameter"},
    };
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        if (!rules[i].wrong)
            continue;
        printf("%s\n", rules[i].message);
        return -EINVAL;
    }
    return 0;
}

static int parse_range(struct q2_shell_writing *r, const struct q2_shell_command *self,
                       int argc, char **argv)
{
    bool pieces = strcmp(self->name, "write") != 0;
    uint64_t *n_bytes = &r->report.n_bytes;
    if (pieces ? optind > argc - 2 : optind != argc - 2)
        return q2_shell_usage(self);
    int rc = check_together(r, pieces, argc - optind - 1);
    if (rc)
        return rc;
    if (!q2_shell_size(argv[optind], &r->report.offset))
        return -EINVAL;
    bool good;
    if (pieces)
        good = q2_shell_pieces(argv + optind + 1, argc - optind - 1, n_bytes);
    else if (r->no_fallback) // no buffer, no limit
        good = q2_shell_size(argv[optind + 1], n_bytes);
    else
        good = q2_shell_length(argv[optind + 1], " without -n", n_bytes);
    if (good && (r->vm_state || r->compressed))
        good = q2_shell_sectors(&r->report);
    return good ? 0 : -EINVAL;
}

static int file_says(const char *path, const char *what)
{
    fprintf(stderr, "%s: %s\n", path, what);
    return -EIO;
}

// Fills the buffer with copies of a file.
static int fill_from(const char *path, uint8_t *buf, size_t n_bytes)
{
    FILE *file = q2_streams_open_file(path);
    if (!file)
        return file_says(path, strerror(errno));
    size_t n = fread(buf, 1, n_bytes, file);
    bool failed = ferror(file) != 0;
    fclose(file);
    if (failed || !n)
        return file_says(path, failed ? "file could not be read" : "file is empty");
    for (; n < n_bytes; n *= 2)
        memcpy(buf + n, buf, q2_min_size(n, n_bytes - n));
    return 0;
}

static int fill(const struct q2_shell_writing *r, uint8_t **buf)
{
    size_t n_bytes = q2_to_size(r->report.n_bytes);
    *buf = NULL;
    if (r->zeroes)
        return 0;
    *buf = malloc(q2_to_size(r->report.n_bytes + 1));
    if (!*buf) {
        printf("write failed: %s\n", strerror(ENOMEM));
        return -ENOMEM;
    }
    if (r->source)
        return n_bytes ? fill_from(r->source, *buf, n_bytes) : 0;
    memset(*buf, r->has_pattern ? r->pattern : 0xcd, n_bytes);
    return 0;
}

int q2_shell_write(struct q2_shell *shell, const struct q2_shell_command *self, int argc,
                   char **argv)
{
    struct q2_shell_writing r = {.report = {.done = "wrote"},
                                 .aio = self->name[0] == 'a'};
    struct q2_error err = Q2_ERROR_INIT;
    uint8_t *buf;
    int rc = parse_options(&r, self, argc, argv);
    if (rc)
        return rc < 0 ? rc : 0;
    rc = parse_range(&r, self, argc, argv);
    if (rc || !q2_shell_writable(shell))
        return rc ? rc : -EROFS;
    rc = fill(&r, &buf);
    q2_shell_start(&r.report);
    if (!rc) {
        rc = q2_shell_put(shell, &r, buf, &err);
        if (rc)
            q2_shell_failed(shell, self->name, &err);
        else
            q2_shell_print_report(&r.report);
    }
    free(buf);
    // What becomes of a request that was only submitted is not the command's failure.
    return r.aio ? 0 : rc;
}
