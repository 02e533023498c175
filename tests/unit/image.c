// SPDX-License-Identifier: MIT
// Writes to an open image: what goes where, and in which order.
#include <errno.h>

#include "image/image.h"
#include "io/memory.h"
#include "io/overlay.h"
#include "ops/create.h"
#include "test.h"

#define CLUSTER 512U
#define N_CLUSTERS 64U

static struct q2_image *image_new(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *io;
    struct q2_image *img;
    struct q2_header header = {.version = 3,
                               .cluster_bits = 9,
                               .size = N_CLUSTERS * CLUSTER,
                               .refcount_order = 4,
                               .header_length = Q2_HEADER_V3_BYTES};
    if (q2_memory_open("memory", NULL, 0, &io, &err) < 0 ||
        q2_image_new(io, &header, &img, &err) < 0)
        abort();
    img->disk.path = strdup("memory");
    return img;
}

static int write_packed(struct q2_disk *d, uint64_t guest_offset, struct q2_write *w,
                        struct q2_error *err)
{
    uint8_t packed[100];
    memset(packed, 0xee, sizeof(packed));
    int ret = d->ops->write_begin_compressed(d, guest_offset, sizeof(packed), w, err);
    if (ret == 0)
        ret = q2_disk_write_data(d, w, packed, 0, err);
    return ret < 0 ? ret : d->ops->write_finish(d, w, err);
}

static bool reads_as(struct q2_disk *d, uint64_t guest_offset, uint8_t value)
{
    struct q2_error err = Q2_ERROR_INIT;
    uint8_t buf[CLUSTER];
    if (q2_disk_read(d, guest_offset, buf, sizeof(buf), &err) < 0)
        return false;
    for (size_t i = 0; i < sizeof(buf); i++)
        if (buf[i] != value)
            return false;
    return true;
}

// A cluster of compressed data is freed and taken for something else: the next compressed
// data must not go behind what was there.
static void test_packed_cluster_freed(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_image *img = image_new();
    struct q2_disk *d = &img->disk;
    struct q2_write first, second;
    uint8_t data[CLUSTER];
    memset(data, 0x55, sizeof(data));

    is_int(write_packed(d, 0, &first, &err), 0, "compressed");
    is_int(q2_disk_write_zeroes(d, 0, CLUSTER, Q2_ZERO_UNMAP, &err), 0, "given back");
    is_int(q2_disk_flush(d, &err), 0, "flushed: %s", err.message);
    is_int(q2_disk_write(d, CLUSTER, data, sizeof(data), &err), 0, "plain");
    is_int(write_packed(d, 2 * CLUSTER, &second, &err), 0, "compressed again");
    ok(second.host_offset / CLUSTER != first.host_offset / CLUSTER,
       "in a cluster of its own");
    ok(reads_as(d, CLUSTER, 0x55), "the plain data is whole");
    q2_disk_close(d);
}

// Unknown autoclear bits go first, in one small write, and are gone for certain.
static void test_autoclear(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_image *img = image_new(), *again;
    struct q2_io *overlay;
    size_t n;
    img->header.autoclear_features = UINT64_C(1) << 40;
    is_int(q2_create_publish(&img->disk, &err), 0, "made");
    if (q2_overlay_open(img->disk.file, &overlay, &err) < 0)
        abort();
    is_int(q2_image_open(overlay, true, false, &again, &err), 0, "opened for writing: %s",
           err.message);
    is_u64(again->header.autoclear_features, 0, "the bit is gone");
    const struct q2_overlay_entry *log = q2_overlay_log(overlay, &n);
    ok(n == 2 && log[0].kind == Q2_OVERLAY_WRITE && log[0].offset == 88 &&
           log[0].n_bytes == 8,
       "one write, of the field alone");
    ok(n == 2 && log[1].kind == Q2_OVERLAY_FLUSH, "and a flush");
    q2_disk_close(&again->disk);
    q2_disk_close(&img->disk);
}

int main(void)
{
    test_packed_cluster_freed();
    test_autoclear();
    return done_testing();
}
