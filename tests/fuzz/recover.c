// SPDX-License-Identifier: MIT
// Target: recover. What is made of a file without a header is a sound image; the file
// itself is only read.
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "check/repair.h"
#include "image/metadata.h"
#include "ops/recover_copy.h"
#include "recover/recover.h"
#include "tests/fuzz/fuzz.h"

#define MAX_FILE_BYTES (UINT64_C(256) << 20)

// Some of the file's first bytes are lost; mostly as many as a header takes.
static void destroy(uint8_t *bytes, size_t n_bytes, uint8_t order)
{
    static const size_t lengths[] = {0,    4,    32,   72,   104,   512,   512,   512,
                                     1024, 2048, 4096, 8192, 16384, 32768, 49152, 65536};
    size_t n = lengths[order % 16];
    memset(bytes, order & 16 ? 0x5a : 0, n < n_bytes ? n : n_bytes);
}

// What a user may know of the disk; most say nothing.
static struct q2_recover_options choose_options(const uint8_t *orders)
{
    struct q2_recover_options o = {0};
    if (orders[1] & 1)
        o.size = (uint64_t)(orders[2] + 1) << (9 + orders[3] % 16);
    if (orders[1] & 2)
        o.cluster_bits = Q2_MIN_CLUSTER_BITS + orders[4] % 8U;
    if (orders[1] & 4)
        o.version = orders[5] & 1 ? 2 : 3;
    if (orders[1] & 8)
        o.candidate = orders[6] % 8U;
    if (orders[1] & 16) {
        o.backing_file = "../base.raw";
        o.backing_format = "raw";
    }
    return o;
}

static void require_message(int ret, const struct q2_error *err)
{
    if (ret < 0 && err->message[0] == '\0')
        fuzz_broken("a failure without a message");
}

static void require_unchanged(struct q2_io *io, const uint8_t *bytes, size_t n_bytes)
{
    struct q2_error err = Q2_ERROR_INIT;
    uint8_t *now = malloc(n_bytes);
    uint64_t size;
    if (!now || q2_io_get_size(io, &size, &err) < 0)
        fuzz_give_up("no memory");
    if (size != n_bytes || q2_io_read_exact(io, 0, now, n_bytes, &err) < 0 ||
        memcmp(now, bytes, n_bytes) != 0)
        fuzz_broken("recovering has changed the file");
    free(now);
}

static void require_bounded(struct q2_io *to)
{
    struct q2_error err = Q2_ERROR_INIT;
    uint64_t used;
    if (q2_io_disk_usage(to, &used, &err) < 0)
        fuzz_give_up(err.message);
    if (used > MAX_FILE_BYTES)
        fuzz_broken("%llu bytes were recovered", (unsigned long long)used);
}

// The copy of what is in use reads as the repaired whole did.
static void hold_to(struct q2_io *to, struct q2_io *whole)
{
    struct fuzz_content *content = fuzz_content_read(whole);
    char why[512];
    require_bounded(to);
    if (!fuzz_is_sound(to, why))
        fuzz_broken("recovered, but not sound: %s", why);
    if (!fuzz_content_same(to, content, NULL, why))
        fuzz_broken("recovered, but the copy differs: %s", why);
    fuzz_content_free(content);
}

static void make_copy(const struct q2_plan *plan)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *to = fuzz_file(NULL, 0);
    int ret = q2_recover_copy(plan, to, NULL, &err);
    require_message(ret, &err);
    if (ret == 0)
        hold_to(to, plan->overlay);
    q2_io_close(to);
}

static void repair(struct q2_recovery *found)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_plan plan;
    int ret =
        q2_plan_make(&plan, found->image, Q2_REPAIR_MODE_BELOW, 0, false, NULL, &err);
    require_message(ret, &err);
    if (ret < 0)
        return;
    if (plan.complete)
        make_copy(&plan);
    q2_plan_clear(&plan);
}

void fuzz_target_recover(const uint8_t *data, size_t n_bytes)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_recovery found;
    if (n_bytes <= FUZZ_OPERATION_BYTES)
        return;
    const uint8_t *orders = data + n_bytes - FUZZ_OPERATION_BYTES;
    const struct q2_recover_options options = choose_options(orders);
    n_bytes -= FUZZ_OPERATION_BYTES;
    uint8_t *bytes = malloc(n_bytes);
    if (!bytes)
        fuzz_give_up("no memory");
    memcpy(bytes, data, n_bytes);
    destroy(bytes, n_bytes, orders[0]);
    struct q2_io *io = fuzz_file(bytes, n_bytes);
    io->writable = false;
    int ret = q2_recover_make(io, &options, NULL, &found, &err);
    require_message(ret, &err);
    if (ret == 0) {
        repair(&found);
        q2_recover_clear(&found);
    }
    require_unchanged(io, bytes, n_bytes);
    q2_io_close(io);
    free(bytes);
}
