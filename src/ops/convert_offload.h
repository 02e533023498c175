// SPDX-License-Identifier: MIT
// Copying data that does not pass through the process.
#ifndef Q2_OPS_CONVERT_OFFLOAD_H
#define Q2_OPS_CONVERT_OFFLOAD_H

#include "ops/convert_window.h"

// Is the data of this conversion left unread, to be copied from file to file? Not after
// it has failed once.
bool q2_offload_wanted(const struct q2_convert_job *job);

// Copies what was placed from the sources to the target, by reading and writing where
// there is no other way.
int q2_offload_placed(const struct q2_convert_job *job, struct q2_window *w,
                      const struct q2_placed *p, struct q2_error *err);

#endif
