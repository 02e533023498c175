// SPDX-License-Identifier: MIT
// Going through many L2 tables: the part of tree.c that reads and writes them.
#ifndef Q2_IMAGE_TREE_TABLES_H
#define Q2_IMAGE_TREE_TABLES_H

#include "image/tree.h"

// Given one table's words, host-endian; *changed: they are to be written back.
typedef int (*q2_tree_visit)(struct q2_image *img, struct q2_tree_table *t, uint64_t *l2,
                             bool *changed, void *opaque, struct q2_error *err);

// Visits tables, which are in the order of their offsets; neighbours are read and written
// together.
int q2_tree_walk(struct q2_image *img, struct q2_tree_table *tables, size_t n,
                 q2_tree_visit visit, void *opaque, const struct q2_monitor *mon,
                 struct q2_error *err);

// Sorts the tables; one that stands there several times becomes one.
void q2_tree_sort(struct q2_tree_change *c);

// Words from one entry to the next.
static inline unsigned q2_tree_stride(const struct q2_image *img)
{
    return (img->header.incompatible_features & Q2_INCOMPAT_EXTENDED_L2) != 0 ? 2 : 1;
}

#endif
