// SPDX-License-Identifier: MIT
// Healing bitmaps. A table that is lost is replaced by one that says that everything has
// changed, which a backup can live with; a directory that is lost is cut where it ends to
// make sense, or dropped.
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/endian.h"
#include "check/repair.h"
#include "disk/bitmap.h"

#define AT_AUTOCLEAR 88U
#define BITMAPS_BYTES 24U // of the header extension

// So much of new tables is made: a hostile directory may ask for any number.
#define MAX_NEW_BYTES (UINT64_C(64) << 20)

// A new table, all ones, that the directory's entry names then.
static int renew_table(struct q2_plan *p, const struct q2_scan *s,
                       const struct q2_finding *f, struct q2_error *err)
{
    uint64_t n_bytes = q2_align_up(f->size, s->cluster_size), place;
    uint8_t entry[16];
    p->bitmap_bytes += n_bytes;
    if (p->bitmap_bytes > MAX_NEW_BYTES)
        return q2_fail(err, -EFBIG,
                       "New bitmap tables would be larger than %" PRIu64 " bytes",
                       MAX_NEW_BYTES);
    uint8_t *table = calloc(1, q2_to_size(n_bytes));
    int ret = table ? q2_plan_place(p, n_bytes >> s->cluster_bits, &place, err)
                    : q2_fail_memory(err, n_bytes);
    for (uint64_t at = 0; at < f->size && ret == 0; at += 8)
        q2_store_be64(table + at, Q2_BITMAP_ALL_ONES);
    if (ret == 0)
        ret = q2_io_write(p->overlay, place, table, q2_to_size(n_bytes), err);
    if (ret == 0)
        ret = q2_io_flush(p->overlay, err);
    free(table);
    if (ret < 0)
        return ret;
    q2_store_be64(entry, place);
    q2_store_be64(entry + 8, f->edit_bitmap);
    return q2_io_write(p->overlay, f->edit_offset, entry, sizeof(entry), err);
}

// Where the header extension of bitmaps has its data, and whether it is the last one.
static int find_extension(struct q2_plan *p, const struct q2_scan *s, uint64_t *at,
                          bool *last, struct q2_error *err)
{
    uint8_t head[8];
    uint64_t next = s->header.header_length;
    uint32_t type = Q2_EXT_BITMAPS + 1;
    *at = 0;
    for (unsigned i = 0; type != Q2_EXT_END && i <= s->header.n_extensions + 2; i++) {
        int ret = q2_io_read(p->overlay, next, head, sizeof(head), err);
        if (ret < 0)
            return ret;
        type = q2_load_be32(head);
        *last = *at != 0 && next == *at + BITMAPS_BYTES && type == Q2_EXT_END;
        if (*at != 0)
            return 0;
        next += sizeof(head);
        if (type == Q2_EXT_BITMAPS)
            *at = next;
        next += q2_align_up(q2_load_be32(head + 4), 8);
    }
    return 0;
}

// Without any entry that makes sense the image has no bitmaps any more.
static int drop_directory(struct q2_plan *p, const struct q2_scan *s, uint64_t extension,
                          bool last, struct q2_error *err)
{
    int ret = q2_edit_entry(p->overlay, AT_AUTOCLEAR,
                            s->header.autoclear_features & ~Q2_AUTOCLEAR_BITMAPS, err);
    // The extension has no meaning now; where others follow it stays.
    if (ret == 0 && extension != 0 && last)
        ret = q2_io_flush(p->overlay, err);
    return ret == 0 && extension != 0 && last
               ? q2_edit_entry(p->overlay, extension - 8, 0, err)
               : ret;
}

// Keeps the entries that make sense.
static int cut_directory(struct q2_plan *p, const struct q2_scan *s,
                         const struct q2_finding *f, struct q2_error *err)
{
    uint8_t data[BITMAPS_BYTES] = {0};
    uint64_t at = 0;
    bool last = false;
    int ret = find_extension(p, s, &at, &last, err);
    if (ret == 0 && (f->index == 0 || at == 0))
        return drop_directory(p, s, at, last, err);
    q2_store_be32(data, (uint32_t)f->index);
    q2_store_be64(data + 8, f->wanted);
    q2_store_be64(data + 16, s->header.bitmap_directory_offset);
    return ret < 0 ? ret : q2_io_write(p->overlay, at, data, sizeof(data), err);
}

static int heal_one(struct q2_plan *p, const struct q2_scan *s,
                    const struct q2_finding *f, struct q2_error *err)
{
    int ret;
    if (f->problem == Q2_PROBLEM_BITMAP_TABLE)
        ret = renew_table(p, s, f, err);
    else if (f->problem == Q2_PROBLEM_BITMAP_DIRECTORY)
        ret = cut_directory(p, s, f, err);
    else
        ret = q2_edit_entry(p->overlay, f->edit_offset, f->edit_value, err);
    return ret < 0 ? ret : q2_plan_note(p, f, err);
}

int q2_heal_bitmaps(struct q2_plan *p, const struct q2_scan *s, bool *changed,
                    struct q2_error *err)
{
    // Tables make the file longer: first what could lead there.
    static const enum q2_problem order[] = {
        Q2_PROBLEM_BITMAP_DIRECTORY, Q2_PROBLEM_BITMAP_FIELD, Q2_PROBLEM_BITMAP_ENTRY,
        Q2_PROBLEM_BITMAP_TABLE};
    int ret = 0;
    for (size_t k = 0; k < sizeof(order) / sizeof(order[0]) && !*changed; k++) {
        for (size_t i = 0; i < s->findings.n && ret == 0; i++) {
            const struct q2_finding *f = &s->findings.list[i];
            bool waits =
                order[k] != Q2_PROBLEM_BITMAP_DIRECTORY && !(f->has & Q2_HAS_EDIT);
            if (f->problem != order[k] || waits)
                continue;
            ret = heal_one(p, s, f, err);
            *changed = true;
        }
    }
    return ret == 0 && *changed ? q2_io_flush(p->overlay, err) : ret;
}
