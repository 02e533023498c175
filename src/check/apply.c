// SPDX-License-Identifier: MIT
// Doing a plan to the image.
#include <errno.h>

#include "check/repair.h"
#include "check/undo.h"
#include "io/overlay.h"

static int apply_entry(struct q2_io *io, const struct q2_overlay_entry *e,
                       struct q2_error *err)
{
    switch (e->kind) {
    case Q2_OVERLAY_WRITE:
        return q2_io_write(io, e->offset, e->data, e->n_bytes, err);
    case Q2_OVERLAY_FLUSH:
        return q2_io_flush(io, err);
    case Q2_OVERLAY_SET_SIZE:
        return q2_io_set_size(io, e->offset, err);
    }
    return q2_fail(err, -EINVAL, "unknown edit %d", (int)e->kind);
}

int q2_plan_apply(const struct q2_plan *p, struct q2_io *io, const char *undo_path,
                  struct q2_error *err)
{
    size_t n;
    const struct q2_overlay_entry *log = q2_overlay_log(p->overlay, &n);
    int ret = undo_path ? q2_undo_save(undo_path, io, p->overlay, err) : 0;
    for (size_t i = 0; i < n && ret == 0; i++)
        ret = apply_entry(io, &log[i], err);
    return ret < 0 ? ret : q2_io_flush(io, err);
}
