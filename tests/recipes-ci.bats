#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The recipes for pipelines: scripts/examples, and the jobs that call them.

load helpers

setup() {
    q2_setup
    recipes=$BATS_TEST_DIRNAME/../scripts/examples
    PATH=$recipes:$PATH
    head -c 1M /dev/urandom >disk.raw
    truncate -s 16M disk.raw
    qcow2 convert -O qcow2 disk.raw disk.qcow2
    mkdir store
}

nothing_else_in() { # FOLDER NAME...
    local folder=$1
    shift
    [ "$(cd "$folder" && find . -type f | LC_ALL=C sort)" = "$(printf './%s\n' "$@")" ] ||
        fail "$folder holds: $(ls -A "$folder")"
}

leak() { # FILE
    qcow2 io -c 'write 8M 64k' "$1" >/dev/null
    imgtool l2 "$1" 8M 0
}

@test "gate-upload: a sound image goes into the store as it is, and nothing replaces it" {
    must gate-upload disk.qcow2 store/vm.qcow2 --max-virtual-size 1G
    cmp disk.qcow2 store/vm.qcow2
    qcow2 convert -c -O qcow2 disk.raw other.qcow2
    must_exit 1 gate-upload other.qcow2 store/vm.qcow2
    cmp disk.qcow2 store/vm.qcow2
    [ "$(find store -type f | wc -l)" -eq 1 ]
    [ "$(stat -c %a store/vm.qcow2)" = 444 ]
}

@test "gate-upload: what vet rejects stays out, and the reasons are told" {
    echo secret >private
    qcow2 create -q -f qcow2 -b "$PWD/private" -F raw -u spy.qcow2 1M
    run --separate-stderr gate-upload spy.qcow2 store/vm.qcow2
    [ "$status" -eq 2 ]
    [ "$(jq -r '.reasons[].id' <<<"$output")" = backing-file ]
    run --separate-stderr gate-upload disk.qcow2 store/vm.qcow2 --max-virtual-size 1M
    [ "$status" -eq 2 ]
    [ "$(jq -r '.reasons[].id' <<<"$output")" = virtual-size ]
    must_exit 2 gate-upload disk.raw store/vm.qcow2
    [ -z "$(ls -A store)" ]
}

@test "gate-upload: pipes, links and missing files are no uploads" {
    mkfifo pipe
    ln -s disk.qcow2 link
    for upload in pipe link missing store; do
        must_exit 1 gate-upload "$upload" store/vm.qcow2
    done
    must_exit 1 gate-upload disk.qcow2
    must_exit 1 gate-upload disk.qcow2 missing/vm.qcow2
    must_exit 1 gate-upload disk.qcow2 store/vm.qcow2 --no-such-option
    [ -z "$(ls -A store)" ]
}

@test "check-images: sound images pass; a leak, a corruption, a file that is none fail" {
    mkdir -p images/deep
    cp disk.qcow2 'images/a b.qcow2'
    cp disk.qcow2 images/deep/c.qcow2
    run check-images -r reports images
    [ "$status" -eq 0 ]
    [ "${lines[-1]}" = '2 images, 0 not sound' ]
    nothing_else_in reports 'images_a b.qcow2.json' images_deep_c.qcow2.json
    [ "$(jq '."check-errors"' 'reports/images_a b.qcow2.json')" -eq 0 ]

    leak images/deep/c.qcow2
    run check-images images
    [ "$status" -eq 1 ]
    [ "${lines[1]}" = 'LEAKS    images/deep/c.qcow2' ]
    [ "${lines[-1]}" = '2 images, 1 not sound' ]

    imgtool refcount disk.qcow2 0 0
    cp disk.raw noise.qcow2
    run check-images disk.qcow2 noise.qcow2 missing.qcow2 images/'a b.qcow2'
    [ "$status" -eq 1 ]
    [ "$(grep -c '^CORRUPT  disk.qcow2$' <<<"$output")" -eq 1 ]
    [ "$(grep -c '^FAILED ' <<<"$output")" -eq 2 ]
    [ "$(grep -c '^ok ' <<<"$output")" -eq 1 ]

    mkdir empty
    must_exit 1 check-images empty
    must_exit 1 check-images
}

@test "compact-image: the same disk, in less space, sound, bitmaps kept" {
    qcow2 io -c 'write -P 1 8M 4M' -c 'write -z 8M 2M' disk.qcow2 >/dev/null
    qcow2 bitmap --add disk.qcow2 backup
    chmod 640 disk.qcow2
    qcow2 convert -O raw disk.qcow2 before.raw
    size=$(stat -c %s disk.qcow2)
    must compact-image disk.qcow2 -o compression_type=zstd
    oracle compare -q before.raw disk.qcow2
    oracle check -q disk.qcow2
    (($(stat -c %s disk.qcow2) < size - (3 << 20)))
    [ "$(stat -c %a disk.qcow2)" = 640 ]
    [ "$(qcow2 info --output=json disk.qcow2 |
        jq -r '."format-specific".data.bitmaps[].name')" = backup ]
    [ "$(find . -name 'disk.qcow2.*' | wc -l)" -eq 0 ]
}

@test "compact-image: an image that would lose something stays as it is" {
    qcow2 snapshot -c one disk.qcow2
    cp disk.qcow2 leaky.qcow2
    qcow2 snapshot -d one leaky.qcow2
    leak leaky.qcow2
    ln -s disk.qcow2 link.qcow2
    before=$(hash_of disk.qcow2 leaky.qcow2)
    for image in disk.qcow2 leaky.qcow2 link.qcow2 missing.qcow2 disk.raw; do
        must_exit 1 compact-image "$image"
    done
    [ "$(hash_of disk.qcow2 leaky.qcow2)" = "$before" ]
    [ "$(find . -name '*.qcow2.*' | wc -l)" -eq 0 ]
}

# The commands of a job as its file has them.
commands_of() { # FILE
    case $1 in
    gitlab*) sed -n 's/^    - \(.*\)/\1/p' "$recipes/$1" ;;
    github*) sed -n 's/^          \([a-z].*\)/\1/p' "$recipes/$1" | grep -v '^name:\|^path:' ;;
    esac
}

@test "the jobs run as they are written, and fail on a leak" {
    for file in gitlab-ci.yml github-actions.yml; do
        rm -rf images reports
        commands_of "$file" >job
        [ "$(wc -l <job)" -eq 5 ]
        must bash -e job
        [ -s reports/images_disk.qcow2.json ]
        sed 's/^check-images/leak images\/disk.qcow2; &/' job >broken
        export -f leak imgtool
        must_exit 1 bash -e broken
    done
}
