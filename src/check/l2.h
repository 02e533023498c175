// SPDX-License-Identifier: MIT
// L2 entries as they stand in the tables of the image under scan: one word, or two where
// entries are extended.
#ifndef Q2_CHECK_L2_H
#define Q2_CHECK_L2_H

#include "check/scan.h"
#include "disk/subcluster.h"

// The bitmap of a cluster all of which is stored, and of one that reads as zeros.
#define Q2_BITMAP_STORED ((uint64_t)UINT32_MAX)
#define Q2_BITMAP_ZEROS (Q2_BITMAP_STORED << Q2_SUBCLUSTERS)

static inline struct q2_l2_words q2_scan_words(const struct q2_scan *s,
                                               const uint64_t *table, uint64_t index)
{
    return s->extended ? (struct q2_l2_words){table[index * 2], table[index * 2 + 1]}
                       : (struct q2_l2_words){table[index], 0};
}

static inline void q2_scan_set_words(const struct q2_scan *s, uint64_t *table,
                                     uint64_t index, struct q2_l2_words w)
{
    table[index * s->l2_words] = w.entry;
    if (s->extended)
        table[index * 2 + 1] = w.bitmap;
}

static inline bool q2_words_empty(struct q2_l2_words w)
{
    return w.entry == 0 && w.bitmap == 0;
}

// Bytes that n entries take.
static inline uint64_t q2_scan_l2_bytes(const struct q2_scan *s, uint64_t n)
{
    return n * s->l2_words * 8;
}

// Guest bytes that one L2 table maps.
static inline uint64_t q2_scan_span(const struct q2_scan *s)
{
    return UINT64_C(1) << (s->l2_bits + s->cluster_bits);
}

// The data file is right wherever it is read, without looking at any table.
static inline bool q2_scan_is_raw(const struct q2_scan *s)
{
    return s->data_file &&
           (s->header.autoclear_features & Q2_AUTOCLEAR_DATA_FILE_RAW) != 0;
}

// Bits of a standard entry that must be zero.
static inline uint64_t q2_scan_l2_reserved(const struct q2_scan *s)
{
    return Q2_L2_RESERVED | (s->zero_flag ? 0 : Q2_FLAG_ZERO);
}

// The first word alone: what it says of subclusters is in the second one.
static inline struct q2_l2_entry q2_scan_decode(const struct q2_scan *s, uint64_t entry)
{
    struct q2_l2_entry e = q2_l2_decode(entry, s->cluster_bits, s->zero_flag ? 3 : 2);
    // In a data file, 0 is an offset like any other.
    if (s->data_file && e.kind != Q2_CLUSTER_COMPRESSED && e.copied && !e.has_cluster) {
        e.has_cluster = true;
        e.kind =
            e.kind == Q2_CLUSTER_ZERO ? Q2_CLUSTER_ZERO_ALLOCATED : Q2_CLUSTER_NORMAL;
    }
    return e;
}

// Does the entry name a place for data?
static inline bool q2_entry_names(const struct q2_l2_entry *e)
{
    return e->has_cluster || e->kind == Q2_CLUSTER_COMPRESSED;
}

// --- judge_l2.c ---

// What is wrong with the entry that maps guest_offset; Q2_N_PROBLEMS if nothing.
enum q2_problem q2_scan_judge_l2(const struct q2_scan *s, struct q2_l2_words w,
                                 uint64_t guest_offset, struct q2_l2_entry *e);

// How the entries of a table, or of a sector of it, look.
struct q2_l2_health {
    uint64_t n_used, n_bad, n_nonsense;
};

// Are n entries from first on plain clusters one behind the other, all of them with
// COPIED or none, and nothing wrong with any? So most data lies; "no" may be wrong.
bool q2_scan_is_run(const struct q2_scan *s, const uint64_t *l2, uint64_t first,
                    uint64_t n);

// n entries of a table, from first on; guest_offset is that of the table.
struct q2_l2_health q2_scan_health(const struct q2_scan *s, const uint64_t *l2,
                                   uint64_t first, uint64_t n, uint64_t guest_offset);
bool q2_l2_is_garbage(const struct q2_l2_health *h);
// An entry of an image with a data file: what it should say is known. hollow: no entry of
// its table is sound.
void q2_scan_heal_external(const struct q2_scan *s, bool hollow, struct q2_finding *f);

// --- values ---

// What reads as zeros where w did not show a backing file.
static inline struct q2_l2_words q2_scan_zeros(const struct q2_scan *s,
                                               struct q2_l2_words w)
{
    uint64_t bits = w.bitmap ? w.bitmap << Q2_SUBCLUSTERS | w.bitmap : Q2_BITMAP_ZEROS;
    if (s->extended)
        return (struct q2_l2_words){0, bits & Q2_BITMAP_ZEROS};
    return (struct q2_l2_words){s->zero_flag ? Q2_FLAG_ZERO : 0, 0};
}

// The entry of a cluster in an external data file, all of which is there.
static inline struct q2_l2_words q2_scan_external(const struct q2_scan *s,
                                                  uint64_t guest_offset)
{
    return (struct q2_l2_words){guest_offset | Q2_FLAG_COPIED,
                                s->extended ? Q2_BITMAP_STORED : 0};
}

#endif
