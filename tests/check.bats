#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# check: every problem found and healed (tests/check), what it prints, and what it promises
# of dry runs, undo, locks and hostile images.

load helpers
load recipes

setup() {
    q2_setup
}

# --- every problem ----------------------------------------------------------------------

@test "each problem has a folder, and each folder is of a problem" {
    [ "$(slugs | wc -l)" -ge 27 ]
    slugs | LC_ALL=C sort >in.table
    (cd "$RECIPES" && ls) | sed 's/\..*//' | LC_ALL=C sort -u >in.tests
    diff -u in.table in.tests
    for folder in "$RECIPES"/*; do
        for file in recipe expect-check expect-repair; do
            [ -s "$folder/$file" ] || fail "$folder has no $file"
        done
    done
}

@test "each problem has a paragraph in the manual, and the manual names no other" {
    local page=$BATS_TEST_DIRNAME/../man/qcow2-check.1
    slugs | LC_ALL=C sort >in.table
    sed -n '/^\.SH PROBLEMS/,/^\.SH EXIT/p' "$page" |
        sed -nE 's/^\.B ([a-z0-9-]+)$/\1/p' >in.page
    LC_ALL=C sort in.page | diff -u in.table -
    # In the order of the table, so that both can be read side by side.
    slugs | diff -u - in.page
}

@test "every problem is found, healed, and the repair can be taken back" {
    run_recipes "$RECIPES"/*
}

# --- what QEMU prints -------------------------------------------------------------------

# The image of the transcripts, as it stood there: one snapshot.
transcript_image() {
    must oracle create -f qcow2 a.qcow2 64M
    must qemu-io -c 'write -P 0x11 0 1M' -c 'write -P 0x22 5M 128k' -c 'write -z 8M 256k' \
        -c 'discard 5M 64k' a.qcow2
    must oracle snapshot -c first a.qcow2
    must qemu-io -c 'write -P 0x44 0 64k' a.qcow2
    must oracle snapshot -c second a.qcow2
    must oracle snapshot -a first a.qcow2
    must oracle snapshot -d second a.qcow2
    must oracle convert -O raw a.qcow2 a.raw
    must oracle convert -l first -O raw a.qcow2 first.raw
}

# Bytes in hexadecimal over a copy of it.
damaged_copy() { # COPY OFFSET BYTES
    cp a.qcow2 "$1"
    imgtool poke "$1" "$2" "$3"
}

good_contents() { # IMAGE
    clean "$1"
    same a.raw "$1"
    must oracle convert -l first -O raw "$1" got.raw
    same_bytes first.raw got.raw
}

@test "QEMU's text: a sound image, a compressed one, other formats, misuse" {
    transcript_image
    must oracle create -f raw r.raw 16M
    must oracle convert -O qcow2 -c a.qcow2 ac.qcow2
    replay <<'END'
$ qemu-img check a.qcow2
No errors were found on the image.
17/1024 = 1.66% allocated, 5.88% fragmented, 0.00% compressed clusters
Image end offset: 1572864
[exit 0]

$ qemu-img check --output=json a.qcow2
{
    "image-end-offset": 1572864,
    "total-clusters": 1024,
    "check-errors": 0,
    "allocated-clusters": 17,
    "filename": "a.qcow2",
    "format": "qcow2",
    "fragmented-clusters": 1
}
[exit 0]

$ qemu-img check r.raw
stderr: qemu-img: This image format does not support checks
[exit 63]

$ qemu-img check missing.qcow2
stderr: qemu-img: Could not open 'missing.qcow2': Could not open 'missing.qcow2': No such file or directory
[exit 1]

$ qemu-img check -r bogus a.qcow2
stderr: qemu-img: --repair (-r) expects 'leaks' or 'all', not 'bogus'
stderr: Try 'qemu-img check --help' for more information
[exit 1]

$ qemu-img check
stderr: qemu-img: Expecting one image file name
stderr: Try 'qemu-img check --help' for more information
[exit 1]

$ qemu-img check -q a.qcow2
[exit 0]

$ qemu-img check ac.qcow2
No errors were found on the image.
17/1024 = 1.66% allocated, 100.00% fragmented, 100.00% compressed clusters
Image end offset: 393216
[exit 0]

$ qemu-img check --output=json ac.qcow2
{
    "image-end-offset": 393216,
    "compressed-clusters": 17,
    "total-clusters": 1024,
    "check-errors": 0,
    "allocated-clusters": 17,
    "filename": "ac.qcow2",
    "format": "qcow2",
    "fragmented-clusters": 17
}
[exit 0]
END
}

@test "QEMU's text: images that say they are dirty or corrupt; a repair clears the marks" {
    local mark how before
    transcript_image
    for mark in 01 02; do
        damaged_copy marked.qcow2 79 $mark
        before=$(hash_of marked.qcow2)
        replay <<'END'
$ qemu-img check marked.qcow2
No errors were found on the image.
17/1024 = 1.66% allocated, 5.88% fragmented, 0.00% compressed clusters
Image end offset: 1572864
[exit 0]
END
        [ "$(hash_of marked.qcow2)" = "$before" ]
        for how in leaks all; do
            damaged_copy marked.qcow2 79 $mark
            replay <<END
$ qemu-img check -r $how marked.qcow2
No errors were found on the image.
17/1024 = 1.66% allocated, 5.88% fragmented, 0.00% compressed clusters
Image end offset: 1572864
[exit 0]
END
            [ "$(imgtool field marked.qcow2 incompatible_features)" -eq 0 ] ||
                fail "mark $mark is still there after -r $how"
            same_bytes a.qcow2 marked.qcow2
        done
    done
}

@test "the marks stay while there is something wrong" {
    transcript_image
    damaged_copy bad.qcow2 131082 0000
    imgtool field bad.qcow2 incompatible_features 3
    must_exit 2 qemu-img check -r leaks bad.qcow2
    [ "$(imgtool field bad.qcow2 incompatible_features)" -eq 3 ]
    must qemu-img check -r all bad.qcow2
    [ "$(imgtool field bad.qcow2 incompatible_features)" -eq 0 ]
    good_contents bad.qcow2
}

@test "QEMU's text: a leak, and its repair" {
    transcript_image
    truncate -s 2686976 a.qcow2
    damaged_copy leak.qcow2 131152 0001
    replay <<'END'
$ qemu-img check leak.qcow2

1 leaked clusters were found on the image.
This means waste of disk space, but no harm to data.
17/1024 = 1.66% allocated, 5.88% fragmented, 0.00% compressed clusters
Image end offset: 2686976
stderr: Leaked cluster 40 refcount=1 reference=0
[exit 3]

$ qemu-img check --output=json leak.qcow2
{
    "image-end-offset": 2686976,
    "total-clusters": 1024,
    "check-errors": 0,
    "leaks": 1,
    "allocated-clusters": 17,
    "filename": "leak.qcow2",
    "format": "qcow2",
    "fragmented-clusters": 1
}
stderr: Leaked cluster 40 refcount=1 reference=0
[exit 3]

$ qemu-img check -r leaks leak.qcow2
The following inconsistencies were found and repaired:

    1 leaked clusters
    0 corruptions

Double checking the fixed image now...
No errors were found on the image.
17/1024 = 1.66% allocated, 5.88% fragmented, 0.00% compressed clusters
Image end offset: 1572864
stderr: Leaked cluster 40 refcount=1 reference=0
stderr: Repairing cluster 40 refcount=1 reference=0
[exit 0]
END
    same_bytes a.qcow2 leak.qcow2
    damaged_copy leak.qcow2 131152 0001
    must_exit 3 qemu-img check -q leak.qcow2
    qemu-img check --output=json -r all leak.qcow2 >json 2>err
    [ "$(json_value '["leaks-fixed"]' <json)" -eq 1 ]
    [ "$(json_value '.get("leaks", 0)' <json)" -eq 0 ]
}

@test "QEMU's text: a refcount that is too low; the repair is shorter than QEMU's" {
    transcript_image
    damaged_copy bad.qcow2 131082 0000
    replay <<'END'
$ qemu-img check bad.qcow2

1 errors were found on the image.
Data may be corrupted, or further writes to the image may corrupt it.
17/1024 = 1.66% allocated, 5.88% fragmented, 0.00% compressed clusters
Image end offset: 1572864
stderr: ERROR cluster 5 refcount=0 reference=2
[exit 2]

$ qemu-img check --output=json bad.qcow2
{
    "image-end-offset": 1572864,
    "total-clusters": 1024,
    "corruptions": 1,
    "check-errors": 0,
    "allocated-clusters": 17,
    "filename": "bad.qcow2",
    "format": "qcow2",
    "fragmented-clusters": 1
}
stderr: ERROR cluster 5 refcount=0 reference=2
[exit 2]
END
    # Leaks there are none, so nothing happens.
    cp bad.qcow2 before.qcow2
    must_exit 2 qemu-img check -r leaks bad.qcow2
    same_bytes before.qcow2 bad.qcow2
    replay <<'END'
$ qemu-img check -r all bad.qcow2
The following inconsistencies were found and repaired:

    0 leaked clusters
    1 corruptions

Double checking the fixed image now...
No errors were found on the image.
17/1024 = 1.66% allocated, 5.88% fragmented, 0.00% compressed clusters
Image end offset: 1572864
stderr: ERROR cluster 5 refcount=0 reference=2
stderr: Repairing cluster 5 refcount=0 reference=2
[exit 0]
END
    # Two bytes changed, two bytes are changed back.
    same_bytes a.qcow2 bad.qcow2
}

@test "QEMU's text: an L2 entry far behind the end; the repair finds the cluster" {
    must oracle create -f qcow2 badl2.qcow2 64M
    must qemu-io -c 'write -P 1 0 256k' badl2.qcow2
    # The first of the two bytes says that the guest's first cluster reads as zeros, as it
    # may.
    imgtool poke badl2.qcow2 262151 01
    cp badl2.qcow2 good.qcow2
    imgtool poke badl2.qcow2 262154 3f
    replay <<'END'
$ qemu-img check badl2.qcow2

2 errors were found on the image.
Data may be corrupted, or further writes to the image may corrupt it.

1 leaked clusters were found on the image.
This means waste of disk space, but no harm to data.
4/1024 = 0.39% allocated, 50.00% fragmented, 0.00% compressed clusters
Image end offset: 589824
stderr: ERROR: counting reference for region exceeding the end of the file by one cluster or more: offset 0x3f0000060000 size 0x10000
stderr: Leaked cluster 6 refcount=1 reference=0
stderr: ERROR OFLAG_COPIED data cluster: l2_entry=80003f0000060000 refcount=0
[exit 2]
END
    replay <<'END'
$ qemu-img check -r all badl2.qcow2 2>/dev/null
The following inconsistencies were found and repaired:

    1 leaked clusters
    2 corruptions

Double checking the fixed image now...
No errors were found on the image.
4/1024 = 0.39% allocated, 0.00% fragmented, 0.00% compressed clusters
Image end offset: 589824
[exit 0]
END
    clean badl2.qcow2
    same good.qcow2 badl2.qcow2
}

@test "QEMU's text: a stray bit in the refcount table; the repair takes it away" {
    transcript_image
    damaged_copy badrt.qcow2 65543 01
    replay <<'END'
$ qemu-img check badrt.qcow2

1 errors were found on the image.
Data may be corrupted, or further writes to the image may corrupt it.

1 leaked clusters were found on the image.
This means waste of disk space, but no harm to data.
17/1024 = 1.66% allocated, 5.88% fragmented, 0.00% compressed clusters
Image end offset: 1572864
stderr: ERROR refcount table entry 0 has reserved bits set
stderr: Leaked cluster 2 refcount=1 reference=0
[exit 2]
END
    must qemu-img check -r all badrt.qcow2
    same_bytes a.qcow2 badrt.qcow2
}

@test "QEMU's text: a file that was cut short; the repair keeps what is there" {
    local cluster
    transcript_image
    cp a.qcow2 trunc.qcow2
    truncate -s 458752 trunc.qcow2
    qemu-img check trunc.qcow2 >out 2>err || [ $? -eq 2 ]
    {
        echo 'ERROR snapshot table entry 0 is incomplete'
        for cluster in 70000 80000 90000 a0000 b0000 c0000 d0000 e0000 f0000 100000 110000 \
            120000 130000 140000 160000; do
            echo 'ERROR: counting reference for region exceeding the end of the file by one' \
                "cluster or more: offset 0x$cluster size 0x10000"
        done
        echo 'ERROR: counting reference for region exceeding the end of the file by one' \
            'cluster or more: offset 0x170000 size 0x28'
        for cluster in 4 5 6; do
            echo "Leaked cluster $cluster refcount=2 reference=1"
        done
    } | diff -u - err
    diff -u - out <<'END'

17 errors were found on the image.
Data may be corrupted, or further writes to the image may corrupt it.

3 leaked clusters were found on the image.
This means waste of disk space, but no harm to data.
17/1024 = 1.66% allocated, 5.88% fragmented, 0.00% compressed clusters
Image end offset: 458752
END
    must qemu-img check -r all trunc.qcow2
    clean trunc.qcow2
    # Clusters 5 and 6 are the guest's first two. What follows them is gone.
    must oracle convert -O raw trunc.qcow2 got.raw
    must cmp -n 131072 a.raw got.raw
    must cmp -n $(((64 << 20) - 131072)) -i 131072:0 got.raw /dev/zero
}

@test "QEMU's text: what is no qcow2 image, or none that is known" {
    transcript_image
    damaged_copy badmagic.qcow2 0 58585858
    damaged_copy badver.qcow2 7 09
    damaged_copy badfeat.qcow2 72 80
    replay <<'END'
$ qemu-img check badmagic.qcow2
stderr: qemu-img: This image format does not support checks
[exit 63]

$ qemu-img check -f qcow2 badmagic.qcow2
stderr: qemu-img: Could not open 'badmagic.qcow2': Image is not in qcow2 format
[exit 1]

$ qemu-img check badver.qcow2
stderr: qemu-img: Could not open 'badver.qcow2': Unsupported qcow2 version 9
[exit 1]

$ qemu-img check badfeat.qcow2
stderr: qemu-img: Could not open 'badfeat.qcow2': Unsupported qcow2 feature(s): Unknown incompatible feature: 8000000000000000
[exit 1]
END
    # An unknown feature is never cleared.
    cp badfeat.qcow2 before
    must_exit 1 qemu-img check -r all badfeat.qcow2
    same_bytes before badfeat.qcow2
}
