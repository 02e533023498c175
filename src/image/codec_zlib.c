// SPDX-License-Identifier: MIT
// Raw deflate through zlib.
#include "image/codec_private.h"

#include <errno.h>
#include <stdlib.h>
#include <zlib.h>

// The format's readers inflate with this window: a distance above 4096 is refused.
#define WINDOW_BITS (-12)
#define MEMORY_LEVEL 9

static int zlib_open(int level, void **state, struct q2_error *err)
{
    z_stream *s = calloc(1, sizeof(*s));
    if (!s)
        return q2_fail_memory(err, sizeof(*s));
    int ret = deflateInit2(s, level == 0 ? Z_DEFAULT_COMPRESSION : level, Z_DEFLATED,
                           WINDOW_BITS, MEMORY_LEVEL, Z_DEFAULT_STRATEGY);
    if (ret != Z_OK) {
        free(s);
        return q2_fail(err, ret == Z_MEM_ERROR ? -ENOMEM : -EINVAL,
                       "zlib cannot compress at level %d (error %d)", level, ret);
    }
    *state = s;
    return 0;
}

static void zlib_close(void *state)
{
    deflateEnd(state);
    free(state);
}

static size_t zlib_compress(void *state, const void *in, size_t n_in, void *out,
                            size_t n_out)
{
    z_stream *s = state;
    if (deflateReset(s) != Z_OK)
        return 0;
    s->next_in = (z_const Bytef *)in;
    s->avail_in = (uInt)n_in;
    s->next_out = out;
    s->avail_out = (uInt)n_out;
    return deflate(s, Z_FINISH) == Z_STREAM_END ? n_out - s->avail_out : 0;
}

static int zlib_open_reader(void **state, struct q2_error *err)
{
    z_stream *s = calloc(1, sizeof(*s));
    if (!s || inflateInit2(s, WINDOW_BITS) != Z_OK) {
        free(s);
        return q2_fail_memory(err, sizeof(*s));
    }
    *state = s;
    return 0;
}

static void zlib_close_reader(void *state)
{
    inflateEnd(state);
    free(state);
}

static int zlib_decompress(void *state, const void *in, size_t n_in, void *out,
                           size_t n_out, bool *whole, size_t *n_used,
                           struct q2_error *err)
{
    z_stream *s = state;
    if (inflateReset(s) != Z_OK)
        return q2_fail(err, -EIO, "zlib is in no state to inflate");
    s->msg = NULL;
    s->next_in = (z_const Bytef *)in;
    s->avail_in = (uInt)n_in;
    s->next_out = out;
    s->avail_out = (uInt)n_out;
    int ret = inflate(s, Z_FINISH);
    *whole = ret == Z_STREAM_END && s->avail_out == 0;
    *n_used = n_in - s->avail_in;
    // A stream whose last bytes are not needed (Z_BUF_ERROR with a full output) can be
    // read, too.
    if ((ret == Z_STREAM_END || ret == Z_BUF_ERROR) && s->avail_out == 0)
        return 0;
    return q2_fail(err, -EIO,
                   "compressed data does not inflate: %s (%u of %zu bytes missing)",
                   s->msg ? s->msg : "it ends too early", s->avail_out, n_out);
}

const struct q2_codec q2_codec_zlib = {
    .open = zlib_open,
    .close = zlib_close,
    .open_reader = zlib_open_reader,
    .close_reader = zlib_close_reader,
    .compress = zlib_compress,
    .decompress = zlib_decompress,
};
