// SPDX-License-Identifier: MIT
// The new header, from what is left of the old one and from what the tables tell; and all
// that is new, written over the file.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "disk/snapshot.h"
#include "recover/work.h"

static uint64_t l1_entries(const struct q2_work *w, uint64_t size)
{
    return q2_div_round_up(size, UINT64_C(1) << q2_work_span_bits(w));
}

// Up to the last guest cluster that is mapped.
static int mapped_end(struct q2_work *w, uint64_t *end, struct q2_error *err)
{
    const struct q2_layout *l = &w->found.layout;
    size_t n = q2_layout_entries(l);
    uint64_t i = w->n_l1;
    *end = 0;
    while (i > 0 && (w->l1[i - 1] & Q2_OFFSET_MASK) == 0)
        i--;
    if (i == 0)
        return 0;
    int ret = q2_work_read(w, w->l1[i - 1] & Q2_OFFSET_MASK, err);
    if (ret < 0)
        return ret;
    while (n > 1 && q2_layout_judge(l, w->survey.file_size, w->table, n - 1).kind ==
                        Q2_READS_EMPTY)
        n--;
    *end = ((i - 1) << q2_work_span_bits(w)) + ((uint64_t)n << l->cluster_bits);
    return 0;
}

// Does the rest of the header say what is found? A field alone could be chance.
static bool header_agrees(const struct q2_work *w, const struct q2_recovery *r)
{
    const struct q2_hints *h = &w->hints;
    const struct q2_found_table *t = q2_found_counts(&w->found, h);
    bool same_l1 = r->chosen < r->n_l1s && h->l1_table_offset == r->l1s[r->chosen].offset;
    bool same_counts = t && h->refcount_table_offset == t->offset;
    bool same_size =
        h->has_cluster_bits && h->cluster_bits == w->found.layout.cluster_bits;
    return (same_l1 || same_counts) &&
           same_l1 + same_counts + h->has_magic + same_size >= 2;
}

// Could a disk of this size have an L1 table with these entries?
static bool is_believable(const struct q2_work *w, const struct q2_recovery *r,
                          uint64_t size, uint64_t end)
{
    uint64_t n = l1_entries(w, size), per = q2_work_cluster_size(w) / 8;
    return size >= end && n <= Q2_MAX_L1_BYTES / 8 &&
           (n <= q2_align_up(q2_max_u64(w->n_l1, 1), per) || w->hints.l1_size == n ||
            header_agrees(w, r));
}

// As the partition table says, or the file system. 0: nothing does.
static int guest_size(struct q2_work *w, uint64_t *size, struct q2_error *err)
{
    uint64_t span = UINT64_C(1) << q2_work_span_bits(w);
    struct q2_marks m;
    *size = w->found.layout.data_size;
    if (*size > 0)
        return 0;
    // What was told by the data when tables were placed.
    if (l1_entries(w, w->disk_size) <= Q2_MAX_L1_BYTES / 8)
        *size = w->disk_size;
    if (w->n_l1 == 0 || (w->l1[0] & Q2_OFFSET_MASK) == 0)
        return 0;
    int ret = q2_marks_init(&m, err);
    if (ret == 0)
        ret = q2_work_begin_marks(w, err);
    if (ret == 0)
        ret = q2_work_read_marks(w, &m, w->l1[0] & Q2_OFFSET_MASK, 0, 65536, err);
    if (ret == 0)
        ret = q2_marks_settle(&m, span, err);
    if (ret == 0 && q2_marks_disk_size(&m) > 0)
        *size = q2_marks_disk_size(&m);
    if (ret == 0 && l1_entries(w, *size) > Q2_MAX_L1_BYTES / 8)
        *size = 0;
    q2_marks_clear(&m);
    return ret;
}

// Where the header still knows how long the L1 table is that was taken, the disk is no
// smaller than its last entry needs.
static uint64_t l1_reach(const struct q2_work *w, const struct q2_recovery *r,
                         uint64_t size)
{
    const struct q2_hints *h = &w->hints;
    bool known = h->has_l1 && r->chosen < r->n_l1s &&
                 r->l1s[r->chosen].offset == h->l1_table_offset;
    return known && h->l1_size > l1_entries(w, size)
               ? (uint64_t)h->l1_size << q2_work_span_bits(w)
               : 0;
}

static int settle_size(struct q2_work *w, struct q2_recovery *r, uint64_t *size,
                       struct q2_error *err)
{
    uint64_t end;
    int ret = mapped_end(w, &end, err);
    if (ret < 0)
        return ret;
    r->from.size = Q2_FROM_USER;
    *size = w->options->size;
    if (*size > 0)
        return l1_entries(w, *size) <= Q2_MAX_L1_BYTES / 8
                   ? 0
                   : q2_fail(err, -EFBIG,
                             "A disk of %llu bytes is too large for clusters "
                             "of %llu bytes",
                             (unsigned long long)*size,
                             (unsigned long long)q2_work_cluster_size(w));
    // The last cluster may reach behind the end of the disk.
    r->from.size = Q2_FROM_HEADER;
    uint64_t least = end > 0 ? end - q2_work_cluster_size(w) + 1 : 0;
    *size = w->hints.size;
    if (w->hints.has_size && is_believable(w, r, *size, least))
        return 0;
    r->from.size = Q2_FROM_SNAPSHOT;
    for (unsigned i = w->n_snapshots; i-- > 0;) {
        *size = w->snapshots[i].disk_size;
        if (w->snapshots[i].has_disk_size && is_believable(w, r, *size, least))
            return 0;
    }
    ret = guest_size(w, size, err);
    r->from.size = *size == 0 || *size < end       ? Q2_FROM_REACH
                   : w->found.layout.data_size > 0 ? Q2_FROM_DATA
                                                   : Q2_FROM_GUEST;
    *size = q2_max_u64(*size, q2_max_u64(end, Q2_SURVEY_BLOCK));
    if (r->from.size == Q2_FROM_REACH)
        *size = q2_max_u64(*size, l1_reach(w, r, *size));
    return ret;
}

static uint32_t settle_version(const struct q2_work *w)
{
    const struct q2_layout *l = &w->found.layout;
    if (w->options->version)
        return w->options->version;
    bool newer = l->extended || l->data_size > 0 || l->has_zero_flags ||
                 (l->has_compressed && l->compression != Q2_COMPRESSION_ZLIB);
    return w->hints.has_version && !newer ? w->hints.version : 3;
}

static uint32_t settle_order(const struct q2_work *w, uint32_t version)
{
    if (version < 3)
        return 4;
    const struct q2_found_table *t = q2_found_counts(&w->found, &w->hints);
    if (t)
        return t->order;
    return w->hints.has_order ? w->hints.refcount_order : 4;
}

// The old header with other values in all fields that can be told otherwise.
static void patch(const struct q2_work *w, uint32_t version, uint64_t size, uint8_t *buf)
{
    const struct q2_layout *l = &w->found.layout;
    uint64_t cluster_size = q2_work_cluster_size(w);
    uint64_t features = (l->extended ? Q2_INCOMPAT_EXTENDED_L2 : 0) |
                        (l->compression ? Q2_INCOMPAT_COMPRESSION : 0) |
                        (l->data_size > 0 ? Q2_INCOMPAT_DATA_FILE : 0);
    uint64_t kept = Q2_AUTOCLEAR_BITMAPS;
    if (l->data_size > 0 && w->hints.has_features)
        kept |= Q2_AUTOCLEAR_DATA_FILE_RAW;
    q2_store_be32(buf, Q2_MAGIC);
    q2_store_be32(buf + 4, version);
    q2_store_be32(buf + 20, l->cluster_bits);
    q2_store_be64(buf + 24, size);
    q2_store_be32(buf + 32, 0);
    q2_store_be32(buf + 36, (uint32_t)q2_max_u64(l1_entries(w, size), 1));
    q2_store_be64(buf + 40, cluster_size);
    q2_store_be64(buf + 48, cluster_size);
    q2_store_be32(buf + 56, 1);
    q2_store_be32(buf + 60, 0);
    q2_store_be64(buf + 64, 0);
    if (version < 3)
        return;
    q2_store_be64(buf + 72, features);
    q2_store_be64(buf + 80, q2_load_be64(buf + 80) & Q2_COMPAT_LAZY_REFCOUNTS);
    q2_store_be64(buf + 88, q2_load_be64(buf + 88) & kept);
    q2_store_be32(buf + 96, settle_order(w, version));
    buf[104] = (uint8_t)l->compression;
}

static bool is_path(const char *name)
{
    for (; name && *name; name++) {
        if ((unsigned char)*name < 0x20 || *name == 0x7f)
            return false;
    }
    return true;
}

// The old header without what cannot be used of it.
enum {
    NO_BACKING = 1,
    NO_AUTOCLEAR = 2,
    NOTHING_ELSE = 4, // of what lies behind the fields of its version, too
};

static void strip(uint8_t *buf, size_t n, uint32_t version, unsigned what)
{
    unsigned length = version >= 3 ? Q2_HEADER_V3_BYTES : Q2_HEADER_V2_BYTES;
    if (what & NO_BACKING)
        memset(buf + 8, 0, 12);
    if ((what & NO_AUTOCLEAR) && version >= 3)
        q2_store_be64(buf + 88, 0);
    if (!(what & NOTHING_ELSE))
        return;
    memset(buf + length, 0, n - length);
    if (version >= 3) {
        q2_store_be64(buf + 80, 0);
        q2_store_be32(buf + 100, length);
        memset(buf + 105, 0, 7);
    }
}

// Less and less of the old header, until the rest makes sense.
static int decode_old(struct q2_work *w, uint32_t version, uint64_t size,
                      struct q2_header *out, struct q2_error *err)
{
    static const unsigned without[] = {0, NO_BACKING, NO_AUTOCLEAR,
                                       NO_BACKING | NO_AUTOCLEAR,
                                       NO_BACKING | NO_AUTOCLEAR | NOTHING_ELSE};
    size_t n = (size_t)q2_work_cluster_size(w);
    struct q2_error why = Q2_ERROR_INIT;
    uint8_t *buf = (uint8_t *)w->table;
    int ret = 0;
    for (size_t i = 0; i < sizeof(without) / sizeof(without[0]) && ret == 0; i++) {
        ret = q2_io_read(w->io, 0, buf, n, err);
        if (ret < 0)
            break;
        patch(w, version, size, buf);
        strip(buf, n, version, without[i]);
        if (q2_header_decode(buf, n, out, &why) < 0)
            continue;
        if (is_path(out->backing_file) && is_path(out->backing_format))
            return 0;
        q2_header_clear(out);
    }
    return ret < 0 ? ret
                   : q2_fail(err, -EINVAL, "No header can be made for '%s': %s",
                             w->io->name, why.message);
}

static int set_text(char **field, const char *text, struct q2_error *err)
{
    if (!text)
        return 0;
    char *copy = strdup(text);
    if (!copy)
        return q2_fail_memory(err, strlen(text) + 1);
    free(*field);
    *field = copy;
    return 0;
}

static void set_crypto(const struct q2_work *w, struct q2_header *h)
{
    h->has_crypto = w->luks_offset != 0;
    h->crypto_header_offset = w->luks_offset;
    h->crypto_header_length = w->luks_bytes;
    if (h->has_crypto)
        h->crypt_method = Q2_CRYPT_LUKS;
    else if (w->hints.has_magic && w->hints.has_crypt &&
             w->hints.crypt_method == Q2_CRYPT_AES)
        h->crypt_method = Q2_CRYPT_AES; // leaves no other trace
}

static void set_refcounts(const struct q2_work *w, struct q2_header *h)
{
    const struct q2_found_table *t = q2_found_counts(&w->found, &w->hints);
    uint64_t max = Q2_MAX_REFCOUNT_TABLE_BYTES / q2_work_cluster_size(w);
    uint32_t n = w->hints.refcount_table_clusters;
    bool named =
        t && w->hints.has_refcounts && t->offset == w->hints.refcount_table_offset;
    h->refcount_table_clusters = named && n <= max ? n : t ? t->n_clusters : 1;
    h->refcount_table_offset = t ? t->offset : 0;
}

static int make_header(struct q2_work *w, struct q2_recovery *r, struct q2_error *err)
{
    struct q2_header *h = &r->header;
    uint64_t size = 0;
    int ret = settle_size(w, r, &size, err);
    uint32_t version = settle_version(w);
    if (ret == 0)
        ret = decode_old(w, version, size, h, err);
    if (ret < 0)
        return ret;
    set_crypto(w, h);
    set_refcounts(w, h);
    h->nb_snapshots = w->n_snapshots;
    h->snapshots_offset = w->n_snapshots > 0 ? w->snapshots_offset : 0;
    ret = set_text(&h->data_file, w->options->data_file, err);
    if (ret == 0)
        ret = set_text(&h->backing_file, w->options->backing_file, err);
    return ret < 0 ? ret : set_text(&h->backing_format, w->options->backing_format, err);
}

// The L1 table, a refcount table if there is none, and the header, in that order.
static int write_all(struct q2_work *w, struct q2_recovery *r, struct q2_error *err)
{
    struct q2_header *h = &r->header;
    uint64_t cluster_size = q2_work_cluster_size(w);
    uint64_t at = w->end;
    uint64_t n_l1 = q2_max_u64(l1_entries(w, h->size), 1), n_bytes;
    n_bytes = q2_align_up(n_l1 * 8, cluster_size);
    uint8_t *buf = calloc(1, (size_t)q2_max_u64(n_bytes, cluster_size));
    if (!buf)
        return q2_fail_memory(err, (size_t)n_bytes);
    q2_table_encode(w->l1, buf, (size_t)q2_min_u64(w->n_l1, n_l1));
    int ret = q2_io_write(r->image, at, buf, (size_t)n_bytes, err);
    h->l1_table_offset = at;
    h->l1_size = (uint32_t)n_l1;
    at += n_bytes;
    memset(buf, 0, (size_t)q2_max_u64(n_bytes, cluster_size));
    if (ret == 0 && h->refcount_table_offset == 0) {
        h->refcount_table_offset = at;
        ret = q2_io_write(r->image, at, buf, (size_t)cluster_size, err);
    }
    size_t used;
    if (ret == 0)
        ret = q2_header_encode(h, buf, &used, err);
    if (ret == 0)
        ret = q2_io_write(r->image, 0, buf, (size_t)cluster_size, err);
    free(buf);
    return ret < 0 ? ret : q2_io_flush(r->image, err);
}

// Where the rest comes from.
static void name_sources(const struct q2_work *w, struct q2_recovery *r)
{
    const struct q2_recover_options *o = w->options;
    const struct q2_hints *h = &w->hints;
    struct q2_sources *from = &r->from;
    bool same = h->has_cluster_bits && h->cluster_bits == r->header.cluster_bits;
    from->cluster_size = o->cluster_bits ? Q2_FROM_USER
                         : same          ? Q2_FROM_HEADER
                                         : Q2_FROM_TABLES;
    same = h->has_version && h->version == r->header.version;
    from->version = o->version                                       ? Q2_FROM_USER
                    : same                                           ? Q2_FROM_HEADER
                    : r->layout.has_zero_flags || r->layout.extended ? Q2_FROM_TABLES
                                                                     : Q2_FROM_NOTHING;
    from->backing = o->backing_file          ? Q2_FROM_USER
                    : r->header.backing_file ? Q2_FROM_HEADER
                                             : Q2_FROM_NOTHING;
    same = h->has_snapshots && h->snapshots_offset == w->snapshots_offset;
    from->snapshots = same ? Q2_FROM_HEADER : Q2_FROM_TABLES;
}

int q2_work_write(struct q2_work *w, struct q2_recovery *r, struct q2_error *err)
{
    int ret = make_header(w, r, err);
    if (ret == 0)
        ret = write_all(w, r, err);
    r->has_luks = w->luks_offset != 0;
    if (ret == 0)
        name_sources(w, r);
    r->n_snapshots = w->n_snapshots;
    return ret;
}
