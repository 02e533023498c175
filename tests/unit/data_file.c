// SPDX-License-Identifier: MIT
// The order of writes between an image and its external data file: what is mapped is
// durable, in the other file too.
#include "image/data_file.h"

#include "io/memory.h"
#include "test.h"

#define CLUSTER UINT32_C(65536)
#define MAX_WRITES 64

// A file that passes everything on, and counts.
struct watched {
    struct q2_io io;
    struct q2_io *below;
    unsigned n_unflushed; // writes since the last flush
    // At each write: where, and how much of the other file was not flushed then.
    const struct watched *other;
    struct {
        uint64_t offset;
        unsigned n_other;
    } writes[MAX_WRITES];
    unsigned n_writes;
};

static struct watched *watched_of(struct q2_io *io)
{
    return (struct watched *)io;
}

static int watched_read(struct q2_io *io, uint64_t offset, void *buf, size_t n_bytes,
                        struct q2_error *err)
{
    return q2_io_read(watched_of(io)->below, offset, buf, n_bytes, err);
}

static void note(struct watched *w, uint64_t offset)
{
    w->n_unflushed++;
    if (w->n_writes == MAX_WRITES)
        abort();
    w->writes[w->n_writes].offset = offset;
    w->writes[w->n_writes++].n_other = w->other ? w->other->n_unflushed : 0;
}

static int watched_write(struct q2_io *io, uint64_t offset, const void *buf,
                         size_t n_bytes, struct q2_error *err)
{
    note(watched_of(io), offset);
    return q2_io_write(watched_of(io)->below, offset, buf, n_bytes, err);
}

static int watched_flush(struct q2_io *io, struct q2_error *err)
{
    watched_of(io)->n_unflushed = 0;
    return q2_io_flush(watched_of(io)->below, err);
}

static int watched_set_size(struct q2_io *io, uint64_t size, struct q2_error *err)
{
    return q2_io_set_size(watched_of(io)->below, size, err);
}

static int watched_get_size(struct q2_io *io, uint64_t *size, struct q2_error *err)
{
    return q2_io_get_size(watched_of(io)->below, size, err);
}

static int watched_zero(struct q2_io *io, uint64_t offset, uint64_t n_bytes, bool unmap,
                        struct q2_error *err)
{
    note(watched_of(io), offset);
    return q2_io_zero(watched_of(io)->below, offset, n_bytes, unmap, err);
}

static int watched_discard(struct q2_io *io, uint64_t offset, uint64_t n_bytes,
                           struct q2_error *err)
{
    note(watched_of(io), offset);
    return q2_io_discard(watched_of(io)->below, offset, n_bytes, err);
}

static void watched_close(struct q2_io *io)
{
    q2_io_close(watched_of(io)->below);
}

static const struct q2_io_ops watched_ops = {
    .read = watched_read,
    .write = watched_write,
    .flush = watched_flush,
    .set_size = watched_set_size,
    .get_size = watched_get_size,
    .zero = watched_zero,
    .discard = watched_discard,
    .close = watched_close,
};

struct pair {
    struct watched image, data;
    struct q2_image *img;
    struct q2_error err;
};

static void watch(struct watched *w, const struct watched *other, struct q2_error *err)
{
    *w = (struct watched){.io = {.ops = &watched_ops, .writable = true}, .other = other};
    if (q2_memory_open("watched", NULL, 0, &w->below, err) < 0)
        abort();
    w->io.sparse_growth = true;
}

static void make(struct pair *p, bool raw, bool lazy)
{
    p->err = (struct q2_error)Q2_ERROR_INIT;
    struct q2_header header = {
        .version = 3,
        .cluster_bits = 16,
        .size = 64 * CLUSTER,
        .refcount_order = 4,
        .header_length = Q2_HEADER_V3_BYTES,
        .incompatible_features = Q2_INCOMPAT_DATA_FILE,
        .compatible_features = lazy ? Q2_COMPAT_LAZY_REFCOUNTS : 0,
        .autoclear_features = raw ? Q2_AUTOCLEAR_DATA_FILE_RAW : 0,
        .data_file = strdup("data"),
    };
    watch(&p->data, NULL, &p->err);
    watch(&p->image, &p->data, &p->err);
    if (q2_image_new(&p->image.io, &header, &p->img, &p->err) < 0)
        abort();
    p->img->disk.data = &p->data.io;
    p->img->disk.path = strdup("image");
    if (q2_disk_flush(&p->img->disk, &p->err) < 0 ||
        q2_image_write_header(p->img, &p->err) < 0)
        abort();
    p->img->unpublished = false;
    p->image.n_writes = p->data.n_writes = 0;
}

static void end(struct pair *p)
{
    q2_disk_close(&p->img->disk);
}

static void write_at(struct pair *p, uint64_t offset, uint8_t value)
{
    uint8_t buf[512];
    memset(buf, value, sizeof(buf));
    is_int(q2_disk_write(&p->img->disk, offset, buf, sizeof(buf), &p->err), 0,
           "write at 0x%" PRIx64, offset);
}

static bool reads(struct pair *p, uint64_t offset, uint8_t value)
{
    uint8_t buf[512];
    bool good = q2_disk_read(&p->img->disk, offset, buf, sizeof(buf), &p->err) == 0;
    for (size_t i = 0; i < sizeof(buf); i++)
        good = good && buf[i] == value;
    return good;
}

// Every write to the L2 table of the image since `from` found the data file flushed.
static void mapping_was_last(const struct pair *p, unsigned from, const char *name)
{
    uint64_t l2 = p->img->l1[0] & Q2_OFFSET_MASK;
    unsigned n = 0, n_early = 0;
    for (unsigned i = from; i < p->image.n_writes; i++) {
        bool is_l2 = p->image.writes[i].offset - l2 < CLUSTER;
        n += is_l2;
        n_early += is_l2 && p->image.writes[i].n_other > 0;
    }
    ok(n > 0, "%s: the L2 table is written", name);
    is_u64(n_early, 0, "%s: after the data are durable", name);
    is_u64(p->data.n_unflushed, 0, "%s: at the end they are", name);
    is_u64(p->image.n_unflushed, 0, "%s: and the image, too", name);
}

static void order(bool raw, bool lazy)
{
    struct pair p;
    char name[64];
    make(&p, raw, lazy);
    snprintf(name, sizeof(name), "%s%s", raw ? "raw" : "not raw", lazy ? ", lazy" : "");
    write_at(&p, 3 * CLUSTER + 512, 7);
    ok(p.data.n_unflushed > 0, "%s: the data are written at once", name);
    is_int(q2_disk_flush(&p.img->disk, &p.err), 0, "%s: flush", name);
    mapping_was_last(&p, 0, name);
    // In place: nothing of the image changes, but the data are flushed.
    unsigned n = p.image.n_writes;
    write_at(&p, 3 * CLUSTER + 1024, 8);
    is_int(q2_disk_flush(&p.img->disk, &p.err), 0, "%s: flush", name);
    is_u64(p.image.n_writes, n, "%s: in place, the image stays", name);
    is_u64(p.data.n_unflushed, 0, "%s: in place, the data are flushed", name);
    // The end of a writer.
    write_at(&p, 9 * CLUSTER, 9);
    n = p.image.n_writes;
    is_int(q2_disk_finish(&p.img->disk, &p.err), 0, "%s: finish", name);
    mapping_was_last(&p, n, "finish");
    ok(reads(&p, 3 * CLUSTER + 512, 7) && reads(&p, 3 * CLUSTER + 1024, 8) &&
           reads(&p, 9 * CLUSTER, 9) && reads(&p, 3 * CLUSTER, 0),
       "%s: the guest sees it", name);
    end(&p);
}

// The last cluster of a disk that ends in the middle of it.
static void no_longer_than_the_disk(void)
{
    struct pair p;
    uint64_t size;
    make(&p, false, false);
    p.img->disk.size = 5 * CLUSTER + 1024;
    write_at(&p, 5 * CLUSTER + 512, 3);
    write_at(&p, 5 * CLUSTER, 3);
    ok(q2_io_get_size(&p.data.io, &size, &p.err) == 0 && size == p.img->disk.size,
       "the data file is as long as the disk");
    end(&p);
}

// Without its data file an image is no reason to crash.
static void closed(void)
{
    struct pair p;
    uint8_t buf[512] = {1};
    make(&p, false, false);
    write_at(&p, 0, 5);
    p.img->disk.data = NULL;
    ok(q2_disk_read(&p.img->disk, 0, buf, sizeof(buf), &p.err) < 0, "read: refused");
    has_str(p.err.message, "is not open", "it says why");
    p.err = (struct q2_error)Q2_ERROR_INIT;
    ok(q2_disk_write(&p.img->disk, 0, buf, sizeof(buf), &p.err) < 0, "write: refused");
    ok(q2_disk_write(&p.img->disk, CLUSTER, buf, sizeof(buf), &p.err) < 0,
       "write to a new place: refused");
    p.img->disk.data = &p.data.io;
    ok(reads(&p, 0, 5), "nothing has changed");
    end(&p);
}

int main(void)
{
    for (unsigned k = 0; k < 4; k++)
        order(k & 1, k & 2);
    no_longer_than_the_disk();
    closed();
    return done_testing();
}
