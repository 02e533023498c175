// SPDX-License-Identifier: MIT
// One window of a disk on its way through convert.
#ifndef Q2_OPS_CONVERT_WINDOW_H
#define Q2_OPS_CONVERT_WINDOW_H

#include <pthread.h>
#include <stdatomic.h>

#include "image/codec.h"
#include "ops/convert.h"

// What all windows of a conversion share.
struct q2_convert_job {
    struct q2_disk *const *sources;
    unsigned n_sources;
    struct q2_disk *target;
    const struct q2_convert_options *options;
    const struct q2_monitor *mon;
    uint64_t size;                // of the sources together
    bool counted;                 // n_data is known
    uint64_t n_data;              // bytes that are to be copied
    size_t window_bytes;          // a multiple of every cluster size
    atomic_bool *offload_failed;  // ranges cannot be copied from file to file
    pthread_mutex_t *report_lock; // the monitor is called by one thread at a time
};

enum q2_segment_kind {
    Q2_SEGMENT_SKIP, // the target's backing file has it
    Q2_SEGMENT_ZERO,
    Q2_SEGMENT_DATA,
};

// A part of a window, of one kind.
struct q2_segment {
    enum q2_segment_kind kind;
    size_t start, n_bytes; // in the window
};

// Data that has its place and is to be written.
struct q2_placed {
    struct q2_write write;
    const uint8_t *data;
};

struct q2_window {
    uint64_t ticket;
    uint64_t start, n_bytes; // guest range; longer than window_bytes only when it is
                             // of one kind and nothing is to be read
    bool uniform;            // all of it is of kind
    enum q2_segment_kind kind;
    uint64_t n_data; // bytes to be copied, for the rate limit

    bool unread;     // its data is copied from file to file, buf is for what cannot be
    uint8_t *buf;    // window_bytes; what is no data in it is zeros
    uint8_t *packed; // compressed clusters, one behind the other
    size_t *packed_bytes; // by cluster: 0: plain
    struct q2_compressor *compressor;
    struct q2_segment *segments;
    size_t n_segments, max_segments;
    struct q2_placed *placed;
    size_t n_placed, max_placed;
};

// A speed limit; kept by whoever has the turn.
struct q2_rate {
    uint64_t bytes_per_second; // 0: none
    uint64_t n_bytes;
    int64_t started_ns;
};

// Sleeps until n_bytes more may be copied. -ECANCELED when it is stopped meanwhile.
int q2_rate_wait(struct q2_rate *rate, uint64_t n_bytes, const struct q2_monitor *mon,
                 struct q2_error *err);

// Memory for windows of this job. clear after a failed init, too.
int q2_window_init(const struct q2_convert_job *job, struct q2_window *w,
                   struct q2_error *err);
void q2_window_clear(struct q2_window *w);

// Decides how far the window at start reaches. Sets start and n_bytes even when it fails.
int q2_window_plan(const struct q2_convert_job *job, uint64_t start, struct q2_window *w,
                   struct q2_error *err);
// Reads it, finds the zeros, compresses. Any order, any thread.
int q2_window_read(const struct q2_convert_job *job, struct q2_window *w,
                   struct q2_error *err);
// Gives it a place in the target; in guest order.
int q2_window_place(const struct q2_convert_job *job, struct q2_window *w,
                    struct q2_error *err);
// Writes what was placed. Any order, any thread.
int q2_window_write(const struct q2_convert_job *job, struct q2_window *w,
                    struct q2_error *err);

#endif
