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

# What counts calls is preloaded, which a static program does not know, and which an emulator
# would take for its own. Elsewhere all is run; in builds with sanitizers these judge, too.
can_preload() {
    [ "${Q2_TEST_STATIC:-no}" != yes ] && [ -z "${Q2_TEST_EMULATED:-}" ]
}

# one_in N: fewer where each call takes longer.
one_in() {
    if is_bare_program; then echo "$1"; else echo $(($1 * 3)); fi
}

matrix() {
    python3 "$BATS_TEST_DIRNAME/faults/matrix.py" "$@"
}

@test "calls of every command fail: it is told, nothing is half made, images are no worse" {
    can_preload || return 0
    # Where keys are made, and with threads, the calls are others each time.
    must matrix run --terse --every "$(one_in "$(rows 60 120)")" --skip KEY --skip sec0 --skip threads
}

@test "each single call of create, and of info as JSON, fails (sanitizers: one in three)" {
    can_preload || return 0
    must matrix run --terse --every "$(one_in 1)" --only 'create -f qcow2 x 1M' --mode once \
        --mode refuse
    must matrix run --terse --every "$(one_in 1)" --only 'info --output=json' --only bm.qcow2 \
        --mode once
}

@test "writes that do nothing, and do not fail, are noticed" {
    can_preload || return 0
    run matrix run --terse --lies --only 'create -f qcow2 x 1M' --mode once
    [ "$status" -eq 1 ]
    [[ $output == *'BAD '*'pwrite: x does not hold what it should'* ]] || fail "$output"
}
