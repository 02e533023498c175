// SPDX-License-Identifier: MIT
// Targets that read: info, all guest data, check.
#include <string.h>

#include "cmd/info_output.h"
#include "cmd/output.h"
#include "ops/bitmap.h"
#include "ops/check.h"
#include "ops/info.h"
#include "ops/map.h"
#include "ops/measure.h"
#include "ops/vet.h"
#include "tests/fuzz/fuzz.h"

static void print_json(const struct q2_info *info)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_long_list room[Q2_INFO_LONG_LISTS];
    struct q2_long_lists lists = {.list = room};
    q2_output_long_json(q2_info_to_json(info, &lists), &lists, &err);
}

// What info prints; standard output leads nowhere.
void fuzz_target_info(const uint8_t *data, size_t n_bytes)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *io = fuzz_file(data, n_bytes);
    struct q2_image *img = fuzz_open(io, FUZZ_DESCRIPTION);
    struct q2_info info;
    if (img && q2_info_of(&img->disk, &info, &err) == 0) {
        q2_info_print(&info, &err);
        print_json(&info);
        q2_info_clear(&info); // and with it the file
        return;
    }
    if (img)
        fuzz_close(img);
    q2_io_close(io);
}

#define MAX_MAP_ENTRIES 1024U

struct mapped {
    uint64_t at;
    unsigned n;
};

// Ranges follow each other without a gap.
static int take_entry(void *opaque, const struct q2_map_entry *e, struct q2_error *err)
{
    struct mapped *m = opaque;
    (void)err;
    if (e->start != m->at || e->n_bytes == 0)
        fuzz_broken("map: a range begins at %llu, not at %llu",
                    (unsigned long long)e->start, (unsigned long long)m->at);
    m->at = e->start + e->n_bytes;
    return ++m->n < MAX_MAP_ENTRIES ? 0 : -1;
}

static void read_more(struct q2_image *img)
{
    struct q2_error err = Q2_ERROR_INIT;
    const struct q2_create_options o = {
        .format = "qcow2", .version = 3, .cluster_size = 65536, .refcount_bits = 16};
    struct mapped m = {0};
    struct q2_measurement measured;
    uint8_t buf[4096];
    uint64_t n;
    q2_map(&img->disk, 0, img->disk.size, NULL, take_entry, &m, &err);
    q2_image_read_vmstate(img, 0, buf, sizeof(buf), &err);
    q2_bitmap_measure(&img->disk, 65536, &n, &err);
    if (m.n < MAX_MAP_ENTRIES)
        q2_measure(&o, &img->disk, NULL, &measured, &err);
}

void fuzz_target_read(const uint8_t *data, size_t n_bytes)
{
    struct q2_io *io = fuzz_file(data, n_bytes);
    struct q2_image *img = fuzz_open(io, FUZZ_READ);
    if (img) {
        struct fuzz_content *content = fuzz_content_read(io);
        fuzz_content_free(content);
        read_more(img);
        fuzz_close(img);
    }
    q2_io_close(io);
}

// A scan writes nothing and says the same when it is done again; all data are read, too.
void fuzz_target_check(const uint8_t *data, size_t n_bytes)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *io = fuzz_file(data, n_bytes);
    struct q2_check_request r = {.format = "qcow2"};
    struct q2_check_report first, second;
    char text[Q2_FINDING_TEXT_MAX];
    io->writable = false;
    if (q2_check_file(io, &r, NULL, &first, &err) == 0) {
        for (size_t i = 0; i < first.scan.findings.n; i++)
            q2_finding_format(&first.scan.findings.list[i], "ERROR", text);
        struct q2_image *img = fuzz_open(io, FUZZ_DESCRIPTION);
        r.read_data = img && !q2_image_has_data_file(img);
        if (img)
            fuzz_close(img);
        if (q2_check_file(io, &r, NULL, &second, &err) == 0) {
            if (second.scan.leaks != first.scan.leaks && !r.read_data)
                fuzz_broken("a second scan finds other leaks");
            q2_check_clear(&second);
        }
        q2_check_clear(&first);
    }
    q2_io_close(io);
}

// What is accepted stands alone, is sound, opens, and can be read from its begin to its
// end.
static void hold_to_verdict(struct q2_io *io)
{
    struct q2_error err = Q2_ERROR_INIT;
    const struct q2_check_request r = {.format = "qcow2", .read_data = true};
    struct q2_check_report report;
    if (q2_check_file(io, &r, NULL, &report, &err) < 0)
        fuzz_broken("accepted, but cannot be checked: %s", err.message);
    if (!q2_scan_clean(&report.scan))
        fuzz_broken("accepted, but not sound");
    q2_check_clear(&report);
    struct q2_image *img = fuzz_open(io, FUZZ_READ);
    if (!img)
        fuzz_broken("accepted, but cannot be opened");
    if (img->header.backing_file || q2_image_has_data_file(img) ||
        img->header.crypt_method)
        fuzz_broken("accepted, but does not stand alone");
    struct fuzz_content *content = fuzz_content_read(io);
    for (unsigned i = 0; i < content->states[0].n; i++)
        if (!content->states[0].blocks[i].readable)
            fuzz_broken("accepted, but %llu cannot be read",
                        (unsigned long long)content->states[0].blocks[i].guest_offset);
    if (!content->states[0].readable)
        fuzz_broken("accepted, but cannot be read");
    fuzz_content_free(content);
    fuzz_close(img);
}

static void vet_as(struct q2_io *io, struct q2_vet_request *r)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_vet_report report;
    bool all = r->allow[Q2_VET_LEAKS];
    if (q2_vet_file(io, r, NULL, &report, &err) < 0)
        return;
    if (report.accepted && strcmp(r->format, "qcow2") == 0 && !all)
        hold_to_verdict(io);
    q2_vet_clear(&report);
}

// An image without anything that has to be allowed, one with all of it, and a raw file.
void fuzz_target_vet(const uint8_t *data, size_t n_bytes)
{
    struct q2_vet_request r = {.path = "file",
                               .format = "qcow2",
                               .max_virtual_size = UINT64_MAX,
                               .max_file_size = UINT64_MAX};
    struct q2_io *io = fuzz_file(data, n_bytes);
    io->writable = false;
    vet_as(io, &r);
    for (unsigned i = 0; i < Q2_N_VET_REASONS; i++)
        r.allow[i] = q2_vet_reason_info(i)->allow == Q2_VET_ALLOW_ASKED;
    vet_as(io, &r);
    r.format = "raw";
    vet_as(io, &r);
    q2_io_close(io);
}
