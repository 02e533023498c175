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

# What lets single calls fail is preloaded, which a static program does not know, and which an
# emulator would take for its own. There, it is the system that refuses: files end, descriptors
# are few (an emulator has some of its own). Sanitizers judge along, where they are.
can_preload() {
    [ "${Q2_TEST_STATIC:-no}" != yes ] && [ -z "${Q2_TEST_EMULATED:-}" ]
}

limits() {
    if [ -n "${Q2_TEST_EMULATED:-}" ]; then echo --mode space; else
        echo --mode space --mode descriptors
    fi
}

# one_in N: fewer where each call takes longer.
one_in() {
    if is_bare_program; then echo "$1"; else echo $(($1 * 3)); fi
}

matrix() {
    python3 "$BATS_TEST_DIRNAME/faults/matrix.py" "$@"
}

@test "calls of every command fail: it is told, nothing is half made, images are no worse" {
    local modes=()
    can_preload || read -r -a modes < <(limits)
    # Where keys are made, and with threads, the calls are others each time.
    must matrix run --terse --every "$(one_in "$(rows 60 120)")" --skip KEY --skip sec0 \
        --skip threads ${modes[@]+"${modes[@]}"}
}

@test "one kind of image is made, and one is told of, while call after call fails" {
    local modes=(--mode once --mode refuse --mode space --mode descriptors)
    can_preload || read -r -a modes < <(limits)
    must matrix run --terse --every "$(one_in 1)" --only 'create -f qcow2 x 1M' "${modes[@]}"
    can_preload && modes=(--mode once)
    must matrix run --terse --every "$(one_in 1)" --only 'info --output=json' --only bm.qcow2 \
        "${modes[@]}"
}

@test "a program that lets writes do nothing, or hides that it failed, is noticed" {
    if can_preload; then
        run matrix run --terse --lies --only 'create -f qcow2 x 1M' --mode once
        [ "$status" -eq 1 ]
        [[ $output == *'BAD '*'pwrite: x does not hold what it should'* ]] || fail "$output"
    fi
    printf '#!/bin/sh\n"%s" "$@" || true\n' "$QCOW2" >hides
    chmod +x hides
    QCOW2=$PWD/hides run matrix run --terse --only 'create -f qcow2 x 1M' --mode space
    [ "$status" -eq 1 ]
    [[ $output == *'BAD '*'space: '* ]] || fail "$output"
}
