// SPDX-License-Identifier: MIT
// Calling back whoever started a long operation, where somebody listens.
#include "base/monitor.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/error.h"

void q2_monitor_progress(const struct q2_monitor *mon, uint64_t done, uint64_t total)
{
    if (mon && mon->progress)
        mon->progress(mon->opaque, done, total);
}

void q2_monitor_warn(const struct q2_monitor *mon, const char *fmt, ...)
{
    if (!mon || !mon->warn)
        return;

    char text[Q2_ERROR_MESSAGE_MAX];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (n >= 0)
        mon->warn(mon->opaque, text);
}

void q2_monitor_note(const struct q2_monitor *mon, const char *fmt, ...)
{
    if (!mon || (!mon->note && !mon->warn))
        return;

    char text[Q2_ERROR_MESSAGE_MAX];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (n >= 0)
        (mon->note ? mon->note : mon->warn)(mon->opaque, text);
}

bool q2_monitor_cancelled(const struct q2_monitor *mon)
{
    return mon && mon->cancel && *mon->cancel;
}
