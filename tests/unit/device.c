// SPDX-License-Identifier: MIT
// A new image on a file that keeps its old bytes, as a device does: none of them may be
// taken for the image's.
#include <errno.h>

#include "image/image.h"
#include "io/memory.h"
#include "ops/create.h"
#include "test.h"

#define ROOM ((size_t)1024 * 1024)
#define CLUSTER 512U
#define DISK ((uint64_t)4 * 1024 * 1024)

static uint8_t old_bytes[ROOM];

static struct q2_io *device_open(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *io;
    memset(old_bytes, 0xa5, sizeof(old_bytes));
    if (q2_memory_open("device", old_bytes, sizeof(old_bytes), &io, &err) < 0)
        abort();
    io->sparse_growth = false;
    return io;
}

static struct q2_image *image_new(struct q2_io *io)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_image *img;
    struct q2_header header = {.version = 3,
                               .cluster_bits = 9,
                               .size = DISK,
                               .refcount_order = 4,
                               .header_length = Q2_HEADER_V3_BYTES};
    if (q2_image_new(io, &header, &img, &err) < 0)
        abort();
    img->disk.path = strdup("device");
    return img;
}

static bool all_zero(struct q2_io *io, uint64_t offset, size_t n_bytes)
{
    static uint8_t buf[ROOM];
    struct q2_error err = Q2_ERROR_INIT;
    if (q2_io_read(io, offset, buf, n_bytes, &err) < 0)
        return false;
    for (size_t i = 0; i < n_bytes; i++)
        if (buf[i] != 0)
            return false;
    return true;
}

static void test_tables(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_image *img = image_new(device_open());
    uint8_t data[CLUSTER];
    memset(data, 1, sizeof(data));

    is_int(q2_disk_write(&img->disk, DISK / 2, data, sizeof(data), &err), 0, "a write");
    is_int(q2_create_publish(&img->disk, &err), 0, "published: %s", err.message);
    uint64_t entry = DISK / 2 / q2_image_l2_span(img), l1 = img->header.l1_table_offset;
    ok(all_zero(img->disk.file, l1, (size_t)entry * 8), "the L1 table before its entry");
    ok(!all_zero(img->disk.file, l1 + entry * 8, 8), "its entry");
    ok(all_zero(img->disk.file, l1 + entry * 8 + 8,
                (size_t)(img->l1_size - entry - 1) * 8),
       "the L1 table behind its entry");
    uint64_t n_blocks = 0;
    while (n_blocks < img->refcount_table_size && img->refcount_table[n_blocks] != 0)
        n_blocks++;
    ok(all_zero(img->disk.file, img->header.refcount_table_offset + n_blocks * 8,
                (size_t)(img->refcount_table_size - n_blocks) * 8),
       "the refcount table behind its entries");
    q2_disk_close(&img->disk);
}

int main(void)
{
    test_tables();
    return done_testing();
}
