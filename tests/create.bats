#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# create: what it prints, what it refuses, and that nothing is left of what it refused.

load helpers

setup() {
    q2_setup
}

@test "a refusal leaves an existing file as it was" {
    head -c 3000 /dev/urandom >old
    local before
    before=$(hash_of old)
    must_exit 1 qemu-img create -f qcow2 -o cluster_size=1000 old 64M
    must_exit 1 qemu-img create -f qcow2 -o compat=0.10,lazy_refcounts=on old 64M
    must_exit 1 qemu-img create -f qcow2 -o nosuch=on old 64M
    must_exit 1 qemu-img create -f qcow2 -b missing -F raw old
    must_exit 1 qemu-img create -f qcow2 old 12X
    must_exit 1 qemu-img create -f qcow2 -o encrypt.format=luks old 64M
    must_exit 1 qemu-img create -f nosuch old 64M
    [ "$(hash_of old)" = "$before" ]
}

@test "sizes: suffixes, fractions and hexadecimal, as QEMU takes them" {
    local size
    for size in 0 1 511 512 513 1000 64k 64K 64m 64M 1.5G 0.5k 1.25M 2T 100G 1b 4096b 0x1000 \
        0x10 1.0 3.7k 1.0001M 007 1P; do
        echo "size $size"
        rm -f a.qcow2 b.qcow2 a.raw b.raw
        local code=0
        "$ORACLE" create -f qcow2 -o cluster_size=2M a.qcow2 "$size" >want 2>err || code=$?
        sed -i s/a.qcow2/b.qcow2/ want
        must_exit "$code" qemu-img create -f qcow2 -o cluster_size=2M b.qcow2 "$size"
        if [ "$code" -eq 0 ]; then
            rm b.qcow2
            qemu-img create -f qcow2 -o cluster_size=2M b.qcow2 "$size" | diff want -
            must cmp -i 24 -n 8 a.qcow2 b.qcow2
        fi
    done
    # A raw file is as long as QEMU's, rounded up to sectors in the same way.
    for size in 0 1 513 64k 1.25M 3G; do
        rm -f a.raw b.raw
        must oracle create -f raw a.raw "$size"
        must qemu-img create -f raw b.raw "$size"
        [ "$(stat -c %s a.raw)" = "$(stat -c %s b.raw)" ]
    done
}

@test "sizes that are none" {
    local size
    for size in 12X 1.5 k 64MB '64 M' M 1e3 0x 0x1.8 1..5k 16EE 'five' ''; do
        one_error 1 qemu-img create -f qcow2 x.qcow2 "$size"
        message_has "Invalid image size specified: '$size'"
        absent x.qcow2
    done
    # 2^63 bytes and more.
    for size in 8E 16E 9223372036854775808 18446744073709551616 99999999999999999999P; do
        must_exit 1 qemu-img create -f raw x.raw "$size"
        absent x.raw
    done
}

@test "too large for the L1 table" {
    one_error 1 qemu-img create -q -f qcow2 -o cluster_size=512 x.qcow2 1T
    message_has 'x.qcow2: '
    absent x.qcow2
    # The largest that 512-byte clusters can hold, and a sector more.
    must qemu-img create -f qcow2 -o cluster_size=512 y.qcow2 128G
    clean y.qcow2
    must_exit 1 qemu-img create -f qcow2 -o cluster_size=512 x.qcow2 137438953984
    absent x.qcow2
}

@test "the size can come through -o, and from the backing file" {
    replay <<'EOF'
$ qemu-img create -f qcow2 -o size=32M a.qcow2
Formatting 'a.qcow2', fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zlib size=33554432 lazy_refcounts=off refcount_bits=16
[exit 0]
EOF
    truncate -s 1000 odd.raw
    must qemu-img create -f qcow2 -b odd.raw -F raw over.qcow2
    [ "$(imgtool field over.qcow2 size)" -eq 1024 ]
    must qemu-img create -f qcow2 -o backing_file=a.qcow2,backing_fmt=qcow2 over2.qcow2
    [ "$(imgtool field over2.qcow2 size)" -eq 33554432 ]
    oracle info over2.qcow2 | grep -qx 'backing file: a.qcow2'
    oracle info over2.qcow2 | grep -qx 'backing file format: qcow2'
}

@test "versions by all their names" {
    local name want
    for name in 0.10:2 v2:2 1.1:3 v3:3; do
        rm -f a.qcow2
        must qemu-img create -f qcow2 -o "compat=${name%:*}" a.qcow2 1M
        want=${name#*:}
        [ "$(imgtool field a.qcow2 version)" -eq "$want" ]
        clean a.qcow2
    done
}

@test "options: given twice, in several -o, with suffixes, with other words for on and off" {
    must qemu-img create -f qcow2 -o cluster_size=4k -o lazy_refcounts=on,refcount_bits=8 \
        -o refcount_bits=32 a.qcow2 1M
    [ "$(imgtool field a.qcow2 cluster_bits)" -eq 12 ]
    [ "$(imgtool field a.qcow2 compatible_features)" -eq 1 ]
    [ "$(imgtool field a.qcow2 refcount_order)" -eq 5 ]
    local word code
    for word in on off yes no true false y n; do
        rm -f a.qcow2 b.qcow2
        code=0
        "$ORACLE" create -q -f qcow2 -o "lazy_refcounts=$word" a.qcow2 1M 2>/dev/null || code=$?
        must_exit "$code" qemu-img create -f qcow2 -o "lazy_refcounts=$word" b.qcow2 1M
        if [ "$code" -eq 0 ]; then
            [ "$(imgtool field a.qcow2 compatible_features)" -eq \
                "$(imgtool field b.qcow2 compatible_features)" ]
        fi
    done
}

@test "names with commas, and an option value with a doubled comma" {
    truncate -s 1M 'a,b.raw'
    must qemu-img create -f qcow2 -b 'a,b.raw' -F raw over.qcow2
    [ "$(oracle info --output=json over.qcow2 | python3 -c \
        'import json,sys; print(json.load(sys.stdin)["backing-filename"])')" = 'a,b.raw' ]
    rm over.qcow2
    must qemu-img create -f qcow2 -o 'backing_file=a,,b.raw,backing_fmt=raw' over.qcow2
    [ "$(oracle info --output=json over.qcow2 | python3 -c \
        'import json,sys; print(json.load(sys.stdin)["backing-filename"])')" = 'a,b.raw' ]
}

@test "a backing file name of 1023 bytes, and of 1024" {
    local name
    name=$(printf 'd/%.0s' {1..510})x.r
    [ ${#name} -eq 1023 ]
    must qemu-img create -f qcow2 -u -b "$name" -F raw long.qcow2 1M
    [ "$(imgtool field long.qcow2 backing_file_size)" -eq 1023 ]
    must_exit 1 qemu-img create -f qcow2 -u -b "y$name" -F raw longer.qcow2 1M
    absent longer.qcow2
    # A header that must fit into one cluster of 512 bytes.
    must_exit 1 qemu-img create -f qcow2 -o cluster_size=512 -u -b "$name" -F raw longer.qcow2 1M
    absent longer.qcow2
}

@test "a raw file takes no options of qcow2" {
    must_exit 1 qemu-img create -f raw -o cluster_size=4k x.raw 1M
    must_exit 1 qemu-img create -f raw -b a -F raw x.raw 1M
    absent x.raw
}

@test "an existing image that is open for writing is not replaced" {
    must oracle create -f qcow2 busy.qcow2 1M
    local before
    hold_open busy.qcow2
    before=$(hash_of busy.qcow2)
    must_exit 1 qemu-img create -f qcow2 busy.qcow2 2M
    [ "$(hash_of busy.qcow2)" = "$before" ]
    let_go
    [ "$(imgtool field busy.qcow2 size)" -eq 1048576 ]
    clean busy.qcow2
}

@test "a target in a folder that is not there" {
    one_error 1 qemu-img create -q -f qcow2 no/such/x.qcow2 1M
    message_has 'no/such/x.qcow2' 'No such file or directory'
    one_error 1 qemu-img create -q -f raw no/such/x.raw 1M
    message_has 'no/such/x.raw' 'No such file or directory'
}
