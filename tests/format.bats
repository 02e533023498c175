#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# qcow2(5) is enough to read and to make images by: a reader made from the page alone
# (format/reader.py) reads what QEMU wrote, of every kind, and what we wrote; images of a writer
# that was made from it (format/writer.py) are sound to QEMU and to us.

load helpers

setup() {
    q2_setup
}

reader() {
    python3 -S "$BATS_TEST_DIRNAME/format/reader.py" "$@"
}

# The reader sees the same disk as QEMU, in the same places, and all that must hold.
readable() { # IMAGE [OPTION OF convert...]
    local image=$1
    shift
    must oracle convert -O raw "$@" "$image" want.raw || return 1
    oracle map --output=json "$image" >map.json || return 1
    must reader check "$image" got.raw map.json || return 1
    same_bytes want.raw got.raw
}

# And the same fields of the header and the tables.
told() { # IMAGE
    oracle info --output=json "$1" >info.json || return 1
    must reader info "$1" info.json
}

# With QEMU, random writes, zeros, discards and compressed clusters.
written() { # IMAGE SEED SIZE OPTIONS [SCRIBBLE...]
    local image=$1 seed=$2 size=$3 options=$4
    shift 4
    must oracle create -q -f qcow2 -o "$options" "$image" "$size" || return 1
    scribble qcow2 "$image" "$seed" --size "$size" --count 20 "$@"
}

@test "both versions, clusters of all sizes" {
    seed=1
    for compat in 0.10 1.1; do
        for cluster in $(rows '512 4k 64k 2M' '512 64k'); do
            echo "compat $compat, clusters of $cluster"
            written a.qcow2 $((seed++)) 4195840 "compat=$compat,cluster_size=$cluster" \
                --cluster "$cluster" --compressed
            readable a.qcow2
        done
    done
}

@test "refcounts of every width" {
    for bits in 1 2 4 8 16 32 64; do
        echo "refcount_bits=$bits"
        written a.qcow2 "$bits" 512k "cluster_size=4k,refcount_bits=$bits" --cluster 4k
        [ "$bits" -eq 1 ] || must oracle snapshot -c s a.qcow2
        readable a.qcow2
        told a.qcow2
    done
}

@test "compression of both types" {
    imgtool fill disk.raw 3M --seed 4
    for type in zlib zstd; do
        must oracle convert -c -O qcow2 -o "compression_type=$type" disk.raw a.qcow2
        readable a.qcow2
        same_bytes got.raw disk.raw
        must qcow2 convert -c -O qcow2 -o "compression_type=$type,cluster_size=4k" disk.raw b.qcow2
        readable b.qcow2
    done
}

@test "subclusters, above a backing file" {
    written base.qcow2 5 3M cluster_size=64k
    for cluster in 16k 128k; do
        rm -f a.qcow2
        must oracle create -q -f qcow2 -b base.qcow2 -F qcow2 \
            -o "extended_l2=on,cluster_size=$cluster" a.qcow2 4M
        scribble qcow2 a.qcow2 6 --size 4M --cluster "$cluster" --count 30 --compressed
        readable a.qcow2
        told a.qcow2
    done
}

@test "backing files of both formats, in another folder" {
    mkdir low
    imgtool fill low/base.raw 3000320 --seed 8
    must oracle create -q -f qcow2 -b base.raw -F raw low/a.qcow2 4M
    must oracle create -q -f qcow2 -o compat=0.10 -b low/a.qcow2 -F qcow2 b.qcow2 5M
    scribble qcow2 low/a.qcow2 9 --size 4M --count 20
    scribble qcow2 b.qcow2 10 --size 5M --count 20
    readable b.qcow2
}

@test "external data files" {
    for raw in off on; do
        written a.qcow2 11 4M "data_file=data.$raw,data_file_raw=$raw,lazy_refcounts=$raw"
        readable a.qcow2
        told a.qcow2
        [ "$raw" = off ] || same_bytes got.raw data.on
    done
}

@test "snapshots, of disks of other sizes" {
    written a.qcow2 12 2M cluster_size=4k --cluster 4k --compressed
    must oracle snapshot -c first a.qcow2
    must oracle resize -q a.qcow2 3M
    scribble qcow2 a.qcow2 13 --size 3M --count 10
    must oracle snapshot -c second a.qcow2
    scribble qcow2 a.qcow2 14 --size 3M --count 10
    readable a.qcow2
    told a.qcow2
    for name in first second; do
        # QEMU's copy is as long as the disk is now.
        must oracle convert -l "$name" -O raw a.qcow2 want.raw
        [ "$name" = second ] || truncate -s 2M want.raw
        must reader raw a.qcow2 got.raw "$name"
        same_bytes want.raw got.raw
    done
}

@test "bitmaps" {
    must oracle create -q -f qcow2 a.qcow2 64M
    must oracle bitmap --add -g 32k a.qcow2 one
    must qemu-io -c 'write 96k 32k' -c 'write 10M 100k' a.qcow2
    must oracle bitmap --add a.qcow2 two
    must oracle bitmap --disable a.qcow2 one
    must qemu-io -c 'write 1M 64k' a.qcow2
    [ "$(reader bitmap a.qcow2 one)" = '98304-131072 10485760-10616832' ]
    [ "$(reader bitmap a.qcow2 two)" = '1048576-1114112' ]
    readable a.qcow2
    told a.qcow2
}

@test "encryption" {
    export PASSPHRASE=passw0rd
    secret=(--object 'secret,id=s,data=passw0rd')
    for options in format=aes \
        format=luks,encrypt.iter-time=10 \
        format=luks,encrypt.iter-time=10,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv \
        format=luks,encrypt.iter-time=10,encrypt.cipher-alg=serpent-128,encrypt.hash-alg=sha512; do
        echo "$options"
        must with_clock "$ORACLE" create -q -f qcow2 "${secret[@]}" \
            -o "encrypt.$options,encrypt.key-secret=s" a.qcow2 1M
        named=driver=qcow2,encrypt.key-secret=s,file.filename=a.qcow2
        must qemu-io "${secret[@]}" --image-opts -c 'write -P 0x61 8k 100k' \
            -c 'write -P 0x62 512k 9k' "$named"
        must oracle convert "${secret[@]}" --image-opts -O raw "$named" want.raw
        must reader raw a.qcow2 got.raw
        same_bytes want.raw got.raw
        must reader check a.qcow2
    done
}

@test "images that were made by the page are sound" {
    imgtool fill disk.raw 3145728 --seed 21
    while read -r version bits order kind; do
        echo "version $version, clusters of 2^$bits, refcounts of 2^$order bits, $kind"
        must python3 -S "$BATS_TEST_DIRNAME/format/writer.py" disk.raw a.qcow2 \
            "$version" "$bits" "$order" "$kind"
        clean a.qcow2
        same a.qcow2 disk.raw
        must qcow2 check --read-data a.qcow2
        must reader check a.qcow2
        # Others may write to it.
        must qemu-io -c 'write -q -P 5 100k 200k' -c 'write -q -z 1M 64k' a.qcow2
        must qcow2 io -c 'write -q -P 6 250k 70k' a.qcow2
        clean a.qcow2
    done <<'EOT'
2 9 4 plain
2 16 4 packed
3 12 0 plain
3 12 2 plain
3 14 6 packed
3 21 5 plain
3 14 4 extended
3 16 3 extended
EOT
}
