// SPDX-License-Identifier: MIT
// Kinds of host clusters: a hash table with open addressing. A cluster that lost its
// kinds keeps its slot until the table grows.
#include "image/cluster_set.h"

#include <stdlib.h>

#include "base/checked.h"

#define KIND_BITS 16U
#define KIND_MASK ((UINT64_C(1) << KIND_BITS) - 1)
// The slot is in use, even if no kind is left: cluster 0 would look empty else.
#define USED (UINT64_C(1) << (KIND_BITS - 1))
#define FIRST_SLOTS 1024U

struct q2_cluster_set {
    uint64_t *slots; // cluster << KIND_BITS | USED | kinds; 0: empty
    size_t n_slots, n_used;
    uint64_t end; // no cluster from here on has ever had a kind
};

struct q2_cluster_set *q2_cluster_set_new(void)
{
    struct q2_cluster_set *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->n_slots = FIRST_SLOTS;
    s->slots = calloc(s->n_slots, sizeof(*s->slots));
    if (!s->slots) {
        free(s);
        return NULL;
    }
    return s;
}

void q2_cluster_set_free(struct q2_cluster_set *s)
{
    if (s)
        free(s->slots);
    free(s);
}

static uint64_t *slot_of(uint64_t *slots, size_t n_slots, uint64_t cluster)
{
    size_t i = (size_t)((cluster * UINT64_C(0x9e3779b97f4a7c15)) >> 20) & (n_slots - 1);
    while (slots[i] != 0 && slots[i] >> KIND_BITS != cluster)
        i = (i + 1) & (n_slots - 1);
    return &slots[i];
}

static int grow(struct q2_cluster_set *s, struct q2_error *err)
{
    size_t n = s->n_slots * 2, n_used = 0;
    uint64_t *slots = calloc(n, sizeof(*slots));
    if (!slots)
        return q2_fail_memory(err, n * sizeof(*slots));
    for (size_t i = 0; i < s->n_slots; i++) {
        if ((s->slots[i] & KIND_MASK & ~USED) == 0)
            continue;
        *slot_of(slots, n, s->slots[i] >> KIND_BITS) = s->slots[i];
        n_used++;
    }
    free(s->slots);
    *s = (struct q2_cluster_set){
        .slots = slots, .n_slots = n, .n_used = n_used, .end = s->end};
    return 0;
}

int q2_cluster_set_add(struct q2_cluster_set *s, uint64_t cluster, unsigned kinds,
                       struct q2_error *err)
{
    int ret = s->n_used >= s->n_slots / 2 ? grow(s, err) : 0;
    if (ret < 0)
        return ret;
    uint64_t *slot = slot_of(s->slots, s->n_slots, cluster);
    if (*slot == 0) {
        *slot = cluster << KIND_BITS | USED;
        s->n_used++;
    }
    *slot |= kinds;
    s->end = q2_max_u64(s->end, cluster + 1);
    return 0;
}

void q2_cluster_set_remove(struct q2_cluster_set *s, uint64_t cluster, unsigned kinds)
{
    uint64_t *slot = slot_of(s->slots, s->n_slots, cluster);
    *slot &= ~(uint64_t)kinds;
}

unsigned q2_cluster_set_get(const struct q2_cluster_set *s, uint64_t cluster)
{
    return (unsigned)(*slot_of(s->slots, s->n_slots, cluster) & KIND_MASK & ~USED);
}

unsigned q2_cluster_set_all(const struct q2_cluster_set *s, uint64_t cluster, uint64_t n)
{
    uint64_t end = q2_min_u64(cluster + n, s->end);
    unsigned kinds = 0;
    for (uint64_t c = cluster; c < end; c++)
        kinds |= q2_cluster_set_get(s, c);
    return kinds;
}
