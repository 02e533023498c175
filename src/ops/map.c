// SPDX-License-Identifier: MIT
// The allocation map. Every layer's last answer is kept, so that a layer is asked once
// for each of its extents, however finely the layers below are cut.
#include "ops/map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

struct layer {
    struct q2_disk *disk;
    uint64_t start;
    struct q2_extent extent; // from start on; n_bytes 0: not asked yet
};

struct walk {
    struct layer *layers;
    unsigned n_layers;
};

static int walk_open(struct walk *w, struct q2_disk *d, struct q2_error *err)
{
    w->n_layers = 0;
    for (const struct q2_disk *p = d; p; p = p->backing)
        w->n_layers++;
    w->layers = calloc(w->n_layers, sizeof(*w->layers));
    if (!w->layers)
        return q2_fail_memory(err, w->n_layers * sizeof(*w->layers));
    for (unsigned i = 0; i < w->n_layers; i++, d = d->backing)
        w->layers[i].disk = d;
    return 0;
}

// What one layer says from offset (inside of it) on.
static int layer_status(struct layer *l, uint64_t offset, struct q2_extent *out,
                        struct q2_error *err)
{
    if (offset < l->start || offset - l->start >= l->extent.n_bytes) {
        uint64_t n = q2_min_u64(l->disk->size - offset, q2_disk_map_step(l->disk->size));
        l->extent.n_bytes = 0;
        int rc = q2_disk_status(l->disk, offset, n, &l->extent, err);
        if (rc)
            return rc;
        l->start = offset;
    }
    *out = l->extent;
    out->n_bytes -= offset - l->start;
    if (out->has_offset)
        out->host_offset += offset - l->start;
    return 0;
}

// The first layer that decides what is read at offset, and for how many of at most n
// bytes all of that is so.
static int chain_status(struct walk *w, uint64_t offset, uint64_t n,
                        struct q2_map_entry *entry, struct q2_error *err)
{
    struct q2_extent e;
    unsigned depth = 0;
    for (;; depth++) {
        int rc = layer_status(&w->layers[depth], offset, &e, err);
        if (rc)
            return rc;
        n = q2_min_u64(n, e.n_bytes);
        if (e.zero || e.data || depth + 1 == w->n_layers)
            break;
        uint64_t below = w->layers[depth + 1].disk->size;
        if (offset >= below) { // reads as zeros, and nobody has it
            e.zero = true;
            break;
        }
        n = q2_min_u64(n, below - offset);
    }
    *entry = (struct q2_map_entry){
        .start = offset,
        .n_bytes = n,
        .depth = depth,
        .present = e.allocated,
        .zero = e.zero,
        .data = e.data,
        .compressed = e.compressed,
        .has_offset = e.has_offset,
        .offset = e.has_offset ? e.host_offset : 0,
        .filename = e.has_offset && e.file ? e.file->name : NULL,
    };
    return 0;
}

static bool continues(const struct q2_map_entry *a, const struct q2_map_entry *b)
{
    if (a->zero != b->zero || a->data != b->data || a->compressed != b->compressed ||
        a->depth != b->depth || a->present != b->present ||
        a->has_offset != b->has_offset || !a->filename != !b->filename)
        return false;
    if (a->has_offset && a->offset + a->n_bytes != b->offset)
        return false;
    return !a->filename || a->filename == b->filename ||
           !strcmp(a->filename, b->filename);
}

static int walk_range(struct walk *w, uint64_t start, uint64_t end,
                      const struct q2_monitor *mon,
                      int (*emit)(void *opaque, const struct q2_map_entry *entry,
                                  struct q2_error *err),
                      void *opaque, struct q2_error *err)
{
    struct q2_map_entry last = {.n_bytes = 0}, next;
    for (uint64_t at = start; at < end; at += next.n_bytes) {
        if (q2_monitor_cancelled(mon))
            return q2_fail(err, -ECANCELED, "Stopped");
        q2_monitor_progress(mon, at - start, end - start);
        int rc = chain_status(w, at, end - at, &next, err);
        if (rc)
            return q2_context(err, "Could not read file metadata");
        if (last.n_bytes && continues(&last, &next)) {
            last.n_bytes += next.n_bytes;
            continue;
        }
        rc = last.n_bytes ? emit(opaque, &last, err) : 0;
        if (rc)
            return rc;
        last = next;
    }
    return last.n_bytes ? emit(opaque, &last, err) : 0;
}

int q2_map(struct q2_disk *d, uint64_t start, uint64_t n_bytes,
           const struct q2_monitor *mon,
           int (*emit)(void *opaque, const struct q2_map_entry *entry,
                       struct q2_error *err),
           void *opaque, struct q2_error *err)
{
    struct walk w;
    if (start >= d->size)
        return 0;
    int rc = walk_open(&w, d, err);
    if (rc)
        return rc;
    uint64_t end = start + q2_min_u64(n_bytes, d->size - start);
    rc = walk_range(&w, start, end, mon, emit, opaque, err);
    free(w.layers);
    return rc;
}
