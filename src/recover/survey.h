// SPDX-License-Identifier: MIT
// One look at a whole file whose header cannot be trusted: where tables may lie, whatever
// the cluster size is.
#ifndef Q2_RECOVER_SURVEY_H
#define Q2_RECOVER_SURVEY_H

#include "base/monitor.h"
#include "io/io.h"

// The unit of the survey: the smallest cluster.
#define Q2_SURVEY_BLOCK 512U
// Entries may lead so many times as far as the file is long: it may have been cut off.
#define Q2_SURVEY_CUT 4U

// What a block could be part of; bits.
enum q2_block_class {
    Q2_BLOCK_PLAIN = 1,    // an L1 table, an L2 table, a refcount table
    Q2_BLOCK_EXTENDED = 2, // an L2 table with subclusters
};

// Blocks side by side that could be parts of tables, with the zeros around them.
struct q2_stretch {
    uint64_t zero_from, start, end, zero_to; // byte offsets
    unsigned classes;
};

// Places of other things that begin with something that can be told.
struct q2_places_found {
    uint64_t *list;
    size_t n, max;
};

static inline uint64_t q2_beyond_limit(uint64_t file_size)
{
    return file_size < INT64_MAX / Q2_SURVEY_CUT ? file_size * Q2_SURVEY_CUT : INT64_MAX;
}

struct q2_survey {
    struct q2_io *io;
    uint64_t file_size;
    uint64_t n_data;         // bytes that are not zeros
    struct q2_stretch *list; // in the order of the file
    size_t n, max;
    // LUKS headers; entries of a snapshot table; headers of images, not at the start.
    struct q2_places_found luks, snapshots, headers;
};

// Reads all data of the file, front to back. limit: entries lead to offsets below it. On
// success the caller clears the survey.
int q2_survey_make(struct q2_survey *s, struct q2_io *io, uint64_t limit,
                   const struct q2_monitor *mon, struct q2_error *err);
void q2_survey_clear(struct q2_survey *s);

// The next cluster at or behind *offset that could be a table as a whole, and is not all
// zeros; false: there is none. index: begins as 0, and belongs to the loop.
bool q2_survey_next(const struct q2_survey *s, unsigned cluster_bits, unsigned class,
                    size_t *index, uint64_t *offset);

#endif
