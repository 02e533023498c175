#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# "make bench" can still run its cases; what it measures is nobody's business here.

load helpers

setup() {
    q2_setup
}

bench() {
    python3 "$BATS_TEST_DIRNAME/../scripts/bench" --quick --runs 1 --qemu-img "$ORACLE" "$@"
}

@test "cases run, by both programs, and are recorded" {
    must bench --only '^(info|a snapshot applied, 32G|resize)' --record table.md
    [ "$(grep -cE '^\| .*(\| [0-9.-]+ ){13}\|$' table.md)" -eq 4 ] || fail "$(cat table.md)"
}

@test "a case whose command fails is told, and is no row" {
    must_exit 1 bench --only '^info' --qemu-img false --record table.md
    absent table.md
}
