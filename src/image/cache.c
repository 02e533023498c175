// SPDX-License-Identifier: MIT
// The metadata cache: a hash table of clusters with a list in order of last use.
#include "image/cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "disk/entry.h"

#define MIN_TABLES 8U
// One write of neighbouring tables is at most this long, or one table.
#define WRITE_RUN_BYTES (UINT64_C(1) << 20)
// What the page cache and most disks write at least.
#define WRITE_BLOCK_BYTES 4096U
// Clean bytes between two dirty ranges that are cheaper written than left out.
#define WRITE_GAP_BYTES (UINT64_C(16) << 10)

struct slot {
    struct q2_table table; // first: a q2_table pointer is a slot pointer
    struct slot *next_in_bucket;
    struct slot *newer, *older;
};

struct q2_cache {
    enum q2_cache_form form;
    uint32_t cluster_size;
    unsigned cluster_bits;
    size_t n_tables, max_tables, n_dirty;
    size_t n_buckets; // a power of two
    struct slot **buckets;
    struct slot *newest, *oldest;
};

void q2_cache_set_size(struct q2_cache *c, uint64_t max_bytes)
{
    c->max_tables = (size_t)q2_max_u64(max_bytes / c->cluster_size, MIN_TABLES);
}

struct q2_cache *q2_cache_new(enum q2_cache_form form, uint32_t cluster_size,
                              uint64_t max_bytes)
{
    struct q2_cache *c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->form = form;
    c->cluster_size = cluster_size;
    c->cluster_bits = q2_log2(cluster_size);
    q2_cache_set_size(c, max_bytes);
    c->n_buckets = 64;
    while (c->n_buckets < c->max_tables && c->n_buckets < 65536)
        c->n_buckets *= 2;
    c->buckets = calloc(c->n_buckets, sizeof(struct slot *));
    if (!c->buckets) {
        free(c);
        return NULL;
    }
    return c;
}

static struct slot **bucket_of(const struct q2_cache *c, uint64_t host_offset)
{
    uint64_t h = (host_offset >> c->cluster_bits) * UINT64_C(0x9e3779b97f4a7c15);
    return &c->buckets[(h >> 32) & (c->n_buckets - 1)];
}

static void unlink_use(struct q2_cache *c, struct slot *s)
{
    *(s->newer ? &s->newer->older : &c->newest) = s->older;
    *(s->older ? &s->older->newer : &c->oldest) = s->newer;
    s->newer = s->older = NULL;
}

static void link_newest(struct q2_cache *c, struct slot *s)
{
    s->older = c->newest;
    s->newer = NULL;
    *(c->newest ? &c->newest->newer : &c->oldest) = s;
    c->newest = s;
}

static bool is_dirty(const struct q2_table *t)
{
    return t->dirty_from < t->dirty_end;
}

static void destroy_slot(struct q2_cache *c, struct slot *s)
{
    struct slot **p = bucket_of(c, s->table.host_offset);
    while (*p != s)
        p = &(*p)->next_in_bucket;
    *p = s->next_in_bucket;
    unlink_use(c, s);
    if (is_dirty(&s->table))
        c->n_dirty--;
    c->n_tables--;
    free(s->table.data);
    free(s);
}

void q2_cache_free(struct q2_cache *c)
{
    if (!c)
        return;
    while (c->newest)
        destroy_slot(c, c->newest);
    free(c->buckets);
    free(c);
}

static struct slot *find(const struct q2_cache *c, uint64_t host_offset)
{
    struct slot *s = *bucket_of(c, host_offset);
    while (s && s->table.host_offset != host_offset)
        s = s->next_in_bucket;
    return s;
}

static int new_slot(struct q2_cache *c, uint64_t host_offset, struct slot **out,
                    struct q2_error *err)
{
    struct slot *s = calloc(1, sizeof(*s));
    // Not aligned: a table that takes the place of another fits into the gap it left.
    void *data = malloc(c->cluster_size);
    if (!s || !data) {
        free(s);
        free(data);
        return q2_fail_memory(err, c->cluster_size);
    }
    s->table.host_offset = host_offset;
    s->table.data = data;
    *out = s;
    return 0;
}

static void insert(struct q2_cache *c, struct slot *s)
{
    struct slot **b = bucket_of(c, s->table.host_offset);
    s->next_in_bucket = *b;
    *b = s;
    link_newest(c, s);
    c->n_tables++;
}

int q2_cache_get(struct q2_cache *c, struct q2_io *io, uint64_t host_offset,
                 const char *what, struct q2_table **out, struct q2_error *err)
{
    struct slot *s = find(c, host_offset);
    if (s) {
        if (s != c->newest) {
            unlink_use(c, s);
            link_newest(c, s);
        }
        *out = &s->table;
        return 0;
    }
    int ret = new_slot(c, host_offset, &s, err);
    if (ret < 0)
        return ret;
    ret = q2_io_read(io, host_offset, s->table.data, c->cluster_size, err);
    if (ret < 0) {
        free(s->table.data);
        free(s);
        return q2_context(err, "Could not read %s", what);
    }
    if (c->form == Q2_CACHE_ENTRIES)
        q2_table_decode(s->table.data, s->table.data, c->cluster_size / 8);
    insert(c, s);
    *out = &s->table;
    return 0;
}

int q2_cache_add(struct q2_cache *c, uint64_t host_offset, struct q2_table **out,
                 struct q2_error *err)
{
    struct slot *s;
    q2_cache_drop(c, host_offset);
    int ret = new_slot(c, host_offset, &s, err);
    if (ret < 0)
        return ret;
    memset(s->table.data, 0, c->cluster_size);
    insert(c, s);
    q2_cache_mark_dirty(c, &s->table);
    *out = &s->table;
    return 0;
}

void q2_cache_drop(struct q2_cache *c, uint64_t host_offset)
{
    struct slot *s = find(c, host_offset);
    if (s)
        destroy_slot(c, s);
}

void q2_cache_mark_range(struct q2_cache *c, struct q2_table *t, uint64_t from,
                         uint64_t n_bytes)
{
    uint32_t start = (uint32_t)from, end = (uint32_t)(from + n_bytes);
    if (!is_dirty(t)) {
        c->n_dirty++;
        t->dirty_from = start;
        t->dirty_end = end;
        return;
    }
    t->dirty_from = start < t->dirty_from ? start : t->dirty_from;
    t->dirty_end = end > t->dirty_end ? end : t->dirty_end;
}

void q2_cache_mark_dirty(struct q2_cache *c, struct q2_table *t)
{
    q2_cache_mark_range(c, t, 0, c->cluster_size);
}

bool q2_cache_has_dirty(const struct q2_cache *c)
{
    return c->n_dirty > 0;
}

bool q2_cache_holds(const struct q2_cache *c, uint64_t host_offset)
{
    return find(c, host_offset) != NULL;
}

bool q2_cache_full(const struct q2_cache *c)
{
    return c->n_tables > c->max_tables;
}

bool q2_cache_wants_writing(const struct q2_cache *c)
{
    return q2_cache_full(c) && c->n_dirty > c->max_tables / 2;
}

void q2_cache_trim(struct q2_cache *c)
{
    struct slot *s = c->oldest;
    while (s && c->n_tables > c->max_tables) {
        struct slot *newer = s->newer;
        if (!is_dirty(&s->table))
            destroy_slot(c, s);
        s = newer;
    }
}

static int by_offset(const void *a, const void *b)
{
    uint64_t x = (*(struct slot *const *)a)->table.host_offset;
    uint64_t y = (*(struct slot *const *)b)->table.host_offset;
    return (x > y) - (x < y);
}

// Where in the file the blocks begin and end that have what is dirty.
static uint64_t write_start(const struct slot *s)
{
    return s->table.host_offset + q2_align_down(s->table.dirty_from, WRITE_BLOCK_BYTES);
}

static uint64_t write_end(const struct q2_cache *c, const struct slot *s)
{
    uint64_t end = q2_align_up(s->table.dirty_end, WRITE_BLOCK_BYTES);
    return s->table.host_offset + q2_min_u64(end, c->cluster_size);
}

// How many of the n slots, from the first on, go into one write.
static size_t run_length(const struct q2_cache *c, struct slot *const *slots, size_t n)
{
    size_t run = 1;
    while (run < n &&
           slots[run]->table.host_offset ==
               slots[run - 1]->table.host_offset + c->cluster_size &&
           write_start(slots[run]) - write_end(c, slots[run - 1]) <= WRITE_GAP_BYTES &&
           write_end(c, slots[run]) - write_start(slots[0]) <= WRITE_RUN_BYTES)
        run++;
    return run;
}

static void encode(const struct q2_cache *c, const struct slot *s, uint64_t from,
                   uint64_t n_bytes, uint8_t *to)
{
    const uint8_t *data = s->table.data;
    if (c->form == Q2_CACHE_ENTRIES)
        q2_table_encode((const uint64_t *)s->table.data + from / 8, to,
                        (size_t)n_bytes / 8);
    else
        memcpy(to, data + from, (size_t)n_bytes);
}

// Encodes and writes what is dirty in n neighbouring tables, and between, with one call.
static int write_run(struct q2_cache *c, struct q2_io *io, struct slot **run, size_t n,
                     uint8_t *buf, struct q2_error *err)
{
    uint64_t start = write_start(run[0]), end = write_end(c, run[n - 1]);
    for (size_t i = 0; i < n; i++) {
        uint64_t table = run[i]->table.host_offset;
        uint64_t from = i == 0 ? start : table;
        uint64_t to = i == n - 1 ? end : table + c->cluster_size;
        encode(c, run[i], from - table, to - from, buf + (from - start));
    }
    int ret = q2_io_write(io, start, buf, (size_t)(end - start), err);
    if (ret < 0)
        return ret;
    for (size_t i = 0; i < n; i++)
        run[i]->table.dirty_from = run[i]->table.dirty_end = 0;
    c->n_dirty -= n;
    return 0;
}

static int write_sorted(struct q2_cache *c, struct q2_io *io, struct slot **dirty,
                        size_t n, struct q2_error *err)
{
    size_t longest =
        q2_to_size(q2_min_u64(write_end(c, dirty[n - 1]) - write_start(dirty[0]),
                              q2_max_u64(WRITE_RUN_BYTES, c->cluster_size)));
    uint8_t *buf;
    if (posix_memalign((void **)&buf, 4096, longest) != 0)
        return q2_fail_memory(err, longest);
    int ret = 0;
    for (size_t i = 0; i < n && ret == 0;) {
        size_t run = run_length(c, dirty + i, n - i);
        ret = write_run(c, io, dirty + i, run, buf, err);
        i += run;
    }
    free(buf);
    return ret;
}

int q2_cache_write_back(struct q2_cache *c, struct q2_io *io, struct q2_error *err)
{
    if (c->n_dirty == 0)
        return 0;
    size_t n = 0;
    struct slot **dirty = malloc(c->n_dirty * sizeof(*dirty));
    if (!dirty)
        return q2_fail_memory(err, c->n_dirty * sizeof(*dirty));
    for (struct slot *s = c->newest; s && n < c->n_dirty; s = s->older) {
        if (is_dirty(&s->table))
            dirty[n++] = s;
    }
    qsort(dirty, n, sizeof(*dirty), by_offset);
    int ret = write_sorted(c, io, dirty, n, err);
    free(dirty);
    return ret;
}
