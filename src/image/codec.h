// SPDX-License-Identifier: MIT
// Compressed clusters: raw deflate with a window of 12 bits, as QEMU reads and writes
// them.
#ifndef Q2_IMAGE_CODEC_H
#define Q2_IMAGE_CODEC_H

#include <stddef.h>

#include "base/error.h"

struct q2_compressor;

// One compressor serves one thread. level 1 .. 9, 0: zlib's default.
int q2_compressor_new(int level, struct q2_compressor **out, struct q2_error *err);
void q2_compressor_free(struct q2_compressor *c);

// Compresses n_bytes at in to at most n_bytes - 1 at out. Returns the length, or 0 when
// the data does not shrink.
size_t q2_compress(struct q2_compressor *c, const void *in, size_t n_bytes, void *out);

// Inflates in (which may have bytes behind the end of the stream) to exactly n_out bytes.
// -EIO when the stream is broken or shorter than that.
int q2_decompress(const void *in, size_t n_in, void *out, size_t n_out,
                  struct q2_error *err);

// The same for a stream that ends where its output is full; *n_used bytes of in are of
// it.
int q2_decompress_whole(const void *in, size_t n_in, void *out, size_t n_out,
                        size_t *n_used, struct q2_error *err);

#endif
