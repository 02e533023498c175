// SPDX-License-Identifier: MIT
// Reading what an L2 table without a place maps, for marks in it.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "image/codec.h"
#include "recover/work.h"

// Read at a time: at least the largest mark, and a whole cluster.
#define WINDOW_BYTES ((size_t)65536)

// So much smaller can deflate make something.
#define MAX_RATIO 1032U

// One guest cluster; what cannot be read is zeros.
static int read_cluster(struct q2_work *w, const struct q2_reading *r, uint8_t *out,
                        uint8_t *packed, struct q2_error *err)
{
    size_t cluster_size = (size_t)q2_work_cluster_size(w);
    struct q2_error why = Q2_ERROR_INIT;
    if (r->kind == Q2_READS_PLACE)
        return q2_io_read(w->io, r->offset, out, cluster_size, err);
    int ret = q2_io_read(w->io, r->offset, packed, (size_t)r->n_bytes, err);
    if (ret == 0 && q2_decompress(w->found.layout.compression, packed, (size_t)r->n_bytes,
                                  out, cluster_size, &why) < 0)
        memset(out, 0, cluster_size);
    return ret;
}

int q2_work_begin_marks(struct q2_work *w, struct q2_error *err)
{
    q2_counters_free(w->looked);
    w->looked = q2_counters_new();
    w->n_inflated = 0;
    return w->looked ? 0 : q2_fail_memory(err, sizeof(w->looked));
}

// Was it not read before? Compressed ones are counted only: no more than could be in the
// file.
static int is_new(struct q2_work *w, const struct q2_reading *r, bool *yes,
                  struct q2_error *err)
{
    uint64_t cluster = r->offset >> w->found.layout.cluster_bits;
    *yes = true;
    if (!w->looked)
        return 0;
    if (r->kind == Q2_READS_PACKED) {
        *yes = w->n_inflated <= w->survey.file_size / q2_work_cluster_size(w) * MAX_RATIO;
        w->n_inflated += *yes;
        return 0;
    }
    *yes = q2_counters_get(w->looked, cluster) == 0;
    return *yes ? q2_counters_add(w->looked, cluster, 1, 1, err) : 0;
}

static int read_window(struct q2_work *w, const uint64_t *l2, size_t first, size_t n,
                       uint8_t *buf, bool *any, struct q2_error *err)
{
    size_t cluster_size = (size_t)q2_work_cluster_size(w), room = n * cluster_size;
    int ret = 0;
    *any = false;
    for (size_t i = 0; i < n && ret == 0; i++) {
        struct q2_reading r =
            q2_layout_judge(&w->found.layout, w->survey.file_size, l2, first + i);
        uint8_t *out = buf + i * cluster_size;
        bool has = r.kind == Q2_READS_PLACE || r.kind == Q2_READS_PACKED;
        if (has)
            ret = is_new(w, &r, &has, err);
        *any |= has;
        if (has && ret == 0)
            ret = read_cluster(w, &r, out, buf + room, err);
        else if (n > 1) // alone, nobody looks at it
            memset(out, 0, cluster_size);
    }
    return ret;
}

int q2_work_read_marks(struct q2_work *w, struct q2_marks *m, uint64_t table_offset,
                       size_t table, uint64_t n_bytes, struct q2_error *err)
{
    size_t cluster_size = (size_t)q2_work_cluster_size(w);
    size_t window = cluster_size > WINDOW_BYTES ? cluster_size : WINDOW_BYTES;
    size_t n = window / cluster_size, n_entries = q2_layout_entries(&w->found.layout);
    n = n < n_entries ? n : n_entries;
    size_t end =
        n_bytes ? (size_t)q2_min_u64(q2_div_round_up(n_bytes, cluster_size), n_entries)
                : n_entries;
    uint64_t *l2 = malloc(cluster_size);
    uint8_t *buf = malloc(n * cluster_size + 2 * cluster_size);
    int ret = l2 && buf ? q2_work_read(w, table_offset, err)
                        : q2_fail_memory(err, window + 3 * cluster_size);
    if (ret == 0)
        memcpy(l2, w->table, cluster_size);
    for (size_t i = 0; i < end && ret == 0; i += n) {
        bool any;
        ret = read_window(w, l2, i, n, buf, &any, err);
        if (ret == 0 && any)
            ret = q2_marks_look(m, table, (uint64_t)i << w->found.layout.cluster_bits,
                                buf, n * cluster_size, err);
    }
    free(l2);
    free(buf);
    return ret;
}

// Within one cluster.
static int read_part(struct q2_work *w, uint64_t table_offset, uint64_t in_table,
                     uint8_t *buf, size_t n_bytes, bool *has, struct q2_error *err)
{
    const struct q2_layout *l = &w->found.layout;
    size_t cluster_size = (size_t)1 << l->cluster_bits;
    size_t at = (size_t)(in_table % cluster_size);
    size_t n_words = l->extended ? 2 : 1;
    uint64_t words[2] = {0};
    int ret =
        q2_io_read(w->io, table_offset + (in_table >> l->cluster_bits) * n_words * 8,
                   words, n_words * 8, err);
    if (ret < 0)
        return ret;
    q2_table_decode(words, words, n_words);
    struct q2_reading r = q2_layout_judge(l, w->survey.file_size, words, 0);
    *has = r.kind == Q2_READS_PLACE || r.kind == Q2_READS_PACKED;
    if (r.kind == Q2_READS_PLACE)
        return q2_io_read(w->io, r.offset + at, buf, n_bytes, err);
    if (!*has)
        return 0;
    uint8_t *cluster = malloc(3 * cluster_size);
    if (!cluster)
        return q2_fail_memory(err, 3 * cluster_size);
    ret = read_cluster(w, &r, cluster, cluster + cluster_size, err);
    memcpy(buf, cluster + at, n_bytes);
    free(cluster);
    return ret;
}

int q2_work_read_in_table(struct q2_work *w, uint64_t table_offset, uint64_t in_table,
                          void *buf, size_t n_bytes, bool *has, struct q2_error *err)
{
    uint64_t cluster_size = q2_work_cluster_size(w);
    uint8_t *out = buf;
    int ret = 0;
    *has = true;
    for (size_t n; n_bytes > 0 && *has && ret == 0;
         n_bytes -= n, in_table += n, out += n) {
        n = (size_t)q2_min_u64(n_bytes, cluster_size - in_table % cluster_size);
        ret = read_part(w, table_offset, in_table, out, n, has, err);
    }
    return ret;
}

int q2_work_read_guest(struct q2_work *w, uint64_t guest_offset, void *buf,
                       size_t n_bytes, bool *has, struct q2_error *err)
{
    uint64_t span = UINT64_C(1) << q2_work_span_bits(w);
    uint8_t *out = buf;
    int ret = 0;
    *has = true;
    for (size_t n; n_bytes > 0 && *has && ret == 0;
         n_bytes -= n, guest_offset += n, out += n) {
        uint64_t index = guest_offset / span;
        n = (size_t)q2_min_u64(n_bytes, span - guest_offset % span);
        *has = index < w->n_l1 && (w->l1[index] & Q2_OFFSET_MASK) != 0;
        if (*has)
            ret = q2_work_read_in_table(w, w->l1[index] & Q2_OFFSET_MASK,
                                        guest_offset % span, out, n, has, err);
    }
    return ret;
}
