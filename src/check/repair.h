// SPDX-License-Identifier: MIT
// Repair: the edits are planned and made over an overlay until a scan of it finds nothing
// more; only then are they done to the image, in the same order.
#ifndef Q2_CHECK_REPAIR_H
#define Q2_CHECK_REPAIR_H

#include "check/scan.h"

enum q2_repair_mode {
    Q2_REPAIR_MODE_LEAKS, // touches nothing but leaks
    Q2_REPAIR_MODE_ALL,
    Q2_REPAIR_MODE_BELOW, // as all, but what is in the header is right
};

struct q2_plan {
    struct q2_io *overlay;        // the image as it will be; its log holds the edits
    struct q2_findings healed;    // what the plan heals, in the order of the edits
    uint64_t n_lossy;             // of these: guest data is lost
    struct q2_scan_bounds bounds; // what the edits have put behind the end of the file
    bool header_known;            // nothing in the header is doubted
    bool complete;        // a scan of the overlay finds nothing that could be healed
    bool leaks_kept;      // leaks mode: leaks may be what damaged entries lost; not freed
    struct q2_scan after; // the scan of the overlay
    unsigned n_tables;    // lost L2 tables that were put together
    uint64_t bitmap_bytes; // of new bitmap tables
    uint64_t zero_bytes;   // of L2 tables of zeros that have one owner
    uint64_t shared_zeros; // the place of one that many share, and how many
    unsigned n_shared;
    bool inflate; // try every compressed cluster
    char **names; // of snapshots and bitmaps that findings in healed point to
    size_t n_names, max_names;
};

// Plans the repair of the image in io (read only). clear_features: bits of unknown
// incompatible features that the user wants cleared. inflate: entries of compressed
// clusters that do not inflate are damaged, too. The caller clears the plan on
// success.
int q2_plan_make(struct q2_plan *p, struct q2_io *io, enum q2_repair_mode mode,
                 uint64_t clear_features, bool inflate, const struct q2_monitor *mon,
                 struct q2_error *err);
void q2_plan_clear(struct q2_plan *p);

// True if there is anything to write.
bool q2_plan_has_edits(const struct q2_plan *p);

// Does the edits to io. With undo_path, a file that takes them back is written and
// flushed before the first.
int q2_plan_apply(const struct q2_plan *p, struct q2_io *io, const char *undo_path,
                  struct q2_error *err);

// --- for the planners of this folder ---------------------------------------------------

// Writes into the overlay; *changed is set.
int q2_edit_entry(struct q2_io *overlay, uint64_t host_offset, uint64_t value,
                  struct q2_error *err);
// Room for n clusters behind the end of the file, where no damaged entry that the last
// scan saw leads to.
int q2_plan_place(struct q2_plan *p, uint64_t n_clusters, uint64_t *host_offset,
                  struct q2_error *err);
// The same for a place that was chosen otherwise.
int q2_plan_appended(struct q2_plan *p, uint64_t host_offset, uint64_t n_bytes,
                     struct q2_error *err);
// Puts a cluster there: this content (one cluster long; NULL: zeros).
int q2_edit_append(struct q2_plan *p, const void *content, uint64_t *host_offset,
                   struct q2_error *err);
// Replaces n_bytes of the header's first sector, in one write.
int q2_edit_header(struct q2_io *overlay, size_t at, const void *bytes, size_t n_bytes,
                   struct q2_error *err);

// What the header looks like as it stands.
struct q2_header_view {
    bool usable; // else nothing that follows
    // What it says is the L1 table is none: it lies where others are, or nobody is, and
    // most of its entries make no sense, or it has none while something is missing.
    bool no_l1;
    bool long_l1; // the table has clusters that the disk does not need
    uint64_t n_problems;
};
int q2_header_view(struct q2_header_view *v, struct q2_scan *s, struct q2_error *err);

// Each heals one class of what s found, or nothing (*changed stays).
int q2_heal_header(struct q2_plan *p, const struct q2_header_view *now,
                   const struct q2_monitor *mon, bool *changed, struct q2_error *err);
int q2_heal_snapshots(struct q2_plan *p, struct q2_scan *s, bool *changed,
                      struct q2_error *err);
// The active L1 table reaches behind the end of the file, but the disk does not need that
// part.
int q2_heal_l1_size(struct q2_plan *p, const struct q2_scan *s, bool *changed,
                    struct q2_error *err);
// A table whose end was cut off: the file reaches to its end again, with zeros.
int q2_heal_cut(struct q2_plan *p, const struct q2_scan *s, bool *changed,
                struct q2_error *err);
int q2_heal_l2_cut(struct q2_plan *p, struct q2_scan *s, bool *changed,
                   struct q2_error *err);
// Refcounts of clusters behind the end of the file, that nothing names: they would be
// leaks as soon as the file grows.
int q2_heal_tail(struct q2_plan *p, struct q2_scan *s, struct q2_error *err);
// Entries of one level: of L1 tables, or of L2 tables.
int q2_heal_entries(struct q2_plan *p, struct q2_scan *s, bool l1, bool *changed,
                    struct q2_error *err);
// Before a file that was cut short grows again, entries that lead behind its old end are
// made to lead behind any end. After a power cut in the middle of the repair they would
// seem to be sound.
int q2_mark_cut_off(struct q2_plan *p, const struct q2_scan *s, bool *changed,
                    struct q2_error *err);
int q2_heal_bitmaps(struct q2_plan *p, const struct q2_scan *s, bool *changed,
                    struct q2_error *err);
int q2_heal_refcounts(struct q2_plan *p, struct q2_scan *s, enum q2_repair_mode mode,
                      bool *changed, struct q2_error *err);
int q2_heal_rebuild(struct q2_plan *p, const struct q2_monitor *mon,
                    struct q2_error *err);
// An L2 table that maps its whole range to zeros; *value is the L1 entry for it.
int q2_heal_zero_table(struct q2_plan *p, const struct q2_scan *s, uint64_t *value,
                       struct q2_error *err);
// The L2 table that the L1 entry of f named is lost: as much of it as other states know
// is put together. Not healed: nothing is known.
int q2_heal_lost_table(struct q2_plan *p, struct q2_scan *s, const struct q2_finding *f,
                       bool *healed, struct q2_error *err);
// Notes what f means for the other states that share its table.
int q2_plan_note_sharers(struct q2_plan *p, const struct q2_scan *s,
                         const struct q2_finding *f, struct q2_error *err);
// Notes that the plan heals f.
int q2_plan_note(struct q2_plan *p, const struct q2_finding *f, struct q2_error *err);

#endif
