// SPDX-License-Identifier: MIT
// Kinds (bits) of host clusters, few clusters out of very many: eight bytes for each that
// has a kind, wherever it lies.
#ifndef Q2_IMAGE_CLUSTER_SET_H
#define Q2_IMAGE_CLUSTER_SET_H

#include <stdint.h>

#include "base/error.h"

struct q2_cluster_set;

struct q2_cluster_set *q2_cluster_set_new(void); // NULL: no memory
void q2_cluster_set_free(struct q2_cluster_set *s);

// cluster < 2^48, kinds < 2^16.
int q2_cluster_set_add(struct q2_cluster_set *s, uint64_t cluster, unsigned kinds,
                       struct q2_error *err);
void q2_cluster_set_remove(struct q2_cluster_set *s, uint64_t cluster, unsigned kinds);
unsigned q2_cluster_set_get(const struct q2_cluster_set *s, uint64_t cluster);
// The kinds of n clusters from there on together. Costs nothing where no cluster that far
// has a kind.
unsigned q2_cluster_set_all(const struct q2_cluster_set *s, uint64_t cluster, uint64_t n);

#endif
