#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Extended L2 entries: clusters of 32 subclusters, which are allocated, copied on write and
# zeroed one by one. Through every command, on images made by QEMU and by us.

load helpers
load crash

setup() {
    q2_setup
}

# What a map says aside from where things lie in the file.
shape() {
    oracle map --output=json "$1" | sed -E 's/, "offset": [0-9]+//; s/, "compressed": [a-z]+//'
}

# Map and data, as QEMU has them.
reads_like_qemu() {
    diff -u <(oracle map --output=json "$1") \
        <("$QCOW2" map --output=json "$1" | sed 's/, "compressed": [a-z]*//') ||
        fail "$1: another map" || return 1
    must oracle convert -O raw "$1" want.raw
    must "$QCOW2" convert -O raw "$1" got.raw
    must cmp want.raw got.raw
    must "$QCOW2" compare "$1" want.raw
}

# The commands through both programs, on a copy each of IMAGE.
same_as_qemu() { # IMAGE COMMAND...
    local image=$1 command
    local -a arguments=()
    shift
    for command in "$@"; do arguments+=(-c "$command"); done
    cp "$image" theirs.qcow2
    cp "$image" ours.qcow2
    must qemu-io -f qcow2 -d unmap "${arguments[@]}" theirs.qcow2
    must "$QCOW2" io -f qcow2 -d unmap "${arguments[@]}" ours.qcow2
    clean ours.qcow2 || return 1
    same theirs.qcow2 ours.qcow2 || return 1
    diff -u <(shape theirs.qcow2) <(shape ours.qcow2) || fail "another shape: $*" || return 1
    reads_like_qemu ours.qcow2
}

# base SIZE: a backing file without zeros.
base() {
    head -c "$1" /dev/zero | tr '\0' '\7' >base.raw
}

# What an image of 1M may be like, one a line: options of create.
kinds() {
    base 768k
    rows 'extended_l2=on
extended_l2=on,backing_file=base.raw,backing_fmt=raw
extended_l2=on,cluster_size=16k,refcount_bits=1
extended_l2=on,cluster_size=2M,lazy_refcounts=on,backing_file=base.raw,backing_fmt=raw
extended_l2=on,preallocation=metadata,backing_file=base.raw,backing_fmt=raw' \
        'extended_l2=on
extended_l2=on,cluster_size=16k,refcount_bits=1,backing_file=base.raw,backing_fmt=raw'
}

@test "writes, zeros, discards, and compressed data make the subclusters that QEMU makes" {
    local options
    while read -r options; do
        echo "$options"
        must "$QCOW2" create -q -f qcow2 -o "$options" new.qcow2 1M
        same_as_qemu new.qcow2 'write -P 1 1k 3k' 'write -P 2 100k 200k' 'write -z 110k 10k' \
            'write -P 3 113k 512' 'write -P 4 1023k 1k'
        same_as_qemu new.qcow2 'write -P 1 0 256k' 'write -z 64k 6k' 'write -z -u 128k 70k' \
            'write -z 500k 201k' 'write -z -u 10k 20k' 'write -P 2 65k 512' 'write -z 1000k 24k'
        same_as_qemu new.qcow2 'write -P 1 0 256k' 'discard 32k 128k' 'write -P 2 100k 1k' \
            'discard 100k 3k' 'discard 200k 824k' 'write -P 3 900k 1k' 'discard 896k 128k'
        same_as_qemu new.qcow2 'write -z 70k 3k' 'write -z -u 0 1M' 'write -P 1 300k 1k'
    done < <(kinds)
    # Clusters that are compressed have no subclusters until they are written.
    must "$QCOW2" create -q -f qcow2 -o extended_l2=on,backing_file=base.raw,backing_fmt=raw \
        new.qcow2 1M
    same_as_qemu new.qcow2 'write -c -P 1 0 64k' 'write -c -P 2 64k 64k' 'write -P 3 10k 10k' \
        'write -z 70k 5k' 'write -c -P 5 128k 64k' 'write -c -P 6 192k 64k' 'write -z -u 150k 70k' \
        'discard 0 64k' 'write -P 7 3k 1k'
}

@test "random operations by both programs, in turn, some of them killed" {
    local seed
    base 700k
    for seed in $(rows '1 2' '1'); do
        rm -f v*
        image_with_snapshots v16k 1M 16384 extended_l2=on,cluster_size=16k
        image_with_snapshots v32k-base 2M 32768 extended_l2=on,cluster_size=32k base.raw
        image_with_snapshots v16k-lazy 1M 16384 extended_l2=on,cluster_size=16k,lazy_refcounts=on
        must python3 "$BATS_TEST_DIRNAME/crash/turns.py" \
            --seed $((${Q2_SEED:-1} + seed * 7919)) v* || return 1
    done
}

@test "a write copies the subclusters that it touches and no more" {
    base 4M
    local before
    must "$QCOW2" create -q -f qcow2 -o extended_l2=on,cluster_size=2M -b base.raw -F raw \
        over.qcow2
    must "$QCOW2" io -f qcow2 -c 'write -P 1 100k 1k' -c 'write -P 2 130k 100k' over.qcow2
    [ "$(shape over.qcow2 | grep -c '"depth": 0')" -eq 1 ]
    shape over.qcow2 | grep -q '"start": 65536, "length": 196608, "depth": 0'
    cp base.raw want.raw
    must qemu-io -f raw -c 'write -P 1 100k 1k' -c 'write -P 2 130k 100k' want.raw
    same over.qcow2 want.raw
    clean over.qcow2
    # A subcluster that is added does not move what is there.
    before=$(oracle map --output=json over.qcow2 | grep -o '"depth": 0.*offset": [0-9]*')
    must "$QCOW2" io -f qcow2 -c 'write -P 3 1M 1k' over.qcow2
    [ "$(oracle map --output=json over.qcow2 | grep -o '"depth": 0.*offset": [0-9]*' |
        head -n 1)" = "$before" ]
    must qemu-io -f raw -c 'write -P 3 1M 1k' want.raw
    same over.qcow2 want.raw
    clean over.qcow2
}

@test "snapshots: what they share is copied before it is written" {
    local program other image
    must imgtool fill base.raw 600k --seed 4
    for program in "$QCOW2" oracle; do
        other=oracle
        [ "$program" = "$QCOW2" ] || other=$QCOW2
        must "$program" create -q -f qcow2 -o extended_l2=on -b base.raw -F raw x.qcow2 1M
        must "$QCOW2" io -f qcow2 -c 'write -P 1 5k 9k' -c 'write -P 2 40k 2k' \
            -c 'write -z 50k 4k' -c 'write -c -P 3 128k 64k' x.qcow2
        must oracle convert -O raw x.qcow2 one.raw
        must "$program" snapshot -c one x.qcow2
        must "$QCOW2" io -f qcow2 -c 'write -P 4 20k 1k' -c 'write -z 130k 2k' \
            -c 'write -z 6k 2k' x.qcow2
        must oracle convert -O raw x.qcow2 now.raw
        must cmp -s -n 5120 one.raw now.raw
        must qemu-io -f qcow2 -c 'read -P 1 5k 1k' -c 'read -P 0 6k 2k' -c 'read -P 4 20k 1k' \
            -c 'read -P 2 40k 2k' -c 'read -P 0 130k 2k' -c 'read -P 3 132k 2k' x.qcow2
        clean x.qcow2
        must "$QCOW2" convert -l one -O raw x.qcow2 got.raw
        must cmp one.raw got.raw
        must "$other" snapshot -c two x.qcow2
        must "$other" snapshot -a one x.qcow2
        clean x.qcow2
        same x.qcow2 one.raw
        must "$QCOW2" io -f qcow2 -c 'write -P 9 0 300k' x.qcow2
        must "$program" snapshot -a two x.qcow2
        clean x.qcow2
        same x.qcow2 now.raw
        must "$other" snapshot -d one x.qcow2
        must "$program" snapshot -d two x.qcow2
        clean x.qcow2
        reads_like_qemu x.qcow2
        same x.qcow2 now.raw
        rm x.qcow2
    done
}

@test "preallocation reserves clusters, and a backing file shows through" {
    local mode backing
    base 600k
    for mode in metadata falloc full; do
        for backing in '' base.raw; do
            echo "$mode $backing"
            must oracle create -q -f qcow2 -o extended_l2=on,preallocation=$mode \
                ${backing:+-b "$backing" -F raw} theirs.qcow2 1000k
            must "$QCOW2" create -q -f qcow2 -o extended_l2=on,preallocation=$mode \
                ${backing:+-b "$backing" -F raw} ours.qcow2 1000k
            diff -u <(oracle map --output=json theirs.qcow2) <(oracle map --output=json ours.qcow2)
            clean ours.qcow2
            reads_like_qemu ours.qcow2
            [ "$mode" = metadata ] || [ "$(disk_bytes ours.qcow2)" -ge 1024000 ]
            cp ours.qcow2 new.qcow2
            same_as_qemu new.qcow2 'write -P 3 10k 1k' 'write -z 30k 2k' 'discard 64k 64k'
            # What is added to the disk is zeros, whatever lies beneath.
            must oracle resize -q --shrink theirs.qcow2 301k
            must "$QCOW2" resize -q --shrink ours.qcow2 301k
            must oracle resize -q --preallocation=$mode theirs.qcow2 2M
            must "$QCOW2" resize -q --preallocation=$mode ours.qcow2 2M
            clean ours.qcow2
            must qemu-io -f qcow2 -c 'read -P 0 301k 1747k' ours.qcow2
            rm ours.qcow2 theirs.qcow2
        done
    done
}

@test "convert, both ways, with every option that makes the target" {
    local options program
    must imgtool fill disk.raw 3M --seed 6
    must oracle convert -O qcow2 -o extended_l2=on disk.raw theirs.qcow2
    must "$QCOW2" convert -O qcow2 -o extended_l2=on disk.raw ours.qcow2
    diff -u <(shape theirs.qcow2) <(shape ours.qcow2)
    reads_like_qemu theirs.qcow2
    for options in extended_l2=on extended_l2=on,cluster_size=16k \
        extended_l2=on,preallocation=metadata extended_l2=on,compression_type=zstd; do
        must "$QCOW2" convert -O qcow2 -o "$options" disk.raw a.qcow2
        clean a.qcow2
        same a.qcow2 disk.raw
        reads_like_qemu a.qcow2
        must "$QCOW2" convert -O qcow2 a.qcow2 plain.qcow2
        same plain.qcow2 disk.raw
        oracle info a.qcow2 | grep -q 'extended l2: true'
    done
    must "$QCOW2" convert -c -O qcow2 -o extended_l2=on disk.raw c.qcow2
    clean c.qcow2
    same c.qcow2 disk.raw
    reads_like_qemu c.qcow2
    # Onto one that is there, and above a backing file.
    must "$QCOW2" convert -n -O qcow2 disk.raw c.qcow2
    clean c.qcow2
    same c.qcow2 disk.raw
    base 3M
    must oracle create -q -f qcow2 -o extended_l2=on -b base.raw -F raw top.qcow2
    must "$QCOW2" io -f qcow2 -c 'write -P 7 70k 3k' -c 'write -z 500k 3k' top.qcow2
    for program in oracle "$QCOW2"; do
        must "$program" convert -O qcow2 -o extended_l2=on,cluster_size=256k -B base.raw -F raw \
            top.qcow2 b.qcow2
        same b.qcow2 top.qcow2
        shape b.qcow2 >"shape.${program##*/}"
    done
    clean b.qcow2
    must diff -u shape.oracle shape.qcow2
}

# chain: top.qcow2 over mid.qcow2 over base.raw, subclusters of all kinds; top.raw: as it reads.
chain() {
    rm -f ./*.qcow2
    must oracle create -q -f qcow2 -o extended_l2=on -b base.raw -F raw mid.qcow2 1M
    must oracle create -q -f qcow2 -o extended_l2=on -b mid.qcow2 -F qcow2 top.qcow2 1M
    must qemu-io -f qcow2 -c 'write -P 1 3k 5k' -c 'write -z 100k 3k' -c 'write -c -P 3 192k 64k' \
        mid.qcow2
    must qemu-io -f qcow2 -c 'write -P 4 5k 5k' -c 'write -z 101k 30k' -c 'write -P 5 200k 2k' \
        -c 'write -P 6 900k 50k' top.qcow2
    must oracle convert -O raw top.qcow2 top.raw
}

# By both programs, on the same chain: the overlay reads as before, and is of one shape.
rebased_like_qemu() { # ARGUMENT...
    local program
    for program in oracle "$QCOW2"; do
        chain
        must "$program" rebase -q "$@" top.qcow2 || return 1
        same top.qcow2 top.raw || return 1
        shape top.qcow2 >"shape.${program##*/}"
    done
    clean top.qcow2 || return 1
    must diff -u shape.oracle shape.qcow2
}

@test "commit and rebase copy subclusters" {
    base 700k
    chain
    must "$QCOW2" commit -q top.qcow2
    clean mid.qcow2
    clean top.qcow2
    same mid.qcow2 top.raw
    same top.qcow2 top.raw
    shape mid.qcow2 | grep -q '"start": 2048, "length": 8192, "depth": 0' # no more than that
    rebased_like_qemu -b base.raw -F raw
    rebased_like_qemu -b ''
}

@test "amend: other refcounts, no version 2" {
    local before
    must "$QCOW2" create -q -f qcow2 -o extended_l2=on x.qcow2 1M
    must "$QCOW2" io -f qcow2 -c 'write -P 1 3k 70k' -c 'write -z 200k 3k' x.qcow2
    must oracle convert -O raw x.qcow2 x.raw
    before=$(hash_of x.qcow2)
    one_error 1 qemu-img amend -f qcow2 -o compat=0.10 x.qcow2
    oracle amend -f qcow2 -o compat=0.10 x.qcow2 >said 2>&1 && fail "QEMU does it"
    # shellcheck disable=SC2154
    [ "$message" = "$(cat said)" ] || fail "$message, not: $(cat said)"
    [ "$(hash_of x.qcow2)" = "$before" ]
    must "$QCOW2" amend -f qcow2 -o refcount_bits=64,lazy_refcounts=on x.qcow2
    clean x.qcow2
    same x.qcow2 x.raw
}

# damaged BITMAP-OR-OFFSET WORD HEX: an image whose first entry has another word.
damaged() {
    must oracle create -q -f qcow2 -o extended_l2=on x.qcow2 1M
    must qemu-io -f qcow2 -c 'write -P 1 0 64k' -c 'write -P 2 64k 64k' x.qcow2
    must imgtool poke x.qcow2 "$1" "$2"
}

@test "an entry that contradicts itself marks the image as corrupt, in QEMU's words" {
    local command place
    for place in '0x40008 00000001ffffffff' '0x40000 8000000000000000'; do
        for command in 'read 0 512' 'write 1k 1k' 'write 0 64k'; do
            echo "$place $command"
            # shellcheck disable=SC2086
            damaged $place
            cp x.qcow2 y.qcow2
            qemu-io -f qcow2 -c "$command" x.qcow2 >theirs 2>&1 && fail "QEMU did it"
            "$QCOW2" io -f qcow2 -c "$command" y.qcow2 >ours 2>&1 && fail "it was done"
            diff -u <(grep Marking theirs | tr -s ' ') <(grep Marking ours)
            must cmp x.qcow2 y.qcow2
        done
        # shellcheck disable=SC2086
        damaged $place
        must "$QCOW2" io -f qcow2 -r -c 'read -P 2 64k 64k' x.qcow2
        must_exit 1 "$QCOW2" convert -O raw x.qcow2 got.raw
        absent got.raw
    done
    # The zero flag of other entries means nothing here.
    damaged 0x40007 01
    must "$QCOW2" io -f qcow2 -c 'read -P 1 0 64k' -c 'write -P 3 1k 1k' x.qcow2
    must qemu-io -f qcow2 -c 'read -P 3 1k 1k' -c 'read -P 1 2k 62k' x.qcow2
}
