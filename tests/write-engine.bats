#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The write engine through "qcow2 io", with qemu-io and qemu-img as judges: what becomes of
# clusters, dirty and corrupt images, crashes, and images that both programs write in turn.

load helpers

setup() {
    q2_setup
}

io() {
    "$QCOW2" io "$@" >said 2>&1
}

# The first pattern of a byte at each of these places: "PATTERN OFFSET LENGTH" ...
holds() { # IMAGE PLACE...
    local image=$1 place said
    shift
    local -a reads=()
    for place in "$@"; do reads+=(-c "read -P $place"); done
    said=$(qemu-io -r "${reads[@]}" "$image" 2>&1) || fail "$image: $said" || return 1
    [[ $said != *'verification failed'* ]] || fail "$image: $said"
}

sound() { # IMAGE: for QEMU, without a leak
    must oracle check -q "$1"
}

sound_but_for_leaks() { # IMAGE
    local code=0
    oracle check -q "$1" >/dev/null 2>&1 || code=$?
    [ "$code" -eq 0 ] || [ "$code" -eq 3 ] || fail "check: exit $code"
}

features() { # IMAGE: the lowest incompatible feature bits
    od -An -tu1 -j79 -N1 "$1" | tr -d ' '
}

# What a map says aside from where things lie in the file.
shape() {
    oracle map --output=json "$1" | sed -E 's/, "offset": [0-9]+//; s/, "compressed": [a-z]+//'
}

# The commands through both programs, on a copy each of IMAGE.
same_as_qemu() { # IMAGE COMMAND...
    local image=$1 command
    local -a arguments=()
    shift
    for command in "$@"; do arguments+=(-c "$command"); done
    cp "$image" theirs.qcow2
    cp "$image" ours.qcow2
    must qemu-io -d unmap "${arguments[@]}" theirs.qcow2
    must "$QCOW2" io -d unmap "${arguments[@]}" ours.qcow2
    sound ours.qcow2 || return 1
    must oracle compare theirs.qcow2 ours.qcow2
    diff -u <(shape theirs.qcow2) <(shape ours.qcow2) || fail "another shape: $*"
}

@test "discards, zeros, and compressed data make the clusters that QEMU makes" {
    local options
    must imgtool fill base.raw 768k --seed 5
    for options in compat=1.1 compat=0.10 cluster_size=4k lazy_refcounts=on \
        compat=1.1,backing_file=base.raw,backing_fmt=raw; do
        must oracle create -f qcow2 -o "$options" new.qcow2 1M
        echo "$options"
        same_as_qemu new.qcow2 'write -P 1 0 256k' 'discard 32k 128k' 'write -P 2 100k 10k' \
            'discard 0 1M'
        same_as_qemu new.qcow2 'write -P 1 0 256k' 'write -z 64k 64k' 'write -z -u 128k 64k' \
            'write -z 500k 200k' 'write -z -u 10k 20k' 'write -z 800k 100k'
        same_as_qemu new.qcow2 'write -c -P 1 0 64k' 'write -c -P 2 64k 64k' \
            'write -P 3 10k 10k' 'discard 64k 64k' 'write -c -P 5 128k 64k' 'write -z 0 64k'
        same_as_qemu new.qcow2 'write -P 1 0 1M' 'discard 0 1M' 'write -P 2 0 1M' \
            'discard 0 512k' 'write -P 3 256k 512k'
        same_as_qemu new.qcow2 'write -P 1 1000k 24k' 'discard 960k 64k'
    done
}

@test "a discarded range is a hole in the file, if asked for" {
    must oracle create -f qcow2 a.qcow2 16M
    must io -c 'write -P 1 0 8M' a.qcow2
    local full
    full=$(disk_bytes a.qcow2)
    must io -d unmap -c 'discard 0 7M' a.qcow2
    [ "$(disk_bytes a.qcow2)" -le $((full - (6 << 20))) ]
    holds a.qcow2 '0 0 7M' '1 7M 1M'
    sound a.qcow2
}

@test "pass-discard-request decides in place of discard" {
    local full
    must oracle create -f qcow2 a.qcow2 16M
    must io -c 'write -P 1 0 8M' a.qcow2
    cp --sparse=always a.qcow2 b.qcow2
    full=$(disk_bytes a.qcow2)
    must io --image-opts -c 'discard 0 7M' \
        driver=qcow2,discard=unmap,pass-discard-request=off,file.filename=a.qcow2
    [ "$(disk_bytes a.qcow2)" -ge $((full - 65536)) ]
    sound a.qcow2
}

@test "a raw disk loses what is discarded, unless that is ignored" {
    truncate -s 4M a.raw
    must io -f raw -c 'write -P 1 0 4M' a.raw
    must io -f raw -d ignore -c 'discard 0 2M' a.raw
    [ "$(disk_bytes a.raw)" -ge $((4 << 20)) ]
    must io -f raw -d unmap -c 'discard 0 2M' a.raw
    takes_at_most a.raw $((2 << 20))
}

@test "detect-zeroes: written zeros take no space" {
    must oracle create -f qcow2 a.qcow2 16M
    must oracle create -f qcow2 b.qcow2 16M
    must io --image-opts -c 'write -P 1 0 1M' -c 'write -P 0 0 512k' \
        driver=qcow2,discard=unmap,detect-zeroes=unmap,file.filename=a.qcow2
    must qemu-io --image-opts -c 'write -P 1 0 1M' -c 'write -P 0 0 512k' \
        driver=qcow2,discard=unmap,detect-zeroes=unmap,file.filename=b.qcow2
    diff -u <(shape b.qcow2) <(shape a.qcow2)
    holds a.qcow2 '0 0 512k' '1 512k 512k'
    sound a.qcow2
}

@test "a region that is rewritten a hundred times with discards does not grow the file" {
    local i
    must oracle create -f qcow2 a.qcow2 64M
    for i in $(seq 100); do
        printf 'write -P %d 1M 1M\ndiscard 1M 512k\n' $((i % 250 + 1))
    done >commands
    must "$QCOW2" io a.qcow2 <commands
    # The live megabyte, as much again that waits to be freed, metadata.
    [ "$(stat -c %s a.qcow2)" -le $((3 << 20)) ] || fail "$(stat -c %s a.qcow2) bytes"
    sound a.qcow2
    # Compressed clusters, too.
    for i in $(seq 100); do
        for j in 0 1 2 3 4 5 6 7; do
            printf 'write -c -P %d %dk 64k\n' $((i + j)) $((j * 64))
        done
    done >commands
    must "$QCOW2" io a.qcow2 <commands
    [ "$(stat -c %s a.qcow2)" -le $((3 << 20)) ] || fail "$(stat -c %s a.qcow2) bytes"
    sound a.qcow2
}

# A lazy image that was written, flushed, and never closed.
make_dirty() { # IMAGE
    must oracle create -f qcow2 -o lazy_refcounts=on "$1" 16M
    "$QCOW2" io -c 'write -P 7 1M 1M' -c 'write -c -P 8 4M 64k' -c flush -c abort "$1" \
        >said 2>&1 || true
    [ "$(features "$1")" -eq 1 ]
}

@test "a dirty image is read as it is, and not changed by that" {
    local before
    make_dirty a.qcow2
    before=$(hash_of a.qcow2)
    must io -r -c 'read -P 7 1M 1M' a.qcow2
    must oracle compare a.qcow2 a.qcow2
    must "$QCOW2" info a.qcow2
    must "$QCOW2" convert -O raw a.qcow2 a.raw
    [ "$(hash_of a.qcow2)" = "$before" ]
}

@test "a dirty image is repaired before it is written, and that is said in one line" {
    make_dirty a.qcow2
    "$QCOW2" io -c 'write -P 9 8M 64k' a.qcow2 >out 2>err
    [ "$(wc -l <err)" -eq 1 ] || fail "$(cat err)"
    grep -qE "'a.qcow2': image was not closed cleanly: repaired \([0-9]+ leaks, [0-9]+ errors\)$" err ||
        fail "$(cat err)"
    sound a.qcow2
    holds a.qcow2 '7 1M 1M' '8 4M 64k' '9 8M 64k' '0 2M 1M'
    # Clean now: nothing is said again.
    "$QCOW2" io -c 'write -P 9 8M 64k' a.qcow2 >out 2>err
    [ ! -s err ] || fail "$(cat err)"
}

@test "convert -n repairs a dirty target, too" {
    make_dirty a.qcow2
    must imgtool fill new.raw 1M --seed 3
    "$QCOW2" convert -n -O qcow2 new.raw a.qcow2 2>err
    grep -q 'not closed cleanly' err
    sound a.qcow2
    holds a.qcow2 '8 4M 64k'
}

@test "check -r all brings a dirty image back as well" {
    make_dirty a.qcow2
    must_exit 0 "$QCOW2" check -r all a.qcow2
    sound a.qcow2
    holds a.qcow2 '7 1M 1M' '8 4M 64k'
}

@test "a dirty image that cannot be repaired without a loss is not opened for writing" {
    local before
    make_dirty a.qcow2
    # An entry that leads nowhere: what it was is lost.
    must imgtool l2 a.qcow2 16 0x80007fff00000000
    before=$(hash_of a.qcow2)
    one_error 1 "$QCOW2" io -c 'write 0 64k' a.qcow2
    message_has 'marked dirty and cannot be repaired without losing data; run check -r all'
    [ "$(hash_of a.qcow2)" = "$before" ]
}

@test "lazy refcounts for one run, or not" {
    must oracle create -f qcow2 a.qcow2 16M
    "$QCOW2" io --image-opts -c 'write -P 1 0 64k' -c flush -c abort \
        driver=qcow2,lazy-refcounts=on,file.filename=a.qcow2 >said 2>&1 || true
    [ "$(features a.qcow2)" -eq 1 ]
    must oracle create -f qcow2 -o lazy_refcounts=on b.qcow2 16M
    "$QCOW2" io --image-opts -c 'write -P 1 0 64k' -c flush -c abort \
        driver=qcow2,lazy-refcounts=off,file.filename=b.qcow2 >said 2>&1 || true
    [ "$(features b.qcow2)" -eq 0 ]
    sound b.qcow2
    holds b.qcow2 '1 0 64k'
}

# Writes numbered megabytes, each flushed and then reported, until it is killed.
kill_while_writing() { # IMAGE
    local n=0 pid
    rm -f reports commands
    mkfifo commands
    : >reports
    "$QCOW2" io "$1" <commands >reports 2>&1 3>&- &
    pid=$!
    exec 9>commands
    for n in $(seq 1 200); do
        printf 'write -P %d %dk 96k\nflush\ndiscard %dk 64k\nwrite -c -P 3 30M 64k\n' \
            $((n % 250 + 1)) $((n * 128)) $((n * 128 - 64))
    done >&9
    wait_until has_reported 40
    kill -9 "$pid"
    wait "$pid" || true
    exec 9>&-
    # A write was flushed for certain when the next one was answered.
    flushed=$(($(grep -ac 'wrote 98304' reports) - 1))
    [ "$flushed" -ge 10 ]
}

has_reported() { # WRITES
    [ "$(grep -ac 'wrote' reports)" -ge "$1" ]
}

@test "kill -9 loses nothing that was flushed" {
    local options n
    local -a places
    for options in lazy_refcounts=off lazy_refcounts=on compat=0.10; do
        must oracle create -f qcow2 -o "$options" a.qcow2 64M
        kill_while_writing a.qcow2
        cp a.qcow2 b.qcow2
        # Healed by hand, and by writing.
        "$QCOW2" check -r all a.qcow2 >said 2>&1 || fail "$(cat said)"
        must io -c 'write -P 4 60M 64k' b.qcow2
        sound a.qcow2
        sound_but_for_leaks b.qcow2
        places=()
        for ((n = 1; n <= flushed; n++)); do
            # What lies behind may have been discarded since.
            places+=("$((n % 250 + 1)) $((n * 128))k 64k")
        done
        holds a.qcow2 "${places[@]}"
        holds b.qcow2 "${places[@]}"
    done
}

# An image whose first guest cluster lies where metadata does.
misled() { # IMAGE HOST-OFFSET
    must oracle create -f qcow2 "$1" 16M
    must qemu-io -c 'write -P 1 0 128k' "$1"
    imgtool l2 "$1" 0 "$2"
}

@test "a write that would land on metadata marks the image as corrupt, in QEMU's words" {
    local value
    # Refcount table, refcount block, L1 table, L2 table.
    for value in 0x8000000000010000 0x8000000000020000 0x8000000000030000 0x8000000000040000; do
        misled theirs.qcow2 $value
        cp theirs.qcow2 ours.qcow2
        qemu-io -c 'write 0 512' theirs.qcow2 >theirs 2>&1 && fail "QEMU wrote it"
        "$QCOW2" io -c 'write 0 512' ours.qcow2 >ours 2>&1 && fail "it was written"
        diff -u <(grep 'Marking' theirs) <(grep 'Marking' ours)
        must cmp theirs.qcow2 ours.qcow2
        # Nobody writes there any more, but it can be read.
        one_error 1 "$QCOW2" io -c 'write 128k 512' ours.qcow2
        message_has 'qcow2: Image is corrupt; cannot be opened read/write'
        must io -r -c 'read -P 1 64k 64k' ours.qcow2
        must_exit 0 "$QCOW2" check -q -r all ours.qcow2
        must io -c 'write 128k 512' ours.qcow2
        sound ours.qcow2
    done
}

@test "entries that lead between clusters mark the image as corrupt, in QEMU's words" {
    local level value command
    must oracle create -f qcow2 sound.qcow2 16M
    must qemu-io -c 'write -P 1 0 128k' sound.qcow2
    for command in 'write 0 512' 'read 0 512'; do
        for value in 0x8000000000052a00 0x8000000000052a01; do
            for level in l1 l2; do
                cp sound.qcow2 theirs.qcow2
                imgtool $level theirs.qcow2 0 $value
                cp theirs.qcow2 ours.qcow2
                qemu-io -c "$command" theirs.qcow2 >theirs 2>&1 && fail "QEMU did it"
                "$QCOW2" io -c "$command" ours.qcow2 >ours 2>&1 && fail "it was done"
                diff -u <(grep 'Marking' theirs) <(grep 'Marking' ours)
                must cmp theirs.qcow2 ours.qcow2
            done
        done
    done
}

@test "nothing is allocated where the header lies, whatever the refcounts say" {
    local command
    must oracle create -f qcow2 new.qcow2 16M
    imgtool poke new.qcow2 0x20000 0000 # the header's refcount
    for command in 'write 0 512' 'write -c 0 64k'; do
        cp new.qcow2 theirs.qcow2
        cp new.qcow2 ours.qcow2
        qemu-io -c "$command" theirs.qcow2 >theirs 2>&1 && fail "QEMU wrote it"
        "$QCOW2" io -c "$command" ours.qcow2 >ours 2>&1 && fail "it was written"
        diff -u <(grep 'Marking' theirs) <(grep 'Marking' ours)
        must cmp theirs.qcow2 ours.qcow2
    done
}

@test "overlap-check=none writes, all looks at the tables of snapshots, too" {
    local table
    must oracle create -f qcow2 a.qcow2 16M
    must qemu-io -c 'write -P 1 0 64k' a.qcow2
    must oracle snapshot -c one a.qcow2
    must qemu-io -c 'write -P 2 0 64k' a.qcow2
    # The L2 table of the snapshot, as its L1 table says.
    table=$(python3 - a.qcow2 <<'END'
import struct, sys
f = open(sys.argv[1], "rb").read()
snapshots = struct.unpack(">Q", f[64:72])[0]
l1 = struct.unpack(">Q", f[snapshots:snapshots + 8])[0]
print("0x%x" % (struct.unpack(">Q", f[l1:l1 + 8])[0] & 0x00fffffffffffe00 | 1 << 63))
END
    )
    imgtool l2 a.qcow2 0 "$table"
    cp a.qcow2 b.qcow2
    must_exit 1 "$QCOW2" io --image-opts -c 'write 0 512' \
        driver=qcow2,overlap-check=all,file.filename=a.qcow2
    [ "$(features a.qcow2)" -eq 2 ]
    must "$QCOW2" io --image-opts -c 'write -P 5 0 512' \
        driver=qcow2,overlap-check=none,file.filename=b.qcow2
    [ "$(features b.qcow2)" -eq 0 ]
}

@test "bounds of the caches: small ones do, contradictions are refused as QEMU does" {
    local options
    must oracle create -f qcow2 -o cluster_size=512,refcount_bits=64 a.qcow2 4M
    must "$QCOW2" io --image-opts -c 'write -P 1 0 4M' -c 'discard 1M 1M' -c 'write -P 2 100k 2M' \
        driver=qcow2,l2-cache-size=512,refcount-cache-size=2048,file.filename=a.qcow2
    sound a.qcow2
    holds a.qcow2 '1 0 100k' '2 100k 2M' '1 3M 1M'
    for options in cache-size=3M,l2-cache-size=1M,refcount-cache-size=1M \
        cache-size=1M,l2-cache-size=2M cache-size=1M,refcount-cache-size=2M; do
        qemu-io --image-opts -c 'read 0 512' "driver=qcow2,$options,file.filename=a.qcow2" \
            >theirs 2>&1 || true
        "$QCOW2" io --image-opts -c 'read 0 512' \
            "driver=qcow2,$options,file.filename=a.qcow2" >ours 2>&1 && fail "taken: $options"
        grep -qF "$(sed 's/.*: //' theirs)" ours || fail "$(cat theirs ours)"
    done
}

@test "both programs write one image in turn, over a backing file and a snapshot" {
    local version round
    must imgtool fill base.raw 5M --seed 11
    for version in 1.1 0.10; do
        must oracle create -f qcow2 -o "compat=$version,cluster_size=4k" -b base.raw -F raw \
            a.qcow2 8M
        must oracle convert -O raw a.qcow2 model.raw
        for round in $(seq "$(rows 12 4)"); do
            turn "$round"
            [ "$round" -ne 3 ] || must oracle snapshot -c three a.qcow2
        done
        sound a.qcow2
        must oracle compare -f raw -F qcow2 model.raw a.qcow2
    done
}

# The same commands to the image, by one program or the other, and to its model.
turn() { # ROUND
    local at=$((($1 * 55433 + 17) % 7000)) n=$((($1 * 104729) % 900 + 1))
    local -a commands=(-c "write -P $1 ${at}k ${n}k" -c "write -z $((at / 2))k 100k"
        -c "write -P $(($1 + 1)) $((at * 341 + 77)) 12345")
    must qemu-io -f raw "${commands[@]}" model.raw
    if [ $(($1 % 2)) -eq 0 ]; then
        must qemu-io "${commands[@]}" a.qcow2
    else
        must "$QCOW2" io "${commands[@]}" a.qcow2
    fi
    sound a.qcow2
    must oracle compare -f raw -F qcow2 model.raw a.qcow2
}

@test "VM state lies where QEMU looks for it" {
    must oracle create -f qcow2 -o cluster_size=4k a.qcow2 4M
    must io -c 'write -P 1 0 64k' -c 'write -b -P 9 1k 300k' a.qcow2
    sound a.qcow2
    must qemu-io -c 'read -b -P 9 1k 300k' a.qcow2
    holds a.qcow2 '1 0 64k'
    must qemu-io -c 'write -b -P 8 200k 300k' a.qcow2
    must io -r -c 'read -b -P 9 1k 199k' -c 'read -b -P 8 200k 300k' a.qcow2
    [ "$(grep -c failed said)" -eq 0 ]
}
