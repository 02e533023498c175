// SPDX-License-Identifier: MIT
// The player: chooses operations and does them.
#include "tests/crash/play.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "image/raw.h"
#include "io/memory.h"
#include "ops/convert.h"
#include "tests/unit/test.h"

static const char *const names[N_OP_KINDS] = {
    "write",          "zero", "zero and unmap", "discard", "write compressed",
    "write VM state", "read", "flush",          "reopen",  "convert"};

// Out of a hundred.
static const unsigned weights[N_OP_KINDS] = {30, 8, 11, 14, 10, 3, 6, 14, 4, 0};

static uint64_t next_random(struct stage *s, uint64_t limit)
{
    s->random ^= s->random >> 12;
    s->random ^= s->random << 25;
    s->random ^= s->random >> 27;
    return (s->random * UINT64_C(2685821657736338717) >> 16) % limit;
}

unsigned play_runs(unsigned otherwise)
{
    const char *runs = getenv("Q2_CRASH_RUNS");
    return runs ? (unsigned)strtoul(runs, NULL, 0) : otherwise;
}

uint64_t play_seed(void)
{
    const char *asked = getenv("Q2_SEED");
    uint64_t seed = asked ? strtoull(asked, NULL, 0) : 1;
    printf("# Q2_SEED=%" PRIu64 "\n", seed);
    return seed;
}

static bool play_runs_of(const struct play_matrix *m, uint64_t seed, unsigned n_runs,
                         bool lies)
{
    bool good = true;
    for (unsigned k = 0; k < n_runs; k++) {
        for (size_t i = 0; i < m->n_recipes; i++) {
            struct fixture f;
            struct recipe r = m->recipes[i];
            r.backing = r.backing || m->backing;
            if (r.size == 0)
                r.size = r.cluster_bits < 12 ? 192 << 10 : UINT64_C(24) << r.cluster_bits;
            fixture_make(&f, &r, m->max_record);
            if (m->runtime && k % 2)
                fixture_choose_runtime(&f, m->runtime);
            good = m->run(&f, seed + k * 100 + i, lies) && good;
            fixture_clear(&f);
        }
    }
    return good;
}

bool play_matrix(const struct play_matrix *m)
{
    uint64_t seed = play_seed();
    play_runs_of(m, seed, play_runs(2), false);
    return !play_runs_of(m, seed, 1, true);
}

void play_recipes(const struct recipe *recipes, size_t n_recipes,
                  void (*run)(const struct recipe *r, unsigned runtime, uint64_t seed))
{
    uint64_t seed = play_seed();
    for (unsigned k = 0; k < play_runs(1); k++) {
        for (size_t i = 0; i < n_recipes; i++) {
            run(&recipes[i], 0, seed + k * 100 + i);
            run(&recipes[i], 7, seed + k * 100 + 50 + i);
        }
    }
}

void stage_flushed(struct stage *s)
{
    model_flush(&s->model);
    model_flush(&s->vmstate);
}

void stage_open(struct stage *s, struct fixture *f, uint64_t seed)
{
    struct q2_error err = Q2_ERROR_INIT;
    *s = (struct stage){.f = f, .random = seed * 2 + 1};
    for (int i = 0; i < 8; i++)
        next_random(s, 1); // seeds that are near to one another part
    if (fixture_open(f, f->fault, true, &s->img, &err) < 0)
        give_up("%s: %s", f->name, err.message);
    size_t size = (size_t)s->img->disk.size;
    s->most = size / 8;
    s->no_packed = q2_image_is_encrypted(s->img) || q2_image_has_data_file(s->img);
    s->buf = calloc(1, size + VMSTATE_BYTES);
    if (!s->buf || q2_disk_read(&s->img->disk, 0, s->buf, size, &err) < 0)
        give_up("%s: %s", f->name, err.message);
    model_new(&s->vmstate, s->buf + size, VMSTATE_BYTES);
    model_new(&s->model, s->buf, size);
}

void stage_close(struct stage *s)
{
    if (s->img)
        fixture_close(s->img);
    model_clear(&s->model);
    model_clear(&s->vmstate);
    free(s->buf);
}

static enum op_kind random_kind(struct stage *s)
{
    unsigned at = (unsigned)next_random(s, 100), kind = 0;
    while (at >= weights[kind])
        at -= weights[kind++];
    return kind;
}

// Short ones and long ones, on borders of clusters and off them.
static void random_range(struct stage *s, struct op *op)
{
    uint64_t size = s->model.n_bytes, cluster = s->img->cluster_size;
    uint64_t unit = s->sectors ? SECTOR : 1;
    uint64_t limit = next_random(s, 3) == 0 ? s->most : q2_min_u64(s->most, 3 * cluster);
    op->offset = next_random(s, size / unit) * unit;
    op->n_bytes = (size_t)((next_random(s, limit / unit) + 1) * unit);
    if (next_random(s, 2) == 0)
        op->offset = q2_align_down(op->offset, cluster);
    if (next_random(s, 2) == 0)
        op->n_bytes = (size_t)q2_align_up(op->n_bytes, cluster);
    op->n_bytes = (size_t)q2_min_u64(op->n_bytes, size - op->offset);
}

struct op op_random(struct stage *s)
{
    struct op op = {.kind = random_kind(s), .number = ++s->n_ops};
    if (op.kind == OP_PACKED && s->no_packed)
        op.kind = OP_WRITE;
    random_range(s, &op);
    if (op.kind == OP_VMSTATE) {
        op.offset = q2_align_down(next_random(s, VMSTATE_BYTES), SECTOR);
        op.n_bytes = (size_t)q2_min_u64(op.n_bytes, VMSTATE_BYTES - op.offset);
    }
    if (op.kind == OP_PACKED) {
        uint64_t cluster = s->img->cluster_size;
        op.offset = q2_align_down(op.offset, cluster);
        op.n_bytes = (size_t)q2_min_u64(cluster, s->model.n_bytes - op.offset);
    }
    op.seed = next_random(s, UINT32_MAX) + 1;
    return op;
}

struct op op_copy(struct stage *s)
{
    return (struct op){.kind = OP_COPY,
                       .number = ++s->n_ops,
                       .n_bytes = s->model.n_bytes,
                       .seed = next_random(s, UINT32_MAX) + 1};
}

const char *op_text(const struct op *op)
{
    static char text[128];
    if (op_is_flush(op))
        snprintf(text, sizeof(text), "%" PRIu32 ": %s", op->number, names[op->kind]);
    else
        snprintf(text, sizeof(text), "%" PRIu32 ": %s 0x%" PRIx64 "+%zu", op->number,
                 names[op->kind], op->offset, op->n_bytes);
    return text;
}

// Noise, or words that compress well, each sector unlike every other; sometimes zeros.
static void fill(const struct op *op, uint8_t *buf)
{
    uint64_t x = op->seed, style = op->seed % 8;
    for (size_t i = 0; i < op->n_bytes; i += 8) {
        uint64_t word = style == 7 ? 0 : op->seed << 32 | (op->offset + i) / SECTOR << 3;
        if (style < 3) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            word = x;
        }
        size_t n = op->n_bytes - i < 8 ? op->n_bytes - i : 8;
        memcpy(buf + i, &word, n);
    }
}

// A whole disk: pieces of every kind, one of them zeros.
static void fill_disk(const struct op *op, uint8_t *buf)
{
    size_t piece = (size_t)q2_align_up(op->n_bytes / 16, SECTOR);
    for (size_t at = 0; at < op->n_bytes; at += piece) {
        struct op part = *op;
        part.offset = at;
        part.n_bytes = (size_t)q2_min_u64(piece, op->n_bytes - at);
        part.seed += at / piece;
        fill(&part, buf + at);
    }
}

// What a discard lets go of: whole clusters, which read as zeros then. Version 2 has no
// way to say so above a backing file, and does nothing.
static void model_discard(struct stage *s, const struct op *op)
{
    uint64_t cluster = s->img->cluster_size, end = op->offset + op->n_bytes;
    uint64_t first = q2_align_up(op->offset, cluster);
    uint64_t last = end == s->model.n_bytes ? end : q2_align_down(end, cluster);
    bool none = s->img->header.version == 2 && s->img->header.backing_file;
    if (first < last && !none)
        model_write(&s->model, first, NULL, (size_t)(last - first), op->number);
}

void op_model(struct stage *s, const struct op *op)
{
    switch (op->kind) {
    case OP_WRITE:
    case OP_PACKED:
        fill(op, s->buf);
        model_write(&s->model, op->offset, s->buf, op->n_bytes, op->number);
        break;
    case OP_COPY:
        fill_disk(op, s->buf);
        model_write(&s->model, 0, s->buf, op->n_bytes, op->number);
        break;
    case OP_VMSTATE:
        fill(op, s->buf);
        model_write(&s->vmstate, op->offset, s->buf, op->n_bytes, op->number);
        break;
    case OP_ZERO:
    case OP_ZERO_UNMAP:
        model_write(&s->model, op->offset, NULL, op->n_bytes, op->number);
        break;
    case OP_DISCARD:
        model_discard(s, op);
        break;
    case OP_READ:
    case OP_FLUSH:
    case OP_REOPEN:
    case N_OP_KINDS:
        break;
    }
}

static int read_and_compare(struct stage *s, const struct op *op, struct q2_error *err)
{
    int ret = q2_disk_read(&s->img->disk, op->offset, s->buf, op->n_bytes, err);
    if (ret < 0)
        return ret;
    bool good =
        model_equals(&s->model, op->offset, s->buf, op->n_bytes, s->why, sizeof(s->why));
    if (good)
        ret = q2_image_read_vmstate(s->img, 0, s->buf, VMSTATE_BYTES, err);
    if (good && ret == 0)
        good =
            model_equals(&s->vmstate, 0, s->buf, VMSTATE_BYTES, s->why, sizeof(s->why));
    if (good)
        return ret;
    return q2_fail(err, -EUCLEAN, "%s", s->why);
}

// May be asked again when it failed, at whichever step.
static int reopen(struct stage *s, struct q2_error *err)
{
    int ret = s->img ? q2_disk_finish(&s->img->disk, err) : 0;
    if (ret < 0)
        return ret;
    if (s->img)
        fixture_close(s->img);
    s->img = NULL;
    return fixture_open(s->f, s->f->fault, true, &s->img, err);
}

static int copy_disk(struct stage *s, const struct op *op, struct q2_error *err)
{
    const struct q2_convert_options options = {.n_threads = 1,
                                               .sparse_grain = 4096,
                                               .compress =
                                                   op->seed % 3 == 0 && !s->no_packed};
    struct q2_io *memory;
    struct q2_disk *source;
    fill_disk(op, s->buf);
    if (q2_memory_open("source", s->buf, op->n_bytes, &memory, err) < 0 ||
        q2_raw_open(memory, false, &source, err) < 0)
        give_up("%s", err->message);
    source->path = strdup("source");
    int ret = q2_convert(&source, 1, &s->img->disk, &options, NULL, err);
    q2_disk_close(source);
    return ret;
}

int op_image(struct stage *s, const struct op *op, struct q2_error *err)
{
    struct q2_disk *d = s->img ? &s->img->disk : NULL;
    switch (op->kind) {
    case OP_WRITE:
        fill(op, s->buf);
        return q2_disk_write(d, op->offset, s->buf, op->n_bytes, err);
    case OP_PACKED:
        fill(op, s->buf);
        return q2_disk_write_compressed(d, op->offset, s->buf, op->n_bytes, err);
    case OP_COPY:
        return copy_disk(s, op, err);
    case OP_VMSTATE:
        fill(op, s->buf);
        return q2_image_write_vmstate(s->img, op->offset, s->buf, op->n_bytes, err);
    case OP_ZERO:
        return q2_disk_write_zeroes(d, op->offset, op->n_bytes, 0, err);
    case OP_ZERO_UNMAP:
        return q2_disk_write_zeroes(d, op->offset, op->n_bytes, Q2_ZERO_UNMAP, err);
    case OP_DISCARD:
        return q2_disk_discard(d, op->offset, op->n_bytes, err);
    case OP_READ:
        return read_and_compare(s, op, err);
    case OP_FLUSH:
        return q2_disk_flush(d, err);
    case OP_REOPEN:
        return reopen(s, err);
    case N_OP_KINDS:
        break;
    }
    return 0;
}
