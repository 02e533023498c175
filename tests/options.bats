#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Every option of every command in each of its spellings: tests/options/table.txt.

load helpers

setup_file() {
    mkdir "$BATS_FILE_TMPDIR/files"
    cd "$BATS_FILE_TMPDIR/files" || return 1
    option_files
}

setup() {
    q2_setup
    ln -sf "$QCOW2" ../.bin/qemu-io
}

# Small ones: each command line has its own copies.
option_files() {
    local name
    for name in a bm leak inuse base; do
        must oracle create -q -f qcow2 -o cluster_size=4k $name.qcow2 256k
        must qemu-io -f qcow2 -c 'write -P 1 0 16k' $name.qcow2
    done
    must oracle snapshot -c one a.qcow2
    must qemu-io -f qcow2 -c 'write -P 2 100k 8k' a.qcow2
    must oracle bitmap --add -g 64k bm.qcow2 b0
    must oracle bitmap --add --disable -g 64k bm.qcow2 b1
    must qemu-io -f qcow2 -c 'write -P 2 100k 8k' bm.qcow2
    must oracle bitmap --add inuse.qcow2 b0
    imgtool bitmap inuse.qcow2 0 flags 3
    must qemu-io -f qcow2 -c 'write 200k 4k' -c 'discard 200k 4k' leak.qcow2
    imgtool refcount leak.qcow2 "$(($(stat -c %s leak.qcow2) - 4096))" 1
    must oracle create -q -f qcow2 -b base.qcow2 -F qcow2 -o cluster_size=4k over.qcow2
    must qemu-io -f qcow2 -c 'write -P 3 64k 4k' over.qcow2
    must oracle create -q -f qcow2 -b over.qcow2 -F qcow2 -o cluster_size=4k top.qcow2
    must qemu-io -f qcow2 -c 'write -P 4 80k 4k' top.qcow2
    python3 -S -c 'print("1" * 8192, end="")' >r.raw
    truncate -s 256k r.raw
    cp r.raw same.raw
    must oracle convert -f raw -O qcow2 -o cluster_size=4k r.raw same.qcow2
    cp same.qcow2 longer.qcow2
    must oracle resize -q longer.qcow2 512k
    must oracle create -q -f qcow2 -o cluster_size=4k fresh.qcow2 256k
}

holds_to_table() {
    local program=qemu-img
    [ "$1" != qemu-io ] || program=qemu-io
    python3 -S "$BATS_TEST_DIRNAME/options/run.py" "$program" "$BATS_FILE_TMPDIR/files" \
        "$BATS_TEST_DIRNAME/options/table.txt" "$1"
}

@test "amend" {
    holds_to_table amend
}

@test "bench" {
    holds_to_table bench
}

@test "bitmap" {
    holds_to_table bitmap
}

@test "check" {
    holds_to_table check
}

@test "commit" {
    holds_to_table commit
}

@test "compare" {
    holds_to_table compare
}

@test "convert" {
    holds_to_table convert
}

@test "create" {
    holds_to_table create
}

@test "dd" {
    holds_to_table dd
}

@test "info" {
    holds_to_table info
}

@test "map" {
    holds_to_table map
}

@test "measure" {
    holds_to_table measure
}

@test "rebase" {
    holds_to_table rebase
}

@test "recover" {
    holds_to_table recover
}

@test "resize" {
    holds_to_table resize
}

@test "snapshot" {
    holds_to_table snapshot
}

@test "vet" {
    holds_to_table vet
}

@test "before the command" {
    holds_to_table qemu-img
}

@test "qemu-io" {
    holds_to_table qemu-io
}
