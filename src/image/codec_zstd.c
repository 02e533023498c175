// SPDX-License-Identifier: MIT
// zstd frames. Each is decompressed in one step straight into its place: no window is
// kept for it, so a frame that asks for a large one costs nothing.
#include "image/codec_private.h"

#include <errno.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "image/codec.h"

static int level_of(int level)
{
    switch (level) {
    case Q2_LEVEL_DEFAULT:
        return ZSTD_CLEVEL_DEFAULT;
    case Q2_LEVEL_FAST:
        return 1;
    case Q2_LEVEL_BEST:
        return 19;
    }
    return level;
}

static int zstd_open(int level, void **state, struct q2_error *err)
{
    ZSTD_CCtx *c = ZSTD_createCCtx();
    if (!c)
        return q2_fail_memory(err, sizeof(void *));
    size_t ret = ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, level_of(level));
    if (ZSTD_isError(ret)) {
        ZSTD_freeCCtx(c);
        return q2_fail(err, -EINVAL, "zstd cannot compress at level %d: %s", level,
                       ZSTD_getErrorName(ret));
    }
    *state = c;
    return 0;
}

static void zstd_close(void *state)
{
    ZSTD_freeCCtx(state);
}

static size_t zstd_compress(void *state, const void *in, size_t n_in, void *out,
                            size_t n_out)
{
    size_t n = ZSTD_compress2(state, out, n_out, in, n_in);
    return ZSTD_isError(n) ? 0 : n;
}

// Frames, one behind the other, until out is full. On failure: zstd's code.
static size_t decode_frames(ZSTD_DCtx *d, const char *in, size_t n_in, char *out,
                            size_t n_out, size_t *n_used, size_t *n_done)
{
    do {
        size_t left = n_in - *n_used;
        size_t length = ZSTD_findFrameCompressedSize(in + *n_used, left);
        if (ZSTD_isError(length))
            return length;
        size_t n =
            ZSTD_decompressDCtx(d, out + *n_done, n_out - *n_done, in + *n_used, length);
        if (ZSTD_isError(n))
            return n;
        *n_used += length;
        *n_done += n;
    } while (*n_done < n_out);
    return 0;
}

static int zstd_open_reader(void **state, struct q2_error *err)
{
    *state = ZSTD_createDCtx();
    return *state ? 0 : q2_fail_memory(err, sizeof(void *));
}

static void zstd_close_reader(void *state)
{
    ZSTD_freeDCtx(state);
}

static int zstd_decompress(void *state, const void *in, size_t n_in, void *out,
                           size_t n_out, bool *whole, size_t *n_used,
                           struct q2_error *err)
{
    size_t n_done = 0;
    *n_used = 0;
    size_t ret = decode_frames(state, in, n_in, out, n_out, n_used, &n_done);
    *whole = !ZSTD_isError(ret);
    if (*whole)
        return 0;
    const char *why = ZSTD_getErrorName(ret);
    if (ZSTD_getErrorCode(ret) == ZSTD_error_srcSize_wrong) {
        *n_used = n_in;
        why = "it ends too early";
    }
    return q2_fail(err, -EIO, "compressed data does not decompress: %s (zstd)", why);
}

const struct q2_codec q2_codec_zstd = {
    .open = zstd_open,
    .close = zstd_close,
    .open_reader = zstd_open_reader,
    .close_reader = zstd_close_reader,
    .compress = zstd_compress,
    .decompress = zstd_decompress,
};
