// SPDX-License-Identifier: MIT
// The refcount table grows with some room to spare, and up to the format's limit.
#include <errno.h>

#include "image/image.h"
#include "io/memory.h"
#include "test.h"

#define LIMIT (Q2_MAX_REFCOUNT_TABLE_BYTES / 8)

static struct q2_image *image_new(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *io;
    struct q2_image *img;
    struct q2_header header = {.version = 3,
                               .cluster_bits = 9,
                               .size = 1024 * 1024,
                               .refcount_order = 6,
                               .header_length = Q2_HEADER_V3_BYTES};
    if (q2_memory_open("memory", NULL, 0, &io, &err) < 0 ||
        q2_image_new(io, &header, &img, &err) < 0)
        abort();
    img->disk.path = strdup("memory");
    return img;
}

// Asks for the block of table entry index.
static int ask_for(uint64_t index, uint64_t *n_entries, struct q2_error *err)
{
    struct q2_image *img = image_new();
    uint64_t cluster = index << q2_refcount_block_bits(img);
    int ret = q2_refcount_add_block(img, cluster, err);
    *n_entries = img->refcount_table_size;
    q2_disk_close(&img->disk);
    return ret;
}

int main(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    uint64_t n;

    is_int(ask_for(1000, &n, &err), 0, "entry 1000");
    ok(n >= 1500, "room to spare: %" PRIu64 " entries", n);
    is_int(ask_for(LIMIT * 3 / 4, &n, &err), 0, "three quarters of the limit: %s",
           err.message);
    is_u64(n, LIMIT, "as large as it may be");
    is_int(ask_for(LIMIT, &n, &err), -EFBIG, "one entry too many");
    has_str(err.message, "8388608", "the limit is named");
    return done_testing();
}
