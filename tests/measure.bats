#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# measure: QEMU's numbers, to the byte; and what is made fits into them.
#
# shellcheck disable=SC2154 # message is set by the helpers

load helpers
load beside

setup() {
    q2_setup
    mkdir images
}

# Data, zeros, holes, a snapshot, compressed data, a backing file, a size that is odd.
sources() {
    cd images || return 1
    must oracle create -q -f qcow2 a.qcow2 64M
    must qemu-io -c 'write -P 1 0 1M' -c 'write -z 2M 1M' -c 'write -P 2 5000000 512' a.qcow2
    must oracle snapshot -c s1 a.qcow2
    must qemu-io -c 'write -P 3 32M 12345k' a.qcow2
    must oracle bitmap --add -g 32k a.qcow2 one
    must oracle bitmap --add a.qcow2 another-one-with-a-longer-name
    must oracle convert -c -O qcow2 a.qcow2 c.qcow2
    must oracle create -q -f qcow2 -b a.qcow2 -F qcow2 over.qcow2 100M
    must qemu-io -c 'write -P 4 65M 1k' over.qcow2
    must oracle create -q -f qcow2 -o compat=0.10 v2.qcow2 10M
    truncate -s 1000001 odd.raw
    printf x | dd of=odd.raw bs=1 seek=600000 conv=notrunc status=none
    settle
    cd ..
}

@test "files and sizes, for new images of all kinds: QEMU's numbers" {
    local lines=() options source
    sources
    for options in cluster_size=2M,refcount_bits=1 cluster_size=512,refcount_bits=64 \
        extended_l2=on extended_l2=on,cluster_size=2M preallocation=full preallocation=falloc \
        preallocation=metadata compat=0.10 lazy_refcounts=on compression_type=zstd \
        backing_file=foo,backing_fmt=raw; do
        for source in a.qcow2 '--size 7T'; do
            lines+=("measure -O qcow2 -o $options $source")
        done
    done
    for options in '' '-o cluster_size=512' '-o cluster_size=2M'; do
        for source in a.qcow2 c.qcow2 over.qcow2 v2.qcow2 '-f raw odd.raw' '-l s1 a.qcow2' \
            '--size 0' '--size 513'; do
            lines+=("measure -O qcow2 $options $source")
        done
    done
    for source in a.qcow2 '-f raw odd.raw' '--size 1000' '--size 6E'; do
        lines+=("measure $source" "measure --output=json -O raw $source"
            "measure --output=json -O qcow2 $source")
    done
    beside "${lines[@]}"
}

@test "what cannot be measured: QEMU's words" {
    sources
    beside measure 'measure a b' 'measure --size 1 a.qcow2' 'measure -f qcow2' 'measure -l x' \
        'measure --image-opts' 'measure -O foo --size 1' 'measure -O qcow2 --size 1E' \
        'measure nosuch' 'measure -l nosuch a.qcow2' 'measure -O qcow2 -o cluster_size=3 --size 1' \
        'measure -O raw -o cluster_size=3 --size 2' 'measure -O qcow2 -o nosuch=1 --size 1' \
        'measure -O qcow2 -o help --size 1' 'measure -O qcow2 -o size=3G' \
        'measure -O qcow2 -o extended_l2=on,cluster_size=8k --size 1' \
        'measure -O qcow2 -o compat=0.10,refcount_bits=1 --size 1' \
        'measure -O qcow2 -o refcount_bits=7 --size 1' 'measure -O qcow2 -o compat=3 --size 1' \
        'measure -O qcow2 -o preallocation=foo --size 1' \
        'measure -O qcow2 -o compression_type=foo,backing_file=x,backing_fmt=y --size 1' \
        'measure -O qcow2 -o size=5 --size 1G' 'measure -O qcow2 -l snapshot.name=s1 a.qcow2' \
        'measure -f raw --image-opts driver=qcow2,file.filename=a.qcow2' \
        'measure --image-opts driver=qcow2,file.filename=a.qcow2'
}

@test "encryption takes what QEMU says it takes" {
    local options
    for options in '' ,cluster_size=512 ,cluster_size=2M,encrypt.cipher-alg=aes-128 \
        ,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256; do
        set -- measure -O qcow2 --object secret,id=s,data=abc --size 1G -o \
            "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10$options"
        with_clock "$ORACLE" "$@" >want
        must_exit 0 qemu-img "$@"
        qemu-img "$@" | diff want -
    done
}

@test "a converted image is no larger than what is required" {
    local options said
    sources
    for options in cluster_size=512 cluster_size=64k cluster_size=2M,refcount_bits=64; do
        said=$(qemu-img measure -O qcow2 -o "$options" images/a.qcow2 | sed -n 's/required size: //p')
        must qemu-img convert -O qcow2 -o "$options" images/a.qcow2 new.qcow2
        [ "$(stat -c %s new.qcow2)" -le "$said" ]
    done
}

@test "a negative size is out of range, one with a suffix no number" {
    local size
    for size in -0 -1 -99999999999999999999; do
        one_error 1 qemu-img measure --size $size
        [ "$message" = "qemu-img: Invalid image size specified. Must be between 0 and 9223372036854775807." ]
    done
    for size in -1G -1.5 -.5k -x -; do
        one_error 1 qemu-img measure --size $size
        [ "$message" = "qemu-img: Invalid image size specified: '$size'" ]
    done
}
