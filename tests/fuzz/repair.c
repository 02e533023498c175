// SPDX-License-Identifier: MIT
// Target: repair. What it claims to have healed is healed, and what is lost was told.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "image/metadata.h"
#include "ops/check.h"
#include "tests/fuzz/fuzz.h"

// Where the plan heals something, guest data may be others than before: lost, or no
// longer those of another cluster.
struct losses {
    struct q2_finding *list;
    size_t n;
    bool all; // more is healed than ranges: a field of the header
};

// Of a table that makes no sense the parts that are lost are told; in between is what
// other states know, in place of what was read.
static struct q2_finding whole_of(const struct q2_finding *f, const struct q2_scan *s)
{
    struct q2_finding whole = *f;
    uint64_t span = UINT64_C(1) << (s->l2_bits + s->cluster_bits);
    whole.guest_offset = q2_align_down(f->guest_offset, span);
    whole.guest_bytes = span;
    return whole;
}

static void note_losses(void *opaque, const struct q2_plan *plan,
                        const struct q2_check_edits *edits)
{
    struct losses *l = opaque;
    (void)edits;
    l->list = calloc(plan->healed.n + 1, sizeof(*l->list));
    if (!l->list)
        fuzz_give_up("no memory");
    for (size_t i = 0; i < plan->healed.n; i++) {
        const struct q2_finding *f = &plan->healed.list[i];
        if (f->has & Q2_HAS_GUEST)
            l->list[l->n++] =
                f->problem == Q2_PROBLEM_L2_GARBAGE ? whole_of(f, &plan->after) : *f;
        else
            l->all |= f->lossy || f->field;
    }
}

static bool is_told(const void *opaque, unsigned state, const struct fuzz_block *b)
{
    const struct losses *l = opaque;
    for (size_t i = 0; i < l->n; i++) {
        const struct q2_finding *f = &l->list[i];
        // States share tables; who else loses something is told, who wins it is not.
        bool here =
            !f->lossy || !(f->has & Q2_HAS_SNAPSHOT) || f->snapshot + 1 == (int)state;
        if (here && f->guest_offset < b->guest_offset + b->n_bytes &&
            f->guest_offset + f->guest_bytes > b->guest_offset)
            return true;
    }
    return l->all;
}

// Without its LUKS header nothing of an image is of use, and nothing is changed. An L1
// table that the header looks for behind the end of the file may stay a problem, which is
// told.
static bool is_lost(const struct q2_scan *s)
{
    bool lost = false;
    for (size_t i = 0; i < s->findings.n; i++) {
        const struct q2_finding *f = &s->findings.list[i];
        lost |= f->problem == Q2_PROBLEM_LUKS_HEADER ||
                (f->problem == Q2_PROBLEM_REFERENCE_OUTSIDE &&
                 f->offset == s->header.l1_table_offset && f->offset >= s->file_size);
    }
    return lost;
}

static void require_healed(struct q2_io *io, const struct q2_check_report *report)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_check_request r = {.format = "qcow2"};
    struct q2_check_report again;
    char text[Q2_FINDING_TEXT_MAX] = "";
    if (q2_check_file(io, &r, NULL, &again, &err) < 0)
        fuzz_broken("cannot be checked after its repair: %s", err.message);
    for (size_t i = 0; i < again.scan.findings.n; i++) {
        const struct q2_finding *f = &again.scan.findings.list[i];
        q2_finding_format(f, "ERROR", text);
        if (q2_problem_info(f->problem)->repair != Q2_REPAIR_NONE &&
            !is_lost(&again.scan))
            fuzz_broken("repaired, but: %s", text);
    }
    if (again.scan.corruptions != report->scan.corruptions ||
        again.scan.leaks != report->scan.leaks)
        fuzz_broken("the check after the repair says something else than the next one");
    q2_check_clear(&again);
}

// A sound image can be opened, unless it is of a kind that we do not write.
static void require_open(struct q2_io *io, const struct q2_check_report *report)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_image *img;
    if (!q2_scan_clean(&report->scan))
        return;
    if (q2_image_open(io, false, false, &img, &err) < 0)
        fuzz_broken("sound, but cannot be opened: %s", err.message);
    img->disk.ops->release(&img->disk);
}

void fuzz_target_repair(const uint8_t *data, size_t n_bytes)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *io = fuzz_file(data, n_bytes);
    struct fuzz_content *before = fuzz_content_read(io);
    struct losses losses = {.list = NULL};
    const struct q2_check_request r = {.format = "qcow2",
                                       .repair = true,
                                       .mode = Q2_REPAIR_MODE_ALL,
                                       .planned = note_losses,
                                       .opaque = &losses};
    struct q2_check_report report;
    char why[512];
    if (q2_check_file(io, &r, NULL, &report, &err) == 0) {
        const struct fuzz_excuse excuse = {is_told, &losses};
        require_healed(io, &report);
        require_open(io, &report);
        if (!fuzz_content_same(io, before, &excuse, why))
            fuzz_broken("lost by the repair, and not told: %s", why);
        q2_check_clear(&report);
    }
    free(losses.list);
    fuzz_content_free(before);
    q2_io_close(io);
}
