// SPDX-License-Identifier: MIT
// Values that are one of a few words.
#include "cmd/choices.h"

#include <stddef.h>
#include <string.h>

#include "check/repair.h"
#include "disk/header.h"
#include "image/codec.h"
#include "ops/create.h"
#include "ops/vet.h"

#define END     \
    {           \
        NULL, 0 \
    }

const struct q2_choice q2_choices_aio[] = {{"threads", Q2_AIO_THREADS},
                                           {"native", Q2_AIO_NATIVE},
                                           {"io_uring", Q2_AIO_IO_URING},
                                           END};
const struct q2_choice q2_choices_cache[] = {
    {"none", Q2_CACHE_DIRECT},
    {"off", Q2_CACHE_DIRECT},
    {"writeback", 0},
    {"directsync", Q2_CACHE_DIRECT | Q2_CACHE_SYNC_WRITES},
    {"writethrough", Q2_CACHE_SYNC_WRITES},
    {"unsafe", Q2_CACHE_NO_FLUSH},
    END};
const struct q2_choice q2_choices_compat[] = {
    {"v2", 2}, {"v3", 3}, {"0.10", 2}, {"1.1", 3}, END};
const struct q2_choice q2_choices_compression[] = {
    {"zlib", Q2_COMPRESSION_ZLIB}, {"zstd", Q2_COMPRESSION_ZSTD}, END};
const struct q2_choice q2_choices_dd[] = {{"if", Q2_DD_IF},       {"of", Q2_DD_OF},
                                          {"bs", Q2_DD_BS},       {"count", Q2_DD_COUNT},
                                          {"skip", Q2_DD_SKIP},   {"isize", Q2_DD_ISIZE},
                                          {"osize", Q2_DD_OSIZE}, END};
const struct q2_choice q2_choices_discard[] = {
    {"unmap", 1}, {"on", 1}, {"ignore", 0}, {"off", 0}, END};
const struct q2_choice q2_choices_encryption[] = {{"luks", 0}, {"aes", 1}, END};
const struct q2_choice q2_choices_format[] = {{"raw", 0}, {"qcow2", 1}, END};
const struct q2_choice q2_choices_keyslot[] = {{"active", 1}, {"inactive", 0}, END};
const struct q2_choice q2_choices_level[] = {{"fast", Q2_LEVEL_FAST},
                                             {"best", Q2_LEVEL_BEST},
                                             {"1", 1},
                                             {"2", 2},
                                             {"3", 3},
                                             {"4", 4},
                                             {"5", 5},
                                             {"6", 6},
                                             {"7", 7},
                                             {"8", 8},
                                             {"9", 9},
                                             END};
const struct q2_choice q2_choices_output[] = {{"human", 0}, {"json", 1}, END};
const struct q2_choice q2_choices_preallocation[] = {{"off", Q2_PREALLOC_OFF},
                                                     {"metadata", Q2_PREALLOC_METADATA},
                                                     {"falloc", Q2_PREALLOC_FALLOC},
                                                     {"full", Q2_PREALLOC_FULL},
                                                     END};
// Those that may be allowed.
#define REASON_ASKED(id, slug) {slug, Q2_VET_##id},
#define REASON_NEVER(id, slug)
#define Q2_VET_REASON(id, slug, allow, message) REASON_##allow(id, slug)
const struct q2_choice q2_choices_reasons[] = {
#include "ops/vet_reasons.def"
    END};
#undef Q2_VET_REASON

const struct q2_choice q2_choices_repair[] = {
    {"leaks", Q2_REPAIR_MODE_LEAKS}, {"all", Q2_REPAIR_MODE_ALL}, END};
const struct q2_choice q2_choices_switch[] = {{"on", 1}, {"off", 0},  {"yes", 1},
                                              {"no", 0}, {"true", 1}, {"false", 0},
                                              {"y", 1},  {"n", 0},    END};

const struct q2_choice *q2_choice_find(const struct q2_choice *list, const char *name)
{
    for (; list->name; list++)
        if (!strcmp(list->name, name))
            return list;
    return NULL;
}
