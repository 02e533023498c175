#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# amend: what it prints, what it refuses, and that what it makes of an image is one that
# QEMU finds clean and that reads as before, in the active state and in every snapshot.

load helpers
load crash

setup() {
    q2_setup
}

# image FILE SIZE UNIT OPTIONS [BACKING]: snapshots, compressed data, zero clusters of all
# kinds. Remembers what is in it.
image() {
    image_with_snapshots "$@" && remember "$1"
}

remember() {
    local name
    must oracle convert -O raw "$1" want.raw || return 1
    for name in one two; do
        must oracle convert -l "$name" -O raw "$1" "want.$name.raw" || return 1
    done
}

# It is clean, for QEMU and for us, and holds what it held.
holds() {
    local name
    clean "$1" || return 1
    must qcow2 check "$1" || return 1
    same "$1" want.raw || return 1
    must qcow2 compare "$1" want.raw || return 1
    for name in one two; do
        must oracle convert -l "$name" -O raw "$1" got.raw || return 1
        same_bytes "want.$name.raw" got.raw || return 1
    done
}

# amends OPTIONS FILE: without a word.
amends() {
    local said
    said=$(qcow2 amend -f qcow2 -o "$1" "$2" 2>&1) || fail "amend -o $1: $said" || return 1
    [ -z "$said" ] || fail "amend -o $1 says: $said"
}

# refuses OPTIONS FILE MESSAGE [HINT]: and the file stays as it is, to the byte.
refuses() {
    local was said code=0
    was=$(hash_of "$2")
    said=$(qemu-img amend -f qcow2 -o "$1" "$2" 2>&1) || code=$?
    [ "$code" -eq 1 ] || fail "exit $code: amend -o $1" || return 1
    [ "$said" = "qemu-img: $3${4:+$'\n'$4}" ] || fail "amend -o $1 says: $said" || return 1
    [ "$(hash_of "$2")" = "$was" ] || fail "amend -o $1 has changed the image"
}

field() {
    imgtool field "$1" "$2"
}

# All extensions of an image with their data, a line each; but for those that programs
# write anew.
extensions() {
    PYTHONPATH=${IMGTOOL%/*} python3 -S -c '
import sys
from imgtool import Image
image = Image(sys.argv[1])
for at, kind, n_bytes in image.extensions():
    image.file.seek(at + 8)
    data = image.file.read(n_bytes)
    if kind not in (0, 0x6803F857):
        print(hex(kind), data.hex())' "$1"
}

zero_clusters() {
    oracle map --output=json "$1" | grep -c '"zero": true, "data": false.*"present": true' || true
}

@test "amend -p shows progress, -q and silence without it" {
    must oracle create -q -f qcow2 q.qcow2 64M
    said=$(qcow2 amend -p -f qcow2 -o compat=0.10 q.qcow2 | tr '\r' '|')
    [ "$said" = '    (0.00/100%)|    (100.00/100%)|    (100.00/100%)|' ] || fail "says: $said"
    said=$(qcow2 amend -p -q -f qcow2 -o compat=1.1 q.qcow2 2>&1)
    [ -z "$said" ] || fail "says: $said"
}

@test "options are judged as QEMU judges them" {
    must oracle create -q -f qcow2 a.qcow2 64M
    must oracle create -q -f qcow2 -o compat=0.10 v2.qcow2 64M
    local o same_as_qemu=(foo=bar backing_file=x backing_fmt=raw data_file=x data_file=
        data_file_raw=on encrypt.format=luks encrypt.state=active encrypt.keyslot=1
        refcount_bits=3 refcount_bits=128 refcount_bits=0 lazy_refcounts=foo extended_l2=on
        compression_type=zlib compat size=foo refcount_bits=x nocow=on)
    for o in "${same_as_qemu[@]}"; do
        refuses "$o" a.qcow2 "$(oracle amend -f qcow2 -o "$o" a.qcow2 2>&1 |
            sed -e 's/^qemu-img: //')"
    done
    for o in lazy_refcounts=on refcount_bits=32 compat=v2,lazy_refcounts=on \
        compat=0.10,refcount_bits=8; do
        refuses "$o" v2.qcow2 "$(oracle amend -f qcow2 -o "$o" v2.qcow2 2>&1 |
            sed -e 's/^qemu-img: //')"
    done
}

@test "what is said to be as it is already changes nothing" {
    must oracle create -q -f raw base.raw 1M
    must oracle create -q -f qcow2 -b base.raw -F raw a.qcow2
    was=$(hash_of a.qcow2)
    amends compat=1.1,lazy_refcounts=off,refcount_bits=16,size=1M a.qcow2
    amends backing_file=base.raw,backing_fmt=raw a.qcow2
    amends data_file_raw=off a.qcow2
    [ "$(hash_of a.qcow2)" = "$was" ]
}

@test "refcounts of all widths, clusters of all sizes: clean, and everything is there" {
    local size bits unit
    for size in $(rows '512 1024 4096 16384 65536 2097152' '512 4096 65536'); do
        unit=$((size < 4096 ? 4096 : size))
        image disk.qcow2 $((64 * unit)) "$unit" "cluster_size=$size"
        for bits in 64 32 8 16; do
            amends refcount_bits=$bits disk.qcow2
            [ "$(oracle info --output=json disk.qcow2 |
                json_value '["format-specific"]["data"]["refcount-bits"]')" -eq $bits ]
            holds disk.qcow2
        done
        amends compat=0.10 disk.qcow2
        holds disk.qcow2
        amends compat=1.1,refcount_bits=64,lazy_refcounts=on disk.qcow2
        holds disk.qcow2
        # (QEMU takes minutes for clusters of 2 MiB.)
        [ "$size" -gt 65536 ] || must oracle amend -o refcount_bits=8 disk.qcow2
        amends refcount_bits=16,compat=0.10 disk.qcow2
        holds disk.qcow2
        [ "$(field disk.qcow2 version)" -eq 2 ]
        scribble qcow2 disk.qcow2 5 --size $((64 * unit)) --count 8
        clean disk.qcow2
        rm disk.qcow2
    done
}

@test "narrow refcounts, with snapshots" {
    local size bits
    for size in $(rows '512 4k 64k' '512'); do
        rm -f a.qcow2
        must oracle create -q -f qcow2 -o "cluster_size=$size" a.qcow2 1M
        must qemu-io -c 'write -P 1 0 400k' a.qcow2
        must oracle snapshot -c one a.qcow2
        must qemu-io -c 'write -P 2 100k 100k' a.qcow2
        must oracle snapshot -c two a.qcow2
        remember a.qcow2
        for bits in 2 4 2 8 64 2 16; do
            amends refcount_bits=$bits a.qcow2
            holds a.qcow2
        done
    done
}

@test "one bit: only where nothing is shared, and the cluster is named otherwise" {
    must oracle create -q -f qcow2 a.qcow2 1M
    must qemu-io -c 'write -P 1 0 128k' a.qcow2
    must oracle convert -O raw a.qcow2 a.raw
    amends refcount_bits=1 a.qcow2
    clean a.qcow2
    same a.qcow2 a.raw
    amends refcount_bits=2 a.qcow2
    must oracle snapshot -c s a.qcow2
    at=$(printf '0x%x' $(($(imgtool l2 a.qcow2 0) & 0x00fffffffffffe00)))
    imgtool refcount a.qcow2 "$at" | grep -qx 2
    lowest=$(imgtool l1 a.qcow2 0)
    lowest=$(printf '0x%x' $((lowest & 0x00fffffffffffe00)))
    refuses refcount_bits=1 a.qcow2 \
        "Cannot decrease refcount entry width to 1 bits: Cluster at offset $lowest has a refcount of 2"
}

@test "a refcount table of many clusters, and one that would be too large" {
    must oracle create -q -f qcow2 -o cluster_size=512,preallocation=metadata a.qcow2 64M
    amends refcount_bits=64 a.qcow2
    [ "$(field a.qcow2 refcount_table_clusters)" -ge 30 ]
    clean a.qcow2
    amends refcount_bits=1 a.qcow2
    clean a.qcow2
    was=$(stat -c %s a.qcow2)
    for bits in 64 1 64 1; do amends refcount_bits=$bits a.qcow2; done
    clean a.qcow2
    [ "$(stat -c %s a.qcow2)" -le $((was * 11 / 10)) ] || fail "grows at every turn"
}

@test "a refcount table that would be too large" {
    must oracle create -q -f qcow2 -o cluster_size=512 far.qcow2 1M
    must qemu-io -c 'write -P 9 0 64k' far.qcow2
    # One cluster lies so far away that wide counts up to it take more than there may be.
    truncate -s 41G far.qcow2
    imgtool l2 far.qcow2 0 0x8000000a00000000
    oracle check -q -r all far.qcow2 || true
    clean far.qcow2
    must oracle convert -O raw far.qcow2 want.raw
    refused=$(qcow2 amend -o refcount_bits=64 far.qcow2 2>&1) && fail "not refused"
    [[ $refused == *'the refcount table would be larger than 8388608 bytes' ]] ||
        fail "says: $refused"
    clean far.qcow2
    amends refcount_bits=32 far.qcow2
    clean far.qcow2
    same far.qcow2 want.raw
}

@test "zero clusters go, in every state, with a backing file and without" {
    python3 -c 'print("base" * 200000)' >base.raw
    truncate -s 4M base.raw
    local size unit backing
    for size in $(rows '512 4096 65536' '512 65536'); do
        unit=$((size < 4096 ? 4096 : size))
        for backing in '' base.raw; do
            rm -f a.qcow2
            image a.qcow2 $((64 * unit)) "$unit" "cluster_size=$size" $backing
            amends compat=0.10 a.qcow2
            holds a.qcow2
            [ "$(zero_clusters a.qcow2)" -eq 0 ] || [ -z "$backing" ]
            [ "$(field a.qcow2 version)" -eq 2 ]
            amends compat=1.1 a.qcow2
            holds a.qcow2
        done
    done
}

@test "a zero cluster over data that a snapshot still reads" {
    truncate -s 1M base.raw
    local backing
    for backing in '' base.raw; do
        rm -f a.qcow2
        must oracle create -q -f qcow2 ${backing:+-b $backing -F raw} a.qcow2 1M
        must qemu-io -c 'write -P 7 0 256k' a.qcow2
        must oracle snapshot -c one a.qcow2
        # As QEMU marks it, its cluster kept; "two" shares the table that says so.
        must qemu-io -c 'write -z 64k 64k' a.qcow2
        imgtool l2 a.qcow2 0x10000 "$(($(imgtool l2 --snapshot 0 a.qcow2 0x10000) & 0x00fffffffffffe00 | 1))"
        must oracle check -q -r all a.qcow2
        must oracle snapshot -c two a.qcow2
        remember a.qcow2
        amends compat=0.10 a.qcow2
        holds a.qcow2
    done
}

@test "a zero cluster's own cluster is zeroed, and stays" {
    must oracle create -q -f qcow2 a.qcow2 1M
    must qemu-io -c 'write -P 7 0 256k' -c 'write -z 64k 64k' a.qcow2
    entry=$(imgtool l2 a.qcow2 0x10000)
    [ $((entry & 0x00fffffffffffe00)) -ne 0 ] || entry=0
    must oracle convert -O raw a.qcow2 a.raw
    amends compat=0.10 a.qcow2
    clean a.qcow2
    same a.qcow2 a.raw
    [ $((entry)) -eq 0 ] || [ $(($(imgtool l2 a.qcow2 0x10000))) -eq $((entry & ~1)) ]
}

@test "version 2 cannot hold it: refused by name" {
    must oracle create -q -f qcow2 -o data_file=d.raw df.qcow2 1M
    refuses compat=0.10 df.qcow2 'Cannot downgrade an image with a data file'
    must oracle create -q -f qcow2 bm.qcow2 1M
    must oracle bitmap --add bm.qcow2 b0
    refuses compat=0.10 bm.qcow2 'Cannot downgrade an image with persistent bitmaps'
    must oracle create -q -f qcow2 s.qcow2 1M
    must oracle snapshot -c s s.qcow2
    must oracle resize s.qcow2 2M
    refuses compat=0.10 s.qcow2 'Internal snapshots prevent downgrade of image'
    must oracle create -q -f qcow2 -o refcount_bits=8 r.qcow2 1M
    refuses compat=0.10 r.qcow2 'compat=0.10 requires refcount_bits=16'
}

@test "compression type zstd goes where nothing is compressed" {
    must oracle create -q -f qcow2 -o compression_type=zstd z.qcow2 1M
    must qemu-io -c 'write -P 3 0 64k' z.qcow2
    amends compat=0.10 z.qcow2
    clean z.qcow2
    must qemu-io -c 'read -P 3 0 64k' z.qcow2
}

@test "images whose data this version does not write, and bitmaps, keep all of it" {
    must oracle create -q -f qcow2 -o extended_l2=on ext.qcow2 8M
    must qemu-io -c 'write -P 3 2k 100k' -c 'write -z 1M 4k' ext.qcow2
    must oracle create -q -f qcow2 -o data_file=d.raw df.qcow2 8M
    must qemu-io -c 'write -P 3 2k 100k' df.qcow2
    must oracle create -q -f qcow2 bm.qcow2 8M
    must oracle bitmap --add bm.qcow2 b0
    must qemu-io -c 'write -P 3 2k 100k' bm.qcow2
    local f
    for f in ext df bm; do
        must oracle convert -O raw $f.qcow2 $f.raw
        amends refcount_bits=64 $f.qcow2
        amends lazy_refcounts=on,refcount_bits=4 $f.qcow2
        clean $f.qcow2
        same $f.qcow2 $f.raw
    done
    oracle info bm.qcow2 | grep -q 'name: b0'
    cp d.raw other.raw
    amends data_file=other.raw df.qcow2
    oracle info df.qcow2 | grep -q 'data file: other.raw'
    same df.qcow2 df.raw
    luks_image luks.qcow2
    amends refcount_bits=8 luks.qcow2
    must oracle check --object secret,id=sec0,data=passw0rd --image-opts \
        driver=qcow2,file.filename=luks.qcow2,encrypt.key-secret=sec0
    oracle info luks.qcow2 | grep -q 'refcount bits: 8'
}

# Names of files that are long without being far.
long_name() {
    printf './%.0s' $(seq "$1")
    printf 'base.raw'
}

@test "unknown extensions and fields, and long names, survive up and down" {
    truncate -s 1M base.raw
    local n
    for n in 0 150 200 450 500; do
        rm -f a.qcow2
        must oracle create -q -f qcow2 -b "$(long_name $n)" -F raw a.qcow2
        must qemu-io -c 'write -P 9 0 64k' a.qcow2
        must oracle convert -O raw a.qcow2 want.raw
        imgtool extension a.qcow2 feature_table --type 0x12345678
        imgtool poke a.qcow2 105 a1a2a3a4a5a6a7
        extensions a.qcow2 >before
        grep -q 0x12345678 before
        amends refcount_bits=32 a.qcow2
        [ "$(od -An -tx1 -j 105 -N 7 a.qcow2 | tr -d ' ')" = a1a2a3a4a5a6a7 ]
        extensions a.qcow2 | diff before -
        amends refcount_bits=16,compat=0.10 a.qcow2
        extensions a.qcow2 | diff before -
        oracle info a.qcow2 | grep -q "^backing file: $(long_name $n)"
        same a.qcow2 want.raw
        clean a.qcow2
        amends compat=1.1 a.qcow2
        extensions a.qcow2 | diff before -
        oracle info a.qcow2 | grep -q "^backing file: $(long_name $n)"
        same a.qcow2 want.raw
        clean a.qcow2
    done
}

@test "a header that does not fit, or cannot be replaced safely, is refused as it is" {
    truncate -s 64k base.raw
    must oracle create -q -f qcow2 -o compat=0.10,cluster_size=512 -b "$(long_name 200)" -F raw a.qcow2
    refuses compat=1.1 a.qcow2 \
        "The header, its extensions and the backing file's name do not fit in a cluster of 512 bytes"
    must oracle create -q -f qcow2 -o compat=0.10,cluster_size=1k -b "$(long_name 380)" -F raw b.qcow2
    refuses compat=1.1 b.qcow2 "The header, its extensions and the backing file's name leave no room in their cluster of 1024 bytes to replace them safely"
    # Down there is always a way.
    must oracle create -q -f qcow2 -o cluster_size=1k -b "$(long_name 380)" -F raw c.qcow2
    must qemu-io -c 'write -P 9 0 4k' c.qcow2
    must oracle convert -O raw c.qcow2 want.raw
    amends compat=0.10 c.qcow2
    clean c.qcow2
    same c.qcow2 want.raw
    oracle info c.qcow2 | grep -q "^backing file: $(long_name 380)"
    must oracle amend -o compat=1.1 c.qcow2
    same c.qcow2 want.raw
}

@test "snapshots of old writers get the disk size that version 3 wants" {
    must oracle create -q -f qcow2 -o compat=0.10 a.qcow2 1M
    must qemu-io -c 'write -P 9 0 64k' a.qcow2
    must oracle snapshot -c one a.qcow2
    must oracle snapshot -c two a.qcow2
    imgtool strip a.qcow2 0
    remember a.qcow2
    amends compat=1.1 a.qcow2
    [ "$(imgtool snapshot a.qcow2 1 extra_size)" -ge 16 ]
    [ "$(imgtool snapshot a.qcow2 1 disk_size)" -eq 1048576 ]
    holds a.qcow2
}

@test "a reserved bit of version 2 that would be a zero flag in version 3" {
    must oracle create -q -f qcow2 -o compat=0.10 a.qcow2 1M
    must qemu-io -c 'write -P 9 0 64k' a.qcow2
    must oracle convert -O raw a.qcow2 want.raw
    imgtool l2 a.qcow2 0 '^1'
    refuses compat=1.1 a.qcow2 \
        'Cannot upgrade an image with zero cluster entries in version 2; check the image first'
    must qcow2 check -r all a.qcow2
    amends compat=1.1 a.qcow2
    clean a.qcow2
    same a.qcow2 want.raw
}

@test "a dirty image is repaired first, and says so" {
    must oracle create -q -f qcow2 -o lazy_refcounts=on a.qcow2 1M
    must qemu-io -c 'write -P 9 0 64k' a.qcow2
    must oracle convert -O raw a.qcow2 a.raw
    imgtool field a.qcow2 incompatible_features 1
    imgtool refcount a.qcow2 "$(($(imgtool l2 a.qcow2 0) & 0x00fffffffffffe00))" 0
    said=$(qcow2 amend -o lazy_refcounts=off a.qcow2 2>&1)
    [[ $said == *'image was not closed cleanly: repaired'* ]] || fail "says: $said"
    [ "$(field a.qcow2 compatible_features)" -eq 0 ]
    clean a.qcow2
    same a.qcow2 a.raw
}

@test "several at once, the size too" {
    must oracle create -q -f qcow2 -o compat=0.10 a.qcow2 1M
    must qemu-io -c 'write -P 9 0 64k' a.qcow2
    must oracle snapshot -c one a.qcow2
    amends compat=v3,size=3M,refcount_bits=8,lazy_refcounts=on a.qcow2
    clean a.qcow2
    oracle info a.qcow2 | grep -q 'virtual size: 3 MiB'
    oracle info a.qcow2 | grep -q 'refcount bits: 8'
    oracle info a.qcow2 | grep -q 'lazy refcounts: true'
    must qemu-io -c 'read -P 9 0 64k' -c 'read -P 0 64k 2M' a.qcow2
    amends size=64k a.qcow2
    clean a.qcow2
    must oracle snapshot -a one a.qcow2
    must qemu-io -c 'read -P 9 0 64k' a.qcow2
}

@test "--image-opts, cache modes and --force" {
    must oracle create -q -f qcow2 a.qcow2 1M
    must qcow2 amend --image-opts -o lazy_refcounts=on driver=qcow2,file.filename=a.qcow2
    [ "$(field a.qcow2 compatible_features)" -eq 1 ]
    must qcow2 amend -t none -o refcount_bits=8 a.qcow2
    must qcow2 amend -t writethrough --force -o refcount_bits=16 a.qcow2
    must qcow2 amend -t unsafe --object secret,id=s,data=x -o compat=0.10 a.qcow2
    clean a.qcow2
    one_error 1 qcow2 amend -t nope -o compat=1.1 a.qcow2
    message_has 'Invalid cache option: nope'
}

@test "images of nonsense are refused, and what is in them stays" {
    must oracle create -q -f qcow2 -o cluster_size=512 a.qcow2 1M
    must qemu-io -c 'write -P 9 0 64k' a.qcow2
    must oracle convert -O raw a.qcow2 want.raw
    # A block without a reference of its own: the next to be taken.
    imgtool refcount a.qcow2 "$(imgtool block a.qcow2 0)" 0
    must_exit 1 qcow2 amend -o refcount_bits=64 a.qcow2
    [ "$(field a.qcow2 refcount_order)" -eq 4 ]
    must qcow2 check -r all a.qcow2
    clean a.qcow2
    same a.qcow2 want.raw
    # A zero cluster that lies on the header.
    must oracle create -q -f qcow2 -o cluster_size=512 b.qcow2 1M
    must qemu-io -c 'write -P 9 0 64k' b.qcow2
    imgtool l2 b.qcow2 0 0x8000000000000201
    head -c 512 b.qcow2 >header
    must_exit 1 qcow2 amend -o compat=0.10 b.qcow2
    [ "$(imgtool field b.qcow2 version)" -eq 3 ]
    head -c 72 b.qcow2 | cmp - <(head -c 72 header)
}

@test "power cuts in amendments, above snapshots: sound, as QEMU finds too" {
    crash_images
    # Headers that reach beyond their first sector, with an extension that nobody knows.
    local spec file
    for spec in v3,4k,150,1.1 v3,16k,2,1.1 v2,2k,170,0.10 v2,8k,190,0.10; do
        IFS=, read -r -a s <<<"$spec"
        file=long-${s[0]}-${s[1]}
        must oracle create -q -f qcow2 -o "cluster_size=${s[1]},compat=${s[3]}" \
            -b "$(printf './/%.0s' $(seq "${s[2]}"))base.raw" -F raw "$file" 256k
        [ "$file" != long-v3-16k ] || imgtool extension "$file" feature_table --type 0x12345678
    done
    mkdir states && ln base.raw states/
    Q2_CRASH_RUNS=${Q2_CRASH_RUNS:-2} all_ok "$(crash_program crash/amending)" -o states v* long*
    [ "$(find states -name '*-cut*' | wc -l)" -ge 16 ] || fail "no sample of the states"
    local state code
    for state in states/*-cut*; do
        code=0
        oracle check -q "$state" >said 2>&1 || code=$?
        [ "$code" -eq 0 ] || [ "$code" -eq 3 ] || fail "$state: exit $code: $(cat said)"
    done
}

@test "interrupted, it leaves a sound image" {
    must oracle create -q -f qcow2 -o cluster_size=512,preallocation=metadata a.qcow2 96M
    must qemu-io -c 'write -P 9 0 64k' -c 'write -z 1M 64M' a.qcow2
    must oracle convert -O raw a.qcow2 want.raw
    local options delay code
    for options in refcount_bits=64 compat=0.10 refcount_bits=1; do
        for delay in 0.005 0.02 0.05; do
            cp a.qcow2 b.qcow2
            code=0
            timeout -s TERM "$delay" "$QCOW2" amend -o "$options" b.qcow2 >said 2>&1 || code=$?
            [ "$code" -eq 0 ] || [ "$code" -eq 124 ] || fail "exit $code: $(cat said)"
            code=0
            oracle check -q b.qcow2 >said 2>&1 || code=$?
            [ "$code" -eq 0 ] || [ "$code" -eq 3 ] || fail "$options, $delay: exit $code: $(cat said)"
            same b.qcow2 want.raw
        done
    done
}
