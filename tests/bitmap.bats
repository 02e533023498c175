#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Persistent bitmaps: the command that changes them, what writes record in them, what
# becomes of them when a disk is resized, copied, or its writer killed. Beside QEMU, which
# does the same to a copy; the bits are read by a tool of our own.

load helpers

setup() {
    q2_setup
}

# name, flags, granularity, dirty ranges: of all bitmaps
bits() {
    imgtool bitmaps "$1"
}

has_bits() { # IMAGE LINE...
    local image=$1
    shift
    diff -u <([ $# -eq 0 ] || printf '%s\n' "$@") <(bits "$image") >differs || fail "$image"$'\n'"$(cat differs)"
}

same_bits() {
    imgtool bitmaps "$1" "$2" >differs || fail "$1 and $2: $(cat differs)"
}

# image_with_bitmaps FILE [OPTIONS]: three of them, with something in each.
image_with_bitmaps() {
    must oracle create -q -f qcow2 ${2:+-o "$2"} "$1" 64M || return 1
    must oracle bitmap --add -g 64k "$1" b0 || return 1
    must oracle bitmap --add -g 512 "$1" fine || return 1
    must oracle bitmap --add -g 1M "$1" big || return 1
    must qemu-io -c 'write -q 70k 1k' -c 'write -q 3M 100k' -c 'write -q 63M 1M' "$1" || return 1
    must oracle bitmap --disable "$1" big
}

# A writer that dies; all that recorded is inconsistent, and so is, with QEMU, the rest.
break_bitmaps() {
    ! qemu-io -c 'write -q 0 1k' -c abort "$1" >/dev/null 2>&1 || fail "qemu-io lives"
}

# What the messages call the block node is a number of QEMU's, or a name of ours.
nodes() {
    sed -E -e "s/(persistent in|bitmaps to) '?(#block[0-9]+|[a-z0-9.]+)'?:/\1 #:/" \
        -e 's/^(qcow2|qemu-img): //' -e "/^Try '(qcow2|qemu-img)/d"
}

# both COMMAND...: by QEMU in theirs/, by us in ours/; $code is the exit code of both.
both() {
    local theirs=0 ours=0
    (cd theirs && oracle "$@") >theirs.said 2>&1 </dev/null || theirs=$?
    (cd ours && qcow2 "$@") >ours.said 2>&1 </dev/null || ours=$?
    code=$theirs
    [ "$theirs" -eq "$ours" ] || fail "exit $ours, not $theirs: $*"$'\n'"$(cat ours.said)" || return 1
    diff -u <(nodes <theirs.said) <(nodes <ours.said) >differs || fail "$*"$'\n'"$(cat differs)"
}

@test "command lines, one after the other: exit code, message, bits as with QEMU" {
    mkdir theirs ours
    cd theirs
    image_with_bitmaps bm
    must oracle create -q -f qcow2 other 64M
    must oracle bitmap --add -g 4k other src
    must qemu-io -c 'write -q 30M 20k' other
    cp bm inc
    break_bitmaps inc
    must oracle create -q -f qcow2 -o compat=0.10 v2 1M
    must oracle create -q -f qcow2 small 1M
    must oracle bitmap --add -g 4k small src
    truncate -s 1M r.raw
    cd "$BATS_TEST_TMPDIR/work"
    cp theirs/* ours/
    local line f
    while read -r line; do
        eval "both bitmap $line"
        for f in bm other inc small; do
            case "$code $line " in 0*" $f "* | 1*"--add --"*" $f "*) ;; *) continue ;; esac
            same_bits theirs/$f ours/$f || fail "$line"
        done
    done <<'EOF'
--add bm n1
--add bm n1
--add --disable -g 2G bm n3
--merge fine bm b0
--merge big bm fine
--clear bm b0
--merge fine --merge b0 bm big
--merge src -b other bm fine
--merge src -b other -F qcow2 bm big
--merge src -b small bm big
--merge nope -b other bm big
--merge src -b other -F raw bm big
--enable bm big
--disable --clear --merge b0 --enable bm fine
--remove bm nope
--remove --add -g 4k bm b0
--add --add bm twice
--add --merge nope bm half
--clear inc b0
--merge fine inc b0
--add --merge fine inc new
--disable inc b0
--add inc b0
--remove inc b0
--remove --add inc fine
--merge big -b inc bm big
--add v2 x
--clear v2 x
--add -f raw r.raw x
--add r.raw x
--clear -f raw r.raw x
--add -f qcow2 r.raw x
--add nofile x
--merge x -b nofile bm big
--add bm
--add bm a b
bm b0
--clear -g 4k bm b0
--clear -F raw bm b0
--clear -b x bm b0
--add -g 17 bm z
--add -g 4G bm z
--add -g 0 bm z
--add -g 1.5k bm z2
--add bm ''
--add --image-opts driver=qcow2,file.filename=bm opts
--image-opts -f qcow2 --add driver=qcow2,file.filename=bm opts
--merge b0 -b bm bm fine
--add bm "$(printf 'n%.0s' {1..1024})"
--add bm "$(printf 'n%.0s' {1..1023})"
--remove bm n1
--remove other src
EOF
    for f in bm other inc; do
        clean ours/$f
        must qcow2 bitmap --add ours/$f once-more
        must oracle bitmap --merge once-more --clear ours/$f once-more
    done
}

@test "too large for QEMU: refused, and nothing has changed" {
    must qcow2 create -q -f qcow2 h.qcow2 1P
    local was
    was=$(hash_of h.qcow2)
    one_error 1 qcow2 bitmap --add -g 64k h.qcow2 x
    message_has "Operation add on bitmap x failed: Can't make bitmap 'x' persistent in" \
        'Too much space will be occupied by the bitmap. Use larger granularity'
    [ "$(hash_of h.qcow2)" = "$was" ]
    must qcow2 bitmap --add -g 2M h.qcow2 x
    must qcow2 io -c 'write -q 1000T 1M' h.qcow2
    [ "$(disk_bytes h.qcow2)" -lt 8388608 ]
    clean h.qcow2
    must oracle bitmap --merge x h.qcow2 x
    must qcow2 create -q -f qcow2 none.qcow2 0
    one_error 1 qcow2 bitmap --add none.qcow2 x
}

WRITES=(-c 'write -q 0 64k' -c 'write -q -z 1M 128k' -c 'discard -q 3M 64k' -c 'discard -q 4M 1k'
    -c 'write -q 5M 512' -c 'write -q 20M 5M' -c 'write -q -c 6M 2M' -c 'write -q -z 50M 512'
    -c 'write -q -z -u 67106816 2k' -c 'read -q 10M 1M')

@test "what is written is recorded, as QEMU does it" {
    local size f
    for size in $(rows '4k 64k 2M' '64k'); do
        image_with_bitmaps theirs "cluster_size=$size"
        must qcow2 bitmap --add --disable theirs second
        cp theirs ours
        must qemu-io "${WRITES[@]}" theirs
        must qcow2 io "${WRITES[@]}" ours
        same_bits theirs ours
        clean ours
        same theirs ours
        for f in $(rows '1 2' '1'); do
            scribble qcow2 theirs "$f" --size 8M --count 25 --cluster "$size"
            qcow2 io -f qcow2 ours <"$(compgen -G "$BATS_TEST_TMPDIR/scribble.$f.__*")" >said ||
                fail "$(cat said)"
            # The other way round next time.
            same_bits theirs ours
            mv theirs mine && mv ours theirs && mv mine ours
        done
        clean theirs
        clean ours
        rm -f "$BATS_TEST_TMPDIR"/scribble.* ours
    done
}

@test "by turns, and now and then killed: bits are what was written, or in use" {
    truncate -s 300k base.raw
    must oracle create -q -f qcow2 -o cluster_size=512,lazy_refcounts=on v512 400k
    must oracle create -q -f qcow2 -o cluster_size=4k -b base.raw -F raw v4k 1M
    must oracle create -q -f qcow2 v64k 4M
    must python3 "$BATS_TEST_DIRNAME/crash/turns.py" --bitmap --turns "$(rows 6 3)" v*
}

@test "extended L2 entries, encryption: the same" {
    local -a secret=(--object 'secret,id=sec0,data=passw0rd')
    image_with_bitmaps theirs extended_l2=on
    cp theirs ours
    must qemu-io "${WRITES[@]}" theirs
    must qcow2 io "${WRITES[@]}" ours
    same_bits theirs ours
    clean ours
    same theirs ours
    luks_image luks
    must oracle bitmap --add "${secret[@]}" --image-opts \
        driver=qcow2,file.filename=luks,encrypt.key-secret=sec0 b0
    must qcow2 io "${secret[@]}" --image-opts -c 'write -q 1M 70k' \
        driver=qcow2,file.filename=luks,encrypt.key-secret=sec0
    has_bits luks 'b0 auto 65536 1048576+131072'
    must oracle check "${secret[@]}" --image-opts \
        driver=qcow2,file.filename=luks,encrypt.key-secret=sec0
}

@test "pieces that are all dirty, and many bitmaps in a directory of many sectors" {
    local i name
    must qcow2 create -q -f qcow2 -o cluster_size=512 a 16M
    must qcow2 bitmap --add -g 512 a fine
    must qcow2 io -c 'write -q 1M 8M' a
    # Bits 2 MiB .. 8 MiB fill three clusters: nothing is stored for these.
    [ "$(imgtool bitmaps a)" = 'fine auto 512 1048576+8388608' ]
    must oracle bitmap --merge fine a fine # QEMU reads and stores them again
    has_bits a 'fine auto 512 1048576+8388608'
    name=$(printf 'n%.0s' {1..90})
    for i in {1..12}; do
        must qcow2 bitmap --add -g "$((512 << i % 8))" a "$name$i"
    done
    cp a b
    must qcow2 io "${WRITES[@]::6}" a
    must qemu-io "${WRITES[@]::6}" b
    same_bits a b
    clean a
    for i in 1 12 5; do
        must qcow2 bitmap --remove a "$name$i"
        must oracle bitmap --remove b "$name$i"
    done
    same_bits a b
    clean a
}

@test "reading changes nothing; a writer that writes nothing neither" {
    image_with_bitmaps a
    local was
    was=$(hash_of a)
    must qcow2 info a
    must qcow2 map a
    must qcow2 convert -O raw a a.raw
    must qcow2 convert --bitmaps -O qcow2 a copy
    must qcow2 compare a a.raw
    must qcow2 io -r -c 'read 0 1M' a
    must qcow2 io -c 'read 0 1M' -c flush a
    must_exit 1 qcow2 bitmap --merge nope a b0
    must qcow2 bitmap --enable a b0
    [ "$(hash_of a)" = "$was" ]
}

# die_writing IMAGE COMMAND...: qcow2 io does it, is asked for one more byte, and is killed.
die_writing() {
    local image=$1 pid
    shift
    rm -f said # what the one before has said
    mkfifo pipe
    qcow2 io "$image" <pipe >said 2>&1 3>&- &
    pid=$!
    exec 9>pipe
    printf '%s\n' "$@" 'read 0 1' >&9
    wait_until grep -q 'read 1/1' said || fail "$(cat said)" || return 1
    kill -9 "$pid"
    exec 9>&-
    wait "$pid" 2>/dev/null || true
    rm pipe
}

@test "a writer is killed: in use, to be removed and nothing else" {
    image_with_bitmaps a
    cp a b
    die_writing a 'read 0 64k'
    same_bits a b # had it not written anything
    die_writing a 'write 40M 64k'
    [ "$(bits a | cut -d ' ' -f 1,2 | tr '\n' ';')" = 'b0 in-use,auto;fine in-use,auto;big -;' ]
    for form in human json; do
        qcow2 info --output=$form a >ours
        oracle info --output=$form a >theirs
        grep -q in-use theirs
        [ "$(grep -A 30 bitmaps ours | sed '/refcount/,$d')" = \
            "$(grep -A 30 bitmaps theirs | sed '/refcount/,$d')" ] || fail "$(cat ours)"
    done
    clean a
    local was form
    was=$(hash_of a)
    qcow2 resize a 65M 2>said && fail "resized"
    diff - said <<'EOF'
qcow2: Bitmap 'b0' is inconsistent and cannot be used
Try block-dirty-bitmap-remove to delete this bitmap from disk
EOF
    must_exit 1 qcow2 bitmap --clear a b0
    must_exit 1 qcow2 bitmap --merge fine a big
    must_exit 1 qcow2 convert --bitmaps -O qcow2 a c
    absent c
    [ "$(hash_of a)" = "$was" ]
    # It can still be written; they stay what they are.
    must qcow2 io -c 'write -q 50M 64k' a
    [ "$(bits a | cut -d ' ' -f 1,2 | tr '\n' ';')" = 'b0 in-use,auto;fine in-use,auto;big -;' ]
    must qcow2 bitmap --remove a b0
    must oracle bitmap --remove a fine
    has_bits a "$(bits b | grep ^big)"
    must qcow2 resize a 65M
    clean a
}

@test "resize: bitmaps grow and shrink with the disk" {
    local size
    for size in 4k 64k; do
        image_with_bitmaps theirs "cluster_size=$size"
        cp theirs ours
        local to
        for to in 67109376 3M 5M 100M 3073k 65M; do
            must oracle resize --shrink theirs "$to"
            must qcow2 resize --shrink ours "$to"
            same_bits theirs ours
        done
        clean ours
        must qcow2 amend -o size=66M ours
        must oracle amend -o size=66M theirs
        same_bits theirs ours
        must qcow2 io -c 'write -q 65M 1M' ours
        must qemu-io -c 'write -q 65M 1M' theirs
        same_bits theirs ours
        clean ours
    done
}

@test "resize: what a bitmap cannot follow is refused before anything changes" {
    must qcow2 create -q -f qcow2 a 1G
    must qcow2 bitmap --add -g 512 a fine
    local was
    was=$(hash_of a)
    one_error 1 qcow2 resize a 4T
    message_has "Bitmap 'fine' doesn't satisfy the constraints: Too much space"
    [ "$(hash_of a)" = "$was" ]
}

@test "snapshots and amendments: kept; going back to a snapshot is refused" {
    image_with_bitmaps a
    cp a b
    must qcow2 snapshot -c s a
    must qcow2 amend -o lazy_refcounts=on,refcount_bits=32 a
    same_bits a b
    clean a
    local was
    was=$(hash_of a)
    one_error 1 qcow2 snapshot -a s a
    message_has "Could not apply snapshot 's': Device has active dirty bitmaps"
    one_error 1 qcow2 amend -o compat=0.10,refcount_bits=16 a
    message_has 'Cannot downgrade an image with persistent bitmaps'
    [ "$(hash_of a)" = "$was" ]
    must qcow2 snapshot -d s a
    must qcow2 io -c 'write -q 40M 64k' a
    must qemu-io -c 'write -q 40M 64k' b
    same_bits a b
    clean a
}

@test "convert --bitmaps, as QEMU does it" {
    mkdir theirs ours
    cd theirs
    image_with_bitmaps a
    must oracle bitmap --merge fine a big
    cp a inc
    break_bitmaps inc
    must oracle bitmap --add inc good
    must oracle create -q -f qcow2 -o compat=0.10 v2 64M
    truncate -s 1M r.raw
    must oracle create -q -f qcow2 -b a -F qcow2 top
    must oracle create -q -f qcow2 t 64M
    must oracle bitmap --add t own
    must oracle bitmap --add --disable t owndis
    must oracle create -q -f qcow2 t2 64M
    must oracle bitmap --add t2 fine
    must oracle create -q -f qcow2 t3 70M
    cd "$BATS_TEST_TMPDIR/work"
    cp theirs/* ours/
    local line f
    while read -r line; do
        eval "both convert -O qcow2 $line"
        f=${line##* }
        [ -e ours/"$f" ] || continue
        clean ours/"$f"
        same_bits theirs/"$f" ours/"$f" || fail "$line"
        same theirs/"$f" ours/"$f"
    done <<'EOF'
--bitmaps a x1
--bitmaps -c -o cluster_size=512 a x2
--bitmaps -o cluster_size=2M,lazy_refcounts=on,preallocation=metadata a x3
--bitmaps inc x4
--bitmaps --skip-broken-bitmaps inc x4
--skip-broken-bitmaps inc x5
--bitmaps -f raw r.raw x5
--bitmaps v2 x5
--bitmaps a a x5
--bitmaps top x6
-n --bitmaps a t
EOF
    for line in '-O raw a r' '-O qcow2 -o compat=0.10 a r' '-n -O qcow2 a v2' '-n -O qcow2 a t2' \
        '-n -O qcow2 a t3'; do
        cp ours/t2 was
        eval "both convert --bitmaps $line"
        grep -qE 'Format driver .* does not support bitmaps|already exists|different sizes' ours.said
        same_bytes ours/t2 was # nothing was written in vain
        absent ours/r
    done
}

@test "a copy onto a disk that fails halfway: what was written is recorded" {
    must oracle create -q -f qcow2 t 64M
    must oracle bitmap --add t b0
    must oracle create -q -f qcow2 s 64M
    must qemu-io -c 'write -q -P 5 1M 2M' -c 'write -q -c -P 6 60M 64k' s
    spoil_compressed s
    must_exit 1 qcow2 convert -m 1 -n -O qcow2 s t # in order
    clean t
    must qemu-io -r -c 'read -P 5 1M 2M' t
    bits t | grep -q '^b0 auto 65536 0+'
}

@test "bitmaps that a program ignored are gone, and make room for new ones" {
    image_with_bitmaps a
    imgtool field a autoclear_features 0
    has_bits a
    qcow2 info a >said
    ! grep bitmaps said || fail "still listed"
    must qcow2 bitmap --add a b0
    has_bits a 'b0 auto 65536'
    must oracle check -q -r leaks a
    clean a
    oracle info a | grep -q 'name: b0'
}

@test "no space for another: refused, the others stay" {
    must qcow2 create -q -f qcow2 a 64M
    must qcow2 bitmap --add a one
    must qcow2 io -c 'write -q 0 300k' a
    in_tmpfs 2M bash -c 'cp a small/a && ! dd if=/dev/zero of=small/rest bs=4k status=none &&
        ! qcow2 bitmap --add small/a two && qcow2 io -c "read -q 0 1M" small/a && cp small/a back'
    [ "$(cat code)" -eq 0 ] || fail "$(cat err)"
    [ "$(grep -c '^qcow2: .*bitmap.*No space left on device' err)" -eq 1 ] || fail "$(cat err)"
    must oracle check -r leaks back
    has_bits back 'one auto 65536 0+327680'
    same back a
}

@test "directories and tables of nonsense: no write is let through, nothing is lost" {
    local field value was
    image_with_bitmaps good cluster_size=4k
    # 0: the first entry of the first bitmap's table
    while read -r field value; do
        cp good a
        imgtool bitmap a 0 "$field" "$value"
        was=$(hash_of a)
        one_error 1 qcow2 io -c 'write 0 1k' a || fail "$field $value"
        message_has '[Bb]itmap' 'open'
        one_error 1 qcow2 bitmap --add a another || fail "$field $value"
        [ "$(hash_of a)" = "$was" ]
        must qcow2 convert -O raw a a.raw
    done <<'EOF'
table_offset 0
table_offset 0x00ffffffffff0000
table_offset 0x10200
table_size 0
table_size 2
table_size 0x8000000
table_size 0xffffffff
flags 8
type 2
granularity 8
granularity 32
name_size 0
name_size 0xffff
extra_size 1
extra_size 0xffffffff
0 0x10200
0 0x10001
0 0xff00000000010000
0 0x00ffffffffff0000
EOF
    # Two of one name.
    must oracle create -q -f qcow2 a 64M
    must qcow2 bitmap --add a x
    must qcow2 bitmap --add a y
    cp a b
    imgtool poke a $(($(imgtool bitmap a 1 table_offset --where) + 24)) 78
    one_error 1 qcow2 io -c 'write 0 1k' a
    message_has 'Bitmap already exists: x'
    must qcow2 io -c 'write 0 1k' b
}
