// SPDX-License-Identifier: MIT
// Vetting a qcow2 image: what its header says, what a scan finds, and what a scan does
// not mind. What costs most comes last, and only if nothing else speaks against the
// image: compressed data is inflated.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/zero.h"
#include "check/uses.h"
#include "image/bitmaps.h"
#include "ops/check_progress.h"
#include "ops/vet_private.h"

// Of the progress; the rest is for data.
#define SCANNED 0.5

// What is read of trailing data at a time.
#define PIECE_BYTES (64U << 10)

// --- the header ------------------------------------------------------------------------

static int object(struct q2_vetting *v, bool yes, enum q2_vet_reason reason,
                  const char *text, uint64_t value, struct q2_error *err)
{
    const struct q2_vet_words words = {.text = text, .value = value};
    return yes ? q2_vet_object(v, reason, &words, err) : 0;
}

// The same with a name out of the image behind the message.
static int object_named(struct q2_vetting *v, bool yes, enum q2_vet_reason reason,
                        const char *name, struct q2_error *err)
{
    char text[Q2_MAX_BACKING_NAME + 8] = "";
    if (name)
        snprintf(text, sizeof(text), ": '%s'", name);
    return object(v, yes, reason, text, 0, err);
}

static int vet_features(struct q2_vetting *v, const struct q2_header *h,
                        struct q2_error *err)
{
    uint64_t features = h->incompatible_features;
    uint64_t unknown = features & ~Q2_INCOMPAT_KNOWN;
    char text[24];
    snprintf(text, sizeof(text), "0x%" PRIx64, unknown);
    int ret = object(v, unknown != 0, Q2_VET_UNKNOWN_FEATURES, text, 0, err);
    if (ret == 0)
        ret = object(v, features & Q2_INCOMPAT_DIRTY, Q2_VET_DIRTY, NULL, 0, err);
    if (ret == 0)
        ret = object(v, features & Q2_INCOMPAT_CORRUPT, Q2_VET_CORRUPT, NULL, 0, err);
    return ret;
}

// Other files: the bits and offsets count, whether there is a name or not.
static int vet_files(struct q2_vetting *v, const struct q2_header *h,
                     const char *backing_file, const char *data_file,
                     struct q2_error *err)
{
    bool data = (h->incompatible_features & Q2_INCOMPAT_DATA_FILE) ||
                (h->autoclear_features & Q2_AUTOCLEAR_DATA_FILE_RAW) || data_file;
    int ret = object_named(v, h->backing_file_offset != 0, Q2_VET_BACKING_FILE,
                           backing_file, err);
    return ret < 0 ? ret : object_named(v, data, Q2_VET_DATA_FILE, data_file, err);
}

// h: the fields as they stand; whole: the decoded header, NULL if it cannot be.
static int vet_fields(struct q2_vetting *v, const struct q2_header *h,
                      const struct q2_header *whole, struct q2_error *err)
{
    v->report->has_virtual_size = true;
    v->report->virtual_size = h->size;
    int ret = q2_vet_virtual_size(v, "", h->size, err);
    if (ret == 0)
        ret = vet_files(v, h, whole ? whole->backing_file : NULL,
                        whole ? whole->data_file : NULL, err);
    if (ret == 0)
        ret = vet_features(v, h, err);
    if (ret == 0)
        ret =
            object(v, h->crypt_method == Q2_CRYPT_LUKS, Q2_VET_ENCRYPTION, NULL, 0, err);
    if (ret == 0)
        ret = object(v, h->crypt_method == Q2_CRYPT_AES, Q2_VET_ENCRYPTION_AES, NULL, 0,
                     err);
    return ret;
}

// Failures that are not the image's.
static bool is_ours(int code)
{
    return code == -ENOMEM || code == -EIO || code == -ECANCELED;
}

// *whole is decoded if *usable.
static int vet_header(struct q2_vetting *v, struct q2_header *whole, bool *usable,
                      struct q2_error *err)
{
    uint8_t start[Q2_HEADER_V3_BYTES];
    struct q2_error why = Q2_ERROR_INIT;
    struct q2_header h;
    int ret = q2_io_read(v->io, 0, start, sizeof(start), err);
    if (ret < 0)
        return ret;
    q2_header_peek(start, sizeof(start), &h);
    if (h.version < 2 || h.version > 3)
        return object(v, true, Q2_VET_VERSION, NULL, h.version, err);
    ret = q2_scan_header(v->io, whole, &why);
    *usable = ret == 0;
    if (is_ours(ret)) {
        *err = why;
        return ret;
    }
    ret = vet_fields(v, &h, *usable ? whole : NULL, err);
    // That some features are not known was said already, if that is why.
    bool told = why.code == -ENOTSUP && (h.incompatible_features & ~Q2_INCOMPAT_KNOWN);
    if (ret == 0)
        ret = object(v, !*usable && !told, Q2_VET_HEADER, why.message, 0, err);
    return ret;
}

// --- what a scan finds -----------------------------------------------------------------

// A scan keeps so many findings and counts the others.
static int vet_list(struct q2_vetting *v, const struct q2_findings *list,
                    uint64_t *corruptions, struct q2_error *err)
{
    int ret = 0;
    for (size_t i = 0; i < list->n && ret == 0; i++) {
        const struct q2_finding *f = &list->list[i];
        if (q2_problem_info(f->problem)->severity == Q2_SEVERITY_CORRUPTION)
            *corruptions -=
                q2_min_u64(*corruptions, f->has & Q2_HAS_CLUSTER ? f->count : 1);
        ret = q2_vet_object_to_finding(v, f, err);
    }
    return ret;
}

static int vet_findings(struct q2_vetting *v, const struct q2_scan *s,
                        struct q2_error *err)
{
    uint64_t left = s->corruptions;
    int ret = vet_list(v, &s->findings, &left, err);
    if (ret == 0)
        ret = vet_list(v, &s->late, &left, err);
    return ret < 0 ? ret : object(v, left > 0, Q2_VET_FURTHER_DAMAGE, NULL, left, err);
}

// --- what a scan does not mind ---------------------------------------------------------

static int vet_snapshots(struct q2_vetting *v, const struct q2_scan *s,
                         struct q2_error *err)
{
    char text[64] = "";
    unsigned n_states = 0;
    int ret = 0;
    for (unsigned i = 0; i < s->n_snapshots && ret == 0; i++) {
        const struct q2_snapshot *sn = &s->snapshots[i];
        char of[300];
        snprintf(of, sizeof(of), " of snapshot '%.250s'", sn->name);
        n_states += sn->vm_state_size > 0;
        if (sn->has_disk_size)
            ret = q2_vet_virtual_size(v, of, sn->disk_size, err);
    }
    if (n_states > 0)
        snprintf(text, sizeof(text), " (%u with the state of a virtual machine)",
                 n_states);
    if (ret == 0)
        ret = object(v, s->header.nb_snapshots > 0, Q2_VET_SNAPSHOTS, text,
                     s->header.nb_snapshots, err);
    return ret;
}

static int vet_bitmaps(struct q2_vetting *v, const struct q2_scan *s,
                       struct q2_error *err)
{
    struct q2_error why = Q2_ERROR_INIT;
    struct q2_bitmap *list = NULL;
    char text[300];
    unsigned n = 0;
    if (!s->header.has_bitmaps || s->corruptions > 0)
        return 0;
    int ret = q2_bitmaps_read_directory(v->io, &s->header, &list, &n, &why);
    if (is_ours(ret)) {
        *err = why;
        return ret;
    }
    ret = object(v, ret < 0, Q2_VET_BITMAPS, why.message, 0, err);
    for (unsigned i = 0; i < n; i++) {
        snprintf(text, sizeof(text),
                 "Bitmap '%.200s' was not closed: what it says is out of date",
                 list[i].name);
        if (ret == 0)
            ret =
                object(v, list[i].flags & Q2_BITMAP_IN_USE, Q2_VET_BITMAPS, text, 0, err);
        q2_bitmap_clear(&list[i]);
    }
    free(list);
    return ret;
}

// Where in n bytes at offset the first piece with data begins.
static int find_data(struct q2_io *io, uint64_t offset, uint64_t n, uint64_t *at,
                     bool *found, struct q2_error *err)
{
    uint8_t buf[PIECE_BYTES];
    int ret = 0;
    for (uint64_t end = offset + n; offset < end && ret == 0 && !*found;) {
        size_t part = (size_t)q2_min_u64(end - offset, sizeof(buf));
        ret = q2_io_read(io, offset, buf, part, err);
        *found = ret == 0 && !q2_is_zero(buf, part);
        *at = offset;
        offset += part;
    }
    return ret;
}

static int vet_trailing(struct q2_vetting *v, const struct q2_scan *s,
                        struct q2_error *err)
{
    uint64_t end = (s->highest_cluster + 1) << s->cluster_bits, n, at = 0;
    bool is_data, found = false;
    int ret = 0;
    for (uint64_t offset = end; offset < s->file_size && ret == 0 && !found;
         offset += n) {
        ret = q2_io_extent(v->io, offset, &n, &is_data, err);
        if (ret == 0 && is_data)
            ret = find_data(v->io, offset, n, &at, &found, err);
    }
    const struct q2_vet_words words = {.value = at, .limit = end};
    return ret == 0 && found ? q2_vet_object(v, Q2_VET_TRAILING_DATA, &words, err) : ret;
}

static int vet_scanned(struct q2_vetting *v, const struct q2_scan *s,
                       struct q2_scan_uses *uses, struct q2_error *err)
{
    uint64_t n_shared = q2_scan_uses_settle(uses, s);
    int ret = vet_findings(v, s, err);
    if (ret == 0)
        ret = vet_snapshots(v, s, err);
    if (ret == 0)
        ret = vet_bitmaps(v, s, err);
    if (ret == 0)
        ret = object(v, n_shared > 0, Q2_VET_SHARED_CLUSTERS, NULL, n_shared, err);
    return ret < 0 ? ret : vet_trailing(v, s, err);
}

// --- scans -----------------------------------------------------------------------------

// What went wrong in a scan is the image's fault, unless it is ours.
static int scan_failed(struct q2_vetting *v, const struct q2_error *why,
                       struct q2_error *err)
{
    if (!is_ours(why->code))
        return object(v, true, Q2_VET_HEADER, why->message, 0, err);
    *err = *why;
    return why->code;
}

static int vet_compressed(struct q2_vetting *v, struct q2_scan *s,
                          const struct q2_scan_uses *uses, const struct q2_monitor *mon,
                          struct q2_error *err)
{
    uint64_t n_broken;
    struct q2_finding first;
    int ret = q2_scan_uses_inflate(uses, s, mon, &n_broken, &first, err);
    for (; n_broken > 0 && ret == 0; n_broken--)
        ret = q2_vet_object_to_finding(v, &first, err);
    return ret;
}

// What is in the image, with uses to be filled.
static int vet_uses(struct q2_vetting *v, struct q2_scan_uses *uses,
                    struct q2_check_progress *progress, struct q2_error *err)
{
    struct q2_error why = Q2_ERROR_INIT;
    struct q2_scan s;
    q2_check_progress_stage(progress, SCANNED);
    if (q2_scan_run_uses(&s, v->io, uses, &progress->monitor, &why) < 0)
        return scan_failed(v, &why, err);
    int ret = vet_scanned(v, &s, uses, err);
    q2_check_progress_stage(progress, 1);
    if (ret == 0 && !q2_vet_rejected(v->report))
        ret = vet_compressed(v, &s, uses, &progress->monitor, err);
    q2_scan_clear(&s);
    return ret;
}

static int vet_contents(struct q2_vetting *v, struct q2_error *err)
{
    struct q2_check_progress progress;
    struct q2_scan_uses uses;
    int ret = q2_scan_uses_init(&uses, err);
    if (ret < 0)
        return ret;
    q2_check_progress_start(&progress, v->mon);
    ret = vet_uses(v, &uses, &progress, err);
    q2_scan_uses_clear(&uses);
    return ret;
}

int q2_vet_qcow2(struct q2_vetting *v, struct q2_error *err)
{
    uint8_t start[2048] = {0};
    struct q2_header whole;
    bool usable = false;
    char text[64] = "";
    size_t n = (size_t)q2_min_u64(v->report->file_size, sizeof(start));
    int ret = q2_io_read(v->io, 0, start, n, err);
    if (ret < 0)
        return ret;
    const char *looks = q2_vet_looks_like(start, n);
    if (!looks || strcmp(looks, "qcow2") != 0) {
        if (looks)
            snprintf(text, sizeof(text), ", but looks like %s", looks);
        return object(v, true, Q2_VET_FORMAT, text, 0, err);
    }
    ret = vet_header(v, &whole, &usable, err);
    if (ret == 0 && usable)
        ret = vet_contents(v, err);
    if (usable)
        q2_header_clear(&whole);
    return ret;
}
