// SPDX-License-Identifier: MIT
// Making, applying and deleting internal snapshots (qcow2 format: "Snapshots").
//
// Each is one write to the header's first sector. Before it, everything that it will
// refer to is in its place, and refcounts are as high as they have to be before and after
// it; what nothing refers to any more is given back behind it. In between, refcounts are
// too high and COPIED flags are missing: that costs space or a needless copy, but no
// data. Version 3 says during that time that it is dirty, and a repair puts both right.
// Version 2 cannot: a refcount and the flags that repeat it lie in two places, so that no
// order of writes keeps them alike when the power goes, and check calls it an error. When
// a write fails, and later ones do not, what was done is taken back.
//
//   create  the new L1 table and snapshot table are written
//           [dirty] refcounts of all that the active state refers to rise; flush
//           their COPIED flags go; flush
//           the header names the new snapshot table; flush
//           the old one is free; flush [clean]
//   apply   the new active L1 table is written: the snapshot's, without COPIED flags
//           [dirty] refcounts of all that the snapshot alone refers to rise; flush
//           COPIED flags in the snapshot's L2 tables go; flush
//           the header names the new L1 table, and the disk's size; flush
//           refcounts of what was active alone fall; flush [clean]
//   delete  the snapshot table without it is written; flush
//           [dirty] the header names the new table; flush
//           refcounts of all that the snapshot refers to fall; flush
//           COPIED flags of what the active state has for itself now are set; flush
//           [clean]
#include "ops/snapshot.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/checked.h"
#include "image/overlap.h"
#include "image/tree.h"
#include "image/update.h"
#include "ops/snapshot_switch.h"

// QEMU keeps names in 256 bytes.
#define MAX_NAME_BYTES 255U

struct job {
    struct q2_image *img;
    const struct q2_monitor *mon;
    struct q2_tree_change tree;
    struct q2_placed l1, table;
    bool placed; // clusters were taken, and nothing refers to them yet
};

static void job_clear(struct job *j)
{
    q2_tree_clear(&j->tree);
    q2_switch_drop(j->img, &j->l1, j->placed);
    q2_switch_drop(j->img, &j->table, j->placed);
}

static int place_both(struct job *j, struct q2_error *err)
{
    j->placed = true;
    int ret = q2_switch_place(j->img, &j->l1, "L1 table", err);
    return ret < 0 ? ret : q2_switch_place(j->img, &j->table, "snapshot table", err);
}

// Flags and refcounts say the same again, if anything can still be written.
static void settle_flags(struct job *j)
{
    struct q2_error ignored = Q2_ERROR_INIT; // the first one is told
    int ret = q2_switch_settle(j->img, &ignored);
    if (ret == 0)
        ret = q2_tree_set_copied(j->img, &j->tree, &ignored);
    if (ret == 0)
        q2_switch_settle(j->img, &ignored);
}

// Before the switch something failed.
static void take_back(struct job *j)
{
    struct q2_error ignored = Q2_ERROR_INIT;
    if (j->img->header.version >= 3)
        return;
    q2_tree_take_back(&j->tree);
    if (q2_tree_lower(j->img, &j->tree, &ignored) == 0)
        settle_flags(j);
}

// References are as high as they are before and after the switch, and no entry says
// COPIED that has to go.
static int prepare(struct job *j, struct q2_error *err)
{
    int ret = q2_switch_set_dirty(j->img, err);
    // A failure from here on leaves it to a repair to find out what has come to be.
    j->placed = false;
    if (ret == 0)
        ret = q2_tree_raise(j->img, &j->tree, err);
    if (ret == 0)
        ret = q2_switch_settle(j->img, err);
    if (ret == 0)
        ret = q2_tree_clear_copied(j->img, &j->tree, err);
    return ret;
}

// What nothing refers to any more is given back; the last step.
static int lower(struct job *j, bool set_copied, struct q2_error *err)
{
    struct q2_image *img = j->img;
    img->compressed_next = 0; // what was there may be shared, or gone
    q2_overlap_forget(img);   // the new tables are to be known
    int ret = q2_tree_lower(img, &j->tree, err);
    if (ret == 0)
        ret = q2_switch_settle(img, err);
    if (ret == 0 && set_copied)
        ret = q2_tree_set_copied(img, &j->tree, err);
    if (ret < 0 && set_copied && img->header.version < 3)
        settle_flags(j);
    if (ret == 0)
        ret = q2_switch_end(img, err);
    if (ret == 0)
        q2_tree_punch(img, &j->tree);
    return ret;
}

// --- create --------------------------------------------------------------------------

static unsigned long next_id(const struct q2_image *img)
{
    unsigned long max = 0;
    for (unsigned i = 0; i < img->n_snapshots; i++) {
        unsigned long id = strtoul(img->snapshots[i].id, NULL, 10);
        max = id > max ? id : max;
    }
    return max + 1;
}

static int describe(const struct q2_image *img, const char *name, struct q2_snapshot *s,
                    struct q2_error *err)
{
    char id[32];
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(id, sizeof(id), "%lu", next_id(img));
    *s = (struct q2_snapshot){
        .l1_size = img->l1_size,
        .id = strdup(id),
        .name = strndup(name, MAX_NAME_BYTES),
        .date_sec = (uint32_t)now.tv_sec,
        .date_nsec = (uint32_t)now.tv_nsec,
        .has_disk_size = true,
        .disk_size = img->disk.size,
        .has_icount = true,
    };
    return s->id && s->name ? 0 : q2_fail_memory(err, sizeof(id));
}

static void forget_l1_copied(struct q2_image *img)
{
    for (uint64_t i = 0; i < img->l1_size; i++) {
        if (!(img->l1[i] & Q2_FLAG_COPIED))
            continue;
        img->l1[i] &= ~Q2_FLAG_COPIED;
        q2_span_add(&img->l1_dirty, i);
    }
}

// The table is encoded when it is known where the L1 table is.
static int place_snapshot(struct job *j, struct q2_snapshot *s, struct q2_error *err)
{
    j->placed = true;
    int ret = q2_switch_place(j->img, &j->l1, "L1 table", err);
    s->l1_table_offset = j->l1.offset;
    if (ret == 0)
        ret = q2_switch_encode_snapshots(j->img, -1, s, &j->table, err);
    return ret < 0 ? ret : q2_switch_place(j->img, &j->table, "snapshot table", err);
}

static int append(struct q2_image *img, struct q2_snapshot *s, struct q2_error *err)
{
    size_t n_bytes = (img->n_snapshots + (size_t)1) * sizeof(*s);
    struct q2_snapshot *list = realloc(img->snapshots, n_bytes);
    if (!list)
        return q2_fail_memory(err, n_bytes);
    img->snapshots = list;
    img->snapshots[img->n_snapshots++] = *s;
    *s = (struct q2_snapshot){0};
    return 0;
}

static int create(struct job *j, struct q2_snapshot *s, struct q2_error *err)
{
    struct q2_image *img = j->img;
    uint64_t old_bytes = q2_switch_snapshots_bytes(img);
    int ret = q2_tree_add_l1(img, &j->tree, img->l1, img->l1_size, true, err);
    if (ret == 0)
        ret = q2_tree_count(img, &j->tree, j->mon, err);
    if (ret == 0)
        ret = q2_tree_lose(img, &j->tree, img->header.snapshots_offset, old_bytes, err);
    if (ret == 0)
        ret = q2_tree_check(img, &j->tree, err);
    if (ret == 0)
        ret = q2_switch_encode_l1(img->l1, img->l1_size, &j->l1, err);
    if (ret == 0)
        ret = place_snapshot(j, s, err);
    if (ret < 0)
        return ret;
    ret = prepare(j, err);
    if (ret == 0) {
        forget_l1_copied(img);
        ret = q2_switch_settle(img, err);
    }
    if (ret < 0)
        take_back(j);
    if (ret == 0)
        ret = q2_image_switch_snapshots(img, img->n_snapshots + 1, j->table.offset, err);
    if (ret == 0)
        ret = append(img, s, err);
    return ret < 0 ? ret : lower(j, false, err);
}

static int create_snapshot(struct job *j, const char *name, struct q2_error *err)
{
    struct q2_snapshot s = {0};
    int ret = q2_switch_begin(j->img, err);
    if (ret == 0 && j->img->n_snapshots >= Q2_MAX_SNAPSHOTS)
        ret = q2_fail(err, -EFBIG, "the image has %u snapshots, the most that it can",
                      Q2_MAX_SNAPSHOTS);
    if (ret == 0)
        ret = describe(j->img, name, &s, err);
    if (ret == 0)
        ret = create(j, &s, err);
    q2_snapshot_clear(&s);
    return ret;
}

// --- apply ---------------------------------------------------------------------------

static int find(const struct q2_image *img, const char *text, bool by_id)
{
    for (unsigned i = 0; i < img->n_snapshots; i++) {
        const struct q2_snapshot *s = &img->snapshots[i];
        if (!strcmp(by_id ? s->id : s->name, text))
            return (int)i;
    }
    return -1;
}

// The snapshot's L1 table: room for n_entries, zeros behind its own.
static int read_l1(const struct q2_image *img, const struct q2_snapshot *s,
                   uint64_t n_entries, uint64_t **out, struct q2_error *err)
{
    uint64_t n_bytes = (uint64_t)s->l1_size * 8, end;
    if (n_bytes > Q2_MAX_L1_BYTES ||
        !q2_is_aligned(s->l1_table_offset, img->cluster_size) ||
        !q2_add_u64(s->l1_table_offset, n_bytes, &end) ||
        end > q2_align_up(img->data_end, img->cluster_size))
        return q2_fail(err, -EFBIG,
                       "Snapshot L1 table of %" PRIu32 " entries at offset 0x%" PRIx64
                       " is too large, not aligned, or beyond the end of the file",
                       s->l1_size, s->l1_table_offset);
    // One to spare: the active L1 table is never NULL.
    uint64_t *l1 = calloc(q2_to_size(n_entries + 1), 8);
    if (!l1)
        return q2_fail_memory(err, (n_entries + 1) * 8);
    int ret =
        q2_io_read(img->disk.file, s->l1_table_offset, l1, q2_to_size(n_bytes), err);
    if (ret < 0) {
        free(l1);
        return q2_context(err, "Failed to load snapshot: Could not read its L1 table");
    }
    q2_table_decode(l1, l1, s->l1_size);
    for (uint64_t i = 0; i < s->l1_size; i++)
        l1[i] &= ~Q2_FLAG_COPIED;
    *out = l1;
    return 0;
}

// How long an L1 table the snapshot needs as active state.
static int active_entries(const struct q2_image *img, const struct q2_snapshot *s,
                          uint64_t size, uint64_t *n, struct q2_error *err)
{
    *n = q2_max_u64(s->l1_size,
                    q2_image_l1_entries(size, img->cluster_bits, img->l2_bits));
    if (*n <= Q2_MAX_L1_BYTES / 8)
        return 0;
    return q2_fail(err, -EFBIG,
                   "Failed to load snapshot: a disk of %" PRIu64
                   " bytes needs an L1 table that is too large",
                   size);
}

static int plan_apply(struct job *j, const struct q2_snapshot *s, const uint64_t *l1,
                      uint32_t n, struct q2_error *err)
{
    struct q2_image *img = j->img;
    int ret = q2_tree_add_l1(img, &j->tree, l1, s->l1_size, true, err);
    if (ret == 0)
        ret = q2_tree_add_l1(img, &j->tree, img->l1, img->l1_size, false, err);
    if (ret == 0)
        ret = q2_tree_count(img, &j->tree, j->mon, err);
    if (ret == 0)
        ret = q2_tree_lose(img, &j->tree, img->header.l1_table_offset,
                           (uint64_t)img->header.l1_size * 8, err);
    if (ret == 0)
        ret = q2_tree_check(img, &j->tree, err);
    return ret < 0 ? ret : q2_switch_encode_l1(l1, n, &j->l1, err);
}

// *l1 becomes the active L1 table.
static int apply(struct job *j, uint64_t size, uint64_t **l1, uint32_t n,
                 struct q2_error *err)
{
    struct q2_image *img = j->img;
    int ret = place_both(j, err);
    if (ret == 0)
        ret = prepare(j, err);
    if (ret == 0)
        ret = q2_switch_settle(img, err);
    if (ret == 0)
        ret = q2_image_switch_active(img, size, j->l1.offset, n, err);
    if (ret < 0)
        return ret;
    free(img->l1);
    img->l1 = *l1;
    img->l1_size = n;
    img->l1_dirty = (struct q2_dirty_span){0};
    img->disk.size = q2_align_up(size, 512);
    *l1 = NULL;
    return lower(j, false, err);
}

static int apply_snapshot(struct job *j, const char *spec, struct q2_error *err)
{
    struct q2_image *img = j->img;
    uint64_t *l1 = NULL, n = 0;
    int ret = q2_switch_begin(img, err);
    if (ret < 0)
        return ret;
    int i = find(img, spec, true);
    i = i < 0 ? find(img, spec, false) : i;
    if (i < 0)
        return q2_fail_errno(err, -ENOENT, "Failed to load snapshot");
    if (img->header.has_bitmaps)
        return q2_fail(err, -EBUSY, "Device has active dirty bitmaps");
    const struct q2_snapshot *s = &img->snapshots[i];
    uint64_t size = s->has_disk_size ? s->disk_size : img->header.size;
    ret = active_entries(img, s, size, &n, err);
    if (ret == 0)
        ret = read_l1(img, s, n, &l1, err);
    if (ret == 0)
        ret = plan_apply(j, s, l1, (uint32_t)n, err);
    if (ret == 0)
        ret = apply(j, size, &l1, (uint32_t)n, err);
    free(l1);
    return ret;
}

// --- delete --------------------------------------------------------------------------

static int plan_delete(struct job *j, unsigned i, struct q2_error *err)
{
    struct q2_image *img = j->img;
    const struct q2_snapshot *s = &img->snapshots[i];
    uint64_t *l1 = NULL;
    int ret = read_l1(img, s, s->l1_size, &l1, err);
    if (ret == 0)
        ret = q2_tree_add_l1(img, &j->tree, l1, s->l1_size, false, err);
    free(l1);
    if (ret == 0)
        ret = q2_tree_count(img, &j->tree, j->mon, err);
    if (ret == 0)
        ret = q2_tree_lose(img, &j->tree, s->l1_table_offset, (uint64_t)s->l1_size * 8,
                           err);
    if (ret == 0)
        ret = q2_tree_lose(img, &j->tree, img->header.snapshots_offset,
                           q2_switch_snapshots_bytes(img), err);
    if (ret == 0)
        ret = q2_tree_check(img, &j->tree, err);
    return ret < 0 ? ret : q2_switch_encode_snapshots(img, (int)i, NULL, &j->table, err);
}

static void remove_snapshot(struct q2_image *img, unsigned i)
{
    q2_snapshot_clear(&img->snapshots[i]);
    img->n_snapshots--;
    memmove(&img->snapshots[i], &img->snapshots[i + 1],
            (img->n_snapshots - i) * sizeof(*img->snapshots));
}

static int delete_snapshot(struct job *j, const char *name, struct q2_error *err)
{
    struct q2_image *img = j->img;
    int ret = q2_switch_begin(img, err);
    if (ret < 0)
        return ret;
    int i = find(img, name, false);
    if (i < 0)
        return q2_fail(err, -ENOENT, "snapshot not found");
    ret = plan_delete(j, (unsigned)i, err);
    if (ret == 0)
        ret = place_both(j, err);
    if (ret == 0)
        ret = q2_switch_settle(img, err);
    if (ret == 0)
        ret = q2_switch_set_dirty(img, err);
    if (ret < 0)
        return ret;
    j->placed = false;
    ret = q2_image_switch_snapshots(img, img->n_snapshots - 1, j->table.offset, err);
    if (ret < 0)
        return ret;
    remove_snapshot(img, (unsigned)i);
    return lower(j, true, err);
}

// --- for the caller ------------------------------------------------------------------

static int run(struct q2_disk *d, const char *which,
               int (*op)(struct job *j, const char *which, struct q2_error *err),
               const struct q2_monitor *mon, struct q2_error *err)
{
    struct job j = {.img = q2_image_of(d), .mon = mon};
    pthread_mutex_lock(&j.img->lock);
    int ret = op(&j, which, err);
    job_clear(&j);
    pthread_mutex_unlock(&j.img->lock);
    return ret;
}

static bool has_snapshots(const struct q2_disk *d)
{
    return d->ops == &q2_image_disk_ops;
}

int q2_snapshot_create(struct q2_disk *d, const char *name, const struct q2_monitor *mon,
                       struct q2_error *err)
{
    if (!has_snapshots(d))
        return q2_fail(err, -ENOTSUP, "Operation not supported");
    return run(d, name, create_snapshot, mon, err);
}

int q2_snapshot_apply(struct q2_disk *d, const char *spec, const struct q2_monitor *mon,
                      struct q2_error *err)
{
    if (!has_snapshots(d))
        return q2_fail(err, -ENOTSUP, "Block driver does not support snapshots");
    return run(d, spec, apply_snapshot, mon, err);
}

int q2_snapshot_delete(struct q2_disk *d, const char *name, const struct q2_monitor *mon,
                       struct q2_error *err)
{
    if (!has_snapshots(d))
        return q2_fail(err, -ENOENT, "snapshot not found");
    return run(d, name, delete_snapshot, mon, err);
}

int q2_snapshot_each(struct q2_disk *d, q2_take_snapshot *take, void *opaque,
                     struct q2_error *err)
{
    return has_snapshots(d) ? q2_image_each_snapshot(q2_image_of(d), take, opaque, err)
                            : 0;
}
