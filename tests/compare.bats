#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# compare: verdicts, texts and exit codes as QEMU judges pairs of every kind.

load helpers

setup() {
    q2_setup
}

# The same words, on the same stream, with the same code as QEMU.
like_qemu() {
    local code=0 got=0
    "$ORACLE" compare "$@" >want.out 2>want.err || code=$?
    qemu-img compare "$@" >got.out 2>got.err || got=$?
    [ "$code" -eq "$got" ] || fail "compare $*: exit $got, not $code: $(cat got.err)" || return 1
    diff want.out got.out || return 1
    diff want.err got.err
}

both_ways() {
    settle
    like_qemu "$1" "$2" || return 1
    like_qemu "$2" "$1" || return 1
    like_qemu -s "$1" "$2" || return 1
    like_qemu -s "$2" "$1"
}

@test "a byte that differs: first, last, at edges of clusters" {
    local at
    imgtool fill a.raw 3M --seed 51
    must oracle convert -O qcow2 a.raw a.qcow2
    for at in 0 511 512 65535 65536 1000000 3145727; do
        cp a.raw b.raw
        # Flip the byte, whatever it is.
        imgtool poke b.raw $at "$(printf '%02x' $((0x$(od -An -tx1 -j $at -N 1 a.raw | tr -d ' ') ^ 255)))"
        must oracle convert -O qcow2 b.raw b.qcow2
        echo "byte $at"
        both_ways a.raw b.raw
        both_ways a.qcow2 b.qcow2
        both_ways a.qcow2 b.raw
        must_exit 1 qemu-img compare a.qcow2 b.raw
    done
}

@test "many differences: the first one is told, whatever the number of threads finds first" {
    imgtool fill a.raw 24M --seed 52
    imgtool fill b.raw 24M --seed 53
    must oracle convert -O qcow2 b.raw b.qcow2
    like_qemu a.raw b.raw
    like_qemu a.raw b.qcow2
    # Equal up to some place in the middle.
    dd if=a.raw of=b.raw bs=1M count=11 conv=notrunc status=none
    must oracle convert -c -O qcow2 b.raw b.qcow2
    like_qemu a.raw b.raw
    like_qemu b.qcow2 a.raw
}

@test "different sizes with zeros behind the shorter one" {
    local end
    imgtool fill a.raw 2M --seed 54
    cp a.raw b.raw
    truncate -s 3M b.raw
    must oracle convert -O qcow2 b.raw b.qcow2
    must oracle create -f qcow2 c.qcow2 4M
    must oracle convert -n -O qcow2 a.raw c.qcow2
    must qemu-io -c 'write -z 2M 1M' -c 'write -P 0 3M 64k' c.qcow2
    for end in b.raw b.qcow2 c.qcow2; do
        echo "a.raw $end"
        both_ways a.raw $end
        must_exit 0 qemu-img compare a.raw $end
        must_exit 1 qemu-img compare -s a.raw $end
    done
    run --separate-stderr qemu-img compare a.raw b.raw
    [[ $output == *'Warning: Image size mismatch!'* ]] || [[ $stderr == *'Warning: Image size mismatch!'* ]]
}

@test "different sizes with data behind the shorter one" {
    local at
    imgtool fill a.raw 2M --seed 55
    must oracle convert -O qcow2 a.raw a.qcow2
    for at in 2097152 2100000 3145727; do
        cp a.raw b.raw
        truncate -s 3M b.raw
        imgtool poke b.raw $at 41
        must oracle convert -O qcow2 b.raw b.qcow2
        echo "byte $at"
        both_ways a.raw b.raw
        both_ways a.qcow2 b.qcow2
        must_exit 1 qemu-img compare a.qcow2 b.raw
    done
}

# In the strict mode only the code: where in the last sector QEMU places the difference
# depends on how it asked.
same_code() {
    local code=0
    settle
    like_qemu "$1" "$2" || return 1
    like_qemu "$2" "$1" || return 1
    "$ORACLE" compare -s "$1" "$2" || code=$?
    must_exit "$code" qemu-img compare -s "$1" "$2" || return 1
    must_exit "$code" qemu-img compare -s "$2" "$1"
}

@test "sizes that are no multiple of a sector" {
    head -c 1000 /dev/urandom >a.raw
    cp a.raw b.raw
    truncate -s 1024 b.raw
    same_code a.raw b.raw
    cp a.raw c.raw
    truncate -s 1025 c.raw
    same_code a.raw c.raw
}

@test "-s: zeros that are data, zero clusters and holes are not the same" {
    truncate -s 2M hole.raw
    must oracle create -f qcow2 empty.qcow2 2M
    must oracle create -f qcow2 zero.qcow2 2M
    must qemu-io -c 'write -z 0 2M' zero.qcow2
    must oracle create -f qcow2 data.qcow2 2M
    must qemu-io -c 'write -P 0 0 2M' data.qcow2
    local a b
    for a in hole.raw empty.qcow2 zero.qcow2 data.qcow2; do
        for b in hole.raw empty.qcow2 zero.qcow2 data.qcow2; do
            echo "$a $b"
            both_ways $a $b
            must_exit 0 qemu-img compare $a $b
        done
    done
}

@test "chains against flat images" {
    must oracle create -f qcow2 base.qcow2 2M
    scribble qcow2 base.qcow2 56 --size 2M
    must oracle create -f qcow2 -o cluster_size=4k -b base.qcow2 -F qcow2 over.qcow2 3M
    scribble qcow2 over.qcow2 57 --size 3M --cluster 4k
    must oracle convert -O qcow2 over.qcow2 flat.qcow2
    both_ways over.qcow2 flat.qcow2
    both_ways over.qcow2 base.qcow2
    must_exit 0 qemu-img compare over.qcow2 flat.qcow2
}

@test "exit codes: 0 identical, 1 different, 2 cannot open, 3 no mapping, 4 cannot read" {
    imgtool fill a.raw 1M --seed 58
    must oracle convert -O qcow2 a.raw a.qcow2
    cp a.raw b.raw
    must_exit 0 qemu-img compare a.raw a.qcow2
    imgtool poke b.raw 77 ff
    imgtool poke a.raw 77 fe
    must_exit 1 qemu-img compare a.raw b.raw
    one_error 2 qemu-img compare missing a.raw
    [ "$message" = "qemu-img: Could not open 'missing': Could not open 'missing': No such file or directory" ]
    one_error 2 qemu-img compare a.raw missing
    one_error 2 qemu-img compare -f qcow2 a.raw a.qcow2
    [ "$message" = "qemu-img: Could not open 'a.raw': Image is not in qcow2 format" ]
    must_exit 2 qemu-img compare -f nosuch a.raw a.qcow2

    # Compressed data that cannot be inflated.
    must oracle convert -c -O qcow2 b.raw c.qcow2
    spoil_compressed c.qcow2
    one_error 4 qemu-img compare c.qcow2 b.raw
    message_has 'c.qcow2' '[0-9]{2}'
    one_error 4 qemu-img compare b.raw c.qcow2

    # An L2 table that cannot be where the L1 table says.
    imgtool poke a.qcow2 $(($(imgtool l1 a.qcow2 0 --where) + 6)) 02
    one_error 3 qemu-img compare a.qcow2 b.raw
    message_has '^qemu-img: Sector allocation test failed for a.qcow2' 'unaligned'
    one_error 3 qemu-img compare -s b.raw a.qcow2
    must_exit 3 oracle compare b.raw a.qcow2
    must_exit 1 qemu-img map a.qcow2
    qemu-img map a.qcow2 2>&1 | grep -q '^qemu-img: Could not read file metadata: '
    one_error 1 qemu-img convert -O raw a.qcow2 x
    message_has '^qemu-img: error while reading block status at offset 0: '
}

@test "-q says nothing, the exit code does" {
    imgtool fill a.raw 1M --seed 59
    cp a.raw b.raw
    run --separate-stderr qemu-img compare -q a.raw b.raw
    [ "$status" -eq 0 ]
    [ -z "$output$stderr" ]
    imgtool poke b.raw 5000 "$(printf '%02x' $((0x$(od -An -tx1 -j 5000 -N 1 a.raw | tr -d ' ') ^ 1)))"
    run --separate-stderr qemu-img compare -q a.raw b.raw
    [ "$status" -eq 1 ]
    [ -z "$output$stderr" ]
}

@test "-p shows progress up to 100 and the verdict behind it" {
    imgtool fill a.raw 8M --seed 60
    cp a.raw b.raw
    run --separate-stderr qemu-img compare -p a.raw b.raw
    [ "$status" -eq 0 ]
    [[ $output == *'(100.00/100%)'* ]]
    [[ $output == *'Images are identical.' ]]
}

@test "-f and -F say what the files are" {
    must oracle create -f qcow2 a.qcow2 1M
    cp a.qcow2 copy
    must_exit 0 qemu-img compare -f raw -F raw a.qcow2 copy
    must_exit 0 qemu-img compare -f qcow2 -F qcow2 a.qcow2 copy
    must_exit 1 qemu-img compare -f raw -F qcow2 a.qcow2 copy
    local args
    for args in '-f raw' '-F raw' '-f raw -F qcow2'; do
        # shellcheck disable=SC2086
        like_qemu $args a.qcow2 copy
    done
}

@test "an image compared with itself" {
    must oracle create -f qcow2 a.qcow2 4M
    scribble qcow2 a.qcow2 61 --size 4M --compressed
    both_ways a.qcow2 a.qcow2
}

@test "large sparse disks cost what is in them" {
    must oracle create -f qcow2 -o cluster_size=2M a.qcow2 64T
    must oracle create -f qcow2 -o cluster_size=1M b.qcow2 32T
    must qemu-io -c 'write -P 5 31T 64k' a.qcow2
    must qemu-io -c 'write -P 5 31T 64k' b.qcow2
    must timeout 300 qemu-img compare a.qcow2 b.qcow2
    must qemu-io -c 'write -P 5 63T 64k' a.qcow2
    must_exit 1 timeout 300 qemu-img compare a.qcow2 b.qcow2
}
