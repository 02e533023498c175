#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# resize: what is new reads as zeros, what is cut off is free, and QEMU finds all of it sound.
#
# shellcheck disable=SC2154 # message is set by the helpers

load helpers

setup() {
    q2_setup
}

size_of() {
    oracle info --output=json "$1" | json_value '["virtual-size"]'
}

# The disk reads like the raw file, for QEMU and for the program.
reads_like() {
    same "$1" "$2" && must "$QCOW2" compare "$1" "$2"
}

@test "a refusal changes nothing" {
    must oracle create -f qcow2 -o compat=0.10 v2.qcow2 4M
    must oracle snapshot -c one v2.qcow2
    must oracle create -f qcow2 v3.qcow2 4M
    cp v2.qcow2 v2.before
    cp v3.qcow2 v3.before
    one_error 1 "$QCOW2" resize v2.qcow2 8M
    [ "$message" = "qcow2: Can't resize a v2 image which has snapshots" ] || fail "$message"
    one_error 1 "$QCOW2" resize --shrink v2.qcow2 2M
    for size in 8E 0 -4M -5M 16E 100P; do
        must_exit 1 "$QCOW2" resize --shrink v3.qcow2 "$size"
    done
    one_error 1 "$QCOW2" resize --preallocation=falloc --shrink v3.qcow2 1M
    [ "$message" = "qcow2: Preallocation can only be used for growing images" ] || fail "$message"
    one_error 1 "$QCOW2" resize --preallocation=some v3.qcow2 8M
    [ "$message" = "qcow2: Invalid preallocation mode 'some'" ] || fail "$message"
    same_bytes v2.qcow2 v2.before
    same_bytes v3.qcow2 v3.before
}

@test "sizes that QEMU refuses are refused with its words, others give its sizes" {
    local size
    for size in 8191P 9E 16E 99999P -1 -4M 0 +0 1k +1 1.5M 0x10000 x '' '+ 1' 5M -1M; do
        must oracle create -f qcow2 want.qcow2 4M
        cp want.qcow2 got.qcow2
        local want=0 got=0
        "$ORACLE" resize --shrink want.qcow2 "$size" >want.out 2>&1 || want=$?
        qemu-img resize --shrink got.qcow2 "$size" >got.out 2>&1 || got=$?
        diff -u want.out got.out || fail "$size"
        [ "$want" -eq "$got" ] || fail "$size: exit $got, not $want"
        [ "$(size_of want.qcow2)" -eq "$(size_of got.qcow2)" ] || fail "$size: other size"
    done
}

@test "grown and shrunk images of all kinds read right and are sound" {
    local cluster compat
    for cluster in $(rows '512 1k 4k 64k 2M' '512 4k 64k'); do
        for compat in 0.10 1.1; do
            must oracle create -f qcow2 -o "cluster_size=$cluster,compat=$compat" x.qcow2 3M
            truncate -s 3M x.raw
            scribble qcow2 x.qcow2 5 --size 3M --count 40 --no-discard
            scribble raw x.raw 5 --size 3M --count 40 --no-discard
            local size
            for size in 8M 1000k 2001k 700k 12M 513k 513k 1M; do
                must "$QCOW2" resize --shrink x.qcow2 "$size"
                truncate -s "$size" x.raw
                clean x.qcow2 || fail "$cluster $compat $size"
                reads_like x.qcow2 x.raw || fail "$cluster $compat $size"
                # What the next shrinking cuts off is not only zeros.
                must qemu-io -f qcow2 -c 'write -P 7 500k 12k' x.qcow2
                must qemu-io -f raw -c 'write -P 7 500k 12k' x.raw
            done
            written_right x.qcow2 x.raw || fail "$cluster $compat"
        done
    done
}

@test "shrinking gives the space back, in the file too" {
    must oracle create -f qcow2 x.qcow2 64M
    must qemu-io -f qcow2 -c 'write -P 5 0 64M' x.qcow2
    must "$QCOW2" resize --shrink x.qcow2 1M
    [ "$(stat -c %s x.qcow2)" -le $((2 << 20)) ] || fail "$(stat -c %s x.qcow2) bytes"
    clean x.qcow2
    must qemu-io -f qcow2 -c 'read -P 5 0 1M' x.qcow2
}

@test "what described the space that is gone goes too, as far as with QEMU" {
    local kind want
    for kind in 4k,16 4k,64 64k,1 512,8; do
        must oracle create -q -f qcow2 -o \
            "cluster_size=${kind%,*},refcount_bits=${kind#*,},preallocation=metadata" x.qcow2 40M
        must qemu-io -f qcow2 -c 'write -P 5 0 3M' x.qcow2
        cp --sparse=always x.qcow2 want.qcow2
        must oracle resize -q --shrink want.qcow2 3M
        want=$(stat -c %s want.qcow2)
        must "$QCOW2" resize --shrink x.qcow2 3M
        [ "$(stat -c %s x.qcow2)" -le "$want" ] ||
            fail "$kind: $(stat -c %s x.qcow2) bytes, not $want"
        clean x.qcow2
        must qemu-io -f qcow2 -c 'read -P 5 0 3M' x.qcow2
        must "$QCOW2" resize x.qcow2 40M
        must "$QCOW2" io -f qcow2 -c 'write -P 6 30M 4M' x.qcow2
        clean x.qcow2
        must qemu-io -f qcow2 -c 'read -P 5 0 3M' -c 'read -P 6 30M 4M' x.qcow2
    done
}

@test "snapshots keep their size and their data" {
    must oracle create -f qcow2 x.qcow2 4M
    must qemu-io -f qcow2 -c 'write -P 1 0 4M' x.qcow2
    must oracle snapshot -c four x.qcow2
    must qemu-io -f qcow2 -c 'write -P 2 3M 512k' x.qcow2
    must "$QCOW2" resize --shrink x.qcow2 1M
    clean x.qcow2
    must "$QCOW2" resize x.qcow2 8G
    clean x.qcow2
    must qemu-io -f qcow2 -c 'read -P 1 0 1M' -c 'read -P 0 1M 7M' x.qcow2
    must oracle snapshot -a four x.qcow2
    [ "$(size_of x.qcow2)" -eq $((4 << 20)) ]
    must qemu-io -f qcow2 -c 'read -P 1 0 4M' x.qcow2
    clean x.qcow2
}

@test "a longer backing file does not show through what is added" {
    local compat cluster
    truncate -s 6M base.raw
    must qemu-io -f raw -c 'write -P 9 0 6M' base.raw
    for cluster in 512 4k 64k; do
        for compat in 0.10 1.1; do
            must oracle create -f qcow2 -b base.raw -F raw \
                -o "cluster_size=$cluster,compat=$compat" x.qcow2 2000k
            must "$QCOW2" resize x.qcow2 5M
            must qemu-io -f qcow2 -c 'read -P 9 0 2000k' -c 'read -P 0 2000k 3120k' x.qcow2
            clean x.qcow2
            must "$QCOW2" resize --shrink x.qcow2 1M
            must "$QCOW2" resize --preallocation=metadata x.qcow2 8M
            must qemu-io -f qcow2 -c 'read -P 9 0 1M' -c 'read -P 0 1M 7M' x.qcow2
            clean x.qcow2 || fail "$cluster $compat"
        done
    done
}

@test "what is preallocated is mapped, and reads as zeros where other data has been" {
    local mode
    for mode in metadata falloc full; do
        must oracle create -f qcow2 -o cluster_size=4k x.qcow2 4M
        must qemu-io -f qcow2 -c 'write -P 3 0 4M' x.qcow2
        must qemu-io -f qcow2 -c 'discard 1M 1M' x.qcow2
        must "$QCOW2" resize --preallocation=$mode x.qcow2 6001k
        clean x.qcow2
        must qemu-io -f qcow2 -c 'read -P 3 0 1M' -c 'read -P 3 2M 2M' \
            -c 'read -P 0 4M 1905k' x.qcow2
        [ "$(oracle map --output=json -s 4M x.qcow2 | grep -c '"data": false')" -eq 0 ] ||
            fail "$mode: $(oracle map --output=json x.qcow2)"
    done
    [ "$(disk_bytes x.qcow2)" -ge $((4800 << 10)) ]
}

@test "space that does not suffice is given back, and the image stays as it was" {
    local mode
    for mode in full falloc; do
        qemu-img create -q -f qcow2 x.qcow2 64M
        qemu_io qcow2 x.qcow2 <<<'write -P 5 0 1M'
        in_tmpfs 8m bash -c 'cp x.qcow2 small
            qcow2 resize --preallocation='$mode' small/x.qcow2 128M; code=$?
            df --output=avail small | tail -n 1 >free
            cp small/x.qcow2 y.qcow2; exit $code'
        [ "$(cat code)" -eq 1 ] || fail "exit $(cat code)"
        message_has "No space left on device"
        [ "$(cat free)" -gt 6000 ] || fail "$mode: $(cat free) KiB are free"
        [ "$(stat -c %s y.qcow2)" -le $(($(stat -c %s x.qcow2) + 131072)) ]
        clean y.qcow2
        same x.qcow2 y.qcow2
    done
}

@test "raw files: every size, and their preallocation" {
    truncate -s 1M x.raw
    must qemu-io -f raw -c 'write -P 3 0 1M' x.raw
    must "$QCOW2" resize -f raw x.raw +1000
    [ "$(stat -c %s x.raw)" -eq $((1048576 + 1000)) ]
    must "$QCOW2" resize -f raw --preallocation=falloc x.raw 2M
    [ "$(disk_bytes x.raw)" -ge $((2 << 20)) ]
    must "$QCOW2" resize -f raw --preallocation=full x.raw 3M
    must qemu-io -f raw -c 'read -P 3 0 1M' -c 'read -P 0 1M 2M' x.raw
    [ "$(disk_bytes x.raw)" -ge $((3 << 20)) ]
    one_error 1 "$QCOW2" resize -f raw --preallocation=metadata x.raw 4M
    must "$QCOW2" resize -f raw --shrink x.raw -2.5M
    [ "$(stat -c %s x.raw)" -eq $((512 << 10)) ]
}

@test "L1 tables grow to their largest, and the disk can be written at its end" {
    must oracle create -f qcow2 -o cluster_size=512 x.qcow2 1M
    must qemu-io -f qcow2 -c 'write -P 4 512k 64k' x.qcow2
    must "$QCOW2" resize x.qcow2 128G
    must "$QCOW2" io -f qcow2 -c 'write -P 6 137438952448 1k' x.qcow2
    must qemu-io -f qcow2 -c 'read -P 4 512k 64k' -c 'read -P 6 137438952448 1k' \
        -c 'read -P 0 1M 64k' x.qcow2
    clean x.qcow2
    one_error 1 "$QCOW2" resize x.qcow2 +512
    [ "$message" = "qcow2: Failed to grow the L1 table: File too large" ] || fail "$message"
    clean x.qcow2
}

@test "io truncates qcow2 images" {
    must oracle create -f qcow2 x.qcow2 1M
    must "$QCOW2" io -f qcow2 -c 'write -P 1 0 1M' -c 'truncate 3M' -c 'write -P 2 2M 1M' \
        -c 'truncate 2560k' -c 'truncate -m metadata 4M' x.qcow2
    must qemu-io -f qcow2 -c 'read -P 1 0 1M' -c 'read -P 0 1M 1M' -c 'read -P 2 2M 512k' \
        -c 'read -P 0 2560k 1536k' x.qcow2
    [ "$(size_of x.qcow2)" -eq $((4 << 20)) ]
    clean x.qcow2
}

@test "the machine's state does not become guest data" {
    must oracle create -f qcow2 x.qcow2 1M
    must qemu-io -f qcow2 -c 'write -b -P 8 0 64k' x.qcow2
    must "$QCOW2" resize x.qcow2 2G
    must "$QCOW2" io -f qcow2 -c 'read -P 0 511M 2M' x.qcow2
    clean x.qcow2
}
