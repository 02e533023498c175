// SPDX-License-Identifier: MIT
// The LUKS header of an encrypted image.
#include "disk/luks.h"
#include "base/checked.h"
#include "recover/work.h"

// Where the mapping leads, no LUKS header of the image lies: it would be the guest's own.
static int is_mapped(struct q2_work *w, uint64_t offset, bool *yes, struct q2_error *err)
{
    const struct q2_layout *l = &w->found.layout;
    uint64_t cluster = q2_align_down(offset, q2_work_cluster_size(w));
    int ret = 0;
    *yes = false;
    for (size_t i = 0; i < w->found.n && ret == 0 && !*yes; i++) {
        const struct q2_found_table *t = &w->found.list[i];
        if (t->is_l1 || t->counts || t->stale)
            continue;
        ret = q2_work_read(w, t->offset, err);
        for (size_t k = 0; k < q2_layout_entries(l) && ret == 0 && !*yes; k++) {
            struct q2_reading e = q2_layout_judge(l, w->survey.file_size, w->table, k);
            *yes = e.kind == Q2_READS_PLACE && e.offset == cluster;
        }
    }
    return ret;
}

int q2_work_find_luks(struct q2_work *w, struct q2_error *err)
{
    uint8_t buf[Q2_LUKS_HEADER_BYTES];
    int ret = 0;
    for (size_t i = 0; i < w->survey.luks.n && w->luks_offset == 0 && ret == 0; i++) {
        uint64_t offset = w->survey.luks.list[i];
        struct q2_error why = Q2_ERROR_INIT;
        struct q2_luks_header luks;
        bool mapped;
        if (!q2_is_aligned(offset, q2_work_cluster_size(w)) || offset == 0)
            continue;
        ret = q2_io_read(w->io, offset, buf, sizeof(buf), err);
        if (ret < 0 || q2_luks_decode(buf, sizeof(buf), &luks, &why) < 0)
            continue;
        ret = is_mapped(w, offset, &mapped, err);
        if (ret == 0 && !mapped) {
            w->luks_offset = offset;
            w->luks_bytes = (uint64_t)luks.payload_offset_sectors * Q2_LUKS_SECTOR;
        }
    }
    return ret;
}
