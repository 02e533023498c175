// SPDX-License-Identifier: MIT
// A part of a disk as a disk of its own.
#include "image/slice.h"

#include <stdlib.h>
#include <string.h>

struct slice {
    struct q2_disk disk; // first
    struct q2_disk *inner;
    uint64_t start;
};

static struct slice *slice_of(struct q2_disk *d)
{
    return (struct slice *)d;
}

static int slice_read(struct q2_disk *d, uint64_t guest_offset, void *buf, size_t n_bytes,
                      struct q2_error *err)
{
    struct slice *s = slice_of(d);
    return q2_disk_read(s->inner, s->start + guest_offset, buf, n_bytes, err);
}

static int slice_status(struct q2_disk *d, uint64_t guest_offset, uint64_t n_bytes,
                        struct q2_extent *extent, struct q2_error *err)
{
    struct slice *s = slice_of(d);
    unsigned depth;
    int ret = q2_disk_status_above(s->inner, NULL, s->start + guest_offset, n_bytes,
                                   extent, &depth, err);
    extent->allocated = true; // there is nothing below a slice
    return ret;
}

static int slice_flush(struct q2_disk *d, struct q2_error *err)
{
    (void)d;
    (void)err;
    return 0;
}

static void slice_release(struct q2_disk *d)
{
    q2_disk_close(slice_of(d)->inner);
    free(d);
}

static const struct q2_disk_ops slice_ops = {
    .format = "raw",
    .read = slice_read,
    .status = slice_status,
    .flush = slice_flush,
    .release = slice_release,
};

int q2_slice_open(struct q2_disk *inner, uint64_t start, uint64_t n_bytes,
                  struct q2_disk **out, struct q2_error *err)
{
    struct slice *s = calloc(1, sizeof(*s));
    if (!s)
        return q2_fail_memory(err, sizeof(*s));
    *s = (struct slice){.disk = {.ops = &slice_ops, .size = n_bytes, .data_align = 1},
                        .inner = inner,
                        .start = start};
    s->disk.path = strdup(inner->path);
    if (!s->disk.path) {
        free(s);
        return q2_fail_memory(err, strlen(inner->path));
    }
    *out = &s->disk;
    return 0;
}
