// SPDX-License-Identifier: MIT
// Memory files against a plain array, and what struct q2_io promises of every file.
#include "io/memory.h"

#include <errno.h>
#include <pthread.h>

#include "base/checked.h"
#include "test.h"

#define ROOM ((size_t)64 * 1024)

struct model {
    uint8_t bytes[ROOM];
    uint64_t size;
};

static void fill_random(uint8_t *buf, size_t n, uint64_t *seed)
{
    for (size_t i = 0; i < n; i++)
        buf[i] = (uint8_t)test_random(seed);
}

static void model_grow(struct model *m, uint64_t end)
{
    if (end > m->size)
        m->size = end;
}

static int step(struct q2_io *io, struct model *m, uint64_t *seed, struct q2_error *err)
{
    static uint8_t buf[ROOM];
    uint64_t at = test_random(seed) % ROOM;
    size_t n = (size_t)(test_random(seed) % (ROOM - at + 1));

    if (test_random(seed) % 2)
        n %= 300;
    switch (test_random(seed) % 8) {
    case 0:
        memset(m->bytes + at, 0, n);
        if (n)
            model_grow(m, at + n);
        return q2_io_zero(io, at, n, test_random(seed) % 2, err);
    case 1:
        if (at < m->size)
            memset(m->bytes + at, 0, (size_t)q2_min_u64(n, m->size - at));
        return q2_io_discard(io, at, n, err);
    case 2:
        if (at < m->size)
            memset(m->bytes + at, 0, (size_t)(ROOM - at));
        m->size = at;
        return q2_io_set_size(io, at, err);
    case 3:
        if (n)
            model_grow(m, at + n);
        return q2_io_allocate(io, at, n, err);
    default:
        fill_random(buf, n, seed);
        memcpy(m->bytes + at, buf, n);
        if (n)
            model_grow(m, at + n);
        return q2_io_write(io, at, buf, n, err);
    }
}

static bool same(struct q2_io *io, const struct model *m)
{
    static uint8_t buf[ROOM];
    struct q2_error err = Q2_ERROR_INIT;
    uint64_t size;

    if (q2_io_get_size(io, &size, &err) < 0 || size != m->size)
        return false;
    // beyond the end too: zeros
    return q2_io_read(io, 0, buf, ROOM, &err) == 0 && memcmp(buf, m->bytes, ROOM) == 0;
}

// Extents cover the file once, holes read as zeros.
static bool extents_hold(struct q2_io *io, const struct model *m)
{
    struct q2_error err = Q2_ERROR_INIT;
    uint64_t at = 0;

    while (at < m->size) {
        uint64_t n;
        bool data;
        if (q2_io_extent(io, at, &n, &data, &err) < 0 || n == 0 || n > m->size - at)
            return false;
        for (uint64_t i = 0; !data && i < n; i++)
            if (m->bytes[at + i])
                return false;
        at += n;
    }
    return true;
}

static void against_array(uint64_t seed)
{
    static struct model m;
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *io;
    bool good = true;
    uint64_t first = seed;

    memset(&m, 0, sizeof(m));
    if (!is_int(q2_memory_open("mem", NULL, 0, &io, &err), 0, "opens"))
        return;
    for (unsigned i = 0; i < 400 && good; i++)
        good = step(io, &m, &seed, &err) == 0 && same(io, &m) && extents_hold(io, &m);
    ok(good, "random operations, seed %" PRIu64 ": as an array %s", first, err.message);
    q2_io_close(io);
}

static void initial_content(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *io;
    char buf[8];
    uint64_t size = 0;

    q2_memory_open("m", "hello", 5, &io, &err);
    is_str(io->name, "m", "keeps its name");
    ok(io->writable && io->sparse_growth && !io->new_content, "says what it is");
    is_int(q2_io_get_size(io, &size, &err), 0, "has a size");
    is_u64(size, 5, "that of the content");
    is_int(q2_io_read(io, 1, buf, 8, &err), 0, "reads beyond the end");
    ok(memcmp(buf, "ello\0\0\0\0", 8) == 0, "as zeros");
    is_int(q2_io_read_exact(io, 1, buf, 4, &err), 0, "reads exactly what is there");
    is_int(q2_io_read_exact(io, 1, buf, 5, &err), -EIO, "and no byte more");
    has_str(err.message, "ends at byte 5", "says where the end is");
    q2_io_close(io);
    q2_io_close(NULL);
}

static void refuses(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *io;
    char c = 'x';

    q2_memory_open("m", NULL, 0, &io, &err);
    is_int(q2_io_write(io, INT64_MAX, &c, 1, &err), -EFBIG, "no byte behind 2^63-1");
    is_int(q2_io_write(io, UINT64_MAX, &c, 1, &err), -EFBIG, "nor where the sum wraps");
    has_str(err.message, "18446744073709551615", "names the offset");
    is_int(q2_io_read(io, UINT64_MAX, &c, 1, &err), -EFBIG, "reading neither");
    is_int(q2_io_set_size(io, UINT64_MAX, &err), -EFBIG, "nor a size beyond");
    is_int(q2_io_write(io, INT64_MAX - 1, &c, 1, &err), 0, "the last byte is fine");

    io->writable = false;
    is_int(q2_io_write(io, 0, &c, 1, &err), -EBADF, "read only: no write");
    is_int(q2_io_zero(io, 0, 1, true, &err), -EBADF, "no zero");
    is_int(q2_io_discard(io, 0, 1, &err), -EBADF, "no discard");
    is_int(q2_io_allocate(io, 0, 1, &err), -EBADF, "no allocate");
    is_int(q2_io_set_size(io, 0, &err), -EBADF, "no resize");
    has_str(err.message, "for reading only", "says why");
    is_int(q2_io_read(io, 0, &c, 1, &err), 0, "but reads");
    q2_io_close(io);
}

// A file of 2^62 bytes costs what is in it.
static void sparse(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *io;
    uint64_t n;
    bool data;
    const uint64_t far = UINT64_C(1) << 62;

    q2_memory_open("m", "a", 1, &io, &err);
    q2_io_write(io, far, "b", 1, &err);
    is_int(q2_io_disk_usage(io, &n, &err), 0, "has disk usage");
    is_u64(n, 8192, "of two pages");
    q2_io_extent(io, 0, &n, &data, &err);
    ok(data && n == 4096, "first page is data");
    q2_io_extent(io, 4096, &n, &data, &err);
    ok(!data && n == far - 4096, "then a hole up to the last");
    is_int(q2_io_zero(io, 1, far - 1, true, &err), 0, "a huge range is zeroed at once");
    q2_io_set_size(io, 1, &err);
    q2_io_disk_usage(io, &n, &err);
    is_u64(n, 4096, "cut: one page is left");
    is_int(q2_io_extent(io, 1, &n, &data, &err), -EIO, "no extent beyond the end");
    q2_io_close(io);
}

struct shared {
    struct q2_io *io;
    unsigned id;
    bool good;
};

static void *write_own_part(void *opaque)
{
    struct shared *s = opaque;
    struct q2_error err = Q2_ERROR_INIT;
    uint8_t buf[100];
    uint8_t back[100];

    s->good = true;
    memset(buf, (int)s->id + 1, sizeof(buf));
    for (uint64_t i = 0; i < 2000; i++) {
        uint64_t at = (i * 4 + s->id) * sizeof(buf);
        s->good = s->good && q2_io_write(s->io, at, buf, sizeof(buf), &err) == 0 &&
                  q2_io_read(s->io, at, back, sizeof(back), &err) == 0 &&
                  memcmp(buf, back, sizeof(buf)) == 0;
    }
    return NULL;
}

static void threads(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct shared s[4];
    pthread_t t[4];
    uint64_t size = 0;

    q2_memory_open("m", NULL, 0, &s[0].io, &err);
    for (unsigned i = 0; i < 4; i++) {
        s[i].io = s[0].io;
        s[i].id = i;
        if (pthread_create(&t[i], NULL, write_own_part, &s[i]) != 0)
            abort();
    }
    for (unsigned i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    for (unsigned i = 0; i < 4; i++)
        ok(s[i].good, "thread %u reads what it wrote", i);
    q2_io_get_size(s[0].io, &size, &err);
    is_u64(size, 4 * 2000 * 100, "all of it is there");
    q2_io_close(s[0].io);
}

int main(void)
{
    initial_content();
    refuses();
    for (uint64_t seed = 1; seed <= 5; seed++)
        against_array(seed);
    sparse();
    threads();
    return done_testing();
}
