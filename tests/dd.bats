#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# dd: parts of disks, beside QEMU; what QEMU's has not: sizes of input and output, an output
# that is there.

load helpers
load beside

setup() {
    q2_setup
    mkdir images
    imgtool fill images/in.raw 1000000 --seed 5
    must oracle create -q -f qcow2 images/a.qcow2 4M
    must qemu-io -c 'write -P 1 100k 1M' -c 'write -z 2M 64k' -c 'write -P 3 3M 1' images/a.qcow2
    must oracle create -q -f qcow2 -b a.qcow2 -F qcow2 images/over.qcow2 5M
    must qemu-io -c 'write -P 7 1M 10k' images/over.qcow2
}

@test "parts of disks, beside QEMU" {
    beside 'dd -f raw if=in.raw of=o1.raw' 'dd -f raw if=in.raw of=o2.raw bs=1M count=2' \
        'dd -f raw if=in.raw of=o3.raw bs=100 skip=3 count=7' \
        'dd -f raw -O qcow2 if=in.raw of=o4.qcow2 bs=100 skip=3 count=70' \
        'dd -f raw if=in.raw of=o5.raw bs=1M skip=3' 'dd count=0 -f raw if=in.raw of=o6.raw' \
        'dd -f raw bs=1k count=9223372036854775807 if=in.raw of=o7.raw' \
        'dd -f raw bs=1k skip=9223372036854775807 if=in.raw of=o8.raw' \
        'dd of=o9.raw if=in.raw bs=1.5k' 'dd --image-opts if=driver=raw,file.filename=in.raw of=p1.raw' \
        'dd of=file:p2.raw if=file:in.raw' 'dd if=a.qcow2 of=p3.raw bs=64k skip=1 count=10' \
        'dd if=a.qcow2 of=p4.qcow2 -O qcow2 bs=512 skip=7' 'dd if=over.qcow2 of=p5.raw bs=1M' \
        'dd bs=1M skip=1 count=1 if=a.qcow2 of=p6.raw' 'dd if=a.qcow2 of=o1.raw bs=1k count=3' \
        'dd skip=1 of=p7.qcow2 -O qcow2 if=over.qcow2 bs=1234567 -U'
}

@test "refusals, beside QEMU" {
    beside dd 'dd if=in.raw' 'dd of=in.raw' 'dd if=in.raw of=x foo' 'dd if=in.raw of=x foo=3' \
        'dd if=in.raw of=x bs=0' 'dd bs=2G if=in.raw of=x' 'dd -O foo if=in.raw of=x' \
        'dd if=nosuch of=x' 'dd if=in.raw of=/nosuch/x' \
        'dd bs=1k count=1000000000000000000000 if=in.raw of=x' \
        'dd --image-opts -f raw if=driver=raw,file.filename=in.raw of=x'
    absent ours/x
}

@test "the input is not overwritten" {
    local before
    before=$(hash_of images/a.qcow2)
    one_error 1 qemu-img dd if=images/over.qcow2 of=images/a.qcow2
    message_has 'cannot be the target'
    [ "$(hash_of images/a.qcow2)" = "$before" ]
}

@test "zeros take no space; the copy of a large disk neither" {
    must oracle create -q -f qcow2 big.qcow2 8T -o cluster_size=2M
    must qemu-io -c 'write -P 5 7T 1M' big.qcow2
    must timeout 300 qemu-img dd -O qcow2 bs=1G skip=1 if=big.qcow2 of=rest.qcow2
    clean rest.qcow2
    must qemu-io -c 'read -P 5 7167G 1M' rest.qcow2
    [ "$(disk_bytes rest.qcow2)" -le $((64 << 20)) ]
}

@test "isize, osize: where the input ends, how large the output is" {
    must qemu-img dd -f raw if=images/in.raw of=x.raw isize=1000 osize=4k
    { head -c 1000 images/in.raw && head -c 3096 /dev/zero; } | cmp - x.raw
    must qemu-img dd -f raw if=images/in.raw of=x.raw bs=512 skip=1 osize=1k
    head -c 1536 images/in.raw | tail -c 1024 | cmp - x.raw
    one_error 1 qemu-img dd -f raw if=images/in.raw of=y.raw isize=2M
    message_has 'Input ended unexpectedly'
    absent y.raw
    must qemu-img dd -f raw if=images/in.raw of=x.raw isize=0
    [ "$(stat -c %s x.raw)" -eq 1000448 ]
}

@test "-n: into a disk that is there, from its start on" {
    must oracle create -q -f qcow2 there.qcow2 4M
    must qemu-io -c 'write -P 9 0 4M' there.qcow2
    must qemu-img dd -n -O qcow2 -f raw bs=1000 count=3 if=images/in.raw of=there.qcow2
    clean there.qcow2
    must qemu-io -c 'read -P 9 3072 4191232' there.qcow2
    must oracle convert -O raw there.qcow2 there.raw
    must cmp -n 3000 there.raw images/in.raw
    head -c 512 /dev/zero >small.raw
    one_error 1 qemu-img dd -n -f raw if=images/in.raw of=small.raw
    message_has 'output file is smaller than input file'
    one_error 1 qemu-img dd -n -f raw if=images/in.raw of=nosuch
    absent nosuch
}
