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

# Of the table that are whole.
rows() {
    grep -cE '^\| .*(\| [0-9.-]+ ){13}\|$' table.md
}

@test "cases run, by both programs, and are recorded" {
    must bench --only '^(info|a snapshot applied, 32G|resize)' --record table.md
    [ "$(rows)" -eq 4 ] || fail "$(cat table.md)"
    # A page that is there gets the rows that were run, in their places; all else stays.
    printf '\n## Of others\n\n| case | words |\n' >>table.md
    sed -i -E 's/^(\| (info|resize)[^|]*\|).*/\1 old |/' table.md
    must bench --only '^info' --record table.md
    [ "$(rows)" -eq 2 ] || fail "$(cat table.md)"
    [ "$(grep -c ' old |$' table.md)" -eq 2 ]
    grep -q 'measured again: info of 32G$' table.md
    grep -qx '## Of others' table.md
    grep -qx '| case | words |' table.md
}

@test "a case whose command fails is told, and is no row" {
    must_exit 1 bench --only '^info' --qemu-img false --record table.md
    absent table.md
}

@test "the figures in README.md are those of tests/RESULTS.md" {
    top=$BATS_TEST_DIRNAME/..
    cp "$top/README.md" readme
    must python3 "$top/scripts/bench_page.py" readme "$BATS_TEST_DIRNAME/RESULTS.md"
    cmp readme "$top/README.md"
    [ "$(grep -cE '^\| [a-z].*( \| [0-9.]+){3} \|$' readme)" -ge 15 ]
    # They are put in where others stand.
    sed -E 's/^(\| create 1T.*) [0-9.]+ \|$/\1 77 |/' readme >other
    run cmp -s other readme
    [ "$status" -eq 1 ]
    must python3 "$top/scripts/bench_page.py" other "$BATS_TEST_DIRNAME/RESULTS.md"
    cmp readme other
}
