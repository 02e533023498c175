// SPDX-License-Identifier: MIT
// Taking a repair back. The undo file may be anything: it is looked at as a whole, and
// compared with the image, before the first byte is written.
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/checked.h"
#include "base/endian.h"
#include "base/zero.h"
#include "check/undo.h"
#include "io/file.h"

#define CHUNK_BYTES 65536U

struct undo {
    struct q2_io *io;
    uint64_t end; // of the records
    uint64_t size_before, size_after, n_records;
};

// One of them, where it is in the file.
struct record {
    uint64_t at;     // of the old content; the new one and the steps follow
    uint64_t offset; // in the image
    uint32_t n_bytes, n_steps;
};

struct step {
    uint16_t start, n_bytes;
    uint8_t content[Q2_UNDO_SECTOR];
};

static int fail_damaged(const struct undo *u, struct q2_error *err)
{
    return q2_fail(err, -EINVAL, "Undo file '%s' is damaged", u->io->name);
}

static int read_header(struct undo *u, struct q2_error *err)
{
    uint8_t h[Q2_UNDO_HEADER_BYTES];
    uint64_t size;
    int ret = q2_io_get_size(u->io, &size, err);
    if (ret == 0)
        ret = q2_io_read(u->io, 0, h, sizeof(h), err);
    if (ret < 0)
        return ret;
    if (size < Q2_UNDO_HEADER_BYTES + Q2_UNDO_TRAILER_BYTES ||
        memcmp(h, Q2_UNDO_MAGIC, 8) != 0)
        return q2_fail(err, -EINVAL, "'%s' is no undo file", u->io->name);
    if (q2_load_be32(h + 8) != Q2_UNDO_VERSION)
        return q2_fail(err, -EINVAL, "'%s' is an undo file of unknown version %" PRIu32,
                       u->io->name, q2_load_be32(h + 8));
    u->end = size - Q2_UNDO_TRAILER_BYTES;
    u->size_before = q2_load_be64(h + 16);
    u->size_after = q2_load_be64(h + 24);
    u->n_records = q2_load_be64(h + 32);
    return u->size_before > INT64_MAX || u->size_after > INT64_MAX ? fail_damaged(u, err)
                                                                   : 0;
}

// Bytes of the file, up to the end of its records.
static int take(const struct undo *u, uint64_t *at, void *buf, size_t n,
                struct q2_error *err)
{
    if (n > u->end - *at)
        return fail_damaged(u, err);
    int ret = q2_io_read(u->io, *at, buf, n, err);
    *at += n;
    return ret;
}

// Reads what stands in front of a record's content. least: where in the image it may
// begin.
static int take_record(const struct undo *u, uint64_t *at, uint64_t least,
                       struct record *r, struct q2_error *err)
{
    uint64_t longest = q2_max_u64(u->size_before, u->size_after);
    uint8_t h[Q2_UNDO_RECORD_BYTES];
    int ret = take(u, at, h, sizeof(h), err);
    if (ret < 0)
        return ret;
    *r = (struct record){.at = *at,
                         .offset = q2_load_be64(h),
                         .n_bytes = q2_load_be32(h + 8),
                         .n_steps = q2_load_be32(h + 12)};
    uint64_t room = q2_align_up(longest, Q2_UNDO_SECTOR);
    if (r->offset % Q2_UNDO_SECTOR != 0 || r->n_bytes % Q2_UNDO_SECTOR != 0 ||
        r->n_bytes == 0 || r->n_bytes > Q2_UNDO_MAX_RECORD_BYTES || r->offset < least ||
        r->offset > room || r->n_bytes > room - r->offset ||
        (r->n_steps > 0 && r->n_bytes != Q2_UNDO_SECTOR) ||
        (uint64_t)r->n_bytes * 2 > u->end - *at)
        return fail_damaged(u, err);
    *at += (uint64_t)r->n_bytes * 2;
    return 0;
}

static int take_step(const struct undo *u, uint64_t *at, struct step *s,
                     struct q2_error *err)
{
    uint8_t h[Q2_UNDO_STEP_BYTES];
    int ret = take(u, at, h, sizeof(h), err);
    if (ret < 0)
        return ret;
    s->start = q2_load_be16(h);
    s->n_bytes = q2_load_be16(h + 2);
    if (s->start > Q2_UNDO_SECTOR || s->n_bytes > Q2_UNDO_SECTOR - s->start)
        return fail_damaged(u, err);
    return take(u, at, s->content, s->n_bytes, err);
}

static int check_sum(const struct undo *u, struct q2_error *err)
{
    uint8_t *buf = malloc(CHUNK_BYTES), trailer[Q2_UNDO_TRAILER_BYTES];
    uLong crc = crc32(0, NULL, 0);
    int ret = buf ? 0 : q2_fail_memory(err, CHUNK_BYTES);
    for (uint64_t at = 0, n; at < u->end && ret == 0; at += n) {
        n = q2_min_u64(u->end - at, CHUNK_BYTES);
        ret = q2_io_read(u->io, at, buf, (size_t)n, err);
        if (ret == 0)
            crc = crc32(crc, buf, (uInt)n);
    }
    free(buf);
    if (ret == 0)
        ret = q2_io_read(u->io, u->end, trailer, sizeof(trailer), err);
    return ret == 0 && q2_load_be32(trailer) != crc ? fail_damaged(u, err) : ret;
}

// What is done with each record: *at is where its steps are.
typedef int record_function(const struct undo *u, const struct record *r, uint64_t *at,
                            void *opaque, struct q2_error *err);

static int walk(const struct undo *u, record_function *f, void *opaque,
                struct q2_error *err)
{
    uint64_t at = Q2_UNDO_HEADER_BYTES, least = 0;
    int ret = 0;
    for (uint64_t i = 0; i < u->n_records && ret == 0; i++) {
        struct record r;
        ret = take_record(u, &at, least, &r, err);
        if (ret < 0)
            break;
        ret = f(u, &r, &at, opaque, err);
        least = r.offset + r.n_bytes;
    }
    return ret == 0 && at != u->end ? fail_damaged(u, err) : ret;
}

static int skip_steps(const struct undo *u, const struct record *r, uint64_t *at,
                      void *opaque, struct q2_error *err)
{
    struct step s;
    int ret = 0;
    (void)opaque;
    for (uint32_t i = 0; i < r->n_steps && ret == 0; i++)
        ret = take_step(u, at, &s, err);
    return ret;
}

// The image as it is now, beside the file.
struct comparison {
    struct q2_io *image;
    uint64_t size;
    bool all_old;  // nothing is to be taken back
    uint64_t next; // from here on nothing was compared
};

static int fail_foreign(uint64_t offset, struct q2_error *err)
{
    return q2_fail(err, -EINVAL,
                   "The undo file is not this image's, or the image was changed since: "
                   "offset %" PRIu64 " holds neither the old nor the repaired content",
                   offset);
}

// What the repair put behind the old end is in records, or zeros; nothing else may be cut
// off.
static int require_zeros(const struct comparison *c, uint64_t at, uint64_t end,
                         struct q2_error *err)
{
    uint8_t *buf = malloc(CHUNK_BYTES);
    int ret = buf ? 0 : q2_fail_memory(err, CHUNK_BYTES);
    end = q2_min_u64(end, c->size);
    for (uint64_t n; at < end && ret == 0; at += n) {
        bool data;
        n = end - at;
        ret = q2_io_extent(c->image, at, &n, &data, err);
        n = q2_min_u64(n, end - at);
        if (ret < 0 || !data)
            continue;
        n = q2_min_u64(n, CHUNK_BYTES);
        ret = q2_io_read(c->image, at, buf, (size_t)n, err);
        if (ret == 0 && !q2_is_zero(buf, (size_t)n))
            ret = fail_foreign(at, err);
    }
    free(buf);
    return ret;
}

// Which bytes of a sector are what they were, or what a write made of them.
struct sector {
    uint8_t now[Q2_UNDO_SECTOR];
    uint8_t known[Q2_UNDO_SECTOR]; // 0 or 1
};

static void know(struct sector *s, size_t start, const uint8_t *content, size_t n)
{
    for (size_t i = 0; i < n; i++)
        s->known[start + i] |= s->now[start + i] == content[i];
}

static int compare_steps(const struct undo *u, const struct record *r, uint64_t *at,
                         struct sector *now, struct q2_error *err)
{
    struct step s;
    int ret = 0;
    for (uint32_t i = 0; i < r->n_steps && ret == 0; i++) {
        ret = take_step(u, at, &s, err);
        if (ret == 0)
            know(now, s.start, s.content, s.n_bytes);
    }
    return ret;
}

// A sector that is written once is the one or the other as a whole.
static int compare_sector(const struct undo *u, const struct record *r, uint32_t start,
                          uint64_t *at, struct comparison *c, struct q2_error *err)
{
    uint8_t old[Q2_UNDO_SECTOR], new[Q2_UNDO_SECTOR];
    struct sector s = {.known = {0}};
    int ret = q2_io_read(u->io, r->at + start, old, sizeof(old), err);
    if (ret == 0)
        ret = q2_io_read(u->io, r->at + r->n_bytes + start, new, sizeof(new), err);
    if (ret == 0)
        ret = q2_io_read(c->image, r->offset + start, s.now, sizeof(s.now), err);
    if (ret < 0)
        return ret;
    bool is_old = memcmp(s.now, old, sizeof(old)) == 0;
    c->all_old &= is_old;
    bool known = is_old || memcmp(s.now, new, sizeof(new)) == 0;
    know(&s, 0, old, sizeof(old));
    ret = compare_steps(u, r, at, &s, err);
    if (r->n_steps > 0)
        known = memchr(s.known, 0, sizeof(s.known)) == NULL;
    return ret == 0 && !known ? fail_foreign(r->offset + start, err) : ret;
}

static int compare_record(const struct undo *u, const struct record *r, uint64_t *at,
                          void *opaque, struct q2_error *err)
{
    struct comparison *c = opaque;
    int ret = require_zeros(c, q2_max_u64(c->next, u->size_before), r->offset, err);
    for (uint32_t start = 0; start < r->n_bytes && ret == 0; start += Q2_UNDO_SECTOR)
        ret = compare_sector(u, r, start, at, c, err);
    c->next = r->offset + r->n_bytes;
    return ret;
}

static int restore_record(const struct undo *u, const struct record *r, uint64_t *at,
                          void *opaque, struct q2_error *err)
{
    uint8_t *old = malloc(r->n_bytes);
    if (!old)
        return q2_fail_memory(err, r->n_bytes);
    int ret = q2_io_read(u->io, r->at, old, r->n_bytes, err);
    if (ret == 0)
        ret = q2_io_write(opaque, r->offset, old, r->n_bytes, err);
    free(old);
    return ret < 0 ? ret : skip_steps(u, r, at, NULL, err);
}

static int compare(const struct undo *u, struct q2_io *image, struct q2_error *err)
{
    struct comparison c = {.image = image, .all_old = true};
    int ret = q2_io_get_size(image, &c.size, err);
    if (ret == 0 &&
        (c.size < u->size_before || c.size > q2_max_u64(u->size_after, u->size_before)))
        return q2_fail(err, -EINVAL,
                       "The undo file is not this image's: it is %" PRIu64
                       " bytes long, not %" PRIu64 " to %" PRIu64,
                       c.size, u->size_before, u->size_after);
    if (ret == 0)
        ret = walk(u, compare_record, &c, err);
    if (ret == 0)
        ret = require_zeros(&c, q2_max_u64(c.next, u->size_before), c.size, err);
    if (ret == 0 && c.all_old && c.size == u->size_before)
        return q2_fail(err, -EALREADY,
                       "The image is what it was before that repair; there is nothing to "
                       "take back");
    return ret;
}

int q2_undo_read(struct q2_io *file, struct q2_io *image, struct q2_error *err)
{
    struct undo u = {.io = file};
    int ret = read_header(&u, err);
    if (ret == 0) // before the sum: a hole as long as a file can be is not summed up
        ret = walk(&u, skip_steps, NULL, err);
    if (ret == 0)
        ret = check_sum(&u, err);
    if (ret == 0)
        ret = compare(&u, image, err);
    if (ret == 0)
        ret = walk(&u, restore_record, image, err);
    if (ret == 0)
        ret = q2_io_set_size(image, u.size_before, err);
    return ret < 0 ? ret : q2_io_flush(image, err);
}

int q2_undo_restore(const char *path, struct q2_io *image, struct q2_error *err)
{
    const struct q2_file_options options = {.lock = Q2_LOCK_READ};
    struct q2_io *io;
    int ret = q2_file_open(path, &options, &io, err);
    if (ret < 0)
        return ret;
    ret = q2_undo_read(io, image, err);
    q2_io_close(io);
    return ret;
}
