// SPDX-License-Identifier: MIT
// Raw deflate through zlib.
#include "image/codec_private.h"

#include <errno.h>
#include <stdlib.h>
#include <zlib.h>

#include "image/codec.h"

// The format's readers inflate with this window: a distance above 4096 is refused.
#define WINDOW_BITS (-12)
// Its hash table, which zlib walks through whenever the window moves on, suits a window
// that small: with a larger one it is slower, and no denser.
#define MEMORY_LEVEL 8

struct writer {
    z_stream stream;
    bool is_default;
};

static int level_of(int level)
{
    switch (level) {
    case Q2_LEVEL_DEFAULT:
        return 6;
    case Q2_LEVEL_FAST:
        return Z_BEST_SPEED;
    case Q2_LEVEL_BEST:
        return Z_BEST_COMPRESSION;
    }
    return level;
}

static int zlib_open(int level, void **state, struct q2_error *err)
{
    struct writer *w = calloc(1, sizeof(*w));
    if (!w)
        return q2_fail_memory(err, sizeof(*w));
    int ret = deflateInit2(&w->stream, level_of(level), Z_DEFLATED, WINDOW_BITS,
                           MEMORY_LEVEL, Z_DEFAULT_STRATEGY);
    if (ret != Z_OK) {
        free(w);
        return q2_fail(err, ret == Z_MEM_ERROR ? -ENOMEM : -EINVAL,
                       "zlib cannot compress at level %d (error %d)", level, ret);
    }
    w->is_default = level == Q2_LEVEL_DEFAULT;
    *state = w;
    return 0;
}

static void zlib_close(void *state)
{
    struct writer *w = state;
    deflateEnd(&w->stream);
    free(w);
}

// A reset takes the tuning away. zlib's own default level, but for lazier matches:
// they make up for what MEMORY_LEVEL, which saves time, costs of space.
static bool restart(struct writer *w)
{
    if (deflateReset(&w->stream) != Z_OK)
        return false;
    if (w->is_default)
        deflateTune(&w->stream, 8, 32, 258, 128);
    return true;
}

static size_t zlib_compress(void *state, const void *in, size_t n_in, void *out,
                            size_t n_out)
{
    struct writer *w = state;
    z_stream *s = &w->stream;
    if (!restart(w))
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
