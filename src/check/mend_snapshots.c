// SPDX-License-Identifier: MIT
// Snapshot table entries one field of which is wrong. Entries have no mark of their own,
// but what follows one begins where it ends: a length is right when all that follows
// makes sense with it.
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "check/scan.h"

// So many entries behind the damaged one are looked at.
#define MAX_FOLLOWERS 8U
// So many entries of one table are tried: more are no single damage.
#define MAX_MENDED 16U
// So much of the table is read.
#define WINDOW_BYTES 65536U
#define FIXED_BYTES 40U
#define AT_ID_BYTES 12U
#define AT_NAME_BYTES 14U
#define AT_EXTRA_BYTES 36U

// The table from the damaged entry on.
struct window {
    const struct q2_scan *s;
    uint8_t *bytes;
    unsigned n_entries; // from here on, at most MAX_FOLLOWERS + 1
    bool last;          // these are all
};

static bool all_zero(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i])
            return false;
    }
    return true;
}

// Programs number snapshots; names have no control characters.
static bool good_strings(const uint8_t *id, size_t id_bytes, const uint8_t *name,
                         size_t name_bytes)
{
    for (size_t i = 0; i < id_bytes; i++) {
        if (!isdigit(id[i]))
            return false;
    }
    for (size_t i = 0; i < name_bytes; i++) {
        if (name[i] < 0x20)
            return false;
    }
    return id_bytes > 0;
}

bool q2_scan_plausible_strings(const struct q2_snapshot *sn)
{
    return good_strings((const uint8_t *)sn->id, strlen(sn->id),
                        (const uint8_t *)sn->name, strlen(sn->name));
}

// The length of the entry at p with padding, if it makes sense; else 0.
static size_t entry_bytes(const struct window *w, const uint8_t *p, size_t n,
                          bool any_strings)
{
    if (n < FIXED_BYTES)
        return 0;
    size_t extra = q2_load_be32(p + AT_EXTRA_BYTES);
    size_t id = q2_load_be16(p + AT_ID_BYTES), name = q2_load_be16(p + AT_NAME_BYTES);
    if (extra > Q2_MAX_SNAPSHOT_EXTRA_BYTES || (w->s->header.version >= 3 && extra < 16))
        return 0;
    size_t length = FIXED_BYTES + extra + id + name,
           padded = q2_to_size(q2_align_up(length, 8));
    uint64_t l1 = q2_load_be64(p);
    if (padded > n || l1 == 0 || !q2_is_aligned(l1, w->s->cluster_size) ||
        !all_zero(p + length, padded - length))
        return 0;
    const uint8_t *strings = p + FIXED_BYTES + extra;
    return any_strings || good_strings(strings, id, strings + id, name) ? padded : 0;
}

// Do all entries make sense, and nothing follow them?
static bool makes_sense(const struct window *w, bool any_strings)
{
    size_t at = 0;
    for (unsigned i = 0; i < w->n_entries; i++) {
        size_t n =
            entry_bytes(w, w->bytes + at, WINDOW_BYTES - at, any_strings && i == 0);
        if (n == 0)
            return false;
        at += n;
    }
    size_t rest = (size_t)q2_min_u64(WINDOW_BYTES - at, FIXED_BYTES);
    return !w->last || all_zero(w->bytes + at, rest);
}

static void store(uint8_t *p, unsigned n_bytes, uint64_t value)
{
    if (n_bytes == 2)
        q2_store_be16(p, (uint16_t)value);
    else
        q2_store_be32(p, (uint32_t)value);
}

// Tries all values of one length; adds to *n_found, the last one that fits stays in m.
static void try_field(const struct window *w, const char *field, unsigned at,
                      unsigned n_bytes, uint64_t most, struct q2_mended *m,
                      unsigned *n_found)
{
    uint8_t now[4];
    memcpy(now, w->bytes + at, n_bytes);
    for (uint64_t v = 0; v <= most; v++) {
        store(w->bytes + at, n_bytes, v);
        if (!makes_sense(w, false))
            continue;
        *m = (struct q2_mended){.field = field,
                                .at = at,
                                .value =
                                    n_bytes == 2 ? q2_load_be16(now) : q2_load_be32(now),
                                .wanted = v};
        memcpy(m->bytes, w->bytes + (at & ~7U), sizeof(m->bytes));
        ++*n_found;
    }
    memcpy(w->bytes + at, now, n_bytes);
}

// Is it worth trying? No length helps where the L1 table's place makes no sense. Seen
// from its first bytes: there may be very many such entries.
static int worth_trying(struct q2_scan *s, uint64_t offset, bool *yes,
                        struct q2_error *err)
{
    uint8_t place[8];
    *yes = false;
    if (s->n_mended >= MAX_MENDED || q2_scan_is_metadata(s, offset, 1))
        return 0;
    int ret = q2_io_read(s->io, offset, place, sizeof(place), err);
    uint64_t l1 = ret == 0 ? q2_load_be64(place) : 0;
    *yes = l1 != 0 && q2_is_aligned(l1, s->cluster_size);
    return ret;
}

int q2_scan_mend_entry(struct q2_scan *s, uint64_t offset, unsigned n_left,
                       struct q2_mended *m, bool *mended, struct q2_error *err)
{
    bool worth;
    int ret = worth_trying(s, offset, &worth, err);
    *mended = false;
    if (ret < 0 || !worth)
        return ret;
    struct window w = {.s = s,
                       .n_entries = (unsigned)q2_min_u64(n_left, MAX_FOLLOWERS + 1),
                       .last = n_left <= MAX_FOLLOWERS + 1,
                       .bytes = malloc(WINDOW_BYTES)};
    unsigned n_found = 0;
    if (!w.bytes)
        return q2_fail_memory(err, WINDOW_BYTES);
    ret = q2_io_read(s->io, offset, w.bytes, WINDOW_BYTES, err);
    if (ret == 0) {
        s->n_mended++;
        try_field(&w, "extra_data_size", AT_EXTRA_BYTES, 4, Q2_MAX_SNAPSHOT_EXTRA_BYTES,
                  m, &n_found);
        try_field(&w, "id_str_size", AT_ID_BYTES, 2, 128, m, &n_found);
        try_field(&w, "name_size", AT_NAME_BYTES, 2, 1024, m, &n_found);
        *mended = n_found == 1;
        // All lengths are right: what is wrong are the id or the name themselves.
        if (n_found == 0 && makes_sense(&w, true)) {
            *m = (struct q2_mended){0};
            *mended = true;
        }
    }
    free(w.bytes);
    return ret;
}
