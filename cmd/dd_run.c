// SPDX-License-Identifier: MIT
// dd, the run: a conversion of a part of the source.
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cmd/dd.h"
#include "cmd/opening.h"
#include "cmd/progress.h"
#include "cmd/streams.h"
#include "image/chain.h"
#include "image/probe.h"
#include "image/slice.h"
#include "ops/convert.h"
#include "ops/create.h"
#include "ops/stream_out.h"

#define SECTOR 512U
#define SPARSE_GRAIN 4096U

struct copy {
    const struct q2_dd_settings *s;
    const struct q2_monitor *mon;
    struct q2_spool in, out; // of standard input and output
    struct q2_disk *source, *target;
    uint64_t size; // of the new disk
    bool made;
};

// A raw disk is whole sectors, its file need not be.
static int check_input_size(struct q2_disk *source, uint64_t size, struct q2_error *err)
{
    uint64_t has = source->size;
    int rc = strcmp(source->ops->format, "raw") != 0
                 ? 0
                 : q2_io_get_size(source->file, &has, err);
    if (!rc && size > has)
        rc = q2_fail(err, -EIO, "Input ended unexpectedly");
    return rc;
}

// What of the source is to be copied becomes the source.
static int cut_source(struct copy *c, const char *program, struct q2_error *err)
{
    const struct q2_dd_settings *s = c->s;
    uint64_t start, n_bytes, size = s->isize_given ? s->isize : c->source->size;
    struct q2_disk *part;
    int rc = s->isize_given ? check_input_size(c->source, size, err) : 0;
    if (rc)
        return rc;
    if (!q2_dd_part(&s->blocks, size, &start, &n_bytes))
        fprintf(stderr, "%s: %s: cannot skip to specified offset\n", program, s->input);
    c->size = s->osize_given ? s->osize : n_bytes;
    n_bytes = n_bytes < c->size ? n_bytes : c->size;
    rc = q2_slice_open(c->source, start, n_bytes, &part, err);
    if (!rc)
        c->source = part;
    return rc;
}

static int create_target(struct copy *c, const char *path, struct q2_error *err)
{
    struct q2_create_options options = Q2_CREATE_DEFAULTS;
    const struct q2_file_options file = {.no_flush = true}; // as convert
    options.format = c->s->output_format;
    options.size = (c->size + SECTOR - 1) / SECTOR * SECTOR;
    int rc = q2_create_open(path, &options, &file, c->mon, &c->target, &c->made, err);
    return rc ? q2_context(err, "%s: error while creating output image", c->s->output)
              : 0;
}

static int open_target(struct copy *c, const char *path, struct q2_error *err)
{
    const struct q2_open_options options = {.format = c->s->output_format,
                                            .writable = true};
    int rc = q2_open_named(path, false, &options, c->mon, &c->target, err);
    if (!rc && c->target->size < c->size)
        rc = q2_fail(err, -ENOSPC, "output file is smaller than input file");
    return rc;
}

static int fill_target(struct copy *c, const char *path, struct q2_error *err)
{
    bool no_create = c->s->no_create;
    int rc = no_create ? open_target(c, path, err) : create_target(c, path, err);
    if (rc)
        return rc;
    const struct q2_convert_options copy = {
        .target_is_zero = !no_create && (c->target->file->sparse_growth ||
                                         strcmp(c->s->output_format, "raw") != 0),
        .sparse_grain = SPARSE_GRAIN};
    rc = q2_convert(&c->source, 1, c->target, &copy, c->mon, err);
    if (!rc)
        rc = no_create ? q2_disk_finish(c->target, err)
                       : q2_create_publish(c->target, err);
    return rc;
}

static int fill_stream(struct copy *c, struct q2_error *err)
{
    int rc = q2_check_output_stream(err);
    if (rc)
        return rc;
    if (!strcmp(c->s->output_format, "raw"))
        return q2_stream_out(&c->source, 1, (c->size + SECTOR - 1) / SECTOR * SECTOR,
                             STDOUT_FILENO, c->mon, err);
    rc = q2_spool_open(&c->out, err);
    if (!rc)
        rc = fill_target(c, c->out.path, err);
    return rc ? rc : q2_spool_drain(&c->out, STDOUT_FILENO, c->mon, err);
}

// What of a stream has to be read. A stream that is an image is read as a whole.
static uint64_t most_input(const struct q2_command_line *line,
                           const struct q2_dd_settings *s)
{
    const char *format = line->common.format;
    uint64_t start, n_bytes;
    if (format && strcmp(format, "raw") != 0)
        return UINT64_MAX;
    q2_dd_part(&s->blocks, s->isize_given ? s->isize : UINT64_MAX, &start, &n_bytes);
    return start + n_bytes;
}

static int run_copy(struct copy *c, const struct q2_command_line *line,
                    struct q2_error *err)
{
    const struct q2_dd_settings *s = c->s;
    const struct q2_open_options options = {.beside_writer = true,
                                            .file = {.sequential = true}};
    const char *path = s->output;
    bool to_stream = q2_is_stream(s->output) && !s->no_create;
    int rc = q2_open_source(line, s->input, &options, &c->in, most_input(line, s), c->mon,
                            &c->source, err);
    if (!rc && !q2_format_known(s->output_format))
        rc = q2_fail(err, -EINVAL, "Unknown file format");
    if (!rc)
        rc = q2_new_path(s->output, &path, err);
    if (!rc && !to_stream && q2_chain_has_file(c->source, path))
        rc = q2_fail(err, -EINVAL, "'%s' cannot be the target: it is read for the copy",
                     path);
    if (!rc)
        rc = cut_source(c, line->program, err);
    if (rc)
        return rc;
    return to_stream ? fill_stream(c, err) : fill_target(c, path, err);
}

int q2_dd_copy(const struct q2_command_line *line, const struct q2_dd_settings *s,
               struct q2_error *err)
{
    struct q2_progress progress;
    struct copy c = {
        .s = s, .mon = &progress.monitor, .in = Q2_NO_SPOOL, .out = Q2_NO_SPOOL};
    q2_progress_start(&progress, line, false, 1);
    int rc = run_copy(&c, line, err);
    if (rc && c.target && !s->no_create)
        q2_create_abandon(c.target, c.made);
    else
        q2_disk_close(c.target);
    q2_disk_close(c.source);
    q2_spool_close(&c.in);
    q2_spool_close(&c.out);
    return rc;
}
