// SPDX-License-Identifier: MIT
// The metadata cache: a hash table of clusters with a list in order of last use.
#include "image/cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "disk/entry.h"

#define MIN_TABLES 8U
// One write of neighbouring tables is at most this long.
#define WRITE_RUN_BYTES (UINT32_C(1) << 20)

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

static void destroy_slot(struct q2_cache *c, struct slot *s)
{
    struct slot **p = bucket_of(c, s->table.host_offset);
    while (*p != s)
        p = &(*p)->next_in_bucket;
    *p = s->next_in_bucket;
    unlink_use(c, s);
    if (s->table.dirty)
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
    void *data = NULL;
    if (!s || posix_memalign(&data, 4096, c->cluster_size) != 0) {
        free(s);
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

void q2_cache_mark_dirty(struct q2_cache *c, struct q2_table *t)
{
    if (!t->dirty) {
        t->dirty = true;
        c->n_dirty++;
    }
}

bool q2_cache_has_dirty(const struct q2_cache *c)
{
    return c->n_dirty > 0;
}

bool q2_cache_full(const struct q2_cache *c)
{
    return c->n_tables > c->max_tables;
}

void q2_cache_trim(struct q2_cache *c)
{
    struct slot *s = c->oldest;
    while (s && c->n_tables > c->max_tables) {
        struct slot *newer = s->newer;
        if (!s->table.dirty)
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

// Encodes and writes n neighbouring tables with one call.
static int write_run(struct q2_cache *c, struct q2_io *io, struct slot **run, size_t n,
                     uint8_t *buf, struct q2_error *err)
{
    for (size_t i = 0; i < n; i++) {
        uint8_t *at = buf + i * c->cluster_size;
        if (c->form == Q2_CACHE_ENTRIES)
            q2_table_encode(run[i]->table.data, at, c->cluster_size / 8);
        else
            memcpy(at, run[i]->table.data, c->cluster_size);
    }
    int ret = q2_io_write(io, run[0]->table.host_offset, buf, n * c->cluster_size, err);
    if (ret < 0)
        return ret;
    for (size_t i = 0; i < n; i++)
        run[i]->table.dirty = false;
    c->n_dirty -= n;
    return 0;
}

static int write_sorted(struct q2_cache *c, struct q2_io *io, struct slot **dirty,
                        size_t n, struct q2_error *err)
{
    size_t max_run = q2_max_u64(1, WRITE_RUN_BYTES / c->cluster_size);
    uint8_t *buf;
    if (posix_memalign((void **)&buf, 4096, max_run * c->cluster_size) != 0)
        return q2_fail_memory(err, max_run * c->cluster_size);
    int ret = 0;
    for (size_t i = 0; i < n && ret == 0;) {
        size_t run = 1;
        while (i + run < n && run < max_run &&
               dirty[i + run]->table.host_offset ==
                   dirty[i]->table.host_offset + run * c->cluster_size)
            run++;
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
    for (struct slot *s = c->newest; s; s = s->older) {
        if (s->table.dirty)
            dirty[n++] = s;
    }
    qsort(dirty, n, sizeof(*dirty), by_offset);
    int ret = write_sorted(c, io, dirty, n, err);
    free(dirty);
    return ret;
}
