#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Images with an external data file, raw or not, made by either program and read, written
# and resized by the other.

load helpers

setup() {
    q2_setup
}

# As QEMU maps it, but for what only newer versions print.
map_of() {
    "$1" map --output=json "$2" | sed -e 's/, "compressed": [a-z]*//'
}

same_map() {
    diff <(map_of "$ORACLE" "$1") <(map_of qemu-img "$1") || fail "another map of $1"
}

# The raw data file is what the guest sees.
raw_is_right() { # IMAGE DATA-FILE
    must oracle compare -f qcow2 -F raw "$1" "$2"
    must oracle convert -O raw "$1" seen.raw
    must cmp seen.raw "$2"
}

# The L2 entries of the first megabyte.
entries() {
    local at
    at=$(imgtool l2 --where "$1" 0 2>&1) || { echo "$at" && return; }
    od -An -v -tx1 -w8 -j $((at)) -N 128 "$1"
}

each_kind() { # FUNCTION: with the options of both kinds
    "$1" data_file=d.raw
    rm -f -- *.qcow2 *.raw
    "$1" data_file=d.raw,data_file_raw=on
}

@test "create: the image, its data file, and what is preallocated, as in QEMU" {
    local raw word p size kind row
    for kind in off:false on:true; do
        raw=${kind%:*} word=${kind#*:}
        for row in off:1048576 metadata:1000448 falloc:1048576 full:1000448; do
            p=${row%:*} size=${row#*:}
            rm -f -- *.qcow2 *.raw
            must qemu-img create -q -f qcow2 \
                -o data_file=d.raw,data_file_raw="$raw",preallocation="$p" ours.qcow2 "$size"
            must oracle create -q -f qcow2 \
                -o data_file=e.raw,data_file_raw="$raw",preallocation="$p" theirs.qcow2 "$size"
            clean ours.qcow2
            diff <(entries ours.qcow2) <(entries theirs.qcow2) || fail "another mapping: $row"
            # QEMU's is longer than the disk where that ends inside a cluster.
            [ "$(stat -c %s d.raw)" -eq "$size" ]
            must cmp -n "$size" d.raw e.raw
            case $p in
            falloc | full) [ "$(disk_bytes d.raw)" -ge "$size" ] ;;
            *) takes_at_most d.raw 0 ;;
            esac
            oracle info ours.qcow2 | grep -q 'data file: d.raw'
            oracle info ours.qcow2 | grep -q "data file raw: $word"
        done
    done
}

@test "create: refusals in QEMU's words, and nothing is left" {
    refused() { # MESSAGE OPTIONS [ARGUMENT...]
        local want=$1 options=$2 code=0 theirs
        shift 2
        one_error 1 qemu-img create -q -f qcow2 -o "$options" "$@" x.qcow2 1M
        [ "$message" = "qemu-img: x.qcow2: $want" ] || fail "$message"
        theirs=$(oracle create -q -f qcow2 -o "$options" "$@" x.qcow2 1M 2>&1) || code=$?
        [ "$code" -eq 1 ]
        [ "$theirs" = "$message" ] || fail "$theirs"
        absent x.qcow2 x.raw
    }
    must qemu-img create -q -f qcow2 base.qcow2 1M
    refused 'data-file-raw requires data-file' data_file_raw=on
    refused 'External data files are only supported with compatibility level 1.1 and above (use version=v3 or greater)' \
        data_file=x.raw,compat=0.10
    refused 'Backing file and data-file-raw cannot be used at the same time' \
        data_file=x.raw,data_file_raw=on -b base.qcow2 -F qcow2
    refused "Could not create '': No such file or directory" data_file=
    refused "Could not create 'no/x.raw': No such file or directory" data_file=no/x.raw
    # The image in two places at a time.
    run qemu-img create -q -f qcow2 -o data_file=x.qcow2 x.qcow2 1M
    [ "$status" -eq 1 ]
    [[ $output == *'Failed to get "write" lock'* ]]
    absent x.qcow2
    # What is read through the image must not be emptied for it.
    local before
    before=$(hash_of base.qcow2)
    one_error 1 qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 -o data_file=base.qcow2 x.qcow2
    message_has 'overwrite its own backing file'
    [ "$(hash_of base.qcow2)" = "$before" ]
    absent x.qcow2
    # A protocol is none of ours.
    one_error 1 qemu-img create -q -f qcow2 -o data_file=nbd:localhost:1 x.qcow2 1M
    message_has "Unknown protocol 'nbd'"
    absent x.qcow2 nbd:localhost:1
}

both_write() { # OPTIONS
    local options=$1 i turn
    must qemu-img create -q -f qcow2 -o "$options" ours.qcow2 4M
    must oracle create -q -f qcow2 -o "${options/d.raw/e.raw}" theirs.qcow2 4M
    truncate -s 4M want.raw
    for turn in 1 2; do
        scribble raw want.raw $turn --size 4M --count 25 --no-discard
        for i in ours theirs; do
            scribble qcow2 $i.qcow2 $turn --size 4M --count 25 --no-discard
            same $i.qcow2 want.raw
        done
        imgtool io --seed $((turn + 10)) --data more.$turn --size 4M --count 25 \
            --no-discard >commands
        qemu_io raw want.raw <commands
        for i in ours theirs; do
            must qemu-img io -f qcow2 $i.qcow2 <commands
            clean $i.qcow2
            must qemu-img check $i.qcow2
            same $i.qcow2 want.raw
            must qemu-img compare $i.qcow2 want.raw
            same_map $i.qcow2
            reads_like_qemu $i.qcow2
        done
    done
    case $options in
    *raw=on*)
        raw_is_right ours.qcow2 d.raw
        raw_is_right theirs.qcow2 e.raw
        ;;
    esac
    # Nothing but metadata is in the image: of 64 clusters an L2 table.
    [ "$(stat -c %s ours.qcow2)" -le $((6 * 65536)) ]
}

@test "both programs write in turn" {
    each_kind both_write
}

zeros_and_discards() { # OPTIONS
    local i how
    must qemu-img create -q -f qcow2 -o "$1" ours.qcow2 1M
    must oracle create -q -f qcow2 -o "${1/d.raw/e.raw}" theirs.qcow2 1M
    cp ours.qcow2 fresh.qcow2
    for how in '-d unmap' ''; do
        local commands=(-c 'write -P 1 0 512k' -c 'write -P 2 512k 1k'
            -c 'write -z 64k 64k' -c 'write -z -u 128k 64k' -c 'discard 192k 64k'
            -c 'write -z 300k 90k' -c 'write -z 520k 1k' -c 'discard 400k 70k'
            -c 'write -P 3 210k 1k')
        # shellcheck disable=SC2086
        must qemu-img io $how "${commands[@]}" ours.qcow2
        # shellcheck disable=SC2086
        must qemu-io -f qcow2 $how "${commands[@]}" theirs.qcow2
        same ours.qcow2 theirs.qcow2
        clean ours.qcow2
        case $1 in
        *raw=on*)
            # The mapping stays, so that the raw file is right without it at any time.
            diff <(entries ours.qcow2) <(entries fresh.qcow2) || fail 'the mapping has changed'
            raw_is_right ours.qcow2 d.raw
            ;;
        *) diff <(entries ours.qcow2) <(entries theirs.qcow2) || fail 'another mapping' ;;
        esac
    done
}

@test "zeros and discards: the guest's view, the mapping, and the raw file" {
    each_kind zeros_and_discards
}

@test "a discard gives the data file's space back" {
    local options
    for options in data_file=d.raw data_file=d.raw,data_file_raw=on; do
        rm -f -- *.raw
        must qemu-img create -q -f qcow2 -o $options a.qcow2 4M
        must qemu-img io -c 'write -P 1 0 4M' a.qcow2
        [ "$(disk_bytes d.raw)" -ge 4194304 ]
        must qemu-img io -d unmap -c 'discard 1M 2M' a.qcow2
        takes_at_most d.raw $((2 << 20))
        must qemu-io -f qcow2 -c 'read -P 1 0 1M' -c 'read -P 0 1M 2M' -c 'read -P 1 3M 1M' a.qcow2
    done
}

resizing() { # OPTIONS
    local size words
    must qemu-img create -q -f qcow2 -o "$1" a.qcow2 1M
    must qemu-io -f qcow2 -c 'write -P 1 0 256k' -c 'write -P 2 960k 64k' a.qcow2
    truncate -s 1M want.raw
    must qemu-io -f raw -c 'write -P 1 0 256k' -c 'write -P 2 960k 64k' want.raw
    for size in 3M '--shrink 524800' '--preallocation=metadata 1M' \
        '--preallocation=full 2M' '--preallocation=falloc 3M' '--shrink 200k' +1M; do
        read -ra words <<<"$size"
        must qemu-img resize "${words[@]:0:${#words[@]}-1}" a.qcow2 "${words[-1]}"
        truncate -s "${words[-1]}" want.raw
        clean a.qcow2
        must oracle compare a.qcow2 want.raw
        [ "$(stat -c %s d.raw)" -eq "$(stat -c %s want.raw)" ] || fail "$size: length of the data file"
        case $1 in
        *raw=on*) raw_is_right a.qcow2 d.raw ;;
        esac
        # It is written near its end, and then it grows.
        must qemu-img io -c "write -P 7 $(($(stat -c %s d.raw) - 512)) 512" a.qcow2
        must qemu-io -f raw -c "write -P 7 $(($(stat -c %s d.raw) - 512)) 512" want.raw
    done
    must oracle compare a.qcow2 want.raw
    must qemu-img amend -o size=5M a.qcow2
    [ "$(stat -c %s d.raw)" -eq $((5 * 1024 * 1024)) ]
}

@test "resize: the data file follows the disk" {
    each_kind resizing
}

@test "resize: what lay behind the disk in its data file does not come up" {
    local options
    for options in data_file=d.raw data_file=d.raw,data_file_raw=on; do
        rm -f -- *.raw
        must qemu-img create -q -f qcow2 -o $options a.qcow2 1M
        head -c 1M /dev/zero | tr '\0' U >>d.raw
        must qemu-img resize --preallocation=metadata a.qcow2 3M
        must qemu-io -f qcow2 -c 'read -P 0 0 3M' a.qcow2
        clean a.qcow2
    done
}

@test "commit from one image with a data file into another, and rebase" {
    imgtool fill a.raw 1M --seed 5
    local options
    for options in data_file=d.raw data_file=d.raw,data_file_raw=on; do
        rm -f -- d.raw e.raw *.qcow2
        must qemu-img convert -O qcow2 -o $options a.raw base.qcow2
        must qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 -o data_file=e.raw top.qcow2 2M
        must qemu-io -f qcow2 -c 'write -P 1 0 100k' -c 'write -z 200k 100k' \
            -c 'write -P 3 1500k 10k' top.qcow2
        must oracle convert -O raw top.qcow2 want.raw
        must qemu-img commit top.qcow2
        clean base.qcow2
        clean top.qcow2
        same top.qcow2 want.raw
        same base.qcow2 want.raw
        case $options in *raw=on*) raw_is_right base.qcow2 d.raw ;; esac
        takes_at_most e.raw 0 # the overlay's is empty
        must qemu-img rebase -b '' top.qcow2
        clean top.qcow2
        same top.qcow2 want.raw
    done
}

@test "convert into one, out of one, and onto one" {
    local options
    imgtool fill a.raw 3M --seed 3
    for options in data_file=d.raw data_file=d.raw,data_file_raw=on; do
        rm -f -- d.raw *.qcow2
        must qemu-img convert -O qcow2 -o $options a.raw b.qcow2
        clean b.qcow2
        same b.qcow2 a.raw
        case $options in *raw=on*) same_bytes d.raw a.raw ;; esac
        [ "$(disk_bytes d.raw)" -le $(($(disk_bytes a.raw) + 262144)) ]
        must qemu-img convert -O raw b.qcow2 back.raw
        same_bytes a.raw back.raw
        # A target with other content.
        must qemu-io -f qcow2 -c 'write -P 0x77 0 3M' b.qcow2
        must qemu-img convert -n -O qcow2 a.raw b.qcow2
        clean b.qcow2
        same b.qcow2 a.raw
        case $options in *raw=on*) same_bytes d.raw a.raw ;; esac
    done
    must qemu-img convert -O qcow2 -o data_file=x.raw,data_file_raw=on b.qcow2 c.qcow2
    same_bytes x.raw a.raw
    # The target's data file must not be read for the copy.
    for options in d.raw b.qcow2 a.raw; do
        one_error 1 qemu-img convert -U -O qcow2 -o "data_file=$options" b.qcow2 a.raw y.qcow2
        message_has "'$options' cannot be the target"
        absent y.qcow2
    done
    one_error 1 qemu-img convert -O raw b.qcow2 d.raw
    message_has d.raw
    same b.qcow2 a.raw
}

@test "nothing is compressed" {
    imgtool fill a.raw 1M --seed 3
    one_error 1 qemu-img convert -c -O qcow2 -o data_file=d.raw a.raw b.qcow2
    message_has 'Compression not supported with an external data file'
    absent b.qcow2 d.raw
    must qemu-img create -q -f qcow2 -o data_file=d.raw b.qcow2 1M
    one_error 1 qemu-img convert -n -c -O qcow2 a.raw b.qcow2
    message_has 'Compression not supported with an external data file'
    run qemu-img io -c 'write -c 0 64k' b.qcow2
    [ "$status" -eq 1 ]
    must qemu-io -f qcow2 -c 'read -P 0 0 1M' b.qcow2
    clean b.qcow2
}

@test "a failed conversion leaves neither file" {
    imgtool fill a.raw 1M --seed 3
    must qemu-img convert -c -O qcow2 a.raw c.qcow2
    spoil_compressed c.qcow2
    one_error 1 qemu-img convert -O qcow2 -o data_file=d.raw c.qcow2 b.qcow2
    absent b.qcow2 d.raw
}

@test "over a backing file, and as a backing file" {
    imgtool fill a.raw 1M --seed 5
    must oracle convert -O qcow2 a.raw base.qcow2
    must qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 -o data_file=d.raw mid.qcow2 2M
    must qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 -o data_file=e.raw top.qcow2
    truncate -s 2M a.raw
    imgtool io --seed 6 --data more --size 2M --count 10 --no-discard >commands
    qemu_io raw a.raw <commands
    must qemu-img io -f qcow2 mid.qcow2 <commands
    same mid.qcow2 a.raw
    imgtool io --seed 7 --data more --size 2M --count 10 --no-discard >commands
    qemu_io raw a.raw <commands
    must qemu-img io -f qcow2 top.qcow2 <commands
    same top.qcow2 a.raw
    must qemu-img compare top.qcow2 a.raw
    clean top.qcow2
    clean mid.qcow2
    same_map top.qcow2
    # One that is missing below.
    rm d.raw
    one_error 1 qemu-img convert -O raw top.qcow2 x
    [ "$message" = "qemu-img: Could not open 'top.qcow2': Could not open backing file: Could not open 'd.raw': No such file or directory" ]
}

@test "a missing data file is one error, of those commands that need it" {
    must qemu-img create -q -f qcow2 -o data_file=d.raw a.qcow2 1M
    must qemu-img io -c 'write -P 1 0 1M' a.qcow2
    rm d.raw
    local command words
    for command in 'map a.qcow2' 'convert -O raw a.qcow2 x' 'resize a.qcow2 +1M'; do
        read -ra words <<<"$command"
        one_error 1 qemu-img "${words[@]}"
        [ "$message" = "qemu-img: Could not open 'a.qcow2': Could not open 'd.raw': No such file or directory" ] ||
            fail "$message"
    done
    one_error 1 qemu-img io -c 'read 0 512' a.qcow2
    message_has "Could not open 'd.raw': No such file or directory"
    one_error 2 qemu-img compare a.qcow2 a.qcow2
    message_has d.raw
    # These do not look at the guest's data.
    qemu-img info a.qcow2 | grep -q 'data file: d.raw'
    must qemu-img check a.qcow2
    must qemu-img snapshot -l a.qcow2
    must qemu-img amend -o data_file=e.raw a.qcow2
    qemu-img info a.qcow2 | grep -q 'data file: e.raw'
    must qemu-img amend -o data_file= a.qcow2
    one_error 1 qemu-img map a.qcow2
    [ "$message" = "qemu-img: Could not open 'a.qcow2': 'data-file' is required for this image" ]
}

@test "a name in an image is a path, and nothing else" {
    local name
    must qemu-img create -q -f qcow2 -o data_file=d.raw a.qcow2 1M
    for name in nbd:unix:x json:{} 'fat:rw:.' a.qcow2; do
        must qemu-img amend -o "data_file=$name" a.qcow2
        one_error 1 qemu-img map a.qcow2
        message_has a.qcow2
    done
    must qemu-img amend -o "data_file=file:d.raw" a.qcow2
    must qemu-img io -c 'write -P 1 0 64k' a.qcow2
    [ "$(head -c 1 d.raw)" = $'\1' ]
}

@test "data-file of --image-opts and of json: stands for the name in the image" {
    must qemu-img create -q -f qcow2 -o data_file=d.raw a.qcow2 1M
    must qemu-img create -q -f qcow2 p.qcow2 1M
    truncate -s 1M o.raw
    local o=driver=qcow2,file.filename=a.qcow2
    must qemu-img io --image-opts -c 'write -P 5 0 64k' $o,data-file.filename=o.raw
    [ "$(head -c 1 o.raw)" = $'\5' ]
    takes_at_most d.raw 0
    must qemu-img io -r -c 'read -P 0 0 64k' 'json:{"driver":"qcow2","data-file":null,
        "file":{"driver":"file","filename":"a.qcow2"}}'
    MASK_ALSO='s/, "compressed": false//' replay <<'EOF'
$ qemu-img map --image-opts driver=qcow2,file.filename=a.qcow2,data-file.filename=o.raw
Offset          Length          Mapped to       File
0               0x10000         0               o.raw
[exit 0]
$ qemu-img map --output=json 'json:{"driver":"qcow2","file":{"driver":"file","filename":"a.qcow2"},"data-file":{"driver":"raw","file":{"driver":"file","filename":"o.raw"}}}'
[{ "start": 0, "length": 65536, "depth": 0, "present": true, "zero": false, "data": true, "offset": 0},
{ "start": 65536, "length": 983040, "depth": 0, "present": false, "zero": true, "data": false}]
[exit 0]
$ qemu-img map 'json:{"driver":"qcow2","file":{"driver":"file","filename":"a.qcow2"},"data-file":"o.raw"}'
stderr: qemu-img: Could not open 'json:{"driver":"qcow2","file":{"driver":"file","filename":"a.qcow2"},"data-file":"o.raw"}': Cannot find device='o.raw' nor node-name='o.raw'
[exit 1]
$ qemu-img map --image-opts driver=qcow2,file.filename=p.qcow2,data-file.filename=o.raw
stderr: qemu-img: Could not open 'driver=qcow2,file.filename=p.qcow2,data-file.filename=o.raw': 'data-file' can only be set for images with an external data file
[exit 1]
$ qemu-img map --image-opts driver=qcow2,file.filename=a.qcow2,data-file.driver=file
stderr: qemu-img: Could not open 'driver=qcow2,file.filename=a.qcow2,data-file.driver=file': The 'file' block driver requires a file name
[exit 1]
$ qemu-img map --image-opts driver=qcow2,file.filename=a.qcow2,data-file.filename=missing
stderr: qemu-img: Could not open 'driver=qcow2,file.filename=a.qcow2,data-file.filename=missing': Could not open 'missing': No such file or directory
[exit 1]
$ qemu-img map --image-opts driver=qcow2,file.filename=a.qcow2,data-file.filename=o.raw,data-file.foo=bar
stderr: qemu-img: Could not open 'driver=qcow2,file.filename=a.qcow2,data-file.filename=o.raw,data-file.foo=bar': Block protocol 'file' doesn't support the option 'foo'
[exit 1]
$ qemu-img map --image-opts driver=raw,file.filename=a.qcow2,data-file.filename=o.raw
stderr: qemu-img: Could not open 'driver=raw,file.filename=a.qcow2,data-file.filename=o.raw': Block format 'raw' does not support the option 'data-file.filename'
[exit 1]
EOF
}

@test "snapshots are refused as by QEMU, and nothing changes" {
    must qemu-img create -q -f qcow2 -o data_file=d.raw a.qcow2 1M
    local before
    before=$(hash_of a.qcow2)
    one_error 1 qemu-img snapshot -c x a.qcow2
    message_has "Could not create snapshot 'x': " 'Operation not supported'
    [ "$(hash_of a.qcow2)" = "$before" ]
}

@test "the data file is locked with its image" {
    must qemu-img create -q -f qcow2 -o data_file=d.raw a.qcow2 1M
    mkfifo hold
    "$QCOW2" io a.qcow2 <hold >held 2>&1 3>&- &
    local writer=$!
    exec 9>hold
    echo 'write 0 512' >&9
    wait_until grep -q wrote held
    run qemu-img map -f raw d.raw 9>&-
    [ "$status" -eq 1 ]
    [[ $output == *"Could not open 'd.raw': Failed to get shared \"resize\" lock"* ]]
    must_exit 1 oracle convert -O raw d.raw x 9>&-
    exec 9>&-
    wait "$writer"
    must qemu-img map -f raw d.raw
}

@test "an entry that leads elsewhere in the data file, or is compressed, is damage" {
    local entry
    for entry in 0x8000000000020000 0x4000000000030000; do
        rm -f d.raw
        must qemu-img create -q -f qcow2 -o data_file=d.raw a.qcow2 1M
        must qemu-img io -c 'write -P 1 64k 64k' a.qcow2
        imgtool l2 a.qcow2 64k $entry
        run qemu-img io -r -c 'read 64k 512' a.qcow2
        [ "$status" -eq 1 ]
        must qemu-img io -r -c 'read -P 0 128k 512' a.qcow2
        run qemu-img io -c 'write 64k 512' a.qcow2
        [ "$status" -eq 1 ]
        [ "$(imgtool field a.qcow2 incompatible_features)" -eq $((4 + 2)) ] # marked as corrupt
    done
}

@test "an encrypted data file, even one that is said to be raw" {
    local raw o=driver=qcow2,encrypt.key-secret=s,file.filename=a.qcow2
    local secret=(--object 'secret,id=s,data=passw0rd')
    for raw in off on; do
        rm -f a.qcow2 d.raw
        must qemu-img create -q -f qcow2 "${secret[@]}" -o encrypt.format=luks \
            -o encrypt.key-secret=s,encrypt.iter-time=10 \
            -o data_file=d.raw,data_file_raw=$raw a.qcow2 1M
        must qemu-io "${secret[@]}" --image-opts -c 'write -P 1 0 200k' -c 'read -P 0 512k 64k' $o
        must qemu-img io "${secret[@]}" --image-opts -c 'read -P 1 0 64k' \
            -c 'write -z 1k 1k' -c 'write -z 128k 64k' -c 'write -P 5 300100 9k' \
            -c 'discard 0 64k' $o
        must qemu-io "${secret[@]}" --image-opts -c 'read -P 0 0 64k' -c 'read -P 1 64k 64k' \
            -c 'read -P 0 128k 64k' -c 'read -P 5 300100 9k' -c 'read -P 0 320k 704k' $o
        must oracle check "${secret[@]}" --image-opts $o
        ! grep -q "$(printf '\5\5\5\5\5\5\5\5')" d.raw || fail 'it is not encrypted'
    done
}

@test "lazy refcounts: a writer that dies is repaired by the next" {
    must qemu-img create -q -f qcow2 -o data_file=d.raw,lazy_refcounts=on a.qcow2 8M
    run qemu-img io -c 'write -P 1 0 64k' -c 'write -P 2 7M 64k' -c flush -c abort a.qcow2
    [ "$(imgtool field a.qcow2 incompatible_features)" -eq $((4 + 1)) ]
    qemu-img io -c 'write -P 3 1M 64k' a.qcow2 2>said
    grep -q 'repaired' said
    [ "$(imgtool field a.qcow2 incompatible_features)" -eq 4 ]
    clean a.qcow2
    must qemu-io -f qcow2 -c 'read -P 1 0 64k' -c 'read -P 2 7M 64k' -c 'read -P 3 1M 64k' a.qcow2
}

@test "extended L2 entries in a data file" {
    local options
    for options in data_file=d.raw data_file=d.raw,data_file_raw=on; do
        rm -f d.raw want.raw
        must qemu-img create -q -f qcow2 -o $options,extended_l2=on a.qcow2 2M
        truncate -s 2M want.raw
        imgtool io --seed 31 --data more --size 2M --count 30 --no-discard >commands
        qemu_io raw want.raw <commands
        must qemu-img io -f qcow2 a.qcow2 <commands
        clean a.qcow2
        same a.qcow2 want.raw
        same_map a.qcow2
        scribble raw want.raw 32 --size 2M --count 30 --no-discard
        scribble qcow2 a.qcow2 32 --size 2M --count 30 --no-discard
        must qemu-img compare a.qcow2 want.raw
        case $options in *raw=on*) raw_is_right a.qcow2 d.raw ;; esac
    done
}

@test "caches of all kinds, and a disk that ends inside a cluster" {
    local mode
    imgtool fill a.raw 1000448 --seed 8
    for mode in none directsync writethrough unsafe; do
        must qemu-img convert -t $mode -T none -O qcow2 -o data_file=d.raw,data_file_raw=on \
            a.raw b.qcow2
        same_bytes d.raw a.raw
        must qemu-img convert -T $mode -O raw b.qcow2 c.raw
        same_bytes c.raw a.raw
        must qemu-img io -t $mode -c 'write -P 9 976k 1024' -c 'write -z 1000000 99' b.qcow2
        clean b.qcow2
        raw_is_right b.qcow2 d.raw
        rm b.qcow2 d.raw
    done
}

@test "a data file that does not fit leaves nothing behind" {
    in_tmpfs 2M qemu-img create -q -f qcow2 \
        -o data_file=small/d.raw,preallocation=full small/a.qcow2 8M
    failed_cleanly
    imgtool fill a.raw 4M --seed 2
    in_tmpfs 1M qemu-img convert -O qcow2 -o data_file=small/d.raw a.raw small/a.qcow2
    failed_cleanly
}
