// SPDX-License-Identifier: MIT
// Bitmaps that have the name of another one: programs refuse them all. The later one gets
// another last letter.
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "check/bitmaps.h"

struct named {
    const uint8_t *text;
    size_t n_bytes;
    size_t at; // in the directory
    unsigned index;
};

static int compare_text(const struct named *x, const struct named *y)
{
    int order = memcmp(x->text, y->text, q2_min_size(x->n_bytes, y->n_bytes));
    return order ? order : (x->n_bytes > y->n_bytes) - (x->n_bytes < y->n_bytes);
}

static int by_text_then_index(const void *a, const void *b)
{
    const struct named *x = a, *y = b;
    int order = compare_text(x, y);
    return order ? order : (x->index > y->index) - (x->index < y->index);
}

static int by_text(const void *a, const void *b)
{
    return compare_text(a, b);
}

// A last letter with which the name is nobody's; 0: there is none.
static uint8_t find_letter(const struct named *list, size_t n, const struct named *x)
{
    static const char letters[] = "123456789abcdefghijklmnopqrstuvwxyz";
    uint8_t text[Q2_MAX_BITMAP_NAME];
    struct named other = {.text = text, .n_bytes = x->n_bytes};
    memcpy(text, x->text, x->n_bytes);
    for (const char *p = letters; *p; p++) {
        text[x->n_bytes - 1] = (uint8_t)*p;
        if (!bsearch(&other, list, n, sizeof(*list), by_text))
            return (uint8_t)*p;
    }
    return 0;
}

static void report(struct q2_scan *s, const struct q2_directory *d, const struct named *x,
                   const char *name, uint8_t letter)
{
    size_t last = x->at + x->n_bytes - 1, word = last & ~(size_t)7;
    uint8_t bytes[8];
    memcpy(bytes, d->bytes + word, sizeof(bytes));
    bytes[last - word] = letter;
    struct q2_finding f = {.problem = Q2_PROBLEM_BITMAP_NAME,
                           .has = Q2_HAS_OFFSET | Q2_HAS_INDEX,
                           .offset = s->header.bitmap_directory_offset + word,
                           .index = x->index,
                           .bitmap_name = name,
                           .edit_offset = s->header.bitmap_directory_offset + word,
                           .edit_value = q2_load_be64(bytes)};
    f.has |= letter ? Q2_HAS_EDIT : 0;
    q2_scan_report(s, &s->findings, &f);
}

int q2_scan_bitmap_names(struct q2_scan *s, const struct q2_directory *d,
                         struct q2_error *err)
{
    struct q2_directory_entry e;
    struct named *list = calloc((size_t)d->n + 1, sizeof(*list));
    size_t n = 0, at = 0;
    int ret = list ? 0 : q2_fail_memory(err, (d->n + 1) * sizeof(*list));
    for (; list && n < d->n && q2_directory_entry_at(d, at, &e); n++, at += e.n_bytes)
        list[n] =
            (struct named){d->bytes + e.name_at, e.name_bytes, e.name_at, (unsigned)n};
    if (n > 1)
        qsort(list, n, sizeof(*list), by_text_then_index);
    for (size_t i = 1; i < n && ret == 0; i++) {
        const char *name;
        if (compare_text(&list[i - 1], &list[i]) != 0)
            continue;
        ret = q2_scan_keep_name(s, list[i].text, list[i].n_bytes, &name, err);
        if (ret == 0)
            report(s, d, &list[i], name, find_letter(list, n, &list[i]));
    }
    free(list);
    return ret;
}
