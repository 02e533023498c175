#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# A writer that is killed: the image is marked as dirty where its refcounts may be behind,
# and repairs, by check or by the next that opens it for writing, to one that QEMU finds
# clean. What was flushed is there; so is what the snapshots hold.

load helpers

SIZE=1048576
SEEDS=$(rows '1 2 3' '1')

killed() { # MODEL SEED FILL COMMAND...
    python3 "$BATS_TEST_DIRNAME/tools/kill_io.py" run "$1" "$2" "$SIZE" "$3" "${@:4}" ||
        fail "seed $2: ${*:4}"
}

holds() { # IMAGE: what the model allows
    must qcow2 convert -f qcow2 -O raw "$1" ours.raw || return 1
    must oracle convert -f qcow2 -O raw "$1" theirs.raw || return 1
    same_bytes ours.raw theirs.raw || return 1
    python3 "$BATS_TEST_DIRNAME/tools/kill_io.py" verify model ours.raw ||
        fail "seed $seed, $1 has lost something"
}

dirty() {
    [ "$(oracle info -U --output=json "$1" | json_value '["dirty-flag"]')" = True ]
}

# Nothing worse than leaks, unless the image says that it is dirty.
sound() {
    local code=0
    dirty "$1" || oracle check "$1" >/dev/null 2>&1 || code=$?
    [ "$code" -eq 0 ] || [ "$code" -eq 3 ] || fail "seed $seed: qemu-img check says $code"
}

snapshots_stay() { # IMAGE
    local name
    for name in ${snapshots:-}; do
        must qcow2 convert -l "$name" -O raw "$1" snapshot.raw || return 1
        same_bytes "$name.raw" snapshot.raw || return 1
    done
}

# After the writer was killed: each way back leads to a clean image.
comes_back() {
    sound disk || return 1
    holds disk || return 1
    was=$(hash_of disk)
    cp disk a && cp disk b && cp disk c
    # By check.
    must qcow2 check -r all a || return 1
    clean a || return 1
    # By whoever writes next, and says so.
    must_exit 0 qcow2 io -f qcow2 -c 'write -q 0 0' b || return 1
    [ "$(hash_of disk)" = "$was" ] || fail "a reader has changed the image" || return 1
    if dirty disk; then
        cp disk d
        qcow2 io -f qcow2 -c 'read -q 0 512' d 2>said
        grep -q 'image was not closed cleanly: repaired' said || fail "said: $(cat said)" || return 1
        clean d || return 1
        n_dirty=$((n_dirty + 1))
    fi
    ! dirty b || fail "b is still dirty" || return 1
    sound b || return 1
    # By QEMU.
    oracle check -q -r all c >/dev/null 2>&1 || true
    clean c || return 1
    for image in a b c; do
        holds $image || return 1
        snapshots_stay $image || return 1
    done
}

setup() {
    q2_setup
    n_dirty=0
}

@test "killed with lazy refcounts: dirty, repaired by check and by the next writer" {
    for seed in $SEEDS; do
        must oracle create -f qcow2 -o lazy_refcounts=on disk 1M
        killed model "$seed" 0 qcow2 io -t writeback -f qcow2 disk
        comes_back
    done
    [ "$n_dirty" -gt 0 ]
}

@test "killed without: not dirty, leaks at worst" {
    for seed in $SEEDS; do
        for version in 0.10 1.1; do
            must oracle create -f qcow2 -o compat=$version disk 1M
            killed model "$seed" 0 qcow2 io -t writeback -f qcow2 disk
            comes_back
        done
    done
    [ "$n_dirty" -eq 0 ]
}

@test "killed while every write is durable at once" {
    for seed in $SEEDS; do
        for lazy in on off; do
            must oracle create -f qcow2 -o lazy_refcounts=$lazy,cluster_size=4k disk 1M
            killed model "$seed" 0 qcow2 io -f qcow2 disk
            comes_back
        done
    done
}

@test "killed above a backing file" {
    must oracle create -f raw base 1M
    must qemu-io -f raw -c 'write -P 0x77 0 1M' base
    base=$(hash_of base)
    for seed in $SEEDS; do
        for options in lazy_refcounts=on compat=0.10; do
            must oracle create -f qcow2 -b base -F raw -o $options disk 1M
            killed model "$seed" 119 qcow2 io -t writeback -f qcow2 disk
            comes_back
        done
    done
    [ "$(hash_of base)" = "$base" ]
}

@test "killed over snapshots: they hold what they held" {
    must oracle create -f qcow2 -o cluster_size=4k model.qcow2 1M
    must qemu-io -f qcow2 -c 'write -P 0x31 0 600k' -c 'write -c -P 0x32 600k 64k' model.qcow2
    must oracle snapshot -c one model.qcow2
    must qemu-io -f qcow2 -c 'write -P 0x33 0 1M' model.qcow2
    must oracle snapshot -c two model.qcow2
    snapshots='one two'
    for name in $snapshots; do
        must oracle convert -l "$name" -O raw model.qcow2 "$name.raw"
    done
    for seed in $SEEDS; do
        for lazy in on off; do
            cp model.qcow2 disk
            killed model "$seed" 51 qcow2 io --image-opts -t writeback \
                driver=qcow2,lazy-refcounts=$lazy,file.filename=disk
            comes_back
        done
    done
    [ "$n_dirty" -gt 0 ]
}

@test "abort in the middle loses nothing that was flushed" {
    for lazy in on off; do
        must oracle create -f qcow2 -o lazy_refcounts=$lazy disk 1M
        run qcow2 io -t writeback -f qcow2 -c 'write -P 1 0 300k' -c flush \
            -c 'write -P 2 400k 300k' -c abort disk
        [ "$status" -eq 134 ]
        case $lazy in on) dirty disk ;; off) ! dirty disk || fail "dirty" ;; esac
        sound disk
        must qcow2 io -r -f qcow2 -c 'read -P 1 0 300k' disk
        must qcow2 check -r all disk
        clean disk
        must qemu-io -f qcow2 -c 'read -P 1 0 300k' disk
    done
}

@test "a dirty image whose repair would lose data is not written" {
    must oracle create -f qcow2 -o lazy_refcounts=on disk 1M
    run qcow2 io -f qcow2 -c 'write -P 1 0 300k' -c abort disk
    must imgtool l2 disk 0 0x8000004000000000
    was=$(hash_of disk)
    one_error 1 qcow2 io -f qcow2 -c 'write 0 512' disk
    message_has 'dirty|data'
    [ "$(hash_of disk)" = "$was" ]
    dirty disk
}
