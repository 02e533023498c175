// SPDX-License-Identifier: MIT
// Operations on images, as the end of an input orders them.
#include <stdio.h>
#include <string.h>

#include "io/overlay.h"
#include "ops/check.h"
#include "tests/fuzz/fuzz.h"

#define MAX_OPERATIONS 3U
#define GROWTH (UINT64_C(256) << 20)

// A table that two entries of one state share (a repair may make it so) does not know
// when it is shared no more: what lacks the flag is copied once more than it had to be.
static uint64_t missing_flags(const struct q2_findings *late)
{
    uint64_t n = 0;
    for (size_t i = 0; i < late->n; i++)
        n += !(late->list[i].entry & Q2_FLAG_COPIED);
    return n;
}

bool fuzz_is_sound(struct q2_io *io, char why[512])
{
    struct q2_error err = Q2_ERROR_INIT;
    const struct q2_check_request r = {.format = "qcow2"};
    struct q2_check_report report;
    char text[Q2_FINDING_TEXT_MAX] = "";
    if (q2_check_file(io, &r, NULL, &report, &err) < 0) {
        snprintf(why, 512, "%.500s", err.message);
        return false;
    }
    const struct q2_findings *f =
        report.scan.findings.n > 0 ? &report.scan.findings : &report.scan.late;
    if (f->n > 0)
        q2_finding_format(&f->list[0], "ERROR", text);
    snprintf(why, 512, "%llu corruptions, %llu leaks: %.400s",
             (unsigned long long)report.scan.corruptions,
             (unsigned long long)report.scan.leaks, text);
    bool sound = report.scan.leaks == 0 &&
                 report.scan.corruptions == missing_flags(&report.scan.late);
    q2_check_clear(&report);
    return sound;
}

// As if the file went on with zeros: what is counted behind its end is wasted once it
// grows.
bool fuzz_stays_sound(struct q2_io *io, char why[512])
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *longer;
    uint64_t size;
    if (!fuzz_is_sound(io, why))
        return false;
    if (q2_overlay_open(io, &longer, &err) < 0 || q2_io_get_size(io, &size, &err) < 0 ||
        q2_io_set_size(longer, size + GROWTH, &err) < 0)
        fuzz_give_up(err.message);
    bool sound = fuzz_is_sound(longer, why);
    q2_io_close(longer);
    return sound;
}

static void repair(struct q2_io *io)
{
    struct q2_error err = Q2_ERROR_INIT;
    const struct q2_check_request r = {
        .format = "qcow2", .repair = true, .mode = Q2_REPAIR_MODE_ALL};
    struct q2_check_report report;
    if (q2_check_file(io, &r, NULL, &report, &err) == 0)
        q2_check_clear(&report);
}

// Returns false where it was refused, or failed.
static bool run(struct q2_io *io, const struct fuzz_operation *op, const uint8_t *bytes)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_image *img = fuzz_open(io, op->mode);
    if (!img)
        return false;
    int ret = op->run(img, bytes, &err);
    if (ret == 0)
        ret = q2_disk_finish(&img->disk, &err);
    fuzz_close(img);
    if (ret < 0 && err.message[0] == '\0')
        fuzz_broken("a failure without a message");
    return ret == 0;
}

// Of an image that is sound.
static void run_judged(struct q2_io *io, const struct fuzz_operation *op, unsigned number,
                       const uint8_t *bytes)
{
    struct fuzz_content *before = op->changes ? NULL : fuzz_content_read(io);
    char why[512];
    bool done = run(io, op, bytes);
    if (!fuzz_is_sound(io, why))
        fuzz_broken("operation %u on a sound image, %s: %s", number,
                    done ? "done" : "refused", why);
    if (before && !fuzz_content_same(io, before, NULL, why))
        fuzz_broken("operation %u, %s, changes %s", number, done ? "done" : "refused",
                    why);
    fuzz_content_free(before);
}

void fuzz_operate(const uint8_t *data, size_t n_bytes, const struct fuzz_operation *list,
                  unsigned n)
{
    if (n_bytes <= FUZZ_OPERATION_BYTES)
        return;
    const uint8_t *orders = data + n_bytes - FUZZ_OPERATION_BYTES;
    struct q2_io *io = fuzz_file(data, n_bytes - FUZZ_OPERATION_BYTES);
    char why[512];
    // As open_rw does, but for any damage.
    if (orders[0] & 1)
        repair(io);
    bool sound = fuzz_stays_sound(io, why);
    for (unsigned i = 0; i < MAX_OPERATIONS; i++) {
        const uint8_t *bytes = orders + 4 * (i + 1);
        unsigned number = bytes[0] % n;
        if (sound)
            run_judged(io, &list[number], number, bytes + 1);
        else
            run(io, &list[number], bytes + 1);
    }
    q2_io_close(io);
}
