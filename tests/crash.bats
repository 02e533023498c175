#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Power cuts and errors in the middle of random operations, on images that QEMU made, with
# snapshots and backing files beneath. What is played and how it is judged is in
# tests/crash; "make check-crash" plays more of it.

load helpers
load crash

setup() {
    q2_setup
}

# The dirty bit of a version 3 image.
is_dirty() {
    local version bits
    version=$(od -An -tu1 -j 7 -N 1 "$1")
    bits=$(od -An -tu1 -j 79 -N 1 "$1")
    [ "$version" -eq 3 ] && [ $((bits & 1)) -eq 1 ]
}

# A state that a power cut left: QEMU finds leaks at most, or it is dirty and QEMU heals it.
qemu_agrees() {
    local code=0 said
    if is_dirty "$1"; then
        must oracle check -q -r all "$1"
    else
        said=$(oracle check "$1" 2>&1) || code=$?
        [ "$code" -eq 0 ] || [ "$code" -eq 3 ] || fail "$1: exit $code"$'\n'"$said"
    fi
}

@test "power cuts above snapshots: nothing flushed is lost, leaks at most, as QEMU finds too" {
    crash_images
    mkdir states && ln base.raw states/
    Q2_CRASH_RUNS=$((${Q2_CRASH_RUNS:-6} / 3)) all_ok "$(crash_program crash/powercut)" -n 40 \
        -o states v*
    [ "$(find states -name '*-cut*' | wc -l)" -ge 16 ] || fail "no sample of the states"
    local state
    for state in states/*-cut*; do
        qemu_agrees "$state"
    done
}

@test "every write may fail above snapshots: it is told, the image is sound, a retry works" {
    crash_images
    all_ok "$(crash_program crash/errors)" -e "$(rows 2 5)" v*
}
