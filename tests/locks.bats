#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Image locks, as QEMU keeps them: no reading beside a writer but with -U, no writing beside
# anybody, readers beside readers.

load helpers

setup() {
    q2_setup
}

teardown() {
    no_slow
}

lock_message() { # IMAGE LOCK
    printf '%s\n%s' "Failed to get $2 lock" "Is another process using the image [$1]?"
}

# refused_by_lock CODE COMMAND: with QEMU's message and hint, nothing on standard output.
refused_by_lock() {
    local code=0 want=$1
    shift
    "$@" >out 2>err </dev/null || code=$?
    [ "$code" -eq "$want" ] || fail "exit $code, not $want: $*: $(cat err)" || return 1
    [ ! -s out ] || fail "prints: $(cat out)" || return 1
    [ "$(wc -l <err)" -eq 2 ] || fail "not two lines: $(cat err)"
}

@test "with qemu-io holding the image: info, map, convert and compare refuse; -U reads" {
    imgtool fill a.raw 2M --seed 1
    must oracle convert -O qcow2 a.raw a.qcow2
    cp a.qcow2 copy.qcow2
    hold_open a.qcow2
    must oracle create -f qcow2 -u -b a.qcow2 -F qcow2 over.qcow2 2M
    local text
    text=$(lock_message a.qcow2 'shared "write"')

    refused_by_lock 1 qemu-img info a.qcow2
    [ "$(cat err)" = "qemu-img: Could not open 'a.qcow2': $text" ]
    refused_by_lock 1 qemu-img info --output=json a.qcow2
    [ "$(cat err)" = "qemu-img: Could not open 'a.qcow2': $text" ]
    refused_by_lock 1 qemu-img map a.qcow2
    [ "$(cat err)" = "qemu-img: Could not open 'a.qcow2': $text" ]
    refused_by_lock 1 qemu-img convert -O raw a.qcow2 x
    [ "$(cat err)" = "qemu-img: Could not open 'a.qcow2': $text" ]
    absent x
    refused_by_lock 2 qemu-img compare a.qcow2 a.raw
    [ "$(cat err)" = "qemu-img: Could not open 'a.qcow2': $text" ]
    refused_by_lock 2 qemu-img compare a.raw a.qcow2
    # As a backing file it is locked all the same.
    refused_by_lock 1 qemu-img convert -O raw over.qcow2 x
    [ "$(cat err)" = "qemu-img: Could not open 'over.qcow2': Could not open backing file: $text" ]
    absent x
    refused_by_lock 1 qemu-img info --backing-chain over.qcow2
    # The overlay's own description does not need it.
    must qemu-img info over.qcow2

    must qemu-img info -U a.qcow2
    must qemu-img map -U a.qcow2
    must qemu-img convert -U -O raw a.qcow2 got.raw
    must qemu-img compare -U copy.qcow2 a.raw
    must qemu-img convert -U -O raw over.qcow2 got2.raw
    must qemu-img info -U --backing-chain over.qcow2
    # A new overlay takes no more than its size, and the base's format.
    for base in a.qcow2 over.qcow2; do
        must qemu-img create -q -f qcow2 -b $base -F qcow2 new.qcow2
        [ "$(qemu-img info -U --output=json new.qcow2 | json_value '["virtual-size"]')" = 2097152 ]
    done
    # The writer filled the first sector with its pattern when it started, and has not
    # necessarily written it; the rest is as it was.
    must cmp -i 512 a.raw got.raw
    let_go
    must qemu-img info a.qcow2
    must qemu-img convert -O raw a.qcow2 got.raw
}

@test "a base that somebody reads is not committed to" {
    must oracle create -q -f qcow2 base.qcow2 1M
    must oracle create -q -f qcow2 -b base.qcow2 -F qcow2 over.qcow2
    must oracle create -q -f qcow2 -b base.qcow2 -F qcow2 other.qcow2
    hold_open other.qcow2
    refused_by_lock 1 qemu-img commit over.qcow2
    [ "$(cat err)" = "qemu-img: $(lock_message base.qcow2 '"write"')" ]
    let_go
    must qemu-img commit -q over.qcow2
}

@test "with qemu-io holding the image: nothing may be written to it" {
    imgtool fill a.raw 2M --seed 2
    must oracle create -f qcow2 t.qcow2 2M
    hold_open t.qcow2
    local before
    before=$(hash_of t.qcow2)
    refused_by_lock 1 qemu-img convert -n -O qcow2 a.raw t.qcow2
    [ "$(cat err)" = "qemu-img: Could not open 't.qcow2': $(lock_message t.qcow2 '"write"')" ]
    refused_by_lock 1 qemu-img convert -O qcow2 a.raw t.qcow2
    grep -qx "Is another process using the image \[t.qcow2\]?" err
    grep -q 'Failed to get "write" lock' err
    refused_by_lock 1 qemu-img convert -O raw a.raw t.qcow2
    refused_by_lock 1 qemu-img create -q -f qcow2 t.qcow2 1M
    [ "$(hash_of t.qcow2)" = "$before" ]
    let_go
    clean t.qcow2
}

# A conversion that stands still in its middle, with all its locks, until end_slow.
slow() { # CONVERT ARGUMENTS, the target last
    start_slow "$@" && kill -STOP "$pid"
}

end_slow() {
    kill -TERM "$pid"
    kill -CONT "$pid"
    finish_slow
    [ "$code" -eq 143 ]
}

@test "while convert writes its target, nobody else can write or read it" {
    # (QEMU lets readers of raw files be.)
    local format
    head -c 64M /dev/urandom >src
    for format in raw qcow2; do
        slow -O $format src x
        run ! qemu-io -f raw -c 'write -P 1 0 512' x
        [[ $output == *'Failed to get'*lock* ]]
        run ! qemu-img convert -f raw -O raw x y
        [[ $output == *'Failed to get shared "write" lock'* ]]
        # Raw disks are read beside writers; this is none, or not yet what it will be.
        run ! qemu-img info x
        [[ $output == *'Failed to get shared "write" lock'* ]]
        run ! qemu-img info -f raw x
        [[ $output == *'Failed to get shared "resize" lock'* ]]
        end_slow
        absent x y
    done
}

@test "while convert -n writes an image, QEMU can neither write nor read it" {
    head -c 64M /dev/urandom >src
    must oracle create -f qcow2 x 64M
    slow -n -O qcow2 src x
    run ! qemu-io -f qcow2 -c 'write -P 1 0 512' x
    [[ $output == *'Failed to get'*lock* ]]
    run ! oracle convert -f qcow2 -O raw x y
    [[ $output == *'Failed to get shared "write" lock'* ]]
    end_slow
}

@test "while convert reads its source, QEMU can read it and cannot write it" {
    local format
    head -c 64M /dev/urandom >src.raw
    must oracle convert -f raw -O qcow2 src.raw src.qcow2
    must oracle create -f qcow2 -b src.qcow2 -F qcow2 src.over
    local source
    for source in src.raw src.qcow2 src.over; do
        echo "$source"
        format=qcow2
        [ $source != src.raw ] || format=raw
        slow -f $format -O raw $source x
        run ! qemu-io -f $format -c 'write -P 1 0 512' $source
        [[ $output == *'Failed to get "write" lock'* ]]
        [ $source = src.raw ] || {
            # The backing file too.
            run ! qemu-io -f qcow2 -c 'write -P 1 0 512' src.qcow2
            [[ $output == *'Failed to get "write" lock'* ]]
        }
        must oracle info $source
        must oracle convert -f $format -O raw $source y
        must qemu-img info $source
        must qemu-img map -f $format $source
        must qemu-img compare -f $format -F raw $source src.raw
        end_slow
        absent x
        # The lock went with the process.
        must qemu-io -f $format -c 'write -s src.raw 0 512' $source
    done
}

@test "readers beside QEMU's readers" {
    imgtool fill a.raw 1M --seed 3
    must oracle convert -O qcow2 a.raw a.qcow2
    hold_open_to_read a.qcow2
    # A writer is turned away.
    must_exit 1 qemu-io -f qcow2 -c 'read -q 0 512' a.qcow2
    must qemu-img info a.qcow2
    must qemu-img map a.qcow2
    must qemu-img convert -O raw a.qcow2 got.raw
    same_bytes a.raw got.raw
    must qemu-img compare a.qcow2 a.raw
    must_exit 1 qemu-img convert -n -O qcow2 a.raw a.qcow2
    let_go
}

@test "two conversions from one source at a time" {
    head -c 8M /dev/urandom >src
    qemu-img convert -O qcow2 src x 2>err 3>&- &
    must qemu-img convert -O qcow2 src y
    wait $!
    same_bytes x y
}

@test "two conversions to one target: one of them is turned away" {
    head -c 64M /dev/urandom >src
    slow -O qcow2 src x
    refused_by_lock 1 qemu-img convert -O qcow2 src x
    grep -q 'Failed to get "write" lock' err
    # It has not removed or emptied what the other one is writing.
    has_grown x 0
    end_slow
    absent x
}
