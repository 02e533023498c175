# SPDX-License-Identifier: MIT
# The files that examples of the manual work on: a function for each page, and for names
# that a page gives to one of its examples. What an example calls and a test cannot have is
# a program in $BIN that does little.
#
# shellcheck shell=bash
set -e

imgtool() {
    python3 -S "$TOOLS/imgtool.py" "$@"
}

io() { # FILE COMMAND...
    local file=$1 words=()
    shift
    for command in "$@"; do words+=(-c "$command"); done
    qcow2 io "${words[@]}" "$file" >/dev/null
}

# raw FILE: a disk of 16 MiB with text at its begin and at 2 MiB.
raw() {
    truncate -s 16M "$1"
    seq 20000 | dd of="$1" bs=64k conv=notrunc status=none
    seq 20000 | dd of="$1" bs=64k seek=32 conv=notrunc status=none
}

image() { # FILE [OPTION...]
    local file=$1
    shift
    [ -e disk.raw ] || raw disk.raw
    qcow2 convert -O qcow2 "$@" disk.raw "$file"
}

overlay() { # FILE BASE
    qcow2 create -q -f qcow2 -b "$2" -F qcow2 "$1"
    io "$1" 'write -P 7 1M 128k'
}

with_snapshots() { # FILE NAME...
    local file=$1 name
    shift
    for name in "$@"; do
        qcow2 snapshot -c "$name" "$file"
        io "$file" 'write -P 9 0 64k'
    done
}

passphrase() { # FILE TEXT
    printf %s "$2" >"$1"
}

encrypted() { # FILE PASSPHRASE-FILE
    qcow2 create -q -f qcow2 --object "secret,id=s0,file=$2" \
        -o encrypt.format=luks,encrypt.key-secret=s0,encrypt.iter-time=10 "$1" 16M
}

# A cluster that nobody uses is counted as in use.
leak() { # FILE
    io "$1" 'write -P 3 8M 64k'
    imgtool l2 "$1" 8M 0
}

# A cluster that is in use looks free, and an entry leads behind the end of the file.
break_image() { # FILE
    imgtool refcount "$1" "$(($(imgtool l2 "$1" 64k) & 0xfffffffffffe00))" 0
    imgtool l2 "$1" 2M 0x8000000100000000
}

# Somebody has the image open for writing, until the example has ended.
in_use() { # FILE
    mkfifo "$BIN/hold"
    qcow2 io "$1" <>"$BIN/hold" >"$BIN/said" 2>&1 &
    echo "$!" >"$BIN/user.pid"
    echo 'write 0 512' >"$BIN/hold"
    until grep -q wrote "$BIN/said"; do
        kill -0 "$!" # or it would never come
        sleep 0.05
    done
}

# program NAME LINE...: a program that does these lines.
program() {
    local name=$1
    shift
    printf '%s\n' '#!/bin/sh' "$@" >"$BIN/$name"
    chmod +x "$BIN/$name"
}

# --- examples of --help ---------------------------------------------------------------

page_help_amend() {
    image disk.qcow2
}

page_help_bench() {
    page_qcow2_bench
}

page_help_bitmap() {
    image vm.qcow2
    qcow2 bitmap --add vm.qcow2 all
}

page_help_check() {
    image disk.qcow2
}

page_help_commit() {
    image base.qcow2
    overlay overlay.qcow2 base.qcow2
}

page_help_compare() {
    image disk.qcow2
    cp disk.raw a.img
    cp disk.qcow2 b.img
}

page_help_convert() {
    image vm.qcow2
    with_snapshots vm.qcow2 before-update
}

page_help_create() {
    image base.qcow2
}

page_help_dd() {
    image disk.qcow2
}

page_help_info() {
    page_help_commit
    cp base.qcow2 disk.qcow2
}

page_help_io() {
    image disk.qcow2
}

page_help_map() {
    image disk.qcow2
}

page_help_measure() {
    raw disk.raw
}

page_help_rebase() {
    page_help_commit
    mkdir moved
    cp base.qcow2 moved
}

page_help_recover() {
    page_qcow2_recover
}

page_help_resize() {
    page_qcow2_resize
}

page_help_snapshot() {
    image vm.qcow2
}

# --- the pages ------------------------------------------------------------------------

page_qcow2() {
    raw disk.raw
}

page_README() {
    image broken.qcow2
    cp broken.qcow2 upload.qcow2
    cp broken.qcow2 new-base.qcow2
    cp broken.qcow2 overwritten.qcow2
    head -c 64k /dev/zero | tr '\0' 'x' | dd of=overwritten.qcow2 conv=notrunc status=none
    break_image broken.qcow2
    page_qcow2_convert
    rm vm.qcow2
    passphrase pass.txt 'correct horse'
}

page_encryption() {
    passphrase pass.txt 'correct horse'
    encrypted vm.qcow2 pass.txt
}

page_qcow2_amend() {
    image disk.qcow2 -o compat=0.10
}

page_qcow2_amend_key() {
    passphrase old.txt 'correct horse'
    passphrase new.txt 'battery staple'
    encrypted disk.qcow2 old.txt
}

page_qcow2_bench() {
    image disk.qcow2
    qcow2 create -q -f qcow2 scratch.qcow2 64M
}

page_qcow2_bitmap() {
    image vm.qcow2
    image full.qcow2
}

page_qcow2_check() {
    image disk.qcow2
    break_image disk.qcow2
}

page_qcow2_check_leak() {
    image disk.qcow2
    leak disk.qcow2
}

page_qcow2_check_chain() {
    image base.qcow2
    overlay disk.qcow2 base.qcow2
}

page_qcow2_ci() {
    image upload.qcow2
    image disk.qcow2
    image leaky.qcow2
    leak leaky.qcow2
    qcow2 create -q -f qcow2 -u -b /etc/passwd -F raw bad.qcow2 16M
}

page_qcow2_commit() {
    image base.qcow2
    overlay middle.qcow2 base.qcow2
    overlay overlay.qcow2 middle.qcow2
}

page_qcow2_compare() {
    image disk.qcow2
    cp disk.qcow2 other.qcow2
    io other.qcow2 'write -P 1 5M 512'
}

page_qcow2_convert() {
    image vm.qcow2
    with_snapshots vm.qcow2 before-upgrade
    mkdir -p dev/vg
    cp disk.raw dev/vg/vm
    # Of the other machine, and without its root.
    program ssh 'exec "$2" "${3#/}"'
}

page_qcow2_create() {
    image base.qcow2
    passphrase pass.txt 'correct horse'
}

page_qcow2_dd() {
    image disk.qcow2
}

page_qcow2_info() {
    image base.qcow2
    overlay vm.qcow2 base.qcow2
    cp base.qcow2 disk.qcow2
}

page_qcow2_io() {
    image disk.qcow2
}

page_qcow2_map() {
    image disk.qcow2
    overlay vm.qcow2 disk.qcow2
}

page_qcow2_measure() {
    raw disk.raw
    program lvcreate 'echo "  Logical volume \"$2\" created."'
}

page_qcow2_rebase() {
    image base.qcow2
    cp base.qcow2 new-base.qcow2
    io new-base.qcow2 'write -P 5 4M 64k'
    overlay overlay.qcow2 base.qcow2
    mkdir moved
    cp base.qcow2 moved
    raw template.raw
    cp template.raw clone.raw
    printf 'a host of its own' | dd of=clone.raw bs=64k seek=40 conv=notrunc status=none
}

page_qcow2_recover() {
    image broken.qcow2
    dd if=/dev/urandom of=broken.qcow2 bs=64k count=1 conv=notrunc status=none
}

page_qcow2_resize() {
    qcow2 create -q -f qcow2 disk.qcow2 20G
    truncate -s 4G disk.img
}

page_qcow2_snapshot() {
    image vm.qcow2
}

page_qcow2_vet() {
    image upload.qcow2
    image mine.qcow2
    with_snapshots mine.qcow2 before
    qcow2 create -q -f qcow2 -u -b /etc/passwd -F raw other.qcow2 16M
    imgtool field other.qcow2 incompatible_features 1
}

page_help_vet() {
    image upload.qcow2
    raw upload.img
}

# --- qcow2-repair ---------------------------------------------------------------------

page_repair() {
    page_qcow2_check
}

page_repair_locked() {
    image disk.qcow2
    in_use disk.qcow2
}

page_repair_dirty() {
    image disk.qcow2
    imgtool refcount disk.qcow2 "$(($(imgtool l2 disk.qcow2 64k) & 0xfffffffffffe00))" 0
    imgtool field disk.qcow2 incompatible_features 1
}

page_repair_leaks() {
    page_qcow2_check_leak
}

page_repair_corrupt() {
    image disk.qcow2
    imgtool l2 disk.qcow2 2M 0x8000000000000000
    imgtool field disk.qcow2 incompatible_features 2
}

page_repair_lost() {
    image disk.qcow2
    cp disk.qcow2 backup.qcow2
    break_image disk.qcow2
}

page_repair_truncated() {
    image disk.qcow2
    truncate -s 400k disk.qcow2
}

page_repair_field() {
    image disk.qcow2
    imgtool field disk.qcow2 l1_table_offset 0x70000
}

page_repair_header() {
    image disk.qcow2
    cp disk.qcow2 older.qcow2
    io disk.qcow2 'write -P 5 12M 64k'
    dd if=/dev/zero of=disk.qcow2 bs=512 count=1 conv=notrunc status=none
}

page_repair_spoiled() {
    image disk.qcow2 -c
    imgtool spoil disk.qcow2
}

page_repair_moved() {
    image base.qcow2
    overlay disk.qcow2 base.qcow2
    mkdir images
    mv base.qcow2 images
}
