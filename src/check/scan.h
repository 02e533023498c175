// SPDX-License-Identifier: MIT
// One scan of an image: every reference counted, every problem found. A scan never
// writes.
#ifndef Q2_CHECK_SCAN_H
#define Q2_CHECK_SCAN_H

#include "base/counters.h"
#include "base/monitor.h"
#include "check/finding.h"
#include "disk/entry.h"
#include "disk/header.h"
#include "disk/refcount.h"
#include "disk/snapshot.h"
#include "image/cache.h"
#include "io/io.h"

// Findings that one scan keeps; further ones are counted only. Repair scans again after
// it has healed these.
#define Q2_MAX_FINDINGS 65536U

struct q2_findings {
    struct q2_finding *list;
    size_t n, max;
};

// An L1 table: [0] is the active one, then one for each snapshot.
struct q2_scan_l1 {
    int snapshot; // index in the snapshot table; -1: active
    const char *name;
    uint64_t offset;
    uint32_t n_entries;
    uint64_t *entries; // host-endian; NULL: could not be used
    uint64_t disk_size;
};

// An L2 entry as it stands; bitmap: the second word of an extended one, else 0.
struct q2_l2_words {
    uint64_t entry, bitmap;
};

// A damaged entry whose right value is looked for when all references are known.
struct q2_suspect {
    size_t finding; // index in findings; SIZE_MAX when that one was not kept
    bool is_l1;
    uint64_t entry, bitmap; // of an L1 table: without a bitmap
    uint64_t guest_offset;
    bool hollow; // it stands in an L2 table that has no sound entry
};

// An entry that names a cluster which more entries name than its refcount says.
struct q2_referrer {
    bool is_l1;
    int snapshot;
    const char *name;                      // of the snapshot
    uint64_t index, entry, previous, next; // raw entries; 0 where there is none
    uint64_t bitmap;                       // of the entry, if it is an extended one
    uint64_t host_offset;                  // of the entry itself
    uint64_t guest_offset;
    uint64_t times; // states that share the table it stands in
};

// Compressed data: where a cluster's begins, how long it is.
struct q2_stream {
    uint64_t offset, n_bytes;
};
#define Q2_MAX_UNNAMED 8U

// Refcounts are looked at in stretches of this many bytes.
#define Q2_SCAN_STRETCH 512U

// What a repair has put behind the end of the file: nothing else there counts as being in
// the file, so that entries that lead there are not taken for sound ones.
struct q2_scan_bounds {
    uint64_t file_size, file_clusters; // before the repair
    struct q2_counters *appended;      // by host cluster
};

// How often, and by whom, an L2 table is named; l1 and index are the first place.
struct q2_scan_link {
    const struct q2_scan_l1 *l1;
    uint64_t index;
    uint64_t times;        // by all states
    uint64_t active_times; // by the active state
};
#define Q2_MAX_EMPTY 16U

struct q2_scan_uses; // uses.h

struct q2_scan {
    struct q2_io *io;
    const struct q2_scan_bounds *bounds; // NULL: all of the file counts
    const struct q2_monitor *mon;
    const struct q2_scan_data *read_data; // NULL: no data is read
    struct q2_scan_uses *uses;            // NULL: nobody asks
    bool keep_packed; // some that do not inflate stay as they are: only their data is
                      // broken
    bool inflate;     // try all compressed clusters: some entry leads astray
    uint64_t enough;  // so many corruptions end the scan; 0: none do
    bool no_hollow_tables;   // an L2 table without a sound entry is none
    uint64_t hollow_entries; // in use, in L2 tables that have no sound one

    uint64_t file_size, file_clusters;
    struct q2_header header;
    unsigned cluster_bits, l2_bits;
    uint32_t cluster_size;
    unsigned l2_words;  // 64-bit words of an L2 entry: 2 if extended
    bool extended;      // the image has extended L2 entries
    bool zero_flag;     // bit 0 of an L2 entry says that it reads as zeros
    bool data_file;     // guest data lie in another file, at their guest offsets
    struct q2_io *data; // where guest data are; NULL: not known
    const struct q2_refcount_format *format;
    uint8_t ones[Q2_SCAN_STRETCH]; // counts that are 1

    uint64_t *refcount_table; // entries as they stand; NULL when it could not be read
    uint64_t refcount_table_size;
    struct q2_cache *blocks;
    uint64_t n_block_reads;
    bool rebuild; // the refcount structures cannot be mended in place
    // Refcount structures on which an entry of the mapping landed although they make
    // sense: the entry is wrong. The scan begins again with these claimed before the
    // mapping.
    uint64_t *preclaimed;
    size_t n_preclaimed, max_preclaimed;
    // Where a snapshot's L1 table should be, and an active entry says it is an L2 table:
    // one of both is wrong. 0: none.
    uint64_t contested;
    unsigned disbelieved; // 1 + the index of a snapshot whose L1 table is not looked at
    // Clusters named too often: the scan begins again and collects who names them.
    struct q2_counters *hunted;
    struct q2_referrer *referrers;
    size_t n_referrers, max_referrers;
    bool again;

    struct q2_snapshot *snapshots;
    uint64_t *snapshot_offsets; // of the entries, in the file
    unsigned n_snapshots;
    unsigned n_mended; // entries of the table that were tried with other lengths
    uint64_t snapshot_table_bytes;

    struct q2_scan_l1 *l1s;
    unsigned n_l1s;
    uint64_t l1_bytes_read; // of snapshots

    char **bitmap_names; // that findings point to
    size_t n_bitmap_names, max_bitmap_names;
    bool luks_lost; // where the LUKS header should be, none begins

    struct q2_counters *references; // by host cluster
    struct q2_counters *metadata;   // by host cluster: how often metadata lies there
    struct q2_counters *tables;     // by host cluster: L2 tables among the metadata
    struct q2_counters *dangling;   // by host cluster behind the end of the file, near to
                                    // it: references

    struct q2_findings findings;
    struct q2_findings late; // COPIED flags: reported behind the refcounts
    struct q2_suspect *suspects;
    size_t n_suspects, max_suspects;
    // L2 tables that hold nothing; the first of them.
    struct q2_scan_link empty[Q2_MAX_EMPTY];
    unsigned n_empty;
    // Clusters with a refcount and no reference, the first Q2_MAX_ORPHANS of them.
    uint64_t *orphans;
    size_t n_orphans, max_orphans;
    bool too_many_orphans;

    struct q2_stream *streams; // of sound entries, when all compressed data was tried
    size_t n_streams, max_streams;
    struct q2_stream unnamed[Q2_MAX_UNNAMED]; // the first of those that nobody names
    unsigned n_unnamed;
    uint64_t searched_bytes; // in search of them

    // Bytes looked at, and to be looked at, of tables and of data; for progress.
    uint64_t work, work_total, data_left;

    uint64_t corruptions, leaks, check_errors;
    // References that leaked clusters' refcounts count and nobody has; of these, those of
    // clusters that others name; and references that refcounts do not count: these are no
    // evidence then.
    uint64_t surplus, shared_surplus, deficit;
    uint64_t total_clusters, allocated_clusters, fragmented_clusters, compressed_clusters;
    uint64_t n_packed;        // compressed clusters of all states
    uint64_t highest_cluster; // in use by refcount or reference
};

#define Q2_MAX_ORPHANS 65536U

// All data is to be read, too.
struct q2_scan_data {
    struct q2_io *file; // of an image with an external data file; NULL: it is not read
};

// Scans the image in io; data NULL: its metadata. On success the caller clears the scan;
// on failure (the header cannot be used, memory, I/O) it is cleared.
int q2_scan_run(struct q2_scan *s, struct q2_io *io, const struct q2_scan_data *data,
                const struct q2_monitor *mon, struct q2_error *err);
// The metadata, and what the active state uses.
int q2_scan_run_uses(struct q2_scan *s, struct q2_io *io, struct q2_scan_uses *uses,
                     const struct q2_monitor *mon, struct q2_error *err);
// As q2_scan_run, but so many corruptions end the scan, with -EUCLEAN.
int q2_scan_run_until(struct q2_scan *s, struct q2_io *io,
                      const struct q2_scan_data *data, uint64_t enough,
                      const struct q2_monitor *mon, struct q2_error *err);
// The header alone. The caller clears it.
int q2_scan_header(struct q2_io *io, struct q2_header *header, struct q2_error *err);
// The same, and when anything is wrong (or with inflate) every compressed cluster is
// tried.
int q2_scan_for_repair(struct q2_scan *s, struct q2_io *io,
                       const struct q2_scan_bounds *bounds, bool inflate,
                       const struct q2_monitor *mon, struct q2_error *err);
void q2_scan_clear(struct q2_scan *s);

// Gives memory back; totals, the header and nothing else stay.
void q2_scan_shrink(struct q2_scan *s);

// Counts the references of everything but the refcount structures, for building these
// anew.
int q2_scan_references(struct q2_scan *s, struct q2_io *io,
                       const struct q2_scan_bounds *bounds, const struct q2_monitor *mon,
                       struct q2_error *err);

// L2 tables without a sound entry are there, and more is lost than they could name: they
// are no L2 tables.
static inline bool q2_scan_hollow(const struct q2_scan *s)
{
    return s->hollow_entries > 0 && s->leaks > s->hollow_entries;
}

// Nothing left to heal.
static inline bool q2_scan_clean(const struct q2_scan *s)
{
    return s->corruptions == 0 && s->leaks == 0;
}

// --- for the scanners of this folder ---------------------------------------------------

// A table may map more than the disk has: that is nobody's data, and no part of the range
// of f. (How big the disk was at a snapshot is not known everywhere.)
void q2_scan_end_with_disk(const struct q2_scan *s, struct q2_finding *f);

// Keeps a finding and counts it. Returns its index, SIZE_MAX when it is not kept.
size_t q2_scan_report(struct q2_scan *s, struct q2_findings *to,
                      const struct q2_finding *f);

// Are as many kept as there may be, of findings and of suspects?
static inline bool q2_scan_is_full(const struct q2_scan *s)
{
    return s->findings.n >= Q2_MAX_FINDINGS && s->n_suspects >= Q2_MAX_FINDINGS;
}

// So many clusters behind twice the file a cut-off entry may lead.
#define Q2_NEAR_CLUSTERS 65536U
// The value of an entry whose target was cut off, as a repair leaves it for a moment.
static inline uint64_t q2_scan_cut_mark(uint32_t cluster_size)
{
    return Q2_OFFSET_MASK & ~(uint64_t)(cluster_size - 1);
}
// Where the file ended, as far as what lies at offset is concerned: what a repair has put
// behind the old end does not make whole what it divided.
uint64_t q2_scan_end(const struct q2_scan *s, uint64_t offset);
// Notes that something names this range although it is not in the file.
int q2_scan_dangles(struct q2_scan *s, uint64_t offset, uint64_t n_bytes,
                    struct q2_error *err);
// Counts references to the host range; false (and a finding is due) when it reaches
// beyond the end of the file by a cluster or more.
bool q2_scan_in_file(const struct q2_scan *s, uint64_t offset, uint64_t n_bytes);
int q2_scan_reference(struct q2_scan *s, uint64_t offset, uint64_t n_bytes,
                      uint64_t times, struct q2_error *err);
// The same for metadata, which owns its clusters alone.
int q2_scan_claim(struct q2_scan *s, uint64_t offset, uint64_t n_bytes,
                  struct q2_error *err);
// Does metadata lie anywhere in the range?
bool q2_scan_is_metadata(const struct q2_scan *s, uint64_t offset, uint64_t n_bytes);

// Some of the work is done: tells the monitor, and fails when it was told to stop, or
// when enough was found.
int q2_scan_worked(struct q2_scan *s, uint64_t n_bytes, struct q2_error *err);

// The stored refcount of a cluster.
int q2_scan_stored(struct q2_scan *s, uint64_t cluster, uint64_t *value,
                   struct q2_error *err);
// The block that describes cluster; NULL where there is none that can be used.
int q2_scan_block(struct q2_scan *s, uint64_t cluster, struct q2_table **out,
                  struct q2_error *err);

// Lets the scan begin again with this cluster claimed before the mapping.
int q2_scan_preclaim(struct q2_scan *s, uint64_t cluster, struct q2_error *err);
bool q2_scan_is_preclaimed(const struct q2_scan *s, uint64_t offset);
// What is wrong with an L1 entry; Q2_N_PROBLEMS if nothing.
enum q2_problem q2_scan_judge_l1(const struct q2_scan *s, uint64_t entry);
// Claims the cluster of an L2 table, once.
int q2_scan_claim_table(struct q2_scan *s, uint64_t l2_offset, struct q2_error *err);
// Counts a region that the header names, or reports that it is not in the file.
int q2_scan_region(struct q2_scan *s, uint64_t offset, uint64_t n_bytes,
                   struct q2_error *err);

int q2_scan_active(struct q2_scan *s, struct q2_error *err);          // scan_tables.c
int q2_scan_snapshot_tables(struct q2_scan *s, struct q2_error *err); // scan_tables.c
int q2_scan_snapshots(struct q2_scan *s, struct q2_error *err);       // scan_snapshots.c
int q2_scan_mapping(struct q2_scan *s, struct q2_error *err);         // scan_mapping.c
int q2_scan_crypto(struct q2_scan *s, struct q2_error *err);          // scan_crypto.c
int q2_scan_bitmaps(struct q2_scan *s, struct q2_error *err);         // scan_bitmaps.c
// Where the last data of a region of the file ends, the holes behind it left out: memory
// follows what is there, not what is claimed.
int q2_scan_data_end(struct q2_scan *s, uint64_t offset, uint64_t n_bytes, uint64_t *end,
                     struct q2_error *err);

void q2_scan_note_empty(struct q2_scan *s, const struct q2_scan_link *link); // sharing.c
// Finds those that held what other states share.
int q2_scan_find_wiped(struct q2_scan *s, struct q2_error *err);
int q2_scan_l2_table(struct q2_scan *s, const struct q2_scan_link *link,
                     const uint64_t *l2, struct q2_error *err); // scan_l2.c
int q2_scan_load_refcount_table(struct q2_scan *s, struct q2_error *err);
int q2_scan_refcount_table(struct q2_scan *s, struct q2_error *err); // scan_refcounts.c
int q2_scan_compare(struct q2_scan *s, struct q2_error *err);        // scan_refcounts.c
int q2_scan_hunt(struct q2_scan *s, struct q2_error *err);           // misdirected.c
int q2_scan_referrer(struct q2_scan *s, const struct q2_referrer *r,
                     struct q2_error *err);
int q2_scan_hunted_packed(struct q2_scan *s, const struct q2_l2_entry *e,
                          struct q2_error *err);
int q2_scan_misdirected(struct q2_scan *s, struct q2_error *err);
// True when the host cluster at offset is hunted.
static inline bool q2_scan_hunts(const struct q2_scan *s, uint64_t offset)
{
    return s->hunted && q2_counters_get(s->hunted, offset >> s->cluster_bits) > 0;
}
// Are n stored refcounts from a cluster on 1, in one block? "no" may be wrong.
int q2_scan_stored_ones(struct q2_scan *s, uint64_t cluster, uint64_t n, bool *yes,
                        struct q2_error *err);
// Those from count i on of a block.
bool q2_scan_are_ones(const struct q2_scan *s, const struct q2_table *t, uint64_t i,
                      uint64_t n);
// Is the cluster in use by its refcount, and by nothing that was found? suspects.c
int q2_scan_is_orphan(struct q2_scan *s, uint64_t offset, uint64_t *stored, bool *yes,
                      struct q2_error *err);
int q2_scan_inflates(struct q2_scan *s, const struct q2_l2_entry *e, bool *yes,
                     struct q2_error *err);
// Does it read like an L2 table whose clusters are orphans, too? With an external data
// file: like the one that maps guest_offset.
int q2_scan_reads_like_l2(struct q2_scan *s, uint64_t offset, uint64_t guest_offset,
                          bool *yes, struct q2_error *err);
int q2_scan_resolve(struct q2_scan *s, struct q2_error *err); // suspects.c

// An entry that says nothing at all: the table's place was cut off.
static inline bool q2_scan_is_blank(const struct q2_snapshot *sn)
{
    return sn->l1_table_offset == 0 && !*sn->id && !*sn->name;
}

// --- lost_l1.c ---

// Puts the size of a snapshot's L1 table right, and reports it, where the disk's size
// says another one. usable: the table can be read as it is.
int q2_scan_mend_l1_size(struct q2_scan *s, unsigned index, bool usable,
                         struct q2_error *err);
// Looks for L1 tables of snapshots among the orphans.
int q2_scan_find_l1s(struct q2_scan *s, struct q2_error *err);

// --- mend_snapshots.c ---

// Does the entry have the id and the name of a snapshot that a program made?
bool q2_scan_plausible_strings(const struct q2_snapshot *sn);

// What makes sense of a snapshot table entry.
struct q2_mended {
    const char *field; // NULL: no length is wrong, but the id or the name
    unsigned at;       // of the field in the entry
    uint64_t value, wanted;
    uint8_t bytes[8]; // for the eight bytes that the field is in
};
// The entry at offset, n_left to go with itself, makes no sense: would it with one length
// changed?
int q2_scan_mend_entry(struct q2_scan *s, uint64_t offset, unsigned n_left,
                       struct q2_mended *m, bool *mended, struct q2_error *err);

// --- packed.c ---

// How long the compressed cluster at offset is; 0: there is none.
int q2_scan_measure(struct q2_scan *s, uint64_t offset, size_t *n_bytes,
                    struct q2_error *err);
// Does the compressed data at offset go on behind the end of the file?
int q2_scan_is_cut(struct q2_scan *s, uint64_t offset, bool *yes, struct q2_error *err);
// Remembers the data of a sound entry.
int q2_scan_note_stream(struct q2_scan *s, uint64_t offset, uint64_t n_bytes,
                        struct q2_error *err);
// Looks for compressed data that nobody names, by the refcounts.
int q2_scan_find_unnamed(struct q2_scan *s, struct q2_error *err);
// Does such data begin in the cluster at offset?
bool q2_scan_begins_unnamed(const struct q2_scan *s, uint64_t offset);

// --- sharing.c: what other states name at the same place of the guest's disk, and what
// one more entry could name by the refcounts ---

#define Q2_MAX_VALUES 4U
struct q2_values {
    uint64_t list[Q2_MAX_VALUES]; // entries without the COPIED flag, all different
    unsigned n;
};
// Are all clusters of the range named less often than their refcounts say?
int q2_scan_has_surplus(struct q2_scan *s, uint64_t offset, uint64_t n_bytes, bool *yes,
                        struct q2_error *err);
// Values for the L1 or L2 entry at entry_offset.
int q2_scan_shared_l1(struct q2_scan *s, uint64_t entry_offset, uint64_t guest_offset,
                      struct q2_values *v, struct q2_error *err);
int q2_scan_shared_l2(struct q2_scan *s, uint64_t entry_offset, uint64_t guest_offset,
                      struct q2_values *v, struct q2_error *err);
// Counts what an entry of this value would reference, and says whether all that is
// counted there could be missing references.
int q2_scan_claim_value(struct q2_scan *s, struct q2_counters *claims, uint64_t value,
                        struct q2_error *err);
int q2_scan_claim_fits(struct q2_scan *s, struct q2_counters *claims, uint64_t value,
                       bool *fits, struct q2_error *err);
// Has the L2 table an entry in common with another state's table for this place?
int q2_scan_is_kin(struct q2_scan *s, uint64_t table, uint64_t guest_offset, bool *yes,
                   struct q2_error *err);
// Entries for a whole L2 table (out: as many as it has), by other tables than own; 0
// where nothing is known.
int q2_scan_shared_table(struct q2_scan *s, uint64_t guest_offset, uint64_t own,
                         struct q2_l2_words *out, uint64_t *n_found,
                         struct q2_error *err);
// Makes room for one more item in a list; *list may move.
int q2_scan_grow(void **list, size_t *max, size_t n, size_t item, struct q2_error *err);
int q2_scan_suspect(struct q2_scan *s, const struct q2_suspect *suspect,
                    struct q2_error *err);

#endif
