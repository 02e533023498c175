// SPDX-License-Identifier: MIT
// Compressed clusters: raw deflate with a window of 12 bits, or zstd, as QEMU reads and
// writes them.
#ifndef Q2_IMAGE_CODEC_H
#define Q2_IMAGE_CODEC_H

#include <stddef.h>

#include "base/error.h"
#include "disk/header.h"

struct q2_compressor;
struct q2_decompressor;

// Levels beside those that the library of the type counts (zlib's: 1 to 9).
enum {
    Q2_LEVEL_DEFAULT = 0,
    Q2_LEVEL_FAST = -1, // little time rather than little space
    Q2_LEVEL_BEST = -2, // little space, whatever it takes
};

// One compressor serves one thread. What it makes of some bytes does not depend on what
// it compressed before.
int q2_compressor_new(enum q2_compression type, int level, struct q2_compressor **out,
                      struct q2_error *err);
void q2_compressor_free(struct q2_compressor *c);

// Compresses n_bytes at in to at most n_bytes - 1 at out. Returns the length, or 0 when
// the data does not shrink.
size_t q2_compress(struct q2_compressor *c, const void *in, size_t n_bytes, void *out);

// One decompressor serves one thread.
int q2_decompressor_new(enum q2_compression type, struct q2_decompressor **out,
                        struct q2_error *err);
void q2_decompressor_free(struct q2_decompressor *d);

// Decompresses in (which may have bytes behind the end of the stream) to exactly n_out
// bytes. -EIO when the stream is broken, shorter or longer than that. Takes no more
// memory than the streams that QEMU writes need, whatever a stream asks for.
int q2_decompress_with(struct q2_decompressor *d, const void *in, size_t n_in, void *out,
                       size_t n_out, struct q2_error *err);
// With one that is made for it.
int q2_decompress(enum q2_compression type, const void *in, size_t n_in, void *out,
                  size_t n_out, struct q2_error *err);

// The same for a stream that ends where its output is full; *n_used bytes of in are of
// it. Of a stream that ends too early, all of in is.
int q2_decompress_whole(enum q2_compression type, const void *in, size_t n_in, void *out,
                        size_t n_out, size_t *n_used, struct q2_error *err);

#endif
