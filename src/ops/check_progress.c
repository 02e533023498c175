// SPDX-License-Identifier: MIT
// Scans one behind the other as one progress.
#include "ops/check_progress.h"

#include <stddef.h>

#define UNITS 1000000U
// The part of what is left of a stage that its first scan gets: mostly it is the only
// one.
#define FIRST_SHARE 0.95
// And each further one.
#define NEXT_SHARE 0.5

static void tell(struct q2_check_progress *p)
{
    q2_monitor_progress(p->outer, (uint64_t)(p->now * UNITS), UNITS);
}

static void begin_scan(struct q2_check_progress *p, double share)
{
    p->from = p->now;
    p->to = p->now + (p->limit - p->now) * share;
    p->last = 0;
}

static void on_progress(void *opaque, uint64_t done, uint64_t total)
{
    struct q2_check_progress *p = opaque;
    double part = total > 0 ? (double)done / (double)total : 0;
    if (part < p->last)
        begin_scan(p, NEXT_SHARE);
    p->last = part;
    double now = p->from + (p->to - p->from) * part;
    if (now > p->now)
        p->now = now;
    tell(p);
}

static void on_warning(void *opaque, const char *text)
{
    const struct q2_check_progress *p = opaque;
    q2_monitor_warn(p->outer, "%s", text);
}

void q2_check_progress_start(struct q2_check_progress *p, const struct q2_monitor *outer)
{
    *p = (struct q2_check_progress){
        .monitor = {.opaque = p,
                    .progress = on_progress,
                    .warn = on_warning,
                    .cancel = outer ? outer->cancel : NULL},
        .outer = outer,
    };
}

void q2_check_progress_stage(struct q2_check_progress *p, double limit)
{
    p->now = p->limit > p->now ? p->limit : p->now;
    p->limit = limit;
    begin_scan(p, FIRST_SHARE);
    tell(p);
}
