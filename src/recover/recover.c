// SPDX-License-Identifier: MIT
// The steps of a recovery.
#include "recover/recover.h"

#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "disk/snapshot.h"
#include "io/overlay.h"
#include "recover/work.h"

void q2_recover_clear(struct q2_recovery *r)
{
    q2_io_close(r->image);
    q2_header_clear(&r->header);
    free(r->l1s);
    free(r->placed);
    free(r->remade);
    q2_found_clear(&r->found);
    *r = (struct q2_recovery){0};
}

static void clear_work(struct q2_work *w)
{
    q2_survey_clear(&w->survey);
    for (unsigned i = 0; i < w->n_snapshots; i++)
        q2_snapshot_clear(&w->snapshots[i]);
    free(w->snapshots);
    free(w->table);
    free(w->l1);
    free(w->l1_lost);
    q2_counters_free(w->looked);
}

// A few words of a large file may look like a table, of whatever it is. More speaks for
// one: the COPIED flag, compressed clusters that inflate, refcounts, a header, or tables
// that lead to much of the file.
#define MIN_COPIED 4U
#define MIN_SHARE 64U

static bool is_image(const struct q2_work *w)
{
    const struct q2_layout *l = &w->found.layout;
    uint64_t n_copied = 0;
    bool counts = false;
    for (size_t i = 0; i < w->found.n; i++) {
        n_copied += w->found.list[i].n_copied;
        counts |= w->found.list[i].counts;
    }
    return w->hints.has_magic || w->options->cluster_bits > 0 || l->data_size > 0 ||
           l->has_compressed || counts || n_copied >= MIN_COPIED ||
           l->covered >= w->survey.n_data / MIN_SHARE;
}

// f: what was found; NULL: nothing.
static int look_within(const struct q2_work *w, const struct q2_found *f,
                       struct q2_error *err)
{
    uint64_t offset = 0;
    if (w->hints.has_magic || w->options->cluster_bits > 0)
        return 0;
    int ret = q2_found_within(&w->survey, f, &offset, err);
    if (ret == 0 && offset > 0)
        ret = q2_fail(
            err, -ENOTSUP,
            "'%s' holds an image that begins at offset %llu, and must be copied "
            "to a file of its own (as by tail -c +%llu)",
            w->io->name, (unsigned long long)offset, (unsigned long long)offset + 1);
    return ret;
}

static int look(struct q2_work *w, const struct q2_monitor *mon, struct q2_error *err)
{
    struct q2_layout layout = {0};
    uint64_t file_size;
    int ret = q2_io_get_size(w->io, &file_size, err);
    if (ret == 0)
        ret = q2_io_read(w->io, 0, w->first, sizeof(w->first), err);
    if (ret < 0)
        return ret;
    q2_hints_read(w->first, file_size, &w->hints);
    if (w->hints.has_features && (w->hints.features & Q2_INCOMPAT_DATA_FILE) &&
        !w->options->data_file)
        return q2_fail(err, -ENOTSUP,
                       "'%s' has an external data file: say which, by --data-file",
                       w->io->name);
    const struct q2_layout given = {.cluster_bits = w->options->cluster_bits,
                                    .data_size = w->options->data_size};
    ret = q2_survey_make(&w->survey, w->io, q2_max_u64(file_size, given.data_size), mon,
                         err);
    if (ret == 0)
        ret = q2_layout_find(&w->survey, &w->hints, &given, &layout, err);
    if (ret == -ENOENT) {
        int within = look_within(w, NULL, err);
        return within < 0 ? within : ret;
    }
    if (ret == 0)
        ret = q2_found_collect(&w->survey, &layout, &w->found, err);
    if (ret == 0)
        ret = look_within(w, &w->found, err);
    if (ret == 0 && !is_image(w))
        ret = q2_layout_fail(w->io, err);
    return ret;
}

static int assemble(struct q2_work *w, struct q2_recovery *r, struct q2_error *err)
{
    size_t n_bytes = (size_t)q2_work_cluster_size(w);
    w->table = malloc(n_bytes);
    int ret = w->table ? 0 : q2_fail_memory(err, n_bytes);
    if (ret == 0)
        ret = q2_overlay_open(w->io, &r->image, err);
    if (ret < 0)
        return ret;
    w->io = r->image;
    w->made = q2_max_u64(w->survey.file_size, w->found.beyond_end);
    w->made = w->end = q2_align_up(w->made, n_bytes);
    if (ret == 0)
        ret = q2_work_find_snapshots(w, err);
    if (ret == 0)
        ret = q2_work_find_luks(w, err);
    if (ret == 0)
        ret = q2_work_find_l1s(w, r, err);
    if (ret == 0)
        ret = q2_work_take_l1(w, r, err);
    if (ret == 0)
        ret = q2_work_place(w, r, err);
    if (ret == 0)
        ret = q2_work_count_cut(w, r, err);
    if (ret == 0)
        ret = q2_work_write(w, r, err);
    return ret;
}

int q2_recover_make(struct q2_io *io, const struct q2_recover_options *options,
                    const struct q2_monitor *mon, struct q2_recovery *out,
                    struct q2_error *err)
{
    struct q2_work w = {.io = io, .options = options};
    *out = (struct q2_recovery){0};
    int ret = look(&w, mon, err);
    if (ret == 0)
        ret = assemble(&w, out, err);
    out->layout = w.found.layout;
    out->hints = w.hints;
    for (size_t i = 0; i < w.found.n; i++) {
        out->n_l1_tables += w.found.list[i].is_l1;
        out->n_tables += !w.found.list[i].is_l1 && !w.found.list[i].counts;
    }
    const struct q2_found_table *t = q2_found_counts(&w.found, &w.hints);
    if (t)
        out->counts = q2_found_counts_place(&w.found, t, w.survey.file_size);
    out->found = w.found;
    clear_work(&w);
    if (ret < 0)
        q2_recover_clear(out);
    return ret;
}
