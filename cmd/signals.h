// SPDX-License-Identifier: MIT
// Signals: a first one asks an operation to stop and clean up, a second one kills.
#ifndef Q2_CMD_SIGNALS_H
#define Q2_CMD_SIGNALS_H

#include <signal.h>
#include <stdbool.h>

// For every command: SIGPIPE is ignored (the write fails instead), SIGUSR1 asks for
// progress.
void q2_signals_setup(void);

// From here on SIGINT, SIGTERM and SIGHUP set the flag; where one is ignored already (as
// nohup does it) it stays so.
void q2_signals_catch(void);

// The flag for a struct q2_monitor.
const volatile sig_atomic_t *q2_signals_cancel(void);

// Holds these signals back (or lets them come, those held back first): for what should
// not be cut off in the middle.
void q2_signals_hold(bool on);

// The signal that set it; 0: none.
int q2_signals_caught(void);

// "SIGTERM"
const char *q2_signals_name(int number);

// Ends the process as that signal does by itself.
void q2_signals_die(int number);

// True once for each SIGUSR1.
bool q2_signals_take_progress(void);

#endif
