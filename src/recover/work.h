// SPDX-License-Identifier: MIT
// What the steps of a recovery share.
#ifndef Q2_RECOVER_WORK_H
#define Q2_RECOVER_WORK_H

#include "base/counters.h"
#include "recover/marks.h"
#include "recover/recover.h"

struct q2_work {
    struct q2_io *io; // the file; once it has been surveyed, the overlay over it
    uint64_t made;    // what is put into the overlay lies behind that
    uint64_t end;     // of it
    const struct q2_recover_options *options;
    struct q2_survey survey;
    struct q2_found found;
    uint8_t first[Q2_HEADER_V3_BYTES]; // of the file, as they stand
    struct q2_hints hints;
    uint64_t *table; // room for one

    uint64_t snapshots_offset; // of the snapshot table
    struct q2_snapshot *snapshots;
    unsigned n_snapshots;

    enum q2_certainty doubt; // as sure as it is at best where file systems begin
    uint64_t disk_size;      // of the guest, by marks far and wide; 0: not known
    uint64_t *l1;            // the new one, host-endian
    uint64_t n_l1;
    bool l1_gone;       // nothing was left of it
    bool *l1_lost;      // else: of its clusters, those whose entries are not known
    uint64_t n_l1_lost; // 0: all are
    struct q2_counters *looked; // clusters in which marks were looked for in this round
    uint64_t n_inflated;        // compressed ones
    uint64_t luks_offset, luks_bytes; // 0: there is none
};

static inline uint64_t q2_work_cluster_size(const struct q2_work *w)
{
    return UINT64_C(1) << w->found.layout.cluster_bits;
}

// log2 of the guest bytes that an L2 table maps.
static inline unsigned q2_work_span_bits(const struct q2_work *w)
{
    const struct q2_layout *l = &w->found.layout;
    return 2 * l->cluster_bits - (l->extended ? 4 : 3);
}

// Is that entry of the active L1 table not known?
static inline bool q2_work_is_lost(const struct q2_work *w, uint64_t index)
{
    uint64_t cluster = index / (q2_work_cluster_size(w) / 8);
    return w->l1_gone || (cluster < w->n_l1_lost && w->l1_lost[cluster]);
}

// May an L2 table be put there?
static inline bool q2_work_is_open_index(const struct q2_work *w, uint64_t index)
{
    return (index >= w->n_l1 || w->l1[index] == 0) && q2_work_is_lost(w, index);
}

// Is any of the L1 table lost?
static inline bool q2_work_has_lost(const struct q2_work *w)
{
    return w->l1_gone || w->n_l1_lost > 0;
}

// May one be put there, or has it been made anew?
static inline bool q2_work_lacks(const struct q2_work *w, uint64_t index)
{
    return q2_work_is_open_index(w, index) ||
           (index < w->n_l1 && (w->l1[index] & Q2_OFFSET_MASK) >= w->made);
}

int q2_work_set_l1(struct q2_work *w, uint64_t index, uint64_t table,
                   struct q2_error *err); // place_marks.c

int q2_work_read(struct q2_work *w, uint64_t offset, struct q2_error *err); // to table

// counts.c: the refcount of the host cluster at offset; UINT64_MAX: not known.
int q2_work_refcount(struct q2_work *w, uint64_t offset, uint64_t *value,
                     struct q2_error *err);

// counts.c: a table that no entry says to be its own, of clusters that are in use just
// once: no L2 table of a sound image, but perhaps one of a bitmap.
int q2_work_is_doubtful(struct q2_work *w, const struct q2_found_table *t, bool *yes,
                        struct q2_error *err);

// snapshots.c: finds the snapshot table.
int q2_work_find_snapshots(struct q2_work *w, struct q2_error *err);
// l1.c: the L1 tables, best first, and of the chosen one the entries.
int q2_work_find_l1s(struct q2_work *w, struct q2_recovery *r, struct q2_error *err);
int q2_work_take_l1(struct q2_work *w, struct q2_recovery *r, struct q2_error *err);
// The new L1 table gets n entries at least.
int q2_work_grow_l1(struct q2_work *w, uint64_t n, struct q2_error *err);
// The zeros of the file that end at offset: where they begin; offset: there are none.
uint64_t q2_work_zeros_before(const struct q2_work *w, uint64_t offset);
// l1_frame.c: where the table begins, whose first clusters may name nothing; and clusters
// of it that were not found, if L2 tables miss them.
int q2_work_complete_l1(struct q2_work *w, struct q2_l1_found *l, struct q2_error *err);
// place.c: L2 tables that no L1 table names, where the L1 table is lost.
int q2_work_place(struct q2_work *w, struct q2_recovery *r, struct q2_error *err);
// read_marks.c: what the guest's data in the range of an L2 table tell, its first n_bytes
// (0: all).
int q2_work_read_marks(struct q2_work *w, struct q2_marks *m, uint64_t table_offset,
                       size_t table, uint64_t n_bytes, struct q2_error *err);
// A cluster that many entries lead to is read once in a round: begins one.
int q2_work_begin_marks(struct q2_work *w, struct q2_error *err);
// Guest data in the range that an L2 table maps; *has: all of it is there.
int q2_work_read_in_table(struct q2_work *w, uint64_t table_offset, uint64_t in_table,
                          void *buf, size_t n_bytes, bool *has, struct q2_error *err);
// The same at an offset of the guest's disk, by the L1 table as far as it is known.
int q2_work_read_guest(struct q2_work *w, uint64_t guest_offset, void *buf,
                       size_t n_bytes, bool *has, struct q2_error *err);
// l1.c: what the active state has behind the end of the file.
int q2_work_count_cut(struct q2_work *w, struct q2_recovery *r, struct q2_error *err);
// luks.c: the image's own LUKS header.
int q2_work_find_luks(struct q2_work *w, struct q2_error *err);
// header.c: the new header, and all that was made, over the file.
int q2_work_write(struct q2_work *w, struct q2_recovery *r, struct q2_error *err);

#endif
