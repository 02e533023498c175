// SPDX-License-Identifier: MIT
// How a long operation talks with whoever started it: progress, warnings, cancelling.
#ifndef Q2_BASE_MONITOR_H
#define Q2_BASE_MONITOR_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

// Every member may be NULL; so may a pointer to the struct. Callbacks may come from any
// thread of the operation, but never two at a time.
struct q2_monitor {
    void *opaque;
    // done of total units (bytes, mostly); called often, must be cheap.
    void (*progress)(void *opaque, uint64_t done, uint64_t total);
    // One line without a newline.
    void (*warn)(void *opaque, const char *text);
    // One line that is printed as it stands. NULL: warn gets it.
    void (*note)(void *opaque, const char *text);
    // Set by a signal handler: the operation stops at the next chance with -ECANCELED.
    const volatile sig_atomic_t *cancel;
};

void q2_monitor_progress(const struct q2_monitor *mon, uint64_t done, uint64_t total);
void q2_monitor_warn(const struct q2_monitor *mon, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void q2_monitor_note(const struct q2_monitor *mon, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
bool q2_monitor_cancelled(const struct q2_monitor *mon);

#endif
