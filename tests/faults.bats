#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# What goes wrong outside: full disks, read-only targets, sources that vanish, shrink or are
# broken, signals. One clear line, an exit code, no target left, the source untouched.

load helpers

setup() {
    q2_setup
}

teardown() {
    no_slow
}

# --- no space ---------------------------------------------------------------------------

@test "a full disk: convert to raw and qcow2, plain, compressed, with and without holes" {
    local how before
    imgtool fill src.raw 12M --seed 1
    head -c 8M /dev/urandom | dd of=src.raw conv=notrunc status=none
    before=$(hash_of src.raw)
    for how in '-O raw' '-O qcow2' '-c -O qcow2' '-S 0 -O raw' '-S 0 -O qcow2' '-W -O qcow2' \
        '-m 1 -O qcow2' '-O qcow2 -o cluster_size=512' '-O qcow2 -o cluster_size=2M' \
        '-t none -O raw' '-t writethrough -O qcow2'; do
        echo "convert $how"
        # shellcheck disable=SC2086
        in_tmpfs 4m qemu-img convert $how src.raw small/x
        failed_cleanly
        message_has 'No space left on device'
        [ "$(hash_of src.raw)" = "$before" ]
    done
}

@test "a full disk: preallocation" {
    local how
    imgtool fill src.raw 12M --seed 2
    for how in falloc full; do
        echo "preallocation $how"
        in_tmpfs 4m qemu-img create -q -f qcow2 -o "preallocation=$how" small/x 12M
        failed_cleanly
        message_has 'No space left on device'
        in_tmpfs 4m qemu-img create -q -f raw -o "preallocation=$how" small/x 12M
        failed_cleanly
        message_has 'No space left on device'
        in_tmpfs 4m qemu-img convert -O qcow2 -o "preallocation=$how" src.raw small/x
        failed_cleanly
        message_has 'No space left on device'
    done
    # Metadata of a disk of 512-byte clusters does not fit either.
    in_tmpfs 1m qemu-img create -q -f qcow2 -o cluster_size=512,preallocation=metadata small/x 1G
    failed_cleanly
    message_has 'No space left on device'
}

@test "no room for the image's first clusters" {
    in_tmpfs 16k qemu-img create -q -f qcow2 -o cluster_size=2M small/x 1G
    # The tables of an empty image are nearly all zeros: what a tmpfs takes is a whole image.
    if [ "$(cat code)" -ne 0 ]; then
        failed_cleanly
        message_has 'No space left on device'
    fi
    imgtool fill src.raw 1M --seed 3
    in_tmpfs 4k qemu-img convert -O qcow2 src.raw small/x
    failed_cleanly
    message_has 'No space left on device'
}

@test "a full disk: an image that was there is not left looking whole" {
    head -c 12M /dev/urandom >src.raw
    must oracle create -f qcow2 old.qcow2 12M
    in_tmpfs 4m bash -c 'cp old.qcow2 small/x
        qemu-img convert -O qcow2 src.raw small/x; code=$?
        [ ! -e small/x ] || mv small/x after
        exit $code'
    failed_cleanly
    message_has 'No space left on device'
    [ ! -e after ] || must_exit 1 oracle info -f qcow2 after
}

@test "a full disk: -n leaves the image there, without errors in it" {
    head -c 12M /dev/urandom >src.raw
    must oracle create -f qcow2 old.qcow2 12M
    must qemu-io -c 'write -P 7 11M 64k' old.qcow2
    in_tmpfs 4m bash -c 'cp old.qcow2 small/x
        qemu-img convert -n -O qcow2 src.raw small/x; code=$?
        mv small/x after
        exit $code'
    failed_cleanly
    message_has 'No space left on device'
    # Clean, or leaked clusters at worst.
    oracle check -f qcow2 after >said 2>&1 || [ $? -eq 3 ] || fail "$(cat said)"
    must qemu-io -r -c 'read -P 7 11M 64k' after
}

@test "a full disk under standard output is an error of info and map" {
    must oracle create -f qcow2 a.qcow2 1M
    local command
    for command in info map; do
            run --separate-stderr bash -c '"$@" >/dev/full' bash qemu-img $command a.qcow2
        [ "$status" -eq 1 ]
        [[ $stderr == qemu-img:*'No space left on device'* ]]
    done
}

# --- read-only targets --------------------------------------------------------------------

@test "a read-only folder" {
    imgtool fill src.raw 1M --seed 4
    mkdir ro
    local how
    for how in '-O raw' '-O qcow2' '-c -O qcow2'; do
        # shellcheck disable=SC2086
        in_readonly ro qemu-img convert $how src.raw ro/x
        failed_cleanly
        message_has 'ro/x' 'Read-only file system'
        absent ro/x
    done
    in_readonly ro qemu-img create -q -f qcow2 ro/x 1M
    failed_cleanly
    message_has 'ro/x' 'Read-only file system'
}

@test "a read-only target file stays what it was" {
    imgtool fill src.raw 1M --seed 5
    head -c 100000 /dev/urandom >target
    local how before
    before=$(hash_of target)
    for how in '-O raw' '-O qcow2'; do
        # shellcheck disable=SC2086
        in_readonly target qemu-img convert $how src.raw target
        failed_cleanly
        message_has 'target' 'Read-only file system'
        [ "$(hash_of target)" = "$before" ]
    done
    must oracle create -f qcow2 target 1M
    before=$(hash_of target)
    in_readonly target qemu-img convert -n -O qcow2 src.raw target
    failed_cleanly
    message_has 'target' 'Read-only file system'
    [ "$(hash_of target)" = "$before" ]
}

@test "a read-only source is no obstacle" {
    imgtool fill src.raw 1M --seed 6
    must oracle convert -O qcow2 src.raw src.qcow2
    in_readonly src.qcow2 qemu-img convert -O raw src.qcow2 out.raw
    [ "$(cat code)" -eq 0 ]
    same_bytes src.raw out.raw
    in_readonly src.qcow2 qemu-img info src.qcow2
    [ "$(cat code)" -eq 0 ]
    in_readonly src.qcow2 qemu-img compare src.qcow2 src.raw
    [ "$(cat code)" -eq 0 ]
}

# --- sources --------------------------------------------------------------------------------

@test "a missing source, a folder as source, a missing second source" {
    mkdir folder
    imgtool fill a.raw 1M --seed 7
    one_error 1 qemu-img convert -O qcow2 missing x
    [ "$message" = "qemu-img: Could not open 'missing': Could not open 'missing': No such file or directory" ]
    absent x
    one_error 1 qemu-img convert -O qcow2 folder x
    message_has "Could not open 'folder'"
    absent x
    one_error 1 qemu-img convert -O qcow2 a.raw missing x
    message_has missing 'No such file or directory'
    absent x
    must oracle create -f qcow2 -u -b nobase -F raw orphan.qcow2 1M
    one_error 1 qemu-img convert -O qcow2 orphan.qcow2 x
    [ "$message" = "qemu-img: Could not open 'orphan.qcow2': Could not open backing file: Could not open 'nobase': No such file or directory" ]
    absent x
}

@test "a source that shrinks while it is read" {
    local format target
    for format in raw qcow2; do
        for target in raw qcow2; do
            echo "$format to $target"
            head -c 64M /dev/urandom >src
            [ "$format" = raw ] || { must oracle convert -f raw -O qcow2 src src2 && mv src2 src; }
            start_slow -f $format -O $target src x
            truncate -s 1M src
            finish_slow
            [ "$code" -eq 1 ]
            is_one_error_line "source that shrinks"
            message_has "src"
            absent x
            [ "$(stat -c %s src)" -eq 1048576 ]
        done
    done
}

@test "SIGTERM, SIGINT and SIGHUP in the middle: no target, the source untouched" {
    local name how before
    head -c 64M /dev/urandom >src
    before=$(hash_of src)
    for name in TERM INT HUP; do
        for how in '-O raw' '-O qcow2' '-c -O qcow2' '-W -m 8 -O qcow2'; do
            echo "SIG$name, convert $how"
            # shellcheck disable=SC2086
            start_slow $how src x
            kill "-$name" "$pid"
            finish_slow
            [ "$code" -ne 0 ]
            is_one_error_line "SIG$name"
            absent x
            [ "$(hash_of src)" = "$before" ]
        done
    done
}

@test "a signal during -p leaves the terminal's line alone" {
    head -c 64M /dev/urandom >src
    start_slow -p -O qcow2 src x
    kill -TERM "$pid"
    finish_slow
    [ "$code" -ne 0 ]
    is_one_error_line "SIGTERM with -p"
    absent x
}

@test "a signal while writing into an image that was there: it stays, without errors" {
    head -c 64M /dev/urandom >src
    must oracle create -f qcow2 x 64M
    must qemu-io -c 'write -P 7 63M 64k' x
    start_slow -n -O qcow2 src x
    kill -TERM "$pid"
    finish_slow
    [ "$code" -ne 0 ]
    is_one_error_line "SIGTERM with -n"
    oracle check -f qcow2 x >said 2>&1 || [ $? -eq 3 ] || fail "$(cat said)"
    must qemu-io -r -c 'read -P 7 63M 64k' x
}

@test "killed with SIGKILL: what is left is not taken for an image" {
    local how
    head -c 64M /dev/urandom >src
    for how in '-O qcow2' '-c -O qcow2' '-O qcow2 -o compat=0.10,cluster_size=4k' \
        '-O qcow2 -o preallocation=metadata'; do
        echo "convert $how"
        rm -f x
        # shellcheck disable=SC2086
        start_slow $how src x
        kill -KILL "$pid"
        finish_slow
        [ "$code" -eq 137 ]
        [ -e x ]
        must_exit 1 oracle info -f qcow2 x
        one_error 1 qemu-img info -f qcow2 x
        [ "$message" = "qemu-img: Could not open 'x': Image is not in qcow2 format" ]
    done
}

# --- broken images ----------------------------------------------------------------------------

# The error names the file and an offset.
names_place() { # FILE
    message_has "$1" '0x[0-9a-f]+|[0-9]{3,}|offset 0'
}

# IMAGE COMPARE-CODE: refused with a place, no target, the image untouched. (Compare tells
# tables that cannot be read, 3, from data that cannot, 4.)
broken_source() {
    local before how
    before=$(hash_of "$1")
    for how in '-O raw' '-O qcow2' '-m 1 -O raw' '-c -O qcow2'; do
        # shellcheck disable=SC2086
        one_error 1 qemu-img convert $how "$1" x || return 1
        names_place "$1" || return 1
        absent x || return 1
    done
    one_error "$2" qemu-img compare "$1" good.raw || return 1
    names_place "$1" || return 1
    [ "$(hash_of "$1")" = "$before" ]
}

# With --salvage the rest is read, and each hole is told.
salvaged() { # IMAGE BAD-GUEST-OFFSET BAD-LENGTH: else as in good.raw
    local image=$1 at=$2 length=$3
    run -0 --separate-stderr qemu-img convert --salvage -O raw "$image" x
    [[ $stderr == *warning* ]] || fail "no warning: $stderr" || return 1
    [ "$(stat -c %s x)" -eq "$(stat -c %s good.raw)" ] || return 1
    must cmp -n "$at" good.raw x || return 1
    must cmp -i $((at + length)) good.raw x || return 1
    must cmp -n "$length" -i "$at:0" x /dev/zero || return 1
    rm x
}

good_image() { # CONVERT OPTIONS: good.raw and good.qcow2
    imgtool fill good.raw 4M --seed 8
    # Data where the tests break things.
    dd if=/dev/urandom of=good.raw bs=64k seek=16 count=1 conv=notrunc status=none
    must oracle convert "$@" -O qcow2 good.raw good.qcow2
}

@test "an L2 entry that points behind the end of the file" {
    good_image
    cp good.qcow2 b.qcow2
    imgtool l2 b.qcow2 1M 0x8000100000000000
    broken_source b.qcow2 4
    salvaged b.qcow2 1048576 65536
}

@test "an L2 entry that is not aligned" {
    good_image
    cp good.qcow2 b.qcow2
    imgtool l2 b.qcow2 1M 0x8000000000050200
    broken_source b.qcow2 3
    salvaged b.qcow2 1048576 65536
}

@test "an L1 entry that points behind the end of the file, or is not aligned" {
    good_image -o cluster_size=4k
    local value
    # One L2 table of 4 KiB maps 2 MiB.
    for value in 0x8000100000000000 0x8000000000050200; do
        cp good.qcow2 b.qcow2
        imgtool l1 b.qcow2 2M $value
        broken_source b.qcow2 3
        salvaged b.qcow2 2097152 2097152
    done
}

@test "an image cut in the middle" {
    good_image
    cp good.qcow2 b.qcow2
    truncate -s 1M b.qcow2
    broken_source b.qcow2 4
    run -0 --separate-stderr qemu-img convert --salvage -O raw b.qcow2 x
    [[ $stderr == *warning* ]]
    [ "$(stat -c %s x)" -eq 4194304 ]
}

@test "compressed data that cannot be inflated" {
    good_image -c
    cp good.qcow2 b.qcow2
    spoil_compressed b.qcow2
    broken_source b.qcow2 4
    salvaged b.qcow2 "$spoiled" 65536
}

@test "a compressed cluster behind the end of the file" {
    good_image -c
    cp good.qcow2 b.qcow2
    spoil_compressed b.qcow2
    imgtool l2 b.qcow2 "$spoiled" 0x4000010000000000
    broken_source b.qcow2 4
    salvaged b.qcow2 "$spoiled" 65536
}

@test "a broken backing file is named, not the overlay" {
    good_image
    cp good.qcow2 broken-base.qcow2
    imgtool l2 broken-base.qcow2 1M 0x8000100000000000
    must oracle create -f qcow2 -b broken-base.qcow2 -F qcow2 over.qcow2 4M
    one_error 1 qemu-img convert -O raw over.qcow2 x
    names_place broken-base.qcow2
    absent x
}

@test "a snapshot whose tables are gone" {
    good_image
    must oracle snapshot -c one good.qcow2
    must qemu-io -c 'write -P 1 0 4M' good.qcow2
    cp good.qcow2 b.qcow2
    local table
    table=$(imgtool field b.qcow2 snapshots_offset)
    imgtool poke b.qcow2 "$table" 0000100000000000
    must_exit 1 qemu-img convert -l one -O raw b.qcow2 x
    absent x
    must qemu-img convert -O raw b.qcow2 x
    must oracle compare x good.qcow2
}
