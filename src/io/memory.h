// SPDX-License-Identifier: MIT
// A file that lives in memory, sparse: for tests and fuzzing.
#ifndef Q2_IO_MEMORY_H
#define Q2_IO_MEMORY_H

#include "io/io.h"

// A new memory file holding a copy of n_bytes at data (data may be NULL if n_bytes is 0).
// Holds memory only for 4 KiB pages that were written.
int q2_memory_open(const char *name, const void *data, size_t n_bytes, struct q2_io **out,
                   struct q2_error *err);

#endif
