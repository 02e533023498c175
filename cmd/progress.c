// SPDX-License-Identifier: MIT
// Progress on stdout for -p, on stderr when SIGUSR1 asks for it.
#include "cmd/progress.h"

#include <stdio.h>

#include "cmd/signals.h"

static void show(struct q2_progress *p, double percent)
{
    p->shown_percent = percent;
    printf("    (%.2f/100%%)\r", percent);
    fflush(stdout);
}

static void on_progress(void *opaque, uint64_t done, uint64_t total)
{
    struct q2_progress *p = opaque;
    double percent = total ? 100.0 * (double)done / (double)total : 100.0;
    if (q2_signals_take_progress())
        fprintf(stderr, "    (%.2f/100%%)\n", percent);
    if (p->shown && (percent > p->shown_percent + p->step ||
                     (done == total && percent > p->shown_percent)))
        show(p, percent);
}

static void on_warning(void *opaque, const char *text)
{
    const struct q2_progress *p = opaque;
    if (!p->quiet)
        fprintf(stderr, "%s: warning: %s\n", p->program, text);
}

static void on_note(void *opaque, const char *text)
{
    (void)opaque;
    fprintf(stderr, "%s\n", text);
}

void q2_progress_start(struct q2_progress *p, const struct q2_command_line *line,
                       bool shown, double step)
{
    const struct q2_common_options *c = &line->common;
    *p = (struct q2_progress){
        .monitor = {.progress = on_progress,
                    .warn = on_warning,
                    .note = on_note,
                    .cancel = q2_signals_cancel()},
        .program = line->program,
        .shown = shown && c->progress && !c->quiet,
        .quiet = c->quiet,
        .step = step,
    };
    p->monitor.opaque = p;
    if (p->shown)
        show(p, 0);
}

void q2_progress_end(struct q2_progress *p, bool success)
{
    if (!p->shown)
        return;
    if (success)
        show(p, 100);
    putchar('\n');
    p->shown = false;
}
