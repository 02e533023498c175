// SPDX-License-Identifier: MIT
// From what -o says to what the library creates: names become numbers, features that this
// version does not write are refused by name.
#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "cmd/choices.h"
#include "cmd/create_options.h"
#include "cmd/objects.h"

#define SECTOR 512U

static int choose(const char *parameter, const char *text, const struct q2_choice *list,
                  unsigned *value, struct q2_error *err)
{
    const struct q2_choice *c = text ? q2_choice_find(list, text) : NULL;
    if (text && !c)
        return q2_fail(err, -EINVAL, "Parameter '%s' does not accept value '%s'",
                       parameter, text);
    if (c)
        *value = (unsigned)c->value;
    return 0;
}

static int resolve_names(const struct q2_new_image *image, struct q2_create_options *out,
                         struct q2_error *err)
{
    unsigned version = out->version, preallocation = out->preallocation,
             compression = out->compression, ignored = 0;
    int rc =
        choose("version", image->text[Q2_KEY_COMPAT], q2_choices_compat, &version, err);
    if (!rc)
        rc = choose("backing-fmt", image->text[Q2_KEY_BACKING_FORMAT], q2_choices_format,
                    &ignored, err);
    if (!rc)
        rc = choose("preallocation", image->text[Q2_KEY_PREALLOCATION],
                    q2_choices_preallocation, &preallocation, err);
    if (!rc)
        rc = choose("compression-type", image->text[Q2_KEY_COMPRESSION_TYPE],
                    q2_choices_compression, &compression, err);
    out->version = version;
    out->preallocation = (enum q2_preallocation)preallocation;
    out->compression = (enum q2_compression)compression;
    return rc;
}

// What measure looks at, and how QEMU complains there.
static int resolve_measured(const struct q2_new_image *image,
                            struct q2_create_options *out, struct q2_error *err)
{
    const char *version = image->text[Q2_KEY_COMPAT];
    const char *mode = image->text[Q2_KEY_PREALLOCATION];
    unsigned preallocation = out->preallocation, number = out->version;
    if (choose("", version, q2_choices_compat, &number, err))
        return q2_fail(err, -EINVAL, "Invalid compatibility level: '%s'", version);
    if (choose("", mode, q2_choices_preallocation, &preallocation, err))
        return q2_fail(err, -EINVAL, "invalid parameter value: %s", mode);
    out->version = number;
    out->preallocation = (enum q2_preallocation)preallocation;
    return 0;
}

static bool is_on(const struct q2_new_image *image, enum q2_create_key key)
{
    return image->text[key] && image->number[key];
}

static bool is_encrypted(const struct q2_new_image *image)
{
    bool found = is_on(image, Q2_KEY_ENCRYPTION);
    for (int key = Q2_KEY_ENCRYPT_FORMAT; key <= Q2_KEY_ENCRYPT_ITER_TIME; key++)
        found = found || image->text[key];
    return found;
}

static int resolve_encryption(struct q2_new_image *image, struct q2_create_options *out,
                              struct q2_error *err)
{
    char *const *text = image->text;
    bool old = is_on(image, Q2_KEY_ENCRYPTION);
    if (!is_encrypted(image))
        return 0;
    if (old && text[Q2_KEY_ENCRYPT_FORMAT])
        return q2_fail(err, -EINVAL,
                       "'encrypt.format' and its alias 'encryption' can't be used at the "
                       "same time");
    image->encrypt = (struct q2_crypt_options){
        .format = old ? "aes" : text[Q2_KEY_ENCRYPT_FORMAT],
        .key_secret = text[Q2_KEY_ENCRYPT_KEY_SECRET],
        .secrets = q2_object_secrets(),
        .names = {.cipher_alg = text[Q2_KEY_ENCRYPT_CIPHER_ALG],
                  .cipher_mode = text[Q2_KEY_ENCRYPT_CIPHER_MODE],
                  .ivgen_alg = text[Q2_KEY_ENCRYPT_IVGEN_ALG],
                  .ivgen_hash_alg = text[Q2_KEY_ENCRYPT_IVGEN_HASH_ALG],
                  .hash_alg = text[Q2_KEY_ENCRYPT_HASH_ALG]},
        .set_iter_time = text[Q2_KEY_ENCRYPT_ITER_TIME] != NULL,
        .iter_time = image->number[Q2_KEY_ENCRYPT_ITER_TIME],
    };
    out->encrypt = &image->encrypt;
    return 0;
}

// The guest sees whole sectors: a size between two of them is rounded up.
static int resolve_size(const struct q2_new_image *image, uint64_t *size,
                        struct q2_error *err)
{
    uint64_t given = image->number[Q2_KEY_SIZE];
    if (given > INT64_MAX - (SECTOR - 1))
        return q2_fail(err, -ERANGE, "Image size must be at most %llu bytes",
                       (unsigned long long)(INT64_MAX - (SECTOR - 1)));
    *size = q2_align_up(given, SECTOR);
    return 0;
}

int q2_new_image_resolve(struct q2_new_image *image, struct q2_create_options *out,
                         struct q2_error *err)
{
    *out = (struct q2_create_options)Q2_CREATE_DEFAULTS;
    out->format = image->format;
    out->backing_file = image->text[Q2_KEY_BACKING_FILE];
    out->backing_format = image->text[Q2_KEY_BACKING_FORMAT];
    if (image->text[Q2_KEY_CLUSTER_SIZE])
        out->cluster_size = image->number[Q2_KEY_CLUSTER_SIZE];
    if (image->text[Q2_KEY_REFCOUNT_BITS])
        out->refcount_bits = image->number[Q2_KEY_REFCOUNT_BITS];
    out->lazy_refcounts = image->number[Q2_KEY_LAZY_REFCOUNTS];
    out->extended_l2 = image->number[Q2_KEY_EXTENDED_L2];
    out->data_file = image->text[Q2_KEY_DATA_FILE];
    out->data_file_raw = image->number[Q2_KEY_DATA_FILE_RAW];
    out->nocow = image->number[Q2_KEY_NOCOW];

    int rc = resolve_size(image, &out->size, err);
    if (!rc)
        rc = resolve_encryption(image, out, err);
    if (rc)
        return rc;
    return image->measures ? resolve_measured(image, out, err)
                           : resolve_names(image, out, err);
}
