// SPDX-License-Identifier: MIT
// Committing: a conversion of what lies above base into base, then top is emptied.
//
// While it runs, top reads as ever: what is written to base is what the layers above have
// allocated, and they hide it. So a power cut leaves a top that reads right.
#include "ops/commit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/chain.h"
#include "image/image.h"
#include "image/open.h"
#include "image/resize.h"
#include "ops/convert.h"
#include "ops/open_rw.h"
#include "ops/resize.h"

#define SPARSE_GRAIN 4096U

static int copy_down(struct q2_disk *top, struct q2_disk *base,
                     const struct q2_commit_options *options,
                     const struct q2_monitor *mon, struct q2_error *err)
{
    const struct q2_convert_options copy = {
        .above = base,
        .sparse_grain = SPARSE_GRAIN,
        .rate_limit = options->rate_limit,
    };
    int ret = 0;
    if (base->size < top->size)
        ret = q2_resize(base, top->size, Q2_PREALLOC_OFF, NULL, err);
    if (ret == 0)
        ret = q2_convert(&top, 1, base, &copy, mon, err);
    return ret == 0 ? q2_disk_finish(base, err) : ret;
}

// Nothing leads into the data file any more.
static int give_back_data(struct q2_disk *top, struct q2_error *err)
{
    uint64_t size;
    if (top->data == top->file)
        return 0;
    int ret = q2_io_get_size(top->data, &size, err);
    return ret < 0 ? ret : q2_io_discard(top->data, 0, size, err);
}

static int make_empty(struct q2_disk *top, struct q2_error *err)
{
    struct q2_image *img = q2_image_of(top);
    int ret = q2_image_unmap_behind(img, 0, err);
    if (ret == 0)
        ret = q2_disk_flush(top, err);
    if (ret == 0)
        ret = q2_image_cut_file(img, err);
    if (ret == 0)
        ret = give_back_data(top, err);
    return ret == 0 ? q2_disk_finish(top, err) : ret;
}

int q2_commit(struct q2_disk *top, struct q2_disk *base,
              const struct q2_commit_options *options, const struct q2_monitor *mon,
              struct q2_error *err)
{
    if (!options->keep && base != top->backing)
        return q2_fail(err, -EINVAL, "Only what the backing file holds can be dropped");
    int ret = copy_down(top, base, options, mon, err);
    if (ret < 0 || options->keep)
        return ret;
    return make_empty(top, err);
}
