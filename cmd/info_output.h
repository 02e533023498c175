// SPDX-License-Identifier: MIT
// How info prints an image's description.
#ifndef Q2_CMD_INFO_OUTPUT_H
#define Q2_CMD_INFO_OUTPUT_H

#include <jansson.h>

#include "ops/info.h"

// NULL: no memory.
json_t *q2_info_to_json(const struct q2_info *info);

int q2_info_print(const struct q2_info *info, struct q2_error *err);

// The array of internal snapshots in it. NULL: no memory.
json_t *q2_snapshots_to_json(const struct q2_snapshot *all, unsigned n);

// The table of internal snapshots, with its heading.
void q2_output_snapshots(const struct q2_snapshot *snapshots, unsigned n);

#endif
