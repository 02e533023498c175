// SPDX-License-Identifier: MIT
// The list of clues.
#include "recover/clues.h"

#include <limits.h>
#include <stdlib.h>
#ifdef Q2_HAVE_ISAL
#include <isa-l/crc.h>
#endif

#include "check/scan.h"

#define MAX_CLUES ((size_t)1 << 20)

#ifdef Q2_HAVE_ISAL
uint32_t q2_crc32c(uint32_t crc, const void *data, size_t n_bytes)
{
    const uint8_t *p = data;
    for (size_t n; n_bytes > 0; n_bytes -= n, p += n) {
        n = n_bytes < INT_MAX ? n_bytes : INT_MAX;
        // It does not write there.
        crc = crc32_iscsi((unsigned char *)(uintptr_t)p, (int)n, crc);
    }
    return crc;
}
#else
uint32_t q2_crc32c(uint32_t crc, const void *data, size_t n_bytes)
{
    static const uint32_t table[16] = {// of half a byte
                                       0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1,
                                       0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
                                       0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
                                       0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};
    const uint8_t *p = data;
    while (n_bytes-- > 0) {
        crc ^= *p++;
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return crc;
}
#endif

uint32_t q2_crc32c_undo_zeros(uint32_t crc, size_t n_bytes)
{
    for (size_t bit = 0; bit < n_bytes * 8; bit++)
        crc = crc >> 31 ? (crc ^ 0x82f63b78U) << 1 | 1 : crc << 1;
    return crc;
}

void q2_clues_clear(struct q2_clues *c)
{
    free(c->list);
    *c = (struct q2_clues){0};
}

int q2_clues_add(struct q2_clues *c, const struct q2_clue *clue, struct q2_error *err)
{
    void *list = c->list;
    if (c->n >= MAX_CLUES || clue->position > INT64_MAX)
        return 0;
    int ret = q2_scan_grow(&list, &c->max, c->n, sizeof(*c->list), err);
    c->list = list;
    if (ret == 0)
        c->list[c->n++] = *clue;
    return ret;
}

int q2_clues_add_end(struct q2_clues *c, size_t volume, uint64_t position,
                     uint64_t n_bytes, unsigned block_bits, struct q2_error *err)
{
    uint32_t used = (uint32_t)(n_bytes & ((UINT64_C(1) << block_bits) - 1));
    const struct q2_clue clue = {position, volume, used, Q2_CLUE_END, block_bits};
    return used == 0 ? 0 : q2_clues_add(c, &clue, err);
}

uint32_t q2_clue_value(enum q2_clue_kind kind, const uint8_t *block, size_t n_bytes)
{
    if (kind == Q2_CLUE_SUM)
        return ~q2_crc32c(UINT32_MAX, block, n_bytes);
    while (n_bytes > 0 && block[n_bytes - 1] == 0)
        n_bytes--;
    return (uint32_t)n_bytes;
}

bool q2_clue_fits(const struct q2_clue *clue, uint32_t value)
{
    if (clue->kind == Q2_CLUE_SUM)
        return clue->value == value;
    return value > 0 && value <= clue->value && clue->value - value <= Q2_CLUE_ZEROS;
}
