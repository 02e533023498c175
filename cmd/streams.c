// SPDX-License-Identifier: MIT
// "-" as a name, and files that are read whole.
#include "cmd/streams.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/opening.h"

bool q2_is_stream(const char *name)
{
    return !strcmp(name, "-");
}

// A file that is read from its start can be read at any offset.
static bool input_is_file(void)
{
    struct stat st;
    return !fstat(STDIN_FILENO, &st) && S_ISREG(st.st_mode) &&
           lseek(STDIN_FILENO, 0, SEEK_CUR) == 0;
}

int q2_open_source(const struct q2_command_line *line, const char *text,
                   const struct q2_open_options *options, struct q2_spool *spool,
                   uint64_t max_bytes, const struct q2_monitor *mon, struct q2_disk **out,
                   struct q2_error *err)
{
    struct q2_open_options o = *options;
    if (!q2_is_stream(text) || line->common.image_opts)
        return q2_open_operand(line, text, options, NULL, out, err);
    o.format = line->common.format ? line->common.format : "raw";
    if (input_is_file())
        return q2_disk_open("/proc/self/fd/0", &o, out, err);
    if (spool->fd >= 0)
        return q2_fail(err, -EINVAL, "Standard input can be read only once");
    int rc = q2_spool_open(spool, err);
    if (!rc)
        rc = q2_spool_fill(spool, STDIN_FILENO, max_bytes, mon, err);
    return rc ? rc : q2_disk_open(spool->path, &o, out, err);
}

int q2_check_output_stream(struct q2_error *err)
{
    if (isatty(STDOUT_FILENO))
        return q2_fail(err, -EINVAL,
                       "Standard output is a terminal: no image is written to it");
    return 0;
}

FILE *q2_streams_open_file(const char *path)
{
    FILE *f;
    do
        f = fopen(path, "re");
    while (!f && errno == EINTR);
    return f;
}
