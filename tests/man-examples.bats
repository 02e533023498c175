#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Every command line that the manual and --help show does what they say.

load helpers

setup() {
    q2_setup
    man=$BATS_TEST_DIRNAME/../man
    examples=$BATS_TEST_DIRNAME/examples
}

examples() {
    python3 -S "$examples/run.py" "$@"
}

@test "every example of every page and of README.md runs, and prints what is shown" {
    run examples "$QCOW2" "$man"/*.[1-8] "$man"/../README.md
    echo "$output"
    [ "$status" -eq 0 ]
    [ "${lines[-1]##*, }" = '0 examples wrong' ]
}

@test "every page of a command has two examples of it at least" {
    examples --count "$man"/qcow2-*.1 >counts
    grep -q 'qcow2-create.1 ' counts
    while read -r page n; do
        [ "$n" -ge 2 ] || fail "$page: $n examples"
    done <counts
}

@test "every example of --help runs" {
    for page in "$man"/qcow2-*.1; do
        name=$(basename "$page" .1)
        qcow2 "${name#qcow2-}" --help | sed -n '/^Examples:/,$ s/^  qcow2/$ qcow2/p' >shown
        [ "$(wc -l <shown)" -eq 2 ] || fail "$name: $(wc -l <shown) examples in its help"
        {
            printf '%s\n' ".\\\" files: help-${name#qcow2-}" .EX
            sed 's/-/\\-/g' shown
            echo .EE
        } >"$name.h"
    done
    run examples "$QCOW2" ./*.h
    echo "$output"
    [ "$status" -eq 0 ]
}

@test "a wrong example is found" {
    page() { # LINE...
        printf '%s\n' '.\" files: qcow2' .EX "$@" .EE >page.1
    }
    page '$ qcow2 info disk.raw' 'image: disk.raw' '[...]'
    must examples "$QCOW2" page.1
    page '$ qcow2 info disk.raw' 'image: other.raw' '[...]'
    must_exit 1 examples "$QCOW2" page.1
    page '$ qcow2 info other.raw'
    must_exit 1 examples "$QCOW2" page.1
    page '$ qcow2 info other.raw' '[...]' '$ echo $?' 1
    must examples "$QCOW2" page.1
    page '$ qcow2 info other.raw' '[...]' '$ echo $?' 0
    must_exit 1 examples "$QCOW2" page.1
    page '$ qcow2 info disk.raw |' '    grep -q raw'
    must examples "$QCOW2" page.1
    page 'qcow2 info disk.raw'
    must_exit 1 examples "$QCOW2" page.1
}
