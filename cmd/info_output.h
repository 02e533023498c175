// SPDX-License-Identifier: MIT
// How info prints an image's description.
#ifndef Q2_CMD_INFO_OUTPUT_H
#define Q2_CMD_INFO_OUTPUT_H

#include <jansson.h>

#include "cmd/output.h"
#include "ops/info.h"

// Two long lists at most are in an image's description: they are put behind those in
// *lists, which has room for them. NULL: no memory.
#define Q2_INFO_LONG_LISTS 2U
json_t *q2_info_to_json(const struct q2_info *info, struct q2_long_lists *lists);

int q2_info_print(const struct q2_info *info, struct q2_error *err);

// One of the internal snapshots in it. NULL: no memory.
json_t *q2_snapshot_to_json(const struct q2_snapshot *s);

// The table of internal snapshots: its heading, and a line of it.
void q2_output_snapshot_heading(void);
void q2_output_snapshot(const struct q2_snapshot *s);

#endif
