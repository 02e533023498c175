// SPDX-License-Identifier: MIT
// Compressed data that nobody names. Programs put one compressed cluster right behind the
// other, so the data of a damaged entry begins where another's ends, or with a host
// cluster of its own; and it inflates to exactly one cluster.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "check/scan.h"
#include "image/codec.h"

// More of them are not remembered.
#define MAX_STREAMS 65536U
// So many bytes are read in search of data that nobody names.
#define MAX_SEARCHED_BYTES (UINT64_C(1) << 30)

// The longest data an entry can name, from offset on, inside the file.
static size_t most_bytes(const struct q2_scan *s, uint64_t offset)
{
    uint64_t end = q2_scan_end(s, offset);
    uint64_t there = offset < end ? end - offset : 0;
    return (size_t)q2_min_u64(there, s->cluster_size);
}

// *whole: a cluster's stream begins at offset, and *n_used bytes are of it. Else so many
// were read before it broke, or before the end of the file.
static int try_stream(struct q2_scan *s, uint64_t offset, bool *whole, size_t *n_used,
                      struct q2_error *err)
{
    struct q2_error why = Q2_ERROR_INIT;
    size_t n = most_bytes(s, offset);
    *whole = false;
    *n_used = 0;
    if (n == 0)
        return 0;
    uint8_t *buf = malloc(n + s->cluster_size);
    if (!buf)
        return q2_fail_memory(err, n + s->cluster_size);
    int ret = q2_io_read(s->io, offset, buf, n, err);
    if (ret == 0)
        *whole = q2_decompress_whole(s->header.compression_type, buf, n, buf + n,
                                     s->cluster_size, n_used, &why) == 0;
    free(buf);
    return ret;
}

int q2_scan_measure(struct q2_scan *s, uint64_t offset, size_t *n_bytes,
                    struct q2_error *err)
{
    bool whole;
    int ret = try_stream(s, offset, &whole, n_bytes, err);
    if (!whole)
        *n_bytes = 0;
    return ret;
}

int q2_scan_is_cut(struct q2_scan *s, uint64_t offset, bool *yes, struct q2_error *err)
{
    bool whole;
    size_t n_used;
    int ret = try_stream(s, offset, &whole, &n_used, err);
    *yes = ret == 0 && !whole && n_used == most_bytes(s, offset);
    return ret;
}

int q2_scan_note_stream(struct q2_scan *s, uint64_t offset, uint64_t n_bytes,
                        struct q2_error *err)
{
    void *list = s->streams;
    if (s->n_streams >= MAX_STREAMS)
        return 0;
    int ret =
        q2_scan_grow(&list, &s->max_streams, s->n_streams, sizeof(*s->streams), err);
    if (ret < 0)
        return ret;
    s->streams = list;
    s->streams[s->n_streams++] = (struct q2_stream){offset, n_bytes};
    return 0;
}

static int by_offset(const void *a, const void *b)
{
    const struct q2_stream *x = a, *y = b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static bool is_known(const struct q2_scan *s, uint64_t offset)
{
    const struct q2_stream key = {offset, 0};
    return s->n_streams > 0 && bsearch(&key, s->streams, s->n_streams,
                                       sizeof(*s->streams), by_offset) != NULL;
}

// Is there a stream at offset that is missing from the counts?
static int try_place(struct q2_scan *s, uint64_t offset, struct q2_error *err)
{
    size_t n_bytes = 0;
    bool missed = false;
    if (s->n_unnamed >= Q2_MAX_UNNAMED || s->searched_bytes > MAX_SEARCHED_BYTES ||
        is_known(s, offset) || q2_scan_is_metadata(s, offset, 1))
        return 0;
    int ret = q2_scan_has_surplus(s, offset, 1, &missed, err);
    if (ret == 0 && missed) {
        s->searched_bytes += s->cluster_size;
        ret = q2_scan_measure(s, offset, &n_bytes, err);
    }
    if (ret == 0 && n_bytes > 0)
        ret = q2_scan_has_surplus(s, offset, n_bytes, &missed, err);
    if (ret == 0 && n_bytes > 0 && missed && !q2_scan_is_metadata(s, offset, n_bytes))
        s->unnamed[s->n_unnamed++] = (struct q2_stream){offset, n_bytes};
    return ret;
}

int q2_scan_find_unnamed(struct q2_scan *s, struct q2_error *err)
{
    int ret = 0;
    if (s->n_streams > 1)
        qsort(s->streams, s->n_streams, sizeof(*s->streams), by_offset);
    for (size_t i = 0; i < s->n_streams && ret == 0; i++)
        ret = try_place(s, s->streams[i].offset + s->streams[i].n_bytes, err);
    for (size_t i = 0; i < s->n_orphans && ret == 0; i++) {
        uint64_t offset = s->orphans[i] << s->cluster_bits;
        bool seen = false;
        for (size_t k = 0; k < s->n_unnamed; k++)
            seen |= s->unnamed[k].offset == offset;
        if (!seen)
            ret = try_place(s, offset, err);
    }
    return ret;
}

bool q2_scan_begins_unnamed(const struct q2_scan *s, uint64_t offset)
{
    for (size_t i = 0; i < s->n_unnamed; i++) {
        if (q2_align_down(s->unnamed[i].offset, s->cluster_size) == offset)
            return true;
    }
    return false;
}
