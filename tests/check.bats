#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# check: every problem found and healed (tests/check), and what it prints.

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
    local folders=()
    mapfile -t folders < <(cd "$RECIPES" && ls)
    # In short mode without the variants.
    if is_short; then mapfile -t folders < <(slugs); fi
    run_recipes "${folders[@]/#/$RECIPES/}"
}

# --- the damages of the recordings, whose text stands in tests/transcripts ---------------

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

@test "a leak, and its repair" {
    transcript_image
    truncate -s 2686976 a.qcow2
    damaged_copy leak.qcow2 131152 0001
    must_exit 3 qemu-img check leak.qcow2
    must qemu-img check -r leaks leak.qcow2
    same_bytes a.qcow2 leak.qcow2
    damaged_copy leak.qcow2 131152 0001
    must_exit 3 qemu-img check -q leak.qcow2
    qemu-img check --output=json -r all leak.qcow2 >json 2>err
    [ "$(json_value '["leaks-fixed"]' <json)" -eq 1 ]
    [ "$(json_value '.get("leaks", 0)' <json)" -eq 0 ]
}

@test "a refcount that is too low; the repair is shorter than QEMU's" {
    transcript_image
    damaged_copy bad.qcow2 131082 0000
    must_exit 2 qemu-img check bad.qcow2
    # Leaks there are none, so nothing happens.
    cp bad.qcow2 before.qcow2
    must_exit 2 qemu-img check -r leaks bad.qcow2
    same_bytes before.qcow2 bad.qcow2
    must qemu-img check -r all bad.qcow2
    # Two bytes changed, two bytes are changed back.
    same_bytes a.qcow2 bad.qcow2
}

@test "an L2 entry far behind the end; the repair finds the cluster" {
    must oracle create -f qcow2 badl2.qcow2 64M
    must qemu-io -c 'write -P 1 0 256k' badl2.qcow2
    # The first of the two bytes says that the guest's first cluster reads as zeros, as it
    # may.
    imgtool poke badl2.qcow2 262151 01
    cp badl2.qcow2 good.qcow2
    imgtool poke badl2.qcow2 262154 3f
    must_exit 2 qemu-img check badl2.qcow2
    must qemu-img check -r all badl2.qcow2
    clean badl2.qcow2
    same good.qcow2 badl2.qcow2
}

@test "a stray bit in the refcount table; the repair takes it away" {
    transcript_image
    damaged_copy badrt.qcow2 65543 01
    must_exit 2 qemu-img check badrt.qcow2
    must qemu-img check -r all badrt.qcow2
    same_bytes a.qcow2 badrt.qcow2
}

@test "a file that was cut short; the repair keeps what is there" {
    transcript_image
    cp a.qcow2 trunc.qcow2
    truncate -s 458752 trunc.qcow2
    must_exit 2 qemu-img check trunc.qcow2
    must qemu-img check -r all trunc.qcow2
    clean trunc.qcow2
    # Clusters 5 and 6 are the guest's first two. What follows them is gone.
    must oracle convert -O raw trunc.qcow2 got.raw
    must cmp -n 131072 a.raw got.raw
    must cmp -n $(((64 << 20) - 131072)) -i 131072:0 got.raw /dev/zero
}

@test "a file that was cut short and repaired stays sound when the guest writes again" {
    must oracle create -q -f raw back.raw 3M
    # In the active L1 table, which comes before all data: all but one of the ranges that
    # are lost are written again. And in the data: the file grows again.
    for size in 512:1728 4096:700000; do
        must oracle create -q -f qcow2 -o "cluster_size=${size%:*},backing_file=back.raw" \
            -o backing_fmt=raw image.qcow2 3M
        must qemu-io -c 'write -P 1 1M 800k' image.qcow2
        truncate -s "${size#*:}" image.qcow2
        must_exit 0 "$QCOW2" check -q -r all image.qcow2
        must qemu-io -c 'write -P 2 0 3040k' image.qcow2
        must oracle check image.qcow2
    done
}

@test "so many ranges are lost that they share a table of zeros: refcounts get wider" {
    must oracle create -q -f raw back.raw 200G
    must oracle create -q -f qcow2 -o refcount_bits=1,backing_file=back.raw,backing_fmt=raw \
        image.qcow2 200G
    truncate -s 197000 image.qcow2
    must_exit 0 "$QCOW2" check -q -r all image.qcow2
    must oracle check image.qcow2
    [ "$(stat -c %s image.qcow2)" -lt 10000000 ]
    [ "$("$QCOW2" info --output=json image.qcow2 |
        jq '."format-specific".data."refcount-bits"')" -ge 8 ]
}

@test "what is lost side by side is one line, and ends with the disk" {
    qemu-img create -q -f qcow2 img.qcow2 1000k
    qemu-io -f qcow2 -c 'write 0 192k' -c 'write 256k 64k' -c 'write 960k 40k' img.qcow2
    truncate -s $((6 * 65536)) img.qcow2
    must_exit 2 qemu-img check -r all --dry-run img.qcow2
    qemu-img check -r all --dry-run img.qcow2 >out 2>err || true
    grep '^    active state:' out | diff -u - <(
        echo '    active state: 131072 bytes at guest offset 65536'
        echo '    active state: 65536 bytes at guest offset 262144'
        echo '    active state: 40960 bytes at guest offset 983040'
    )
    # A table maps 512 MiB.
    truncate -s $((4 * 65536)) img.qcow2
    qemu-img check -r all --dry-run img.qcow2 >out 2>err || true
    grep -qx '    active state: 1024000 bytes at guest offset 0' out
}

@test "where QEMU finds the same, the output is the same" {
    local name code
    for name in compressed-copied-flag copied-flag-data copied-flag-l2-table header-field \
        header-field.refcount-order header-field.snapshots refcount-block-outside \
        refcount-block-shared refcount-table-reserved-bits refcount-too-high \
        refcount-too-high.shared refcount-too-low refcount-too-low.block \
        refcount-too-low.snapshot reference-outside reference-outside.compressed \
        reference-outside.lost reference-outside.lost-v2 reference-outside.snapshot \
        reference-outside.truncated snapshot-entry-incomplete; do
        echo "$name"
        recipe "$name"
        code=0
        oracle check image.qcow2 >want.out 2>want.err || code=$?
        echo "$code" >want.code
        code=0
        qemu-img check image.qcow2 >out 2>err || code=$?
        echo "$code" >code
        diff -u want.err err
        diff -u want.out out
        diff -u want.code code
    done
}

@test "a version and a feature that are not known: refused, and nothing is cleared" {
    transcript_image
    damaged_copy badver.qcow2 7 09
    damaged_copy badfeat.qcow2 72 80
    one_error 1 qemu-img check badver.qcow2
    message_has "Could not open 'badver.qcow2': Unsupported qcow2 version 9"
    cp badfeat.qcow2 before
    must_exit 1 qemu-img check -r all badfeat.qcow2
    same_bytes before badfeat.qcow2
}

@test "a header that cannot be used, but healed: check says so, and what with" {
    recipe header-field.l1-size
    must_exit 1 qcow2 check image.qcow2
    qcow2 check image.qcow2 >out 2>err || true
    [ ! -s out ]
    diff -u - err <<'END'
qcow2: Could not open 'image.qcow2': L1 table is too small (l1_size 1, size 8388608 needs 4)
ERROR header field l1_size: 1 contradicts the rest of the file, 4 is consistent with it
The header can be repaired: run 'qcow2 check -r all'
END
    qcow2 check -r leaks image.qcow2 2>&1 | diff -u err -
    # QEMU's own words for those who call it by that name.
    qemu-img check image.qcow2 2>&1 | diff -u <(head -n 1 err | sed 's/^qcow2/qemu-img/') -
    must_exit 1 qcow2 check --output=json --details image.qcow2
    qcow2 check --output=json --details image.qcow2 >json 2>json.err || true
    diff -u err json.err
    [ "$(jq -c '[.corruptions, (.findings[] | .problem, .field, .value, .wanted)]' json)" = \
        '[1,"header-field","l1_size","0x1","0x4"]' ]
    same_bytes damaged.qcow2 image.qcow2
    # It is done as it was said.
    qcow2 check -r all image.qcow2 2>&1 >out | diff -u <(sed -n '2s/ERROR/Repairing/p' err) -
    clean image.qcow2
    # What cannot be healed is not promised.
    recipe header-field.l1-size
    imgtool field image.qcow2 refcount_order 9
    one_error 1 qcow2 check image.qcow2
    must_exit 1 qcow2 check -r all image.qcow2
    recipe header-field.l1-size
    imgtool field image.qcow2 incompatible_features 0x8000000000000000
    one_error 1 qcow2 check image.qcow2
}
