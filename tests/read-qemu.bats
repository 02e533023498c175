#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Images that QEMU wrote are read right: what convert and compare see in them is byte for
# byte what qemu-img sees.

load helpers

setup() {
    q2_setup
}

# A size for a disk of some clusters of this size, not a multiple of it.
size_for() {
    case $1 in
    512) echo $(((3 << 20) + 512)) ;;
    512k | 1M | 2M) echo $(((31 << 20) + 512 * 7)) ;;
    *) echo $(((9 << 20) + 512 * 3)) ;;
    esac
}

random_image() { # IMAGE CLUSTER SEED SIZE [CREATE OPTIONS]
    local image=$1 cluster=$2 seed=$3 size=$4
    shift 4
    must oracle create -f qcow2 -o "cluster_size=$cluster" "$@" "$image" "$size" || return 1
    scribble qcow2 "$image" "$seed" --size "$size" --cluster "$cluster" --count 50
}

each_cluster_size() { # COMPAT [EXTRA SCRIBBLE]
    local cluster seed=1
    for cluster in $CLUSTER_SIZES; do
        echo "compat $1, clusters of $cluster"
        rm -f ./*.qcow2
        random_image a.qcow2 "$cluster" $((seed++)) "$(size_for "$cluster")" -o "compat=$1" ||
            return 1
        reads_like_qemu a.qcow2 || return 1
    done
}

@test "random writes, zeros and discards, version 3, every cluster size" {
    each_cluster_size 1.1
}

@test "random writes, zeros and discards, version 2, every cluster size" {
    each_cluster_size 0.10
}

@test "every refcount width" {
    local bits
    for bits in 1 2 4 8 16 32 64; do
        echo "refcount_bits $bits"
        rm -f a.qcow2
        random_image a.qcow2 4k "$bits" $(((6 << 20) + 512)) -o "refcount_bits=$bits"
        reads_like_qemu a.qcow2
    done
}

@test "compressed clusters between plain ones, every cluster size, both versions" {
    local cluster compat seed=100 size
    for cluster in $CLUSTER_SIZES; do
        for compat in 0.10 1.1; do
            echo "compat $compat, clusters of $cluster"
            rm -f a.qcow2
            size=$(size_for "$cluster")
            must oracle create -f qcow2 -o "cluster_size=$cluster,compat=$compat" a.qcow2 "$size"
            scribble qcow2 a.qcow2 $((seed++)) --size "$size" --cluster "$cluster" \
                --count 60 --compressed
            reads_like_qemu a.qcow2
        done
    done
}

@test "images that qemu-img convert -c wrote, every cluster size" {
    local cluster
    imgtool fill disk.raw $(((7 << 20) + 512 * 5)) --seed 5
    for cluster in $CLUSTER_SIZES; do
        echo "clusters of $cluster"
        must oracle convert -c -O qcow2 -o "cluster_size=$cluster" disk.raw c.qcow2
        reads_like_qemu c.qcow2
        same_bytes got.raw disk.raw
    done
}

@test "images that qemu-img convert wrote, with and without preallocation" {
    local prealloc
    imgtool fill disk.raw $(((20 << 20) + 512)) --seed 6
    for prealloc in off metadata falloc full; do
        echo "preallocation $prealloc"
        must oracle convert -O qcow2 -o "preallocation=$prealloc" disk.raw p.qcow2
        reads_like_qemu p.qcow2
        same_bytes got.raw disk.raw
    done
}

@test "zero clusters of both kinds hide what is below them" {
    must oracle create -f qcow2 base.qcow2 4M
    must qemu-io -c 'write -P 0x55 0 4M' base.qcow2
    must oracle create -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
    must qemu-io -c 'write -P 0x66 0 1M' -c 'write -z 256k 128k' -c 'write -z -u 512k 128k' \
        -c 'write -z 2M 192k' -c 'discard 3M 64k' top.qcow2
    reads_like_qemu top.qcow2
}

@test "an image that is all unallocated, and one that is all zero clusters" {
    must oracle create -f qcow2 empty.qcow2 48M
    reads_like_qemu empty.qcow2
    must oracle create -f qcow2 zeros.qcow2 48M
    must qemu-io -c 'write -z 0 48M' zeros.qcow2
    reads_like_qemu zeros.qcow2
    [ "$(disk_bytes got.raw)" -le 65536 ]
}

# Three layers: layer sizes and cluster sizes from the arguments, bottom first.
chain() { # BOTTOM-FORMAT SIZE:CLUSTER SIZE:CLUSTER SIZE:CLUSTER
    local format=$1 i=0 below='' size cluster spec
    shift
    for spec in "$@"; do
        size=$((${spec%:*})) cluster=${spec#*:}
        if [ "$i" -eq 0 ] && [ "$format" = raw ]; then
            imgtool fill layer0 "$size" --seed 40 || return 1
            below='-b layer0 -F raw'
        else
            # shellcheck disable=SC2086
            must oracle create -f qcow2 $below -o "cluster_size=$cluster" "layer$i" "$size" ||
                return 1
            scribble qcow2 "layer$i" $((40 + i)) --size "$size" --cluster "$cluster" \
                --count 30 || return 1
            below="-b layer$i -F qcow2"
        fi
        i=$((i + 1))
    done
}

@test "chains three deep, layers of different sizes and cluster sizes" {
    local format shape
    for format in qcow2 raw; do
        for shape in '8<<20:64k 8<<20:64k 8<<20:64k' \
            '(5<<20)+512:4k (8<<20)+1024:64k (11<<20)+1536:512' \
            '(11<<20)+512:2M (5<<20)+2560:1k (9<<20)+512:128k' \
            '(3<<20)+512:512 (2<<20)+512:2M (12<<20):4k' \
            '(12<<20)+512:32k (12<<20):1M (1<<20)+512:16k'; do
            echo "bottom $format, $shape"
            rm -f layer*
            # shellcheck disable=SC2086
            chain "$format" $shape
            reads_like_qemu layer2
            must "$QCOW2" compare layer1 layer1
        done
    done
}

@test "compressed clusters in every layer of a chain" {
    local i
    must oracle create -f qcow2 -o cluster_size=8k c0 6M
    must oracle create -f qcow2 -o cluster_size=64k -b c0 -F qcow2 c1 7M
    must oracle create -f qcow2 -o cluster_size=4k -b c1 -F qcow2 c2 8M
    for i in 0 1 2; do
        scribble qcow2 "c$i" $((60 + i)) --size "$((6 + i))M" --cluster 64k --compressed
    done
    reads_like_qemu c2
}

@test "relative backing names count from the overlay's folder" {
    mkdir -p images/deep elsewhere
    imgtool fill images/base.raw 3M --seed 8
    (
        cd images
        must oracle create -f qcow2 -b base.raw -F raw deep/../mid.qcow2
        cd deep
        must oracle create -f qcow2 -b ../mid.qcow2 -F qcow2 top.qcow2
    )
    scribble qcow2 images/mid.qcow2 8 --size 3M
    scribble qcow2 images/deep/top.qcow2 9 --size 3M
    cd elsewhere
    reads_like_qemu ../images/deep/top.qcow2
    reads_like_qemu "$BATS_TEST_TMPDIR/work/images/deep/top.qcow2"
}

@test "a backing file without a stored format is probed" {
    imgtool fill base.raw 2M --seed 10
    must oracle create -f qcow2 base.qcow2 2M
    scribble qcow2 base.qcow2 10 --size 2M
    local base
    for base in base.raw base.qcow2; do
        rm -f over.qcow2
        must oracle create -f qcow2 -b "$base" -F "${base#base.}" over.qcow2 2M
        imgtool extension over.qcow2 backing_format --type 0x12345678
        reads_like_qemu over.qcow2
    done
}

@test "sizes that are no multiple of a cluster" {
    local size cluster
    for size in 512 1024 65024 66048 1049088 $(((4 << 20) - 512)); do
        for cluster in 512 64k 2M; do
            echo "size $size, clusters of $cluster"
            rm -f a.qcow2
            must oracle create -f qcow2 -o "cluster_size=$cluster" a.qcow2 "$size"
            scribble qcow2 a.qcow2 "$size" --size "$size" --cluster "$cluster" --count 20
            reads_like_qemu a.qcow2
        done
    done
}

@test "raw sizes that are no multiple of a sector" {
    local size
    for size in 1 511 513 1000 65537 1000001; do
        echo "size $size"
        head -c "$size" /dev/urandom >odd.raw
        must oracle convert -f raw -O raw odd.raw want.raw
        must "$QCOW2" convert -f raw -O raw odd.raw got.raw
        same_bytes want.raw got.raw
        must "$QCOW2" convert -f raw -O qcow2 odd.raw got.qcow2
        must oracle convert -O raw got.qcow2 back.raw
        same_bytes want.raw back.raw
        clean got.qcow2
    done
}

@test "internal snapshots through -l, by name and by id" {
    must oracle create -f qcow2 -o cluster_size=16k s.qcow2 6M
    local i param
    for i in 1 2 3; do
        scribble qcow2 s.qcow2 "7$i" --size 6M --cluster 16k --count 20
        must oracle snapshot -c "state $i" s.qcow2
    done
    scribble qcow2 s.qcow2 74 --size 6M --cluster 16k --count 20
    reads_like_qemu s.qcow2
    for param in 'state 1' 'state 3' 2 snapshot.name='state 2' snapshot.id=3 \
        snapshot.id=1,snapshot.name='state 1'; do
        echo "-l $param"
        reads_like_qemu s.qcow2 -l "$param"
    done
}

@test "snapshots of an overlay read through to the backing file" {
    imgtool fill base.raw 4M --seed 12
    must oracle create -f qcow2 -b base.raw -F raw over.qcow2
    scribble qcow2 over.qcow2 13 --size 4M
    must oracle snapshot -c before over.qcow2
    scribble qcow2 over.qcow2 14 --size 4M
    reads_like_qemu over.qcow2 -l before
    reads_like_qemu over.qcow2
}

@test "a snapshot of another size than the disk" {
    must oracle create -f qcow2 g.qcow2 3M
    scribble qcow2 g.qcow2 15 --size 3M
    must oracle snapshot -c small g.qcow2
    must oracle resize g.qcow2 5M
    scribble qcow2 g.qcow2 16 --size 5M
    reads_like_qemu g.qcow2 -l small
    reads_like_qemu g.qcow2
}

@test "a large sparse disk costs what is in it" {
    must oracle create -f qcow2 -o cluster_size=2M big.qcow2 4T
    must qemu-io -c 'write -P 7 0 64k' -c 'write -P 8 1T 64k' -c 'write -P 9 4397509640192 64k' \
        big.qcow2
    must "$QCOW2" convert -O qcow2 big.qcow2 copy.qcow2
    clean copy.qcow2
    same big.qcow2 copy.qcow2
    must "$QCOW2" compare big.qcow2 copy.qcow2
}

@test "an image marked dirty and one marked corrupt can still be read" {
    random_image a.qcow2 64k 20 3M -o lazy_refcounts=on
    cp a.qcow2 dirty.qcow2
    imgtool field dirty.qcow2 incompatible_features 1
    cp a.qcow2 corrupt.qcow2
    imgtool field corrupt.qcow2 incompatible_features 2
    local image before
    for image in dirty corrupt; do
        before=$(hash_of $image.qcow2)
        must "$QCOW2" convert -O raw $image.qcow2 got.raw
        must oracle convert -O raw a.qcow2 want.raw
        same_bytes want.raw got.raw
        [ "$(hash_of $image.qcow2)" = "$before" ]
    done
}
