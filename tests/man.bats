#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The manual says what the program says: the same commands, the same options.

load helpers

setup() {
    q2_setup
    man=$BATS_TEST_DIRNAME/../man
}

# The commands that the program lists.
commands() {
    "$QCOW2" --help | awk '/^Commands:/ { on = 1; next } !NF { on = 0 } on { print $1 }'
}

# A page as plain text, one option or sentence to a line.
page() {
    groff -t -man -Tascii -P-cbou -rLL=200n "$man/$1.1"
}

# Lines such as "-f, --format FMT"; what stands behind two blanks is not part of one.
option_lines() {
    sed -nE 's/^ +((-[A-Za-z], )?--[a-z-]+( [^ ]+)?)(  .*)?$/\1/p' | LC_ALL=C sort
}

@test "the program lists its commands, and each has a page that the main page names" {
    [ "$(commands | wc -l)" -ge 5 ]
    for command in $(commands); do
        [ -f "$man/qcow2-$command.1" ] || fail "no page for $command"
        page qcow2 | grep -q "^ *$command (qcow2-$command(1))" ||
            fail "qcow2.1 does not name $command"
    done
}

@test "there is no page for a command that does not exist" {
    for file in "$man"/qcow2-*.1; do
        command=$(basename "$file" .1)
        commands | grep -qx "${command#qcow2-}" || fail "$command is no command"
    done
}

@test "help and page of each command list the same options with the same arguments" {
    for command in $(commands); do
        "$QCOW2" "$command" --help | option_lines >help
        # Every command takes it; help does not list itself.
        page "qcow2-$command" | option_lines | grep -vx -- '-h, --help' >in.page
        [ -s help ] || fail "$command: no options in its help"
        diff -u help in.page || fail "$command: help and page differ"
    done
}

@test "the help of each command fits a screen, in groups, and shows two examples" {
    for command in $(commands); do
        "$QCOW2" "$command" --help >help
        [ "$(wc -l <help)" -le 45 ] || fail "$command: $(wc -l <help) lines"
        [ "$(wc -L <help)" -le 79 ] || fail "$command: a line of $(wc -L <help) columns"
        # Headings, rows below them, and nothing that stands outside of a group.
        [ "$(sed -n '/^Examples:$/,$p' help | wc -l)" -eq 3 ] || fail "$command: examples"
        sed -n '/^$/,$p' help | grep -vE '^$|^[A-Z][a-z ]+:$|^  ' >other || true
        [ ! -s other ] || fail "$command: $(cat other)"
        # A group that is longer has to be looked through.
        awk -v RS= 'NF && split($0, rows, "\n") > 17 { exit 1 }' help || fail "$command: a long group"
    done
}

@test "the page of create names every property that -o help lists" {
    page qcow2-create >in.page
    for format in qcow2 raw; do
        "$QCOW2" create -f "$format" -o help | sed -nE 's/^  ([a-z0-9_.-]+)=.*/\1/p' >keys
        [ -s keys ] || fail "no properties for $format"
        while read -r key; do
            grep -qF -- "$key" in.page || fail "$format: $key is not in the page"
        done <keys
    done
}

@test "the pages are clean roff" {
    for file in "$man"/*.[1-8]; do
        run groff -t -man -Tutf8 -ww -z "$file"
        [ "$status" -eq 0 ]
        [ -z "$output" ] || fail "$file: $output"
    done
}
