// SPDX-License-Identifier: MIT
// Writing the undo file, before a repair changes anything.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "base/checked.h"
#include "base/endian.h"
#include "check/undo.h"
#include "io/file.h"
#include "io/overlay.h"

// A sector that an entry of the log changes.
struct change {
    uint64_t sector;
    size_t entry;
};

struct changes {
    const struct q2_overlay_entry *log;
    struct change *list; // sorted
    size_t n, max;
};

static int by_sector(const void *a, const void *b)
{
    const struct change *x = a, *y = b;
    if (x->sector != y->sector)
        return x->sector < y->sector ? -1 : 1;
    return (x->entry > y->entry) - (x->entry < y->entry);
}

static int add_change(struct changes *c, uint64_t sector, size_t entry,
                      struct q2_error *err)
{
    if (c->n == c->max) {
        size_t max = c->max ? c->max * 2 : 1024;
        struct change *list = realloc(c->list, max * sizeof(*list));
        if (!list)
            return q2_fail_memory(err, max * sizeof(*list));
        c->list = list;
        c->max = max;
    }
    c->list[c->n++] = (struct change){sector, entry};
    return 0;
}

static int list_changes(struct q2_io *overlay, struct changes *c, struct q2_error *err)
{
    size_t n;
    int ret = 0;
    c->log = q2_overlay_log(overlay, &n);
    for (size_t i = 0; i < n; i++) {
        const struct q2_overlay_entry *e = &c->log[i];
        if (e->kind != Q2_OVERLAY_WRITE)
            continue;
        uint64_t last = (e->offset + e->n_bytes - 1) / Q2_UNDO_SECTOR;
        for (uint64_t s = e->offset / Q2_UNDO_SECTOR; s <= last && ret == 0; s++)
            ret = add_change(c, s, i, err);
    }
    if (c->n > 0)
        qsort(c->list, c->n, sizeof(*c->list), by_sector);
    return ret;
}

// How often the sector of change i, the first of its sector, is written.
static size_t times_written(const struct changes *c, size_t i)
{
    size_t n = 1;
    while (i + n < c->n && c->list[i + n].sector == c->list[i].sector)
        n++;
    return n;
}

// Sectors first .. first + n, and changes to them.
struct run {
    uint64_t offset;
    size_t n_bytes;
    size_t first, n_changes;
};

// The run that begins with change i: a sector that is written several times, or
// neighbours that are written once.
static struct run run_from(const struct changes *c, size_t i)
{
    size_t times = times_written(c, i), n = 1;
    uint64_t sector = c->list[i].sector;
    while (times == 1 && i + n < c->n && n * Q2_UNDO_SECTOR < Q2_UNDO_MAX_RECORD_BYTES &&
           c->list[i + n].sector == sector + n && times_written(c, i + n) == 1)
        n++;
    return (struct run){.offset = sector * Q2_UNDO_SECTOR,
                        .n_bytes = n * Q2_UNDO_SECTOR,
                        .first = i,
                        .n_changes = times > 1 ? times : n};
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

// What one write of the log does to the sector at offset.
static int put_step(struct out *o, const struct q2_overlay_entry *e, uint64_t offset,
                    struct q2_error *err)
{
    uint8_t step[Q2_UNDO_STEP_BYTES + Q2_UNDO_SECTOR];
    uint64_t first = q2_max_u64(e->offset, offset);
    uint64_t end = q2_min_u64(e->offset + e->n_bytes, offset + Q2_UNDO_SECTOR);
    size_t n = (size_t)(end - first);
    q2_store_be16(step, (uint16_t)(first - offset));
    q2_store_be16(step + 2, (uint16_t)n);
    memcpy(step + Q2_UNDO_STEP_BYTES, e->data + (first - e->offset), n);
    return put(o, step, Q2_UNDO_STEP_BYTES + n, err);
}

static int put_record(struct out *o, struct q2_io *image, struct q2_io *overlay,
                      const struct changes *c, const struct run *r, struct q2_error *err)
{
    bool steps = r->n_changes * Q2_UNDO_SECTOR > r->n_bytes;
    size_t n_bytes = Q2_UNDO_RECORD_BYTES + 2 * r->n_bytes;
    uint8_t *buf = malloc(n_bytes);
    if (!buf)
        return q2_fail_memory(err, n_bytes);
    q2_store_be64(buf, r->offset);
    q2_store_be32(buf + 8, (uint32_t)r->n_bytes);
    q2_store_be32(buf + 12, steps ? (uint32_t)r->n_changes : 0);
    int ret = q2_io_read(image, r->offset, buf + Q2_UNDO_RECORD_BYTES, r->n_bytes, err);
    if (ret == 0)
        ret = q2_io_read(overlay, r->offset, buf + Q2_UNDO_RECORD_BYTES + r->n_bytes,
                         r->n_bytes, err);
    if (ret == 0)
        ret = put(o, buf, n_bytes, err);
    free(buf);
    for (size_t i = 0; steps && i < r->n_changes && ret == 0; i++)
        ret = put_step(o, &c->log[c->list[r->first + i].entry], r->offset, err);
    return ret;
}

static uint64_t count_records(const struct changes *c)
{
    uint64_t n = 0;
    for (size_t i = 0; i < c->n; n++)
        i += run_from(c, i).n_changes;
    return n;
}

static int put_all(struct out *o, struct q2_io *image, struct q2_io *overlay,
                   const struct changes *c, struct q2_error *err)
{
    uint8_t header[Q2_UNDO_HEADER_BYTES] = Q2_UNDO_MAGIC, trailer[Q2_UNDO_TRAILER_BYTES];
    uint64_t before = 0, after = 0;
    int ret = q2_io_get_size(image, &before, err);
    if (ret == 0)
        ret = q2_io_get_size(overlay, &after, err);
    if (ret < 0)
        return ret;
    q2_store_be32(header + 8, Q2_UNDO_VERSION);
    q2_store_be64(header + 16, before);
    q2_store_be64(header + 24, after);
    q2_store_be64(header + 32, count_records(c));
    ret = put(o, header, sizeof(header), err);
    for (size_t i = 0; i < c->n && ret == 0;) {
        const struct run r = run_from(c, i);
        ret = put_record(o, image, overlay, c, &r, err);
        i += r.n_changes;
    }
    q2_store_be32(trailer, (uint32_t)o->crc);
    if (ret == 0)
        ret = q2_io_write(o->io, o->at, trailer, sizeof(trailer), err);
    return ret < 0 ? ret : q2_io_flush(o->io, err);
}

int q2_undo_write(struct q2_io *file, struct q2_io *image, struct q2_io *overlay,
                  struct q2_error *err)
{
    struct changes c = {0};
    struct out o = {.io = file, .crc = crc32(0, NULL, 0)};
    int ret = list_changes(overlay, &c, err);
    if (ret == 0)
        ret = put_all(&o, image, overlay, &c, err);
    free(c.list);
    return ret;
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
    const struct q2_file_options options = {.writable = true, .lock = Q2_LOCK_WRITE};
    struct q2_io *io;
    bool made;
    if (access(path, F_OK) == 0)
        return q2_fail(err, -EEXIST,
                       "Undo file '%s' is there already; it is not overwritten", path);
    int ret = q2_file_create(path, &options, &io, &made, err);
    if (ret == 0) {
        ret = q2_undo_write(io, image, overlay, err);
        if (ret < 0)
            q2_file_abandon(io, made);
        q2_io_close(io);
        flush_directory(path);
    }
    return ret < 0 ? q2_context(err, "Could not write undo file '%s'", path) : 0;
}
