// SPDX-License-Identifier: MIT
// What a recovery could not use of a file: clusters with something in them that nothing
// of the new image leads to.
#include "ops/leftovers.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/checked.h"
#include "base/endian.h"
#include "base/zero.h"
#include "io/file.h"
#include "recover/marks.h"

#define COPY_BYTES ((size_t)65536)
#define NOTE_BYTES ((size_t)4096)
// So many marks of a run are noted.
#define MAX_MARKS 16U

const char *const q2_leftover_names[Q2_LEFT_KINDS] = {
    "data", "l2-tables", "old-l2-tables", "l1-tables", "free"};
static const char *const meanings[Q2_LEFT_KINDS] = {
    "guest data, perhaps compressed, or something that has overwritten a table",
    "an L2 table that got no place",
    "an L2 table, an older copy of another one",
    "an L1 table",
    "not in use, by the refcounts that were found",
};

struct run {
    uint64_t start, end;
    enum q2_leftover kind;
};

struct search {
    struct q2_io *io;
    const struct q2_recovery *r;
    const struct q2_counters *references;
    struct q2_counters *blocks; // clusters of refcount blocks
    const char *dir;
    uint64_t cluster_size, file_size;
    uint8_t *buf; // for a cluster, and COPY_BYTES at least
    struct run run;
    struct q2_leftovers *out;
};

// --- files ----------------------------------------------------------------------------

static int copy_run(const struct search *s, const struct run *run, struct q2_io *to,
                    struct q2_error *err)
{
    int ret = 0;
    for (uint64_t at = run->start, n; at < run->end && ret == 0; at += n) {
        n = q2_min_u64(run->end - at, COPY_BYTES);
        ret = q2_io_read(s->io, at, s->buf, (size_t)n, err);
        if (ret == 0)
            ret = q2_io_write(to, at - run->start, s->buf, (size_t)n, err);
    }
    return ret;
}

static int find_marks(const struct search *s, const struct run *run, struct q2_marks *m,
                      struct q2_error *err)
{
    int ret = 0;
    for (uint64_t at = run->start; at < run->end && m->n < MAX_MARKS && ret == 0;
         at += COPY_BYTES) {
        size_t n = (size_t)q2_min_u64(run->end - at, COPY_BYTES);
        memset(s->buf, 0, COPY_BYTES);
        ret = q2_io_read(s->io, at, s->buf, n, err);
        if (ret == 0)
            ret = q2_marks_look(m, 0, at - run->start, s->buf, COPY_BYTES, err);
    }
    return ret;
}

static void describe_mark(const struct q2_marks *m, const struct q2_mark *mark,
                          const struct run *run, char *text, size_t room)
{
    const uint8_t *id = m->volumes[mark->volume].id;
    int n = snprintf(text, room, "mark: 0x%" PRIx64 " belongs at %" PRIu64 " of the %s",
                     run->start + mark->in_table, mark->position,
                     mark->volume > 0 ? "file system " : "disk");
    for (size_t i = 0; i < 16 && mark->volume > 0; i++)
        n += snprintf(text + n, room - (size_t)n, "%02x", id[i]);
    snprintf(text + n, room - (size_t)n, "\n");
}

static int make_note(const struct search *s, const struct run *run, char *text,
                     struct q2_error *err)
{
    struct q2_marks m;
    int ret = q2_marks_init(&m, err);
    if (ret < 0)
        return ret;
    int n = snprintf(text, NOTE_BYTES,
                     "offset: 0x%" PRIx64 "\nbytes: %" PRIu64 "\nguess: %s\n", run->start,
                     run->end - run->start, meanings[run->kind]);
    if (run->kind == Q2_LEFT_DATA || run->kind == Q2_LEFT_FREE)
        ret = find_marks(s, run, &m, err);
    for (size_t i = 0; i < m.n && i < MAX_MARKS && ret == 0; i++) {
        describe_mark(&m, &m.list[i], run, text + n, NOTE_BYTES - (size_t)n);
        n += (int)strlen(text + n);
    }
    q2_marks_clear(&m);
    return ret;
}

static int create(const struct search *s, const struct run *run, const char *ending,
                  struct q2_io **out, struct q2_error *err)
{
    const struct q2_file_options options = {
        .writable = true, .exclusive = true, .lock = Q2_LOCK_WRITE};
    size_t room = strlen(s->dir) + 40;
    char *path = malloc(room);
    bool made;
    if (!path)
        return q2_fail_memory(err, room);
    snprintf(path, room, "%s/0x%012" PRIx64 ".%s", s->dir, run->start, ending);
    int ret = q2_file_create(path, &options, out, &made, err);
    free(path);
    return ret;
}

// Closes it; what is not whole goes.
static void finish(struct q2_io *io, int ret)
{
    if (ret < 0)
        q2_file_abandon(io, true);
    q2_io_close(io);
}

static int write_run(const struct search *s, const struct run *run, struct q2_error *err)
{
    char *text = malloc(NOTE_BYTES);
    struct q2_io *data, *note;
    int ret = text ? make_note(s, run, text, err) : q2_fail_memory(err, NOTE_BYTES);
    if (ret == 0)
        ret = create(s, run, "data", &data, err);
    if (ret == 0) {
        ret = copy_run(s, run, data, err);
        finish(data, ret);
    }
    if (ret == 0)
        ret = create(s, run, "txt", &note, err);
    if (ret == 0) {
        ret = q2_io_write(note, 0, text, strlen(text), err);
        finish(note, ret);
    }
    free(text);
    return ret;
}

// --- the search
// -------------------------------------------------------------------------

static int end_run(struct search *s, struct q2_error *err)
{
    struct run run = s->run;
    s->run.end = s->run.start = 0;
    if (run.end == 0)
        return 0;
    s->out->n_runs++;
    s->out->bytes[run.kind] += run.end - run.start;
    if (!s->dir || s->out->n_written >= Q2_LEFTOVERS_MAX_RUNS)
        return 0;
    s->out->n_written++;
    return write_run(s, &run, err);
}

static int judge(const struct search *s, uint64_t offset, enum q2_leftover *kind,
                 struct q2_error *err)
{
    const struct q2_found_table *t = q2_found_at(&s->r->found, offset);
    uint64_t count = UINT64_MAX;
    int ret = 0;
    if (t && !t->is_l1) {
        *kind = t->stale ? Q2_LEFT_OLD_L2 : Q2_LEFT_L2;
        return 0;
    }
    if (s->r->counts.table != 0)
        ret = q2_counts_read(s->io, &s->r->counts, offset, &count, err);
    *kind = count == 0 ? Q2_LEFT_FREE : t ? Q2_LEFT_L1 : Q2_LEFT_DATA;
    return ret;
}

// A cluster that nothing leads to.
static int look_at(struct search *s, uint64_t offset, struct q2_error *err)
{
    uint64_t end = q2_min_u64(offset + s->cluster_size, s->file_size);
    size_t n = (size_t)(end - offset);
    enum q2_leftover kind;
    int ret = q2_io_read(s->io, offset, s->buf, n, err);
    if (ret < 0 || q2_is_zero(s->buf, n))
        return ret;
    ret = judge(s, offset, &kind, err);
    if (ret == 0 && (s->run.end != offset || s->run.kind != kind)) {
        ret = end_run(s, err);
        s->run = (struct run){offset, end, kind};
    }
    s->run.end = end;
    return ret;
}

// The L1 table that the new one was made of has served, and so have the refcounts.
static bool is_served(const struct search *s, uint64_t offset)
{
    const struct q2_recovery *r = s->r;
    const struct q2_l1_found *l = r->chosen < r->n_l1s ? &r->l1s[r->chosen] : NULL;
    const struct q2_found_table *t = q2_found_at(&r->found, offset);
    if ((t && t->counts) || q2_counters_get(s->blocks, offset / s->cluster_size) > 0)
        return true;
    return l && offset >= l->offset &&
           offset - l->offset < q2_align_up(l->n_entries * 8, s->cluster_size);
}

static int look_at_all(struct search *s, const struct q2_monitor *mon,
                       struct q2_error *err)
{
    uint64_t data_end = 0;
    int ret = 0;
    for (uint64_t at = 0, n; at < s->file_size && ret == 0;) {
        uint64_t end = q2_min_u64(at + s->cluster_size, s->file_size);
        bool data = true;
        if (at >= data_end)
            ret = q2_io_extent(s->io, at, &n, &data, err);
        if (ret < 0)
            break;
        if (!data && n >= end - at) {
            at = n >= s->file_size - at ? s->file_size
                                        : q2_align_down(at + n, s->cluster_size);
            continue;
        }
        if (at >= data_end)
            data_end = data ? at + n : end;
        if (q2_counters_get(s->references, at / s->cluster_size) > 0)
            s->out->mapped += end - at;
        else if (!is_served(s, at))
            ret = look_at(s, at, err);
        at = end;
        if (ret == 0 && q2_monitor_cancelled(mon))
            ret = q2_fail(err, -ECANCELED, "Interrupted");
    }
    return ret == 0 ? end_run(s, err) : ret;
}

// Blocks that count themselves.
static int note_blocks(struct search *s, struct q2_error *err)
{
    const struct q2_counts_place *p = &s->r->counts;
    uint64_t end = p->table + p->n_clusters * s->cluster_size, block, count;
    int ret = 0;
    for (uint64_t at = p->table, n; at < end && ret == 0; at += n) {
        n = q2_min_u64(end - at, s->cluster_size);
        ret = q2_io_read(s->io, at, s->buf, (size_t)n, err);
        for (size_t i = 0; i < n && ret == 0; i += 8) {
            block = q2_load_be64(s->buf + i);
            if (block == 0 || block >= s->file_size)
                continue;
            ret = q2_counts_read(s->io, p, block, &count, err);
            if (ret == 0 && count == 1)
                ret = q2_counters_add(s->blocks, block / s->cluster_size, 1, 1, err);
        }
    }
    return ret;
}

static int make_folder(const char *dir, struct q2_error *err)
{
    struct stat st;
    if (!dir || mkdir(dir, 0777) == 0)
        return 0;
    int code = -errno;
    if (code == -EEXIST && stat(dir, &st) == 0 && S_ISDIR(st.st_mode))
        return 0;
    return q2_fail_errno(err, code, "Could not create '%s'", dir);
}

int q2_leftovers_find(struct q2_io *io, const struct q2_recovery *r,
                      const struct q2_counters *references, const char *dir,
                      const struct q2_monitor *mon, struct q2_leftovers *out,
                      struct q2_error *err)
{
    struct search s = {.io = io, .r = r, .references = references, .dir = dir};
    s.out = out;
    s.cluster_size = UINT64_C(1) << r->layout.cluster_bits;
    size_t room = q2_to_size(q2_max_u64(s.cluster_size, COPY_BYTES));
    s.buf = malloc(room);
    s.blocks = q2_counters_new_scattered();
    *out = (struct q2_leftovers){0};
    int ret = s.buf && s.blocks ? q2_io_get_size(io, &s.file_size, err)
                                : q2_fail_memory(err, room);
    if (ret == 0)
        ret = make_folder(dir, err);
    if (ret == 0)
        ret = note_blocks(&s, err);
    if (ret == 0)
        ret = look_at_all(&s, mon, err);
    free(s.buf);
    q2_counters_free(s.blocks);
    return ret;
}
