// SPDX-License-Identifier: MIT
// The LUKS header of an encrypted image: without it all data is lost, so its place is
// believed only where it begins as such a header does.
#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "check/scan.h"
#include "disk/luks.h"

// How much of the file belongs to it, as it says itself.
static uint64_t own_bytes(const struct q2_luks_header *luks)
{
    return (uint64_t)luks->payload_offset_sectors * Q2_LUKS_SECTOR;
}

static void report(struct q2_scan *s)
{
    q2_scan_report(s, &s->findings,
                   &(struct q2_finding){.problem = Q2_PROBLEM_LUKS_HEADER,
                                        .has = Q2_HAS_OFFSET | Q2_HAS_SIZE,
                                        .offset = s->header.crypto_header_offset,
                                        .size = s->header.crypto_header_length});
}

int q2_scan_crypto(struct q2_scan *s, struct q2_error *err)
{
    uint64_t offset = s->header.crypto_header_offset;
    uint64_t n_bytes = s->header.crypto_header_length;
    uint8_t buf[Q2_LUKS_HEADER_BYTES] = {0};
    struct q2_luks_header luks = {0};
    struct q2_error why = Q2_ERROR_INIT;
    if (!s->header.has_crypto)
        return 0;
    bool usable = offset != 0 && n_bytes > 0 && q2_scan_in_file(s, offset, n_bytes) &&
                  !q2_scan_is_metadata(s, offset, n_bytes);
    int ret = usable ? q2_io_read(s->io, offset, buf, sizeof(buf), err) : 0;
    if (ret < 0)
        return ret;
    bool is_luks = usable && q2_luks_probe(buf, sizeof(buf));
    // With more or less than its own clusters the length is wrong.
    bool sound = is_luks && q2_luks_decode(buf, sizeof(buf), &luks, &why) == 0 &&
                 q2_align_up(own_bytes(&luks), s->cluster_size) ==
                     q2_align_up(n_bytes, s->cluster_size);
    if (!sound)
        report(s);
    s->luks_lost = !is_luks;
    if (!is_luks)
        return 0;
    ret = q2_scan_claim(s, offset, n_bytes, err);
    return ret < 0 ? ret : q2_scan_reference(s, offset, n_bytes, 1, err);
}
