// SPDX-License-Identifier: MIT
// An image's description as JSON. Keys stand in the order in which qemu-img prints them.
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "cmd/info_output.h"
#include "cmd/output.h"

// The _new functions release their value when they fail and fail when it is NULL, so that
// a whole tree can be built and asked once.
struct builder {
    bool failed;
    struct q2_long_lists *lists;
};

static void put(struct builder *b, json_t *object, const char *key, json_t *value)
{
    if (json_object_set_new_nocheck(object, key, value))
        b->failed = true;
}

static void put_text(struct builder *b, json_t *object, const char *key, const char *text)
{
    put(b, object, key, q2_output_string(text));
}

static void put_number(struct builder *b, json_t *object, const char *key, uint64_t value)
{
    put(b, object, key, json_integer((json_int_t)value));
}

static void put_bool(struct builder *b, json_t *object, const char *key, bool value)
{
    put(b, object, key, json_boolean(value));
}

static void add(struct builder *b, json_t *array, json_t *value)
{
    if (json_array_append_new(array, value))
        b->failed = true;
}

static json_t *finished(const struct builder *b, json_t *value)
{
    if (!b->failed)
        return value;
    json_decref(value);
    return NULL;
}

// A list of the one node below another.
static json_t *only_child(struct builder *b, json_t *info)
{
    json_t *list = json_array(), *child = json_object();
    put_text(b, child, "name", "file");
    put(b, child, "info", info);
    add(b, list, child);
    return list;
}

static json_t *file_node(struct builder *b, const struct q2_info *info)
{
    json_t *file = json_object(), *specific = json_object();
    put(b, file, "children", json_array());
    put_number(b, file, "virtual-size", q2_align_up(info->file_length, 512));
    put_text(b, file, "filename", info->filename);
    put_text(b, file, "format", "file");
    put_number(b, file, "actual-size", info->disk_usage);
    put_text(b, specific, "type", "file");
    put(b, specific, "data", json_object());
    put(b, file, "format-specific", specific);
    put_bool(b, file, "dirty-flag", false);
    return file;
}

static json_t *children(struct builder *b, const struct q2_info *info)
{
    json_t *list = only_child(b, file_node(b, info));
    for (unsigned i = 0; i < info->n_parts; i++) {
        json_t *part = json_object();
        put(b, part, "children", list);
        put_number(b, part, "virtual-size", q2_align_up(info->parts[i].size, 512));
        put_text(b, part, "filename", info->parts[i].title);
        put_text(b, part, "format", "raw");
        put_number(b, part, "actual-size", info->disk_usage);
        put_bool(b, part, "dirty-flag", false);
        list = only_child(b, part);
    }
    return list;
}

json_t *q2_snapshot_to_json(const struct q2_snapshot *s)
{
    struct builder b = {.failed = false};
    json_t *item = json_object();
    if (s->has_icount && s->icount != UINT64_MAX)
        put_number(&b, item, "icount", s->icount);
    put_number(&b, item, "vm-clock-nsec", s->vm_clock_nsec % 1000000000);
    put_text(&b, item, "name", s->name);
    put_number(&b, item, "date-sec", s->date_sec);
    put_number(&b, item, "date-nsec", s->date_nsec);
    put_number(&b, item, "vm-clock-sec", s->vm_clock_nsec / 1000000000);
    put_text(&b, item, "id", s->id);
    put_number(&b, item, "vm-state-size", s->vm_state_size);
    return finished(&b, item);
}

static json_t *bitmap_to_json(const struct q2_bitmap *bitmap)
{
    struct builder b = {.failed = false};
    json_t *item = json_object(), *flags = json_array();
    if (bitmap->flags & Q2_BITMAP_IN_USE)
        add(&b, flags, json_string("in-use"));
    if (bitmap->flags & Q2_BITMAP_AUTO)
        add(&b, flags, json_string("auto"));
    put(&b, item, "flags", flags);
    put_text(&b, item, "name", bitmap->name);
    put_number(&b, item, "granularity", UINT64_C(1) << bitmap->granularity_bits);
    return finished(&b, item);
}

// Where the items of a long list go.
struct stream {
    q2_take_item *take;
    void *to;
};

static int pass_item(const struct stream *s, json_t *item, struct q2_error *err)
{
    return item ? s->take(s->to, item, err) : q2_fail_memory(err, 0);
}

static int pass_snapshot(void *opaque, struct q2_snapshot *s, struct q2_error *err)
{
    return pass_item(opaque, q2_snapshot_to_json(s), err);
}

static int pass_bitmap(void *opaque, const struct q2_bitmap *b, struct q2_error *err)
{
    return pass_item(opaque, bitmap_to_json(b), err);
}

static int each_snapshot(const void *source, q2_take_item *take, void *to,
                         struct q2_error *err)
{
    return q2_info_each_snapshot(source, pass_snapshot, &(struct stream){take, to}, err);
}

static int each_bitmap(const void *source, q2_take_item *take, void *to,
                       struct q2_error *err)
{
    return q2_info_each_bitmap(source, pass_bitmap, &(struct stream){take, to}, err);
}

// A list that is made when it is printed.
static void put_long_list(struct builder *b, json_t *object, const char *key,
                          struct q2_long_list list)
{
    json_t *place = json_array();
    list.place = place;
    put(b, object, key, place);
    b->lists->list[b->lists->n++] = list;
}

static json_t *luks_slots(struct builder *b, const struct q2_luks_header *luks)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++) {
        const struct q2_luks_slot *slot = &luks->slots[i];
        json_t *item = json_object();
        put_bool(b, item, "active", slot->active);
        if (slot->active)
            put_number(b, item, "iters", slot->iterations);
        put_number(b, item, "key-offset",
                   (uint64_t)slot->key_offset_sectors * Q2_LUKS_SECTOR);
        if (slot->active)
            put_number(b, item, "stripes", slot->stripes);
        add(b, list, item);
    }
    return list;
}

// XTS takes two keys of the cipher's own length.
static void put_cipher(struct builder *b, json_t *object,
                       const struct q2_luks_header *luks, const char *mode)
{
    char name[64];
    unsigned bits = luks->master_key_bytes * (strcmp(mode, "xts") ? 8U : 4U);
    snprintf(name, sizeof(name), "%s-%u", luks->cipher_name, bits);
    put_text(b, object, "cipher-alg", name);
}

static void put_luks(struct builder *b, json_t *object, const struct q2_luks_header *luks)
{
    char mode[33], ivgen[33], ivgen_hash[33];
    q2_luks_split_mode(luks->cipher_mode, mode, ivgen, ivgen_hash);
    put_text(b, object, "ivgen-alg", ivgen);
    put_bool(b, object, "detached-header", false);
    put_text(b, object, "hash-alg", luks->hash_spec);
    put_cipher(b, object, luks, mode);
    put_text(b, object, "uuid", luks->uuid);
    if (ivgen_hash[0])
        put_text(b, object, "ivgen-hash-alg", ivgen_hash);
    put_text(b, object, "format", "luks");
    put_text(b, object, "cipher-mode", mode);
    put(b, object, "slots", luks_slots(b, luks));
    put_number(b, object, "payload-offset",
               (uint64_t)luks->payload_offset_sectors * Q2_LUKS_SECTOR);
    put_number(b, object, "master-key-iters", luks->master_key_iterations);
}

static json_t *encryption(struct builder *b, const struct q2_info *info)
{
    json_t *object = json_object();
    if (info->has_luks)
        put_luks(b, object, &info->luks);
    else
        put_text(b, object, "format",
                 info->header.crypt_method == Q2_CRYPT_AES ? "aes" : "luks");
    return object;
}

static json_t *qcow2_data(struct builder *b, const struct q2_info *info)
{
    const struct q2_header *h = &info->header;
    bool v3 = h->version >= 3;
    json_t *data = json_object();
    put_text(b, data, "compat", v3 ? "1.1" : "0.10");
    put_text(b, data, "compression-type",
             h->compression_type == Q2_COMPRESSION_ZSTD ? "zstd" : "zlib");
    if (v3)
        put_bool(b, data, "lazy-refcounts",
                 h->compatible_features & Q2_COMPAT_LAZY_REFCOUNTS);
    if (info->n_bitmaps)
        put_long_list(b, data, "bitmaps",
                      (struct q2_long_list){.each = each_bitmap, .source = info});
    put_number(b, data, "refcount-bits", UINT64_C(1) << h->refcount_order);
    if (h->data_file)
        put_text(b, data, "data-file", h->data_file);
    if (h->crypt_method)
        put(b, data, "encrypt", encryption(b, info));
    if (h->incompatible_features & Q2_INCOMPAT_DATA_FILE)
        put_bool(b, data, "data-file-raw",
                 h->autoclear_features & Q2_AUTOCLEAR_DATA_FILE_RAW);
    if (v3) {
        put_bool(b, data, "corrupt", h->incompatible_features & Q2_INCOMPAT_CORRUPT);
        put_bool(b, data, "extended-l2",
                 h->incompatible_features & Q2_INCOMPAT_EXTENDED_L2);
    }
    return data;
}

static void put_qcow2_tail(struct builder *b, json_t *top, const struct q2_info *info)
{
    json_t *specific = json_object();
    put_text(b, specific, "type", "qcow2");
    put(b, specific, "data", qcow2_data(b, info));
    put(b, top, "format-specific", specific);
    if (info->header.backing_file)
        put_text(b, top, "full-backing-filename", info->full_backing_filename);
    if (info->header.crypt_method)
        put_bool(b, top, "encrypted", true);
    if (info->header.backing_file)
        put_text(b, top, "backing-filename", info->header.backing_file);
}

json_t *q2_info_to_json(const struct q2_info *info, struct q2_long_lists *lists)
{
    struct builder b = {.lists = lists};
    json_t *top = json_object();
    put(&b, top, "children", children(&b, info));
    if (info->header.backing_format)
        put_text(&b, top, "backing-filename-format", info->header.backing_format);
    if (info->n_snapshots)
        put_long_list(&b, top, "snapshots",
                      (struct q2_long_list){.each = each_snapshot, .source = info});
    put_number(&b, top, "virtual-size", info->virtual_size);
    put_text(&b, top, "filename", info->title ? info->title : info->filename);
    if (info->is_qcow2)
        put_number(&b, top, "cluster-size", q2_header_cluster_size(&info->header));
    put_text(&b, top, "format", info->format);
    put_number(&b, top, "actual-size", info->disk_usage);
    if (info->is_qcow2)
        put_qcow2_tail(&b, top, info);
    put_bool(&b, top, "dirty-flag",
             info->header.incompatible_features & Q2_INCOMPAT_DIRTY);
    return finished(&b, top);
}
