// SPDX-License-Identifier: MIT
// Decoding header extensions (qcow2 format: "Header extensions").
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/endian.h"
#include "disk/header_private.h"

// QEMU keeps the backing format in 16 bytes.
#define MAX_FORMAT_NAME 15U
#define BITMAP_ENTRY_MIN_BYTES 24U

// One extension where it stands.
struct place {
    uint32_t type;
    uint32_t n_bytes;
    size_t data; // offset of its data
};

// A walk over the extensions; ends at the end marker or the end of the area.
struct walk {
    const struct q2_header_view *v;
    uint64_t at;
    uint64_t end;
};

static struct walk walk_start(const struct q2_header_view *v, const struct q2_header *h)
{
    return (struct walk){v, h->header_length, q2_header_extensions_end(h)};
}

// 1: *place is the next one; 0: no more; negative: nonsense.
static int walk_next(struct walk *w, struct place *place, struct q2_error *err)
{
    uint8_t head[Q2_EXT_HEAD_BYTES];
    uint64_t at = w->at;

    // What the file has no more bytes for reads as the end marker.
    if (at >= w->end || at >= w->v->n_bytes)
        return 0;
    q2_header_view_copy(w->v, (size_t)at, head, sizeof(head));
    place->type = q2_load_be32(head);
    place->n_bytes = q2_load_be32(head + 4);
    place->data = (size_t)at + sizeof(head);
    if (place->data > w->end || place->n_bytes > w->end - place->data)
        return q2_fail(err, -EINVAL,
                       "Header extension too large (type 0x%08" PRIx32
                       " at offset %" PRIu64 ": %" PRIu32 " bytes)",
                       place->type, at, place->n_bytes);
    w->at = place->data + q2_align_up(place->n_bytes, 8);
    return place->type != Q2_EXT_END;
}

static char *load_string(const struct q2_header_view *v, const struct place *place)
{
    char *s = malloc((size_t)place->n_bytes + 1);
    if (s) {
        q2_header_view_copy(v, place->data, s, place->n_bytes);
        s[place->n_bytes] = '\0';
    }
    return s;
}

static int decode_backing_format(const struct q2_header_view *v,
                                 const struct place *place, struct q2_header *h,
                                 struct q2_error *err)
{
    if (place->n_bytes > MAX_FORMAT_NAME)
        return q2_fail(err, -EINVAL,
                       "ERROR: ext_backing_format: len=%" PRIu32 " too large (>=%u)",
                       place->n_bytes, MAX_FORMAT_NAME + 1);
    h->backing_format = load_string(v, place);
    return h->backing_format ? 0 : q2_fail_memory(err, (size_t)place->n_bytes + 1);
}

static int decode_data_file(const struct q2_header_view *v, const struct place *place,
                            struct q2_header *h, struct q2_error *err)
{
    h->data_file = load_string(v, place);
    return h->data_file ? 0 : q2_fail_memory(err, (size_t)place->n_bytes + 1);
}

static int decode_crypto(const struct q2_header_view *v, const struct place *place,
                         struct q2_header *h, struct q2_error *err)
{
    uint8_t data[Q2_EXT_CRYPTO_BYTES];
    uint64_t end;

    if (h->crypt_method != Q2_CRYPT_LUKS)
        return q2_fail(err, -EINVAL,
                       "CRYPTO header extension only expected with LUKS encryption "
                       "method (crypt_method %" PRIu32 ")",
                       h->crypt_method);
    if (place->n_bytes != sizeof(data))
        return q2_fail(err, -EINVAL,
                       "CRYPTO header extension size %" PRIu32 ", but expected size %zu",
                       place->n_bytes, sizeof(data));

    q2_header_view_copy(v, place->data, data, sizeof(data));
    h->crypto_header_offset = q2_load_be64(data);
    h->crypto_header_length = q2_load_be64(data + 8);
    h->has_crypto = true;
    if (!q2_is_aligned(h->crypto_header_offset, q2_header_cluster_size(h)))
        return q2_fail(err, -EINVAL,
                       "Encryption header offset '%" PRIu64
                       "' is not a multiple of cluster size '%" PRIu64 "'",
                       h->crypto_header_offset, q2_header_cluster_size(h));
    if (!q2_add_u64(h->crypto_header_offset, h->crypto_header_length, &end) ||
        end > (uint64_t)INT64_MAX)
        return q2_fail(err, -EINVAL,
                       "Encryption header does not fit in any file (offset %" PRIu64
                       ", length %" PRIu64 ")",
                       h->crypto_header_offset, h->crypto_header_length);
    return 0;
}

static int check_bitmaps(const struct q2_header *h, struct q2_error *err)
{
    if (h->nb_bitmaps > Q2_MAX_BITMAPS)
        return q2_fail(err, -EINVAL,
                       "bitmaps_ext: Image has %" PRIu32
                       " bitmaps, exceeding the QEMU supported maximum of %u",
                       h->nb_bitmaps, Q2_MAX_BITMAPS);
    if (h->nb_bitmaps == 0)
        return q2_fail(err, -EINVAL, "found bitmaps extension with zero bitmaps");
    if (!q2_is_aligned(h->bitmap_directory_offset, q2_header_cluster_size(h)) ||
        h->bitmap_directory_offset > (uint64_t)INT64_MAX - Q2_MAX_BITMAP_DIRECTORY_BYTES)
        return q2_fail(err, -EINVAL,
                       "bitmaps_ext: invalid bitmap directory offset "
                       "(bitmap_directory_offset %" PRIu64 ")",
                       h->bitmap_directory_offset);
    if (h->bitmap_directory_size > Q2_MAX_BITMAP_DIRECTORY_BYTES)
        return q2_fail(err, -EINVAL,
                       "bitmaps_ext: bitmap directory size (%" PRIu64
                       ") exceeds the maximum supported size (%u)",
                       h->bitmap_directory_size, (unsigned)Q2_MAX_BITMAP_DIRECTORY_BYTES);
    if (h->bitmap_directory_size / BITMAP_ENTRY_MIN_BYTES < h->nb_bitmaps)
        return q2_fail(err, -EINVAL,
                       "bitmaps_ext: bitmap directory size (%" PRIu64
                       ") is too small for %" PRIu32 " bitmaps",
                       h->bitmap_directory_size, h->nb_bitmaps);
    return 0;
}

static int decode_bitmaps(const struct q2_header_view *v, const struct place *place,
                          struct q2_header *h, struct q2_error *err)
{
    uint8_t data[Q2_EXT_BITMAPS_BYTES];

    if (place->n_bytes != sizeof(data))
        return q2_fail(err, -EINVAL,
                       "bitmaps_ext: Invalid extension length (%" PRIu32 ")",
                       place->n_bytes);
    // Written by a program that knows no bitmaps: what it says is out of date.
    if (!(h->autoclear_features & Q2_AUTOCLEAR_BITMAPS))
        return 0;

    q2_header_view_copy(v, place->data, data, sizeof(data));
    if (q2_load_be32(data + 4) != 0)
        return q2_fail(err, -EINVAL,
                       "bitmaps_ext: Reserved field is not zero (%" PRIu32 ")",
                       q2_load_be32(data + 4));
    h->nb_bitmaps = q2_load_be32(data);
    h->bitmap_directory_size = q2_load_be64(data + 8);
    h->bitmap_directory_offset = q2_load_be64(data + 16);
    h->has_bitmaps = true;
    return check_bitmaps(h, err);
}

static int keep(const struct q2_header_view *v, const struct place *place,
                struct q2_header *h, struct q2_error *err)
{
    // Room grows at each power of two.
    if ((h->n_extensions & (h->n_extensions - 1)) == 0) {
        size_t room = h->n_extensions ? (size_t)h->n_extensions * 2 : 1;
        struct q2_extension *more = realloc(h->extensions, room * sizeof(*more));
        if (!more)
            return q2_fail_memory(err, room * sizeof(*more));
        h->extensions = more;
    }

    struct q2_extension *e = &h->extensions[h->n_extensions];
    *e = (struct q2_extension){.type = place->type, .n_bytes = place->n_bytes};
    if (place->n_bytes) {
        e->data = malloc(place->n_bytes);
        if (!e->data)
            return q2_fail_memory(err, place->n_bytes);
        q2_header_view_copy(v, place->data, e->data, place->n_bytes);
    }
    h->n_extensions++;
    return 0;
}

// The extensions that we know, and what becomes of them.
static const struct known {
    uint32_t type;
    bool is_kept;
    int (*decode)(const struct q2_header_view *v, const struct place *place,
                  struct q2_header *h, struct q2_error *err);
} known_extensions[] = {
    {Q2_EXT_BACKING_FORMAT, false, decode_backing_format},
    {Q2_EXT_DATA_FILE, false, decode_data_file},
    {Q2_EXT_CRYPTO, true, decode_crypto},
    {Q2_EXT_FEATURE_TABLE, true, NULL},
    {Q2_EXT_BITMAPS, true, decode_bitmaps},
};

#define N_KNOWN (sizeof(known_extensions) / sizeof(known_extensions[0]))

static int decode_known(const struct q2_header_view *v, const struct place *place,
                        size_t k, unsigned *seen, struct q2_header *h,
                        struct q2_error *err)
{
    const struct known *known = &known_extensions[k];

    if (*seen & (1U << k))
        return q2_fail(err, -EINVAL,
                       "Header extension 0x%08" PRIx32 " is there more than once",
                       place->type);
    *seen |= 1U << k;
    return known->decode ? known->decode(v, place, h, err) : 0;
}

static int decode_one(const struct q2_header_view *v, const struct place *place,
                      unsigned *seen, struct q2_header *h, struct q2_error *err)
{
    for (size_t k = 0; k < N_KNOWN; k++) {
        if (known_extensions[k].type != place->type)
            continue;
        int ret = decode_known(v, place, k, seen, h, err);
        if (ret < 0 || !known_extensions[k].is_kept)
            return ret;
        break;
    }
    return keep(v, place, h, err);
}

int q2_header_extensions_decode(const struct q2_header_view *v, struct q2_header *h,
                                struct q2_error *err)
{
    struct walk w = walk_start(v, h);
    struct place place;
    unsigned seen = 0;
    int ret;

    while ((ret = walk_next(&w, &place, err)) > 0) {
        ret = decode_one(v, &place, &seen, h, err);
        if (ret < 0)
            return ret;
    }
    return ret;
}

// A list of names that goes into a message.
struct name_list {
    char text[Q2_ERROR_MESSAGE_MAX / 2];
    size_t n;
};

// The image's own text: what could confuse a terminal is shown as '?'.
static void add_name(struct name_list *list, const char *name, size_t max)
{
    size_t n = strnlen(name, max);
    if (list->n + n + 3 > sizeof(list->text))
        return;
    if (list->n) {
        memcpy(list->text + list->n, ", ", 2);
        list->n += 2;
    }
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)name[i];
        list->text[list->n++] = (char)(c < 0x20 || c == 0x7f ? '?' : c);
    }
    list->text[list->n] = '\0';
}

// Adds the names of the incompatible features in mask that the table knows; returns the
// others.
static uint64_t add_table_names(const struct q2_header_view *v, const struct place *table,
                                uint64_t mask, struct name_list *list)
{
    uint8_t entry[Q2_FEATURE_ENTRY_BYTES];

    for (uint32_t at = 0; table->n_bytes - at >= sizeof(entry); at += sizeof(entry)) {
        q2_header_view_copy(v, table->data + at, entry, sizeof(entry));
        uint8_t type = entry[0];
        uint8_t bit = entry[1];
        if (entry[2] == '\0')
            break;
        if (type != 0 || bit > 63 || !(mask >> bit & 1))
            continue;
        add_name(list, (const char *)entry + 2, Q2_FEATURE_NAME_BYTES);
        mask &= ~(UINT64_C(1) << bit);
    }
    return mask;
}

int q2_header_refuse_features(const struct q2_header_view *v, const struct q2_header *h,
                              struct q2_error *err)
{
    uint64_t mask = h->incompatible_features & ~Q2_INCOMPAT_KNOWN;
    struct walk w = walk_start(v, h);
    struct name_list list = {.n = 0};
    struct place place;

    // Extensions that make no sense end the search for names.
    while (mask && walk_next(&w, &place, err) > 0)
        if (place.type == Q2_EXT_FEATURE_TABLE)
            mask = add_table_names(v, &place, mask, &list);

    if (mask) {
        char rest[64];
        snprintf(rest, sizeof(rest), "Unknown incompatible feature: %" PRIx64, mask);
        add_name(&list, rest, sizeof(rest));
    }
    return q2_fail(err, -ENOTSUP, "Unsupported qcow2 feature(s): %s", list.text);
}
