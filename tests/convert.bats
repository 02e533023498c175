#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# convert: what it refuses; its options. That what it writes is right is shown in
# read-qemu.bats and write-qcow2.bats.

load helpers

setup() {
    q2_setup
}

# No output, no target: a refusal with one line that says why.
refused() { # PART-OF-MESSAGE ARGUMENTS
    local part=$1
    shift
    one_error 1 qemu-img convert "$@" || return 1
    message_has "$part" || return 1
    absent x
}

@test "refusals: one line, no target" {
    imgtool fill a.raw 1M --seed 1
    must oracle convert -O qcow2 a.raw a.qcow2
    must oracle create -f qcow2 -b a.qcow2 -F qcow2 over.qcow2
    refused "Could not open 'a.raw': Unknown driver 'nosuch'" -f nosuch -O qcow2 a.raw x
    refused 'Cluster size must be a power of two between 512 and 2048k' -O qcow2 \
        -o cluster_size=1000 a.raw x
    refused "Invalid parameter 'nosuch'" -O qcow2 -o nosuch=on a.raw x
    refused "Parameter 'preallocation' does not accept value 'bogus'" -O qcow2 \
        -o preallocation=bogus a.raw x
    refused 'Lazy refcounts only supported with compatibility level 1.1' -O qcow2 \
        -o compat=0.10,lazy_refcounts=on a.raw x
    refused 'missing' -O qcow2 -B missing -F raw a.raw x
    refused 'not in qcow2 format' -f qcow2 -O raw a.raw x
    refused 'snapshot' -l one -O raw a.raw x
    refused 'sparse' -S 1000 -O raw a.raw x
    refused 'copy offloading' -C -c -O qcow2 a.raw x
    refused 'copy offloading' -C -S 4k -O raw a.raw x
    refused 'Use of backing file requires explicit backing format' -B a.qcow2 -O qcow2 a.raw x
    refused 'sparse' -S 12345x -O raw a.raw x
    refused 'cache' -t nosuch -O raw a.raw x
    refused 'cache' -T nosuch -O raw a.raw x
    refused 'rate' -r nosuch -O raw a.raw x
    refused 'coroutines|threads|-m' -m 0 -O raw a.raw x
    refused 'coroutines|threads|-m' -m 99 -O raw a.raw x
    refused 'missing' a.raw missing x
}

@test "-n: the target must be there and be large enough" {
    imgtool fill a.raw 2M --seed 2
    one_error 1 qemu-img convert -n -O qcow2 a.raw missing
    [ "$message" = "qemu-img: Could not open 'missing': Could not open 'missing': No such file or directory" ]
    absent missing
    local format before
    for format in raw qcow2; do
        must oracle create -f $format small 1M
        before=$(hash_of small)
        one_error 1 qemu-img convert -n -O $format a.raw small
        [ "$message" = 'qemu-img: output file is smaller than input file' ]
        [ "$(hash_of small)" = "$before" ]
        rm small
    done
    must oracle create -f raw plain 2M
    must_exit 1 qemu-img convert -n -O qcow2 a.raw plain
    # What is meant for a new image is not silently forgotten.
    must oracle create -f qcow2 t.qcow2 2M
    one_error 1 qemu-img convert -n -o cluster_size=4k -O qcow2 a.raw t.qcow2
    [ "$message" = 'qemu-img: -o has no effect when skipping image creation' ]
}

@test "--target-is-zero wants -n" {
    truncate -s 1M a.raw
    refused 'target-is-zero' --target-is-zero -O qcow2 a.raw x
}

@test "features that are not there yet are refused by name, and nothing is left" {
    transcript_images
    luks_image luks.qcow2
    one_error 1 qemu-img convert -O qcow2 -o encrypt.format=luks a.qcow2 x
    message_has encrypt
    absent x
    # Targets that are there.
    local row before
    for row in luks.qcow2:encrypt aes.qcow2:encrypt; do
        before=$(hash_of "${row%%:*}")
        one_error 1 qemu-img convert -n -O qcow2 r.raw "${row%%:*}"
        message_has "${row%%:*}" "${row#*:}"
        [ "$(hash_of "${row%%:*}")" = "$before" ]
    done
    # Sources whose guest data cannot be read yet.
    for row in luks.qcow2:encrypt aes.qcow2:encrypt; do
        echo "$row"
        one_error 1 qemu-img convert -O raw "${row%%:*}" x
        message_has "${row%%:*}" "${row#*:}"
        absent x
        one_error 1 qemu-img map "${row%%:*}"
        message_has "${row#*:}"
        one_error 2 qemu-img compare "${row%%:*}" a.qcow2
        message_has "${row#*:}"
    done
}

@test "the target must not be one of the sources" {
    imgtool fill a.raw 1M --seed 3
    cp a.raw keep.raw
    ln a.raw hard.raw
    ln -s a.raw soft.raw
    local name
    for name in a.raw ./a.raw hard.raw soft.raw; do
        must_exit 1 qemu-img convert -f raw -O raw a.raw $name
        same_bytes keep.raw a.raw
        must_exit 1 qemu-img convert -f raw -O qcow2 a.raw $name
        same_bytes keep.raw a.raw
    done
    # Nor the backing file of one.
    must oracle create -f qcow2 -b a.raw -F raw over.qcow2
    must_exit 1 qemu-img convert -O raw over.qcow2 a.raw
    same_bytes keep.raw a.raw
}

@test "-p: progress from 0 to 100, never backwards, and a newline at the end" {
    imgtool fill a.raw 24M --seed 4
    local how
    for how in '' -c; do
        run --separate-stderr qemu-img convert -p $how -O qcow2 a.raw x
        [ "$status" -eq 0 ]
        [ -z "$stderr" ]
        qemu-img convert -p $how -O qcow2 a.raw x.qcow2 >progress
        [ "$(tail -c 1 progress)" = '' ]
        tr '\r' '\n' <progress | sed '/^$/d' >lines
        [ "$(head -n 1 lines)" = '    (0.00/100%)' ]
        [ "$(tail -n 1 lines)" = '    (100.00/100%)' ]
        [ "$(grep -cvE '^    \([0-9]+\.[0-9]{2}/100%\)$' lines)" -eq 0 ]
        sed -E 's/[^0-9.]*([0-9.]+)\/.*/\1/' lines >numbers
        sort -c -n numbers
    done
    run --separate-stderr qemu-img convert -p -q -O qcow2 a.raw x
    [ -z "$output$stderr" ]
}

@test "-p: the share of the data, as QEMU tells it, wherever on the disk they lie" {
    local options
    must oracle create -q -f qcow2 a.qcow2 1T
    must qemu-io -c 'write -P 1 0 64k' -c 'write -P 2 1G 640k' -c 'write -P 3 900G 1M' \
        -c 'write -P 4 1023G 100k' -c 'write -z 1000G 1M' a.qcow2
    for options in '' '-o cluster_size=16k'; do
        # shellcheck disable=SC2086
        oracle convert -p -c -O qcow2 $options a.qcow2 x >want
        # shellcheck disable=SC2086
        qemu-img convert -p -c -O qcow2 $options a.qcow2 x >got
        [ "$(tr '\r' '\n' <got | wc -l)" -gt 30 ]
        same_bytes want got
    done
}

@test "a source format that is given is not guessed" {
    # A raw disk whose first bytes a guest made look like an image.
    must oracle create -f qcow2 evil.raw 1M
    local length
    length=$(stat -c %s evil.raw)
    must qemu-img convert -f raw -O raw evil.raw got.raw
    [ "$(stat -c %s got.raw)" -eq $(((length + 511) / 512 * 512)) ]
    must cmp -n "$length" evil.raw got.raw
    must qemu-img convert -O raw evil.raw got.raw
    [ "$(stat -c %s got.raw)" -eq 1048576 ]
}

@test "-U and --salvage change nothing on a good image" {
    imgtool fill a.raw 3M --seed 5
    must oracle convert -O qcow2 a.raw a.qcow2
    must qemu-img convert -U -O raw a.qcow2 got.raw
    same_bytes a.raw got.raw
    must qemu-img convert --salvage -O raw a.qcow2 got.raw
    same_bytes a.raw got.raw
}

@test "targets that cannot hold an image" {
    imgtool fill a.raw 1M --seed 6
    must_exit 1 qemu-img convert -O qcow2 a.raw /dev/null
    mkdir folder
    must_exit 1 qemu-img convert -O qcow2 a.raw folder
    [ -d folder ]
    one_error 1 qemu-img convert -O qcow2 a.raw no/such/folder/x
    message_has 'no/such/folder/x'
}

@test "-l with a name that two snapshots could mean takes the id first, as QEMU does" {
    must oracle create -f qcow2 s.qcow2 1M
    local i
    for i in 3 1 2; do
        must qemu-io -c "write -P $i 0 64k" s.qcow2
        must oracle snapshot -c "$i" s.qcow2
    done
    for i in 1 2 3; do
        must oracle convert -O raw -l "$i" s.qcow2 want.raw
        must qemu-img convert -O raw -l "$i" s.qcow2 got.raw
        same_bytes want.raw got.raw
        must oracle convert -O raw -l "snapshot.name=$i" s.qcow2 want.raw
        must qemu-img convert -O raw -l "snapshot.name=$i" s.qcow2 got.raw
        same_bytes want.raw got.raw
    done
    one_error 1 qemu-img convert -O raw -l snapshot.id=1,snapshot.name=none s.qcow2 x
    absent x
}

@test "levels of compression: the same disk, smaller or larger, whatever the number of threads" {
    local level type small fast theirs
    cat "$TEST_SRCDIR"/*.bats "$TEST_SRCDIR"/tools/* >words
    truncate -s 2M words
    must oracle convert -c -f raw -O qcow2 words theirs.qcow2
    must "$QCOW2" convert -c -f raw -O qcow2 words ours.qcow2
    theirs=$(stat -c %s theirs.qcow2) # a thousandth depends on what is in it
    (($(stat -c %s ours.qcow2) <= theirs + theirs / 500))
    for type in zlib zstd; do
        for level in 1 9 fast best; do
            must "$QCOW2" convert -c -f raw -O qcow2 -m 1 --compression-level "$level" \
                -o "compression_type=$type" words "$level.qcow2"
            must "$QCOW2" convert -c -f raw -O qcow2 -m 3 \
                -o "compression_type=$type,compression_level=$level" words other.qcow2
            cmp "$level.qcow2" other.qcow2
            must oracle compare -f raw -F qcow2 words "$level.qcow2"
            must oracle check "$level.qcow2"
        done
        small=$(stat -c %s best.qcow2)
        fast=$(stat -c %s fast.qcow2)
        ((small < fast && small <= $(stat -c %s 1.qcow2)))
    done
    must oracle convert -O raw fast.qcow2 back
    cmp words back
}

@test "levels of compression that cannot be" {
    truncate -s 1M a.raw
    for level in 0 10 '' slow -1; do
        refused "Invalid compression level '$level': it is fast, best, or 1 to 9" \
            -c -O qcow2 --compression-level="$level" a.raw x
    done
    refused 'A compression level requires use of -c flag' \
        -O qcow2 -o compression_level=1 a.raw x
    refused "Invalid parameter 'compression_level'" -O raw -o compression_level=1 a.raw x
    run "$QCOW2" create -f qcow2 -o compression_level=1 x.qcow2 1M
    [ "$status" -eq 1 ]
    [[ $output == *"Invalid parameter 'compression_level'"* ]]
}
