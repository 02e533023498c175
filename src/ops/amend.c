// SPDX-License-Identifier: MIT
// Amending an image: everything that was asked for is judged first, then done step by
// step, each step leaving a sound image.
#include "ops/amend.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "image/metadata.h"
#include "image/overlap.h"
#include "image/update.h"
#include "ops/amend_steps.h"
#include "ops/resize.h"

#define V2_REFCOUNT_ORDER 4U

// --- what is refused -----------------------------------------------------------------

static uint32_t version_then(const struct q2_image *img, const struct q2_amend_options *o)
{
    return o->set_version ? o->version : img->header.version;
}

static unsigned order_then(const struct q2_image *img, const struct q2_amend_options *o)
{
    return o->set_refcount_bits ? q2_log2(o->refcount_bits) : img->header.refcount_order;
}

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static int check_refcount_bits(const struct q2_image *img,
                               const struct q2_amend_options *o, struct q2_error *err)
{
    if (!q2_is_power_of_2(o->refcount_bits) || o->refcount_bits > 64)
        return q2_fail(
            err, -EINVAL,
            "Refcount width must be a power of two and may not exceed 64 bits");
    if (order_then(img, o) != img->header.refcount_order &&
        order_then(img, o) != V2_REFCOUNT_ORDER && version_then(img, o) < 3)
        return q2_fail(err, -EINVAL,
                       "Refcount widths other than 16 bits require compatibility level "
                       "1.1 or above (use compat=1.1 or greater)");
    return 0;
}

static int check_data_file(const struct q2_image *img, const struct q2_amend_options *o,
                           struct q2_error *err)
{
    const struct q2_header *h = &img->header;
    if (o->set_data_file_raw && o->data_file_raw &&
        !(h->autoclear_features & Q2_AUTOCLEAR_DATA_FILE_RAW))
        return q2_fail(err, -EINVAL, "data-file-raw cannot be set on existing images");
    if (o->set_data_file && !(h->incompatible_features & Q2_INCOMPAT_DATA_FILE))
        return q2_fail(
            err, -EINVAL,
            "data-file can only be set for images that use an external data file");
    return 0;
}

static int check_names(const struct q2_image *img, const struct q2_amend_options *o,
                       struct q2_error *err)
{
    const struct q2_header *h = &img->header;
    int ret = check_data_file(img, o, err);
    if (ret == 0 && o->set_backing &&
        !(same_text(o->backing_file, h->backing_file) &&
          same_text(o->backing_format, h->backing_format)))
        ret = q2_fail(err, -EINVAL, "Cannot amend the backing file");
    if (ret == 0 && o->set_lazy_refcounts && o->lazy_refcounts &&
        !(h->compatible_features & Q2_COMPAT_LAZY_REFCOUNTS) && version_then(img, o) < 3)
        ret = q2_fail(err, -EINVAL,
                      "Lazy refcounts only supported with compatibility level 1.1 and "
                      "above (use compat=1.1 or greater)");
    return ret;
}

// What version 2 has no place for.
static int check_snapshot_sizes(struct q2_image *img, const struct q2_amend_options *o,
                                struct q2_error *err)
{
    uint64_t size = o->set_size ? q2_align_up(o->size, 512) : img->disk.size;
    int ret = q2_image_load_snapshots(img, err);
    for (unsigned i = 0; i < img->n_snapshots && ret == 0; i++) {
        const struct q2_snapshot *s = &img->snapshots[i];
        if (s->vm_state_size > UINT32_MAX ||
            (s->has_disk_size && q2_align_up(s->disk_size, 512) != size))
            ret = q2_fail(err, -ENOTSUP, "Internal snapshots prevent downgrade of image");
    }
    return ret;
}

static int check_features(const struct q2_header *h, struct q2_error *err)
{
    uint64_t bits =
        h->incompatible_features & ~(Q2_INCOMPAT_DIRTY | Q2_INCOMPAT_COMPRESSION);
    if (bits != 0)
        return q2_fail(err, -ENOTSUP,
                       "Cannot downgrade an image with incompatible features 0x%" PRIx64
                       " set",
                       bits);
    if (h->has_bitmaps)
        return q2_fail(err, -ENOTSUP,
                       "Cannot downgrade an image with persistent bitmaps");
    return 0;
}

// What has to be looked for in every table.
static int check_tables(const struct q2_amend_tables *tables, struct q2_error *err)
{
    const struct q2_image *img = tables->img;
    bool found = false;
    int ret = 0;
    if (img->header.compression_type != Q2_COMPRESSION_ZLIB)
        ret = q2_amend_has_entry(tables, Q2_FLAG_COMPRESSED, 0, &found, err);
    if (ret == 0 && found)
        return q2_fail(
            err, -ENOTSUP,
            "Cannot downgrade an image with zstd compression type and existing "
            "compressed clusters");
    if (ret == 0 && img->header.crypt_method != Q2_CRYPT_NONE &&
        q2_image_has_backing(img))
        ret = q2_amend_has_entry(tables, Q2_FLAG_ZERO, Q2_FLAG_COMPRESSED, &found, err);
    if (ret == 0 && found)
        return q2_fail(err, -ENOTSUP,
                       "Cannot downgrade an encrypted image with a backing file and zero "
                       "clusters");
    return ret;
}

static int check_downgrade(struct q2_image *img, const struct q2_amend_options *o,
                           struct q2_error *err)
{
    struct q2_amend_tables tables = {0};
    if (img->header.incompatible_features & Q2_INCOMPAT_DATA_FILE)
        return q2_fail(err, -ENOTSUP, "Cannot downgrade an image with a data file");
    if (order_then(img, o) != V2_REFCOUNT_ORDER)
        return q2_fail(err, -ENOTSUP, "compat=0.10 requires refcount_bits=16");
    int ret = check_snapshot_sizes(img, o, err);
    if (ret == 0)
        ret = check_features(&img->header, err);
    if (ret == 0)
        ret = q2_amend_find_tables(img, &tables, err);
    if (ret == 0)
        ret = check_tables(&tables, err);
    q2_amend_clear_tables(&tables);
    return ret;
}

// A bit that means nothing in version 2 would turn data into zeros.
static int check_reserved_bits(struct q2_image *img, struct q2_error *err)
{
    struct q2_amend_tables tables;
    bool found = false;
    int ret = q2_amend_find_tables(img, &tables, err);
    if (ret == 0)
        ret = q2_amend_has_entry(&tables, Q2_FLAG_ZERO, Q2_FLAG_COMPRESSED, &found, err);
    q2_amend_clear_tables(&tables);
    if (ret == 0 && found)
        ret = q2_fail(err, -EINVAL,
                      "Cannot upgrade an image with zero cluster entries in version 2; "
                      "check the image first");
    return ret;
}

// --- headers -------------------------------------------------------------------------

static void make_version_2(struct q2_header *h)
{
    h->version = 2;
    h->incompatible_features = h->compatible_features = h->autoclear_features = 0;
    h->compression_type = Q2_COMPRESSION_ZLIB; // nothing is compressed
    free(h->unknown_fields);
    h->unknown_fields = NULL;
    h->unknown_fields_bytes = 0;
}

static void make_version_3(struct q2_header *h)
{
    h->version = 3;
}

// Replaces the header by a copy that change has gone over; try: only asks if that can be
// done.
static int change_header(struct q2_image *img, void (*change)(struct q2_header *h),
                         bool try, struct q2_error *err)
{
    struct q2_header h;
    int ret = q2_header_copy(&img->header, &h, err);
    if (ret < 0)
        return ret;
    change(&h);
    ret = try ? q2_image_try_header(img, &h, err) : q2_image_replace_header(img, &h, err);
    q2_header_clear(&h);
    return ret;
}

static int change_data_file(struct q2_image *img, const char *name, bool try,
                            struct q2_error *err)
{
    struct q2_header h;
    int ret = q2_header_copy(&img->header, &h, err);
    if (ret < 0)
        return ret;
    free(h.data_file);
    h.data_file = name[0] ? strdup(name) : NULL;
    if (name[0] && !h.data_file)
        ret = q2_fail_memory(err, strlen(name));
    if (ret == 0)
        ret = try ? q2_image_try_header(img, &h, err)
                  : q2_image_replace_header(img, &h, err);
    q2_header_clear(&h);
    return ret;
}

// slots: the key slots that are to change.
static int check(struct q2_image *img, const struct q2_amend_options *o, unsigned *slots,
                 struct q2_error *err)
{
    uint32_t version = version_then(img, o);
    int ret = o->keys ? q2_amend_judge_keys(img, o->keys, slots, err) : 0;
    if (ret == 0 && o->set_refcount_bits)
        ret = check_refcount_bits(img, o, err);
    if (ret == 0)
        ret = check_names(img, o, err);
    if (ret == 0 && version < img->header.version)
        ret = check_downgrade(img, o, err);
    if (ret == 0 && version > img->header.version) {
        ret = change_header(img, make_version_3, true, err);
        if (ret == 0)
            ret = check_reserved_bits(img, err);
    }
    if (ret == 0 && o->set_data_file)
        ret = change_data_file(img, o->data_file, true, err);
    if (ret == 0 && order_then(img, o) < img->header.refcount_order)
        ret = q2_amend_fit_refcounts(img, order_then(img, o), err);
    // An upgrade comes before the new size, a downgrade behind it.
    if (ret == 0 && o->set_size)
        ret = q2_resize_try(img, o->size,
                            version > img->header.version ? version : img->header.version,
                            err);
    return ret;
}

// --- what is done --------------------------------------------------------------------

// One step of several: its progress is a part of the whole.
struct stage {
    const struct q2_monitor *outer;
    unsigned index, n;
};

static void on_progress(void *opaque, uint64_t done, uint64_t total)
{
    const struct stage *s = opaque;
    uint64_t part = total > 0 ? (uint64_t)((double)done / (double)total * 1e6) : 1000000;
    q2_monitor_progress(s->outer, s->index * UINT64_C(1000000) + part,
                        s->n * UINT64_C(1000000));
}

static struct q2_monitor stage_monitor(struct stage *s)
{
    return (struct q2_monitor){.opaque = s,
                               .progress = on_progress,
                               .cancel = s->outer ? s->outer->cancel : NULL};
}

static uint64_t snapshot_table_bytes(const struct q2_image *img)
{
    uint64_t n_bytes = 0;
    for (unsigned i = 0; i < img->n_snapshots; i++)
        n_bytes += q2_snapshot_bytes(&img->snapshots[i]);
    return n_bytes;
}

static int write_snapshots(struct q2_image *img, uint64_t offset, uint64_t n_bytes,
                           struct q2_error *err)
{
    uint8_t *buf = calloc(1, q2_to_size(n_bytes)), *at = buf;
    if (!buf)
        return q2_fail_memory(err, n_bytes);
    for (unsigned i = 0; i < img->n_snapshots; i++) {
        q2_snapshot_encode(&img->snapshots[i], at);
        at += q2_snapshot_bytes(&img->snapshots[i]);
    }
    int ret = q2_io_write(img->disk.file, offset, buf, q2_to_size(n_bytes), err);
    free(buf);
    if (ret == 0)
        ret = q2_image_commit_all(img, err); // its refcounts
    return ret < 0 ? ret : q2_io_flush(img->disk.file, err);
}

// In version 3 every snapshot names the size of its disk. The new list is written and
// flushed, one write in the header's first sector leads to it, then the old one is free.
static int complete_snapshots(struct q2_image *img, struct q2_error *err)
{
    uint64_t old_offset = img->header.snapshots_offset, offset;
    bool complete = true;
    int ret = q2_image_load_snapshots(img, err);
    uint64_t old_bytes = snapshot_table_bytes(img);
    for (unsigned i = 0; i < img->n_snapshots && ret == 0; i++) {
        struct q2_snapshot *s = &img->snapshots[i];
        complete = complete && s->has_disk_size;
        if (!s->has_disk_size)
            s->disk_size = img->disk.size;
        s->has_disk_size = true;
    }
    if (ret < 0 || complete)
        return ret;
    uint64_t n_bytes = snapshot_table_bytes(img);
    if (n_bytes > Q2_MAX_SNAPSHOT_TABLE_BYTES)
        return q2_fail(err, -EFBIG, "The snapshot table would be too large");
    ret = q2_alloc_exact(img, q2_div_round_up(n_bytes, img->cluster_size),
                         "snapshot table", &offset, err);
    if (ret == 0)
        ret = write_snapshots(img, offset, n_bytes, err);
    if (ret == 0)
        ret = q2_image_switch_snapshots(img, img->n_snapshots, offset, err);
    if (ret == 0)
        ret = q2_alloc_free_later(img, old_offset, old_bytes, Q2_FREE_OTHER, err);
    q2_overlap_forget(img);
    return ret < 0 ? ret : q2_image_commit_all(img, err);
}

static int upgrade(struct q2_image *img, struct q2_error *err)
{
    int ret = complete_snapshots(img, err);
    return ret < 0 ? ret : change_header(img, make_version_3, false, err);
}

// Zero clusters go while the image is of version 3; then one switch of the header.
static int downgrade(struct q2_image *img, const struct q2_monitor *mon,
                     struct q2_error *err)
{
    struct q2_amend_tables tables;
    int ret = q2_amend_find_tables(img, &tables, err);
    if (ret == 0)
        ret = q2_amend_expand_zeroes(&tables, mon, err);
    q2_amend_clear_tables(&tables);
    if (ret < 0)
        return ret;
    img->lazy_refcounts = false;
    return change_header(img, make_version_2, false, err);
}

static int set_lazy(struct q2_image *img, bool lazy, struct q2_error *err)
{
    uint64_t bits = img->header.compatible_features & ~Q2_COMPAT_LAZY_REFCOUNTS;
    int ret =
        q2_image_set_compatible(img, bits | (lazy ? Q2_COMPAT_LAZY_REFCOUNTS : 0), err);
    if (ret == 0)
        img->lazy_refcounts = lazy;
    return ret;
}

static int set_fields(struct q2_image *img, const struct q2_amend_options *o,
                      struct q2_error *err)
{
    int ret = 0;
    if (o->set_data_file_raw && !o->data_file_raw)
        ret = q2_image_set_autoclear(
            img, img->header.autoclear_features & ~Q2_AUTOCLEAR_DATA_FILE_RAW, err);
    if (ret == 0 && o->set_data_file)
        ret = change_data_file(img, o->data_file, false, err);
    if (ret == 0 && o->set_lazy_refcounts && img->header.version >= 3)
        ret = set_lazy(img, o->lazy_refcounts, err);
    return ret;
}

// Nothing may wait, and the image must be clean, when what refcounts are changes.
static int settle(struct q2_image *img, struct q2_error *err)
{
    int ret = q2_image_commit_all(img, err);
    if (ret == 0)
        ret = q2_io_flush(img->disk.file, err);
    return ret < 0
               ? ret
               : q2_image_set_incompatible(
                     img, img->header.incompatible_features & ~Q2_INCOMPAT_DIRTY, err);
}

static int change_width_and_version(struct q2_image *img,
                                    const struct q2_amend_options *o, struct stage *stage,
                                    struct q2_error *err)
{
    const struct q2_monitor mon = stage_monitor(stage);
    int ret = settle(img, err);
    if (ret == 0 && order_then(img, o) != img->header.refcount_order) {
        ret = q2_amend_refcount_width(img, order_then(img, o), &mon, err);
        stage->index++;
    }
    if (ret == 0)
        ret = set_fields(img, o, err);
    if (ret == 0 && version_then(img, o) < img->header.version)
        ret = downgrade(img, &mon, err);
    return ret;
}

static unsigned count_stages(const struct q2_image *img, const struct q2_amend_options *o)
{
    unsigned n = order_then(img, o) != img->header.refcount_order;
    return n + (version_then(img, o) < img->header.version);
}

static int prepare(struct q2_image *img, const struct q2_amend_options *o,
                   struct q2_error *err)
{
    unsigned slots = 0;
    int ret = q2_image_trim(img, err);
    if (ret == 0)
        ret = check(img, o, &slots, err);
    if (ret == 0 && version_then(img, o) > img->header.version)
        ret = upgrade(img, err);
    if (ret == 0 && o->keys)
        ret = q2_amend_change_keys(img, o->keys, slots, err);
    return ret;
}

int q2_amend(struct q2_disk *d, const struct q2_amend_options *o,
             const struct q2_monitor *mon, struct q2_error *err)
{
    if (d->ops != &q2_image_disk_ops)
        return q2_fail(err, -ENOTSUP,
                       "Format driver '%s' does not support option amendment",
                       d->ops->format);
    struct q2_image *img = q2_image_of(d);
    struct stage stage = {.outer = mon};
    pthread_mutex_lock(&img->lock);
    int ret = prepare(img, o, err);
    pthread_mutex_unlock(&img->lock);
    // Before the rest: version 2 refuses some sizes.
    if (ret == 0 && o->set_size)
        ret = q2_disk_resize(d, o->size, err);
    if (ret < 0)
        return ret;
    stage.n = count_stages(img, o);
    pthread_mutex_lock(&img->lock);
    ret = change_width_and_version(img, o, &stage, err);
    pthread_mutex_unlock(&img->lock);
    return ret;
}
