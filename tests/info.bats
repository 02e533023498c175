#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# info: all that the recorded sessions do not show.

load helpers

setup() {
    q2_setup
}

# QEMU 7.2 prints the same, but has no child nodes yet, nor detached LUKS headers.
without_children() {
    sed -e '/^Child node/,/^    disk size/d' -e '/^ *detached header: false$/d'
}

json_without_children() {
    python3 -c '
import json, sys
def strip(v):
    if isinstance(v, list):
        return [strip(x) for x in v]
    if isinstance(v, dict):
        return {k: strip(x) for k, x in v.items() if k not in ("children", "detached-header")}
    return v
print(json.dumps(strip(json.load(sys.stdin)), indent=1))'
}

info_like_qemu() {
    settle
    diff <(oracle info "$@") <(qemu-img info "$@" | without_children) || return 1
    diff <(oracle info --output=json "$@" | json_without_children) \
        <(qemu-img info --output=json "$@" | json_without_children)
}

@test "the masked numbers are right: space on disk, length in sectors" {
    transcript_images
    with_snapshots
    head -c 1001 /dev/urandom >odd.raw
    truncate -s 5G sparse.raw
    local image length used
    for image in a.qcow2 b.qcow2 df.qcow2 bm.qcow2 r.raw odd.raw sparse.raw; do
        echo "$image"
        used=$(disk_bytes "$image")
        length=$((($(stat -c %s "$image") + 511) / 512 * 512))
        qemu-img info --output=json "$image" >json
        [ "$(json_value '["actual-size"]' <json)" -eq "$used" ]
        [ "$(json_value '["children"][0]["info"]["actual-size"]' <json)" -eq "$used" ]
        [ "$(json_value '["children"][0]["info"]["virtual-size"]' <json)" -eq "$length" ]
        qemu-img info "$image" >human
        grep -q "^    file length: .* ($length bytes)\$" human
        [ "$(grep -c "^ *disk size: " human)" -eq 2 ]
        [ "$(sed -n 's/^disk size: //p' human)" = "$(sed -n 's/^    disk size: //p' human)" ]
        [ "$(sed -n 's/^disk size: //p' human)" = \
            "$(oracle info "$image" | sed -n 's/^disk size: //p')" ]
    done
}

@test "the date of a snapshot is local time, and its JSON is the image's" {
    must oracle create -f qcow2 s.qcow2 1M
    must oracle snapshot -c first s.qcow2
    local seconds
    seconds=$(oracle info --output=json s.qcow2 | json_value '["snapshots"][0]["date-sec"]')
    [ "$(qemu-img info --output=json s.qcow2 | json_value '["snapshots"][0]["date-sec"]')" = \
        "$seconds" ]
    [ "$(qemu-img info --output=json s.qcow2 | json_value '["snapshots"][0]["date-nsec"]')" = \
        "$(oracle info --output=json s.qcow2 | json_value '["snapshots"][0]["date-nsec"]')" ]
    local zone
    for zone in UTC JST-9 NST3:30; do
        TZ=$zone qemu-img info s.qcow2 |
            grep -qF "0 B $(TZ=$zone date -d "@$seconds" '+%Y-%m-%d %H:%M:%S')  0000:00:00.000"
    done
}

@test "snapshots with long names, ids and strange characters" {
    must oracle create -f qcow2 s.qcow2 1M
    local name
    for name in x 'with space' 'äöü' 'quo"te' 'back\slash' "$(printf 'n%.0s' {1..200})" \
        $'tab\there'; do
        must oracle snapshot -c "$name" s.qcow2
    done
    diff <(oracle info --output=json s.qcow2 | json_without_children) \
        <(qemu-img info --output=json s.qcow2 | json_without_children)
    qemu-img info s.qcow2 | grep -q "$(printf 'n%.0s' {1..200})"
    [ "$(qemu-img info s.qcow2 | grep -c '  0000:00:00.000 ')" -eq 7 ]
}

@test "images of all kinds, as QEMU prints them but for child nodes" {
    transcript_images
    luks_image luks.qcow2
    local image
    for image in a.qcow2 b.qcow2 v2.qcow2 ext.qcow2 z.qcow2 df.qcow2 over.qcow2 orphan.qcow2 \
        r.raw bm.qcow2 luks.qcow2 aes.qcow2; do
        info_like_qemu "$image"
    done
    must oracle bitmap --add -g 512 bm.qcow2 second
    must oracle bitmap --add --disable -g 2G bm.qcow2 third
    info_like_qemu bm.qcow2
}

@test "virtual sizes in people's units" {
    local size
    for size in 0 512 1536 999k 1000k 1001k 1023k 1M 10239k 1234567M 999M 1000M 1023M 1.5T \
        100G 8190T 1P; do
        rm -f s.raw
        truncate -s 0 s.qcow2
        must oracle create -f qcow2 -o cluster_size=2M s.qcow2 "$size"
        info_like_qemu s.qcow2
    done
}

@test "raw and empty files, and files of odd length" {
    local size
    for size in 0 1 511 512 513 1000000; do
        head -c "$size" /dev/urandom >f.img
        info_like_qemu f.img
        info_like_qemu -f raw f.img
    done
    must_exit 1 qemu-img info -f qcow2 f.img
}

@test "a qcow2 image looked at as raw" {
    must oracle create -f qcow2 a.qcow2 1M
    info_like_qemu -f raw a.qcow2
}

@test "names of folders, in absolute and relative paths" {
    mkdir -p d/e
    must oracle create -f qcow2 d/base.qcow2 1M
    (cd d/e && must oracle create -f qcow2 -b ../base.qcow2 -F qcow2 over.qcow2)
    info_like_qemu d/e/over.qcow2
    info_like_qemu --backing-chain d/e/over.qcow2
    info_like_qemu "$PWD/d/e/over.qcow2"
    info_like_qemu --backing-chain "$PWD/d/e/over.qcow2"
    (cd d/e && must oracle create -f qcow2 -b "$PWD/../base.qcow2" -F qcow2 abs.qcow2)
    info_like_qemu --backing-chain d/e/abs.qcow2
}

@test "a chain with a raw base and without stored formats" {
    truncate -s 1M base.raw
    must oracle create -f qcow2 -b base.raw -F raw mid.qcow2
    must oracle create -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2
    info_like_qemu --backing-chain top.qcow2
    imgtool extension mid.qcow2 backing_format --type 0x12345678
    imgtool extension top.qcow2 backing_format --type 0x12345678
    info_like_qemu top.qcow2
    info_like_qemu --backing-chain top.qcow2
}

@test "a chain that bites its tail" {
    must oracle create -f qcow2 -u -b b.qcow2 -F qcow2 a.qcow2 1M
    must oracle create -f qcow2 -u -b a.qcow2 -F qcow2 b.qcow2 1M
    must qemu-img info a.qcow2
    run -1 --separate-stderr timeout 300 qemu-img info --backing-chain a.qcow2
    [[ $stderr == "qemu-img: Backing file 'a.qcow2' creates an infinite loop." ]]
}

@test "unknown header extensions, header fields and feature bits are no obstacle" {
    must oracle create -f qcow2 -b r.raw -u -F raw a.qcow2 1M
    cp a.qcow2 ref.qcow2
    imgtool field a.qcow2 compatible_features 0xfffffffffffffffe
    imgtool field a.qcow2 autoclear_features 0xfffffffffffffffc
    imgtool extension a.qcow2 feature_table --type 0x5eed5eed
    diff <(qemu-img info a.qcow2) <(qemu-img info ref.qcow2 | sed s/ref.qcow2/a.qcow2/)
}

@test "an unknown incompatible feature is named by the image's own table" {
    must oracle create -f qcow2 a.qcow2 1M
    # The first entry of the table (type 0, bit 0: dirty) gets another bit and name.
    imgtool extension a.qcow2 feature_table \
        --data "0030$(printf 'shiny new thing' | od -An -tx1 | tr -d ' \n')00"
    imgtool field a.qcow2 incompatible_features 0x1000000000000
    one_error 1 qemu-img info a.qcow2
    [ "$message" = "qemu-img: Could not open 'a.qcow2': Unsupported qcow2 feature(s): shiny new thing" ]
    imgtool field a.qcow2 incompatible_features 0x1000000000100
    one_error 1 qemu-img info a.qcow2
    message_has 'shiny new thing' 'Unknown incompatible feature: 100$'
}

@test "the dirty bit is shown" {
    must oracle create -f qcow2 -o lazy_refcounts=on a.qcow2 1M
    imgtool field a.qcow2 incompatible_features 1
    info_like_qemu a.qcow2
    [ "$(qemu-img info --output=json a.qcow2 | json_value '["dirty-flag"]')" = True ]
}

@test "info changes nothing and opens no other file" {
    mkfifo trap
    must oracle create -f qcow2 -u -b trap -F raw over.qcow2 1M
    local before
    before=$(hash_of over.qcow2)
    # Opening the FIFO would wait for a writer that never comes.
    must timeout 300 qemu-img info over.qcow2
    must timeout 300 qemu-img info --output=json over.qcow2
    [ "$(hash_of over.qcow2)" = "$before" ]
}

@test "folders, missing files and formats that are none" {
    mkdir folder
    one_error 1 qemu-img info folder
    message_has "Could not open 'folder'"
    truncate -s 1M r.raw
    one_error 1 qemu-img info -f nosuch r.raw
    [ "$message" = "qemu-img: Could not open 'r.raw': Unknown driver 'nosuch'" ]
    one_error 1 qemu-img info ''
    run -1 --separate-stderr qemu-img info --output=xml folder
    [ "${stderr_lines[0]}" = "qemu-img: --output expects 'human' or 'json', not 'xml'" ]
}

@test "a cache mode is taken, a wrong one and --limits are refused" {
    must oracle create -f qcow2 a.qcow2 1M
    [ "$(qemu-img info -t none a.qcow2)" = "$(qemu-img info a.qcow2)" ]
    one_error 1 qemu-img info -t never a.qcow2
    message_has 'cache'
    one_error 1 qemu-img info --limits a.qcow2
    message_has "QEMU's block drivers"
}
