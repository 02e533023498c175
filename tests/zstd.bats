#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Images with compression_type=zstd, made by either program and read, written, checked by
# the other.

load helpers

setup() {
    q2_setup
}

@test "what one program compresses with zstd the other reads, at every cluster size" {
    local size
    for size in $CLUSTER_SIZES; do
        imgtool fill a.raw $((1024 * 1024 + 4608)) --seed 41
        must qemu-img convert -c -O qcow2 -o compression_type=zstd,cluster_size="$size" \
            a.raw ours.qcow2
        must oracle convert -c -O qcow2 -o compression_type=zstd,cluster_size="$size" \
            a.raw theirs.qcow2
        clean ours.qcow2
        same ours.qcow2 a.raw
        [ "$(imgtool field ours.qcow2 compression_type)" -eq 1 ]
        qemu-img check ours.qcow2 | grep -q '[1-9][0-9.]*% compressed clusters'
        must qemu-img compare theirs.qcow2 a.raw
        reads_like_qemu theirs.qcow2
        must qemu-img check --read-data theirs.qcow2
        must qemu-img check --read-data ours.qcow2
        # It takes no more space than QEMU's.
        [ "$(stat -c %s ours.qcow2)" -le "$(($(stat -c %s theirs.qcow2) + 65536))" ]
    done
}

@test "the same bytes with any number of threads" {
    local n
    imgtool fill a.raw 24M --seed 41
    must qemu-img convert -m 1 -c -O qcow2 -o compression_type=zstd a.raw one.qcow2
    for n in 2 7; do
        must qemu-img convert -m $n -c -O qcow2 -o compression_type=zstd a.raw many.qcow2
        same_bytes one.qcow2 many.qcow2
    done
    same one.qcow2 a.raw
}

@test "compressed writes, and writes into compressed clusters, by both programs in turn" {
    local turn # QEMU compresses nothing where data is already
    must qemu-img create -q -f qcow2 -o compression_type=zstd z.qcow2 2M
    truncate -s 2M want.raw
    for turn in 1 2; do
        must qemu-img io -c "write -c -P $turn 0 64k" -c "write -c -P 7 1M 64k" \
            -c "write -P 1$turn 5k 3k" z.qcow2
        must qemu-io -f qcow2 -c "write -c -P 2$turn $((turn * 64))k 64k" -c "write -P 3$turn 1030k 9k" \
            z.qcow2
        must qemu-io -f raw -c "write -P $turn 0 64k" -c "write -P 7 1M 64k" \
            -c "write -P 1$turn 5k 3k" -c "write -P 2$turn $((turn * 64))k 64k" \
            -c "write -P 3$turn 1030k 9k" want.raw
        clean z.qcow2
        same z.qcow2 want.raw
        must qemu-img compare z.qcow2 want.raw
    done
}

@test "overlays, snapshots and conversions take zstd as they take zlib" {
    imgtool fill a.raw 2M --seed 41
    must oracle convert -c -O qcow2 -o compression_type=zstd a.raw base.qcow2
    must qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 \
        -o compression_type=zstd over.qcow2
    must qemu-img io -c 'write -c -P 9 128k 64k' -c 'write -P 8 3k 1k' over.qcow2
    must qemu-io -f raw -c 'write -P 9 128k 64k' -c 'write -P 8 3k 1k' a.raw
    same over.qcow2 a.raw
    must qemu-img snapshot -c one over.qcow2
    must qemu-img io -c 'write -c -P 5 128k 64k' over.qcow2
    clean over.qcow2
    must oracle convert -l one -O raw over.qcow2 one.raw
    same_bytes one.raw a.raw
    must qemu-img convert -l one -c -O qcow2 -o compression_type=zstd over.qcow2 again.qcow2
    clean again.qcow2
    same again.qcow2 a.raw
    must qemu-img convert -c -O qcow2 again.qcow2 zlib.qcow2
    same zlib.qcow2 a.raw
}

@test "an unknown compression type is refused by its number" {
    imgtool fill a.raw 1M --seed 41
    must qemu-img convert -c -O qcow2 -o compression_type=zstd a.raw z.qcow2
    imgtool field z.qcow2 compression_type 2
    one_error 1 qemu-img map z.qcow2
    message_has 'unknown compression type: 2'
}

@test "a broken zstd stream is one clear error, and check finds it" {
    imgtool fill a.raw 1M --seed 41
    must qemu-img convert -c -O qcow2 -o compression_type=zstd a.raw z.qcow2
    spoil_compressed z.qcow2
    one_error 1 qemu-img convert -O raw z.qcow2 x
    message_has 'z.qcow2' 'compressed cluster of guest offset' zstd
    absent x
    one_error 4 qemu-img compare z.qcow2 a.raw
    # What is around it can still be had.
    must qemu-img convert --salvage -O raw z.qcow2 saved.raw
    must_exit 2 qemu-img check --read-data z.qcow2
    must_exit 0 qemu-img check z.qcow2
    must_exit 1 qemu-io -f qcow2 -c "read $spoiled 64k" z.qcow2
}

@test "a zstd image whose end is gone says so" {
    imgtool fill a.raw 1M --seed 42 --grain 64k
    must qemu-img convert -c -O qcow2 -o compression_type=zstd a.raw z.qcow2
    truncate -s -70000 z.qcow2
    one_error 1 qemu-img convert -O raw z.qcow2 x
    message_has z.qcow2
    must_exit 2 qemu-img check z.qcow2
}
