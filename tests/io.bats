#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# qcow2 io, which is qemu-io: the same command lines through both, on copies of one image:
# the same output, the same exit code, the same disk afterwards.

load helpers

setup() {
    q2_setup
    mkdir ../ours
    ln -s "$QCOW2" ../ours/qemu-io
    ours=$BATS_TEST_TMPDIR/ours/qemu-io
    theirs=$(command -v qemu-io)
}

# Times and rates differ, and what a command is for is told in other words. A prompt stands
# before what a request says when it completes, or behind.
normal() {
    sed -E -e 's/^(qemu-io> )+//' -e '/format was guessed as raw/d' -e 's/(ops; ).*/\1T/' -e 's/^([0-9]+,1,).*/\1T/' -e 's/ *-- .*/ --/'
}

# run_one PROGRAM FOLDER ARGUMENTS...: in the folder; what it said goes beside it.
run_one() {
    local program=$1 dir=$2 code=0
    shift 2
    (cd "$dir" && "$program" "$@") >out 2>err <"${input:-/dev/null}" || code=$?
    { normal <out; sed 's/^/stderr: /' err | normal; echo "[exit $code]"; } >"$dir.said"
}

# both FOLDER ARGUMENTS...: copies of the folder, a program in each.
both() {
    local from=$1
    shift
    rm -rf a b
    cp -r --sparse=always "$from" a
    cp -r --sparse=always "$from" b
    run_one "$theirs" a "$@"
    run_one "$ours" b "$@"
    diff -u a.said b.said >differs || fail "qemu-io $*"$'\n'"$(tail -n +3 differs)"
}

# After both: the disks hold the same bytes, and so does what QEMU makes of ours.
same_disks() { # IMAGE FORMAT
    must oracle compare -f "$2" -F "$2" "a/$1" "b/$1" || return 1
    [ "$2" = raw ] || clean "b/$1"
}

# The images that sessions run on, each in a folder of its own, as FOLDER/disk.
make_images() {
    local name
    for name in v3 v2 small raw over v2over snap bits; do mkdir "$name"; done
    must oracle create -f qcow2 v3/disk 1M
    must oracle create -f qcow2 -o compat=0.10 v2/disk 1M
    must oracle create -f qcow2 -o cluster_size=512 small/disk 1000448
    must oracle create -f raw raw/disk 1M
    must oracle create -f qcow2 -o cluster_size=4k,refcount_bits=1,lazy_refcounts=on bits/disk 1M
    must oracle create -f raw over/base 640k
    must qemu-io -f raw -c 'write -P 0x77 0 640k' over/base
    cp over/base v2over/base
    (cd over && must oracle create -f qcow2 -b base -F raw disk 1M)
    (cd v2over && must oracle create -f qcow2 -o compat=0.10,cluster_size=4k -b base -F raw disk 1M)
    must oracle create -f qcow2 -o cluster_size=4k snap/disk 1M
    must qemu-io -f qcow2 -c 'write -P 0x21 0 512k' -c 'write -c -P 0x22 512k 64k' snap/disk
    must oracle snapshot -c one snap/disk
    must qemu-io -f qcow2 -c 'write -P 0x23 100k 64k' snap/disk
    must oracle snapshot -c two snap/disk
}

format_of() {
    case $1 in raw) echo raw ;; *) echo qcow2 ;; esac
}

session() {
    cat <<'END'
length
map
alloc 0
alloc 0 1M
read 0 64k
read -v 65530 20
read -P 0 0 4k
read -P 0x77 0 4k
write -P 0x11 0 900k
read -P 0x11 0 900k
write -P 0x12 1 1
write -P 0x13 65535 2
write -P 0x14 4095 8194
read -v 4090 16
read -P 0x14 4095 8194
write -z 200k 100k
write -z 300001 7
write -zu 400k 64k
write -P 0x15 410k 1000
read -v 419830 30
discard 500k 100k
discard 100 100
write -zn 640k 64k
writev -P 0x16 700k 512 1k 4k
readv -P 0x16 700k 512 1k 4k
readv -v 716790 16 16
aio_write -P 0x17 720k 4k 512
aio_flush
aio_read -P 0x17 720k 4k
aio_flush
aio_write -P 0x18 730k 4k
aio_flush
aio_read -P 0x17 730k 4k
aio_flush
write -f -P 0x19 740k 3
flush
read -C 0 512
write -C 800k 4k
discard -C 800k 4k
read -q 0 1k
write -q 0 1k
discard -q 128k 64k
write 1M 1
write -P 0x1a 0xfff 0x10
write -P 0x1b 1.5k 1.5k
read -P 0x1b -s 512 -l 1k 1k 2k
read -P 0x1b -s 511 -l 1k 1k 2k
alloc 0 64k
alloc 900k 1M
map
END
}

@test "a session of reads, writes, zeros and discards, on every kind of image" {
    make_images
    session >lines
    input=$PWD/lines
    for name in v3 v2 small raw over v2over snap bits; do
        format=$(format_of "$name")
        # What an image has allocated depends on how its format stores zeros.
        case $name in raw) grep -vE '^(write -z|discard)' lines >rest ;; *) cp lines rest ;; esac
        input=$PWD/rest
        both "$name" -f "$format" disk || fail "on $name"
        same_disks disk "$format" || fail "on $name"
    done
    for name in one two; do
        must oracle convert -l "$name" -O raw snap/disk "$name.want"
        both snap -f qcow2 disk || fail "on snap"
        must oracle convert -l "$name" -O raw b/disk "$name.got"
        must same_bytes "$name.want" "$name.got"
    done
}

@test "the same with discards that are ignored, and with the modes of the cache" {
    make_images
    session | grep -v map >lines
    input=$PWD/lines
    both v3 -d ignore -f qcow2 disk
    same_disks disk qcow2
    for mode in none writeback writethrough directsync unsafe; do
        both over -t "$mode" -f qcow2 disk || fail "with $mode"
        same_disks disk qcow2 || fail "with $mode"
    done
    both raw -d off -f raw disk
    same_disks disk raw
}

@test "compressed clusters" {
    make_images
    cat >lines <<'END'
write -c -P 0x31 0 64k
write -c -P 0x32 64k 128k
write -c -P 0x33 0 512
write -c -P 0x33 512 64k
write -c -P 0x33 0 100
write -P 0x35 200k 3k
discard 192k 64k
write -c -P 0x36 192k 64k
write -cz 256k 64k
write -c -P 0x38 1M 64k
write -c 0 0
read -P 0x36 192k 64k
write -P 0x37 190k 3k
END
    { echo 'discard 0 1M'; cat lines; } >lines.snap
    for name in v3 v2 over snap bits; do
        input=$PWD/lines
        [ "$name" != snap ] || input=$PWD/lines.snap
        both "$name" -f qcow2 disk || fail "on $name"
        same_disks disk qcow2 || fail "on $name"
    done
    both raw -f raw -c 'write -c 0 64k' disk
    # QEMU refuses to compress over a cluster that is there.
    must "$ours" -c 'write 0 1M' -c 'write -c -P 1 64k 128k' -c 'write -c -P 2 128k 64k' v3/disk
    must qemu-io -c 'read -P 1 64k 64k' -c 'read -P 2 128k 64k' -c 'read -P 0xcd 192k 64k' v3/disk
    clean v3/disk
    # A last cluster that is cut by the end of the disk is a whole one.
    mkdir odd
    must oracle create -f qcow2 odd/disk 100k
    both odd -c 'write -c -P 5 64k 36k' -c 'write -c 65k 35k' -c 'write -c 64k 32k' disk
    same_disks disk qcow2
}

@test "a source file fills the buffer again and again" {
    make_images
    printf 'abc' >v3/pattern
    : >v3/empty
    both v3 -c 'write -s pattern 0 64k' -c 'read -v 0 40' -c 'write -cs pattern 64k 64k' \
        -c 'read -v 65530 20' -c 'write -s empty 0 512' -c 'write -s none 0 512' disk
    same_disks disk qcow2
}

@test "the state of the virtual machine, behind the disk" {
    make_images
    for name in v3 v2 small over; do
        both "$name" -f qcow2 -c 'read -b 0 512' -c 'write -b -P 0x41 0 3k' \
            -c 'write -b -P 0x42 1k 100k' -c 'read -b -P 0x41 0 1k' \
            -c 'read -b -P 0x42 1k 100k' -c 'read -b 0 8' -c 'write -b 8 512' -c 'read 0 512' \
            disk ||
            fail "on $name"
        clean b/disk || fail "on $name"
        must qemu-io -f qcow2 -c 'read -b -P 0x42 1k 100k' b/disk || fail "on $name"
    done
    both raw -f raw -c 'read -b 0 512' -c 'write -b 0 512' disk
}

@test "what cannot be: ranges, patterns, options, counts of arguments" {
    mkdir v3
    must oracle create -f qcow2 v3/disk 1M
    while IFS= read -r command; do
        both v3 -c "$command" disk
    done <<'END'
read 0
read
read 0 64k 3
read x 64k
read 0 x
read -1 512
read 2M 512
read 1M 0
read 3M 0
read 1023k 2k
read -P 0x1ff 0 512
read -P x 0 512
read -P 1 0 1k
read -P 1 -s 512 -l 1000 0 1k
read -s 1 0 1k
read -l x 0 1k
read -Z 0 1k
read 0 2G
read 0 20E
write -P 300 0 512
write -z -P 1 0 512
write -s /dev/null -P 1 0 512
write -b -z 0 512
write -fc 0 64k
write -u 0 512
write -n 0 512
write -r 0 512
write 1023k 2k
write -z 1023k 2k
write -z 0 2G
write -zn 0 3G
write 0 3G
readv 0
readv 0 x
readv 0 3G
readv 0 1G 1G 1G
readv 2M 512
writev -x 0 512
writev x 512
writev 2M 512
aio_read 0 x
aio_read 2M 512
aio_read -i 0 512
aio_write -u 0 512
aio_write -z 0 512 512
aio_write 2M 512
aio_write -i 0 512
aio_flush 1
discard x 512
discard 2M 512
discard 0 3G
discard 0
flush 1
truncate x
truncate -q 1
truncate -m bad 3M
length x
alloc x
alloc 5M 1
alloc 1M
alloc 0 64k 3
sleep
sleep x
sleep 1
help
help foo
help read foo
foo
break a b
resume a
remove_break a
break a
abort x
sigraise
sigraise x
sigraise 99
quit x

  read   0   512
END
}

@test "all commands of a line are run, and the first failure counts" {
    mkdir v3
    must oracle create -f qcow2 v3/disk 1M
    both v3 -c length -c foo -c length disk
    both v3 -c length -c quit -c foo disk
    both v3 -c length -c close -c length
    both v3 -c length
    printf 'length\nread -P 1 0 512\n\nlength' >lines
    input=$PWD/lines both v3 disk
    input=$PWD/lines both v3
    printf 'length\nquit\nfoo\n' >lines
    input=$PWD/lines both v3 disk
    input=
    both v3 none
    both v3 -c length none
    both v3 -f foo -c length disk
    both v3 -f raw -c length disk
    both v3 -r -c 'write 0 512' -c 'discard 0 64k' -c flush -c 'aio_write 0 512' -c 'read 0 512' disk
    both v3 -U disk
    both v3 -U -r -c length disk
    both v3 -C -r disk
    both v3 -d foo disk
    both v3 -t foo disk
    both v3 -i foo disk
    both v3 -k -c length disk
    both v3 -n -k -c length disk
}

@test "the output of QEMU 10.2" {
    must oracle create -f qcow2 a.qcow2 64M
    must oracle create -f qcow2 -b a.qcow2 -F qcow2 over.qcow2
    {
        "$ours" -c 'write -P 0x11 0 1M' -c 'write -P 0x22 5M 128k' -c 'write -z 8M 256k' \
            -c 'discard 5M 64k' a.qcow2
        "$ours" -c 'write -P 0x33 1M 64k' over.qcow2
        "$ours" -c 'read -P 0x11 0 64k' -c 'read -P 0x11 5M 4k' a.qcow2 || true
        "$ours" -c map a.qcow2
        "$ours" -c 'alloc 0 1M' a.qcow2
    } | sed -E 's,(ops; ).* \(.*/sec and .*/sec\)$,\1T (X/sec),' >got
    diff -u - got <<'END'
wrote 1048576/1048576 bytes at offset 0
1 MiB, 1 ops; T (X/sec)
wrote 131072/131072 bytes at offset 5242880
128 KiB, 1 ops; T (X/sec)
wrote 262144/262144 bytes at offset 8388608
256 KiB, 1 ops; T (X/sec)
discard 65536/65536 bytes at offset 5242880
64 KiB, 1 ops; T (X/sec)
wrote 65536/65536 bytes at offset 1048576
64 KiB, 1 ops; T (X/sec)
read 65536/65536 bytes at offset 0
64 KiB, 1 ops; T (X/sec)
Pattern verification failed at offset 5242880, 4096 bytes
read 4096/4096 bytes at offset 5242880
4 KiB, 1 ops; T (X/sec)
1 MiB (0x100000) bytes     allocated at offset 0 bytes (0x0)
4 MiB (0x400000) bytes not allocated at offset 1 MiB (0x100000)
128 KiB (0x20000) bytes     allocated at offset 5 MiB (0x500000)
2.875 MiB (0x2e0000) bytes not allocated at offset 5.125 MiB (0x520000)
256 KiB (0x40000) bytes     allocated at offset 8 MiB (0x800000)
55.750 MiB (0x37c0000) bytes not allocated at offset 8.250 MiB (0x840000)
1048576/1048576 bytes allocated at offset 0 bytes
END
}

@test "the prompt is the program's name" {
    mkdir v3
    must oracle create -f qcow2 v3/disk 1M
    echo length >lines
    input=$PWD/lines both v3 disk
    [ "$("$QCOW2" io v3/disk <lines)" = "${QCOW2##*/} io> 1 MiB"$'\n'"${QCOW2##*/} io> " ]
}

@test "info describes the open image" {
    make_images
    for name in v3 v2 small over snap bits; do
        both "$name" -f qcow2 -c info disk || fail "on $name"
    done
    both raw -f raw -c info disk
    both over -c 'open -r disk' -c info -c map
}

@test "open, close, reopen" {
    make_images
    both v3 -c 'open disk' -c length -c 'open disk' -c close -c close
    both v3 -c 'open -o driver=qcow2,file.filename=disk' -c length
    both v3 -c 'open -o driver=raw disk' -c length
    both v3 -c 'open -o driver=qcow2,foo=bar disk' -c 'open -x disk' -c 'open disk disk' -c open
    both v3 -c 'open -r disk' -c 'write 0 512' -c 'reopen -w' -c 'write 0 512' -c 'reopen -r' \
        -c 'write 0 512'
    same_disks disk qcow2
    both v3 -c 'open -t foo disk' -c 'open -d foo disk' -c 'open -i foo disk' -c 'open -U disk' \
        -c 'open -rU disk' -c length
    both v3 -c reopen -c 'reopen -o lazy-refcounts=on' -c 'write 0 64k' \
        -c 'reopen -o lazy-refcounts=x' -c 'reopen -o foo=on' -c 'reopen -c none' \
        -c 'reopen -c foo' -c 'reopen -rw' -c 'reopen foo' -c 'reopen -o read-only=on -w' disk
    same_disks disk qcow2
    both v2 -c 'reopen -o lazy-refcounts=on' -c 'reopen -o cache-size=1M,l2-cache-size=2M' \
        -c 'reopen -o driver=raw' -c 'reopen -o driver=qcow2' -c 'reopen -o node-name=x' \
        -c 'reopen -o force-share=on' -c 'reopen -o discard=off' -c 'write 0 64k' disk
    same_disks disk qcow2
    both raw -f raw -c 'reopen -o lazy-refcounts=on' -c 'reopen -r' -c 'write 0 512' disk
}

@test "-s: changes go to a temporary image" {
    make_images
    before=$(hash_of over/disk over/base)
    both over -s -f qcow2 -c 'read -P 0x77 0 640k' -c 'write -P 3 100 100k' \
        -c 'read -P 3 100 100k' -c 'read -P 0x77 0 100' -c 'write -b -P 1 0 512' disk
    [ "$(hash_of b/disk b/base)" = "$before" ]
    TMPDIR=$PWD must "$QCOW2" io -s -f qcow2 -c 'write 0 64k' over/disk
    [ -z "$(find . -name 'qcow2.*')" ]
}

@test "-C: what was read from the backing file is kept" {
    make_images
    both over -C -f qcow2 -c 'read -P 0x77 70000 10' -c 'read 600k 100k' -c map disk
    same_disks disk qcow2
    both v2over -C -f qcow2 -c 'read -P 0x77 4095 2' -c map disk
    same_disks disk qcow2
}

@test "a raw disk whose format was guessed is not made an image by a write" {
    mkdir r
    truncate -s 1M r/disk
    printf 'QFI\373\0\0\0\3' >r/magic
    both r -c 'write -s magic 0 512' -c 'write 0 512' disk
    [ "$(head -c 3 b/disk)" != QFI ]
    both r -f raw -c 'write -s magic 0 512' disk
    [ "$(head -c 3 b/disk)" = QFI ]
}

@test "abort and sigraise end the program without closing anything" {
    mkdir v3
    for end in abort 'sigraise 9' 'sigraise 15'; do
        must oracle create -f qcow2 -o lazy_refcounts=on v3/disk 1M
        run "$ours" -c 'write -P 9 0 64k' -c "$end" -c length v3/disk
        [ "$status" -gt 128 ]
        [[ $output == *'wrote 65536/65536 bytes at offset 0'* ]]
        [[ $output != *MiB*MiB*MiB* ]]
        [ "$(oracle info --output=json v3/disk | json_value '["dirty-flag"]')" = True ]
    done
}

@test "a disk is locked while it is open" {
    must oracle create -f qcow2 disk 1M
    mkfifo commands
    "$ours" disk <commands >said 2>&1 3>&- &
    writer=$!
    exec 9>commands
    echo 'write 0 512' >&9
    wait_until grep -q wrote said
    one_error 1 "$QCOW2" info disk 9>&- || true
    run "$theirs" -c length disk 9>&-
    [ "$status" -eq 1 ]
    [[ $output == *'Failed to get "write" lock'* ]]
    run "$ours" -r -c length disk 9>&-
    [ "$status" -eq 1 ]
    [[ $output == *'Failed to get shared "write" lock'* ]]
    must "$ours" -r -U -c length disk 9>&-
    exec 9>&-
    wait "$writer"
    must "$theirs" -c length disk
}

@test "raw disks are resized" {
    mkdir r
    truncate -s 64k r/disk
    both r -f raw -c 'truncate 1M' -c length -c 'write -P 7 1000k 24k' -c 'truncate 512k' -c length \
        -c 'truncate -m full 600k' -c 'read -P 0 512k 88k' -c 'write -P 8 0 600k' disk
    same_disks disk raw
    [ "$(stat -c %s b/disk)" -eq 614400 ]
    both r -f raw -c 'truncate 100' -c length -c 'write -P 9 0 512' disk
    same_disks disk raw
}
