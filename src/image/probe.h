// SPDX-License-Identifier: MIT
// Telling formats by their first bytes.
#ifndef Q2_IMAGE_PROBE_H
#define Q2_IMAGE_PROBE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "io/io.h"

// Name of the disk image format that buf (the start of a file) looks like, be it one we
// read or not; NULL: none that is known, so raw.
const char *q2_probe_magic(const void *buf, size_t n_bytes);

// The format of a file: "qcow2" or "raw". An image of a format that is not ours is an
// error: its bytes are no guest's disk.
int q2_probe(struct q2_io *io, const char **format, struct q2_error *err);

// True if name is a format that we read and write ("raw", "qcow2").
bool q2_format_known(const char *name);

#endif
