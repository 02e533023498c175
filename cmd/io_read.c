// SPDX-License-Identifier: MIT
// io: read, readv, aio_read. A request that qemu-io would leave under way is complete
// when its command ends.
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/zero.h"
#include "cmd/io.h"
#include "image/image.h"

struct request {
    struct q2_shell_report report;
    bool vm_state, dump, check, aio;
    uint8_t pattern;
    bool has_start, has_length;
    uint64_t check_start, check_length; // in the data that is read
};

static int take_letter(struct request *r, int letter)
{
    switch (letter) {
    case 'a': // of no meaning since long
    case 'p':
        return 0;
    case 'b':
        r->vm_state = true;
        return 0;
    case 'C':
        r->report.terse = true;
        return 0;
    case 'q':
        r->report.quiet = true;
        return 0;
    case 'v':
        r->dump = true;
        return 0;
    case 'P':
        r->check = true;
        return q2_shell_pattern(optarg, &r->pattern) ? 0 : -EINVAL;
    case 's':
        r->has_start = true;
        return q2_shell_size(optarg, &r->check_start) ? 0 : -EINVAL;
    case 'l':
        r->has_length = true;
        return q2_shell_size(optarg, &r->check_length) ? 0 : -EINVAL;
    }
    return 1; // none of these
}

// 1: the request was only to be counted as invalid.
static int parse_options(struct request *r, const struct q2_shell_command *self, int argc,
                         char **argv)
{
    const char *letters = !strcmp(self->name, "read")    ? "abCl:pP:qs:v"
                          : !strcmp(self->name, "readv") ? "CP:qv"
                                                         : "CP:iqv";
    int letter;
    while ((letter = getopt(argc, argv, letters)) != -1) {
        if (letter == 'i') {
            printf("injecting invalid read request\n");
            return 1;
        }
        int rc = take_letter(r, letter);
        if (rc)
            return rc < 0 ? rc : q2_shell_usage(self);
    }
    return 0;
}

static int parse_range(struct request *r, const struct q2_shell_command *self, int argc,
                       char **argv)
{
    bool pieces = strcmp(self->name, "read") != 0;
    if (pieces ? optind > argc - 2 : optind != argc - 2)
        return q2_shell_usage(self);
    if (!q2_shell_size(argv[optind], &r->report.offset))
        return -EINVAL;
    bool good =
        pieces ? q2_shell_pieces(argv + optind + 1, argc - optind - 1, &r->report.n_bytes)
               : q2_shell_length(argv[optind + 1], "", &r->report.n_bytes);
    if (!good)
        return -EINVAL;
    if (!r->check && (r->has_start || r->has_length))
        return q2_shell_usage(self);
    uint64_t n_bytes = r->report.n_bytes;
    if (r->check_start > n_bytes ||
        (r->has_length && r->check_length > n_bytes - r->check_start)) {
        printf("pattern verification range exceeds end of read data\n");
        return -EINVAL;
    }
    if (!r->has_length)
        r->check_length = n_bytes - r->check_start;
    return !r->vm_state || q2_shell_sectors(&r->report) ? 0 : -EINVAL;
}

// What a read found in no cluster of this layer is written there, whole clusters at a
// time.
static int copy_cluster(struct q2_disk *d, uint64_t start, uint64_t n_bytes, uint8_t *buf,
                        struct q2_error *err)
{
    int rc = q2_disk_read(d, start, buf, (size_t)n_bytes, err);
    if (rc)
        return rc;
    return q2_is_zero(buf, (size_t)n_bytes)
               ? q2_disk_write_zeroes(d, start, n_bytes, 0, err)
               : q2_disk_write(d, start, buf, (size_t)n_bytes, err);
}

static int copy_on_read(struct q2_disk *d, uint64_t offset, uint64_t n_bytes,
                        struct q2_error *err)
{
    uint64_t end = offset + n_bytes, next;
    uint32_t cluster = d->cluster_size;
    uint8_t *buf = cluster ? malloc(cluster) : NULL;
    if (!cluster) // raw: nothing is unallocated
        return 0;
    int rc = buf ? 0 : q2_fail_memory(err, cluster);
    for (uint64_t at = q2_align_down(offset, cluster); !rc && at < end; at = next) {
        struct q2_extent extent;
        uint64_t n = q2_min_u64(cluster, d->size - at);
        next = at + cluster;
        rc = q2_disk_status(d, at, n, &extent, err);
        if (!rc && !extent.allocated)
            rc = copy_cluster(d, at, n, buf, err);
    }
    free(buf);
    return rc;
}

static int read_data(struct q2_shell *shell, const struct request *r, uint8_t *buf,
                     struct q2_error *err)
{
    struct q2_disk *d = shell->disk;
    uint64_t offset = r->report.offset, n_bytes = r->report.n_bytes;
    if (r->vm_state) {
        if (d->ops != &q2_image_disk_ops)
            return q2_fail(err, -ENOTSUP, "%s", "");
        return q2_image_read_vmstate(q2_image_of(d), offset, buf, (size_t)n_bytes, err);
    }
    int rc = q2_shell_check_range(d, offset, n_bytes, err);
    if (!rc && shell->mode.copy_on_read)
        rc = copy_on_read(d, offset, n_bytes, err);
    return rc || !n_bytes ? rc : q2_disk_read(d, offset, buf, (size_t)n_bytes, err);
}

static int verify(const struct request *r, const uint8_t *buf)
{
    for (uint64_t i = 0; r->check && i < r->check_length; i++) {
        if (buf[r->check_start + i] == r->pattern)
            continue;
        printf("Pattern verification failed at offset %" PRIu64 ", %" PRIu64 " bytes\n",
               r->report.offset + r->check_start, r->check_length);
        return -EINVAL;
    }
    return 0;
}

static void dump_line(const uint8_t *bytes, size_t n, uint64_t offset)
{
    printf("%08" PRIx64 ":  ", offset);
    for (size_t i = 0; i < n; i++)
        printf("%02x ", bytes[i]);
    putchar(' ');
    for (size_t i = 0; i < n; i++)
        putchar(isalnum(bytes[i]) ? bytes[i] : '.');
    putchar('\n');
}

static void dump(const struct request *r, const uint8_t *buf)
{
    for (uint64_t i = 0; r->dump && i < r->report.n_bytes; i += 16)
        dump_line(buf + i, (size_t)q2_min_u64(16, r->report.n_bytes - i),
                  r->report.offset + i);
}

static int read_and_tell(struct q2_shell *shell, const struct q2_shell_command *self,
                         struct request *r)
{
    struct q2_error err = Q2_ERROR_INIT;
    uint8_t *buf = malloc(q2_to_size(r->report.n_bytes + 1));
    if (!buf)
        q2_fail_memory(&err, r->report.n_bytes);
    q2_shell_start(&r->report);
    if (!buf || read_data(shell, r, buf, &err)) {
        free(buf);
        return q2_shell_failed(shell, strcmp(self->name, "read") ? "readv" : "read",
                               &err);
    }
    int rc = verify(r, buf);
    if (!r->report.quiet)
        dump(r, buf);
    q2_shell_print_report(&r->report);
    free(buf);
    return rc;
}

int q2_shell_read(struct q2_shell *shell, const struct q2_shell_command *self, int argc,
                  char **argv)
{
    struct request r = {.report = {.done = "read"}, .aio = self->name[0] == 'a'};
    int rc = parse_options(&r, self, argc, argv);
    if (rc)
        return rc < 0 ? rc : 0;
    rc = parse_range(&r, self, argc, argv);
    if (rc)
        return rc;
    rc = read_and_tell(shell, self, &r);
    // What becomes of a request that was only submitted is not the command's failure.
    return r.aio ? 0 : rc;
}
