#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Random backing chains, and a random commit, rebase or dd on each, beside QEMU. "make
# check-crash" plays more of it, other ones each time.

load helpers

setup() {
    q2_setup
}

@test "commit, rebase and dd on chains of every kind leave the disks that QEMU leaves" {
    local seed=${Q2_SEED:-1}
    echo "Q2_SEED=$seed"
    must python3 -S "$BATS_TEST_DIRNAME/tools/layers.py" "$seed" \
        $((${Q2_CRASH_RUNS:-1} * $(rows 10 4))) "$ORACLE" "$QCOW2"
}
