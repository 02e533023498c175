// SPDX-License-Identifier: MIT
// What check prints.
#ifndef Q2_CMD_CHECK_OUTPUT_H
#define Q2_CMD_CHECK_OUTPUT_H

#include <stdbool.h>

#include "ops/check.h"

// The findings, a line each on standard error. verb stands for all; NULL: ERROR or
// Leaked.
void q2_output_findings(const struct q2_findings *findings, const char *verb);
// What guest data the plan loses, on standard output.
void q2_output_losses(const struct q2_plan *plan);
// Every edit of the plan, on standard output.
void q2_output_plan(const struct q2_plan *plan);
void q2_output_check(const struct q2_check_report *report);
int q2_output_check_json(const struct q2_check_report *report, const char *path,
                         const struct q2_findings *details);

#endif
