// SPDX-License-Identifier: MIT
// The external data file of an image.
#include "image/data_file.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>

#include "base/checked.h"
#include "image/path.h"

// A data file that is the image itself would be written over the metadata; image locks do
// not tell everywhere.
static int refuse_itself(const struct q2_image *img, const struct q2_io *data,
                         struct q2_error *err)
{
    return q2_file_same(img->disk.file, data)
               ? q2_fail(err, -EINVAL, "'%s' cannot be the data file of itself",
                         data->name)
               : 0;
}

static int adopt(struct q2_image *img, struct q2_io *data, struct q2_error *err)
{
    int ret = refuse_itself(img, data, err);
    if (ret < 0)
        q2_io_close(data);
    else
        img->disk.data = data;
    return ret;
}

int q2_data_file_open(struct q2_image *img, const char *given,
                      const struct q2_file_options *options, struct q2_error *err)
{
    const char *path = given;
    struct q2_io *data;
    if (!given && !img->header.data_file)
        return q2_fail(err, -EINVAL, "'data-file' is required for this image");
    // What the user gives is a path; a name out of the image may be anything.
    int ret = given ? 0 : q2_path_plain(img->header.data_file, &path, err);
    if (ret == 0)
        ret = q2_file_open(path, options, &data, err);
    return ret != 0 ? ret : adopt(img, data, err);
}

int q2_data_file_set_size(struct q2_image *img, uint64_t size, struct q2_error *err)
{
    struct q2_io *data = img->disk.data;
    uint64_t has;
    if (!q2_image_has_data_file(img))
        return 0;
    if (!data)
        return q2_fail(err, -EIO, "'%s': the data file is not open", img->disk.path);
    if (data->sparse_growth)
        return q2_io_set_size(data, size, err);
    int ret = q2_io_get_size(data, &has, err);
    if (ret < 0 || has >= size)
        return ret;
    return q2_fail(err, -ENOSPC, "The device '%s' is too small (%" PRIu64 " bytes)",
                   data->name, has);
}

int q2_data_file_create(struct q2_image *img, const struct q2_file_options *options,
                        struct q2_error *err)
{
    const char *path;
    struct q2_io *data;
    int ret = q2_path_plain(img->header.data_file, &path, err);
    if (ret == 0)
        ret = q2_file_create(path, options, &data, &img->data_file_made, err);
    if (ret == 0)
        ret = adopt(img, data, err);
    if (ret < 0)
        return ret;
    ret = q2_data_file_set_size(img, img->disk.size, err);
    if (ret < 0)
        q2_data_file_abandon(img);
    return ret;
}

void q2_data_file_abandon(struct q2_image *img)
{
    if (img->disk.data && img->disk.data != img->disk.file)
        q2_file_abandon(img->disk.data, img->data_file_made);
}

int q2_data_file_cut(struct q2_image *img, uint64_t size, struct q2_error *err)
{
    struct q2_io *data = img->disk.data;
    uint64_t has;
    if (!q2_image_has_data_file(img) || !data || !data->sparse_growth)
        return 0;
    int ret = q2_io_get_size(data, &has, err);
    return ret < 0 || has <= size ? ret : q2_io_set_size(data, size, err);
}

int q2_data_file_flush(struct q2_image *img, struct q2_error *err)
{
    bool own = img->disk.data && img->disk.data != img->disk.file;
    return own ? q2_io_flush(img->disk.data, err) : 0;
}

// How much of the range is in the file.
static int cut_range(struct q2_io *data, uint64_t offset, uint64_t *n_bytes,
                     struct q2_error *err)
{
    uint64_t size;
    int ret = q2_io_get_size(data, &size, err);
    if (ret == 0)
        *n_bytes = offset < size ? q2_min_u64(*n_bytes, size - offset) : 0;
    return ret;
}

int q2_data_file_zero(struct q2_image *img, uint64_t guest_offset, uint64_t n_bytes,
                      bool unmap, struct q2_error *err)
{
    struct q2_io *data = img->disk.data;
    if (!data)
        return q2_fail(err, -EIO, "'%s': the data file is not open", img->disk.path);
    pthread_mutex_lock(&img->lock);
    int ret = q2_image_trim(img, err); // a corrupt image is not written
    pthread_mutex_unlock(&img->lock);
    if (ret == 0)
        ret = cut_range(data, guest_offset, &n_bytes, err);
    if (ret < 0 || n_bytes == 0)
        return ret;
    return q2_io_zero(data, guest_offset, n_bytes, unmap, err);
}

void q2_data_file_discard(struct q2_image *img, uint64_t guest_offset, uint64_t n_bytes,
                          enum q2_free_reason why)
{
    struct q2_error ignored = Q2_ERROR_INIT; // the space stays, that is all
    struct q2_io *data = img->disk.data;
    // On a request the mapping follows: until then a hole is zeros, but not in an
    // encrypted file.
    if (why == Q2_FREE_REQUEST && q2_image_is_encrypted(img))
        return;
    if (!q2_image_has_data_file(img) || !data || img->corrupt || !img->pass_discard[why])
        return;
    if (cut_range(data, guest_offset, &n_bytes, &ignored) == 0 && n_bytes > 0)
        q2_io_discard(data, guest_offset, n_bytes, &ignored);
}
