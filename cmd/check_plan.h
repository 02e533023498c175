// SPDX-License-Identifier: MIT
// What a repair would do, as check prints it.
#ifndef Q2_CMD_CHECK_PLAN_H
#define Q2_CMD_CHECK_PLAN_H

#include <jansson.h>

#include "ops/check.h"

// What guest data the plan loses, on standard output.
void q2_output_losses(const struct q2_plan *plan);
// Every edit of the plan, on standard output.
void q2_output_plan(const struct q2_plan *plan);
// The same as JSON, an object with the member "plan": all edits and what each is for, and
// all losses. Without edits (the repair is done, not shown): "losses" if there are any.
// NULL: no memory.
json_t *q2_output_plan_json(const struct q2_plan *plan,
                            const struct q2_check_edits *edits);

#endif
