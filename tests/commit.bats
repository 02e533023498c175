#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# commit: the backing file reads as the image did, the image is empty and reads the same;
# beside QEMU, and on chains of every kind.

load helpers
load beside

setup() {
    q2_setup
}

# Three layers, the lower the shorter, and a raw file with an overlay.
chain() {
    mkdir -p images
    cd images || return 1
    must oracle create -q -f qcow2 base.qcow2 4M
    must oracle create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2 6M
    must oracle create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2 8M
    must qemu-io -c 'write -P 1 0 1M' -c 'write -P 2 3M 1M' base.qcow2
    must qemu-io -c 'write -P 3 5M 512k' mid.qcow2
    must qemu-io -c 'write -P 4 64k 64k' -c 'write -z 256k 64k' -c 'write -P 5 7M 1k' top.qcow2
    must oracle create -q -f raw low.raw 1M
    must oracle create -q -f qcow2 -b low.raw -F raw over.qcow2 2M
    must qemu-io -c 'write -P 6 900k 700k' over.qcow2
    must oracle create -q -f qcow2 -o compat=0.10 -b base.qcow2 -F qcow2 v2.qcow2 5M
    must qemu-io -c 'write -P 7 1M 700k' v2.qcow2
    cd ..
}

@test "commit, beside QEMU" {
    chain
    each_beside 'commit top.qcow2' 'commit -d top.qcow2' 'commit -b base.qcow2 top.qcow2' \
        'commit -b mid.qcow2 -p top.qcow2' 'commit -q -t none over.qcow2' \
        'commit -r 1G -t writethrough v2.qcow2' \
        'commit -b ./base.qcow2 --image-opts driver=qcow2,file.filename=top.qcow2'
    beside 'commit top.qcow2' 'commit top.qcow2' 'commit mid.qcow2'
}

@test "refusals, beside QEMU" {
    chain
    (cd images && must oracle create -q -f qcow2 -u -b gone -F raw orphan.qcow2 2M)
    beside commit 'commit a b' 'commit base.qcow2' 'commit -f raw top.qcow2' 'commit low.raw' \
        'commit -f raw low.raw' 'commit nosuch' 'commit -b nosuch top.qcow2' \
        'commit -b top.qcow2 top.qcow2' 'commit -t foo top.qcow2' 'commit orphan.qcow2' \
        'commit --image-opts -f qcow2 driver=qcow2,file.filename=top.qcow2'
}

@test "the emptied image takes no more space than an empty one, and keeps its snapshots" {
    must oracle create -q -f qcow2 base.qcow2 64M
    must oracle create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
    must qemu-io -c 'write -P 1 0 8M' -c 'write -c -P 2 20M 64k' top.qcow2
    must oracle snapshot -c before top.qcow2
    must qemu-io -c 'write -P 3 4M 4M' top.qcow2
    must oracle convert -l before -O raw top.qcow2 before.raw
    must qemu-img commit top.qcow2
    clean top.qcow2
    must oracle convert -l before -O raw top.qcow2 after.raw
    same_bytes before.raw after.raw
    must qemu-img snapshot -d before top.qcow2
    clean top.qcow2
    must qemu-img commit top.qcow2
    [ "$(stat -c %s top.qcow2)" -le 393216 ] || fail "$(stat -c %s top.qcow2) bytes"
    oracle map --output=json top.qcow2 >extents
    [ "$(grep -c '"depth": 0' extents)" -eq 0 ]
}

@test "an external data file is emptied, too" {
    must oracle create -q -f qcow2 base.qcow2 8M
    must oracle create -q -f qcow2 -o data_file=top.data -b base.qcow2 -F qcow2 top.qcow2
    must qemu-io -c 'write -P 1 1M 5M' top.qcow2
    must oracle bitmap --add top.qcow2 since
    must qemu-img commit top.qcow2
    clean base.qcow2
    clean top.qcow2
    same top.qcow2 base.qcow2
    must qemu-io -c 'read -P 1 1M 5M' base.qcow2
    takes_at_most top.data 0
    oracle info top.qcow2 | grep -q 'name: since'
}

@test "images of all kinds, scribbled on: nothing changes for the guest" {
    local seed=0 o_base o_top size
    while read -r o_base o_top size; do
        seed=$((seed + 1))
        must oracle create -q -f qcow2 -o "$o_base" base.qcow2 3M
        scribble qcow2 base.qcow2 $seed --size $((3 << 20)) --count 12
        must oracle create -q -f qcow2 -o "$o_top" -b base.qcow2 -F qcow2 mid.qcow2 "$size"
        must oracle create -q -f qcow2 -o "$o_top" -b mid.qcow2 -F qcow2 top.qcow2 3M
        scribble qcow2 mid.qcow2 $((seed + 50)) --size $((2 << 20)) --count 8
        scribble qcow2 top.qcow2 $((seed + 90)) --size $((3 << 20)) --count 12
        must oracle convert -O raw top.qcow2 want.raw
        if [ $((seed % 2)) = 0 ]; then
            must qemu-img commit -b base.qcow2 top.qcow2
            same base.qcow2 want.raw
        else
            must qemu-img commit top.qcow2
            same mid.qcow2 want.raw
            clean mid.qcow2
        fi
        clean base.qcow2
        clean top.qcow2
        same top.qcow2 want.raw
    done <<'ROWS'
cluster_size=4k cluster_size=64k 2M
compat=0.10,cluster_size=1k cluster_size=512,lazy_refcounts=on 5M
cluster_size=2M cluster_size=4k,compat=0.10 4M
cluster_size=16k,extended_l2=on cluster_size=64k 2M
cluster_size=64k cluster_size=64k,extended_l2=on 3M
ROWS
}

@test "a base that is dirty is repaired first; one that is in use is refused" {
    must oracle create -q -f qcow2 -o lazy_refcounts=on base.qcow2 4M
    must oracle create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
    must qemu-io -c 'write -P 3 1M 64k' top.qcow2
    qemu-io -c 'write -P 9 0 64k' -c 'flush' -c 'sigraise 9' base.qcow2 >/dev/null 2>&1 || true
    must oracle convert -O raw top.qcow2 want.raw
    hold_open base.qcow2
    one_error 1 qemu-img commit top.qcow2 2>/dev/null || true # two lines: a hint
    message_has 'Failed to get shared "write" lock'
    let_go
    must qemu-img commit top.qcow2
    clean base.qcow2
    must qemu-io -c 'read -P 3 1M 64k' -c 'read -P 9 512 1k' base.qcow2
}

@test "a name with a colon in it" {
    must oracle create -q -f qcow2 ./a:b.qcow2 1M
    must oracle create -q -f qcow2 -u -b file:a:b.qcow2 -F qcow2 top.qcow2 1M
    must qemu-io -c 'write -P 3 0 64k' top.qcow2
    must qemu-img commit top.qcow2
    must qemu-io -c 'read -P 3 0 64k' ./a:b.qcow2
}

@test "a signal in the middle: the image reads as ever, and the rest can be done later" {
    local call n stopped=0 signal_file=base.qcow2
    must oracle create -q -f qcow2 base.qcow2 8M
    must oracle create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
    must qemu-io -c 'write -P 5 0 8M' top.qcow2
    cp base.qcow2 base
    cp top.qcow2 top
    for call in 'pwrite base' 'pread top'; do
        signal_file=${call#* }.qcow2
        for ((n = 1; n < 99; n += $(rows 1 3))); do
            cp base base.qcow2
            cp top top.qcow2
            with_signal "${call% *}" "$n" 15 "$QCOW2" commit top.qcow2
            [ "$code" -ne 0 ] || break # there are fewer calls
            [ "$code" -eq 143 ] || fail "$call $n: exit $code: $(cat err)"
            clean top.qcow2
            clean base.qcow2
            must qemu-io -c 'read -P 5 0 8M' top.qcow2
            must qemu-img commit top.qcow2
            must qemu-io -c 'read -P 5 0 8M' base.qcow2
            stopped=$((stopped + 1))
        done
    done
    [ "$stopped" -ge 2 ] || fail "stopped $stopped times only"
}

@test "no room in the base: the image is not emptied" {
    must oracle create -q -f qcow2 top.qcow2 12M
    must oracle create -q -f qcow2 empty.qcow2 12M
    must qemu-io -c 'write -P 5 0 12M' top.qcow2
    must oracle rebase -u -b small/base.qcow2 -F qcow2 top.qcow2
    in_tmpfs 4m bash -c 'cp empty.qcow2 small/base.qcow2
        qemu-img commit top.qcow2; code=$?
        rm small/*; exit $code'
    failed_cleanly
    message_has 'No space left on device'
    must oracle rebase -u -b '' top.qcow2
    must qemu-io -c 'read -P 5 0 12M' top.qcow2
    clean top.qcow2
}
