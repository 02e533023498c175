#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# SIGINT and SIGTERM in the middle of what changes an image as a whole: as a power cut, at
# worst.
#
# shellcheck shell=bash disable=SC2154

load helpers

setup() {
    q2_setup
}

# An image with all kinds of clusters, and a snapshot that shares most of them.
build() {
    must oracle create -q -f qcow2 -o cluster_size=4k good.qcow2 8M
    must qemu-io -f qcow2 -c 'write -P 1 0 512k' -c 'write -z 1M 256k' \
        -c 'write -P 2 2M 128k' -c 'write -z -u 4M 64k' good.qcow2
    must oracle snapshot -c first good.qcow2
    must qemu-io -f qcow2 -c 'write -P 3 64k 64k' -c 'write -z 128k 64k' \
        -c 'write -P 4 6M 64k' good.qcow2
    must oracle convert -O raw good.qcow2 active.raw
    must oracle convert -l first -O raw good.qcow2 first.raw
}

# The guest's bytes are what they were; what is wrong are leaks, or a dirty image that is
# repaired without a loss.
is_whole() {
    local checked=0
    "$QCOW2" check image.qcow2 >said 2>&1 || checked=$?
    case $checked in
    0 | 3) ;;
    2) # dirty, or flags behind: repaired without a loss
        "$QCOW2" check -r all image.qcow2 >said 2>&1 || fail "$(cat said)" || return 1
        ! grep -q 'cannot be brought back' said || fail "$(cat said)" || return 1
        ;;
    *) fail "check ends with $checked: $(cat said)" || return 1 ;;
    esac
    must oracle convert -O raw image.qcow2 got.raw
    cmp -s active.raw got.raw || fail "the active state has changed" || return 1
    must oracle convert -l first -O raw image.qcow2 got.raw
    cmp -s first.raw got.raw || fail "the snapshot has changed"
}

# The command, stopped at every STEP-th call; what is left of the image is whole.
stopped_anywhere() { # STEP COMMAND...
    local step=$1 n stopped=0 call signal
    shift
    for call in pwrite pread; do
        signal=2
        for ((n = 1; n < 400; n += step)); do
            cp good.qcow2 image.qcow2
            with_signal "$call" "$n" "$signal" "$@" image.qcow2
            [ "$code" -ne 0 ] || break # there are fewer calls
            [ "$code" -eq $((128 + signal)) ] ||
                fail "$call $n: exit $code: $(cat err)" || return 1
            is_whole || return 1
            stopped=$((stopped + 1))
            signal=$((17 - signal))
        done
    done
    [ "$stopped" -ge 3 ] || fail "stopped $stopped times only"
}

STEP=$(rows 1 3)

@test "a downgrade that is interrupted" {
    build
    stopped_anywhere "$STEP" "$QCOW2" amend -o compat=0.10
}

@test "a change of the refcounts' width that is interrupted" {
    build
    stopped_anywhere "$STEP" "$QCOW2" amend -o refcount_bits=64
}

@test "a new snapshot that is interrupted" {
    build
    stopped_anywhere "$STEP" "$QCOW2" snapshot -c second
}

# It is over in a few writes: it is done, or it is not.
@test "a resize that is interrupted" {
    local n
    build
    for ((n = 1; n <= 12; n++)); do
        cp good.qcow2 image.qcow2
        with_signal pwrite "$n" 15 "$QCOW2" resize image.qcow2 12M
        [ "$code" -eq 0 ] || [ "$code" -eq 143 ] || fail "exit $code: $(cat err)"
        must "$QCOW2" check -r leaks image.qcow2
        must oracle convert -O raw image.qcow2 got.raw
        truncate -s 8M got.raw
        cmp active.raw got.raw
    done
}

# tells_progress CALL N COMMAND...: SIGUSR1 makes it say how far it is, and it goes on.
tells_progress() {
    local call=$1 n=$2
    shift 2
    cp good.qcow2 image.qcow2
    with_signal "$call" "$n" 10 "$@"
    [ "$code" -eq 0 ] || fail "exit $code: $*: $(cat err)" || return 1
    grep -qE '^    \([0-9]{1,3}\.[0-9]{2}/100%\)$' err || fail "$*: says nothing: $(cat err)" ||
        return 1
    must "$QCOW2" check image.qcow2
}

@test "SIGUSR1: how far it is, on standard error" {
    build
    tells_progress pread 6 "$QCOW2" amend -o compat=0.10 image.qcow2
    tells_progress pread 6 "$QCOW2" amend -o refcount_bits=64 image.qcow2
    tells_progress pread 5 "$QCOW2" snapshot -c second image.qcow2
    tells_progress pread 5 "$QCOW2" snapshot -a first image.qcow2
    tells_progress pread 5 "$QCOW2" snapshot -d first image.qcow2
    tells_progress pwrite 2 "$QCOW2" resize --preallocation=full image.qcow2 16M
    [ "$(cat out)" = "Image resized." ]
}

# Percentages that rise, as QEMU prints them: the first is 0, the last is 100.
@test "-p: snapshot, resize, amend" {
    local command
    build
    while read -r command; do
        cp good.qcow2 image.qcow2
        # shellcheck disable=SC2086 # words
        "$QCOW2" $command >out || fail "$command"
        tr '\r' '\n' <out | sed -e '/^Image resized\.$/d' -e '/^$/d' >lines
        ! grep -qvE '^    \([0-9]{1,3}\.[0-9]{2}/100%\)$' lines || fail "$command: $(cat lines)"
        [ "$(head -n 1 lines)" = '    (0.00/100%)' ] || fail "$command: $(cat lines)"
        [ "$(tail -n 1 lines)" = '    (100.00/100%)' ] || fail "$command: $(cat lines)"
        tr -d ' (' <lines | sort -n -c || fail "$command: $(cat lines)"
        # -q has the last word.
        cp good.qcow2 image.qcow2
        # shellcheck disable=SC2086
        [ -z "$("$QCOW2" $command -q)" ] || fail "$command -q"
    done <<'COMMANDS'
snapshot -p -c second image.qcow2
snapshot -p -a first image.qcow2
snapshot -p -d first image.qcow2
resize -p image.qcow2 16M
resize -p --shrink image.qcow2 1M
resize -p --preallocation=full image.qcow2 12M
amend -p -o compat=0.10 image.qcow2
amend -p -o refcount_bits=64 image.qcow2
amend -p -o refcount_bits=8,size=9M,lazy_refcounts=on image.qcow2
COMMANDS
}
