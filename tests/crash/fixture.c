// SPDX-License-Identifier: MIT
// Images in memory: from files, or made here.
#include "tests/crash/fixture.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "image/crypt.h"
#include "image/data_file.h"
#include "image/open.h"
#include "image/raw.h"
#include "io/file.h"
#include "io/memory.h"
#include "ops/create.h"
#include "ops/preallocate.h"
#include "tests/crash/slice.h"

_Noreturn void give_up(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(2);
}

static struct q2_io *load_file(const char *path)
{
    struct q2_error err = Q2_ERROR_INIT;
    const struct q2_file_options options = {.lock = Q2_LOCK_NONE};
    struct q2_io *file, *memory;
    uint64_t size;
    if (q2_file_open(path, &options, &file, &err) < 0 ||
        q2_io_get_size(file, &size, &err) < 0)
        give_up("%s", err.message);
    size_t n = q2_to_size(size);
    void *buf = malloc(n > 0 ? n : 1);
    if (!buf || q2_io_read(file, 0, buf, n, &err) < 0 ||
        q2_memory_open(path, buf, n, &memory, &err) < 0)
        give_up("%s: %s", path, err.message);
    free(buf);
    q2_io_close(file);
    return memory;
}

static void load_backing(struct fixture *f, const char *path)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_image *img;
    char *name = NULL;
    if (q2_image_open(f->memory, false, true, &img, &err) < 0)
        give_up("%s: %s", path, err.message);
    if (img->header.backing_file &&
        q2_backing_path(path, img->header.backing_file, &name, &err) < 0)
        give_up("%s: %s", path, err.message);
    img->disk.ops->release(&img->disk);
    if (name)
        f->backing = load_file(name);
    free(name);
}

static void put_fault_over(struct fixture *f, size_t max_record)
{
    struct q2_error err = Q2_ERROR_INIT;
    if (q2_fault_open(f->memory, max_record, &f->fault, &err) < 0)
        give_up("%s: %s", f->name, err.message);
}

void fixture_load(struct fixture *f, const char *path, size_t max_record)
{
    const char *slash = strrchr(path, '/');
    *f = (struct fixture){.memory = load_file(path)};
    snprintf(f->name, sizeof(f->name), "%s", slash ? slash + 1 : path);
    load_backing(f, path);
    put_fault_over(f, max_record);
}

// Every sector of it is told from every other.
static struct q2_io *make_backing(size_t n_bytes)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *io;
    uint64_t *words = malloc(n_bytes);
    if (!words)
        give_up("no memory");
    for (size_t i = 0; i < n_bytes / 8; i++)
        words[i] = UINT64_C(0xbac0000000000001) + i / 64 * 65536;
    if (q2_memory_open("base", words, n_bytes, &io, &err) < 0)
        give_up("%s", err.message);
    free(words);
    return io;
}

// The passphrase of all encrypted images here.
static const struct q2_secrets *the_secrets(void)
{
    static struct q2_secrets *secrets;
    struct q2_error err = Q2_ERROR_INIT;
    if (!secrets && (q2_secrets_new(&secrets, &err) < 0 ||
                     q2_secrets_add(secrets, "key", "passw0rd", 8, &err) < 0))
        give_up("%s", err.message);
    return secrets;
}

const struct q2_crypt_options *fixture_encryption(struct fixture *f,
                                                  const struct recipe *r)
{
    static struct q2_crypt_options o;
    bool luks = r->encryption == Q2_CRYPT_LUKS;
    if (r->encryption == Q2_CRYPT_NONE)
        return NULL;
    o = (struct q2_crypt_options){.format = luks ? "luks" : "aes",
                                  .key_secret = "key",
                                  .secrets = the_secrets(),
                                  .set_iter_time = luks};
    if (luks) // the shortest key, as it is derived many times over
        o.names = (struct q2_crypt_names){
            .cipher_alg = "aes-128", .cipher_mode = "cbc", .hash_alg = "sha1"};
    f->runtime.secrets = o.secrets;
    f->runtime.encrypt_key_secret = o.key_secret;
    return &o;
}

// Behind all metadata that an image here will ever have.
#define DATA_FILE_AT (UINT64_C(1) << 20)

struct q2_io *fixture_data_file(struct q2_io *io)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *data;
    if (slice_open(io, DATA_FILE_AT, &data, &err) < 0)
        give_up("%s", err.message);
    return data;
}

static int attach_data_file(struct q2_image *img, struct q2_error *err)
{
    if (!q2_image_has_data_file(img))
        return 0;
    img->disk.data = fixture_data_file(img->disk.file);
    img->disk.file->sparse_growth =
        false; // as on a device, its end is not its own to cut
    return img->unpublished ? q2_data_file_set_size(img, img->disk.size, err) : 0;
}

static void make_image(struct fixture *f, const struct recipe *r)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_image *img;
    struct q2_header header = {
        .version = r->version,
        .cluster_bits = r->cluster_bits,
        .size = r->size,
        .refcount_order = r->refcount_order,
        .header_length = r->version == 2 ? Q2_HEADER_V2_BYTES : Q2_HEADER_V3_BYTES,
        .incompatible_features = r->extended_l2 ? Q2_INCOMPAT_EXTENDED_L2 : 0,
        .compatible_features = r->lazy_refcounts ? Q2_COMPAT_LAZY_REFCOUNTS : 0,
        .backing_file = r->backing ? strdup("base") : NULL,
        .backing_format = r->backing ? strdup("raw") : NULL,
        .data_file = r->data_file ? strdup("data") : NULL,
    };
    if (r->data_file)
        header.incompatible_features |= Q2_INCOMPAT_DATA_FILE;
    if (r->data_file_raw)
        header.autoclear_features |= Q2_AUTOCLEAR_DATA_FILE_RAW;
    const struct q2_crypt_options *crypt = fixture_encryption(f, r);
    if (crypt)
        q2_crypt_announce(crypt, &header);
    if (q2_memory_open("image", NULL, 0, &f->memory, &err) < 0 ||
        q2_image_new(f->memory, &header, &img, &err) < 0 ||
        (crypt && q2_crypt_make(img, crypt, &err) < 0))
        give_up("%s: %s", f->name, err.message);
    img->disk.path = strdup("image");
    if (attach_data_file(img, &err) < 0 ||
        (r->data_file_raw &&
         q2_preallocate(&img->disk, Q2_PREALLOC_METADATA, NULL, &err) < 0))
        give_up("%s: %s", f->name, err.message);
    if (q2_create_publish(&img->disk, &err) < 0)
        give_up("%s: %s", f->name, err.message);
    fixture_close(img);
}

void fixture_make(struct fixture *f, const struct recipe *r, size_t max_record)
{
    *f = (struct fixture){0};
    snprintf(f->name, sizeof(f->name),
             "v%u, clusters of %u, refcounts of %u bits%s%s%s%s%s", (unsigned)r->version,
             1U << r->cluster_bits, 1U << r->refcount_order,
             r->extended_l2 ? ", subclusters" : "", r->lazy_refcounts ? ", lazy" : "",
             r->backing ? ", backing file" : "",
             r->data_file_raw ? ", raw data file"
             : r->data_file   ? ", data file"
                              : "",
             r->encryption == Q2_CRYPT_LUKS  ? ", LUKS"
             : r->encryption == Q2_CRYPT_AES ? ", AES"
                                             : "");
    if (r->backing)
        f->backing = make_backing((size_t)(r->size / 4 * 3));
    make_image(f, r);
    put_fault_over(f, max_record);
}

void fixture_choose_runtime(struct fixture *f, unsigned number)
{
    struct q2_runtime *r = &f->runtime;
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_image *img;
    if (q2_image_open(f->memory, false, true, &img, &err) < 0)
        give_up("%s: %s", f->name, err.message);
    bool v3 = img->header.version >= 3;
    img->disk.ops->release(&img->disk);
    if (number & 1) // tables go from memory in the middle of things
        r->l2_cache_size = r->refcount_cache_size = 1;
    if (number & 2) // what becomes free is punched out of the file
        r->discard_unmap = true;
    if (number & 4)
        r->pass_discard_other = Q2_ON;
    if (v3 && (number & 24) == 24)
        r->discard_no_unref = true;
    if (v3 && number & 32)
        r->lazy_refcounts = Q2_ON;
    if (number & 64)
        r->overlap_check_set = true, r->overlap_check = Q2_OVERLAP_ALL;
    if ((number & 24) == 8)
        r->detect_zeroes = true;
    if (number == 0)
        return;
    size_t used = strlen(f->name);
    snprintf(f->name + used, sizeof(f->name) - used, ", run-time options %u", number);
}

void fixture_clear(struct fixture *f)
{
    q2_io_close(f->fault);
    q2_io_close(f->memory);
    q2_io_close(f->backing);
}

void save_bytes(const char *path, const void *bytes, size_t n_bytes)
{
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(bytes, 1, n_bytes, file) != n_bytes || fclose(file) != 0)
        give_up("cannot write %s", path);
}

static void save_io(struct q2_io *io, const char *path)
{
    struct q2_error err = Q2_ERROR_INIT;
    uint64_t size;
    void *buf = NULL;
    if (q2_io_get_size(io, &size, &err) == 0)
        buf = malloc(size > 0 ? q2_to_size(size) : 1);
    if (!buf || q2_io_read(io, 0, buf, (size_t)size, &err) < 0)
        give_up("%s: %s", path, err.message);
    save_bytes(path, buf, (size_t)size);
    free(buf);
}

void fixture_save(const struct fixture *f, struct q2_io *image, const char *path)
{
    const char *slash = strrchr(path, '/');
    char base[4096];
    save_io(image, path);
    if (!f->backing || strcmp(f->backing->name, "base") != 0)
        return;
    snprintf(base, sizeof(base), "%.*sbase", slash ? (int)(slash + 1 - path) : 0, path);
    save_io(f->backing, base);
}

static int attach_backing(const struct fixture *f, struct q2_image *img,
                          struct q2_error *err)
{
    if (!f->backing)
        return 0;
    int ret = q2_raw_open(f->backing, false, &img->disk.backing, err);
    if (ret == 0)
        img->disk.backing->path = strdup("base");
    return ret;
}

int fixture_open(const struct fixture *f, struct q2_io *io, bool writable,
                 struct q2_image **out, struct q2_error *err)
{
    struct q2_image *img;
    int ret = q2_image_open(io, writable, false, &img, err);
    if (ret < 0)
        return ret;
    img->disk.path = strdup("image");
    ret = q2_image_configure(img, &f->runtime, err);
    if (ret == 0)
        ret = q2_crypt_unlock(img, &f->runtime, err);
    if (ret == 0)
        ret = attach_backing(f, img, err);
    if (ret == 0)
        ret = attach_data_file(img, err);
    if (ret < 0)
        fixture_close(img);
    else
        *out = img;
    return ret;
}

void fixture_close(struct q2_image *img)
{
    struct q2_disk *backing = img->disk.backing;
    q2_disk_drop(&img->disk);
    if (backing)
        q2_disk_drop(backing);
}
