#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Random operations on images that QEMU made, with snapshots and backing files beneath: at
# the end QEMU finds nothing wrong with the image, and reads what the model says. The
# operations themselves are in tests/unit/random_ops.c and tests/crash/turns.py.

load helpers
load crash

setup() {
    q2_setup
}

# The content of an image's snapshots, one hash a line.
snapshot_contents() {
    local name
    for name in one two; do
        oracle snapshot -l "$1" | grep -q " $name " || continue
        must oracle convert -O raw -l "$name" "$1" content.raw || return 1
        hash_of content.raw
    done
}

@test "random operations on QEMU's images: QEMU finds no fault and reads the same bytes" {
    local program image seed
    program=$(crash_program unit/random_ops)
    crash_images
    [ "$(snapshot_contents v3-512 | wc -l)" -eq 2 ] || fail "the snapshots cannot be read"
    for seed in $(rows '1 2 3' '1'); do
        rm -rf out && mkdir out && ln base.raw out/
        Q2_SEED=$((${Q2_SEED:-1} + seed * 7919)) all_ok "$program" -n 600 -o out v*
        for image in v*; do
            must oracle check -q "out/$image"
            must oracle compare -q -f qcow2 -F raw "out/$image" "out/$image.raw"
            [ "$(snapshot_contents "$image")" = "$(snapshot_contents "out/$image")" ] ||
                fail "$image: a snapshot has changed"
            ! cmp -s "$image" "out/$image" || fail "$image: nothing was done"
        done
    done
}

@test "qcow2 io and qemu-io take turns on one image, some of them killed: nothing is lost" {
    crash_images
    local seed
    for seed in $(rows '1 2' '1'); do
        mkdir "turns$seed" && cp v* base.raw "turns$seed"
        (cd "turns$seed" && must python3 "$BATS_TEST_DIRNAME/crash/turns.py" \
            --seed $((${Q2_SEED:-1} + seed * 7919)) v*) || return 1
    done
}

@test "a region that is rewritten a hundred times does not grow the file, above snapshots too" {
    crash_images
    all_ok "$(crash_program unit/steady)" v*
}
