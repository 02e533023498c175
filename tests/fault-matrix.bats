#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The fault matrix in short: some of the calls that each command makes fail. "make
# check-faults" lets all of them fail.

load helpers

setup() {
    q2_setup
    command -v python3 >/dev/null || skip "python3 is not installed"
    QCOW2=$(readlink -f "$QCOW2")
    export QCOW2
}

matrix() {
    python3 "$BATS_TEST_DIRNAME/faults/matrix.py" "$@"
}

@test "calls of every command fail: it is told, nothing is half made, images are no worse" {
    # Where keys are made, and with threads, the calls are others each time.
    must matrix run --terse --every "$(rows 60 120)" --skip KEY --skip sec0 --skip threads
}

@test "each single call of create, and of info as JSON, fails" {
    must matrix run --terse --only 'create -f qcow2 x 1M' --mode once --mode refuse
    must matrix run --terse --only 'info --output=json' --only bm.qcow2 --mode once
}

@test "writes that do nothing, and do not fail, are noticed" {
    run matrix run --terse --lies --only 'create -f qcow2 x 1M' --mode once
    [ "$status" -eq 1 ]
    [[ $output == *'BAD '*'pwrite: x does not hold what it should'* ]] || fail "$output"
}
