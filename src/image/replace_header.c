// SPDX-License-Identifier: MIT
// Replacing the header, its extensions and the backing file's name as a whole.
//
// A disk writes one sector whole, not a cluster. So a header takes over by the write of
// its first sector alone, and what it says of the sectors behind must stand there before,
// without hurting the old header. There are three ways, the first that is open is taken:
//
//   sector    The new header differs from the old one in one sector, whichever. One
//             write. (Where extensions stay where they are, that is the rule.)
//
//   detour    Extensions and name are written a second time into the free end of the
//             cluster. The first sector, a detour, leads there: one extension, which
//             means nothing to anybody, reaches over all that lies in between. Now what
//             lies there can be written as the new header has it, and a second write of
//             the first sector ends the detour. A power cut may leave the detour: a sound
//             image with an extension that programs ignore; the next replacement drops
//             it.
//
//   in place  Only from version 3 to version 2, where the header becomes shorter: such an
//             extension covers the fields that version 2 lacks, and what stands behind
//             stays where it is. One write; the extension remains.
//
// Each write is flushed before the next. What is left over at the end is wiped.
#include "image/metadata.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"

#define SECTOR 512U
#define EXTENSION_HEAD_BYTES 8U
// "qtsk" (skip): the extension that covers what is not meant.
#define EXTENSION_SKIP 0x7174736bU

#define AT_BACKING_FILE_OFFSET 8U

struct plan {
    enum { BY_SECTOR, BY_DETOUR, IN_PLACE } way;
    uint64_t sector;    // BY_SECTOR: where it begins
    uint8_t *old, *new; // a cluster each
    uint64_t old_end;   // of what the old header uses, whole sectors
    uint64_t new_end;
    uint64_t header_length; // of the new one
    uint64_t backing_offset;
    uint64_t body_bytes; // of extensions and name
};

static void plan_clear(struct plan *p)
{
    free(p->old);
    free(p->new);
}

static uint64_t extension_bytes(uint64_t n_bytes)
{
    return EXTENSION_HEAD_BYTES + q2_align_up(n_bytes, 8);
}

// The end of what the header in the file uses. Trailing zeros of it count, too.
static uint64_t used_end(const struct q2_image *img, const uint8_t *cluster)
{
    const struct q2_header *h = &img->header;
    uint64_t end = h->header_length + EXTENSION_HEAD_BYTES, last = img->cluster_size;
    for (unsigned i = 0; i < h->n_extensions; i++)
        end += extension_bytes(h->extensions[i].n_bytes);
    if (h->backing_format)
        end += extension_bytes(strlen(h->backing_format));
    if (h->data_file)
        end += extension_bytes(strlen(h->data_file));
    while (last > 0 && cluster[last - 1] == 0)
        last--;
    end = q2_max_u64(end, last + EXTENSION_HEAD_BYTES);
    end = q2_max_u64(end, h->backing_file_offset + h->backing_file_size);
    return q2_min_u64(q2_align_up(end, SECTOR), img->cluster_size);
}

static void drop_skips(struct q2_header *h)
{
    unsigned n = 0;
    for (unsigned i = 0; i < h->n_extensions; i++) {
        if (h->extensions[i].type == EXTENSION_SKIP)
            free(h->extensions[i].data);
        else
            h->extensions[n++] = h->extensions[i];
    }
    h->n_extensions = n;
}

// At most one sector is another one: p->sector.
static bool one_sector_differs(struct plan *p)
{
    unsigned n = 0;
    for (uint64_t at = 0; at < p->new_end; at += SECTOR) {
        if (memcmp(p->old + at, p->new + at, SECTOR) != 0) {
            p->sector = at;
            n++;
        }
    }
    return n <= 1;
}

static bool detour_fits(const struct q2_image *img, const struct plan *p)
{
    uint64_t base = q2_max_u64(p->old_end, p->new_end);
    return p->header_length <= SECTOR - EXTENSION_HEAD_BYTES &&
           base + q2_align_up(p->body_bytes, SECTOR) <= img->cluster_size;
}

static int choose_way(const struct q2_image *img, const struct q2_header *h,
                      struct plan *p, struct q2_error *err)
{
    p->way = one_sector_differs(p) ? BY_SECTOR : BY_DETOUR;
    if (p->way == BY_SECTOR || detour_fits(img, p))
        return 0;
    p->way = IN_PLACE;
    if (h->version < img->header.version)
        return 0;
    return q2_fail(err, -ENOSPC,
                   "The header, its extensions and the backing file's name leave no room "
                   "in their cluster of %" PRIu32 " bytes to replace them safely",
                   img->cluster_size);
}

static int encode(const struct q2_image *img, struct q2_header *h, struct plan *p,
                  struct q2_error *err)
{
    size_t used;
    drop_skips(h);
    int ret = q2_header_encode(h, p->new, &used, err);
    if (ret < 0)
        return ret;
    p->old_end = used_end(img, p->old);
    p->new_end = q2_min_u64(q2_align_up(used, SECTOR), img->cluster_size);
    p->header_length = h->header_length;
    p->backing_offset = h->backing_file_offset;
    p->body_bytes = used - h->header_length;
    return choose_way(img, h, p, err);
}

static int plan_make(struct q2_image *img, struct q2_header *h, struct plan *p,
                     struct q2_error *err)
{
    *p =
        (struct plan){.old = malloc(img->cluster_size), .new = malloc(img->cluster_size)};
    int ret = p->old && p->new ? 0 : q2_fail_memory(err, img->cluster_size);
    if (ret == 0)
        ret = q2_io_read(img->disk.file, 0, p->old, img->cluster_size, err);
    if (ret == 0)
        ret = encode(img, h, p, err);
    if (ret != 0)
        plan_clear(p);
    return ret;
}

int q2_image_try_header(struct q2_image *img, struct q2_header *h, struct q2_error *err)
{
    struct plan p;
    int ret = plan_make(img, h, &p, err);
    if (ret == 0)
        plan_clear(&p);
    return ret;
}

static int write_durably(struct q2_image *img, uint64_t offset, const uint8_t *bytes,
                         uint64_t n_bytes, struct q2_error *err)
{
    if (n_bytes == 0)
        return 0;
    int ret = q2_io_write(img->disk.file, offset, bytes, q2_to_size(n_bytes), err);
    return ret < 0 ? ret : q2_io_flush(img->disk.file, err);
}

static void store_skip(uint8_t *at, uint64_t n_bytes)
{
    q2_store_be32(at, EXTENSION_SKIP);
    q2_store_be32(at + 4, (uint32_t)n_bytes);
}

static int write_detour(struct q2_image *img, const struct plan *p, uint64_t base,
                        struct q2_error *err)
{
    uint8_t first[SECTOR] = {0};
    uint64_t n_bytes = q2_align_up(p->body_bytes, SECTOR);
    uint8_t *body = calloc(1, q2_to_size(n_bytes));
    if (!body)
        return q2_fail_memory(err, n_bytes);
    memcpy(body, p->new + p->header_length, q2_to_size(p->body_bytes));
    memcpy(first, p->new, q2_to_size(p->header_length));
    store_skip(first + p->header_length, base - p->header_length - EXTENSION_HEAD_BYTES);
    if (p->backing_offset)
        q2_store_be64(first + AT_BACKING_FILE_OFFSET,
                      p->backing_offset - p->header_length + base);
    int ret = write_durably(img, base, body, n_bytes, err);
    if (ret == 0)
        ret = write_durably(img, 0, first, SECTOR, err);
    free(body);
    return ret;
}

// What of the cluster's used part lies behind the new header.
static int wipe(struct q2_image *img, uint64_t from, uint64_t end, struct q2_error *err)
{
    if (from >= end)
        return 0;
    uint8_t *zeros = calloc(1, q2_to_size(end - from));
    if (!zeros)
        return q2_fail_memory(err, end - from);
    int ret = write_durably(img, from, zeros, end - from, err);
    free(zeros);
    return ret;
}

static int go_by_sector(struct q2_image *img, const struct plan *p, struct q2_error *err)
{
    int ret = write_durably(img, p->sector, p->new + p->sector, SECTOR, err);
    return ret < 0 ? ret : wipe(img, q2_max_u64(p->new_end, SECTOR), p->old_end, err);
}

static int go_by_detour(struct q2_image *img, const struct plan *p, struct q2_error *err)
{
    uint64_t base = q2_max_u64(p->old_end, p->new_end);
    uint64_t end = base + q2_align_up(p->body_bytes, SECTOR);
    int ret = write_detour(img, p, base, err);
    if (ret == 0)
        ret = write_durably(img, SECTOR, p->new + SECTOR, p->new_end - SECTOR, err);
    if (ret == 0)
        ret = write_durably(img, 0, p->new, SECTOR, err);
    return ret < 0 ? ret : wipe(img, p->new_end, end, err);
}

static int go_in_place(struct q2_image *img, const struct plan *p, struct q2_error *err)
{
    uint8_t first[SECTOR];
    memcpy(first, p->old, SECTOR);
    memcpy(first, p->new, Q2_HEADER_V2_BYTES);
    memcpy(first + AT_BACKING_FILE_OFFSET, p->old + AT_BACKING_FILE_OFFSET, 12);
    store_skip(first + Q2_HEADER_V2_BYTES,
               img->header.header_length - Q2_HEADER_V2_BYTES - EXTENSION_HEAD_BYTES);
    return write_durably(img, 0, first, SECTOR, err);
}

// img->header becomes what the file says now.
static int adopt(struct q2_image *img, uint8_t *cluster, struct q2_error *err)
{
    struct q2_header h;
    int ret = q2_io_read(img->disk.file, 0, cluster, img->cluster_size, err);
    if (ret == 0)
        ret = q2_header_decode(cluster, img->cluster_size, &h, err);
    if (ret != 0)
        return ret;
    q2_header_clear(&img->header);
    img->header = h;
    return 0;
}

int q2_image_replace_header(struct q2_image *img, struct q2_header *h,
                            struct q2_error *err)
{
    static int (*const ways[])(struct q2_image *, const struct plan *,
                               struct q2_error *) = {
        [BY_SECTOR] = go_by_sector, [BY_DETOUR] = go_by_detour, [IN_PLACE] = go_in_place};
    struct plan p;
    int ret = plan_make(img, h, &p, err);
    if (ret != 0)
        return ret;
    ret = ways[p.way](img, &p, err);
    if (ret == 0)
        ret = adopt(img, p.old, err);
    plan_clear(&p);
    return ret < 0 ? q2_context(err, "Could not update qcow2 header") : 0;
}
