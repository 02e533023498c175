// SPDX-License-Identifier: MIT
// Another backing file for an image.
//
// Where the image itself has nothing allocated its backing file shows through. There,
// what the old chain and the new one say is compared, and what differs is written into
// the image. Until the header names the new backing file that changes nothing for a
// guest, so a power cut leaves the old image, a little larger; after it, the new one.
#include "ops/rebase.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/pool.h"
#include "base/zero.h"
#include "image/chain.h"
#include "image/image.h"
#include "image/metadata.h"

#define PIECE_BYTES (UINT32_C(2) << 20)
#define BUFFER_ALIGN 4096U

struct job {
    struct q2_disk *d;
    struct q2_disk *new_backing;
    const struct q2_disk *known; // what lies below this layer is the same in both chains:
                                 // the new backing file, where it is in the old chain
    const struct q2_rebase_options *o;
    const struct q2_monitor *mon;
    uint64_t grain; // of comparing and writing
    // Zeros are written by one thread at a time, and by nobody else meanwhile.
    pthread_rwlock_t zeroing;
    pthread_mutex_t lock; // all below
    uint64_t next;        // where to look on
    bool copied, failed;
    struct q2_error *err; // the first error's
};

// Of one thread.
struct worker {
    struct job *j;
    uint8_t *old, *new; // PIECE_BYTES each
};

// --- the header ----------------------------------------------------------------------

static const char *shown(const struct q2_rebase_options *o)
{
    return o->backing_file ? o->backing_file : "";
}

static int refuse(const struct q2_rebase_options *o, int code, const char *why,
                  struct q2_error *err)
{
    return q2_fail(err, code, "Could not change the backing file to '%s': %s", shown(o),
                   why);
}

static int replace_text(char **text, const char *by, struct q2_error *err)
{
    free(*text);
    *text = by ? strdup(by) : NULL;
    return by && !*text ? q2_fail_memory(err, strlen(by)) : 0;
}

// With try, only asks whether that can be done.
static int change_header(struct q2_disk *d, const struct q2_rebase_options *o, bool try,
                         struct q2_error *err)
{
    struct q2_image *img = q2_image_of(d);
    struct q2_header h;
    pthread_mutex_lock(&img->lock);
    int ret = q2_header_copy(&img->header, &h, err);
    if (ret == 0) {
        ret = replace_text(&h.backing_file, o->backing_file, err);
        if (ret == 0)
            ret = replace_text(&h.backing_format,
                               o->backing_file ? o->backing_format : NULL, err);
        if (ret == 0)
            ret = try ? q2_image_try_header(img, &h, err)
                      : q2_image_replace_header(img, &h, err);
        q2_header_clear(&h);
    }
    pthread_mutex_unlock(&img->lock);
    return ret;
}

int q2_rebase_check(struct q2_disk *d, const struct q2_rebase_options *o,
                    struct q2_error *err)
{
    if (d->ops != &q2_image_disk_ops)
        return refuse(o, -ENOTSUP, "Operation not supported", err);
    const struct q2_header *h = &q2_image_of(d)->header;
    if (o->backing_file && !o->backing_format)
        return refuse(o, -EINVAL, "backing format must be specified", err);
    if (o->backing_file && (strlen(o->backing_file) > Q2_MAX_BACKING_NAME ||
                            (h->autoclear_features & Q2_AUTOCLEAR_DATA_FILE_RAW)))
        return refuse(o, -EINVAL, "Invalid argument", err);
    int ret = change_header(d, o, true, err);
    return ret == -ENOSPC ? refuse(o, ret, "No space left in the file header", err) : ret;
}

int q2_rebase_header(struct q2_disk *d, const struct q2_rebase_options *o,
                     struct q2_error *err)
{
    int ret = q2_disk_flush(d, err);
    if (ret == 0)
        ret = change_header(d, o, false, err);
    return ret < 0
               ? q2_context(err, "Could not change the backing file to '%s'", shown(o))
               : 0;
}

// --- what differs ----------------------------------------------------------------------

// Does the range show what lies below, and may that change? *n_bytes: how far that is so.
static int shows_through(const struct job *j, uint64_t offset, uint64_t *n_bytes,
                         bool *through, struct q2_error *err)
{
    struct q2_extent e;
    unsigned depth;
    *through = false;
    int ret = q2_disk_status_above(j->d, j->known ? j->known : j->d->backing, offset,
                                   *n_bytes, &e, &depth, err);
    if (ret < 0)
        return q2_context(err, "error while reading image metadata");
    *n_bytes = e.n_bytes;
    *through = e.allocated ? depth > 0 : !j->known;
    return 0;
}

// Does a chain say that it reads as zeros? Behind its end it does.
static int is_zero(struct q2_disk *chain, uint64_t offset, uint64_t *n_bytes, bool *zero,
                   struct q2_error *err)
{
    struct q2_extent e;
    unsigned depth;
    *zero = true;
    if (!chain || offset >= chain->size)
        return 0;
    int ret = q2_disk_status_above(chain, NULL, offset, *n_bytes, &e, &depth, err);
    if (ret < 0)
        return q2_context(err, "error while reading image metadata");
    *n_bytes = e.n_bytes;
    *zero = e.zero;
    return 0;
}

// How much from offset on need not be looked at: the image has it, or both backing files
// read as zeros there. 0: there is something to compare, *n_bytes of it at most.
static int skip(const struct job *j, uint64_t offset, uint64_t *n_bytes, uint64_t *n_skip,
                struct q2_error *err)
{
    bool through, old_zero, new_zero;
    uint64_t n = q2_min_u64(j->d->size - offset, q2_disk_map_step(j->d->size));
    int ret = shows_through(j, offset, &n, &through, err);
    *n_skip = n;
    if (ret < 0 || !through)
        return ret;
    ret = is_zero(j->d->backing, offset, &n, &old_zero, err);
    if (ret == 0)
        ret = is_zero(j->new_backing, offset, &n, &new_zero, err);
    if (ret != 0)
        return ret;
    *n_bytes = n;
    *n_skip = old_zero && new_zero ? n : 0;
    return 0;
}

static int read_new(const struct worker *w, uint64_t offset, size_t n_bytes,
                    struct q2_error *err)
{
    const struct job *j = w->j;
    size_t inside = 0;
    if (j->new_backing && offset < j->new_backing->size)
        inside = (size_t)q2_min_u64(n_bytes, j->new_backing->size - offset);
    memset(w->new + inside, 0, n_bytes - inside);
    int ret = inside > 0 ? q2_disk_read(j->new_backing, offset, w->new, inside, err) : 0;
    return ret < 0 ? q2_context(err, "error while reading from new backing file") : 0;
}

// --- copying
// -----------------------------------------------------------------------------

// A cluster of which a part is the image's own already keeps its place.
static int is_untouched(const struct job *j, uint64_t offset, uint64_t n_bytes,
                        bool *untouched, struct q2_error *err)
{
    *untouched = true;
    for (uint64_t at = 0; at < n_bytes && *untouched;) {
        struct q2_extent e;
        int ret = q2_disk_status(j->d, offset + at, n_bytes - at, &e, err);
        if (ret < 0)
            return ret;
        *untouched = !e.allocated;
        at += e.n_bytes;
    }
    return 0;
}

static int write_compressed(const struct job *j, uint64_t offset, const uint8_t *buf,
                            size_t n_bytes, struct q2_error *err)
{
    int ret = 0;
    for (size_t at = 0, n; at < n_bytes && ret == 0; at += n) {
        bool untouched;
        n = (size_t)q2_min_u64(j->d->cluster_size, n_bytes - at);
        ret = is_untouched(j, offset + at, n, &untouched, err);
        if (ret == 0)
            ret = untouched
                      ? q2_disk_write_compressed(j->d, offset + at, buf + at, n, err)
                      : q2_disk_put(j->d, offset + at, buf + at, n, err);
    }
    return ret;
}

static int write_zeros(struct job *j, uint64_t offset, size_t n_bytes,
                       struct q2_error *err)
{
    pthread_rwlock_wrlock(&j->zeroing);
    int ret = q2_disk_write_zeroes(j->d, offset, n_bytes, 0, err);
    pthread_rwlock_unlock(&j->zeroing);
    return ret;
}

static int write_data(struct job *j, uint64_t offset, const uint8_t *buf, size_t n_bytes,
                      struct q2_error *err)
{
    pthread_rwlock_rdlock(&j->zeroing);
    int ret = j->o->compress ? write_compressed(j, offset, buf, n_bytes, err)
                             : q2_disk_put(j->d, offset, buf, n_bytes, err);
    pthread_rwlock_unlock(&j->zeroing);
    return ret;
}

static int write_run(struct job *j, uint64_t offset, const uint8_t *buf, size_t n_bytes,
                     bool zero, struct q2_error *err)
{
    // Version 2 can only say "as the backing file"; and which one that is will change.
    bool mark = zero && q2_image_of(j->d)->header.version >= 3;
    int ret = mark ? write_zeros(j, offset, n_bytes, err)
                   : write_data(j, offset, buf, n_bytes, err);
    return ret < 0 ? q2_context(err, "Error while writing to COW image") : 0;
}

// Length of the run of grains from `at` on that are alike: the same in both, or not; and
// if not, zeros in the old one, or not.
static size_t run_alike(const struct worker *w, size_t at, size_t n_bytes, bool *differs,
                        bool *zero)
{
    size_t end = at, grain = (size_t)w->j->grain;
    *differs = *zero = false;
    do {
        size_t n = (size_t)q2_min_u64(grain, n_bytes - end);
        bool d = memcmp(w->old + end, w->new + end, n) != 0;
        bool z = d && q2_is_zero(w->old + end, n);
        if (end > at && (d != *differs || z != *zero))
            break;
        *differs = d;
        *zero = z;
        end += n;
    } while (end < n_bytes);
    return end - at;
}

// The range is whole grains. What the image reads as is what it shall read as later,
// wherever it comes from.
static int compare_and_copy(const struct worker *w, uint64_t offset, size_t n_bytes,
                            bool *copied, struct q2_error *err)
{
    int ret = q2_disk_read(w->j->d, offset, w->old, n_bytes, err);
    if (ret < 0)
        return q2_context(err, "error while reading from old backing file");
    ret = read_new(w, offset, n_bytes, err);
    for (size_t at = 0, n; at < n_bytes && ret == 0; at += n) {
        bool differs, zero;
        n = run_alike(w, at, n_bytes, &differs, &zero);
        *copied = *copied || differs;
        if (differs)
            ret = write_run(w->j, offset + at, w->old + at, n, zero, err);
    }
    return ret;
}

// With the lock held: the next piece to be compared, whole grains; *n_bytes is 0 when
// there is none.
static int next_piece(struct job *j, uint64_t *start, size_t *n_bytes,
                      struct q2_error *err)
{
    uint64_t n = 0, n_skip = 0, end;
    *n_bytes = 0;
    while (j->next < j->d->size && !j->failed) {
        if (q2_monitor_cancelled(j->mon))
            return q2_fail(err, -ECANCELED, "Stopped");
        q2_monitor_progress(j->mon, j->next, j->d->size);
        int ret = skip(j, j->next, &n, &n_skip, err);
        if (ret < 0)
            return ret;
        if (n_skip > 0) {
            j->next += n_skip;
            continue;
        }
        *start = q2_align_down(j->next, j->grain);
        end = q2_align_up(j->next + q2_min_u64(n, PIECE_BYTES), j->grain);
        end = q2_min_u64(end, q2_min_u64(*start + PIECE_BYTES, j->d->size));
        j->next = end;
        *n_bytes = (size_t)(end - *start);
        return 0;
    }
    return 0;
}

static int one_piece(const struct worker *w, bool *more, struct q2_error *err)
{
    struct job *j = w->j;
    uint64_t start = 0;
    size_t n_bytes;
    bool copied = false;
    pthread_mutex_lock(&j->lock);
    int ret = next_piece(j, &start, &n_bytes, err);
    pthread_mutex_unlock(&j->lock);
    *more = ret == 0 && n_bytes > 0;
    if (*more)
        ret = compare_and_copy(w, start, n_bytes, &copied, err);
    pthread_mutex_lock(&j->lock);
    j->copied = j->copied || copied;
    if (ret < 0 && !j->failed)
        *j->err = *err;
    j->failed = j->failed || ret < 0;
    pthread_mutex_unlock(&j->lock);
    return ret;
}

static int work(void *opaque, unsigned index)
{
    struct worker w = {.j = opaque,
                       .old = aligned_alloc(BUFFER_ALIGN, PIECE_BYTES),
                       .new = aligned_alloc(BUFFER_ALIGN, PIECE_BYTES)};
    struct q2_error err = Q2_ERROR_INIT;
    bool more = true;
    int ret = 0;
    (void)index;
    if (!w.old || !w.new) {
        pthread_mutex_lock(&w.j->lock);
        ret = q2_fail_memory(w.j->err, (size_t)2 * PIECE_BYTES);
        w.j->failed = true;
        pthread_mutex_unlock(&w.j->lock);
    }
    while (ret == 0 && more)
        ret = one_piece(&w, &more, &err);
    free(w.old);
    free(w.new);
    return ret;
}

static int copy_differences(struct job *j)
{
    pthread_rwlock_init(&j->zeroing, NULL);
    pthread_mutex_init(&j->lock, NULL);
    // Two pieces of one cluster must not be written at the same time.
    unsigned n_threads = j->grain < j->d->cluster_size ? 1 : q2_pool_processors();
    int ret = q2_pool_run(n_threads, work, j);
    pthread_mutex_destroy(&j->lock);
    pthread_rwlock_destroy(&j->zeroing);
    return ret;
}

// --- all of it -------------------------------------------------------------------------

// Snapshots read through the header's backing file, too.
static void warn_of_snapshots(const struct job *j)
{
    const struct q2_header *h = &q2_image_of(j->d)->header;
    if (h->nb_snapshots > 0 && j->copied)
        q2_monitor_warn(j->mon,
                        "'%s': the backing files differ; what its %" PRIu32
                        " internal snapshot%s shows of them has changed",
                        j->d->path, h->nb_snapshots, h->nb_snapshots == 1 ? "" : "s");
}

static bool is_in_chain(const struct q2_disk *top, const struct q2_disk *layer)
{
    while (top && top != layer)
        top = top->backing;
    return top != NULL;
}

int q2_rebase(struct q2_disk *d, struct q2_disk *new_backing,
              const struct q2_rebase_options *o, const struct q2_monitor *mon,
              struct q2_error *err)
{
    struct job j = {.d = d,
                    .new_backing = new_backing,
                    .o = o,
                    .mon = mon,
                    .grain = o->compress ? d->cluster_size : d->grain_size,
                    .err = err};
    j.known = new_backing && is_in_chain(d->backing, new_backing) ? new_backing : NULL;
    int ret = copy_differences(&j);
    if (ret == 0)
        ret = q2_rebase_header(d, o, err);
    if (ret == 0)
        ret = q2_disk_finish(d, err);
    if (ret == 0)
        warn_of_snapshots(&j);
    return ret;
}
