// SPDX-License-Identifier: MIT
// Building error messages in fixed buffers; too long ones are cut, never overrun.
#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

// The text is built aside: arguments may point into err itself.
static int fail_v(struct q2_error *err, int code, const char *suffix, const char *fmt,
                  va_list ap)
{
    char text[Q2_ERROR_MESSAGE_MAX];
    size_t suffix_len = strlen(suffix);
    size_t room = sizeof(text) - suffix_len;

    int n = vsnprintf(text, room, fmt, ap);
    size_t len = n < 0 ? 0 : (size_t)n < room ? (size_t)n : room - 1;
    memcpy(text + len, suffix, suffix_len + 1);

    err->code = code;
    memcpy(err->message, text, len + suffix_len + 1);
    err->hint[0] = '\0';
    return code;
}

int q2_fail(struct q2_error *err, int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fail_v(err, code, "", fmt, ap);
    va_end(ap);
    return code;
}

int q2_fail_errno(struct q2_error *err, int code, const char *fmt, ...)
{
    char buf[128];
    char suffix[160];
    // strerror_r: worker threads fail too
    snprintf(suffix, sizeof(suffix), ": %s", strerror_r(-code, buf, sizeof(buf)));

    va_list ap;
    va_start(ap, fmt);
    fail_v(err, code, suffix, fmt, ap);
    va_end(ap);
    return code;
}

#define REASON_BYTES 512U // of what is wrong

int q2_context(struct q2_error *err, const char *fmt, ...)
{
    char text[Q2_ERROR_MESSAGE_MAX];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof(text) - 2, fmt, ap);
    va_end(ap);
    if (n < 0)
        return err->code;

    // A long name, of an image that is described in a thousand levels, gives way to what
    // is wrong.
    size_t len = strlen(text), old = strlen(err->message);
    if (len + 2 + old > sizeof(err->message) - 1 && old < REASON_BYTES)
        len = sizeof(err->message) - 1 - 2 - REASON_BYTES;
    memcpy(text + len, ": ", 2);
    len += 2;

    if (old > sizeof(err->message) - 1 - len)
        old = sizeof(err->message) - 1 - len;
    memmove(err->message + len, err->message, old);
    memcpy(err->message, text, len);
    err->message[len + old] = '\0';
    return err->code;
}

int q2_hint(struct q2_error *err, const char *fmt, ...)
{
    char text[Q2_ERROR_HINT_MAX];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (n >= 0)
        memcpy(err->hint, text, strlen(text) + 1);
    return err->code;
}

int q2_fail_memory(struct q2_error *err, unsigned long long n_bytes)
{
    return q2_fail(err, -ENOMEM, "Could not allocate %llu bytes of memory", n_bytes);
}
