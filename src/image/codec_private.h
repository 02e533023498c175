// SPDX-License-Identifier: MIT
// What a type of compression provides; for codec*.c alone.
#ifndef Q2_IMAGE_CODEC_PRIVATE_H
#define Q2_IMAGE_CODEC_PRIVATE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct q2_codec {
    // *state is what compress, or decompress, works with, in one thread.
    int (*open)(int level, void **state, struct q2_error *err);
    void (*close)(void *state);
    int (*open_reader)(void **state, struct q2_error *err);
    void (*close_reader)(void *state);
    // To at most n_out bytes; 0: they are not enough.
    size_t (*compress)(void *state, const void *in, size_t n_in, void *out, size_t n_out);
    // Fills out. *whole: the stream ends with its last byte of output; *n_used: bytes of
    // in that were looked at.
    int (*decompress)(void *state, const void *in, size_t n_in, void *out, size_t n_out,
                      bool *whole, size_t *n_used, struct q2_error *err);
};

extern const struct q2_codec q2_codec_zlib, q2_codec_zstd;

// Deflate at Q2_LEVEL_FAST, and what inflates whatever the level was.
#ifdef Q2_HAVE_ISAL
extern const struct q2_codec q2_codec_isal;
#define Q2_CODEC_FAST_DEFLATE (&q2_codec_isal)
#else
#define Q2_CODEC_FAST_DEFLATE (&q2_codec_zlib)
#endif

#endif
