// SPDX-License-Identifier: MIT
// Persistent bitmaps: directory, tables and data. A bitmap says at worst that too much
// has changed, so it gives way to everything else: what is wrong in it counts as changed.
// The directory, which cannot be anything else, is believed where an entry of the mapping
// leads onto it.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "check/bitmaps.h"

// A bitmap whose table can be used.
struct table {
    unsigned index;
    const char *name;
    uint64_t offset;
    uint64_t *entries;
    uint64_t n; // up to the last data of the file
};

struct bitmaps {
    struct q2_scan *s;
    struct q2_directory d;
    struct table *tables;
    size_t n, max;
    uint64_t n_read;          // bytes of tables
    struct q2_counters *data; // host clusters: how many entries name them
};

static bool is_taken(const struct q2_scan *s, uint64_t offset, uint64_t n_bytes)
{
    uint64_t first = offset >> s->cluster_bits;
    uint64_t n = q2_div_round_up(n_bytes, s->cluster_size);
    return q2_counters_any(s->references, first, n) ||
           q2_counters_any(s->metadata, first, n);
}

// More clusters are not fought for.
#define MAX_PRECLAIMED 64U

static int preclaim(struct q2_scan *s, uint64_t offset, uint64_t n_bytes,
                    struct q2_error *err)
{
    int ret = 0;
    if (n_bytes > (uint64_t)MAX_PRECLAIMED * s->cluster_size)
        return 0;
    for (uint64_t at = offset; at < offset + n_bytes && ret == 0; at += s->cluster_size)
        ret = q2_scan_preclaim(s, at >> s->cluster_bits, err);
    return ret;
}

static bool is_preclaimed(const struct q2_scan *s, uint64_t offset, uint64_t n_bytes)
{
    if (n_bytes > (uint64_t)MAX_PRECLAIMED * s->cluster_size)
        return false;
    for (uint64_t at = offset; at < offset + n_bytes; at += s->cluster_size) {
        if (!q2_scan_is_preclaimed(s, at))
            return false;
    }
    return true;
}

int q2_scan_keep_name(struct q2_scan *s, const uint8_t *text, size_t n_bytes,
                      const char **name, struct q2_error *err)
{
    void *list = s->bitmap_names;
    int ret =
        q2_scan_grow(&list, &s->max_bitmap_names, s->n_bitmap_names, sizeof(char *), err);
    if (ret < 0)
        return ret;
    s->bitmap_names = list;
    char *copy = strndup((const char *)text, n_bytes);
    if (!copy)
        return q2_fail_memory(err, n_bytes);
    s->bitmap_names[s->n_bitmap_names++] = copy;
    *name = copy;
    return 0;
}

// --- the directory ---

// Its entries from this one on are lost; end: where those before it end.
static void report_directory(struct q2_scan *s, unsigned index, size_t end)
{
    q2_scan_report(s, &s->findings,
                   &(struct q2_finding){.problem = Q2_PROBLEM_BITMAP_DIRECTORY,
                                        .has = Q2_HAS_OFFSET | Q2_HAS_SIZE | Q2_HAS_INDEX,
                                        .offset = s->header.bitmap_directory_offset,
                                        .size = s->header.bitmap_directory_size,
                                        .index = index,
                                        .wanted = end});
}

static struct q2_finding about_field(const struct q2_scan *s, unsigned index, size_t at,
                                     const char *name, const char *field)
{
    return (struct q2_finding){.problem = Q2_PROBLEM_BITMAP_FIELD,
                               .has = Q2_HAS_OFFSET | Q2_HAS_INDEX | Q2_HAS_VALUE |
                                      Q2_HAS_WANTED | Q2_HAS_EDIT,
                               .offset = s->header.bitmap_directory_offset + at,
                               .index = index,
                               .bitmap_name = name,
                               .field = field,
                               .edit_offset = s->header.bitmap_directory_offset + at};
}

static int report_length(struct q2_scan *s, const struct q2_directory *d,
                         const struct q2_directory_length *l, struct q2_error *err)
{
    struct q2_directory_entry e = {0};
    const char *name = "";
    q2_directory_entry_at(d, l->entry_at, &e);
    int ret = q2_scan_keep_name(s, d->bytes + e.name_at, e.name_bytes, &name, err);
    struct q2_finding f = about_field(s, l->index, l->entry_at + 16, name, l->field);
    f.value = l->value;
    f.wanted = l->wanted;
    f.edit_value = q2_load_be64(d->bytes + l->entry_at + 16);
    q2_scan_report(s, &s->findings, &f);
    return ret;
}

// Where the directory lies on something else, it is right if all of it makes sense.
static int settle_directory(struct q2_scan *s, bool whole, bool *usable,
                            struct q2_error *err)
{
    uint64_t offset = s->header.bitmap_directory_offset;
    uint64_t n_bytes = s->header.bitmap_directory_size;
    *usable = !is_taken(s, offset, n_bytes) || is_preclaimed(s, offset, n_bytes);
    return *usable || !whole ? 0 : preclaim(s, offset, n_bytes, err);
}

static int read_directory(struct q2_scan *s, struct q2_directory *d, bool *usable,
                          struct q2_error *err)
{
    const struct q2_header *h = &s->header;
    *d = (struct q2_directory){.n = h->nb_bitmaps,
                               .n_bytes = q2_to_size(h->bitmap_directory_size)};
    // A disk without bytes has no bitmaps: its size is wrong.
    *usable = h->bitmap_directory_offset != 0 && h->size > 0 &&
              q2_scan_in_file(s, h->bitmap_directory_offset, h->bitmap_directory_size);
    if (!*usable)
        return 0;
    // What is a hole has no entries.
    uint64_t end;
    int ret = q2_scan_data_end(s, h->bitmap_directory_offset, d->n_bytes, &end, err);
    if (ret < 0)
        return ret;
    uint64_t there = q2_align_up(end - h->bitmap_directory_offset + 1, s->cluster_size);
    d->n_bytes = (size_t)q2_min_u64(d->n_bytes, there);
    d->bytes = malloc(d->n_bytes);
    if (!d->bytes)
        return q2_fail_memory(err, d->n_bytes);
    ret = q2_io_read(s->io, h->bitmap_directory_offset, d->bytes, d->n_bytes, err);
    return ret < 0 ? q2_context(err, "Could not read the bitmap directory") : 0;
}

// Leaves in d->n the entries that can be used.
static int judge_directory(struct q2_scan *s, struct q2_directory *d,
                           struct q2_error *err)
{
    struct q2_directory_length length;
    bool usable;
    size_t end = 0;
    int ret = read_directory(s, d, &usable, err);
    unsigned n = ret == 0 && usable ? q2_directory_walk(d, &end) : 0;
    bool all_there = d->n_bytes == s->header.bitmap_directory_size;
    bool whole = ret == 0 && usable && all_there && n == d->n && end == d->n_bytes;
    if (ret == 0 && usable && all_there && !whole &&
        q2_directory_mend_lengths(d, &length)) {
        ret = report_length(s, d, &length, err);
        n = d->n;
        end = d->n_bytes;
        whole = true;
    }
    if (ret == 0 && usable)
        ret = settle_directory(s, whole, &usable, err);
    if (ret == 0 && (!usable || !whole))
        report_directory(s, usable ? n : 0, usable ? end : 0);
    d->n = ret == 0 && usable ? n : 0;
    return ret == 0 && d->n > 0
               ? q2_scan_reference(s, s->header.bitmap_directory_offset, end, 1, err)
               : ret;
}

// --- tables ---

static int report_table(const struct bitmaps *b, const struct q2_directory_entry *e,
                        unsigned index, const char *name, struct q2_error *err)
{
    const uint8_t *p = b->d.bytes + e->at;
    uint64_t offset = q2_load_be64(p), n_bytes = (uint64_t)q2_load_be32(p + 8) * 8;
    struct q2_finding f = about_field(b->s, index, e->at, name, NULL);
    f.problem = Q2_PROBLEM_BITMAP_TABLE;
    f.has = Q2_HAS_OFFSET | Q2_HAS_SIZE | Q2_HAS_INDEX | Q2_HAS_EDIT;
    f.offset = offset;
    f.size = n_bytes;
    f.edit_bitmap = q2_load_be64(p + 8);
    f.edit_wide = true;
    q2_scan_report(b->s, &b->s->findings, &f);
    return q2_scan_in_file(b->s, offset, n_bytes)
               ? 0
               : q2_scan_dangles(b->s, offset, n_bytes, err);
}

static int read_table(struct q2_scan *s, struct table *t, uint64_t n,
                      struct q2_error *err)
{
    uint64_t end;
    int ret = q2_scan_data_end(s, t->offset, n * 8, &end, err);
    if (ret < 0)
        return ret;
    t->n = q2_div_round_up(end - t->offset, 8);
    t->entries = calloc(q2_to_size(q2_max_u64(t->n, 1)), 8);
    if (!t->entries)
        return q2_fail_memory(err, t->n * 8);
    ret = q2_io_read(s->io, t->offset, t->entries, q2_to_size(t->n * 8), err);
    if (ret < 0)
        return q2_context(err, "Could not read a bitmap table");
    q2_table_decode(t->entries, t->entries, q2_to_size(t->n));
    return 0;
}

// Do all entries make sense, and does one name data?
static bool is_sound(const struct q2_scan *s, const struct table *t)
{
    bool any = false;
    for (uint64_t i = 0; i < t->n; i++) {
        uint64_t offset = t->entries[i] & Q2_OFFSET_MASK;
        if (!q2_bitmap_table_entry_valid(t->entries[i], s->cluster_bits) ||
            !q2_scan_in_file(s, offset, s->cluster_size))
            return false;
        any |= offset != 0;
    }
    return any;
}

// The table lies on something else. Where an entry of a cluster leads onto a sound table
// it is that entry which is wrong; no L2 table is doubted, unless it is one in use by the
// active state alone, and none of its entries says so.
static int contest(struct q2_scan *s, const struct table *t, uint64_t n_bytes,
                   struct q2_error *err)
{
    const struct q2_scan_l1 *active = &s->l1s[0];
    uint64_t first = t->offset >> s->cluster_bits;
    bool lies = true;
    if (!is_sound(s, t))
        return 0;
    if (q2_counters_get(s->metadata, first) > 0) {
        lies = false;
        for (uint32_t i = 0; i < active->n_entries && !lies; i++)
            lies = (active->entries[i] & Q2_OFFSET_MASK) == t->offset;
    }
    return lies ? preclaim(s, t->offset, n_bytes, err) : 0;
}

static int add_table(struct bitmaps *b, const struct table *t, struct q2_error *err)
{
    void *list = b->tables;
    int ret = q2_scan_grow(&list, &b->max, b->n, sizeof(*b->tables), err);
    if (ret < 0)
        return ret;
    b->tables = list;
    b->tables[b->n++] = *t;
    return 0;
}

// Does the table say that everything has changed?
static bool is_all_ones(const struct table *t, uint64_t n)
{
    bool ones = t->n >= n;
    for (uint64_t i = 0; i < n && ones; i++)
        ones = t->entries[i] == Q2_BITMAP_ALL_ONES;
    return ones;
}

// Tables that lie apart from each other are no longer than the file; so many bytes more
// may be read for what is wrong. A thousand bitmaps of one table are not worth a thousand
// times its cost.
#define SPARE_TABLE_BYTES (UINT64_C(1) << 20)

static bool take_room(struct bitmaps *b, uint64_t n_bytes)
{
    uint64_t room = b->s->file_size + SPARE_TABLE_BYTES;
    if (room - b->n_read < n_bytes)
        return false;
    b->n_read += n_bytes;
    return true;
}

// *usable: the table is kept in the list. forget: what it says is of no use.
static int take_table(struct bitmaps *b, struct table *t, uint64_t n, bool forget,
                      bool *usable, struct q2_error *err)
{
    struct q2_scan *s = b->s;
    *usable = t->offset != 0 && q2_is_aligned(t->offset, s->cluster_size) &&
              q2_scan_in_file(s, t->offset, n * 8) && take_room(b, n * 8);
    if (!*usable)
        return 0;
    int ret = read_table(s, t, n, err);
    if (ret == 0 && forget)
        *usable = is_all_ones(t, n);
    if (ret == 0 && is_taken(s, t->offset, n * 8) &&
        !is_preclaimed(s, t->offset, n * 8)) {
        *usable = false;
        ret = contest(s, t, n * 8, err);
    }
    if (ret == 0 && *usable)
        ret = q2_scan_reference(s, t->offset, n * 8, 1, err);
    if (ret == 0 && *usable)
        ret = add_table(b, t, err);
    if (ret < 0 || !*usable)
        free(t->entries);
    return ret;
}

#define MAX_FIELDS 4U

// Puts the fixed fields right, in memory; returns how many were wrong.
static unsigned mend_fields(const struct bitmaps *b, const struct q2_directory_entry *e,
                            unsigned index, const char *name,
                            struct q2_finding list[MAX_FIELDS], bool *forget)
{
    const struct q2_scan *s = b->s;
    uint8_t *p = b->d.bytes + e->at;
    struct q2_directory_field field;
    unsigned n = 0;
    *forget = false;
    while (n < MAX_FIELDS &&
           q2_directory_mend_field(p, s->header.size, s->cluster_bits, &field)) {
        struct q2_finding *f = &list[n++];
        *f = about_field(s, index, e->at + (size_t)field.word * 8, name, field.field);
        f->value = field.value;
        f->wanted = field.wanted;
        f->edit_value = q2_load_be64(p + (size_t)field.word * 8);
        *forget |= field.forget;
    }
    return n;
}

static int scan_entry(struct bitmaps *b, unsigned index,
                      const struct q2_directory_entry *e, struct q2_error *err)
{
    struct q2_scan *s = b->s;
    const uint8_t *p = b->d.bytes + e->at;
    struct q2_finding fields[MAX_FIELDS];
    struct table t = {.index = index};
    bool forget = false, usable = false;
    int ret = q2_scan_keep_name(s, b->d.bytes + e->name_at, e->name_bytes, &t.name, err);
    if (ret < 0)
        return ret;
    unsigned n = mend_fields(b, e, index, t.name, fields, &forget);
    t.offset = q2_load_be64(p);
    ret = take_table(b, &t, q2_load_be32(p + 8), forget, &usable, err);
    for (unsigned i = 0; i < n && ret == 0; i++) {
        // With other fields the old table would say something else: first a new one.
        if (forget && !usable)
            fields[i].has &= ~(unsigned)Q2_HAS_EDIT;
        q2_scan_report(s, &s->findings, &fields[i]);
    }
    return ret < 0 || usable ? ret : report_table(b, e, index, t.name, err);
}

// --- data ---

static bool names_data(const struct q2_scan *s, uint64_t entry)
{
    return q2_bitmap_table_entry_valid(entry, s->cluster_bits) &&
           (entry & Q2_OFFSET_MASK) != 0 &&
           q2_scan_in_file(s, entry & Q2_OFFSET_MASK, s->cluster_size);
}

static int count_data(struct bitmaps *b, const struct table *t, struct q2_error *err)
{
    int ret = 0;
    for (uint64_t i = 0; i < t->n && ret == 0; i++) {
        if (names_data(b->s, t->entries[i]))
            ret = q2_counters_add(b->data,
                                  (t->entries[i] & Q2_OFFSET_MASK) >> b->s->cluster_bits,
                                  1, 1, err);
    }
    return ret;
}

static void report_entry(const struct bitmaps *b, const struct table *t, uint64_t i)
{
    q2_scan_report(b->s, &b->s->findings,
                   &(struct q2_finding){.problem = Q2_PROBLEM_BITMAP_ENTRY,
                                        .has = Q2_HAS_OFFSET | Q2_HAS_INDEX |
                                               Q2_HAS_ENTRY | Q2_HAS_EDIT,
                                        .offset = t->entries[i] & Q2_OFFSET_MASK,
                                        .index = i,
                                        .entry = t->entries[i],
                                        .bitmap_name = t->name,
                                        .edit_offset = t->offset + i * 8,
                                        .edit_value = Q2_BITMAP_ALL_ONES});
}

static int judge_data(struct bitmaps *b, const struct table *t, struct q2_error *err)
{
    struct q2_scan *s = b->s;
    int ret = 0;
    for (uint64_t i = 0; i < t->n && ret == 0; i++) {
        uint64_t entry = t->entries[i], offset = entry & Q2_OFFSET_MASK;
        uint64_t cluster = offset >> s->cluster_bits;
        if (entry == 0 || entry == Q2_BITMAP_ALL_ONES)
            continue;
        if (names_data(s, entry) && q2_counters_get(b->data, cluster) == 1 &&
            !is_taken(s, offset, s->cluster_size)) {
            ret = q2_scan_reference(s, offset, s->cluster_size, 1, err);
            continue;
        }
        report_entry(b, t, i);
        if (!q2_scan_in_file(s, offset, s->cluster_size))
            ret = q2_scan_dangles(s, offset, s->cluster_size, err);
    }
    return ret;
}

static int scan_all(struct bitmaps *b, struct q2_error *err)
{
    struct q2_directory_entry e;
    size_t at = 0;
    int ret = judge_directory(b->s, &b->d, err);
    for (unsigned i = 0; i < b->d.n && ret == 0; i++) {
        if (!q2_directory_entry_at(&b->d, at, &e))
            break;
        ret = scan_entry(b, i, &e, err);
        at += e.n_bytes;
    }
    if (ret == 0)
        ret = q2_scan_bitmap_names(b->s, &b->d, err);
    for (size_t i = 0; i < b->n && ret == 0; i++)
        ret = count_data(b, &b->tables[i], err);
    for (size_t i = 0; i < b->n && ret == 0; i++)
        ret = judge_data(b, &b->tables[i], err);
    return ret;
}

int q2_scan_bitmaps(struct q2_scan *s, struct q2_error *err)
{
    struct bitmaps b = {.s = s};
    if (!s->header.has_bitmaps) {
        // Bitmaps are promised, and nothing says where they are.
        if (s->header.autoclear_features & Q2_AUTOCLEAR_BITMAPS)
            report_directory(s, 0, 0);
        return 0;
    }
    b.data = q2_counters_new();
    int ret = b.data ? scan_all(&b, err) : q2_fail_memory(err, sizeof(b));
    for (size_t i = 0; i < b.n; i++)
        free(b.tables[i].entries);
    free(b.tables);
    free(b.d.bytes);
    q2_counters_free(b.data);
    return ret;
}
