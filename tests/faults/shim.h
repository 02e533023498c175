// SPDX-License-Identifier: MIT
// What the files of the library share: is this the call that is to fail?
#ifndef Q2_TESTS_FAULTS_SHIM_H
#define Q2_TESTS_FAULTS_SHIM_H

#include <stdatomic.h>
#include <stdbool.h>

#include "calls.h"

#define HIDDEN __attribute__((visibility("hidden")))

// Nothing counts that is called from here.
extern HIDDEN _Thread_local bool inside __attribute__((tls_model("initial-exec")));
// Writes that are to fail do nothing instead, and say nothing.
extern HIDDEN bool lies;

// 0, or the code that this call fails with; in mode SHORT -1: it is to do a part.
HIDDEN int fault(int call);
// The same, of calls that set errno.
HIDDEN bool fails(int call);
// A line for the log.
HIDDEN void say(const char *a, const char *b);
// Streams on top of the calls here.
HIDDEN void renew_stdout(void);

HIDDEN void *find(const char *name);
#define REAL(name) ((__typeof__(&(name)))find(#name))

#endif
