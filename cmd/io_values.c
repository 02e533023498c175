// SPDX-License-Identifier: MIT
// io: numbers as they are read and printed.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "cmd/io.h"

bool q2_shell_size(const char *text, uint64_t *value)
{
    int rc = q2_size_parse(text, 1, NULL, value);
    if (rc == -ERANGE || (!rc && *value > INT64_MAX)) {
        printf("Parsing error: argument too large -- %s\n", text);
        return false;
    }
    if (rc)
        printf("Parsing error: non-numeric argument, or extraneous/unrecognized suffix "
               "-- %s\n",
               text);
    return !rc;
}

bool q2_shell_length(const char *text, const char *over, uint64_t *value)
{
    if (!q2_shell_size(text, value))
        return false;
    if (*value <= Q2_SHELL_MAX_BYTES)
        return true;
    printf("length cannot exceed %" PRIu64 "%s, given %s\n", Q2_SHELL_MAX_BYTES, over,
           text);
    return false;
}

bool q2_shell_pattern(const char *text, uint8_t *pattern)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 0);
    if (errno || end == text || *end || value < 0 || value > UINT8_MAX) {
        printf("%s is not a valid pattern byte\n", text);
        return false;
    }
    *pattern = (uint8_t)value;
    return true;
}

bool q2_shell_pieces(char *const *texts, int n, uint64_t *n_bytes)
{
    uint64_t sum = 0, one;
    for (int i = 0; i < n; i++) {
        if (!q2_shell_size(texts[i], &one))
            return false;
        if (one > Q2_SHELL_MAX_BYTES) {
            printf("Argument '%s' exceeds maximum size %" PRIu64 "\n", texts[i],
                   Q2_SHELL_MAX_BYTES);
            return false;
        }
        if (one > Q2_SHELL_MAX_BYTES - sum) {
            printf("The total number of bytes exceed the maximum size %" PRIu64 "\n",
                   Q2_SHELL_MAX_BYTES);
            return false;
        }
        sum += one;
    }
    *n_bytes = sum;
    return true;
}

// Whole numbers have no fraction, others three digits of it, and bytes six.
void q2_shell_format_size(double value, char text[Q2_SHELL_NUMBER_MAX])
{
    static const char *const units[] = {" bytes", " KiB", " MiB", " GiB",
                                        " TiB",   " PiB", " EiB"};
    size_t unit = 0;
    for (; value >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0]); unit++)
        value /= 1024;
    snprintf(text, Q2_SHELL_NUMBER_MAX / 2, unit ? "%.3f" : "%f", value);
    char *zeros = strstr(text, ".000");
    if (zeros)
        *zeros = '\0';
    size_t n = strlen(text);
    snprintf(text + n, Q2_SHELL_NUMBER_MAX - n, "%s", units[unit]);
}

void q2_shell_start(struct q2_shell_report *report)
{
    clock_gettime(CLOCK_MONOTONIC, &report->started);
}

static void format_time(double seconds, bool clock, char text[Q2_SHELL_NUMBER_MAX])
{
    unsigned whole = (unsigned)seconds;
    if (clock || whole)
        snprintf(text, Q2_SHELL_NUMBER_MAX, "%u:%02u:%02u.%02u", whole / 3600,
                 whole / 60 % 60, whole % 60, (unsigned)((seconds - whole) * 100));
    else
        snprintf(text, Q2_SHELL_NUMBER_MAX, "%05.2f sec", seconds);
}

void q2_shell_print_report(const struct q2_shell_report *r)
{
    struct timespec now;
    char time[Q2_SHELL_NUMBER_MAX], size[Q2_SHELL_NUMBER_MAX], rate[Q2_SHELL_NUMBER_MAX];
    if (r->quiet)
        return;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double seconds = (double)(now.tv_sec - r->started.tv_sec) +
                     (double)(now.tv_nsec - r->started.tv_nsec) / 1e9;
    if (seconds < 1e-9)
        seconds = 1e-9;
    format_time(seconds, r->terse, time);
    if (r->terse) {
        printf("%" PRIu64 ",1,%s,%.3f,%.3f\n", r->n_bytes, time,
               (double)r->n_bytes / seconds, 1 / seconds);
        return;
    }
    q2_shell_format_size((double)r->n_bytes, size);
    q2_shell_format_size((double)r->n_bytes / seconds, rate);
    printf("%s %" PRIu64 "/%" PRIu64 " bytes at offset %" PRIu64 "\n", r->done,
           r->n_bytes, r->n_bytes, r->offset);
    printf("%s, 1 ops; %s (%s/sec and %.4f ops/sec)\n", size, time, rate, 1 / seconds);
}

bool q2_shell_sectors(const struct q2_shell_report *r)
{
    bool offset = r->offset % 512 != 0;
    if (!offset && r->n_bytes % 512 == 0)
        return true;
    printf("%" PRIu64 " is not a sector-aligned value for '%s'\n",
           offset ? r->offset : r->n_bytes, offset ? "offset" : "count");
    return false;
}

int q2_shell_check_range(const struct q2_disk *d, uint64_t offset, uint64_t n_bytes,
                         struct q2_error *err)
{
    if (offset <= d->size && n_bytes <= d->size - offset)
        return 0;
    return q2_fail(err, -EIO, "%s", "");
}

int q2_shell_failed(const struct q2_shell *shell, const char *what,
                    const struct q2_error *err)
{
    printf("%s failed: %s\n", what, strerror(-err->code));
    if (err->message[0])
        q2_shell_print_error(shell, err);
    return err->code;
}
