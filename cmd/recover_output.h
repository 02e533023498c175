// SPDX-License-Identifier: MIT
// recover: the report.
#ifndef Q2_CMD_RECOVER_OUTPUT_H
#define Q2_CMD_RECOVER_OUTPUT_H

#include "ops/recover.h"

void q2_output_recover(const struct q2_recover_request *request,
                       const struct q2_recover_report *report);
int q2_output_recover_json(const struct q2_recover_request *request,
                           const struct q2_recover_report *report, struct q2_error *err);

#endif
