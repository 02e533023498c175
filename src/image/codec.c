// SPDX-License-Identifier: MIT
// Compressed clusters of either type.
#include "image/codec.h"

#include <errno.h>
#include <stdlib.h>

#include "image/codec_private.h"

struct q2_compressor {
    const struct q2_codec *codec;
    void *state;
};

struct q2_decompressor {
    const struct q2_codec *codec;
    void *state;
};

static const struct q2_codec *writer_of(enum q2_compression type, int level)
{
    if (type == Q2_COMPRESSION_ZSTD)
        return &q2_codec_zstd;
    return level == Q2_LEVEL_FAST ? Q2_CODEC_FAST_DEFLATE : &q2_codec_zlib;
}

static const struct q2_codec *reader_of(enum q2_compression type)
{
    return type == Q2_COMPRESSION_ZSTD ? &q2_codec_zstd : Q2_CODEC_FAST_DEFLATE;
}

int q2_compressor_new(enum q2_compression type, int level, struct q2_compressor **out,
                      struct q2_error *err)
{
    struct q2_compressor *c = calloc(1, sizeof(*c));
    if (!c)
        return q2_fail_memory(err, sizeof(*c));
    c->codec = writer_of(type, level);
    int ret = c->codec->open(level, &c->state, err);
    if (ret < 0) {
        free(c);
        return ret;
    }
    *out = c;
    return 0;
}

void q2_compressor_free(struct q2_compressor *c)
{
    if (!c)
        return;
    c->codec->close(c->state);
    free(c);
}

size_t q2_compress(struct q2_compressor *c, const void *in, size_t n_bytes, void *out)
{
    return c->codec->compress(c->state, in, n_bytes, out, n_bytes - 1);
}

static int new_reader(const struct q2_codec *codec, struct q2_decompressor **out,
                      struct q2_error *err)
{
    struct q2_decompressor *d = calloc(1, sizeof(*d));
    if (!d)
        return q2_fail_memory(err, sizeof(*d));
    d->codec = codec;
    int ret = d->codec->open_reader(&d->state, err);
    if (ret < 0) {
        free(d);
        return ret;
    }
    *out = d;
    return 0;
}

int q2_decompressor_new(enum q2_compression type, struct q2_decompressor **out,
                        struct q2_error *err)
{
    return new_reader(reader_of(type), out, err);
}

void q2_decompressor_free(struct q2_decompressor *d)
{
    if (!d)
        return;
    d->codec->close_reader(d->state);
    free(d);
}

int q2_decompress_with(struct q2_decompressor *d, const void *in, size_t n_in, void *out,
                       size_t n_out, struct q2_error *err)
{
    bool whole;
    size_t n_used;
    return d->codec->decompress(d->state, in, n_in, out, n_out, &whole, &n_used, err);
}

int q2_decompress(enum q2_compression type, const void *in, size_t n_in, void *out,
                  size_t n_out, struct q2_error *err)
{
    struct q2_decompressor *d;
    int ret = q2_decompressor_new(type, &d, err);
    if (ret < 0)
        return ret;
    ret = q2_decompress_with(d, in, n_in, out, n_out, err);
    q2_decompressor_free(d);
    return ret;
}

int q2_decompress_whole(enum q2_compression type, const void *in, size_t n_in, void *out,
                        size_t n_out, size_t *n_used, struct q2_error *err)
{
    struct q2_decompressor *d;
    bool whole = false;
    // Evidence of what the bytes are is the strictest reader's word.
    int ret = new_reader(writer_of(type, Q2_LEVEL_DEFAULT), &d, err);
    if (ret < 0)
        return ret;
    ret = d->codec->decompress(d->state, in, n_in, out, n_out, &whole, n_used, err);
    q2_decompressor_free(d);
    if (ret == 0 && !whole)
        ret = q2_fail(err, -EIO, "compressed data does not end with its cluster");
    return ret;
}
