// SPDX-License-Identifier: MIT
// The layers that check --backing-chain goes through, the uppermost first.
#ifndef Q2_CMD_CHECK_CHAIN_H
#define Q2_CMD_CHECK_CHAIN_H

#include <stdbool.h>
#include <sys/stat.h>

#include "disk/header.h"
#include "image/open.h"

struct q2_check_chain {
    unsigned n;                      // the present layer, from 0
    char *path, *format;             // of it; NULL: as the command line says
    char *above;                     // the path of the one that names it; NULL: none does
    struct stat files[Q2_MAX_CHAIN]; // of the layers so far
};

// The present layer is at path, and has this header: steps to the one below. *more is
// false, and the chain as it was, when there is none.
int q2_check_chain_step(struct q2_check_chain *c, const char *path,
                        const struct q2_header *h, bool *more, struct q2_error *err);
// An error of the present layer: says who names it.
int q2_check_chain_context(const struct q2_check_chain *c, struct q2_error *err);
void q2_check_chain_clear(struct q2_check_chain *c);

#endif
