// SPDX-License-Identifier: MIT
// Opening disks by name, with their backing chains.
#include "image/open.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "image/crypt.h"
#include "image/image.h"
#include "image/metadata.h"
#include "image/probe.h"
#include "image/raw.h"

// "proto:" in front of a name: a colon before the first slash.
static size_t protocol_length(const char *name)
{
    size_t n = strcspn(name, ":/");
    return name[n] == ':' ? n : 0;
}

// Strips "file:"; other protocols are refused.
static int plain_path(const char *name, const char **out, struct q2_error *err)
{
    size_t n = protocol_length(name);
    *out = name;
    if (n == 0)
        return 0;
    if (n == 4 && strncmp(name, "file", 4) == 0) {
        *out = name + 5;
        return 0;
    }
    return q2_fail(err, -EINVAL, "Unknown protocol '%.*s'", (int)n, name);
}

int q2_backing_path(const char *overlay_path, const char *backing_name, char **out,
                    struct q2_error *err)
{
    const char *name;
    int ret = plain_path(backing_name, &name, err);
    if (ret < 0)
        return ret;
    const char *slash = strrchr(overlay_path, '/');
    size_t n_dir = name == backing_name && name[0] != '/' && slash
                       ? (size_t)(slash - overlay_path) + 1
                       : 0;
    size_t n_name = strlen(name) + 1;
    char *path = malloc(n_dir + n_name);
    if (!path)
        return q2_fail_memory(err, n_dir + n_name);
    memcpy(path, overlay_path, n_dir);
    memcpy(path + n_dir, name, n_name);
    *out = path;
    return 0;
}

static enum q2_lock_mode lock_mode(const struct q2_open_options *o)
{
    if (o->writable)
        return Q2_LOCK_WRITE;
    if (o->unsafe_share)
        return Q2_LOCK_SHARED;
    return o->image_only ? Q2_LOCK_METADATA : Q2_LOCK_READ;
}

static int open_qcow2(struct q2_io *io, const struct q2_open_options *o,
                      struct q2_disk **out, struct q2_error *err)
{
    struct q2_image *img;
    bool guest_data = !o->image_only && !o->metadata_only;
    int ret = q2_image_open(io, o->writable, true, &img, err);
    if (ret < 0)
        return ret;
    if ((guest_data && !o->no_key) || o->need_key)
        ret = q2_crypt_unlock(img, o->runtime, err);
    if (ret == 0 && guest_data)
        ret = q2_image_load(img, err);
    if (ret == 0 && o->metadata_only)
        ret = q2_image_load_metadata(img, err);
    if (ret == 0 && o->runtime)
        ret = q2_image_configure(img, o->runtime, err);
    if (ret < 0) {
        img->disk.ops->release(&img->disk);
        return ret;
    }
    *out = &img->disk;
    return 0;
}

static int set_path(struct q2_disk *d, const char *path, struct q2_error *err)
{
    d->path = strdup(path);
    return d->path ? 0 : q2_fail_memory(err, strlen(path) + 1);
}

// What runtime options mean for any format.
static void configure(struct q2_disk *d, const struct q2_open_options *o)
{
    d->flush_writes = o->writable && o->file.sync_writes;
    if (!o->runtime)
        return;
    d->discard_unmap = o->runtime->discard_unmap;
    d->detect_zeroes = o->runtime->detect_zeroes;
    d->detect_zeroes_unmap = o->runtime->detect_zeroes_unmap;
}

// The disk over an open file; io belongs to it on success.
static int open_format(struct q2_io *io, const char *path,
                       const struct q2_open_options *o, struct q2_disk **out,
                       struct q2_error *err)
{
    const char *format = o->format;
    struct q2_disk *d;
    int ret = format ? 0 : q2_probe(io, &format, err);
    if (ret < 0)
        return ret;
    if (!q2_format_known(format))
        return q2_fail(err, -EINVAL, "Unknown driver '%s'", format);
    bool raw = strcmp(format, "raw") == 0;
    ret = raw ? q2_raw_open(io, o->writable, &d, err) : open_qcow2(io, o, &d, err);
    if (ret < 0)
        return ret;
    d->probed_raw = raw && !o->format;
    configure(d, o);
    ret = set_path(d, path, err);
    if (ret < 0) {
        d->ops->release(d);
        return ret;
    }
    *out = d;
    return 0;
}

static int open_layer(const char *name, const struct q2_open_options *o,
                      struct q2_disk **out, struct q2_error *err)
{
    const char *path;
    struct q2_io *io;
    struct q2_file_options fo = o->file;
    fo.writable = o->writable;
    fo.lock = lock_mode(o);
    int ret = plain_path(name, &path, err);
    if (ret == 0)
        ret = q2_file_open(path, &fo, &io, err);
    if (ret < 0)
        return ret;
    ret = open_format(io, path, o, out, err);
    if (ret < 0)
        q2_io_close(io);
    return ret;
}

// The backing name of a layer as it stands in its header; NULL: none.
static const struct q2_header *header_of(struct q2_disk *d)
{
    return d->ops == &q2_image_disk_ops ? &q2_image_of(d)->header : NULL;
}

static int open_backing(struct q2_disk *d, const struct q2_open_options *top,
                        const struct q2_runtime *runtime, struct q2_error *err)
{
    const struct q2_header *h = header_of(d);
    struct q2_open_options o = {.format = h->backing_format,
                                .no_key = top->no_key,
                                .unsafe_share = top->unsafe_share,
                                .runtime = runtime,
                                .file = top->file};
    char *path;
    int ret = q2_backing_path(d->path, h->backing_file, &path, err);
    if (ret < 0)
        return q2_context(err, "Could not open backing file '%s'", h->backing_file);
    ret = open_layer(path, &o, &d->backing, err);
    free(path);
    return ret < 0 ? q2_context(err, "Could not open backing file") : 0;
}

static bool same_file(const struct q2_disk *a, const struct q2_disk *b)
{
    struct stat x, y;
    int fd_a = q2_file_descriptor(a->file), fd_b = q2_file_descriptor(b->file);
    return fd_a >= 0 && fd_b >= 0 && fstat(fd_a, &x) == 0 && fstat(fd_b, &y) == 0 &&
           x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

// A layer that is its own backing file would be opened, tables and all, until the chain
// is too long.
static int refuse_loop(const struct q2_disk *top, const struct q2_disk *last,
                       struct q2_error *err)
{
    for (const struct q2_disk *d = top; d != last; d = d->backing) {
        if (same_file(d, last))
            return q2_fail(err, -ELOOP, "Backing file '%s' creates an infinite loop",
                           last->path);
    }
    return 0;
}

int q2_disk_open_chain(struct q2_disk *top, const struct q2_open_options *o,
                       struct q2_error *err)
{
    const struct q2_runtime *runtime = o->runtime;
    unsigned n = 1;
    for (struct q2_disk *d = top; header_of(d) && header_of(d)->backing_file;
         d = d->backing) {
        if (n++ > Q2_MAX_CHAIN)
            return q2_fail(err, -ELOOP, "The backing chain has more than %u layers",
                           Q2_MAX_CHAIN);
        runtime = runtime ? runtime->backing : NULL;
        int ret = open_backing(d, o, runtime, err);
        if (ret == 0)
            ret = refuse_loop(top, d->backing, err);
        if (ret < 0)
            return ret;
    }
    return 0;
}

int q2_disk_open(const char *path, const struct q2_open_options *o, struct q2_disk **out,
                 struct q2_error *err)
{
    struct q2_disk *d = NULL;
    int ret = open_layer(path, o, &d, err);
    bool backing_off = o->runtime && o->runtime->backing_off;
    if (ret == 0 && !o->no_backing && !o->image_only && !o->metadata_only && !backing_off)
        ret = q2_disk_open_chain(d, o, err);
    if (ret < 0) {
        q2_disk_close(d);
        return q2_context(err, "Could not open '%s'", path);
    }
    if (o->snapshot) {
        ret =
            d->ops == &q2_image_disk_ops
                ? q2_image_select_snapshot(q2_image_of(d), o->snapshot, err)
                : q2_fail(err, -ENOTSUP,
                          "Failed to load snapshot: Device '' does not support internal "
                          "snapshots");
        if (ret < 0) {
            q2_disk_close(d);
            return ret;
        }
    }
    *out = d;
    return 0;
}
