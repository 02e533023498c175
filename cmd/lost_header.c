// SPDX-License-Identifier: MIT
// Saying of a file that looks like an image without its header that recover may help. Not
// to those who want QEMU's own words.
#include "cmd/lost_header.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cmd/output.h"
#include "io/file.h"
#include "recover/glance.h"

#define LOST_TEXT "looks like a qcow2 image whose header is lost: see '%s recover'"

static bool is_asked(const char *program)
{
    return strcmp(program, "qemu-img") != 0;
}

void q2_lost_header_note(const struct q2_disk *d, const char *program)
{
    struct q2_error ignored = Q2_ERROR_INIT;
    bool lost;
    if (!d->probed_raw || !is_asked(program) ||
        q2_recover_glance(d->file, &lost, &ignored) < 0 || !lost)
        return;
    fprintf(stderr, "%s: '", program);
    q2_output_text(stderr, d->path);
    fprintf(stderr, "' " LOST_TEXT "\n", program);
}

void q2_lost_header_hint(const char *path, const char *program, struct q2_error *err)
{
    const struct q2_file_options options = {.lock = Q2_LOCK_NONE};
    struct q2_error ignored = Q2_ERROR_INIT;
    struct q2_io *io;
    bool lost;
    if (!is_asked(program) || err->hint[0] ||
        (err->code != -EINVAL && err->code != -ENOTSUP && err->code != -EFBIG) ||
        q2_file_open(path, &options, &io, &ignored) < 0)
        return;
    if (q2_recover_glance(io, &lost, &ignored) == 0 && lost)
        q2_hint(err, "It " LOST_TEXT, program);
    q2_io_close(io);
}
