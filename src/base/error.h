// SPDX-License-Identifier: MIT
// Errors: every function that can fail returns 0 or a negative errno-style code and says
// in a struct q2_error what is wrong, with the values in it.
#ifndef Q2_BASE_ERROR_H
#define Q2_BASE_ERROR_H

#include <stdarg.h>

// Room for two paths of PATH_MAX and a sentence.
#define Q2_ERROR_MESSAGE_MAX 9216
#define Q2_ERROR_HINT_MAX 1024

// Filled by the function that fails, read once by the caller that gives up. Start with
// Q2_ERROR_INIT. A pointer to one is never NULL in this library.
struct q2_error {
    int code; // negative errno-style code, 0 while nothing failed
    char message[Q2_ERROR_MESSAGE_MAX]; // one line, no full stop, no newline at its end
    char hint[Q2_ERROR_HINT_MAX];       // lines to print under the message, "" if none
};

#define Q2_ERROR_INIT \
    {                 \
        .code = 0     \
    }

// Sets the message; drops an older one and its hint. code is negative and is returned.
int q2_fail(struct q2_error *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

// As q2_fail, with ": " and the text of -code (a system error) behind the message.
int q2_fail_errno(struct q2_error *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

// Puts "context: " before the message that is there; returns its code.
int q2_context(struct q2_error *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

// Sets the hint (lines below the message); returns the code that is there.
int q2_hint(struct q2_error *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

// -ENOMEM with a message that names the size.
int q2_fail_memory(struct q2_error *err, unsigned long long n_bytes);

#endif
