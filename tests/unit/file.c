// SPDX-License-Identifier: MIT
// Files of the system: against a plain array, with and without O_DIRECT; errors; files
// that shrink; making and abandoning; locks between two descriptors.
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "test.h"

#define ROOM ((size_t)96 * 1024)

static char dir[4096];

static const struct q2_file_options read_only;
static const struct q2_file_options read_write = {.writable = true};

static struct q2_io *create(const char *path, const struct q2_file_options *options,
                            bool *made)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *io = NULL;
    is_int(q2_file_create(path, options, &io, made, &err), 0, "create %s %s", path,
           err.message);
    return io;
}

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    if (!f || fputs(text, f) < 0 || fclose(f) != 0)
        abort();
}

static int64_t size_of(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 ? (int64_t)st.st_size : -1;
}

static void open_errors(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *io = NULL;
    bool made;

    is_int(q2_file_open("missing", &read_only, &io, &err), -ENOENT, "missing file");
    is_str(err.message, "Could not open 'missing': No such file or directory", "text");
    mkdir("d", 0755);
    is_int(q2_file_open("d", &read_only, &io, &err), -EISDIR, "directory");
    is_str(err.message, "'file' driver requires 'd' to be a regular file", "text");
    is_int(q2_file_open("d", &read_write, &io, &err), -EISDIR, "directory, for writing");
    is_int(q2_file_create("d", &read_write, &io, &made, &err), -EISDIR, "made of it");
    is_str(err.message, "Could not create 'd': Is a directory", "text");
    is_int(q2_file_create("no/x", &read_write, &io, &made, &err), -ENOENT, "no folder");
    is_str(err.message, "Could not create 'no/x': No such file or directory", "text");
    if (mkfifo("fifo", 0644) != 0)
        abort();
    is_int(q2_file_open("fifo", &read_only, &io, &err), -EINVAL, "a pipe does not block");
    is_str(err.message, "'file' driver requires 'fifo' to be a regular file", "text");
    ok(io == NULL, "nothing was opened");
}

static void make_and_abandon(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    bool made = false;

    struct q2_io *io = create("new", &read_write, &made);
    ok(made && io->new_content && io->writable && io->sparse_growth, "a new file");
    q2_io_write(io, 0, "abc", 3, &err);
    q2_file_abandon(io, made);
    q2_io_close(io);
    is_int((int)size_of("new"), -1, "abandoned: it is gone");

    write_file("old", "content");
    io = create("old", &read_write, &made);
    ok(!made && io->new_content, "a file that was there");
    is_int((int)size_of("old"), 0, "is emptied");
    q2_io_write(io, 0, "abc", 3, &err);
    q2_file_abandon(io, made);
    q2_io_close(io);
    is_int((int)size_of("old"), 0, "abandoned: it stays, empty");

    io = create("moved", &read_write, &made);
    q2_io_write(io, 0, "abc", 3, &err);
    if (rename("moved", "elsewhere") != 0)
        abort();
    write_file("moved", "another's");
    q2_file_abandon(io, made);
    q2_io_close(io);
    is_int((int)size_of("moved"), 9, "another file of that name is left alone");
    is_int((int)size_of("elsewhere"), 0, "the one that was made is emptied");
}

static void links(void)
{
    bool made = true;
    struct stat st;

    if (symlink("target", "link") != 0)
        abort();
    struct q2_io *io = create("link", &read_write, &made);
    ok(!made, "a link that led nowhere is not what was made");
    is_int((int)size_of("target"), 0, "its target is");
    q2_file_abandon(io, made);
    q2_io_close(io);
    ok(lstat("link", &st) == 0 && S_ISLNK(st.st_mode), "the link stays");
}

static void devices(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *io = NULL;
    uint64_t size = 1;
    bool made = true;

    is_int(q2_file_open("/dev/null", &read_write, &io, &err), 0, "a character device");
    ok(q2_file_is_device(io) && !io->sparse_growth, "is a device");
    is_int(q2_io_get_size(io, &size, &err), 0, "has a size");
    is_u64(size, 0, "of nothing");
    is_int(q2_io_set_size(io, 10, &err), -EINVAL, "that does not grow");
    is_str(err.message, "Cannot grow device files", "text");
    is_int(q2_io_flush(io, &err), 0, "can be flushed");
    q2_io_close(io);

    io = create("/dev/null", &read_write, &made);
    ok(!made && !io->new_content, "as a target it is not new");
    q2_file_abandon(io, made);
    q2_io_close(io);
    ok(access("/dev/null", F_OK) == 0, "and is not removed");

    is_int(q2_file_open("/dev/full", &read_write, &io, &err), 0, "a full device");
    is_int(q2_io_write(io, 4096, "abc", 3, &err), -ENOSPC, "takes nothing");
    is_str(
        err.message,
        "Could not write 3 bytes at offset 4096 of '/dev/full': No space left on device",
        "says what, where and why");
    q2_io_close(io);
}

static void shrinking(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    struct q2_io *io = NULL;
    char buf[64];
    uint64_t size;
    bool made;

    struct q2_io *w = create("shrinks", &read_write, &made);
    q2_io_set_size(w, 10000, &err);
    q2_file_open("shrinks", &read_only, &io, &err);
    is_int(q2_io_read(io, 9990, buf, 64, &err), 0, "a read across the end");
    q2_io_set_size(w, 5000, &err);
    is_int(q2_io_read(io, 4990, buf, 64, &err), -EIO,
           "across the end of a file that shrank");
    is_str(err.message,
           "'shrinks' ended at byte 5000 while reading at offset 4990: it has become "
           "shorter while it was read",
           "says so");
    is_int(q2_io_read(io, 9990, buf, 64, &err), -EIO, "where the end was");
    is_int(q2_io_read(io, 20000, buf, 64, &err), 0, "beyond it there never was anything");
    q2_io_set_size(w, 30000, &err);
    is_int(q2_io_read_exact(io, 29000, buf, 64, &err), 0, "a file that grew is read");
    is_int(q2_io_get_size(io, &size, &err), 0, "size");
    is_u64(size, 30000, "is the new one");
    is_int(q2_io_write(io, 0, "x", 1, &err), -EBADF, "opened for reading: no write");
    q2_io_close(io);
    q2_io_close(w);
}

struct model {
    uint8_t bytes[ROOM];
    uint64_t size;
};

static uint64_t random_offset(uint64_t *seed)
{
    uint64_t at = test_random(seed) % ROOM;
    return test_random(seed) % 3 ? at : at & ~UINT64_C(4095);
}

static int step(struct q2_io *io, struct model *m, uint8_t *buf, uint64_t *seed,
                struct q2_error *err)
{
    uint64_t at = random_offset(seed);
    uint64_t end = random_offset(seed);
    size_t n = (size_t)(end > at ? end - at : end % 5000 % (ROOM - at));
    uint64_t kind = test_random(seed) % 8;

    if (n == 0)
        return 0;
    if (kind == 0) {
        memset(m->bytes + at, 0, (size_t)(ROOM - at));
        m->size = at;
        return q2_io_set_size(io, at, err);
    }
    if (kind != 3 || at + n > m->size)
        m->size = at + n > m->size ? at + n : m->size;
    if (kind == 1 || kind == 2) {
        memset(m->bytes + at, 0, n);
        return q2_io_zero(io, at, n, kind == 1, err);
    }
    if (kind == 3)
        return q2_io_allocate(io, at, n, err);
    for (size_t i = 0; i < n; i++)
        buf[i] = (uint8_t)test_random(seed);
    memcpy(m->bytes + at, buf, n);
    return q2_io_write(io, at, buf, n, err);
}

static bool holds(struct q2_io *io, const struct model *m, uint8_t *buf, uint64_t *seed)
{
    struct q2_error err = Q2_ERROR_INIT;
    uint64_t at = random_offset(seed);
    uint64_t size;

    if (q2_io_get_size(io, &size, &err) < 0 || size != m->size)
        return false;
    size_t left = (size_t)(ROOM - at);
    if (q2_io_read(io, at, buf, left, &err) < 0 || memcmp(buf, m->bytes + at, left) != 0)
        return false;
    for (at = 0; at < m->size;) {
        uint64_t n = 0;
        bool data = false;
        if (q2_io_extent(io, at, &n, &data, &err) < 0 || n == 0 || n > m->size - at)
            return false;
        for (uint64_t i = 0; !data && i < n; i++)
            if (m->bytes[at + i])
                return false;
        at += n;
    }
    return true;
}

static void against_array(const char *kind, const struct q2_file_options *options,
                          size_t misalign)
{
    static struct model m;
    struct q2_error err = Q2_ERROR_INIT;
    uint64_t seed = 7 + misalign;
    uint8_t *room;
    bool good = true;
    bool made;

    memset(&m, 0, sizeof(m));
    if (posix_memalign((void **)&room, 4096, ROOM + 4096) != 0)
        abort();
    struct q2_io *io = create("array", options, &made);
    for (unsigned i = 0; i < 250 && good; i++)
        good = step(io, &m, room + misalign, &seed, &err) == 0 &&
               holds(io, &m, room + misalign, &seed);
    ok(good, "%s, memory off by %zu: as an array %s", kind, misalign, err.message);
    is_int(q2_io_flush(io, &err), 0, "%s: flushes", kind);
    q2_file_abandon(io, true);
    q2_io_close(io);
    free(room);
}

static void holes(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    static char data[1 << 20];
    uint64_t before = 0;
    uint64_t after = 0;
    bool made;

    memset(data, 'x', sizeof(data));
    struct q2_io *io = create("holes", &read_write, &made);
    q2_io_write(io, 0, data, sizeof(data), &err);
    q2_io_flush(io, &err);
    is_int(q2_io_disk_usage(io, &before, &err), 0, "disk usage");
    ok(before >= sizeof(data), "is what was written");
    is_int(q2_io_zero(io, 0, sizeof(data), true, &err), 0, "unmapped");
    q2_io_disk_usage(io, &after, &err);
    ok(after < before, "gives the space back");
    is_int(q2_io_zero(io, sizeof(data), (uint64_t)1 << 40, true, &err), 0,
           "grown by 1 TiB");
    q2_io_disk_usage(io, &after, &err);
    ok(after < before, "takes no space");
    is_int(q2_io_allocate(io, 0, sizeof(data), &err), 0, "allocated");
    q2_io_disk_usage(io, &after, &err);
    ok(after >= sizeof(data), "takes it");
    q2_file_abandon(io, made);
    q2_io_close(io);
}

static void extent_is(struct q2_io *io, uint64_t at, uint64_t want, bool want_data)
{
    struct q2_error err = Q2_ERROR_INIT;
    uint64_t n = 0;
    bool data = !want_data;

    is_int(q2_io_extent(io, at, &n, &data, &err), 0, "extent at %" PRIu64, at);
    is_u64(n, want, "its length");
    is_int(data, want_data, "its kind");
}

// On a file system that knows holes: where they begin and end.
static void extents(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    static char data[1 << 20];
    uint64_t used = 0;
    bool made;

    memset(data, 'x', sizeof(data));
    struct q2_io *io = create("extents", &read_write, &made);
    q2_io_write(io, 1 << 20, data, sizeof(data), &err);
    q2_io_set_size(io, 5 << 20, &err);
    q2_io_flush(io, &err);
    if (q2_io_disk_usage(io, &used, &err) == 0 && used < 2 << 20) {
        extent_is(io, 0, 1 << 20, false);
        extent_is(io, 100, (1 << 20) - 100, false);
        extent_is(io, 1 << 20, 1 << 20, true);
        extent_is(io, (2 << 20) - 1, 1, true);
        extent_is(io, 2 << 20, 3 << 20, false);
    }
    is_int(q2_io_extent(io, 5 << 20, &used, &made, &err), -EIO, "none beyond the end");
    q2_file_abandon(io, true);
    q2_io_close(io);
}

static const char *lock_names[] = {"none", "metadata", "read", "shared", "write", "raw"};

// Which two may be there at the same time; [first][second].
static const char *lock_conflicts[6][6] = {
    {"", "", "", "", "", ""},
    {"", "", "", "", "Failed to get \"write\" lock", ""},
    {"", "", "", "", "Failed to get \"write\" lock", ""},
    {"", "", "", "", "", ""},
    {"", "Failed to get shared \"write\" lock", "Failed to get shared \"write\" lock", "",
     "Failed to get \"write\" lock", "Failed to get shared \"resize\" lock"},
    {"", "", "", "", "", ""},
};

static void locks(void)
{
    struct q2_error err = Q2_ERROR_INIT;

    write_file("locked", "x");
    for (unsigned i = 0; i < 36; i++) {
        struct q2_file_options a = {.lock = i / 6, .writable = i / 6 == Q2_LOCK_WRITE};
        struct q2_file_options b = {.lock = i % 6, .writable = i % 6 == Q2_LOCK_WRITE};
        const char *want = lock_conflicts[i / 6][i % 6];
        struct q2_io *first = NULL;
        struct q2_io *second = NULL;
        if (q2_file_open("locked", &a, &first, &err) < 0)
            abort();
        int ret = q2_file_open("locked", &b, &second, &err);
        is_int(ret, *want ? -EAGAIN : 0, "%s beside %s", lock_names[i % 6],
               lock_names[i / 6]);
        if (ret < 0) {
            is_str(err.message, want, "the message");
            is_str(err.hint, "Is another process using the image [locked]?", "the hint");
        }
        q2_io_close(second);
        q2_io_close(first);
    }
}

static void locked_target(void)
{
    struct q2_error err = Q2_ERROR_INIT;
    const struct q2_file_options reader = {.lock = Q2_LOCK_READ};
    const struct q2_file_options writer = {.writable = true, .lock = Q2_LOCK_WRITE};
    struct q2_io *io = NULL;
    struct q2_io *target = NULL;
    bool made;

    write_file("busy", "in use");
    q2_file_open("busy", &reader, &io, &err);
    is_int(q2_file_create("busy", &writer, &target, &made, &err), -EAGAIN,
           "a file in use is no target");
    is_int((int)size_of("busy"), 6, "and was not emptied");
    q2_io_close(io);
    is_int(q2_file_create("busy", &writer, &target, &made, &err), 0, "once it is free");
    is_int((int)size_of("busy"), 0, "it is emptied");
    q2_io_close(target);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

static void remove_all(void)
{
    if (chdir("/") != 0 || nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS) != 0)
        abort();
}

int main(void)
{
    const struct q2_file_options direct = {.writable = true, .direct = true};
    const struct q2_file_options sync = {.writable = true, .sync_writes = true};

    const char *tmp = getenv("TMPDIR");

    snprintf(dir, sizeof(dir), "%s/qcow2-unit-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(dir) || chdir(dir) != 0)
        abort();
    open_errors();
    make_and_abandon();
    links();
    devices();
    shrinking();
    against_array("plain", &read_write, 0);
    against_array("O_DIRECT", &direct, 0);
    against_array("O_DIRECT", &direct, 1);
    against_array("O_DSYNC", &sync, 0);
    holes();
    extents();
    locks();
    locked_target();

    int ret = done_testing();
    remove_all();
    return ret;
}
