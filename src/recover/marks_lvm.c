// SPDX-License-Identifier: MIT
// LVM: the label of a physical volume, and the text that says where logical volumes lie.
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "check/scan.h"
#include "recover/marks.h"

#define LABEL "LABELONE"
#define ID_BYTES 32U
#define TEXT_ID_BYTES 38U // with hyphens
#define SECTOR 512U
#define MAX_SECTORS ((uint64_t)1 << 50)
#define MAX_DEPTH 8U
#define MAX_PHYSICAL 64U
#define MAX_PIECES ((size_t)1 << 12)

struct word {
    const char *s;
    size_t n;
};

// A physical volume, as the text has it.
struct physical {
    struct word name;
    uint8_t id[16];
    uint64_t start; // of its first extent, in sectors
    uint64_t size;  // in sectors
};

struct segment {
    uint64_t first, n; // extents of the logical volume
    uint64_t on_first; // extent of the physical one
    uint64_t n_stripes;
    struct word on;
    bool plain;
};

struct reader {
    const char *s, *end;
    struct word path[MAX_DEPTH]; // sections, the innermost last
    size_t depth;
    uint8_t group[16];
    uint64_t seqno, extent; // in sectors
    struct physical physical[MAX_PHYSICAL];
    size_t n_physical;
    struct segment segment;
    struct q2_lvm_piece *pieces;
    size_t n, max;
    uint32_t device;
};

// Does q2_marks have pieces of that group, and of at least that age?
static bool is_known(const struct q2_marks *m, const struct reader *r)
{
    for (size_t i = 0; i < m->n_pieces; i++) {
        if (memcmp(m->pieces[i].group, r->group, 16) == 0)
            return m->pieces[i].seqno >= r->seqno;
    }
    return false;
}

static bool is(const struct word *w, const char *s)
{
    return w->n == strlen(s) && memcmp(w->s, s, w->n) == 0;
}

static bool is_name(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           c == '_' || c == '.' || c == '-' || c == '+';
}

static void skip_space(struct reader *r)
{
    bool comment = false;
    for (; r->s < r->end; r->s++) {
        if (*r->s == '#')
            comment = true;
        else if (*r->s == '\n')
            comment = false;
        else if (!comment && *r->s != ' ' && *r->s != '\t')
            return;
    }
}

// A name, a number, a string without its quotes, or a sign. False: the text is at its
// end.
static bool next(struct reader *r, struct word *w)
{
    skip_space(r);
    *w = (struct word){r->s, 0};
    if (r->s == r->end || *r->s == 0)
        return false;
    if (*r->s == '"') {
        w->s = ++r->s;
        while (r->s < r->end && *r->s != '"')
            r->s += *r->s == '\\' && r->end - r->s > 1 ? 2 : 1;
        w->n = (size_t)(r->s - w->s);
        r->s += r->s < r->end;
        return true;
    }
    while (r->s < r->end && is_name(*r->s))
        r->s++;
    r->s += r->s == w->s;
    w->n = (size_t)(r->s - w->s);
    return true;
}

static uint64_t number(const struct word *w)
{
    uint64_t value = 0;
    for (size_t i = 0; i < w->n && value < MAX_SECTORS; i++) {
        if (w->s[i] < '0' || w->s[i] > '9')
            return MAX_SECTORS;
        value = value * 10 + (uint64_t)(w->s[i] - '0');
    }
    return value;
}

// Without its hyphens, and of it what a volume keeps.
static void take_id(uint8_t id[16], const struct word *w)
{
    memset(id, 0, 16);
    for (size_t i = 0, n = 0; i < w->n && n < 16; i++) {
        if (w->s[i] != '-')
            id[n++] = (uint8_t)w->s[i];
    }
}

static void take_of_physical(struct reader *r, const struct word *name,
                             const struct word *value)
{
    struct physical *p = &r->physical[r->n_physical - 1];
    if (is(name, "id"))
        take_id(p->id, value);
    else if (is(name, "pe_start"))
        p->start = number(value);
    else if (is(name, "dev_size"))
        p->size = number(value);
}

static void take_of_segment(struct segment *s, const struct word *name,
                            const struct word values[2])
{
    if (is(name, "start_extent"))
        s->first = number(values);
    else if (is(name, "extent_count"))
        s->n = number(values);
    else if (is(name, "type"))
        s->plain = is(values, "striped");
    else if (is(name, "stripe_count"))
        s->n_stripes = number(values);
    else if (is(name, "stripes")) {
        s->on = values[0];
        s->on_first = number(&values[1]);
    }
}

static bool is_in(const struct reader *r, size_t depth, const char *section)
{
    return r->depth == depth && is(&r->path[1], section);
}

static void take(struct reader *r, const struct word *name, const struct word values[2])
{
    if (r->depth == 1 && is(name, "id"))
        take_id(r->group, values);
    else if (r->depth == 1 && is(name, "seqno"))
        r->seqno = number(values);
    else if (r->depth == 1 && is(name, "extent_size"))
        r->extent = number(values);
    else if (is_in(r, 3, "physical_volumes"))
        take_of_physical(r, name, values);
    else if (is_in(r, 4, "logical_volumes"))
        take_of_segment(&r->segment, name, values);
}

// False: more than there is room for.
static bool enter(struct reader *r, const struct word *name)
{
    if (r->depth == MAX_DEPTH)
        return false;
    r->path[r->depth++] = *name;
    if (is_in(r, 3, "physical_volumes")) {
        if (r->n_physical == MAX_PHYSICAL)
            return false;
        r->physical[r->n_physical++] = (struct physical){.name = *name};
    }
    r->device += is_in(r, 3, "logical_volumes");
    if (is_in(r, 4, "logical_volumes"))
        r->segment = (struct segment){0};
    return true;
}

// A segment that is all on one physical volume.
static int add_piece(struct reader *r, struct q2_error *err)
{
    const struct segment *s = &r->segment;
    const struct physical *p = NULL;
    void *list = r->pieces;
    for (size_t i = 0; i < r->n_physical && !p; i++) {
        if (r->physical[i].name.n == s->on.n &&
            memcmp(r->physical[i].name.s, s->on.s, s->on.n) == 0)
            p = &r->physical[i];
    }
    uint64_t most = r->extent ? MAX_SECTORS / r->extent : 0;
    if (!p || !s->plain || s->n_stripes != 1 || s->n == 0 || s->n > most ||
        s->first > most || s->on_first > most || p->start >= MAX_SECTORS ||
        r->n >= MAX_PIECES)
        return 0;
    int ret = q2_scan_grow(&list, &r->max, r->n, sizeof(*r->pieces), err);
    r->pieces = list;
    if (ret < 0)
        return ret;
    struct q2_lvm_piece *piece = &r->pieces[r->n++];
    *piece = (struct q2_lvm_piece){.device = r->device,
                                   .from = s->first * r->extent * SECTOR,
                                   .at = (p->start + s->on_first * r->extent) * SECTOR,
                                   .n_bytes = s->n * r->extent * SECTOR,
                                   .physical_size = p->size * SECTOR};
    memcpy(piece->physical, p->id, 16);
    return 0;
}

// One assignment; a list gives the first two of its values. False: it does not end.
static bool read_value(struct reader *r, const struct word *name)
{
    struct word values[2] = {{"", 0}, {"", 0}}, w;
    size_t n = 0;
    if (!next(r, &values[0]))
        return false;
    if (is(&values[0], "[")) {
        while (next(r, &w) && !is(&w, "]")) {
            if (!is(&w, ",") && n < 2)
                values[n++] = w;
        }
    }
    take(r, name, values);
    return true;
}

// A section ends. False: none has begun.
static int leave(struct reader *r, bool *ok, struct q2_error *err)
{
    *ok = r->depth > 0;
    if (!*ok)
        return 0;
    int ret = is_in(r, 4, "logical_volumes") ? add_piece(r, err) : 0;
    r->depth--;
    return ret;
}

// *whole: it ends where it should.
static int read_text(struct reader *r, bool *whole, struct q2_error *err)
{
    struct word name = {"", 0}, w;
    bool ok = true;
    int ret = 0;
    *whole = false;
    while (ret == 0 && ok && !*whole && next(r, &w)) {
        if (is(&w, "{"))
            ok = enter(r, &name);
        else if (is(&w, "="))
            ok = read_value(r, &name);
        else if (is(&w, "}"))
            ret = leave(r, &ok, err);
        else
            name = w;
        *whole = ok && is(&w, "}") && r->depth == 0;
    }
    return ret;
}

static bool is_before(const struct q2_lvm_piece *x, const struct q2_lvm_piece *y)
{
    return x->device < y->device || (x->device == y->device && x->from < y->from);
}

// In place of what older text says.
static int put_pieces(struct q2_marks *m, const struct reader *r, struct q2_error *err)
{
    size_t n = 0;
    uint32_t device = 0;
    int ret = 0;
    for (size_t i = 0; i < m->n_pieces; i++) {
        if (memcmp(m->pieces[i].group, r->group, 16) != 0)
            m->pieces[n++] = m->pieces[i];
    }
    m->n_pieces = n;
    if (n > 0)
        device = m->pieces[n - 1].device;
    for (size_t i = 0; i < r->n && m->n_pieces < MAX_PIECES && ret == 0; i++) {
        void *list = m->pieces;
        // In their order, or it is not what LVM writes.
        if (i > 0 && !is_before(&r->pieces[i - 1], &r->pieces[i]))
            break;
        ret = q2_scan_grow(&list, &m->max_pieces, m->n_pieces, sizeof(*m->pieces), err);
        m->pieces = list;
        if (ret < 0)
            break;
        struct q2_lvm_piece *p = &m->pieces[m->n_pieces++];
        *p = r->pieces[i];
        p->device += device;
        p->seqno = (uint32_t)q2_min_u64(r->seqno, UINT32_MAX);
        memcpy(p->group, r->group, 16);
    }
    return ret;
}

// A group's name, its id, and a number that no section in it has. Or a file with the same
// text: LVM keeps one in the guest's /etc.
static bool is_text(const char *s)
{
    static const char begin[] = " {\nid = \"", end[] = "\"\nseqno = ";
    static const char file[] = "# Generated by LVM2 ";
    size_t n = 0;
    if (memcmp(s, file, sizeof(file) - 1) == 0)
        return true;
    while (n < 128 && is_name(s[n]))
        n++;
    return n > 0 && n < 128 && memcmp(s + n, begin, sizeof(begin) - 1) == 0 &&
           memcmp(s + n + sizeof(begin) - 1 + TEXT_ID_BYTES, end, sizeof(end) - 1) == 0;
}

// It ends at the latest where another begins.
static int look_text(struct q2_marks *m, const struct q2_mark_place *p,
                     struct q2_error *err)
{
    const char *s = (const char *)p->sector;
    size_t n = SECTOR;
    while (n < p->n_bytes && !is_text(s + n))
        n += SECTOR;
    struct reader r = {.s = s, .end = s + n};
    bool whole;
    int ret = read_text(&r, &whole, err);
    if (ret == 0 && whole && r.n > 0 && !is_known(m, &r))
        ret = put_pieces(m, &r, err);
    free(r.pieces);
    return ret;
}

// It is in one of the first four sectors, and says in which.
static int look_label(struct q2_marks *m, const struct q2_mark_place *p,
                      struct q2_error *err)
{
    const uint8_t *s = p->sector;
    size_t v, at = q2_load_le32(s + 20);
    if (q2_load_le64(s + 8) >= 4 || at < 32 || at > SECTOR - ID_BYTES - 8)
        return 0;
    int ret = q2_marks_volume(m, s + at, &v, err);
    if (ret < 0 || v == 0)
        return ret;
    m->volumes[v].is_physical = true;
    m->volumes[v].size = q2_load_le64(s + at + ID_BYTES);
    return q2_marks_add(m, p, v, q2_load_le64(s + 8) * SECTOR, err);
}

int q2_marks_look_lvm(struct q2_marks *m, const struct q2_mark_place *p,
                      struct q2_error *err)
{
    if (memcmp(p->sector, LABEL, 8) == 0)
        return look_label(m, p, err);
    return is_text((const char *)p->sector) ? look_text(m, p, err) : 0;
}
