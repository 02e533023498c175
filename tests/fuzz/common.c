// SPDX-License-Identifier: MIT
// Images of any bytes, opened.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/secret.h"
#include "image/crypt.h"
#include "image/metadata.h"
#include "io/memory.h"
#include "tests/fuzz/fuzz.h"

#define PASSPHRASE "fuzz"
#define MAX_ITERATIONS 2000U
#define DATA_FILE_BYTES 65536U

void fuzz_broken(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fputs("BROKEN: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
    abort();
}

void fuzz_give_up(const char *what)
{
    fprintf(stderr, "fuzz: %s\n", what);
    exit(2);
}

struct q2_io *fuzz_file(const uint8_t *data, size_t n_bytes)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *io;
    if (q2_memory_open("image", data, n_bytes, &io, &err) < 0)
        fuzz_give_up(err.message);
    return io;
}

const struct q2_secrets *fuzz_secrets(void)
{
    static struct q2_secrets *secrets; // for as long as we live
    struct q2_error err = Q2_ERROR_INIT;
    if (!secrets &&
        (q2_secrets_new(&secrets, &err) < 0 ||
         q2_secrets_add(secrets, "old", PASSPHRASE, strlen(PASSPHRASE), &err) < 0 ||
         q2_secrets_add(secrets, "new", "new one", 7, &err) < 0))
        fuzz_give_up(err.message);
    return secrets;
}

// Iterations are what the header says, and the user has to wait for them.
static bool is_quick(const struct q2_image *img)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_luks_header luks;
    uint8_t buf[Q2_LUKS_HEADER_BYTES];
    if (img->header.crypt_method != Q2_CRYPT_LUKS)
        return true;
    if (q2_io_read(img->disk.file, img->header.crypto_header_offset, buf, sizeof(buf),
                   &err) < 0 ||
        q2_luks_decode(buf, sizeof(buf), &luks, &err) < 0)
        return true;
    uint64_t sum = luks.master_key_iterations;
    for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++)
        sum += luks.slots[i].active ? luks.slots[i].iterations : 0;
    return sum <= (uint64_t)MAX_ITERATIONS * (Q2_LUKS_SLOTS + 1);
}

static int unlock(struct q2_image *img, struct q2_error *err)
{
    const struct q2_runtime runtime = {.secrets = fuzz_secrets(),
                                       .encrypt_key_secret = "old"};
    if (!is_quick(img))
        return q2_fail(err, -1, "too many iterations");
    return q2_crypt_unlock(img, &runtime, err);
}

// The same one each time.
static int attach_data_file(struct q2_image *img, struct q2_error *err)
{
    static uint8_t content[DATA_FILE_BYTES];
    if (!q2_image_has_data_file(img))
        return 0;
    for (size_t i = 0; i < sizeof(content); i++)
        content[i] = (uint8_t)(i % 251);
    return q2_memory_open("data", content, sizeof(content), &img->disk.data, err);
}

struct q2_image *fuzz_open(struct q2_io *io, enum fuzz_mode mode)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_image *img;
    bool guest_data = mode == FUZZ_READ || mode == FUZZ_WRITE;
    bool writable = mode >= FUZZ_METADATA;
    int ret = q2_image_open(io, writable, true, &img, &err);
    if (ret < 0)
        return NULL;
    img->disk.path = strdup("image");
    if (guest_data || mode == FUZZ_KEYS)
        ret = unlock(img, &err);
    if (ret == 0 && mode != FUZZ_DESCRIPTION)
        ret = q2_image_load_metadata(img, &err);
    if (ret == 0 && guest_data)
        ret = attach_data_file(img, &err);
    if (ret == 0)
        return img;
    fuzz_close(img);
    return NULL;
}

void fuzz_close(struct q2_image *img)
{
    q2_disk_drop(&img->disk);
}
