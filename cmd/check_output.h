// SPDX-License-Identifier: MIT
// What check prints.
#ifndef Q2_CMD_CHECK_OUTPUT_H
#define Q2_CMD_CHECK_OUTPUT_H

#include <jansson.h>
#include <stdbool.h>

#include "ops/check.h"

// The findings, a line each on standard error. verb stands for all; NULL: ERROR or
// Leaked.
void q2_output_findings(const struct q2_findings *findings, const char *verb);
void q2_output_check(const struct q2_check_report *report);
// details: the findings to list; more: members to add. NULL: none.
// Returns NULL without memory.
json_t *q2_output_check_json(const struct q2_check_report *report, const char *path,
                             const struct q2_findings *details, json_t *more);
json_t *q2_output_finding_json(const struct q2_finding *f);

#endif
