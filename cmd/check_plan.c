// SPDX-License-Identifier: MIT
// What a repair would do: its edits, and what guest data would be lost.
#include "cmd/check_plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>

#include "base/endian.h"
#include "cmd/output.h"
#include "io/overlay.h"

// So many edits are listed as JSON, each of which takes memory; the rest is counted.
#define MAX_EDITS UINT64_C(65536)
// Writes of more bytes are told by their checksum.
#define MAX_DATA 512U

static void print_snapshot(const struct q2_finding *f)
{
    printf("    snapshot '");
    q2_output_text(stdout, f->snapshot_name);
    printf("' (table entry %d): ", f->snapshot);
}

static void print_loss(const struct q2_finding *f, uint64_t n_bytes)
{
    if (f->snapshot >= 0)
        print_snapshot(f);
    else
        printf("    active state: ");
    if (f->has & Q2_HAS_GUEST)
        printf("%" PRIu64 " bytes at guest offset %" PRIu64 "\n", n_bytes,
               f->guest_offset);
    else
        printf("all of it\n");
}

// The next loss from *I on, which becomes the index behind it.
static const struct q2_finding *next_loss(const struct q2_plan *plan, size_t *i)
{
    while (*i < plan->healed.n) {
        const struct q2_finding *f = &plan->healed.list[(*i)++];
        if (f->lossy)
            return f;
    }
    return NULL;
}

static bool continues(const struct q2_finding *f, uint64_t n_bytes,
                      const struct q2_finding *next)
{
    return next && f->snapshot == next->snapshot && (f->has & Q2_HAS_GUEST) &&
           (next->has & Q2_HAS_GUEST) && next->guest_offset == f->guest_offset + n_bytes;
}

// A file that was cut short loses clusters by the thousand: what lies side by side is one
// line.
void q2_output_losses(const struct q2_plan *plan)
{
    if (plan->n_lossy == 0)
        return;
    printf("Guest data that cannot be brought back (it reads as zeros afterwards):\n\n");
    size_t i = 0;
    const struct q2_finding *f = next_loss(plan, &i);
    while (f) {
        uint64_t n_bytes = f->guest_bytes;
        const struct q2_finding *next = next_loss(plan, &i);
        for (; continues(f, n_bytes, next); next = next_loss(plan, &i))
            n_bytes += next->guest_bytes;
        print_loss(f, n_bytes);
        f = next;
    }
    printf("\n");
}

void q2_output_plan(const struct q2_plan *plan)
{
    size_t n;
    const struct q2_overlay_entry *log = q2_overlay_log(plan->overlay, &n);
    printf("The repair would do this:\n\n");
    for (size_t i = 0; i < n; i++) {
        const struct q2_overlay_entry *e = &log[i];
        if (e->kind == Q2_OVERLAY_FLUSH)
            printf("    flush\n");
        else if (e->kind == Q2_OVERLAY_SET_SIZE)
            printf("    set the file's size to %" PRIu64 "\n", e->offset);
        else if (e->n_bytes == 8)
            printf("    write 0x%016" PRIx64 " at offset %" PRIu64 "\n",
                   q2_load_be64(e->data), e->offset);
        else
            printf("    write %zu bytes at offset %" PRIu64 "\n", e->n_bytes, e->offset);
    }
    printf("\n");
}

static json_t *number(uint64_t value)
{
    return json_integer((json_int_t)value);
}

static json_t *hexadecimal(const uint8_t *data, size_t n_bytes)
{
    static const char digits[] = "0123456789abcdef";
    char text[2 * MAX_DATA + 1];
    for (size_t i = 0; i < n_bytes; i++) {
        text[2 * i] = digits[data[i] >> 4];
        text[2 * i + 1] = digits[data[i] & 15];
    }
    text[2 * n_bytes] = '\0';
    return json_string(text);
}

static json_t *problems_json(uint64_t problems)
{
    json_t *list = json_array();
    for (int i = 0; i < Q2_N_PROBLEMS; i++) {
        if (problems >> i & 1)
            json_array_append_new(list,
                                  json_string(q2_problem_info((enum q2_problem)i)->slug));
    }
    return list;
}

static void set_write(json_t *o, const struct q2_check_edit *edit)
{
    const struct q2_overlay_entry *e = edit->entry;
    json_object_set_new(o, "offset", number(e->offset));
    json_object_set_new(o, "length", number(e->n_bytes));
    if (e->n_bytes <= MAX_DATA) {
        json_object_set_new(o, "data", hexadecimal(e->data, e->n_bytes));
    } else {
        char text[16];
        snprintf(text, sizeof(text), "%08lx",
                 crc32_z(crc32(0, NULL, 0), e->data, e->n_bytes));
        json_object_set_new(o, "crc32", json_string(text));
    }
    if (*edit->structure)
        json_object_set_new(o, "structure", json_string(edit->structure));
}

static json_t *edit_json(const struct q2_check_edit *edit)
{
    static const char *const actions[] = {
        [Q2_OVERLAY_WRITE] = "write",
        [Q2_OVERLAY_FLUSH] = "flush",
        [Q2_OVERLAY_SET_SIZE] = "resize",
    };
    json_t *o = json_object();
    json_object_set_new(o, "action", json_string(actions[edit->entry->kind]));
    if (edit->entry->kind == Q2_OVERLAY_FLUSH)
        return o;
    if (edit->entry->kind == Q2_OVERLAY_WRITE)
        set_write(o, edit);
    else
        json_object_set_new(o, "size", number(edit->entry->offset));
    json_object_set_new(o, "problems", problems_json(edit->problems));
    return o;
}

static json_t *loss_json(const struct q2_finding *f)
{
    json_t *o = json_object();
    json_object_set_new(o, "problem", json_string(q2_problem_info(f->problem)->slug));
    json_object_set_new(o, "state", json_string(f->snapshot < 0 ? "active" : "snapshot"));
    if (f->snapshot >= 0) {
        json_object_set_new(o, "snapshot-index", json_integer(f->snapshot));
        json_object_set_new(o, "snapshot-name", q2_output_string(f->snapshot_name));
    }
    if (f->has & Q2_HAS_GUEST) {
        json_object_set_new(o, "guest-offset", number(f->guest_offset));
        json_object_set_new(o, "guest-bytes", number(f->guest_bytes));
    }
    return o;
}

static json_t *losses_json(const struct q2_plan *plan)
{
    json_t *list = json_array();
    for (size_t i = 0; i < plan->healed.n; i++) {
        if (plan->healed.list[i].lossy)
            json_array_append_new(list, loss_json(&plan->healed.list[i]));
    }
    return list;
}

static json_t *plan_json(const struct q2_plan *plan, const struct q2_check_edits *edits)
{
    json_t *o = json_object(), *list = json_array();
    for (size_t i = 0; i < edits->n && i < MAX_EDITS; i++)
        json_array_append_new(list, edit_json(&edits->list[i]));
    json_object_set_new(o, "complete", json_boolean(plan->complete));
    json_object_set_new(o, "leaks-kept", json_boolean(plan->leaks_kept));
    json_object_set_new(o, "edits", list);
    if (edits->n > MAX_EDITS)
        json_object_set_new(o, "edits-left-out", number(edits->n - MAX_EDITS));
    json_object_set_new(o, "losses", losses_json(plan));
    return o;
}

json_t *q2_output_plan_json(const struct q2_plan *plan,
                            const struct q2_check_edits *edits)
{
    json_t *o = json_object();
    if (edits)
        json_object_set_new(o, "plan", plan_json(plan, edits));
    else if (plan->n_lossy > 0)
        json_object_set_new(o, "losses", losses_json(plan));
    return o;
}
