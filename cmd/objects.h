// SPDX-License-Identifier: MIT
// What --object defines: secrets. They are the whole process's, as all that its command
// line names.
#ifndef Q2_CMD_OBJECTS_H
#define Q2_CMD_OBJECTS_H

#include <stdbool.h>

#include "base/secret.h"

// The value of one --object: secret,id=ID,... or a JSON object. *help is true where it
// asked for help, which is printed.
int q2_object_take(const char *text, bool *help, struct q2_error *err);

// All secrets so far; NULL: there are none.
const struct q2_secrets *q2_object_secrets(void);

// Wipes them.
void q2_objects_clear(void);

// That libgcrypt, when it has no memory, says so by the program's name and ends it
// with 1.
void q2_objects_setup(const char *program);

#endif
