// SPDX-License-Identifier: MIT
// bench: how long many requests of one kind take.
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "cmd/choices.h"
#include "cmd/opening.h"
#include "cmd/options.h"
#include "cmd/progress.h"
#include "ops/bench.h"

enum { OPTION_PATTERN = Q2_OPTION_FIRST_OWN, OPTION_FLUSH_INTERVAL, OPTION_NO_DRAIN };

static const struct q2_option bench_options[] = {
    Q2_ROW_FORMAT,
    Q2_ROW_IMAGE_OPTS,
    {"cache", "t", "MODE", Q2_OPTION_CACHE, "Image", "cache mode (default: writeback)"},
    {"count", "c", "N", 'c', "Requests", "how many (default: 75000)"},
    {"depth", "d", "N", 'd', "Requests", "at most so many at a time (default: 64)"},
    {"offset", "o", "OFFSET", 'o', "Requests", "where the first goes (default: 0)"},
    {"buffer-size", "s", "SIZE", 's', "Requests", "bytes of each (default: 4k)"},
    {"step-size", "S", "SIZE", 'S', "Requests",
     "from one to the next (default: their size)"},
    {"write", "w", NULL, 'w', "Requests", "write: what is in the image is lost"},
    {"pattern", "", "BYTE", OPTION_PATTERN, "Requests", "what to write (default: 0)"},
    {"flush-interval", "", "N", OPTION_FLUSH_INTERVAL, "Requests",
     "writes between two flushes (default: none)"},
    {"no-drain", "", NULL, OPTION_NO_DRAIN, "Requests",
     "flush beside the writes, not after them"},
    {"aio", "i", "AIO", 'i', "Requests", "threads, or a queue: native, io_uring"},
    {"native", "n", NULL, 'n', "Requests", "as -i native"},
    Q2_ROW_SHARE,
    Q2_ROW_QUIET,
    Q2_ROW_OBJECT,
    Q2_ROW_END,
};

struct settings {
    struct q2_bench bench;
    bool native;
};

static int take_aio(struct settings *s, const char *value, struct q2_error *err)
{
    const struct q2_choice *c = q2_choice_find(q2_choices_aio, value);
    if (!c)
        return q2_fail(err, -EINVAL, "Invalid aio option: %s", value);
    s->native = c->value == Q2_AIO_NATIVE;
    s->bench.deep = c->value != Q2_AIO_THREADS;
    return 0;
}

static int take_size(const char *name, const char *value, uint64_t min, size_t *n_bytes,
                     struct q2_error *err)
{
    uint64_t n = 0;
    int rc = q2_value_size_in(name, value, min, INT_MAX, &n, err);
    *n_bytes = (size_t)n;
    return rc;
}

static int take_pattern(struct q2_bench *b, const char *value, struct q2_error *err)
{
    uint64_t byte = 0;
    int rc = q2_value_number("pattern byte", value, 0, UINT8_MAX, &byte, err);
    b->pattern = (uint8_t)byte;
    return rc;
}

static int take_option(struct q2_command_line *line, int code, const char *value,
                       struct q2_error *err)
{
    struct settings *s = line->settings;
    struct q2_bench *b = &s->bench;
    switch (code) {
    case 'c':
        return q2_value_number("request count", value, 1, INT_MAX, &b->count, err);
    case 'd':
        return q2_value_number("queue depth", value, 1, INT_MAX, &b->depth, err);
    case 'o':
        return q2_value_size("offset", value, &b->offset, err);
    case 's':
        return take_size("buffer size", value, 1, &b->n_bytes, err);
    case 'S':
        return q2_value_size_in("step size", value, 0, INT_MAX, &b->step, err);
    case OPTION_PATTERN:
        return take_pattern(b, value, err);
    case OPTION_FLUSH_INTERVAL:
        return q2_value_number("flush interval", value, 0, INT_MAX, &b->flush_interval,
                               err);
    case 'i':
        return take_aio(s, value, err);
    case 'n':
        s->native = true;
        break;
    case OPTION_NO_DRAIN:
        b->no_drain = true;
        break;
    case 'w':
        b->write = true;
        break;
    }
    return 0;
}

static int check_together(const struct q2_command_line *line,
                          struct q2_file_options *file, struct q2_error *err)
{
    const struct settings *s = line->settings;
    const struct q2_bench *b = &s->bench;
    if (b->flush_interval && !b->write)
        return q2_fail(err, -EINVAL, "--flush-interval is only available in write tests");
    if (b->flush_interval && b->flush_interval < b->depth)
        return q2_fail(err, -EINVAL, "Flush interval can't be smaller than depth");
    if (q2_value_cache(line->common.cache, false, file, err))
        return q2_fail(err, -EINVAL, "Invalid cache mode");
    if (s->native && !file->direct)
        return q2_fail(err, -EINVAL,
                       "Could not open '%s': aio=native was specified, but it requires "
                       "cache.direct=on, which was not specified.",
                       line->operands[0]);
    return 0;
}

static int run_and_tell(const struct q2_bench *b, struct q2_disk *d,
                        const struct q2_monitor *mon, struct q2_error *err)
{
    double seconds;
    printf("Sending %" PRIu64 " %s requests, %zu bytes each, %" PRIu64
           " in parallel (starting at offset %" PRIu64 ", step size %" PRIu64 ")\n",
           b->count, b->write ? "write" : "read", b->n_bytes, b->depth, b->offset,
           b->step);
    if (b->flush_interval)
        printf("Sending flush every %" PRIu64 " requests\n", b->flush_interval);
    fflush(stdout);
    int rc = q2_bench_run(d, b, mon, &seconds, err);
    if (!rc)
        printf("Run completed in %3.3f seconds.\n", seconds);
    return rc;
}

static int bench(const struct q2_command_line *line, struct q2_error *err)
{
    struct settings *s = line->settings;
    struct q2_bench *b = &s->bench;
    struct q2_open_options options = {.writable = b->write, .beside_writer = true};
    struct q2_progress progress;
    struct q2_error ignored = Q2_ERROR_INIT;
    struct q2_disk *d;
    int rc = check_together(line, &options.file, err);
    if (rc)
        return rc;
    b->step = b->step ? b->step : b->n_bytes;
    b->deep = b->deep || options.file.direct;
    q2_progress_start(&progress, line, false, 1);
    rc = q2_open_operand(line, line->operands[0], &options, &progress.monitor, &d, err);
    if (rc)
        return rc;
    if (b->write)
        q2_warn_of_probing(d);
    rc = run_and_tell(b, d, &progress.monitor, err);
    if (b->write) // also what went well before an error is kept
        rc = rc ? (q2_disk_finish(d, &ignored), rc) : q2_disk_finish(d, err);
    q2_disk_close(d);
    return rc;
}

static int bench_run(struct q2_command_line *line, struct q2_error *err)
{
    struct settings s = {.bench = {.count = 75000, .depth = 64, .n_bytes = 4096}};
    line->settings = &s;
    int rc = q2_options_parse(line, take_option, err);
    if (!rc)
        rc = q2_options_one_image(line, err);
    if (!rc)
        rc = bench(line, err);
    return rc < 0;
}

const struct q2_command q2_cmd_bench = {
    .name = "bench",
    .summary = "Tell how long many reads or writes take",
    .operands = "FILE",
    .options = bench_options,
    .examples = {"bench -c 10000 -s 64k disk.qcow2",
                 "bench -w --flush-interval 64 scratch.qcow2"},
    .writes = true,
    .run = bench_run,
};
