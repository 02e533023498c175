#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# map: as QEMU maps images of every kind.

load helpers

setup() {
    q2_setup
}

# QEMU 7.2 does not say "compressed" yet; it splits the disk into the same ranges.
json_like_qemu() {
    diff <(oracle map --output=json "$@") \
        <(qemu-img map --output=json "$@" | sed -E 's/, "compressed": (true|false)//')
}

# Both print the same, on both streams, and end with the same code: an image that cannot
# be shown as a table (compressed clusters) is refused alike.
human_like_qemu() {
    local code=0
    "$ORACLE" map "$@" >want.out 2>want.err || code=$?
    must_exit "$code" qemu-img map "$@" || return 1
    qemu-img map "$@" >got.out 2>got.err || true
    diff want.out got.out || return 1
    diff want.err got.err
}

like_qemu() {
    settle
    json_like_qemu "$@" || return 1
    human_like_qemu "$@"
}

@test "random images of every cluster size, both versions" {
    local cluster compat seed=200
    for cluster in $CLUSTER_SIZES; do
        for compat in 0.10 1.1; do
            echo "compat $compat, clusters of $cluster"
            rm -f a.qcow2
            must oracle create -f qcow2 -o "cluster_size=$cluster,compat=$compat" a.qcow2 \
                $(((5 << 20) + 512))
            scribble qcow2 a.qcow2 $((seed++)) --size $(((5 << 20) + 512)) --cluster "${cluster/2M/1M}" \
                --count 25
            like_qemu a.qcow2
        done
    done
}

@test "preallocated images" {
    local prealloc
    for prealloc in metadata falloc full; do
        must oracle create -f qcow2 -o "preallocation=$prealloc" "$prealloc.qcow2" 5M
        like_qemu "$prealloc.qcow2"
        must qemu-io -c 'write -P 1 1M 64k' "$prealloc.qcow2"
        like_qemu "$prealloc.qcow2"
    done
}

@test "compressed clusters" {
    imgtool fill disk.raw 4M --seed 3
    must oracle convert -c -O qcow2 disk.raw c.qcow2
    like_qemu c.qcow2
    qemu-img map --output=json c.qcow2 >json
    # What is data is compressed, and has no offset; holes are neither.
    grep -q '"data": true, "compressed": true' json
    [ "$(grep -c '"data": false, "compressed": true' json)" -eq 0 ]
    [ "$(grep '"compressed": true' json | grep -c offset)" -eq 0 ]
    must qemu-io -c 'write -P 1 1M 64k' c.qcow2
    like_qemu c.qcow2
    qemu-img map --output=json c.qcow2 | grep -q '"compressed": false, "offset"'
}

@test "zero clusters, plain and preallocated" {
    must oracle create -f qcow2 z.qcow2 4M
    must qemu-io -c 'write -P 1 0 512k' -c 'write -z 128k 64k' -c 'write -z -u 256k 64k' \
        -c 'write -z 1M 256k' -c 'discard 0 64k' z.qcow2
    like_qemu z.qcow2
}

@test "chains: three layers of different sizes and cluster sizes" {
    must oracle create -f qcow2 -o cluster_size=4k base.qcow2 3M
    must oracle create -f qcow2 -o cluster_size=64k -b base.qcow2 -F qcow2 mid.qcow2 6M
    must oracle create -f qcow2 -o cluster_size=1k -b mid.qcow2 -F qcow2 top.qcow2 5M
    scribble qcow2 base.qcow2 31 --size 3M --cluster 4k --count 15
    scribble qcow2 mid.qcow2 32 --size 6M --count 8
    scribble qcow2 top.qcow2 33 --size 5M --cluster 1k --count 15
    like_qemu top.qcow2
    like_qemu mid.qcow2
    like_qemu ./top.qcow2
    mkdir d
    (cd d && like_qemu ../top.qcow2)
    like_qemu "$PWD/top.qcow2"
}

@test "a chain with a raw base" {
    local i
    truncate -s 4M base.raw
    for i in 0 1 2; do echo "write -q -P 1 $((i * 1048576 + 65536)) 128k"; done |
        qemu_io raw base.raw
    must oracle create -f qcow2 -b base.raw -F raw top.qcow2 5M
    must qemu-io -c 'write -P 2 2M 64k' -c 'write -z 1M 128k' top.qcow2
    like_qemu top.qcow2
    must oracle create -f qcow2 -b base.raw -F raw short.qcow2 2M
    like_qemu short.qcow2
}

@test "raw files: data and holes" {
    truncate -s 4M a.raw
    echo 'write -q -P 1 1M 64k' | qemu_io raw a.raw
    like_qemu -f raw a.raw
    like_qemu a.raw
    truncate -s 3M hole.raw
    like_qemu hole.raw
    head -c 1000000 /dev/urandom >odd.raw
    like_qemu odd.raw
    : >empty.raw
    like_qemu empty.raw
}

@test "a part of the disk: -s and -l" {
    must oracle create -f qcow2 a.qcow2 8M
    scribble qcow2 a.qcow2 34 --size 8M
    local part
    for part in '-s 1M' '-l 1M' '-s 1M -l 2M' '-s 65536 -l 512' '-s 7M -l 100M' '-s 8M' \
        '-s 1000 -l 3000' '-l 0' '--start-offset=3M --max-length=64k'; do
        echo "map $part"
        # shellcheck disable=SC2086
        like_qemu $part a.qcow2
    done
    must_exit 1 qemu-img map -s x a.qcow2
    must_exit 1 qemu-img map -l 1Y a.qcow2
}

@test "images with snapshots map the active state" {
    must oracle create -f qcow2 a.qcow2 2M
    scribble qcow2 a.qcow2 35 --size 2M
    must oracle snapshot -c one a.qcow2
    scribble qcow2 a.qcow2 36 --size 2M --count 5
    like_qemu a.qcow2
}

@test "empty images, and a disk of no size" {
    must oracle create -f qcow2 e.qcow2 1G
    like_qemu e.qcow2
    must oracle create -f qcow2 n.qcow2 0
    like_qemu n.qcow2
    must oracle create -f qcow2 -o cluster_size=2M huge.qcow2 64T
    must qemu-io -c 'write -P 1 63T 64k' huge.qcow2
    must timeout 300 qemu-img map huge.qcow2
    like_qemu huge.qcow2
}

@test "errors" {
    one_error 1 qemu-img map missing
    [ "$message" = "qemu-img: Could not open 'missing': Could not open 'missing': No such file or directory" ]
    must oracle create -f qcow2 -u -b nobase -F raw orphan.qcow2 1M
    one_error 1 qemu-img map orphan.qcow2
    [ "$message" = "qemu-img: Could not open 'orphan.qcow2': Could not open backing file: Could not open 'nobase': No such file or directory" ]
    truncate -s 1M r.raw
    one_error 1 qemu-img map -f qcow2 r.raw
    [ "$message" = "qemu-img: Could not open 'r.raw': Image is not in qcow2 format" ]
}
