#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# What snapshot, resize and amend refuse leaves the file as it was, to the byte; also where
# most of what was asked for could have been done.

load helpers

setup() {
    q2_setup
}

# refused IMAGE REGEX COMMAND...: and told so, there may be a hint.
refused() {
    local image=$1 regex=$2 was code=0
    shift 2
    was=$(hash_of "$image")
    message=$("$@" 2>&1) || code=$?
    [ "$code" -eq 1 ] || fail "exit $code: $*: $message" || return 1
    message_has "^qcow2: .*$regex" || return 1
    [ "$(hash_of "$image")" = "$was" ] || fail "refused, and the image has changed: $*"
}

amend_refused() { # IMAGE REGEX OPTIONS
    refused "$1" "$2" "$QCOW2" amend -f qcow2 -o "$3" "$1"
}

# x.qcow2 of 1 MiB with these options, some data and a snapshot.
image() {
    must oracle create -q -f qcow2 -o "$1" x.qcow2 1M
    must qemu-io -f qcow2 -c 'write -P 1 0 256k' -c 'write -z 512k 64k' x.qcow2
    must oracle snapshot -c one x.qcow2
}

@test "amend: one of several is refused late, and none is done" {
    local good
    image compat=0.10
    # Each of these alone is done.
    for good in compat=1.1 compat=1.1,lazy_refcounts=on compat=1.1,refcount_bits=64; do
        amend_refused x.qcow2 'Failed to grow the L1 table: File too large' "$good,size=7E"
    done
    amend_refused x.qcow2 "Can't resize a v2 image which has snapshots" compat=0.10,size=2M
    amend_refused x.qcow2 "Can't resize a v2 image which has snapshots" size=2M
    amend_refused x.qcow2 'Cannot decrease refcount entry width to 1 bits' \
        compat=1.1,refcount_bits=1,lazy_refcounts=on
    amend_refused x.qcow2 'Cannot amend the backing file' compat=1.1,backing_file=other
    amend_refused x.qcow2 'data-file can only be set' compat=1.1,refcount_bits=8,data_file=other
    amend_refused x.qcow2 'data-file-raw cannot be set' compat=1.1,size=2M,data_file_raw=on
    image compat=1.1,lazy_refcounts=on
    amend_refused x.qcow2 'File too large' lazy_refcounts=off,size=7E
    amend_refused x.qcow2 'File too large' refcount_bits=64,size=7E
    amend_refused x.qcow2 'Internal snapshots prevent downgrade' compat=0.10,size=2M
    amend_refused x.qcow2 'Refcount widths other than 16 bits require' \
        compat=0.10,refcount_bits=64,lazy_refcounts=off
    amend_refused x.qcow2 'Cannot decrease refcount entry width to 1 bits' \
        refcount_bits=1,size=2M,lazy_refcounts=off
    amend_refused x.qcow2 'encryption not present' lazy_refcounts=off,encrypt.iter-time=10
    clean x.qcow2
}

@test "amend: an inconsistent bitmap keeps the size, and everything else" {
    must oracle create -q -f qcow2 x.qcow2 1M
    must oracle bitmap --add x.qcow2 b0
    # In use, as after the death of a writer.
    must oracle bitmap --disable x.qcow2 b0
    PYTHONPATH=$BATS_TEST_DIRNAME/tools python3 -S -c '
from imgtool import EXTENSIONS, Image
image = Image("x.qcow2", writable=True)
at = next(at for at, kind, _ in image.extensions() if kind == EXTENSIONS["bitmaps"])
entry = image.read(at + 24, ">Q")
image.write(entry + 12, (image.read(entry + 12, ">I") | 1).to_bytes(4, "big"))'
    amend_refused x.qcow2 'b0' refcount_bits=64,size=2M
    refused x.qcow2 'b0' "$QCOW2" resize -f qcow2 x.qcow2 2M
}

@test "amend: a compressed cluster of type zstd keeps the version, and everything else" {
    image compat=1.1,compression_type=zstd
    must qemu-io -f qcow2 -c 'write -c -P 2 768k 64k' x.qcow2
    amend_refused x.qcow2 'zstd compression type and existing compressed clusters' \
        compat=0.10,size=1M,lazy_refcounts=off
    must "$QCOW2" resize --shrink x.qcow2 832k
    clean x.qcow2
    must "$QCOW2" resize x.qcow2 3M
    clean x.qcow2
    must qemu-io -f qcow2 -c 'read -P 1 0 256k' -c 'read -P 2 768k 64k' \
        -c 'read -P 0 832k 2240k' x.qcow2
    must "$QCOW2" resize --shrink x.qcow2 512k
    must qemu-io -f qcow2 -c 'read -P 1 0 256k' x.qcow2
    clean x.qcow2
    must oracle snapshot -a one x.qcow2
    must qemu-io -f qcow2 -c 'read -P 1 0 256k' x.qcow2
}

@test "resize: what is refused changes nothing" {
    local size
    image compat=0.10
    for size in 2M 512k 1M; do
        refused x.qcow2 "Can't resize a v2 image which has snapshots" \
            "$QCOW2" resize --shrink x.qcow2 $size
    done
    image compat=1.1
    for size in 7E 128P; do
        refused x.qcow2 'File too large' "$QCOW2" resize x.qcow2 $size
    done
    refused x.qcow2 'multiple of 512' "$QCOW2" resize x.qcow2 +1
    refused x.qcow2 'must be positive' "$QCOW2" resize --shrink x.qcow2 -2M
    refused x.qcow2 'only be used for growing' \
        "$QCOW2" resize --shrink --preallocation=metadata x.qcow2 512k
}

@test "snapshot: what is not there is not applied, not deleted, and an id is no name" {
    image compat=1.1
    refused x.qcow2 "Could not apply snapshot 'two': Failed to load snapshot" \
        "$QCOW2" snapshot -a two x.qcow2
    refused x.qcow2 "Could not delete snapshot 'two': snapshot not found" \
        "$QCOW2" snapshot -d two x.qcow2
    refused x.qcow2 "Could not delete snapshot '1': snapshot not found" \
        "$QCOW2" snapshot -d 1 x.qcow2
    must oracle bitmap --add x.qcow2 b0
    refused x.qcow2 'Device has active dirty bitmaps' "$QCOW2" snapshot -a one x.qcow2
}

# Which one is meant by a word that is an id here and a name there, or the name of two.
@test "snapshot: ids and names are taken as QEMU takes them" {
    local action spec
    must oracle create -q -f qcow2 good.qcow2 1M
    local name n=0
    for name in a 1 a 5 2; do
        n=$((n + 1))
        must qemu-io -f qcow2 -c "write -P $n 0 64k" good.qcow2
        must oracle snapshot -c "$name" good.qcow2
    done
    must qemu-io -f qcow2 -c 'write -P 9 0 64k' good.qcow2
    for action in -a -d; do
        for spec in a 1 2 3 5 4 6; do
            local want=0 got=0
            cp good.qcow2 want.qcow2
            cp good.qcow2 got.qcow2
            "$ORACLE" snapshot $action $spec want.qcow2 >want.out 2>&1 || want=$?
            qemu-img snapshot $action $spec got.qcow2 >got.out 2>&1 || got=$?
            [ "$want" -eq "$got" ] || fail "$action $spec: exit $got, not $want"
            same want.qcow2 got.qcow2 || fail "$action $spec"
            diff <(oracle snapshot -l want.qcow2) <(oracle snapshot -l got.qcow2) ||
                fail "$action $spec"
            clean got.qcow2
        done
    done
}
