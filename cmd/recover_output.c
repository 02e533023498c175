// SPDX-License-Identifier: MIT
// recover: the report.
#include "cmd/recover_output.h"

#include <inttypes.h>
#include <stdio.h>

#include "cmd/output.h"

// For programs, and for people.
static const char *const sources[Q2_FROM_END][2] = {
    {"header", "from the header"},
    {"tables", "found"},
    {"option", "given"},
    {"snapshot", "as a snapshot has it"},
    {"guest", "as the guest's partition table or file system says"},
    {"data-file", "as long as the data file"},
    {"reach", "GUESSED: as far as anything is mapped"},
    {"none", "ASSUMED"},
};

static const char *const left_texts[Q2_LEFT_KINDS] = {
    "guest data, or what has overwritten something",
    "L2 tables without a place",
    "older copies of L2 tables",
    "L1 tables",
    "clusters that were not in use",
};

static const char *const certainties[] = {"surely", "likely", "in-order"};

static void set_integer(json_t *o, const char *name, uint64_t value)
{
    json_object_set_new(o, name, json_integer((json_int_t)value));
}

static void set_source(json_t *o, const char *name, enum q2_source source)
{
    json_object_set_new(o, name, json_string(sources[source][0]));
}

static json_t *sources_json(const struct q2_recovery *r)
{
    json_t *o = json_object();
    set_source(o, "cluster-size", r->from.cluster_size);
    set_source(o, "version", r->from.version);
    set_source(o, "virtual-size", r->from.size);
    set_source(o, "backing-file", r->from.backing);
    if (r->n_snapshots > 0)
        set_source(o, "snapshots", r->from.snapshots);
    return o;
}

static json_t *leftovers_json(const struct q2_leftovers *l)
{
    json_t *o = json_object();
    for (size_t i = 0; i < Q2_LEFT_KINDS; i++)
        set_integer(o, q2_leftover_names[i], l->bytes[i]);
    set_integer(o, "runs", l->n_runs);
    set_integer(o, "runs-written", l->n_written);
    return o;
}

static json_t *l1_json(const struct q2_l1_found *l, bool chosen)
{
    json_t *o = json_object();
    json_object_set_new(o, "offset", json_integer((json_int_t)l->offset));
    json_object_set_new(o, "entries", json_integer((json_int_t)l->n_entries));
    json_object_set_new(o, "l2-tables", json_integer((json_int_t)l->n_links));
    json_object_set_new(o, "copied", json_integer((json_int_t)l->n_copied));
    json_object_set_new(o, "snapshot", json_boolean(l->in_snapshot));
    json_object_set_new(o, "chosen", json_boolean(chosen));
    json_object_set_new(o, "begin-is-a-guess", json_boolean(l->guessed));
    return o;
}

int q2_output_recover_json(const struct q2_recover_request *request,
                           const struct q2_recover_report *report, struct q2_error *err)
{
    const struct q2_recovery *r = &report->recovery;
    const struct q2_header *h = &r->header;
    json_t *o = json_object(), *l1s = json_array(), *placed = json_array(),
           *remade = json_array();
    json_object_set_new(o, "filename", q2_output_string(request->path));
    json_object_set_new(o, "cluster-size",
                        json_integer((json_int_t)1 << h->cluster_bits));
    json_object_set_new(o, "version", json_integer(h->version));
    json_object_set_new(o, "virtual-size", json_integer((json_int_t)h->size));
    json_object_set_new(o, "size-is-a-guess",
                        json_boolean(r->from.size == Q2_FROM_REACH));
    json_object_set_new(o, "sources", sources_json(r));
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
    for (size_t i = 0; i < r->n_remade; i++)
        json_array_append_new(
            remade, json_pack("{s:I, s:I}", "index", (json_int_t)r->remade[i].index,
                              "clusters", (json_int_t)r->remade[i].n_clusters));
    json_object_set_new(o, "remade", remade);
    json_object_set_new(o, "problems-healed", json_integer((json_int_t)report->n_healed));
    json_object_set_new(o, "losses", json_integer((json_int_t)report->n_lossy));
    set_integer(o, "cut-off-tables", r->n_cut_tables);
    set_integer(o, "cut-off-clusters", r->n_cut_clusters);
    set_integer(o, "mapped-bytes", report->leftovers.mapped);
    json_object_set_new(o, "left-over", leftovers_json(&report->leftovers));
    if (request->target)
        json_object_set_new(o, "file-size", json_integer((json_int_t)report->file_size));
    return q2_output_json(o, err);
}

static void print_l1s(const struct q2_recovery *r)
{
    for (size_t i = 0; i < r->n_l1s; i++) {
        const struct q2_l1_found *l = &r->l1s[i];
        printf("L1 table %zu: at 0x%" PRIx64 ", %" PRIu64 " L2 tables%s%s\n", i + 1,
               l->offset, l->n_links, l->in_snapshot ? ", of a snapshot" : "",
               i != r->chosen ? ""
               : l->guessed   ? " (taken; where it begins is GUESSED)"
                              : " (taken)");
    }
    if (r->chosen < r->n_l1s)
        return;
    printf("The active L1 table is lost.\n");
    unsigned n[3] = {0};
    uint64_t n_remade = 0;
    for (size_t i = 0; i < r->n_placed; i++)
        n[r->placed[i].certainty]++;
    if (n[Q2_PLACED_SURELY] > 0)
        printf("L2 tables placed by marks in the data: %u\n", n[Q2_PLACED_SURELY]);
    if (n[Q2_PLACED_LIKELY] > 0)
        printf("L2 tables placed likely: %u\n", n[Q2_PLACED_LIKELY]);
    if (n[Q2_PLACED_IN_ORDER] > 0)
        printf("L2 tables GUESSED to be in the order of the file: %u\n",
               n[Q2_PLACED_IN_ORDER]);
    for (size_t i = 0; i < r->n_remade; i++)
        n_remade += r->remade[i].n_clusters;
    if (r->n_remade > 0)
        printf("L2 tables made anew: %zu, of %" PRIu64
               " clusters by marks in them and in those around them\n",
               r->n_remade, n_remade);
}

static void print_leftovers(const struct q2_recover_request *request,
                            const struct q2_leftovers *l)
{
    uint64_t all = l->mapped + q2_leftovers_lost(l);
    double share = all > 0 ? (double)l->mapped / (double)all : 1;
    // 100 % is all of it, and nothing less.
    double percent = l->mapped < all && share > 0.9999 ? 99.99 : 100 * share;
    printf("mapped again: %" PRIu64 " of %" PRIu64 " bytes (%.2f %%)\n", l->mapped, all,
           percent);
    for (size_t i = 0; i < Q2_LEFT_KINDS; i++) {
        if (l->bytes[i] > 0)
            printf("left over: %" PRIu64 " bytes of %s\n", l->bytes[i], left_texts[i]);
    }
    if (!request->leftovers || !request->target || l->n_runs == 0)
        return;
    printf("Of %" PRIu64 " stretches that are left over %" PRIu64 " are in ", l->n_runs,
           l->n_written);
    q2_output_text(stdout, request->leftovers);
    printf(".\n");
}

static void print_fields(const struct q2_recovery *r)
{
    const struct q2_header *h = &r->header;
    printf("cluster size: %u (%s)\nversion: %" PRIu32 " (%s)%s\nvirtual size: %" PRIu64
           " (%s)\n",
           1U << h->cluster_bits, sources[r->from.cluster_size][1], h->version,
           sources[r->from.version][1], r->layout.extended ? ", extended L2 entries" : "",
           h->size, sources[r->from.size][1]);
    if (h->backing_file) {
        printf("backing file: ");
        q2_output_text(stdout, h->backing_file);
        printf(" (%s)\n", sources[r->from.backing][1]);
    }
    if (h->crypt_method != Q2_CRYPT_NONE)
        printf("encrypted: %s\n", h->crypt_method == Q2_CRYPT_LUKS ? "luks" : "aes");
}

void q2_output_recover(const struct q2_recover_request *request,
                       const struct q2_recover_report *report)
{
    const struct q2_recovery *r = &report->recovery;
    print_fields(r);
    print_l1s(r);
    printf("snapshots: %u%s%s%s\nL2 tables: %" PRIu64 ", mapped %" PRIu64
           ", left over %" PRIu64 "\n",
           r->n_snapshots, r->n_snapshots > 0 ? " (" : "",
           r->n_snapshots > 0 ? sources[r->from.snapshots][1] : "",
           r->n_snapshots > 0 ? ")" : "", r->n_tables, r->n_linked, r->n_left);
    if (r->n_cut_tables + r->n_cut_clusters > 0)
        printf("The file was cut off: %" PRIu64 " L2 tables and %" PRIu64
               " clusters of the disk lay behind its end, and read as zeros now\n",
               r->n_cut_tables, r->n_cut_clusters);
    if (r->n_left > r->n_linked && r->chosen < r->n_l1s)
        printf("Most L2 tables have no place: if another image was written over the "
               "start of "
               "this one, --candidate none leaves out what that has brought\n");
    if (report->n_lossy > 0)
        printf("Ranges that could not be brought back: %" PRIu64 "\n", report->n_lossy);
    print_leftovers(request, &report->leftovers);
    if (request->target) {
        printf("The new image is in ");
        q2_output_text(stdout, request->target);
        printf(".\n");
    }
}
