#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The same command lines with QEMU's program and with ours: tests/differential says which,
# and what may differ.

load helpers
load differential/files

setup_file() {
    mkdir "$BATS_FILE_TMPDIR/files"
    cd "$BATS_FILE_TMPDIR/files" || return 1
    differential_files
}

setup() {
    q2_setup
    mkdir theirs
    ln -s "$ORACLE" theirs/qemu-img
}

alike() {
    local tables=("${@/%/.txt}")
    ORACLE=$ORACLE python3 -S "$BATS_TEST_DIRNAME/differential/run.py" \
        "$BATS_TEST_TMPDIR/.bin" theirs "$BATS_FILE_TMPDIR/files" \
        "${tables[@]/#/$BATS_TEST_DIRNAME/differential/}"
}

@test "create" {
    alike create
}

@test "info, check, compare" {
    alike info check compare
}

@test "convert" {
    alike convert
}

@test "map, snapshot, resize, amend" {
    alike image
}

@test "bitmap, rebase, commit" {
    alike chains
}

@test "sizes" {
    alike sizes
}

@test "measure, dd, bench, and the program itself" {
    alike other
}
