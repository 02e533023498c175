// SPDX-License-Identifier: MIT
// Values that are one of a few words: the lists from which the program reads them and
// shell completion offers them.
#ifndef Q2_CMD_CHOICES_H
#define Q2_CMD_CHOICES_H

struct q2_choice {
    const char *name; // NULL ends a list
    int value;        // completion offers the first name of each
};

// What a cache mode is made of.
enum { Q2_CACHE_DIRECT = 1, Q2_CACHE_SYNC_WRITES = 2, Q2_CACHE_NO_FLUSH = 4 };

// How requests reach the kernel.
enum q2_aio { Q2_AIO_THREADS, Q2_AIO_NATIVE, Q2_AIO_IO_URING };

// What dd takes, each before a "=".
enum q2_dd_operand {
    Q2_DD_IF,
    Q2_DD_OF,
    Q2_DD_BS,
    Q2_DD_COUNT,
    Q2_DD_SKIP,
    Q2_DD_ISIZE,
    Q2_DD_OSIZE
};

extern const struct q2_choice q2_choices_aio[];           // enum q2_aio
extern const struct q2_choice q2_choices_cache[];         // Q2_CACHE_...
extern const struct q2_choice q2_choices_compat[];        // the format's version
extern const struct q2_choice q2_choices_compression[];   // enum q2_compression
extern const struct q2_choice q2_choices_dd[];            // enum q2_dd_operand
extern const struct q2_choice q2_choices_discard[];       // 1: unmap
extern const struct q2_choice q2_choices_encryption[];    // just a number
extern const struct q2_choice q2_choices_format[];        // just a number
extern const struct q2_choice q2_choices_keyslot[];       // 1: active
extern const struct q2_choice q2_choices_level[];         // as struct q2_convert_options
extern const struct q2_choice q2_choices_output[];        // 1: JSON
extern const struct q2_choice q2_choices_preallocation[]; // enum q2_preallocation
extern const struct q2_choice q2_choices_reasons[];       // enum q2_vet_reason
extern const struct q2_choice q2_choices_repair[];        // enum q2_repair_mode
extern const struct q2_choice q2_choices_switch[];        // 1: on

// NULL: it is none of the list.
const struct q2_choice *q2_choice_find(const struct q2_choice *list, const char *name);

#endif
