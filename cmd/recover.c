// SPDX-License-Identifier: MIT
// recover: bring back an image whose header or L1 table is lost.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "cmd/opening.h"
#include "cmd/options.h"
#include "cmd/output.h"
#include "cmd/progress.h"
#include "ops/recover.h"

enum {
    OPTION_DRY_RUN = 256,
    OPTION_SIZE,
    OPTION_CLUSTER_SIZE,
    OPTION_VERSION,
    OPTION_CANDIDATE
};

static const struct q2_option recover_options[] = {
    {"dry-run", "", NULL, OPTION_DRY_RUN, "What is done",
     "tell what was found, write nothing"},
    {"target-format", "O", "FMT", 'O', "What is done",
     "qcow2 (default), or raw: the active state"},
    {"size", "", "SIZE", OPTION_SIZE, "What is known", "of the guest's disk"},
    {"cluster-size", "", "SIZE", OPTION_CLUSTER_SIZE, "What is known", "of the image"},
    {"version", "", "N", OPTION_VERSION, "What is known", "2 or 3"},
    {"backing", "b", "FILE", 'b', "What is known", "the backing file"},
    {"backing-format", "F", "FMT", 'F', "What is known", "its format"},
    {"candidate", "", "N", OPTION_CANDIDATE, "What is known",
     "take the N-th L1 table of the report"},
    Q2_ROW_OUTPUT,
    Q2_ROW_PROGRESS,
    Q2_ROW_QUIET,
    Q2_ROW_END,
};

struct settings {
    struct q2_recover_request request;
    bool dry_run;
    const char *format;
};

static int take_number(const char *what, const char *value, uint64_t least, uint64_t most,
                       uint64_t *out, struct q2_error *err)
{
    int rc = q2_value_size(what, value, out, err);
    if (!rc && (*out < least || *out > most))
        rc = q2_fail(err, -EINVAL, "Invalid %s '%s': it is %" PRIu64 " to %" PRIu64, what,
                     value, least, most);
    return rc;
}

static int take_option(struct q2_command_line *line, int code, const char *value,
                       struct q2_error *err)
{
    struct settings *s = line->settings;
    struct q2_recover_options *o = &s->request.options;
    uint64_t number;
    int rc = 0;
    switch (code) {
    case OPTION_DRY_RUN:
        s->dry_run = true;
        break;
    case 'O':
        s->format = value;
        break;
    case OPTION_SIZE:
        return take_number("size", value, 1, INT64_MAX, &o->size, err);
    case OPTION_CLUSTER_SIZE:
        rc = take_number("cluster size", value, 512, 2 << 20, &number, err);
        if (!rc && !q2_is_power_of_2(number))
            return q2_fail(err, -EINVAL,
                           "Cluster size must be a power of two between 512 and 2048k");
        o->cluster_bits = rc ? 0 : q2_log2(number);
        break;
    case OPTION_VERSION:
        rc = take_number("version", value, 2, 3, &number, err);
        o->version = rc ? 0 : (uint32_t)number;
        break;
    case OPTION_CANDIDATE:
        rc = take_number("candidate", value, 1, UINT32_MAX, &number, err);
        o->candidate = rc ? 0 : (unsigned)number;
        break;
    case 'b':
        o->backing_file = value;
        break;
    case 'F':
        o->backing_format = value;
        break;
    }
    return rc;
}

static int check_line(const struct q2_command_line *line, struct q2_error *err)
{
    struct settings *s = line->settings;
    if (line->n_operands != 2 && !(s->dry_run && line->n_operands == 1))
        return q2_fail(err, -EINVAL,
                       "Expecting the broken image and a name for the new one");
    if (strcmp(s->format, "qcow2") && strcmp(s->format, "raw"))
        return q2_fail(err, -EINVAL, "Invalid target format '%s': it is qcow2 or raw",
                       s->format);
    if (s->request.options.backing_format && !s->request.options.backing_file)
        return q2_fail(err, -EINVAL,
                       "Backing format cannot be used without backing file");
    if (s->request.options.backing_file && !s->request.options.backing_format)
        return q2_fail(err, -EINVAL, "backing file specified without its format, use -F");
    return 0;
}

static const char *const certainties[] = {"surely", "likely", "in-order"};

static json_t *l1_json(const struct q2_l1_found *l, bool chosen)
{
    json_t *o = json_object();
    json_object_set_new(o, "offset", json_integer((json_int_t)l->offset));
    json_object_set_new(o, "entries", json_integer((json_int_t)l->n_entries));
    json_object_set_new(o, "l2-tables", json_integer((json_int_t)l->n_links));
    json_object_set_new(o, "copied", json_integer((json_int_t)l->n_copied));
    json_object_set_new(o, "snapshot", json_boolean(l->in_snapshot));
    json_object_set_new(o, "chosen", json_boolean(chosen));
    return o;
}

static void print_json(const struct settings *s, const struct q2_recover_report *report)
{
    const struct q2_recovery *r = &report->recovery;
    const struct q2_header *h = &r->header;
    json_t *o = json_object(), *l1s = json_array(), *placed = json_array();
    json_object_set_new(o, "filename", q2_output_string(s->request.path));
    json_object_set_new(o, "cluster-size",
                        json_integer((json_int_t)1 << h->cluster_bits));
    json_object_set_new(o, "version", json_integer(h->version));
    json_object_set_new(o, "virtual-size", json_integer((json_int_t)h->size));
    json_object_set_new(o, "size-is-a-guess", json_boolean(!r->size_known));
    json_object_set_new(o, "extended-l2", json_boolean(r->layout.extended));
    json_object_set_new(o, "encrypted", json_boolean(h->crypt_method != Q2_CRYPT_NONE));
    json_object_set_new(o, "snapshots", json_integer(r->n_snapshots));
    json_object_set_new(o, "l2-tables", json_integer((json_int_t)r->n_tables));
    json_object_set_new(o, "l2-tables-mapped", json_integer((json_int_t)r->n_linked));
    json_object_set_new(o, "l2-tables-left", json_integer((json_int_t)r->n_left));
    for (size_t i = 0; i < r->n_l1s; i++)
        json_array_append_new(l1s, l1_json(&r->l1s[i], i == r->chosen));
    json_object_set_new(o, "l1-tables", l1s);
    for (size_t i = 0; i < r->n_placed; i++) {
        json_t *p = json_object();
        json_object_set_new(p, "offset", json_integer((json_int_t)r->placed[i].offset));
        json_object_set_new(p, "index", json_integer((json_int_t)r->placed[i].index));
        json_object_set_new(p, "placed",
                            json_string(certainties[r->placed[i].certainty]));
        json_array_append_new(placed, p);
    }
    json_object_set_new(o, "placed", placed);
    json_object_set_new(o, "problems-healed", json_integer((json_int_t)report->n_healed));
    json_object_set_new(o, "losses", json_integer((json_int_t)report->n_lossy));
    if (s->request.target)
        json_object_set_new(o, "file-size", json_integer((json_int_t)report->file_size));
    q2_output_json(o);
}

static void print_l1s(const struct q2_recovery *r)
{
    for (size_t i = 0; i < r->n_l1s; i++) {
        const struct q2_l1_found *l = &r->l1s[i];
        printf("L1 table %zu: at 0x%" PRIx64 ", %" PRIu64 " L2 tables%s%s\n", i + 1,
               l->offset, l->n_links, l->in_snapshot ? ", of a snapshot" : "",
               i == r->chosen ? " (taken)" : "");
    }
    if (r->chosen < r->n_l1s)
        return;
    printf("The active L1 table is lost.\n");
    unsigned n[3] = {0};
    for (size_t i = 0; i < r->n_placed; i++)
        n[r->placed[i].certainty]++;
    if (n[Q2_PLACED_SURELY] > 0)
        printf("L2 tables placed by marks in the data: %u\n", n[Q2_PLACED_SURELY]);
    if (n[Q2_PLACED_LIKELY] > 0)
        printf("L2 tables placed likely: %u\n", n[Q2_PLACED_LIKELY]);
    if (n[Q2_PLACED_IN_ORDER] > 0)
        printf("L2 tables GUESSED to be in the order of the file: %u\n",
               n[Q2_PLACED_IN_ORDER]);
}

static void print_text(const struct settings *s, const struct q2_recover_report *report)
{
    const struct q2_recovery *r = &report->recovery;
    const struct q2_header *h = &r->header;
    printf("cluster size: %u\nversion: %" PRIu32 "%s\nvirtual size: %" PRIu64 "%s\n",
           1U << h->cluster_bits, h->version,
           r->layout.extended ? ", extended L2 entries" : "", h->size,
           r->size_known ? "" : " (GUESSED: as far as anything is mapped)");
    if (h->backing_file) {
        printf("backing file: ");
        q2_output_text(stdout, h->backing_file);
        printf("\n");
    }
    if (h->crypt_method != Q2_CRYPT_NONE)
        printf("encrypted: %s\n", h->crypt_method == Q2_CRYPT_LUKS ? "luks" : "aes");
    print_l1s(r);
    printf("snapshots: %u\nL2 tables: %" PRIu64 ", mapped %" PRIu64 ", left over %" PRIu64
           "\n",
           r->n_snapshots, r->n_tables, r->n_linked, r->n_left);
    if (report->n_lossy > 0)
        printf("Ranges that could not be brought back: %" PRIu64 "\n", report->n_lossy);
    if (s->request.target) {
        printf("The new image is in ");
        q2_output_text(stdout, s->request.target);
        printf(".\n");
    }
}

static int recover(struct q2_command_line *line, struct q2_error *err)
{
    struct settings *s = line->settings;
    struct q2_recover_report report;
    struct q2_progress progress;
    s->request.path = line->operands[0];
    s->request.raw = strcmp(s->format, "raw") == 0;
    int rc = 0;
    if (!s->dry_run)
        rc = q2_new_path(line->operands[1], &s->request.target, err);
    if (rc)
        return rc;
    q2_progress_start(&progress, line, true, 2);
    rc = q2_recover(&s->request, &progress.monitor, &report, err);
    q2_progress_end(&progress, rc == 0);
    if (rc)
        return rc;
    if (line->common.json)
        print_json(s, &report);
    else if (!line->common.quiet)
        print_text(s, &report);
    q2_recover_report_clear(&report);
    return 0;
}

static int recover_run(struct q2_command_line *line, struct q2_error *err)
{
    struct settings s = {.format = "qcow2"};
    line->settings = &s;
    int rc = q2_options_parse(line, take_option, err);
    if (!rc)
        rc = check_line(line, err);
    if (!rc)
        rc = recover(line, err);
    return rc < 0;
}

const struct q2_command q2_cmd_recover = {
    .name = "recover",
    .summary = "Bring back an image that nothing can open",
    .operands = "BROKEN NEW",
    .options = recover_options,
    .examples = {"recover broken.qcow2 new.qcow2", "recover --dry-run broken.qcow2"},
    .writes = true,
    .run = recover_run,
};
