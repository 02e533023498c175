// SPDX-License-Identifier: MIT
// The snapshot table (qcow2 format: "Snapshots").
#ifndef Q2_DISK_SNAPSHOT_H
#define Q2_DISK_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define Q2_MAX_SNAPSHOT_EXTRA_BYTES 1024U

struct q2_snapshot {
    uint64_t l1_table_offset;
    uint32_t l1_size; // entries
    char *id;         // NUL-terminated, owned
    char *name;       // NUL-terminated, owned
    uint32_t date_sec;
    uint32_t date_nsec;
    uint64_t vm_clock_nsec;
    uint64_t vm_state_size; // from the extra data when it is there, else the 32-bit field
    bool has_disk_size;     // extra data reach to it; else disk_size is the image's own
    uint64_t disk_size;
    bool has_icount;
    uint64_t icount; // UINT64_MAX: not known
    // Extra data beyond what is known above, kept byte for byte; owned.
    uint8_t *unknown_extra;
    uint32_t unknown_extra_bytes;
};

// Decodes the entry at the start of buf. index is for messages. Sets *used to its length
// with padding. Returns -ENODATA when n_bytes end before the entry does (read more and
// call again, if there is more), -EINVAL on nonsense. *out is set only on success.
int q2_snapshot_decode(const void *buf, size_t n_bytes, unsigned index,
                       struct q2_snapshot *out, size_t *used, struct q2_error *err);

// Bytes that q2_snapshot_encode writes, padding included.
size_t q2_snapshot_bytes(const struct q2_snapshot *s);
void q2_snapshot_encode(const struct q2_snapshot *s, void *buf);

void q2_snapshot_clear(struct q2_snapshot *s);

#endif
