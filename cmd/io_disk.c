// SPDX-License-Identifier: MIT
// io: what tells about the open disk, resizes it, or plays an accident.
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/info_output.h"
#include "cmd/io.h"
#include "cmd/output.h"
#include "image/image.h"

#define SECTOR 512U

static int run_length(struct q2_shell *shell, const struct q2_shell_command *self,
                      int argc, char **argv)
{
    char text[Q2_SHELL_NUMBER_MAX];
    (void)self;
    (void)argc;
    (void)argv;
    q2_shell_format_size((double)shell->disk->size, text);
    printf("%s\n", text);
    return 0;
}

static void print_run(uint64_t start, uint64_t n_bytes, bool allocated)
{
    char size[Q2_SHELL_NUMBER_MAX], offset[Q2_SHELL_NUMBER_MAX];
    q2_shell_format_size((double)n_bytes, size);
    q2_shell_format_size((double)start, offset);
    printf("%s (0x%" PRIx64 ") bytes %s allocated at offset %s (0x%" PRIx64 ")\n", size,
           n_bytes, allocated ? "   " : "not", offset, start);
}

// Neighbouring extents that are alike, as one.
static int find_run(struct q2_disk *d, uint64_t start, uint64_t end, uint64_t *n_bytes,
                    bool *allocated, struct q2_error *err)
{
    struct q2_extent e;
    *allocated = false;
    for (*n_bytes = 0; start + *n_bytes < end; *n_bytes += e.n_bytes) {
        uint64_t at = start + *n_bytes;
        int rc = q2_disk_status(d, at, end - at, &e, err);
        if (rc)
            return rc;
        if (at > start && e.allocated != *allocated)
            break;
        *allocated = e.allocated;
    }
    return 0;
}

static int run_map(struct q2_shell *shell, const struct q2_shell_command *self, int argc,
                   char **argv)
{
    struct q2_disk *d = shell->disk;
    struct q2_error err = Q2_ERROR_INIT;
    uint64_t n_bytes;
    bool allocated;
    (void)self;
    (void)argc;
    (void)argv;
    for (uint64_t at = 0; at < d->size; at += n_bytes) {
        if (find_run(d, at, d->size, &n_bytes, &allocated, &err)) {
            q2_shell_print_error(shell, &err);
            return err.code;
        }
        print_run(at, n_bytes, allocated);
    }
    return 0;
}

static int run_alloc(struct q2_shell *shell, const struct q2_shell_command *self,
                     int argc, char **argv)
{
    struct q2_disk *d = shell->disk;
    struct q2_error err = Q2_ERROR_INIT;
    char text[Q2_SHELL_NUMBER_MAX];
    uint64_t start, count = SECTOR, sum = 0, n_bytes;
    bool allocated;
    (void)self;
    if (!q2_shell_size(argv[1], &start) || (argc > 2 && !q2_shell_size(argv[2], &count)))
        return -EINVAL;
    if (start >= d->size)
        count = 0;
    else if (count > d->size - start)
        count = d->size - start;
    for (uint64_t at = start; at < start + count; at += n_bytes) {
        if (find_run(d, at, start + count, &n_bytes, &allocated, &err)) {
            q2_shell_print_error(shell, &err);
            return err.code;
        }
        sum += allocated ? n_bytes : 0;
    }
    q2_shell_format_size((double)start, text);
    printf("%" PRIu64 "/%" PRIu64 " bytes allocated at offset %s\n", sum, count, text);
    return 0;
}

static int print_specific(struct q2_image *img)
{
    const struct q2_info info = {.format = "qcow2",
                                 .filename = img->disk.path,
                                 .virtual_size = img->disk.size,
                                 .is_qcow2 = true,
                                 .full_backing_filename = img->header.backing_file,
                                 .header = img->header};
    struct q2_long_list list[Q2_INFO_LONG_LISTS];
    struct q2_long_lists lists = {.list = list};
    struct q2_error err = Q2_ERROR_INIT;
    json_t *json = q2_info_to_json(&info, &lists);
    if (!json)
        return -ENOMEM;
    printf("Format specific information:\n");
    const json_t *specific = json_object_get(json, "format-specific");
    int rc = q2_output_tree(json_object_get(specific, "data"), 4, &lists, &err);
    json_decref(json);
    return rc;
}

static int run_info(struct q2_shell *shell, const struct q2_shell_command *self, int argc,
                    char **argv)
{
    struct q2_disk *d = shell->disk;
    struct q2_image *img = d->ops == &q2_image_disk_ops ? q2_image_of(d) : NULL;
    char cluster[Q2_SHELL_NUMBER_MAX], state[Q2_SHELL_NUMBER_MAX];
    (void)self;
    (void)argc;
    (void)argv;
    uint64_t offset = 0;
    if (img)
        offset = q2_image_l1_entries(d->size, img->cluster_bits, img->l2_bits) *
                 q2_image_l2_span(img);
    q2_shell_format_size((double)d->cluster_size, cluster);
    q2_shell_format_size((double)offset, state);
    printf("format name: %s\ncluster size: %s\nvm state offset: %s\n", d->ops->format,
           cluster, state);
    return img ? print_specific(img) : 0;
}

static int run_sleep(struct q2_shell *shell, const struct q2_shell_command *self,
                     int argc, char **argv)
{
    char *end;
    (void)shell;
    (void)self;
    (void)argc;
    errno = 0;
    long ms = strtol(argv[1], &end, 0);
    if (errno || end == argv[1] || *end || ms < 0) {
        printf("%s is not a valid number\n", argv[1]);
        return -EINVAL;
    }
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (nanosleep(&left, &left) && errno == EINTR)
        ;
    return 0;
}

static int run_sigraise(struct q2_shell *shell, const struct q2_shell_command *self,
                        int argc, char **argv)
{
    uint64_t number;
    (void)shell;
    (void)self;
    (void)argc;
    if (!q2_shell_size(argv[1], &number))
        return -EINVAL;
    if (number > (uint64_t)SIGRTMAX) {
        printf("signal argument '%s' is too large to be a valid signal\n", argv[1]);
        return -EINVAL;
    }
    fflush(stdout);
    raise((int)number);
    return 0;
}

static int run_abort(struct q2_shell *shell, const struct q2_shell_command *self,
                     int argc, char **argv)
{
    (void)shell;
    (void)self;
    (void)argc;
    (void)argv;
    abort();
}

// There are breakpoints in no driver that is ours.
static int run_no_break(struct q2_shell *shell, const struct q2_shell_command *self,
                        int argc, char **argv)
{
    (void)shell;
    const char *name = self->name;
    const char *why = strerror(ENOTSUP);
    if (!strcmp(name, "break"))
        printf("Could not set breakpoint: %s\n", why);
    else if (!strcmp(name, "resume"))
        printf("Could not resume request: %s\n", why);
    else
        printf("Could not %s breakpoint %s: %s\n",
               strcmp(name, "wait_break") ? "remove" : "wait for", argv[argc - 1], why);
    return -ENOTSUP;
}

const struct q2_shell_command q2_shell_disk_commands[] = {
    {"length", "l", 0, 0, false, "", "print the size of the disk", NULL, run_length},
    {"map", NULL, 0, 0, false, "", "list which parts this layer has allocated", NULL,
     run_map},
    {"alloc", NULL, 1, 2, false, "offset [count]",
     "tell how many bytes this layer has allocated", NULL, run_alloc},
    {"info", "i", 0, 0, false, "", "describe the open image", NULL, run_info},
    {"sleep", NULL, 1, 1, true, "", "wait for so many milliseconds", NULL, run_sleep},
    {"sigraise", NULL, 1, 1, true, "signal", "send the program a signal", NULL,
     run_sigraise},
    {"abort", NULL, 0, 0, true, "", "crash: end at once, close nothing", NULL, run_abort},
    {"break", NULL, 2, 2, false, "event tag", "fails: there are no breakpoints", NULL,
     run_no_break},
    {"resume", NULL, 1, 1, false, "tag", "fails: there are no breakpoints", NULL,
     run_no_break},
    {"wait_break", NULL, 1, 1, false, "tag", "fails: there are no breakpoints", NULL,
     run_no_break},
    {"remove_break", NULL, 1, 1, false, "tag", "fails: there are no breakpoints", NULL,
     run_no_break},
    {.name = NULL},
};
