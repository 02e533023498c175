#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Images live: random sequences of guest writes, snapshots, resizes and amendments, by the
# program and QEMU in turns. The model and the judge are in tests/tools/life.py; "make
# check-crash" plays more of it.

load helpers

setup() {
    q2_setup
}

@test "whatever is done to images, and by whom: every state reads right, QEMU finds no fault" {
    local said step runs=$(((${Q2_CRASH_RUNS:-1} + 2) / 3))
    said=$(python3 -S "$BATS_TEST_DIRNAME/tools/life.py" --runs "$runs" \
        --images "$(rows 17 8)" --steps "$(rows 11 9)" .) || fail "$said"
    # With the usual seed it is known that there was something of everything.
    [ -z "${Q2_SEED:-}" ] || return 0
    for step in io create apply delete resize amend; do
        [[ $said == *" $step/qcow2 io"* ]] || fail "no $step: $said" || return 1
    done
    [[ $said == *"refused: "[1-9]* ]] || fail "nothing was refused: $said"
}
