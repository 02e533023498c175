// SPDX-License-Identifier: MIT
// Making new images: checks of what was asked for, the empty image, preallocation, and
// the last step that turns the file into an image.
#include "ops/create.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/checked.h"
#include "image/data_file.h"
#include "image/image.h"
#include "image/probe.h"
#include "image/raw.h"
#include "ops/preallocate.h"

static int validate_version2(const struct q2_create_options *o, struct q2_error *err)
{
    const char *what = NULL;
    if (o->extended_l2)
        what = "Extended L2 entries are only supported with compatibility level 1.1 and "
               "above";
    else if (o->lazy_refcounts)
        what = "Lazy refcounts only supported with compatibility level 1.1 and above";
    else if (o->refcount_bits != 16)
        what =
            "Different refcount widths than 16 bits require compatibility level 1.1 or "
            "above";
    else if (o->data_file)
        what = "External data files are only supported with compatibility level 1.1 and "
               "above";
    else if (o->compression != Q2_COMPRESSION_ZLIB)
        what = "Non-zlib compression type is only supported with compatibility level 1.1 "
               "and above";
    return what ? q2_fail(err, -EINVAL, "%s (use version=v3 or greater)", what) : 0;
}

int q2_create_validate_numbers(const struct q2_create_options *o, struct q2_error *err)
{
    if (!q2_is_power_of_2(o->cluster_size) ||
        o->cluster_size < UINT64_C(1) << Q2_MIN_CLUSTER_BITS ||
        o->cluster_size > UINT64_C(1) << Q2_MAX_CLUSTER_BITS)
        return q2_fail(err, -EINVAL,
                       "Cluster size must be a power of two between 512 and 2048k");
    if (!q2_is_power_of_2(o->refcount_bits) ||
        o->refcount_bits > UINT64_C(1) << Q2_MAX_REFCOUNT_ORDER)
        return q2_fail(
            err, -EINVAL,
            "Refcount width must be a power of two and may not exceed 64 bits");
    if (o->extended_l2 && o->cluster_size < UINT64_C(1) << Q2_MIN_EXTENDED_CLUSTER_BITS)
        return q2_fail(err, -EINVAL,
                       "Extended L2 entries are only supported with cluster sizes of at "
                       "least 16384 bytes");
    return 0;
}

static int validate_files(const struct q2_create_options *o, struct q2_error *err)
{
    if (o->backing_format && !o->backing_file)
        return q2_fail(err, -EINVAL,
                       "Backing format cannot be used without backing file");
    if (o->backing_file && strlen(o->backing_file) > Q2_MAX_BACKING_NAME)
        return q2_fail(err, -EINVAL, "Backing file name too long (%zu bytes, at most %u)",
                       strlen(o->backing_file), Q2_MAX_BACKING_NAME);
    if (o->data_file_raw && !o->data_file)
        return q2_fail(err, -EINVAL, "data-file-raw requires data-file");
    if (o->data_file_raw && o->backing_file)
        return q2_fail(err, -EINVAL,
                       "Backing file and data-file-raw cannot be used at the same time");
    // Without subclusters what is preallocated is data, and hides the backing file.
    if (o->backing_file && o->preallocation != Q2_PREALLOC_OFF && !o->extended_l2)
        return q2_fail(err, -EINVAL,
                       "Backing file and preallocation can only be used at the same time "
                       "if extended_l2 is on");
    return 0;
}

static int validate_size(const struct q2_create_options *o, struct q2_error *err)
{
    unsigned cluster_bits = q2_log2(o->cluster_size);
    unsigned l2_bits = cluster_bits - (o->extended_l2 ? 4 : 3);
    if (o->size <= INT64_MAX - 511 &&
        q2_image_l1_entries(o->size, cluster_bits, l2_bits) * 8 <= Q2_MAX_L1_BYTES)
        return 0;
    return q2_fail(err, -EFBIG,
                   "The image size is too large for file format 'qcow2' (try using a "
                   "larger cluster size)");
}

int q2_create_validate(const struct q2_create_options *o, struct q2_error *err)
{
    if (!q2_format_known(o->format))
        return q2_fail(err, -EINVAL, "Unknown file format '%s'", o->format);
    if (strcmp(o->format, "raw") == 0) {
        if (o->backing_file)
            return q2_fail(err, -ENOTSUP,
                           "Backing file not supported for file format 'raw'");
        if (o->preallocation == Q2_PREALLOC_METADATA)
            return q2_fail(err, -ENOTSUP, "Unsupported preallocation mode: metadata");
        return o->size <= INT64_MAX - 511
                   ? 0
                   : q2_fail(err, -EFBIG, "The image size is too large");
    }
    int ret = q2_create_validate_numbers(o, err);
    if (ret == 0 && o->version == 2)
        ret = validate_version2(o, err);
    if (ret == 0)
        ret = validate_files(o, err);
    if (ret == 0 && o->encrypt)
        ret = q2_crypt_validate(o->encrypt, err);
    return ret < 0 ? ret : validate_size(o, err);
}

static char *copy_string(const char *s)
{
    return s ? strdup(s) : NULL;
}

static int make_header(const struct q2_create_options *o, struct q2_header *h,
                       struct q2_error *err)
{
    *h = (struct q2_header){
        .version = o->version,
        .cluster_bits = q2_log2(o->cluster_size),
        .size = q2_align_up(o->size, 512),
        .refcount_order = q2_log2(o->refcount_bits),
        .header_length = o->version == 2 ? Q2_HEADER_V2_BYTES : Q2_HEADER_V3_BYTES,
        .compression_type = (uint8_t)o->compression,
        .backing_file = copy_string(o->backing_file),
        .backing_format = copy_string(o->backing_format),
        .data_file = copy_string(o->data_file),
    };
    if (o->encrypt)
        q2_crypt_announce(o->encrypt, h);
    if (o->lazy_refcounts)
        h->compatible_features |= Q2_COMPAT_LAZY_REFCOUNTS;
    if (o->extended_l2)
        h->incompatible_features |= Q2_INCOMPAT_EXTENDED_L2;
    if (o->compression != Q2_COMPRESSION_ZLIB)
        h->incompatible_features |= Q2_INCOMPAT_COMPRESSION;
    if (o->data_file)
        h->incompatible_features |= Q2_INCOMPAT_DATA_FILE;
    if (o->data_file_raw)
        h->autoclear_features |= Q2_AUTOCLEAR_DATA_FILE_RAW;
    if ((o->backing_file && !h->backing_file) || (o->data_file && !h->data_file) ||
        (o->backing_format && !h->backing_format))
        return q2_fail_memory(err, Q2_MAX_BACKING_NAME);
    return 0;
}

// Encoding the header now shows early whether it fits into its cluster.
static int check_header_fits(struct q2_header *h, struct q2_error *err)
{
    size_t used;
    void *buf = malloc(q2_to_size(q2_header_cluster_size(h)));
    if (!buf)
        return q2_fail_memory(err, q2_header_cluster_size(h));
    int ret = q2_header_encode(h, buf, &used, err);
    free(buf);
    return ret;
}

// A device keeps its bytes: the header of an image that was there must not be read while
// the new one is made, nor after that has failed.
static int wipe_header(struct q2_io *io, uint64_t cluster_size, struct q2_error *err)
{
    if (io->sparse_growth)
        return 0;
    int ret = q2_io_zero(io, 0, cluster_size, false, err);
    return ret < 0 ? ret : q2_io_flush(io, err);
}

static int create_qcow2(struct q2_io *io, const struct q2_create_options *o,
                        const struct q2_file_options *fo, struct q2_disk **out,
                        struct q2_error *err)
{
    struct q2_header header;
    struct q2_image *img;
    int ret = make_header(o, &header, err);
    if (ret == 0)
        ret = check_header_fits(&header, err);
    if (ret == 0)
        ret = wipe_header(io, q2_header_cluster_size(&header), err);
    if (ret == 0)
        ret = q2_image_new(io, &header, &img, err);
    if (ret != 0) {
        q2_header_clear(&header);
        return ret;
    }
    if (o->encrypt)
        ret = q2_crypt_make(img, o->encrypt, err);
    if (ret == 0 && o->data_file)
        ret = q2_data_file_create(img, fo, err);
    if (ret != 0) {
        q2_disk_drop(&img->disk);
        return ret;
    }
    *out = &img->disk;
    return 0;
}

static int create_raw(struct q2_io *io, const struct q2_create_options *o,
                      struct q2_disk **out, struct q2_error *err)
{
    uint64_t size = q2_align_up(o->size, 512), has;
    int ret = 0;
    if (io->sparse_growth) {
        ret = q2_io_set_size(io, size, err);
    } else {
        ret = q2_io_get_size(io, &has, err);
        if (ret == 0 && has < size)
            ret =
                q2_fail(err, -ENOSPC, "The device '%s' is too small (%" PRIu64 " bytes)",
                        io->name, has);
    }
    if (ret == 0)
        ret = q2_raw_open(io, true, out, err);
    if (ret == 0)
        (*out)->size = size;
    return ret;
}

// Copy-on-write of the file system off for this file; only some know it, so no error.
static void set_nocow(struct q2_io *io)
{
    int fd = q2_file_descriptor(io);
    int flags = 0;
    if (fd >= 0 && ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0) {
        flags |= FS_NOCOW_FL;
        ioctl(fd, FS_IOC_SETFLAGS, &flags);
    }
}

// The raw file must be right to programs that do not know of the metadata: all of it is
// mapped from the start.
static enum q2_preallocation preallocation(const struct q2_create_options *o)
{
    bool least = o->data_file_raw && o->preallocation == Q2_PREALLOC_OFF;
    return least ? Q2_PREALLOC_METADATA : o->preallocation;
}

static void abandon_data_file(struct q2_disk *d)
{
    if (d->ops == &q2_image_disk_ops)
        q2_data_file_abandon(q2_image_of(d));
}

static int fill(struct q2_io *io, const char *path, const struct q2_create_options *o,
                const struct q2_file_options *fo, const struct q2_monitor *mon,
                struct q2_disk **out, struct q2_error *err)
{
    bool raw = strcmp(o->format, "raw") == 0;
    struct q2_disk *d;
    int ret = raw ? create_raw(io, o, &d, err) : create_qcow2(io, o, fo, &d, err);
    if (ret != 0)
        return ret;
    d->path = strdup(path);
    if (q2_monitor_cancelled(mon)) // making keys takes seconds
        ret = q2_fail(err, -ECANCELED, "Stopped");
    else
        ret = d->path ? q2_preallocate(d, preallocation(o), mon, err)
                      : q2_fail_memory(err, strlen(path));
    if (ret < 0) {
        abandon_data_file(d);
        q2_disk_drop(d);
        return ret;
    }
    *out = d;
    return 0;
}

int q2_create_in(struct q2_io *io, const struct q2_create_options *o,
                 const struct q2_file_options *file_options, const struct q2_monitor *mon,
                 struct q2_disk **out, struct q2_error *err)
{
    int ret = q2_create_validate(o, err);
    return ret < 0 ? ret : fill(io, io->name, o, file_options, mon, out, err);
}

int q2_create_open(const char *path, const struct q2_create_options *o,
                   const struct q2_file_options *file_options,
                   const struct q2_monitor *mon, struct q2_disk **out, bool *made,
                   struct q2_error *err)
{
    struct q2_file_options fo = *file_options;
    struct q2_io *io;
    fo.writable = true;
    fo.lock = Q2_LOCK_WRITE;
    int ret = q2_create_validate(o, err);
    if (ret == 0)
        ret = q2_file_create(path, &fo, &io, made, err);
    if (ret < 0)
        return ret;
    if (o->nocow)
        set_nocow(io);
    ret = fill(io, path, o, &fo, mon, out, err);
    if (ret < 0) {
        q2_file_abandon(io, *made);
        q2_io_close(io);
    }
    return ret;
}

int q2_create_publish(struct q2_disk *d, struct q2_error *err)
{
    int ret = q2_disk_flush(d, err);
    if (ret < 0 || d->ops != &q2_image_disk_ops)
        return ret;
    struct q2_image *img = q2_image_of(d);
    ret = q2_image_write_header(img, err);
    if (ret < 0)
        return ret;
    img->unpublished = false;
    return q2_io_flush(d->file, err);
}

void q2_create_abandon(struct q2_disk *d, bool made)
{
    abandon_data_file(d);
    q2_file_abandon(d->file, made);
    q2_disk_close(d);
}

int q2_create(const char *path, const struct q2_create_options *options,
              const struct q2_monitor *mon, struct q2_error *err)
{
    const struct q2_file_options fo = {0};
    struct q2_disk *d;
    bool made;
    int ret = q2_create_open(path, options, &fo, mon, &d, &made, err);
    if (ret != 0)
        return ret;
    ret = q2_create_publish(d, err);
    if (ret < 0)
        q2_create_abandon(d, made);
    else
        q2_disk_close(d);
    return ret;
}
