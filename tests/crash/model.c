// SPDX-License-Identifier: MIT
// The model of the guest's disk.
#include "tests/crash/model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/crash/fixture.h"

static uint64_t hash_sector(const uint8_t *p)
{
    uint64_t h = 0, word;
    for (size_t i = 0; i < SECTOR; i += 8) {
        memcpy(&word, p + i, 8);
        h = (h ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        h ^= h >> 29;
    }
    return h;
}

static void *must_alloc(void *old, size_t n)
{
    void *p = realloc(old, n > 0 ? n : 1);
    if (!p)
        give_up("no memory: %zu bytes", n);
    return p;
}

static void add_value(struct history *h, uint64_t hash, uint32_t op)
{
    if (h->n == h->max) {
        h->max = h->max ? h->max * 2 : 4;
        h->values = must_alloc(h->values, h->max * sizeof(*h->values));
    }
    h->values[h->n++] = (struct value){.hash = hash, .op = op};
}

void model_new(struct model *m, const uint8_t *bytes, size_t n_bytes)
{
    m->n_bytes = n_bytes;
    m->bytes = must_alloc(NULL, n_bytes);
    memcpy(m->bytes, bytes, n_bytes);
    m->sectors = must_alloc(NULL, n_bytes / SECTOR * sizeof(*m->sectors));
    for (size_t i = 0; i < n_bytes / SECTOR; i++) {
        m->sectors[i] = (struct history){0};
        add_value(&m->sectors[i], hash_sector(bytes + i * SECTOR), 0);
    }
}

void model_clear(struct model *m)
{
    for (size_t i = 0; i < m->n_bytes / SECTOR; i++)
        free(m->sectors[i].values);
    free(m->sectors);
    free(m->bytes);
}

void model_write(struct model *m, uint64_t offset, const uint8_t *buf, size_t n_bytes,
                 uint32_t op)
{
    if (n_bytes == 0)
        return;
    if (buf)
        memcpy(m->bytes + offset, buf, n_bytes);
    else
        memset(m->bytes + offset, 0, n_bytes);
    for (size_t i = (size_t)(offset / SECTOR); i <= (offset + n_bytes - 1) / SECTOR; i++)
        add_value(&m->sectors[i], hash_sector(m->bytes + i * SECTOR), op);
}

void model_flush(struct model *m)
{
    for (size_t i = 0; i < m->n_bytes / SECTOR; i++)
        m->sectors[i].durable = m->sectors[i].n - 1;
}

void model_become(struct model *m, const uint8_t *bytes)
{
    memcpy(m->bytes, bytes, m->n_bytes);
    for (size_t i = 0; i < m->n_bytes / SECTOR; i++) {
        struct history *h = &m->sectors[i];
        uint64_t hash = hash_sector(bytes + i * SECTOR);
        uint32_t op = h->values[h->n - 1].op;
        for (uint32_t k = 0; k < h->n; k++)
            if (h->values[k].hash == hash)
                op = h->values[k].op;
        add_value(h, hash, op);
    }
    model_flush(m);
}

// The value's index, looked for from the newest on; -1: it never was there.
static long find_value(const struct history *h, uint64_t hash)
{
    for (long i = (long)h->n - 1; i >= 0; i--)
        if (h->values[i].hash == hash)
            return i;
    return -1;
}

bool model_allows(const struct model *m, const uint8_t *bytes, char *why, size_t room)
{
    for (size_t i = 0; i < m->n_bytes / SECTOR; i++) {
        const struct history *h = &m->sectors[i];
        if (memcmp(bytes + i * SECTOR, m->bytes + i * SECTOR, SECTOR) == 0)
            continue;
        long found = find_value(h, hash_sector(bytes + i * SECTOR));
        if (found >= (long)h->durable)
            continue;
        int n = snprintf(why, room, "sector %zu (guest offset 0x%zx): ", i, i * SECTOR);
        if (found >= 0)
            snprintf(why + n, room - (size_t)n,
                     "what operation %" PRIu32 " wrote, but that of %" PRIu32
                     " was flushed",
                     h->values[found].op, h->values[h->durable].op);
        else
            snprintf(why + n, room - (size_t)n,
                     "never was there (begins %02x %02x %02x %02x; flushed is what "
                     "operation %" PRIu32 " wrote)",
                     bytes[i * SECTOR], bytes[i * SECTOR + 1], bytes[i * SECTOR + 2],
                     bytes[i * SECTOR + 3], h->values[h->durable].op);
        return false;
    }
    return true;
}

bool model_equals(const struct model *m, uint64_t offset, const uint8_t *bytes,
                  size_t n_bytes, char *why, size_t room)
{
    if (memcmp(bytes, m->bytes + offset, n_bytes) == 0)
        return true;
    size_t i = 0;
    while (bytes[i] == m->bytes[offset + i])
        i++;
    const struct history *h = &m->sectors[(offset + i) / SECTOR];
    snprintf(why, room,
             "guest byte 0x%" PRIx64 " reads %02x, but operation %" PRIu32
             " made it %02x",
             offset + i, bytes[i], h->values[h->n - 1].op, m->bytes[offset + i]);
    return false;
}
