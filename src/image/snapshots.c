// SPDX-License-Identifier: MIT
// Internal snapshots of an open image: loading their table, reading one of them.
#include "image/image.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "io/ahead.h"

// Decodes the entry at offset; *used is its length. What lies behind the end of the file
// reads as zeros: an empty entry, which check reports.
static int read_entry(struct q2_ahead *ahead, uint64_t offset, unsigned index,
                      struct q2_snapshot *out, size_t *used, struct q2_error *err)
{
    // An entry is at most: fixed part, extra data, id and name of 65535 bytes each.
    const size_t most = 40 + Q2_MAX_SNAPSHOT_EXTRA_BYTES + 2 * 65535 + 8;
    int ret = -ENODATA;
    for (size_t want = 256; ret == -ENODATA; want *= 8) {
        const uint8_t *p;
        want = q2_min_size(want, most);
        ret = q2_ahead_read(ahead, offset, want, &p, err);
        if (ret == 0)
            ret = q2_snapshot_decode(p, want, index, out, used, err);
        if (want == most)
            break;
    }
    return ret;
}

int q2_image_each_snapshot(struct q2_image *img, q2_take_snapshot *take, void *opaque,
                           struct q2_error *err)
{
    uint64_t offset = img->header.snapshots_offset, start = offset;
    struct q2_ahead ahead = {.io = img->disk.file};
    struct q2_error why = Q2_ERROR_INIT; // of the last try, which may have succeeded
    int ret = 0;
    for (unsigned i = 0; i < img->header.nb_snapshots && ret == 0; i++) {
        struct q2_snapshot s;
        size_t used = 0;
        ret = read_entry(&ahead, offset, i, &s, &used, &why);
        if (ret != 0) {
            *err = why;
            q2_context(err, "'%s': Could not read snapshots", img->disk.path);
            break;
        }
        offset += q2_align_up(used, 8);
        if (offset - start > Q2_MAX_SNAPSHOT_TABLE_BYTES)
            ret = q2_fail(err, -EFBIG,
                          "'%s': Could not read snapshots: the snapshot table is longer "
                          "than %" PRIu64 " bytes",
                          img->disk.path, Q2_MAX_SNAPSHOT_TABLE_BYTES);
        else
            ret = take(opaque, &s, err);
        q2_snapshot_clear(&s);
    }
    q2_ahead_clear(&ahead);
    return ret;
}

struct loading {
    struct q2_image *img;
    unsigned max; // grows with what is really there, not with what is claimed
};

static int keep(void *opaque, struct q2_snapshot *s, struct q2_error *err)
{
    struct loading *l = opaque;
    struct q2_image *img = l->img;
    if (!img->snapshots || img->n_snapshots == l->max) {
        l->max = l->max ? l->max * 2 : 16;
        struct q2_snapshot *list = realloc(img->snapshots, l->max * sizeof(*list));
        if (!list)
            return q2_fail_memory(err, l->max * sizeof(*list));
        img->snapshots = list;
    }
    img->snapshots[img->n_snapshots++] = *s;
    *s = (struct q2_snapshot){0};
    return 0;
}

int q2_image_load_snapshots(struct q2_image *img, struct q2_error *err)
{
    struct loading l = {.img = img};
    if (img->snapshots)
        return 0;
    return q2_image_each_snapshot(img, keep, &l, err);
}

// Splits "snapshot.id=I,snapshot.name=N"; what is not named is "" in the result. False
// when spec is not of that form.
static bool parse_spec(const char *spec, char *id, char *name, size_t room)
{
    static const char id_key[] = "snapshot.id=", name_key[] = "snapshot.name=";
    id[0] = name[0] = '\0';
    if (strncmp(spec, "snapshot.", 9) != 0)
        return false;
    while (*spec) {
        bool is_id = strncmp(spec, id_key, sizeof(id_key) - 1) == 0;
        if (!is_id && strncmp(spec, name_key, sizeof(name_key) - 1) != 0)
            return false;
        spec += is_id ? sizeof(id_key) - 1 : sizeof(name_key) - 1;
        size_t n = strcspn(spec, ",");
        if (n >= room)
            return false;
        char *to = is_id ? id : name;
        memcpy(to, spec, n);
        to[n] = '\0';
        spec += n + (spec[n] == ',');
    }
    return true;
}

static const struct q2_snapshot *find_by_parts(const struct q2_image *img, const char *id,
                                               const char *name)
{
    for (unsigned i = 0; i < img->n_snapshots; i++) {
        const struct q2_snapshot *s = &img->snapshots[i];
        if ((!*id || strcmp(s->id, id) == 0) && (!*name || strcmp(s->name, name) == 0))
            return s;
    }
    return NULL;
}

static const struct q2_snapshot *find_snapshot(const struct q2_image *img,
                                               const char *spec)
{
    char id[1024], name[1024];
    if (!*spec)
        return NULL;
    if (parse_spec(spec, id, name, sizeof(id)))
        return find_by_parts(img, id, name);
    const struct q2_snapshot *s = find_by_parts(img, spec, "");
    return s ? s : find_by_parts(img, "", spec);
}

// No name, but a list of parameters that are not known.
static bool is_unknown_parameter(const char *spec)
{
    return !strncmp(spec, "snapshot.", 9) && strncmp(spec, "snapshot.id=", 12) != 0 &&
           strncmp(spec, "snapshot.name=", 14) != 0;
}

int q2_image_select_snapshot(struct q2_image *img, const char *spec, struct q2_error *err)
{
    int ret = q2_image_load_snapshots(img, err);
    if (ret < 0)
        return ret;
    const struct q2_snapshot *s = find_snapshot(img, spec);
    if (!s && is_unknown_parameter(spec))
        return q2_fail(err, -EINVAL, "Invalid parameter '%.*s'", (int)strcspn(spec, "="),
                       spec);
    if (!s)
        return q2_fail(err, -ENOENT, "Failed to load snapshot: Can't find snapshot");
    if ((uint64_t)s->l1_size * 8 > Q2_MAX_L1_BYTES ||
        !q2_is_aligned(s->l1_table_offset, img->cluster_size))
        return q2_fail(
            err, -EFBIG,
            "Failed to load snapshot: '%s': snapshot '%s': L1 table of %" PRIu32
            " entries at offset 0x%" PRIx64 " is too large or not aligned",
            img->disk.path, s->name, s->l1_size, s->l1_table_offset);
    ret = q2_image_load_l1(img, s->l1_table_offset, s->l1_size, err);
    if (ret < 0)
        return q2_context(err, "Failed to load snapshot: '%s': snapshot '%s'",
                          img->disk.path, s->name);
    if (!s->has_disk_size)
        return 0;
    // The disk keeps the image's size where that is larger, as qemu-img has it. What the
    // table maps behind the snapshot's disk is VM state, no part of it.
    uint64_t n = q2_image_l1_entries(s->disk_size, img->cluster_bits, img->l2_bits);
    img->l1_size = (uint32_t)q2_min_u64(img->l1_size, n);
    img->disk.size = q2_max_u64(img->disk.size, q2_align_up(s->disk_size, 512));
    return 0;
}
