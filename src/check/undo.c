// SPDX-License-Identifier: MIT
// The undo file. Big-endian:
//   header   magic (8), version (4), 0 (4), size of the image before (8), after (8),
//            number of records (8)
//   record   offset (8), bytes (4), flags (4), old content, new content
//   trailer  CRC-32 of all before it (4)
// Records are whole sectors of the image, ascending, neighbours joined.
#include "check/undo.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "base/checked.h"
#include "base/endian.h"
#include "io/file.h"
#include "io/overlay.h"

#define MAGIC "Q2UNDO\r\n"
#define UNDO_VERSION 1U
#define HEADER_BYTES 40U
#define RECORD_BYTES 16U
#define SECTOR 512U
#define MAX_RECORD_BYTES (UINT32_C(1) << 20)
// The repair writes these sectors more than once: they are not compared when it is
// undone.
#define FLAG_REWRITTEN 1U

// Sectors that the log changes, before they are joined to records.
struct sector_list {
    uint64_t *sectors;
    size_t n, max;
};

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int list_sectors(struct q2_io *overlay, struct sector_list *l,
                        struct q2_error *err)
{
    size_t n;
    const struct q2_overlay_entry *log = q2_overlay_log(overlay, &n);
    for (size_t i = 0; i < n; i++) {
        if (log[i].kind != Q2_OVERLAY_WRITE)
            continue;
        uint64_t last = (log[i].offset + log[i].n_bytes - 1) / SECTOR;
        for (uint64_t s = log[i].offset / SECTOR; s <= last; s++) {
            if (l->n == l->max) {
                size_t max = l->max ? l->max * 2 : 1024;
                uint64_t *p = realloc(l->sectors, max * sizeof(*p));
                if (!p)
                    return q2_fail_memory(err, max * sizeof(*p));
                l->sectors = p;
                l->max = max;
            }
            l->sectors[l->n++] = s;
        }
    }
    if (l->n > 0)
        qsort(l->sectors, l->n, sizeof(uint64_t), by_value);
    return 0;
}

// The file being written, with its checksum.
struct out {
    struct q2_io *io;
    uint64_t at;
    uLong crc;
};

static int put(struct out *o, const void *buf, size_t n, struct q2_error *err)
{
    int ret = q2_io_write(o->io, o->at, buf, n, err);
    o->crc = crc32(o->crc, buf, (uInt)n);
    o->at += n;
    return ret;
}

static int put_record(struct out *o, struct q2_io *image, struct q2_io *overlay,
                      uint64_t offset, size_t n_bytes, bool rewritten,
                      struct q2_error *err)
{
    uint8_t *buf = malloc(RECORD_BYTES + 2 * n_bytes);
    if (!buf)
        return q2_fail_memory(err, RECORD_BYTES + 2 * n_bytes);
    q2_store_be64(buf, offset);
    q2_store_be32(buf + 8, (uint32_t)n_bytes);
    q2_store_be32(buf + 12, rewritten ? FLAG_REWRITTEN : 0);
    int ret = q2_io_read(image, offset, buf + RECORD_BYTES, n_bytes, err);
    if (ret == 0)
        ret = q2_io_read(overlay, offset, buf + RECORD_BYTES + n_bytes, n_bytes, err);
    if (ret == 0)
        ret = put(o, buf, RECORD_BYTES + 2 * n_bytes, err);
    free(buf);
    return ret;
}

// Walks the sorted sectors as records; counts them only when o is NULL.
static int put_records(struct out *o, struct q2_io *image, struct q2_io *overlay,
                       const struct sector_list *l, uint64_t *n_records,
                       struct q2_error *err)
{
    *n_records = 0;
    for (size_t i = 0; i < l->n;) {
        uint64_t first = l->sectors[i], n = 0;
        bool rewritten = i + 1 < l->n && l->sectors[i + 1] == first;
        while (i < l->n && l->sectors[i] == first + n && n * SECTOR < MAX_RECORD_BYTES) {
            size_t same = 1;
            while (i + same < l->n && l->sectors[i + same] == first + n)
                same++;
            if ((same > 1) != rewritten)
                break;
            i += same;
            n++;
        }
        ++*n_records;
        int ret = o ? put_record(o, image, overlay, first * SECTOR, (size_t)n * SECTOR,
                                 rewritten, err)
                    : 0;
        if (ret < 0)
            return ret;
    }
    return 0;
}

static int put_all(struct out *o, struct q2_io *image, struct q2_io *overlay,
                   const struct sector_list *l, struct q2_error *err)
{
    uint8_t header[HEADER_BYTES] = MAGIC, trailer[4];
    uint64_t before, after, n_records;
    int ret = q2_io_get_size(image, &before, err);
    if (ret == 0)
        ret = q2_io_get_size(overlay, &after, err);
    if (ret == 0)
        ret = put_records(NULL, image, overlay, l, &n_records, err);
    if (ret != 0)
        return ret;
    q2_store_be32(header + 8, UNDO_VERSION);
    q2_store_be64(header + 16, before);
    q2_store_be64(header + 24, after);
    q2_store_be64(header + 32, n_records);
    ret = put(o, header, sizeof(header), err);
    if (ret == 0)
        ret = put_records(o, image, overlay, l, &n_records, err);
    q2_store_be32(trailer, (uint32_t)o->crc);
    if (ret == 0)
        ret = q2_io_write(o->io, o->at, trailer, sizeof(trailer), err);
    return ret < 0 ? ret : q2_io_flush(o->io, err);
}

// The file's name must be durable, too.
static void flush_directory(const char *path)
{
    char *dir = strdup(path);
    char *slash = dir ? strrchr(dir, '/') : NULL;
    if (slash)
        slash[slash == dir ? 1 : 0] = '\0';
    int fd = dir ? open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    free(dir);
}

int q2_undo_save(const char *path, struct q2_io *image, struct q2_io *overlay,
                 struct q2_error *err)
{
    struct sector_list l = {0};
    struct out o = {.crc = crc32(0, NULL, 0)};
    const struct q2_file_options options = {.writable = true, .lock = Q2_LOCK_WRITE};
    bool made;
    if (access(path, F_OK) == 0)
        return q2_fail(err, -EEXIST,
                       "Undo file '%s' is there already; it is not overwritten", path);
    int ret = list_sectors(overlay, &l, err);
    if (ret == 0)
        ret = q2_file_create(path, &options, &o.io, &made, err);
    if (ret == 0) {
        ret = put_all(&o, image, overlay, &l, err);
        if (ret < 0)
            q2_file_abandon(o.io, made);
        q2_io_close(o.io);
        flush_directory(path);
    }
    free(l.sectors);
    return ret < 0 ? q2_context(err, "Could not write undo file '%s'", path) : 0;
}

// An undo file in memory, whole and checked.
struct undo {
    uint8_t *bytes;
    uint64_t n_bytes;
    uint64_t size_before, size_after, n_records;
};

static int check_whole(const struct undo *u, const char *path, struct q2_error *err)
{
    if (u->n_bytes < HEADER_BYTES + 4 || memcmp(u->bytes, MAGIC, 8) != 0)
        return q2_fail(err, -EINVAL, "'%s' is no undo file", path);
    uLong crc = crc32_z(crc32(0, NULL, 0), u->bytes, q2_to_size(u->n_bytes - 4));
    if (q2_load_be32(u->bytes + 8) != UNDO_VERSION)
        return q2_fail(err, -EINVAL, "'%s' is an undo file of unknown version %" PRIu32,
                       path, q2_load_be32(u->bytes + 8));
    if (crc != q2_load_be32(u->bytes + u->n_bytes - 4))
        return q2_fail(err, -EINVAL,
                       "Undo file '%s' is damaged (its checksum does not fit)", path);
    return 0;
}

static int load(const char *path, struct undo *u, struct q2_error *err)
{
    const struct q2_file_options options = {.lock = Q2_LOCK_READ};
    struct q2_io *io;
    int ret = q2_file_open(path, &options, &io, err);
    if (ret < 0)
        return ret;
    ret = q2_io_get_size(io, &u->n_bytes, err);
    if (ret == 0) {
        u->bytes = malloc(q2_to_size(q2_max_u64(u->n_bytes, 1)));
        ret = u->bytes ? q2_io_read(io, 0, u->bytes, q2_to_size(u->n_bytes), err)
                       : q2_fail_memory(err, u->n_bytes);
    }
    q2_io_close(io);
    if (ret == 0)
        ret = check_whole(u, path, err);
    if (ret < 0)
        return ret;
    u->size_before = q2_load_be64(u->bytes + 16);
    u->size_after = q2_load_be64(u->bytes + 24);
    u->n_records = q2_load_be64(u->bytes + 32);
    return 0;
}

// One record: is the image's content here one of the two that it can be?
static int check_record(struct q2_io *image, uint64_t offset, uint32_t n_bytes,
                        const uint8_t *old, const uint8_t *new, struct q2_error *err)
{
    uint8_t now[SECTOR];
    for (uint32_t at = 0; at < n_bytes; at += SECTOR) {
        int ret = q2_io_read(image, offset + at, now, SECTOR, err);
        if (ret < 0)
            return ret;
        if (memcmp(now, old + at, SECTOR) != 0 && memcmp(now, new + at, SECTOR) != 0)
            return q2_fail(err, -EINVAL,
                           "The undo file is not this image's, or the image was changed "
                           "since: offset %" PRIu64
                           " holds neither the old nor the repaired content",
                           offset + at);
    }
    return 0;
}

// Calls for each record; restore: writes the old content, else compares.
static int walk(const struct undo *u, struct q2_io *image, bool restore,
                struct q2_error *err)
{
    const uint8_t *p = u->bytes + HEADER_BYTES, *end = u->bytes + u->n_bytes - 4;
    for (uint64_t i = 0; i < u->n_records; i++) {
        if ((size_t)(end - p) < RECORD_BYTES)
            return q2_fail(err, -EINVAL, "The undo file ends too early");
        uint64_t offset = q2_load_be64(p);
        uint32_t n_bytes = q2_load_be32(p + 8), flags = q2_load_be32(p + 12);
        p += RECORD_BYTES;
        if (n_bytes % SECTOR != 0 || (uint64_t)(end - p) < (uint64_t)n_bytes * 2)
            return q2_fail(err, -EINVAL,
                           "The undo file has a record of %" PRIu32 " bytes", n_bytes);
        int ret = 0;
        if (restore)
            ret = q2_io_write(image, offset, p, n_bytes, err);
        else if (!(flags & FLAG_REWRITTEN))
            ret = check_record(image, offset, n_bytes, p, p + n_bytes, err);
        if (ret < 0)
            return ret;
        p += (size_t)n_bytes * 2;
    }
    return 0;
}

static int restore(const struct undo *u, struct q2_io *image, struct q2_error *err)
{
    uint64_t size;
    int ret = q2_io_get_size(image, &size, err);
    if (ret == 0 &&
        (size < u->size_before || size > q2_max_u64(u->size_after, u->size_before)))
        return q2_fail(err, -EINVAL,
                       "The undo file is not this image's: it is %" PRIu64
                       " bytes long, not %" PRIu64 " to %" PRIu64,
                       size, u->size_before, u->size_after);
    if (ret == 0)
        ret = walk(u, image, false, err);
    if (ret == 0)
        ret = walk(u, image, true, err);
    if (ret == 0)
        ret = q2_io_set_size(image, u->size_before, err);
    return ret < 0 ? ret : q2_io_flush(image, err);
}

int q2_undo_restore(const char *path, struct q2_io *image, struct q2_error *err)
{
    struct undo u = {0};
    int ret = load(path, &u, err);
    if (ret == 0)
        ret = restore(&u, image, err);
    free(u.bytes);
    return ret;
}
