#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Beside other programs that have the image open: who is let in is what QEMU says, whoever
# holds it and whoever comes, at any moment of a command.

load helpers

setup() {
    q2_setup
    LOCKS=$BATS_TEST_DIRNAME/locks
}

# beside OPTIONS: what commands end with while their image is held, against the table.
beside() {
    python3 -S "$LOCKS/run.py" "$@" "$LOCKS/table.txt"
}

@test "while qemu-storage-daemon holds the image, every command ends as the table says" {
    beside --every "$(rows 1 3)"
}

@test "the table says what QEMU's programs end with" {
    beside --program theirs --every "$(rows 3 12)"
}

@test "while qcow2 io holds the image, QEMU's programs and ours end as the table says" {
    beside --by io --program theirs --every "$(rows 5 12)"
    beside --by io --every "$(rows 5 8)"
}
