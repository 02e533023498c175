// SPDX-License-Identifier: MIT
// An image's description for people. What depends on the format is the JSON tree printed
// as text, so that the two cannot differ.
#include "cmd/info_output.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/checked.h"
#include "base/size.h"
#include "cmd/output.h"

static void print_line(const char *what, const char *text)
{
    printf("%s: ", what);
    q2_output_text(stdout, text);
    putchar('\n');
}

static void print_size(const char *what, uint64_t n_bytes, bool exact)
{
    char text[Q2_SIZE_TEXT_MAX];
    q2_size_format(n_bytes, text);
    printf("%s: %s", what, text);
    if (exact)
        printf(" (%" PRIu64 " bytes)", n_bytes);
    putchar('\n');
}

static void print_backing(const struct q2_info *info)
{
    const char *name = info->header.backing_file;
    printf("backing file: ");
    q2_output_text(stdout, name);
    if (strcmp(name, info->full_backing_filename) != 0) {
        printf(" (actual path: ");
        q2_output_text(stdout, info->full_backing_filename);
        putchar(')');
    }
    putchar('\n');
    if (info->header.backing_format)
        print_line("backing file format", info->header.backing_format);
}

// Pads to width in characters as they are printed.
static void print_column(const char *text, int width)
{
    int n = 0;
    for (const char *p = text; *p; p++)
        n += (unsigned char)*p < 0x20 || *p == 0x7f ? 4 : 1;
    q2_output_text(stdout, text);
    printf("%*s ", n < width ? width - n : 0, "");
}

void q2_output_snapshot(const struct q2_snapshot *s)
{
    char size[Q2_SIZE_TEXT_MAX], date[64] = "", clock[64], icount[32] = "--";
    time_t seconds = (time_t)s->date_sec;
    struct tm tm;
    if (localtime_r(&seconds, &tm))
        strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
    uint64_t ms = s->vm_clock_nsec / 1000000, secs = ms / 1000;
    snprintf(clock, sizeof(clock), "%04" PRIu64 ":%02u:%02u.%03u", secs / 3600,
             (unsigned)(secs / 60 % 60), (unsigned)(secs % 60), (unsigned)(ms % 1000));
    if (s->has_icount && s->icount != UINT64_MAX)
        snprintf(icount, sizeof(icount), "%" PRIu64, s->icount);
    q2_size_format(s->vm_state_size, size);
    print_column(s->id, 7);
    print_column(s->name, 16);
    printf("%8s %19s %15s %10s\n", size, date, clock, icount);
}

void q2_output_snapshot_heading(void)
{
    printf("Snapshot list:\n%-7s %-16s %8s %19s %15s %10s\n", "ID", "TAG", "VM_SIZE",
           "DATE", "VM_CLOCK", "ICOUNT");
}

static int print_snapshot(void *opaque, struct q2_snapshot *s, struct q2_error *err)
{
    (void)opaque;
    (void)err;
    q2_output_snapshot(s);
    return 0;
}

static int print_qcow2(const struct q2_info *info, const json_t *json,
                       const struct q2_long_lists *lists, struct q2_error *err)
{
    const struct q2_header *h = &info->header;
    int rc = 0;
    if (h->crypt_method)
        printf("encrypted: yes\n");
    printf("cluster_size: %" PRIu64 "\n", q2_header_cluster_size(h));
    if (h->incompatible_features & Q2_INCOMPAT_DIRTY)
        printf("cleanly shut down: no\n");
    if (h->backing_file)
        print_backing(info);
    if (info->n_snapshots) {
        q2_output_snapshot_heading();
        rc = q2_info_each_snapshot(info, print_snapshot, NULL, err);
    }
    if (rc)
        return rc;
    printf("Format specific information:\n");
    const json_t *specific = json_object_get(json, "format-specific");
    return q2_output_tree(json_object_get(specific, "data"), 4, lists, err);
}

// Indents by levels, and prints "Child node" with the path of a node that deep.
static void print_child_heading(unsigned level)
{
    printf("%*sChild node '", (int)level * 4, "");
    for (unsigned i = 0; i <= level; i++)
        printf("/file");
    printf("':\n");
}

static void print_child_text(unsigned level, const char *what, const char *text)
{
    printf("%*s", (int)level * 4 + 4, "");
    print_line(what, text);
}

static void print_child_size(unsigned level, const char *what, uint64_t n_bytes,
                             bool exact)
{
    printf("%*s", (int)level * 4 + 4, "");
    print_size(what, n_bytes, exact);
}

// The parts of the file from above, and the file itself.
static void print_children(const struct q2_info *info)
{
    unsigned level = 0;
    for (; level < info->n_parts; level++) {
        unsigned i = info->n_parts - 1 - level;
        print_child_heading(level);
        print_child_text(level, "image", info->parts[i].title);
        print_child_text(level, "file format", "raw");
        print_child_size(level, "virtual size", q2_align_up(info->parts[i].size, 512),
                         true);
        print_child_size(level, "disk size", info->disk_usage, false);
    }
    print_child_heading(level);
    print_child_text(level, "filename", info->filename);
    print_child_text(level, "protocol type", "file");
    print_child_size(level, "file length", q2_align_up(info->file_length, 512), true);
    print_child_size(level, "disk size", info->disk_usage, false);
}

int q2_info_print(const struct q2_info *info, struct q2_error *err)
{
    struct q2_long_list list[Q2_INFO_LONG_LISTS];
    struct q2_long_lists lists = {.list = list};
    json_t *json = q2_info_to_json(info, &lists);
    int rc = 0;
    if (!json)
        return q2_fail_memory(err, 0);
    print_line("image", info->title ? info->title : info->filename);
    printf("file format: %s\n", info->format);
    print_size("virtual size", info->virtual_size, true);
    print_size("disk size", info->disk_usage, false);
    if (info->is_qcow2)
        rc = print_qcow2(info, json, &lists, err);
    if (!rc)
        print_children(info);
    json_decref(json);
    return rc;
}
