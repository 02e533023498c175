// SPDX-License-Identifier: MIT
// The longer steps of amend. All with the image's lock held and nothing waiting to be
// written.
#ifndef Q2_OPS_AMEND_STEPS_H
#define Q2_OPS_AMEND_STEPS_H

#include "base/monitor.h"
#include "image/image.h"
#include "ops/amend.h"

// --- amend_keys.c --------------------------------------------------------------------

// What speaks against it, and which key slots are meant (bits).
int q2_amend_judge_keys(struct q2_image *img, const struct q2_amend_keys *k,
                        unsigned *slots, struct q2_error *err);
int q2_amend_change_keys(struct q2_image *img, const struct q2_amend_keys *k,
                         unsigned slots, struct q2_error *err);

// --- amend_refcounts.c ---------------------------------------------------------------

// Refuses (-EINVAL) if a count does not fit in entries of 1 << order bits.
int q2_amend_fit_refcounts(struct q2_image *img, unsigned order, struct q2_error *err);
int q2_amend_refcount_width(struct q2_image *img, unsigned order,
                            const struct q2_monitor *mon, struct q2_error *err);

// --- amend_tables.c: all L2 tables, of the active state and of every snapshot --------

struct q2_amend_tables {
    struct q2_image *img;
    uint64_t *offsets; // sorted; each table once
    size_t n, max;
};

// The caller clears it, also after a failure.
int q2_amend_find_tables(struct q2_image *img, struct q2_amend_tables *tables,
                         struct q2_error *err);
void q2_amend_clear_tables(struct q2_amend_tables *tables);

// What is done to tables that were read in one go: n of them, big-endian, one behind the
// other, the first at host_offset.
struct q2_amend_visitor {
    int (*visit)(void *opaque, uint64_t host_offset, const uint8_t *tables, size_t n,
                 struct q2_error *err);
    void *opaque;
    const struct q2_monitor *mon;
};
int q2_amend_visit_tables(const struct q2_amend_tables *tables,
                          const struct q2_amend_visitor *visitor, struct q2_error *err);

// --- amend_zeroes.c ------------------------------------------------------------------

// Is there an entry of which any of the bits in set are set, and none of those in clear?
int q2_amend_has_entry(const struct q2_amend_tables *tables, uint64_t set, uint64_t clear,
                       bool *found, struct q2_error *err);
// Does away with zero clusters, which version 2 does not know.
int q2_amend_expand_zeroes(const struct q2_amend_tables *tables,
                           const struct q2_monitor *mon, struct q2_error *err);

#endif
