// SPDX-License-Identifier: MIT
// Compressed clusters through zlib.
#include "image/codec.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <zlib.h>

// The format's readers inflate with this window: a distance above 4096 is refused.
#define WINDOW_BITS (-12)
#define MEMORY_LEVEL 9

struct q2_compressor {
    z_stream stream;
};

int q2_compressor_new(int level, struct q2_compressor **out, struct q2_error *err)
{
    struct q2_compressor *c = calloc(1, sizeof(*c));
    if (!c)
        return q2_fail_memory(err, sizeof(*c));
    int ret = deflateInit2(&c->stream, level == 0 ? Z_DEFAULT_COMPRESSION : level,
                           Z_DEFLATED, WINDOW_BITS, MEMORY_LEVEL, Z_DEFAULT_STRATEGY);
    if (ret != Z_OK) {
        free(c);
        return q2_fail(err, ret == Z_MEM_ERROR ? -ENOMEM : -EINVAL,
                       "zlib cannot compress at level %d (error %d)", level, ret);
    }
    *out = c;
    return 0;
}

void q2_compressor_free(struct q2_compressor *c)
{
    if (!c)
        return;
    deflateEnd(&c->stream);
    free(c);
}

size_t q2_compress(struct q2_compressor *c, const void *in, size_t n_bytes, void *out)
{
    z_stream *s = &c->stream;
    if (deflateReset(s) != Z_OK)
        return 0;
    s->next_in = (z_const Bytef *)in;
    s->avail_in = (uInt)n_bytes;
    s->next_out = out;
    s->avail_out = (uInt)(n_bytes - 1);
    return deflate(s, Z_FINISH) == Z_STREAM_END ? n_bytes - 1 - s->avail_out : 0;
}

// *whole: the stream ends with its last byte of output; *n_used: bytes of in.
static int inflate_to(const void *in, size_t n_in, void *out, size_t n_out, bool *whole,
                      size_t *n_used, struct q2_error *err)
{
    z_stream s = {.next_in = (z_const Bytef *)in,
                  .avail_in = (uInt)n_in,
                  .next_out = out,
                  .avail_out = (uInt)n_out};
    if (inflateInit2(&s, WINDOW_BITS) != Z_OK)
        return q2_fail_memory(err, n_out);
    int ret = inflate(&s, Z_FINISH);
    size_t n_left = s.avail_out;
    const char *why = s.msg ? s.msg : "it ends too early";
    *whole = ret == Z_STREAM_END && n_left == 0;
    *n_used = n_in - s.avail_in;
    // A stream whose last bytes are not needed (Z_BUF_ERROR with a full output) can be
    // read, too.
    if ((ret == Z_STREAM_END || ret == Z_BUF_ERROR) && n_left == 0) {
        inflateEnd(&s);
        return 0;
    }
    q2_fail(err, -EIO, "compressed data does not inflate: %s (%zu of %zu bytes missing)",
            why, n_left, n_out);
    inflateEnd(&s);
    return -EIO;
}

int q2_decompress(const void *in, size_t n_in, void *out, size_t n_out,
                  struct q2_error *err)
{
    bool whole;
    size_t n_used;
    return inflate_to(in, n_in, out, n_out, &whole, &n_used, err);
}

int q2_decompress_whole(const void *in, size_t n_in, void *out, size_t n_out,
                        size_t *n_used, struct q2_error *err)
{
    bool whole = false;
    int ret = inflate_to(in, n_in, out, n_out, &whole, n_used, err);
    if (ret == 0 && !whole)
        ret = q2_fail(err, -EIO, "compressed data does not end with its cluster");
    return ret;
}
