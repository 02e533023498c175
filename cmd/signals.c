// SPDX-License-Identifier: MIT
// Signal handlers that only set flags.
#include "cmd/signals.h"

#include <stddef.h>
#include <string.h>

static const int stopping[] = {SIGINT, SIGTERM, SIGHUP};
static volatile sig_atomic_t cancel;
static volatile sig_atomic_t caught;
static volatile sig_atomic_t progress_wanted;

static void on_stop(int number)
{
    caught = number;
    cancel = 1;
}

static void on_progress(int number)
{
    (void)number;
    progress_wanted = 1;
}

static void install(int number, void (*handler)(int), int flags)
{
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = handler;
    action.sa_flags = flags;
    sigemptyset(&action.sa_mask);
    sigaction(number, &action, NULL);
}

void q2_signals_setup(void)
{
    install(SIGPIPE, SIG_IGN, 0);
    install(SIGUSR1, on_progress, SA_RESTART);
}

void q2_signals_catch(void)
{
    for (size_t i = 0; i < sizeof(stopping) / sizeof(stopping[0]); i++) {
        struct sigaction old;
        if (!sigaction(stopping[i], NULL, &old) && old.sa_handler == SIG_IGN)
            continue;
        // RESETHAND: the second one does what it does by default.
        install(stopping[i], on_stop, (int)SA_RESETHAND | SA_RESTART);
    }
}

void q2_signals_hold(bool on)
{
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof(stopping) / sizeof(stopping[0]); i++)
        sigaddset(&set, stopping[i]);
    pthread_sigmask(on ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL);
}

const volatile sig_atomic_t *q2_signals_cancel(void)
{
    return &cancel;
}

int q2_signals_caught(void)
{
    return caught;
}

const char *q2_signals_name(int number)
{
    return number == SIGINT ? "SIGINT" : number == SIGHUP ? "SIGHUP" : "SIGTERM";
}

void q2_signals_die(int number)
{
    install(number, SIG_DFL, 0);
    raise(number);
}

bool q2_signals_take_progress(void)
{
    bool wanted = progress_wanted;
    progress_wanted = 0;
    return wanted;
}
