// SPDX-License-Identifier: MIT
// A file in memory: a radix table of pages, so that sparse files of any size are cheap.
#include "io/memory.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

#define PAGE_BITS 12
#define PAGE ((uint64_t)1 << PAGE_BITS)
#define NODE_BITS 9
#define NODE_SLOTS ((size_t)1 << NODE_BITS)
// Levels of nodes above the pages: 12 + 6 * 9 = 66 bits hold every offset.
#define LEVELS 6

struct node {
    void *slots[NODE_SLOTS]; // nodes of the level below, or pages
};

struct memory {
    struct q2_io io;
    pthread_mutex_t lock;
    uint64_t size;
    uint64_t n_pages;
    struct node root;
};

static struct memory *memory_of(struct q2_io *io)
{
    return (struct memory *)io;
}

static unsigned level_shift(unsigned level)
{
    return PAGE_BITS + NODE_BITS * level;
}

// The slot of the page at offset; NULL when it has no node (with make: no memory for it).
static void **find_slot(struct memory *m, uint64_t offset, bool make)
{
    struct node *node = &m->root;

    for (unsigned level = LEVELS - 1; level > 0; level--) {
        void **slot = &node->slots[(offset >> level_shift(level)) & (NODE_SLOTS - 1)];
        if (!*slot && make)
            *slot = calloc(1, sizeof(struct node));
        if (!*slot)
            return NULL;
        node = *slot;
    }
    return &node->slots[(offset >> PAGE_BITS) & (NODE_SLOTS - 1)];
}

static unsigned char *find_page(struct memory *m, uint64_t offset)
{
    void **slot = find_slot(m, offset, false);
    return slot ? *slot : NULL;
}

static unsigned char *make_page(struct memory *m, uint64_t offset)
{
    void **slot = find_slot(m, offset, true);
    if (slot && !*slot) {
        *slot = calloc(1, PAGE);
        m->n_pages += *slot != NULL;
    }
    return slot ? *slot : NULL;
}

static void drop_page(struct memory *m, uint64_t offset)
{
    void **slot = find_slot(m, offset, false);
    if (slot && *slot) {
        free(*slot);
        *slot = NULL;
        m->n_pages--;
    }
}

// Frees the pages from offset first on, and the nodes that hold none any more. base is
// the offset of the node's first byte.
static bool prune(struct memory *m, struct node *node, unsigned level, uint64_t base,
                  uint64_t first)
{
    bool empty = true;

    for (size_t i = 0; i < NODE_SLOTS; i++) {
        uint64_t start = base + ((uint64_t)i << level_shift(level));
        uint64_t last = start + ((UINT64_C(1) << level_shift(level)) - 1);
        if (!node->slots[i])
            continue;
        if (last >= first &&
            (level == 0 || prune(m, node->slots[i], level - 1, start, first))) {
            free(node->slots[i]);
            node->slots[i] = NULL;
            m->n_pages -= level == 0;
        } else {
            empty = false;
        }
    }
    return empty;
}

// Offset of the first page from offset from (page aligned) on; UINT64_MAX if none. Holes
// are passed a node at a time.
static uint64_t next_page(const struct node *node, unsigned level, uint64_t base,
                          uint64_t from)
{
    for (size_t i = 0; i < NODE_SLOTS; i++) {
        uint64_t start = base + ((uint64_t)i << level_shift(level));
        uint64_t last = start + ((UINT64_C(1) << level_shift(level)) - 1);
        if (!node->slots[i] || last < from)
            continue;
        uint64_t at = level ? next_page(node->slots[i], level - 1, start, from) : start;
        if (at != UINT64_MAX)
            return at;
    }
    return UINT64_MAX;
}

static size_t in_page(uint64_t offset, uint64_t n_bytes)
{
    return (size_t)q2_min_u64(n_bytes, PAGE - (offset & (PAGE - 1)));
}

static int memory_read(struct q2_io *io, uint64_t offset, void *buf, size_t n_bytes,
                       struct q2_error *err)
{
    struct memory *m = memory_of(io);
    char *p = buf;
    (void)err;

    pthread_mutex_lock(&m->lock);
    while (n_bytes) {
        size_t n = in_page(offset, n_bytes);
        const unsigned char *page = find_page(m, offset);
        if (page)
            memcpy(p, page + (offset & (PAGE - 1)), n);
        else
            memset(p, 0, n);
        p += n;
        offset += n;
        n_bytes -= n;
    }
    pthread_mutex_unlock(&m->lock);
    return 0;
}

static int memory_write(struct q2_io *io, uint64_t offset, const void *buf,
                        size_t n_bytes, struct q2_error *err)
{
    struct memory *m = memory_of(io);
    const char *p = buf;
    int ret = 0;

    pthread_mutex_lock(&m->lock);
    while (n_bytes) {
        size_t n = in_page(offset, n_bytes);
        unsigned char *page = make_page(m, offset);
        if (!page) {
            ret = q2_fail_memory(err, PAGE);
            break;
        }
        memcpy(page + (offset & (PAGE - 1)), p, n);
        p += n;
        offset += n;
        n_bytes -= n;
        m->size = q2_max_u64(m->size, offset);
    }
    pthread_mutex_unlock(&m->lock);
    return ret;
}

static int memory_flush(struct q2_io *io, struct q2_error *err)
{
    (void)io;
    (void)err;
    return 0;
}

static void zero_locked(struct memory *m, uint64_t offset, uint64_t n_bytes)
{
    uint64_t end = offset + n_bytes;

    while (offset < end) {
        uint64_t at = next_page(&m->root, LEVELS - 1, 0, q2_align_down(offset, PAGE));
        if (at >= end)
            break;
        offset = q2_max_u64(offset, at);
        size_t n = in_page(offset, end - offset);
        unsigned char *page = find_page(m, offset);
        if (n == PAGE)
            drop_page(m, offset);
        else
            memset(page + (offset & (PAGE - 1)), 0, n);
        offset += n;
    }
}

static int memory_set_size(struct q2_io *io, uint64_t size, struct q2_error *err)
{
    struct memory *m = memory_of(io);
    (void)err;

    pthread_mutex_lock(&m->lock);
    if (size < m->size) {
        // What is cut off must not come back when the file grows again.
        uint64_t keep = q2_align_up(size, PAGE);
        zero_locked(m, size, keep - size);
        prune(m, &m->root, LEVELS - 1, 0, keep);
    }
    m->size = size;
    pthread_mutex_unlock(&m->lock);
    return 0;
}

static int memory_get_size(struct q2_io *io, uint64_t *size, struct q2_error *err)
{
    struct memory *m = memory_of(io);
    (void)err;

    pthread_mutex_lock(&m->lock);
    *size = m->size;
    pthread_mutex_unlock(&m->lock);
    return 0;
}

static int memory_zero(struct q2_io *io, uint64_t offset, uint64_t n_bytes, bool unmap,
                       struct q2_error *err)
{
    struct memory *m = memory_of(io);
    (void)unmap;
    (void)err;

    pthread_mutex_lock(&m->lock);
    if (offset < m->size)
        zero_locked(m, offset, q2_min_u64(n_bytes, m->size - offset));
    m->size = q2_max_u64(m->size, offset + n_bytes);
    pthread_mutex_unlock(&m->lock);
    return 0;
}

static int memory_discard(struct q2_io *io, uint64_t offset, uint64_t n_bytes,
                          struct q2_error *err)
{
    struct memory *m = memory_of(io);
    (void)err;

    pthread_mutex_lock(&m->lock);
    if (offset < m->size)
        zero_locked(m, offset, q2_min_u64(n_bytes, m->size - offset));
    pthread_mutex_unlock(&m->lock);
    return 0;
}

static int memory_allocate(struct q2_io *io, uint64_t offset, uint64_t n_bytes,
                           struct q2_error *err)
{
    struct memory *m = memory_of(io);
    uint64_t end = offset + n_bytes;
    int ret = 0;

    pthread_mutex_lock(&m->lock);
    for (uint64_t at = q2_align_down(offset, PAGE); at < end; at += PAGE) {
        if (!make_page(m, at)) {
            ret = q2_fail_memory(err, PAGE);
            break;
        }
        m->size = q2_max_u64(m->size, q2_min_u64(at + PAGE, end));
    }
    pthread_mutex_unlock(&m->lock);
    return ret;
}

static int memory_extent(struct q2_io *io, uint64_t offset, uint64_t *n_bytes, bool *data,
                         struct q2_error *err)
{
    struct memory *m = memory_of(io);
    int ret = 0;

    pthread_mutex_lock(&m->lock);
    if (offset < m->size) {
        uint64_t end = q2_align_down(offset, PAGE);
        *data = find_page(m, offset) != NULL;
        if (!*data)
            end = next_page(&m->root, LEVELS - 1, 0, end);
        while (*data && end < m->size && find_page(m, end))
            end += PAGE;
        *n_bytes = q2_min_u64(end, m->size) - offset;
    } else {
        ret = q2_fail(err, -EIO, "'%s' ends before offset %llu", io->name,
                      (unsigned long long)offset);
    }
    pthread_mutex_unlock(&m->lock);
    return ret;
}

static int memory_disk_usage(struct q2_io *io, uint64_t *n_bytes, struct q2_error *err)
{
    struct memory *m = memory_of(io);
    (void)err;

    pthread_mutex_lock(&m->lock);
    *n_bytes = m->n_pages * PAGE;
    pthread_mutex_unlock(&m->lock);
    return 0;
}

static void memory_close(struct q2_io *io)
{
    struct memory *m = memory_of(io);

    prune(m, &m->root, LEVELS - 1, 0, 0);
    pthread_mutex_destroy(&m->lock);
    free(io->name);
    free(m);
}

static const struct q2_io_ops memory_ops = {
    .read = memory_read,
    .write = memory_write,
    .flush = memory_flush,
    .set_size = memory_set_size,
    .get_size = memory_get_size,
    .zero = memory_zero,
    .discard = memory_discard,
    .allocate = memory_allocate,
    .extent = memory_extent,
    .disk_usage = memory_disk_usage,
    .close = memory_close,
};

int q2_memory_open(const char *name, const void *data, size_t n_bytes, struct q2_io **out,
                   struct q2_error *err)
{
    struct memory *m = calloc(1, sizeof(*m));
    char *copy = strdup(name);

    if (!m || !copy) {
        free(m);
        free(copy);
        return q2_fail_memory(err, sizeof(*m));
    }
    m->io.ops = &memory_ops;
    m->io.name = copy;
    m->io.writable = true;
    m->io.sparse_growth = true;
    m->io.new_content = n_bytes == 0;
    pthread_mutex_init(&m->lock, NULL);

    int ret = n_bytes ? q2_io_write(&m->io, 0, data, n_bytes, err) : 0;
    if (ret < 0)
        memory_close(&m->io);
    else
        *out = &m->io;
    return ret;
}
