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

# Runs a command line and keeps its exit code, as "COMMAND CODE".
ends() { # COMMAND [ARGUMENT...]
    local code=0
    qcow2 "$@" >/dev/null 2>&1 </dev/null || code=$?
    echo "$1 $code" >>ends
}

@test "every page tells the exit codes that there are, and no others" {
    seq 9999 >disk.raw
    truncate -s 1M disk.raw
    must qcow2 convert -O qcow2 disk.raw disk.qcow2
    must qcow2 convert -c -O qcow2 disk.raw spoiled.qcow2
    spoil_compressed spoiled.qcow2
    cp disk.qcow2 leak.qcow2
    imgtool l2 leak.qcow2 0 0
    cp disk.qcow2 bad.qcow2
    imgtool l2 bad.qcow2 0 ^0x200
    cp disk.qcow2 mapless.qcow2
    imgtool l1 mapless.qcow2 0 ^0x200
    must qcow2 create -q -f qcow2 -b disk.qcow2 -F qcow2 over.qcow2

    ends check disk.qcow2
    ends check missing
    ends check bad.qcow2
    ends check leak.qcow2
    ends check -f raw disk.raw
    ends compare disk.qcow2 disk.raw
    ends compare disk.qcow2 leak.qcow2
    ends compare disk.qcow2 missing
    ends compare disk.qcow2 mapless.qcow2
    ends compare disk.qcow2 spoiled.qcow2
    ends vet disk.qcow2
    ends vet missing
    ends vet leak.qcow2
    ends vet over.qcow2
    ends amend -o lazy_refcounts=on disk.qcow2
    ends bench -c 1 disk.qcow2
    ends bitmap --add disk.qcow2 b0
    ends commit over.qcow2
    ends convert -O raw disk.qcow2 new.raw
    ends create -f qcow2 new.qcow2 1M
    ends dd if=disk.qcow2 of=new.dd
    ends info disk.qcow2
    ends io -c 'read 0 512' disk.qcow2
    ends map disk.qcow2
    ends measure -O qcow2 disk.raw
    ends rebase -b '' over.qcow2
    ends recover --dry-run disk.qcow2
    ends resize disk.qcow2 2M
    ends snapshot -c first disk.qcow2
    ends amend -o lazy_refcounts=on missing
    ends bench missing
    ends bitmap --add disk.qcow2 b0
    ends commit disk.qcow2
    ends convert -O raw missing new.raw
    ends create -f qcow2 new.qcow2
    ends dd if=missing of=new.dd
    ends info missing
    ends io -c 'read 0 512' missing
    ends map mapless.qcow2
    ends measure
    ends rebase -b missing -F qcow2 over.qcow2
    ends recover --dry-run missing
    ends resize disk.qcow2 1M
    ends snapshot -d second disk.qcow2

    for command in $(commands); do
        sed -n '/^\.SH EXIT STATUS/,/^\.SH EX[^I]/p' "$man/qcow2-$command.1" |
            sed -nE "s/^\.B ([0-9]+)$/$command \1/p"
    done | LC_ALL=C sort >in.pages
    LC_ALL=C sort -u ends | diff -u - in.pages
}

@test "the pages refer to pages that there are, and to options that there are" {
    for file in "$man"/*.[1-8]; do
        # Pages of this manual; others are the system's.
        sed -nE 's/^\.BR (qcow2[a-z-]*) \(([1-8])\).*/\1.\2/p; s/.*(qcow2-[a-z]+)\(([1-8])\).*/\1.\2/p' \
            "$file" >named
        while read -r name; do
            [ -f "$man/$name" ] || fail "$file: there is no $name"
        done <named
    done
    for command in $(commands); do "$QCOW2" "$command" --help; done |
        grep -oE -e '--[a-z][a-z-]+' | LC_ALL=C sort -u >options
    printf '%s\n' --help --version --trace | LC_ALL=C sort - options >all
    for file in "$man"/*.[1-8]; do
        # Not in examples, which call other programs, too.
        sed -e '/^\.EX$/,/^\.EE$/d' -e 's/\\-/-/g' "$file" |
            grep -oE -e '(^|[^-a-z])--[a-z][a-z-]+' | grep -oE -e '--[a-z-]+' |
            LC_ALL=C sort -u | LC_ALL=C comm -23 - <(LC_ALL=C sort -u all) >unknown
        [ ! -s unknown ] || fail "$file: no such option: $(cat unknown)"
    done
}

@test "every page is installed" {
    for file in "$man"/*.[1-8]; do
        grep -q "man/${file##*/}\b" "$man/local.mk" || fail "$file is not in local.mk"
    done
}

# names PAGE: what stands on standard input, a word to a line, is in bold on the page, or begins
# a bold text such as "size=SIZE".
names() {
    local n=0 word
    sed -e 's/\\-/-/g' -e 's/^\.BR* //' -e 's/\\fB/\n/g' "$man/$1" | sed -E 's/\\f[RI].*//' >bold
    while read -r word; do
        grep -qE -e "(^|[ \"])${word//./\\.}(\$|[ ,\"=])" bold || fail "$1 does not name $word" ||
            return 1
        n=$((n + 1))
    done
    [ "$n" -gt 0 ] || fail "$1: nothing to look for"
}

@test "the pages name every property that -o help lists" {
    for line in create:qcow2 create:raw amend:qcow2; do
        "$QCOW2" "${line%:*}" -f "${line#*:}" -o help |
            sed -nE 's/^  ([a-z0-9_.-]+)=.*/\1/p' >keys
        names "qcow2-${line%:*}.1" <keys
    done
}

@test "the page of io names every command that its help lists" {
    "$QCOW2" io -c help | sed -nE 's/^([a-z_]+) .*--.*/\1/p' | names qcow2-io.1
}

@test "the main page names every key of an image's options" {
    sed -nE '/[{]"/s/[{]"([a-z0-9-]+(\.[a-z-]+)?)", &(out|r|ignored|no_unref)\b/\n=\1\n/gp' \
        "$man/../cmd/image_runtime.c" | sed -n 's/^=//p' >keys
    [ "$(wc -l <keys)" -ge 10 ]
    names qcow2.1 <keys
}

@test "the page of the format has the header's fields and extensions where the code has them" {
    disk=$BATS_TEST_DIRNAME/../src/disk
    sed -nE 's/^ +Q2_AT_([A-Z0-9_]+) = ([0-9]+),/\2;[0-9]+;\L\1;/p' "$disk/header_private.h" |
        grep -v unknown_fields >fields
    [ "$(wc -l <fields)" -ge 19 ]
    while read -r row; do
        grep -qE "^$row" "$man/qcow2.5" || fail "no row $row"
    done <fields
    sed -nE 's/^#define Q2_EXT_[A-Z_]+ (0x[0-9a-f]+)U$/\1/p' "$disk/header.h" |
        grep -v 0x00000000 >types
    [ "$(wc -l <types)" -ge 5 ]
    while read -r type; do
        grep -qx "\.B $type" "$man/qcow2.5" || fail "no extension $type"
    done <types
    sed -nE 's/^#define Q2_(INCOMPAT|COMPAT|AUTOCLEAR)_[A-Z0-9_]+ \(UINT64_C\(1\) << ([0-9]+)\)$/\1 \2/p' \
        "$disk/header.h" >bits
    [ "$(wc -l <bits)" -ge 8 ]
    while read -r word bit; do
        awk -v heading=".SS ${word:0:1}$(tr '[:upper:]' '[:lower:]' <<<"${word:1:5}")" \
            '/^\.S[SH] / { on = index($0, heading) == 1 } on' "$man/qcow2.5" |
            grep -qE "^\.B $bit [a-z]" || fail "no $word bit $bit"
    done <bits
}
