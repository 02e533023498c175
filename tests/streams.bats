#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Standard input and output as source and target of convert and dd.

load helpers

setup() {
    q2_setup
    export TMPDIR=$PWD/tmp
    mkdir tmp
    imgtool fill disk.raw 3M --seed 8
    truncate -s 5M disk.raw
    must oracle convert -f raw -O qcow2 disk.raw disk.qcow2
}

@test "from a pipe: raw, or what -f says; from a file" {
    qemu-img convert -O qcow2 - a.qcow2 < <(cat disk.raw)
    clean a.qcow2
    same a.qcow2 disk.raw
    # shellcheck disable=SC2002 # a pipe is not a file
    cat disk.qcow2 | qemu-img convert -f qcow2 -O raw - b.raw
    same_bytes b.raw disk.raw
    # shellcheck disable=SC2002 # a pipe is not a file
    cat disk.raw | qemu-img dd if=- of=c.raw bs=1k skip=5 count=100
    tail -c +5121 disk.raw | head -c 97280 | cmp - c.raw
    yes | timeout 60 qemu-img dd if=- of=e.raw bs=1k skip=1 count=3
    yes | head -c 2048 | cmp - e.raw
    yes | timeout 60 qemu-img dd if=- of=e.raw isize=1k
    yes | head -c 1024 | cmp - e.raw
    qemu-img dd if=- of=d.raw bs=1M <disk.raw
    same_bytes d.raw disk.raw
    [ "$(disk_bytes d.raw)" -le $((4 << 20)) ]
    [ -z "$(ls tmp)" ]
}

@test "into a pipe: raw, and qcow2 front to back" {
    qemu-img convert disk.qcow2 - | cat >a.raw
    same_bytes a.raw disk.raw
    qemu-img convert -p -O qcow2 -c disk.qcow2 - | cat >b.qcow2
    clean b.qcow2
    same b.qcow2 disk.raw
    qemu-img dd if=disk.qcow2 of=- bs=1k skip=1 count=2 | cat >c.raw
    tail -c +1025 disk.raw | head -c 1024 | cmp - c.raw
    qemu-img dd if=disk.qcow2 of=- -O qcow2 | cat >d.qcow2
    clean d.qcow2
    same d.qcow2 disk.raw
    [ -z "$(ls tmp)" ]
}

@test "through, both ends at once; several sources; a backing file" {
    # shellcheck disable=SC2002 # a pipe is not a file
    cat disk.raw | qemu-img convert -O qcow2 - - | cat >a.qcow2
    clean a.qcow2
    same a.qcow2 disk.raw
    qemu-img convert -f raw disk.raw disk.raw - | cmp - <(cat disk.raw disk.raw)
    qemu-img convert -O qcow2 -B disk.qcow2 -F qcow2 disk.qcow2 - | cat >over.qcow2
    oracle info over.qcow2 | grep -qx 'backing file: disk.qcow2'
    same over.qcow2 disk.raw
}

@test "what cannot be" {
    must_exit 1 bash -c 'head -c 600 disk.raw | qemu-img dd if=- of=a.raw isize=1000'
    must_exit 1 bash -c 'cat disk.raw | qemu-img convert -f raw - - a.raw'
    must_exit 1 bash -c 'cat disk.raw | qemu-img convert -f qcow2 -O raw - a.raw'
    absent a.raw
    must_exit 1 bash -c 'qemu-img convert disk.qcow2 - >/dev/full'
    must_exit 1 bash -c 'qemu-img convert -O qcow2 disk.qcow2 - >/dev/full'
    one_error 1 qemu-img convert -c -O raw disk.qcow2 -
    one_error 1 qemu-img convert -n -O raw disk.qcow2 -
    must_exit 1 env TMPDIR=/nosuch bash -c 'cat disk.raw | qemu-img convert -O qcow2 - a.qcow2'
    absent a.qcow2
    [ -z "$(ls tmp)" ]
}

@test "a reader that goes away ends it with an error, not a signal" {
    { qemu-img convert disk.qcow2 - 2>err || echo $? >code; } | head -c 10 >/dev/null
    [ "$(cat code)" -eq 1 ]
    grep -q 'Broken pipe' err
}
