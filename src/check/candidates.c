// SPDX-License-Identifier: MIT
// Values that header fields can have, given the rest of the file.
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "check/heal_header.h"
#include "check/scan.h"

// Tables are looked for in this many clusters; that many finds of each are tried.
#define MAX_SEARCH_CLUSTERS 65536U
#define MAX_FINDS 8U
#define MAX_DAMAGED 4U
#define SEARCH_BYTES 4096U
// Header extensions that are looked at, how long one may be, and the name of a format.
#define MAX_EXTENSIONS 8U
#define MAX_EXTENSION 768U
#define MAX_FORMAT_NAME 15U

int q2_candidates_add(struct q2_candidates *c, const struct q2_raw_header *r,
                      const char *field, unsigned at, unsigned n_bytes, uint64_t value,
                      struct q2_error *err)
{
    uint64_t now = n_bytes == 8   ? q2_load_be64(r->bytes + at)
                   : n_bytes == 4 ? q2_load_be32(r->bytes + at)
                                  : r->bytes[at];
    void *list = c->list;
    if (now == value)
        return 0;
    int ret = q2_scan_grow(&list, &c->max, c->n, sizeof(*c->list), err);
    if (ret < 0)
        return ret;
    c->list = list;
    c->list[c->n++] = (struct q2_candidate){field, at, n_bytes, value};
    return 0;
}

static int read_raw(struct q2_io *io, struct q2_raw_header *r, struct q2_error *err)
{
    int ret = q2_io_get_size(io, &r->file_size, err);
    if (ret == 0)
        ret = q2_io_read(io, 0, r->bytes, sizeof(r->bytes), err);
    if (ret < 0)
        return ret;
    r->version = q2_load_be32(r->bytes + 4);
    r->cluster_bits = q2_load_be32(r->bytes + 20);
    r->size = q2_load_be64(r->bytes + 24);
    r->l1_size = q2_load_be32(r->bytes + 36);
    r->crypt_method = q2_load_be32(r->bytes + 32);
    r->features = r->version >= 3 ? q2_load_be64(r->bytes + 72) : 0;
    r->autoclear = r->version >= 3 ? q2_load_be64(r->bytes + 88) : 0;
    q2_candidates_find_extensions(r);
    return 0;
}

static uint64_t needed_l1(const struct q2_raw_header *r)
{
    bool extended = (r->features & Q2_INCOMPAT_EXTENDED_L2) != 0;
    unsigned span_bits = 2 * r->cluster_bits - (extended ? 4 : 3);
    return (r->size >> span_bits) + ((r->size & ((UINT64_C(1) << span_bits) - 1)) != 0);
}

// Do the fields that version 2 lacks stand there all the same?
static bool v3_fields(const struct q2_raw_header *r)
{
    uint32_t length = q2_load_be32(r->bytes + 100);
    return (length == 104 || length == 112) &&
           q2_load_be32(r->bytes + 96) <= Q2_MAX_REFCOUNT_ORDER;
}

static int add_small_fields(struct q2_candidates *c, const struct q2_raw_header *r,
                            struct q2_error *err)
{
    const struct {
        const char *field;
        unsigned at, n_bytes;
        uint64_t first, last;
    } ranges[] = {
        {"magic", 0, 4, Q2_MAGIC, Q2_MAGIC},
        {"version", 4, 4, 2, 3},
        {"cluster_bits", 20, 4, Q2_MIN_CLUSTER_BITS, Q2_MAX_CLUSTER_BITS},
        {"crypt_method", 32, 4, 0, 0},
        {"refcount_order", 96, 4, 0, Q2_MAX_REFCOUNT_ORDER},
        {"compression_type", 104, 1, Q2_COMPRESSION_ZLIB, Q2_COMPRESSION_ZLIB},
        {"header_length", 100, 4, 112, 112},
        {"header_length", 100, 4, 104, 104},
        {"refcount_table_clusters", 56, 4, 1, 16},
        {"nb_snapshots", 60, 4, 0, 32},
    };
    int ret = 0;
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        if (ranges[i].at >= Q2_HEADER_V2_BYTES && r->version < 3)
            continue;
        // A version that there is stays: version 2 would ignore half of the header.
        if (ranges[i].at == 4 && (r->version == 3 || (r->version == 2 && !v3_fields(r))))
            continue;
        // So does a length that programs write.
        uint32_t length = q2_load_be32(r->bytes + 100);
        if (ranges[i].at == 100 && (length == 104 || length == 112))
            continue;
        for (uint64_t v = ranges[i].first; v <= ranges[i].last && ret == 0; v++)
            ret = q2_candidates_add(c, r, ranges[i].field, ranges[i].at,
                                    ranges[i].n_bytes, v, err);
    }
    return ret;
}

// Bits that say how the file is laid out can be told from the file. Unknown bits cannot:
// they stay.
static int add_features(struct q2_candidates *c, const struct q2_raw_header *r,
                        struct q2_error *err)
{
    int ret = 0;
    for (unsigned bit = 2; bit <= 4 && ret == 0 && r->version >= 3; bit++)
        ret = q2_candidates_add(c, r, "incompatible_features", 72, 8,
                                r->features ^ (UINT64_C(1) << bit), err);
    // Where nothing is compressed the feature bit is rather wrong than the type.
    if (ret == 0 && (r->features & Q2_INCOMPAT_COMPRESSION))
        ret =
            q2_candidates_add(c, r, "compression_type", 104, 1, Q2_COMPRESSION_ZSTD, err);
    for (unsigned bit = 0; bit <= 1 && ret == 0; bit++) {
        if (r->autoclear & (UINT64_C(1) << bit))
            ret = q2_candidates_add(c, r, "autoclear_features", 88, 8,
                                    r->autoclear & ~(UINT64_C(1) << bit), err);
    }
    return ret;
}

// Where the extensions end, as far as they can be followed; 0: they cannot.
static unsigned extensions_end(const struct q2_raw_header *r)
{
    unsigned at = r->version >= 3 ? q2_load_be32(r->bytes + 100) : Q2_HEADER_V2_BYTES;
    while (at <= sizeof(r->bytes) - 8) {
        uint32_t type = q2_load_be32(r->bytes + at), n = q2_load_be32(r->bytes + at + 4);
        if (type == Q2_EXT_END)
            return at + 8;
        if (n > sizeof(r->bytes) - at - 8)
            return 0;
        at += 8 + (unsigned)q2_align_up(n, 8);
    }
    return 0;
}

// The backing file's name stands behind the extensions, and zeros behind it.
static int add_backing(struct q2_candidates *c, const struct q2_raw_header *r,
                       struct q2_error *err)
{
    unsigned end = extensions_end(r);
    uint64_t offset = q2_load_be64(r->bytes + 8);
    int ret = 0;
    if (end > 0 && end < sizeof(r->bytes) && r->bytes[end] != 0)
        ret = q2_candidates_add(c, r, "backing_file_offset", 8, 8, end, err);
    if (ret == 0 && offset > 0 && offset < sizeof(r->bytes)) {
        uint64_t room = sizeof(r->bytes) - offset;
        size_t n = strnlen((const char *)r->bytes + offset, (size_t)room);
        if (n > 0 && n <= Q2_MAX_BACKING_NAME)
            ret = q2_candidates_add(c, r, "backing_file_size", 16, 4, n, err);
    }
    if (ret == 0 && offset > 0 && end > 0 && r->bytes[end] == 0)
        ret = q2_candidates_add(c, r, "backing_file_offset", 8, 8, 0, err);
    return ret;
}

// Is there an extension that we know, or the end of them, at this place?
static bool extension_at(const struct q2_raw_header *r, unsigned at)
{
    if (at + 8 > sizeof(r->bytes))
        return false;
    uint32_t type = q2_load_be32(r->bytes + at);
    if (type == Q2_EXT_END)
        return q2_load_be32(r->bytes + at + 4) == 0;
    return type == Q2_EXT_BACKING_FORMAT || type == Q2_EXT_BITMAPS ||
           type == Q2_EXT_CRYPTO || type == Q2_EXT_DATA_FILE;
}

// Lengths with which another extension, or the end of them, follows the one at this
// place.
static int add_lengths_of(struct q2_candidates *c, const struct q2_raw_header *r,
                          unsigned at, struct q2_error *err)
{
    uint32_t type = q2_load_be32(r->bytes + at);
    const char *text = (const char *)r->bytes + at + 8;
    int ret = 0;
    if (type == Q2_EXT_END)
        return q2_candidates_add(c, r, "extension length", at + 4, 4, 0, err);
    if (type == Q2_EXT_BACKING_FORMAT) {
        size_t n = strnlen(text, MAX_FORMAT_NAME);
        return extension_at(r, at + 8 + (unsigned)q2_align_up(n, 8))
                   ? q2_candidates_add(c, r, "extension length", at + 4, 4, n, err)
                   : 0;
    }
    unsigned step = type == Q2_EXT_FEATURE_TABLE ? 48 : 8;
    for (unsigned n = step; n <= MAX_EXTENSION && ret == 0; n += step) {
        if (extension_at(r, at + 8 + n))
            ret = q2_candidates_add(c, r, "extension length", at + 4, 4, n, err);
    }
    return ret;
}

static int add_extension_lengths(struct q2_candidates *c, const struct q2_raw_header *r,
                                 struct q2_error *err)
{
    uint64_t at = r->version >= 3 ? q2_load_be32(r->bytes + 100) : Q2_HEADER_V2_BYTES;
    int ret = 0;
    uint64_t most = sizeof(r->bytes);
    if (r->cluster_bits >= Q2_MIN_CLUSTER_BITS && r->cluster_bits < 12)
        most = UINT64_C(1) << r->cluster_bits; // what lies behind is not the header's
    for (unsigned i = 0; i < MAX_EXTENSIONS && ret == 0; i++) {
        if (at < Q2_HEADER_V2_BYTES || at > most - 8)
            break;
        uint32_t type = q2_load_be32(r->bytes + at), n = q2_load_be32(r->bytes + at + 4);
        ret = add_lengths_of(c, r, (unsigned)at, err);
        if (type == Q2_EXT_END)
            break;
        at += 8 + q2_align_up(n, 8);
    }
    return ret;
}

// Could this be an L1 table: entries that are L2 tables' places in the file, at least
// one, and no others, or few others?
static bool like_l1(const struct q2_raw_header *r, const uint8_t *buf, size_t n_entries,
                    bool strict)
{
    uint64_t cluster_size = UINT64_C(1) << r->cluster_bits;
    size_t n_used = 0, n_bad = 0;
    for (size_t i = 0; i < n_entries; i++) {
        uint64_t entry = q2_load_be64(buf + i * 8), offset = entry & Q2_OFFSET_MASK;
        if (entry == 0)
            continue;
        if ((entry & Q2_L1_RESERVED) || offset == 0 ||
            !q2_is_aligned(offset, cluster_size) || offset >= r->file_size)
            n_bad++;
        n_used++;
    }
    return strict ? n_used > 0 && n_bad == 0 : n_bad > 0 && n_bad * 3 <= n_used;
}

static bool like_snapshot_table(const struct q2_raw_header *r, const uint8_t *buf,
                                size_t n_bytes)
{
    struct q2_error ignored = Q2_ERROR_INIT;
    uint64_t cluster_size = UINT64_C(1) << r->cluster_bits;
    struct q2_snapshot sn;
    size_t used;
    if (q2_snapshot_decode(buf, n_bytes, 0, &sn, &used, &ignored) < 0)
        return false;
    bool yes = sn.l1_table_offset != 0 && sn.l1_size > 0 && *sn.id &&
               q2_is_aligned(sn.l1_table_offset, cluster_size) &&
               sn.l1_table_offset < r->file_size;
    q2_snapshot_clear(&sn);
    return yes;
}

// A refcount table: block places in the file, the first of which is there.
static bool like_refcount_table(const struct q2_raw_header *r, const uint8_t *buf,
                                size_t n_entries)
{
    uint64_t cluster_size = UINT64_C(1) << r->cluster_bits;
    if (q2_load_be64(buf) == 0)
        return false;
    for (size_t i = 0; i < n_entries; i++) {
        uint64_t entry = q2_load_be64(buf + i * 8);
        if (entry != 0 && (!q2_is_aligned(entry, cluster_size) || entry >= r->file_size))
            return false;
    }
    return true;
}

static int search_tables(struct q2_io *io, struct q2_candidates *c,
                         const struct q2_raw_header *r, struct q2_error *err)
{
    uint64_t n = q2_min_u64(q2_div_round_up(r->file_size, UINT64_C(1) << r->cluster_bits),
                            MAX_SEARCH_CLUSTERS);
    size_t n_bytes = (size_t)q2_min_u64(SEARCH_BYTES, UINT64_C(1) << r->cluster_bits);
    size_t n_l1 = (size_t)q2_min_u64(q2_max_u64(r->l1_size, 1), n_bytes / 8);
    unsigned l1s = 0, damaged = 0, tables = 0, snapshots = 0, others = 0;
    uint8_t buf[SEARCH_BYTES];
    int ret = 0;
    for (uint64_t i = 1; i < n && ret == 0; i++) {
        uint64_t offset = i << r->cluster_bits;
        ret = q2_io_read(io, offset, buf, n_bytes, err);
        if (ret == 0 && others < MAX_FINDS) {
            size_t before = c->n;
            ret = q2_candidates_extension_place(c, r, offset, buf, n_bytes, err);
            others += c->n > before;
        }
        if (ret == 0 && l1s < MAX_FINDS && like_l1(r, buf, n_l1, true)) {
            l1s++;
            ret = q2_candidates_add(c, r, "l1_table_offset", 40, 8, offset, err);
        }
        if (ret == 0 && damaged < MAX_DAMAGED && like_l1(r, buf, n_l1, false)) {
            damaged++;
            ret = q2_candidates_add(c, r, "l1_table_offset", 40, 8, offset, err);
        }
        if (ret == 0 && tables < MAX_FINDS && like_refcount_table(r, buf, n_bytes / 8)) {
            tables++;
            ret = q2_candidates_add(c, r, "refcount_table_offset", 48, 8, offset, err);
        }
        if (ret == 0 && snapshots < MAX_FINDS && like_snapshot_table(r, buf, n_bytes)) {
            snapshots++;
            ret = q2_candidates_add(c, r, "snapshots_offset", 64, 8, offset, err);
        }
    }
    return ret;
}

// As many entries as the disk needs; or as there is room for, when a machine's state was
// behind the disk.
static int add_l1_sizes(struct q2_candidates *c, const struct q2_raw_header *r,
                        struct q2_error *err)
{
    uint64_t n = needed_l1(r), cluster_size = UINT64_C(1) << r->cluster_bits;
    int ret = q2_candidates_add(c, r, "l1_size", 36, 4, n, err);
    return ret < 0
               ? ret
               : q2_candidates_add(c, r, "l1_size", 36, 4,
                                   q2_align_up(q2_max_u64(n, 1) * 8, cluster_size) / 8,
                                   err);
}

// Does an L1 table of l1_size entries belong to a disk of this size?
static bool size_fits(const struct q2_raw_header *r, uint64_t size)
{
    struct q2_raw_header other = *r;
    other.size = size;
    return size != r->size && size > 0 && needed_l1(&other) == r->l1_size;
}

// Snapshots keep the disk's size. One that the L1 table is made for may be the disk's
// own.
static int add_sizes(struct q2_io *io, struct q2_candidates *c,
                     const struct q2_raw_header *r, bool *found, struct q2_error *err)
{
    uint64_t offset = q2_load_be64(r->bytes + 64);
    uint32_t n = q2_load_be32(r->bytes + 60);
    uint8_t buf[SEARCH_BYTES];
    size_t at = 0;
    *found = false;
    if (n == 0 || offset == 0 || offset >= r->file_size)
        return 0;
    int ret = q2_io_read(io, offset, buf, sizeof(buf), err);
    for (uint32_t i = 0; i < n && ret == 0; i++) {
        struct q2_error ignored = Q2_ERROR_INIT;
        struct q2_snapshot sn;
        size_t used;
        if (q2_snapshot_decode(buf + at, sizeof(buf) - at, i, &sn, &used, &ignored) < 0)
            break;
        bool fits = sn.has_disk_size && size_fits(r, sn.disk_size);
        if (fits)
            ret = q2_candidates_add(c, r, "size", 24, 8, sn.disk_size, err);
        *found |= fits;
        q2_snapshot_clear(&sn);
        at += q2_to_size(q2_align_up(used, 8));
        if (at >= sizeof(buf))
            break;
    }
    return ret;
}

int q2_candidates_collect(struct q2_io *io, struct q2_candidates *c, struct q2_error *err)
{
    struct q2_raw_header r = {0};
    *c = (struct q2_candidates){0};
    int ret = read_raw(io, &r, err);
    if (ret == 0)
        ret = add_small_fields(c, &r, err);
    if (ret == 0)
        ret = add_features(c, &r, err);
    if (ret == 0)
        ret = add_backing(c, &r, err);
    if (ret == 0)
        ret = add_extension_lengths(c, &r, err);
    if (ret == 0)
        ret = q2_candidates_extensions(io, c, &r, err);
    bool sizes_known =
        r.cluster_bits >= Q2_MIN_CLUSTER_BITS && r.cluster_bits <= Q2_MAX_CLUSTER_BITS;
    bool size_is_wrong = false;
    if (ret == 0 && sizes_known)
        ret = add_sizes(io, c, &r, &size_is_wrong, err);
    if (ret == 0 && sizes_known && !size_is_wrong && needed_l1(&r) <= Q2_MAX_L1_BYTES / 8)
        ret = add_l1_sizes(c, &r, err);
    if (ret == 0 && sizes_known)
        ret = search_tables(io, c, &r, err);
    return ret;
}
