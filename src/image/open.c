// SPDX-License-Identifier: MIT
// Opening disks by name, with their backing chains.
#include "image/open.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/crypt.h"
#include "image/data_file.h"
#include "image/image.h"
#include "image/metadata.h"
#include "image/probe.h"
#include "image/raw.h"

// A file that a writer lets nobody resize is no image that is being made: those who make
// one grow it.
static bool may_share_raw(const struct q2_open_options *o)
{
    return o->beside_writer && !o->writable && !o->unsafe_share;
}

static enum q2_lock_mode lock_mode(const struct q2_open_options *o)
{
    if (o->writable)
        return Q2_LOCK_WRITE;
    if (o->unsafe_share)
        return Q2_LOCK_SHARED;
    if (may_share_raw(o) && o->format && strcmp(o->format, "raw") == 0)
        return Q2_LOCK_RAW;
    return o->image_only ? Q2_LOCK_METADATA : Q2_LOCK_READ;
}

static struct q2_file_options file_options(const struct q2_open_options *o)
{
    struct q2_file_options fo = o->file;
    fo.writable = o->writable;
    fo.lock = lock_mode(o);
    fo.locking = o->runtime ? o->runtime->locking : Q2_LOCKING_AUTO;
    return fo;
}

static int open_data_file(struct q2_image *img, const struct q2_open_options *o,
                          struct q2_error *err)
{
    struct q2_file_options fo = file_options(o);
    const char *given = o->runtime ? o->runtime->data_file : NULL;
    fo.locking = o->runtime ? o->runtime->data_file_locking : Q2_LOCKING_AUTO;
    if (q2_image_has_data_file(img))
        return q2_data_file_open(img, given, &fo, err);
    if (given)
        return q2_fail(
            err, -EINVAL,
            "'data-file' can only be set for images with an external data file");
    return 0;
}

static int open_image(struct q2_io *io, const struct q2_open_options *o,
                      struct q2_disk **out, struct q2_error *err)
{
    struct q2_image *img;
    bool guest_data = !o->image_only && !o->metadata_only;
    int ret = q2_image_open(io, o->writable, true, &img, err);
    if (ret < 0)
        return ret;
    if (o->runtime && o->runtime->encrypt_format)
        ret = q2_crypt_check_format(img, o->runtime->encrypt_format, err);
    if (ret == 0 && ((guest_data && !o->no_key) || o->need_key))
        ret = q2_crypt_unlock(img, o->runtime, err);
    if (ret == 0 && !o->image_only)
        ret = q2_image_load_metadata(img, err);
    if (ret == 0 && o->runtime)
        ret = q2_image_configure(img, o->runtime, err);
    if (ret == 0 && guest_data)
        ret = open_data_file(img, o, err);
    if (ret < 0) {
        img->disk.ops->release(&img->disk);
        return ret;
    }
    *out = &img->disk;
    return 0;
}

static int open_qcow2(struct q2_io *io, const struct q2_open_options *o,
                      struct q2_disk **out, struct q2_error *err)
{
    int ret = open_image(io, o, out, err);
    if (ret != -EUCLEAN || !o->clean)
        return ret;
    *err = (struct q2_error)Q2_ERROR_INIT;
    ret = o->clean(o->opaque, io, err);
    return ret < 0 ? ret : open_image(io, o, out, err);
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
    if (ret != 0)
        return ret;
    d->probed_raw = raw && !o->format;
    configure(d, o);
    ret = set_path(d, path, err);
    if (ret < 0) {
        q2_disk_drop(d);
        return ret;
    }
    *out = d;
    return 0;
}

// Somebody writes to the file, whose format is not given. If it turns out to be raw, that
// is no obstacle; else err stays as it is.
static int open_beside_writer(const char *path, struct q2_file_options fo,
                              const struct q2_windows *windows, struct q2_io **out,
                              struct q2_error *err)
{
    struct q2_error ignored = Q2_ERROR_INIT;
    const char *format;
    fo.lock = Q2_LOCK_RAW;
    if (q2_window_open_file(path, &fo, windows, out, &ignored) < 0)
        return err->code;
    if (q2_probe(*out, &format, &ignored) < 0 || strcmp(format, "raw") != 0) {
        q2_io_close(*out);
        return err->code;
    }
    *err = (struct q2_error)Q2_ERROR_INIT;
    return 0;
}

static int open_file(const char *path, const struct q2_open_options *o,
                     struct q2_io **out, struct q2_error *err)
{
    const struct q2_file_options fo = file_options(o);
    const struct q2_windows *windows = o->runtime ? &o->runtime->windows : NULL;
    int ret = q2_window_open_file(path, &fo, windows, out, err);
    return ret == -EAGAIN && !o->format && may_share_raw(o)
               ? open_beside_writer(path, fo, windows, out, err)
               : ret;
}

static int open_layer(const char *name, const struct q2_open_options *o,
                      struct q2_disk **out, struct q2_error *err)
{
    const char *path;
    struct q2_io *io;
    int ret = q2_path_plain(name, &path, err);
    if (ret == 0)
        ret = open_file(path, o, &io, err);
    if (ret != 0)
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
                        struct q2_error *err)
{
    const struct q2_header *h = header_of(d);
    struct q2_open_options o = {.format = h->backing_format,
                                .no_key = top->no_key,
                                .unsafe_share = top->unsafe_share,
                                .file = top->file};
    char *path;
    int ret = q2_backing_path(d->path, h->backing_file, &path, err);
    if (ret < 0)
        return q2_context(err, "Could not open backing file '%s'", h->backing_file);
    ret = open_layer(path, &o, &d->backing, err);
    free(path);
    return ret < 0 ? q2_context(err, "Could not open backing file") : 0;
}

// A layer that is its own backing file would be opened, tables and all, until the chain
// is too long.
static int refuse_loop(const struct q2_disk *top, const struct q2_disk *last,
                       struct q2_error *err)
{
    for (const struct q2_disk *d = top; d != last; d = d->backing) {
        if (q2_file_same(d->file, last->file))
            return q2_fail(err, -ELOOP, "Backing file '%s' creates an infinite loop",
                           last->path);
    }
    return 0;
}

int q2_disk_open_chain(struct q2_disk *top, const struct q2_open_options *o,
                       struct q2_error *err)
{
    unsigned n = 1;
    for (struct q2_disk *d = top; header_of(d) && header_of(d)->backing_file;
         d = d->backing) {
        if (n++ > Q2_MAX_CHAIN)
            return q2_fail(err, -ELOOP, "The backing chain has more than %u layers",
                           Q2_MAX_CHAIN);
        int ret = open_backing(d, o, err);
        // One for each layer, as if each had opened the next.
        for (unsigned i = 2; ret < 0 && i < n; i++)
            q2_context(err, "Could not open backing file");
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
    if (ret != 0) {
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
