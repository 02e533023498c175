#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# rebase: the guest sees the same on another backing file; beside QEMU, and on chains of
# every kind.

load helpers
load beside

setup() {
    q2_setup
}

# Three layers, the lower the shorter; others to be put below, longer and shorter.
chain() {
    mkdir images
    cd images || return 1
    must oracle create -q -f qcow2 base.qcow2 4M
    must oracle create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2 6M
    must oracle create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2 8M
    must qemu-io -c 'write -P 1 0 1M' -c 'write -P 2 3M 1M' base.qcow2
    must qemu-io -c 'write -P 3 5M 512k' mid.qcow2
    must qemu-io -c 'write -P 4 64k 64k' -c 'write -z 256k 64k' -c 'write -P 5 7M 1k' top.qcow2
    must oracle create -q -f qcow2 full.qcow2 10M
    must qemu-io -c 'write -P 9 0 10M' full.qcow2
    must oracle create -q -f raw low.raw 1M
    must oracle create -q -f qcow2 -b low.raw -F raw over.qcow2 2M
    must qemu-io -c 'write -P 6 900k 700k' over.qcow2
    must oracle create -q -f qcow2 -o compat=0.10 -b base.qcow2 -F qcow2 v2.qcow2 5M
    must qemu-io -c 'write -P 7 1M 700k' v2.qcow2
    must oracle create -q -f qcow2 alone.qcow2 3M
    must qemu-io -c 'write -P 8 1M 100k' alone.qcow2
    cd ..
}

@test "onto other files, deeper ones of the chain, none: beside QEMU" {
    chain
    each_beside 'rebase -b full.qcow2 -F qcow2 top.qcow2' \
        'rebase -p -b base.qcow2 -F qcow2 top.qcow2' 'rebase -b low.raw -F raw top.qcow2'
    beside "rebase -b '' top.qcow2" 'rebase -b full.qcow2 -F qcow2 -t none over.qcow2' \
        'rebase -b full.qcow2 -F qcow2 -T directsync v2.qcow2' \
        'rebase -b full.qcow2 -F qcow2 alone.qcow2'
    beside "rebase -q -b '' v2.qcow2" 'rebase -b "$PWD/base.qcow2" -F qcow2 over.qcow2' \
        'rebase -b base.qcow2 -F qcow2 --image-opts driver=qcow2,file.filename=top.qcow2'
}

@test "with -u the name alone changes, beside QEMU" {
    chain
    beside 'rebase -u -b full.qcow2 -F qcow2 top.qcow2' 'rebase -u -b nosuch -F raw over.qcow2' \
        'rebase -u -b low.raw -F raw over.qcow2' 'rebase -u v2.qcow2' \
        "rebase -u -b '' -F raw alone.qcow2" 'rebase -u -b "" top.qcow2'
}

@test "refusals, beside QEMU" {
    chain
    beside 'rebase top.qcow2' 'rebase -b full.qcow2 -F foo top.qcow2' \
        'rebase -b nosuch -F qcow2 top.qcow2' 'rebase -u -b full.qcow2 -F foo top.qcow2' \
        'rebase -u -b full.qcow2 top.qcow2' 'rebase -u -b low.raw -F raw low.raw' \
        'rebase -f raw -b base.qcow2 -F qcow2 low.raw' "rebase -b '' -f raw low.raw" \
        'rebase -t foo -b base.qcow2 top.qcow2' 'rebase -T foo -b base.qcow2 top.qcow2' \
        'rebase -b top.qcow2 -F qcow2 top.qcow2' 'rebase -b base.qcow2 -F qcow2 a b' \
        'rebase -u -b $(printf %01100d 3) -F qcow2 top.qcow2' \
        'rebase -b base.qcow2 -F qcow2 nosuch' 'rebase -b low.raw -F qcow2 top.qcow2' \
        'rebase -u -b nosuch -F qcow2 mid.qcow2' 'rebase -b full.qcow2 -F qcow2 top.qcow2'
}

@test "what is refused changes nothing" {
    local before
    chain
    cd images
    before=$(hash_of top.qcow2)
    one_error 1 qemu-img rebase -b full.qcow2 top.qcow2
    message_has 'backing format must be specified'
    one_error 1 qemu-img rebase -b "./$(printf '%01100d' 3)" -F qcow2 top.qcow2
    must oracle create -q -f qcow2 -o cluster_size=512 -b base.qcow2 -F qcow2 small.qcow2
    one_error 1 qemu-img rebase -u -b "$(printf '%0600d' 3)" -F qcow2 small.qcow2
    message_has "Could not change the backing file to '0+3': No space left in the file header"
    clean small.qcow2
    same small.qcow2 base.qcow2
    [ "$(hash_of top.qcow2)" = "$before" ]
}

@test "only what differs is copied; -c compresses it" {
    must oracle create -q -f qcow2 base.qcow2 8M
    must qemu-io -c 'write -P 1 0 8M' base.qcow2
    cp base.qcow2 other.qcow2
    must qemu-io -c 'write -P 2 1M 1' -c 'write -P 3 5M 100k' other.qcow2
    must oracle create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
    must oracle create -q -f qcow2 -b base.qcow2 -F qcow2 packed.qcow2
    must qemu-img rebase -b other.qcow2 -F qcow2 top.qcow2
    must qemu-img rebase -c -b other.qcow2 -F qcow2 packed.qcow2
    local image
    for image in top packed; do
        clean $image.qcow2
        same $image.qcow2 base.qcow2
        oracle map --output=json $image.qcow2 | sed -nE \
            's/.*"start": ([0-9]+), "length": ([0-9]+), "depth": 0.*/\1 \2/p' >own
        printf '%s\n' '1048576 65536' '5242880 131072' | diff - own
    done
    [ "$(stat -c %s packed.qcow2)" -lt "$(stat -c %s top.qcow2)" ]
    [ "$(oracle check packed.qcow2 | grep -o '[0-9.]*% compressed')" = '100.00% compressed' ]
    must oracle create -q -f raw r.raw 1M
    one_error 1 qemu-img rebase -f raw -c -b '' r.raw
    message_has 'Compression not supported for this file format'
}

@test "images of all kinds, scribbled on: nothing changes for the guest" {
    local seed=200 o_old o_new o_top size onto flags
    while read -r o_old o_new o_top size onto flags; do
        seed=$((seed + 1))
        must oracle create -q -f qcow2 -o "$o_old" base.qcow2 2M
        must oracle create -q -f qcow2 -o "$o_old" -b base.qcow2 -F qcow2 old.qcow2 3M
        must oracle create -q -f qcow2 -o "$o_new" new.qcow2 "$size"
        must oracle create -q -f qcow2 -o "$o_top" -b old.qcow2 -F qcow2 top.qcow2 4M
        scribble qcow2 base.qcow2 $((seed / 2)) --size $((2 << 20)) --count 10
        scribble qcow2 old.qcow2 $seed --size $((3 << 20)) --count 6
        scribble qcow2 new.qcow2 $((seed / 2)) --size $((2 << 20)) --count 10
        scribble qcow2 top.qcow2 $((seed + 90)) --size $((4 << 20)) --count 5
        must oracle convert -O raw top.qcow2 want.raw
        [ "$onto" != none ] || onto=
        # shellcheck disable=SC2086
        must qemu-img rebase $flags -b "$onto" ${onto:+-F qcow2} top.qcow2
        rm old.qcow2 # unless it is still needed, which it is not
        clean top.qcow2
        same top.qcow2 want.raw
    done <<'ROWS'
cluster_size=4k cluster_size=64k cluster_size=64k 5M new.qcow2
cluster_size=64k cluster_size=512 cluster_size=4k,compat=0.10 5M new.qcow2 -c
cluster_size=1k,compat=0.10 cluster_size=4k cluster_size=2M 2M base.qcow2
cluster_size=64k cluster_size=64k cluster_size=16k,extended_l2=on 2M new.qcow2
cluster_size=16k,extended_l2=on cluster_size=64k cluster_size=512 2M none -c
cluster_size=64k cluster_size=64k cluster_size=64k,extended_l2=on 5M new.qcow2 -c
ROWS
}

@test "an image with snapshots: they are warned about when the files differ" {
    must oracle create -q -f qcow2 base.qcow2 1M
    must oracle create -q -f qcow2 other.qcow2 1M
    must oracle create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
    must qemu-img snapshot -c one top.qcow2
    [ -z "$(qemu-img rebase -b other.qcow2 -F qcow2 top.qcow2 2>&1)" ]
    must qemu-io -c 'write -P 1 0 64k' base.qcow2
    [[ $(qemu-img rebase -b base.qcow2 -F qcow2 top.qcow2 2>&1) == *'warning: '*'snapshot'* ]]
    must qemu-io -c 'read -P 0 0 1M' top.qcow2
}

@test "a large empty disk takes no time, its copies no space" {
    must oracle create -q -f qcow2 base.qcow2 64T -o cluster_size=2M
    must oracle create -q -f qcow2 -o cluster_size=2M -b base.qcow2 -F qcow2 top.qcow2 64T
    must oracle create -q -f qcow2 new.qcow2 1M
    must qemu-io -c 'write -P 1 512k 1k' new.qcow2
    must timeout 300 qemu-img rebase -b new.qcow2 -F qcow2 top.qcow2
    must qemu-io -c 'read -P 0 0 4M' top.qcow2
    [ "$(disk_bytes top.qcow2)" -le $((64 << 20)) ]
}

@test "no room: the image is what it was" {
    must oracle create -q -f qcow2 base.qcow2 12M
    must qemu-io -c 'write -P 5 0 12M' base.qcow2
    must oracle create -q -f qcow2 -b "$PWD/base.qcow2" -F qcow2 top.qcow2
    in_tmpfs 4m bash -c 'cp top.qcow2 small/
        qemu-img rebase -b "" small/top.qcow2; code=$?
        mv small/top.qcow2 after.qcow2
        exit $code'
    failed_cleanly
    message_has 'No space left on device'
    must_exit 1 bash -c '(ulimit -f 6000; trap "" XFSZ; qemu-img rebase -b "" top.qcow2)'
    local image
    for image in after.qcow2 top.qcow2; do
        oracle info "$image" | grep -q '^backing file: .*/base.qcow2'
        must qemu-io -c 'read -P 5 0 12M' "$image"
        must qemu-img check -r leaks "$image"
        clean "$image"
    done
}

@test "a middle layer that ends early hides what lies below it: so it stays" {
    local version
    for version in 0.10 1.1; do
        must oracle create -q -f qcow2 base.qcow2 8M
        must qemu-io -c 'write -P 5 0 8M' base.qcow2
        must oracle create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2 4M
        must oracle create -q -f qcow2 -o compat=$version -b mid.qcow2 -F qcow2 top.qcow2 8M
        cp top.qcow2 other.qcow2
        must qemu-img rebase -b base.qcow2 -F qcow2 top.qcow2
        clean top.qcow2
        must qemu-io -c 'read -P 5 0 4M' -c 'read -P 0 4M 4M' top.qcow2
        must qemu-img commit -b base.qcow2 other.qcow2
        clean base.qcow2
        must qemu-io -c 'read -P 5 0 4M' -c 'read -P 0 4M 4M' base.qcow2
    done
}
