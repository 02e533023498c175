// SPDX-License-Identifier: MIT
// Telling how a file is laid out from the tables in it.
#include "recover/layout.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/counters.h"
#include "base/endian.h"
#include "disk/refcount.h"
#include "disk/subcluster.h"
#include "image/codec.h"

// Of each layout so many compressed clusters are tried.
#define MAX_TRIED 32U
// So many entries at even places, and none at odd ones, are no chance.
#define MIN_EVEN 8U

void q2_hints_read(const uint8_t header[Q2_HEADER_V3_BYTES], uint64_t file_size,
                   struct q2_hints *h)
{
    *h = (struct q2_hints){
        .version = q2_load_be32(header + 4),
        .cluster_bits = q2_load_be32(header + 20),
        .size = q2_load_be64(header + 24),
        .crypt_method = q2_load_be32(header + 32),
        .l1_size = q2_load_be32(header + 36),
        .l1_table_offset = q2_load_be64(header + 40),
        .refcount_table_offset = q2_load_be64(header + 48),
        .refcount_table_clusters = q2_load_be32(header + 56),
        .nb_snapshots = q2_load_be32(header + 60),
        .snapshots_offset = q2_load_be64(header + 64),
        .refcount_order = q2_load_be32(header + 96),
    };
    h->features = h->version >= 3 ? q2_load_be64(header + 72) : 0;
    h->has_magic = q2_load_be32(header) == Q2_MAGIC;
    h->has_version = h->version == 2 || h->version == 3;
    h->has_cluster_bits =
        h->cluster_bits >= Q2_MIN_CLUSTER_BITS && h->cluster_bits <= Q2_MAX_CLUSTER_BITS;
    h->has_size = h->size > 0 && h->size < INT64_MAX;
    h->has_crypt = h->crypt_method <= Q2_CRYPT_LUKS;
    h->has_l1 = h->l1_size > 0 && h->l1_size <= Q2_MAX_L1_BYTES / 8 &&
                h->l1_table_offset > 0 && h->l1_table_offset < file_size &&
                q2_is_aligned(h->l1_table_offset, Q2_SURVEY_BLOCK);
    h->has_snapshots = h->nb_snapshots > 0 && h->nb_snapshots <= Q2_MAX_SNAPSHOTS &&
                       h->snapshots_offset > 0 && h->snapshots_offset < file_size &&
                       q2_is_aligned(h->snapshots_offset, Q2_SURVEY_BLOCK);
    h->has_refcounts = h->refcount_table_offset > 0 &&
                       h->refcount_table_offset < file_size &&
                       q2_is_aligned(h->refcount_table_offset, Q2_SURVEY_BLOCK) &&
                       h->refcount_table_clusters > 0;
    h->has_features =
        h->has_magic && h->has_version && (h->features & ~Q2_INCOMPAT_KNOWN) == 0;
    h->has_order = h->version >= 3 && h->refcount_order <= Q2_MAX_REFCOUNT_ORDER;
}

// In an external data file each cluster has the offset that it has on the guest's disk.
static struct q2_reading judge_guest_offset(const struct q2_layout *l, size_t index,
                                            uint64_t raw, struct q2_reading r)
{
    uint64_t cluster = r.offset >> l->cluster_bits;
    if (r.offset == 0 && !(raw & Q2_FLAG_COPIED)) {
        r.kind = Q2_READS_EMPTY;
    } else if (q2_is_aligned(r.offset, UINT64_C(1) << l->cluster_bits) &&
               r.offset < l->data_size && cluster % q2_layout_entries(l) == index) {
        r.kind = Q2_READS_PLACE;
        r.n_bytes = UINT64_C(1) << l->cluster_bits;
    }
    return r;
}

struct q2_reading q2_layout_judge(const struct q2_layout *l, uint64_t file_size,
                                  const uint64_t *table, size_t index)
{
    uint64_t cluster_size = UINT64_C(1) << l->cluster_bits;
    uint64_t beyond = q2_beyond_limit(file_size);
    uint64_t raw = table[l->extended ? 2 * index : index];
    uint64_t bitmap = l->extended ? table[2 * index + 1] : 0;
    struct q2_reading r = {.kind = Q2_READS_EMPTY};
    if ((raw | bitmap) == 0)
        return r;
    struct q2_l2_entry e =
        l->extended ? q2_l2_decode_extended(raw, bitmap, l->cluster_bits, false)
                    : q2_l2_decode(raw, l->cluster_bits, 3);
    r.copied = e.copied;
    r.plain = (raw & Q2_L1_RESERVED) == 0;
    r.kind = Q2_READS_BAD;
    if (e.kind == Q2_CLUSTER_COMPRESSED) {
        r.offset = e.host_offset;
        r.n_bytes = e.n_bytes;
        // Its last sector may be one that the file does not have whole.
        bool fits = r.offset >= cluster_size && r.offset < beyond &&
                    r.n_bytes <= 2 * cluster_size && !e.copied && bitmap == 0;
        if (fits)
            r.kind = r.offset < file_size ? Q2_READS_PACKED : Q2_READS_BEYOND;
        return r;
    }
    if ((raw & Q2_L2_RESERVED) || e.kind == Q2_CLUSTER_INVALID)
        return r;
    r.offset = raw & Q2_OFFSET_MASK;
    if (l->data_size > 0)
        return judge_guest_offset(l, index, raw, r);
    r.n_bytes = r.offset ? cluster_size : 0;
    if (q2_is_aligned(r.offset, cluster_size) && r.offset < beyond)
        r.kind = r.offset == 0          ? Q2_READS_EMPTY
                 : r.offset < file_size ? Q2_READS_PLACE
                                        : Q2_READS_BEYOND;
    return r;
}

static int inflates(const struct q2_survey *s, const struct q2_reading *r,
                    unsigned cluster_bits, enum q2_compression type, bool *yes,
                    struct q2_error *err)
{
    struct q2_error why = Q2_ERROR_INIT;
    size_t cluster_size = (size_t)1 << cluster_bits;
    uint8_t *buf = malloc((size_t)r->n_bytes + cluster_size);
    if (!buf)
        return q2_fail_memory(err, (size_t)r->n_bytes + cluster_size);
    int ret = q2_io_read(s->io, r->offset, buf, (size_t)r->n_bytes, err);
    *yes = ret == 0 && q2_decompress(type, buf, (size_t)r->n_bytes, buf + r->n_bytes,
                                     cluster_size, &why) == 0;
    free(buf);
    return ret;
}

// What trying a layout has shown so far.
struct trial {
    struct q2_layout layout;
    struct q2_counters *seen; // clusters that an entry led to
    unsigned n_tried, n_zlib, n_zstd;
    uint64_t packed_bytes, n_packed;
    bool odd; // compressed clusters at odd places of tables
};

static int try_packed(const struct q2_survey *s, struct trial *t,
                      const struct q2_reading *r, struct q2_error *err)
{
    bool zlib = false, zstd = false;
    t->packed_bytes += r->n_bytes;
    if (t->n_tried >= MAX_TRIED)
        return 0;
    t->n_tried++;
    int ret = inflates(s, r, t->layout.cluster_bits, Q2_COMPRESSION_ZLIB, &zlib, err);
    if (ret == 0 && !zlib)
        ret = inflates(s, r, t->layout.cluster_bits, Q2_COMPRESSION_ZSTD, &zstd, err);
    t->n_zlib += zlib;
    t->n_zstd += zstd;
    return ret;
}

static int try_table(const struct q2_survey *s, struct trial *t, uint64_t *table,
                     struct q2_error *err)
{
    size_t n = q2_layout_entries(&t->layout), n_bad = 0, n_used = 0;
    for (size_t i = 0; i < n; i++) {
        struct q2_reading r = q2_layout_judge(&t->layout, s->file_size, table, i);
        n_used += r.kind != Q2_READS_EMPTY;
        n_bad += r.kind == Q2_READS_BAD;
    }
    if (n_bad * 16 > n_used)
        return 0;
    int ret = 0;
    for (size_t i = 0; i < n && ret == 0; i++) {
        struct q2_reading r = q2_layout_judge(&t->layout, s->file_size, table, i);
        uint64_t cluster = r.offset >> t->layout.cluster_bits;
        t->n_packed += r.kind == Q2_READS_PACKED;
        t->odd |= r.kind == Q2_READS_PACKED && i % 2 != 0;
        if (r.kind == Q2_READS_PACKED) {
            ret = try_packed(s, t, &r, err);
        } else if (r.kind == Q2_READS_PLACE && q2_counters_get(t->seen, cluster) == 0) {
            t->layout.covered += r.n_bytes;
            ret = q2_counters_add(t->seen, cluster, 1, 1, err);
        }
    }
    return ret;
}

// How much of the file would make sense?
static int try_layout(const struct q2_survey *s, struct trial *t, uint64_t *table,
                      struct q2_error *err)
{
    unsigned class = t->layout.extended ? Q2_BLOCK_EXTENDED : Q2_BLOCK_PLAIN;
    size_t cluster_size = (size_t)1 << t->layout.cluster_bits, index = 0;
    uint64_t offset = cluster_size; // the header is no table
    int ret = 0;
    t->seen = q2_counters_new();
    if (!t->seen)
        return q2_fail_memory(err, sizeof(*t));
    while (ret == 0 &&
           q2_survey_next(s, t->layout.cluster_bits, class, &index, &offset)) {
        ret = q2_io_read(s->io, offset, table, cluster_size, err);
        if (ret == 0) {
            q2_table_decode(table, table, cluster_size / 8);
            ret = try_table(s, t, table, err);
        }
        offset += cluster_size;
    }
    q2_counters_free(t->seen);
    unsigned n = t->n_zlib + t->n_zstd;
    if (ret == 0 && n * 2 > t->n_tried) {
        t->layout.has_compressed = true;
        t->layout.compression =
            t->n_zstd > t->n_zlib ? Q2_COMPRESSION_ZSTD : Q2_COMPRESSION_ZLIB;
        t->layout.covered += t->packed_bytes;
    }
    return ret;
}

// Where all is compressed, tables with subclusters read as tables without, too: then no
// odd word of them is used.
static bool is_extended(const struct q2_hints *h, const struct trial *plain)
{
    if (h->has_features)
        return (h->features & Q2_INCOMPAT_EXTENDED_L2) != 0;
    return !plain->odd && plain->n_packed >= MIN_EVEN;
}

// What the header says needs less to be believed.
static uint64_t score_of(const struct q2_hints *h, const struct trial *t)
{
    bool hinted = h->has_cluster_bits && h->cluster_bits == t->layout.cluster_bits;
    return t->layout.covered + (hinted ? t->layout.covered / 2 : 0);
}

// Both kinds of entries with this cluster size: the better one, and its score.
static int try_both(const struct q2_survey *s, const struct q2_hints *hints,
                    const struct q2_layout *given, uint64_t *table, struct q2_layout *out,
                    uint64_t *score, struct q2_error *err)
{
    struct trial plain = {.layout = *given}, extended = {.layout = *given};
    unsigned bits = given->cluster_bits;
    extended.layout.extended = true;
    int ret = try_layout(s, &plain, table, err);
    if (ret == 0 && bits >= Q2_MIN_EXTENDED_CLUSTER_BITS)
        ret = try_layout(s, &extended, table, err);
    uint64_t a = score_of(hints, &plain), b = score_of(hints, &extended);
    bool second = b > a || (b == a && is_extended(hints, &plain));
    *out = second ? extended.layout : plain.layout;
    *score = second ? b : a;
    return ret;
}

int q2_layout_fail(const struct q2_io *io, struct q2_error *err)
{
    return q2_fail(err, -ENOENT, "There is no qcow2 table in '%s'", io->name);
}

int q2_layout_find(const struct q2_survey *s, const struct q2_hints *hints,
                   const struct q2_layout *given, struct q2_layout *out,
                   struct q2_error *err)
{
    uint64_t *table = malloc((size_t)1 << Q2_MAX_CLUSTER_BITS);
    uint64_t best = 0;
    int ret = table ? 0 : q2_fail_memory(err, (size_t)1 << Q2_MAX_CLUSTER_BITS);
    for (unsigned bits = Q2_MIN_CLUSTER_BITS; bits <= Q2_MAX_CLUSTER_BITS && ret == 0;
         bits++) {
        struct q2_layout layout, one = {.data_size = given->data_size};
        uint64_t score;
        if (given->cluster_bits != 0 && bits != given->cluster_bits)
            continue;
        one.cluster_bits = bits;
        ret = try_both(s, hints, &one, table, &layout, &score, err);
        if (score > best) {
            best = score;
            *out = layout;
        }
    }
    free(table);
    if (ret == 0 && best == 0)
        ret = q2_layout_fail(s->io, err);
    return ret;
}
