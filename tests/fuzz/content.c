// SPDX-License-Identifier: MIT
// What guests read, remembered in hashes, so that it can be seen whether it has changed.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "tests/fuzz/fuzz.h"

// Most that is looked at of a cluster.
#define BLOCK_BYTES 65536U
#define MAX_EXTENTS 1024U

static uint64_t hash_of(const uint8_t *p, size_t n)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * UINT64_C(0x100000001b3);
    return h;
}

static void read_block(struct q2_image *img, struct fuzz_block *b)
{
    static uint8_t buf[BLOCK_BYTES];
    struct q2_error err = Q2_ERROR_INIT;
    b->readable = q2_disk_read(&img->disk, b->guest_offset, buf, b->n_bytes, &err) == 0;
    b->hash = b->readable ? hash_of(buf, b->n_bytes) : 0;
}

static void add_blocks(struct q2_image *img, struct fuzz_state *s, uint64_t from,
                       uint64_t end)
{
    while (from < end && s->n < FUZZ_MAX_BLOCKS) {
        struct fuzz_block *b = &s->blocks[s->n++];
        uint64_t cluster_end = q2_align_down(from, img->cluster_size) + img->cluster_size;
        uint64_t n = q2_min_u64(q2_min_u64(cluster_end, end) - from, BLOCK_BYTES);
        *b = (struct fuzz_block){.guest_offset = from, .n_bytes = (uint32_t)n};
        read_block(img, b);
        from = cluster_end;
    }
}

// Where nothing is stored, or the mapping cannot be read, one block stands for all.
static void read_state(struct q2_image *img, struct fuzz_state *s)
{
    struct q2_error err = Q2_ERROR_INIT;
    uint64_t at = 0;
    s->size = img->disk.size;
    for (unsigned i = 0; i < MAX_EXTENTS && at < s->size && s->n < FUZZ_MAX_BLOCKS; i++) {
        struct q2_extent e;
        uint64_t n = q2_min_u64(s->size - at, q2_disk_map_step(s->size));
        int ret = q2_disk_status(&img->disk, at, n, &e, &err);
        if (ret < 0)
            e = (struct q2_extent){.n_bytes = q2_min_u64(n, img->cluster_size)};
        if (e.n_bytes == 0 || e.n_bytes > n)
            fuzz_broken("status at %" PRIu64 ": %" PRIu64 " bytes", at, e.n_bytes);
        bool all = ret < 0 || e.data || e.compressed;
        add_blocks(img, s, at,
                   at + (all ? e.n_bytes : q2_min_u64(e.n_bytes, img->disk.grain_size)));
        at += e.n_bytes;
    }
    s->readable = true;
}

// Found by its id, it is this one.
static bool is_own_id(const struct q2_image *img, unsigned index)
{
    for (unsigned i = 0; i < index; i++) {
        if (strcmp(img->snapshots[i].id, img->snapshots[index].id) == 0)
            return false;
    }
    return true;
}

// The id of snapshot number index (from 1); NULL: there is none, or it is another's, too.
static char *id_of(struct q2_io *io, unsigned index, unsigned *n_snapshots)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_image *img = fuzz_open(io, FUZZ_DESCRIPTION);
    char *id = NULL;
    *n_snapshots = 0;
    if (!img)
        return NULL;
    if (q2_image_load_snapshots(img, &err) == 0)
        *n_snapshots = img->n_snapshots;
    if (index > 0 && index <= *n_snapshots && is_own_id(img, index - 1))
        id = strdup(img->snapshots[index - 1].id);
    fuzz_close(img);
    return id;
}

static struct q2_image *open_state(struct q2_io *io, const char *id)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_image *img = fuzz_open(io, FUZZ_READ);
    if (!img || !id || q2_image_select_snapshot(img, id, &err) == 0)
        return img;
    fuzz_close(img);
    return NULL;
}

struct fuzz_content *fuzz_content_read(struct q2_io *io)
{
    struct fuzz_content *c = calloc(1, sizeof(*c));
    unsigned n;
    if (!c)
        fuzz_give_up("no memory");
    free(id_of(io, 0, &c->n_snapshots));
    c->n_states = (unsigned)q2_min_u64(c->n_snapshots + 1, FUZZ_MAX_STATES);
    for (unsigned i = 0; i < c->n_states; i++) {
        struct fuzz_state *s = &c->states[i];
        s->id = id_of(io, i, &n);
        struct q2_image *img = i > 0 && !s->id ? NULL : open_state(io, s->id);
        if (img) {
            read_state(img, s);
            fuzz_close(img);
        }
    }
    return c;
}

void fuzz_content_free(struct fuzz_content *c)
{
    if (!c)
        return;
    for (unsigned i = 0; i < c->n_states; i++)
        free(c->states[i].id);
    free(c);
}

static bool block_same(struct q2_image *img, const struct fuzz_block *b)
{
    struct fuzz_block now = *b;
    if (b->guest_offset + b->n_bytes > img->disk.size)
        return false;
    read_block(img, &now);
    return now.readable && now.hash == b->hash;
}

static bool state_same(struct q2_image *img, unsigned index, const struct fuzz_state *s,
                       const struct fuzz_excuse *excuse, char why[512])
{
    for (unsigned i = 0; i < s->n; i++) {
        const struct fuzz_block *b = &s->blocks[i];
        if (!b->readable || block_same(img, b) ||
            (excuse && excuse->is_excused(excuse->opaque, index, b)))
            continue;
        snprintf(why, 512, "state %u, \"%.60s\": guest bytes at 0x%" PRIx64 " + %u",
                 index, s->id ? s->id : "", b->guest_offset, (unsigned)b->n_bytes);
        return false;
    }
    return true;
}

bool fuzz_content_same(struct q2_io *io, const struct fuzz_content *before,
                       const struct fuzz_excuse *excuse, char why[512])
{
    bool same = true;
    for (unsigned i = 0; i < before->n_states && same; i++) {
        const struct fuzz_state *s = &before->states[i];
        unsigned n;
        char *id = id_of(io, i, &n);
        // A repair gives new ids to those that were there twice, and keeps the order.
        bool by_id = !excuse || n != before->n_snapshots;
        const char *wanted = by_id ? s->id : id;
        bool there = s->readable && (i == 0 || wanted);
        struct q2_image *img = there ? open_state(io, wanted) : NULL;
        if (img) {
            same = state_same(img, i, s, excuse, why);
            fuzz_close(img);
        } else if (s->readable && !excuse) {
            snprintf(why, 512, "state %u, \"%.60s\", is gone", i, s->id ? s->id : "");
            same = false;
        }
        free(id);
    }
    return same;
}
