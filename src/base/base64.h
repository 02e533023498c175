// SPDX-License-Identifier: MIT
// Base64, as QEMU takes it.
#ifndef Q2_BASE_BASE64_H
#define Q2_BASE_BASE64_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

// Decodes in place; *n_bytes becomes the number of bytes that it stands for. Line ends
// may stand among the characters; fewer than four at the end stand for nothing.
int q2_base64_decode(uint8_t *text, size_t *n_bytes, struct q2_error *err);

#endif
