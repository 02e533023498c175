#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# check: every problem found and healed (tests/check), what it prints, and what it promises
# of dry runs, undo, locks and hostile images.

load helpers
load recipes

setup() {
    q2_setup
}

# image.qcow2 as a recipe makes it, damaged.
recipe() { # FOLDER-NAME
    prepare_image "$RECIPES/$1" >/dev/null
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

# --- dry run ----------------------------------------------------------------------------

# What the plan says ("write 0x.. at offset N", "write N bytes at offset M", "set the
# file's size to N") against what the repair did to the file.
plan_is_kept() { # PLAN BEFORE AFTER
    python3 - "$@" <<'END'
import re, sys

plan, before, after = (open(name, "rb").read() for name in sys.argv[1:])
at = {}      # byte: its planned value, None if the plan does not say it
n_edits = 0
size = len(before)
for line in plan.decode().splitlines():
    if m := re.fullmatch(r" {4}write 0x([0-9a-f]{16}) at offset (\d+)", line):
        value, offset = bytes.fromhex(m[1]), int(m[2])
        at.update({offset + i: b for i, b in enumerate(value)})
    elif m := re.fullmatch(r" {4}write (\d+) bytes at offset (\d+)", line):
        offset, value = int(m[2]), [None] * int(m[1])
        at.update({offset + i: None for i in range(int(m[1]))})
    elif m := re.fullmatch(r" {4}set the file's size to (\d+)", line):
        size = int(m[1])
        continue
    else:
        continue
    n_edits += 1
    size = max(size, offset + len(value))
assert n_edits > 0, "no edits in the plan"
assert len(after) == size, f"{len(after)} bytes long, planned are {size}"
old = before.ljust(size, b"\0")
for i in range(size):
    if i not in at:
        assert after[i] == old[i], f"byte {i} was changed against the plan"
    elif at[i] is not None:
        assert after[i] == at[i], f"byte {i} is {after[i]}, planned is {at[i]}"
END
}

# The same of the plan as JSON: its edits, done one after the other, make the repaired image
# of the damaged one. Each says what it is for; PROBLEM is healed by one of them.
json_plan_is_kept() { # JSON BEFORE AFTER PROBLEM
    python3 - "$@" <<'END'
import json, sys, zlib

report, before, after = (open(name, "rb").read() for name in sys.argv[1:4])
plan = json.loads(report)["plan"]
image, known = bytearray(before), set()
for i, e in enumerate(plan["edits"]):
    if e["action"] == "flush":
        assert set(e) == {"action"}, e
        continue
    assert e["problems"], f"nobody knows what it is for: {e}"
    known.update(e["problems"])
    if e["action"] == "resize":
        image = image[:e["size"]].ljust(e["size"], b"\0")
        continue
    assert e["action"] == "write" and e["length"] > 0, e
    start, end = e["offset"], e["offset"] + e["length"]
    if "data" in e:
        data = bytes.fromhex(e["data"])
    else:
        data = after[start:end]
        over = [later for later in plan["edits"][i + 1:]
                if later.get("offset", end) < end and start < later["offset"] + later["length"]]
        if over:  # a mark, and then what is to stand there
            assert [(o["offset"], o["length"]) for o in over] == [(start, e["length"])], e
        assert over or zlib.crc32(data) == int(e["crc32"], 16), e
    assert len(data) == e["length"], e
    image = image.ljust(end, b"\0")
    image[start:end] = data
assert image == after, "the edits do not make the repaired image"
assert plan["complete"] and not plan["leaks-kept"]
assert sys.argv[4] in known, f"no edit heals {sys.argv[4]}, only {known}"
END
}

# The losses of the plan as JSON, as the text says them.
json_losses() { # JSON
    jq -r '.losses // .plan.losses // [] | .[] | (if .state == "active" then "active state" else
        "snapshot \(.["snapshot-name"] | "\u0027" + . + "\u0027") (table entry \(.["snapshot-index"]))" end)
        + ": " + (if has("guest-offset") then
            "\(.["guest-bytes"]) bytes at guest offset \(.["guest-offset"])" else "all of it" end)' "$1"
}

@test "--dry-run tells what the repair then does, as text and as JSON, and writes nothing" {
    local name before
    for name in reference-outside reference-outside.lost reference-outside.lost-v2 \
        refcount-table-reserved-bits refcount-block-outside l2-table-garbage \
        snapshot-l1-damaged header-field refcount-too-low.width copied-flag-data \
        active-l1-cut; do
        echo "$name"
        recipe "$name"
        before=$(hash_of image.qcow2)
        must_exit 2 qemu-img check -r all --dry-run image.qcow2
        qemu-img check -r all --dry-run image.qcow2 >plan 2>plan.err || true
        must_exit 2 qemu-img check -r all --dry-run --output=json image.qcow2
        qemu-img check -r all --dry-run --output=json image.qcow2 >json 2>json.err || true
        [ "$(hash_of image.qcow2)" = "$before" ]
        must qemu-img check -r all image.qcow2
        plan_is_kept plan damaged.qcow2 image.qcow2
        json_plan_is_kept json damaged.qcow2 image.qcow2 "${name%%.*}"
        losses plan >want
        json_losses json | sed 's/^/lost /' | diff -u want -
        # And the repair says the same.
        cp damaged.qcow2 image.qcow2
        qemu-img check -r all --output=json image.qcow2 >done.json 2>err
        json_losses done.json | sed 's/^/lost /' | diff -u want -
        diff -u plan.err json.err
    done
    # Without --details the findings stay out; without --dry-run the plan does.
    [ "$(jq 'has("findings")' json)" = false ]
    qemu-img check --output=json image.qcow2 >json
    [ "$(jq 'has("plan") or has("losses")' json)" = false ]
}

@test "--dry-run --output=json of an image that needs nothing, and of one that keeps its leaks" {
    base
    qemu-img check -r all --dry-run --output=json image.qcow2 >json
    [ "$(jq -c .plan json)" = '{"complete":true,"leaks-kept":false,"edits":[],"losses":[]}' ]
    recipe reference-outside.lost
    must_exit 2 qemu-img check -r leaks --dry-run --output=json image.qcow2
    qemu-img check -r leaks --dry-run --output=json image.qcow2 >json 2>err || true
    [ "$(jq -c .plan json)" = '{"complete":false,"leaks-kept":true,"edits":[],"losses":[]}' ]
}

@test "--dry-run works on an image that cannot be written" {
    recipe reference-outside.lost
    in_readonly image.qcow2 "$QCOW2" check -r all --dry-run image.qcow2
    [ "$(cat code)" -eq 2 ]
    grep -qx 'The repair would do this:' out
    grep -q '4096 bytes at guest offset 12288' out
    in_readonly image.qcow2 "$QCOW2" check -r all image.qcow2
    [ "$(cat code)" -eq 1 ]
    message_has "Could not open 'image.qcow2'" 'Read-only file system'
    in_readonly image.qcow2 "$QCOW2" check image.qcow2
    [ "$(cat code)" -eq 2 ]
    same_bytes damaged.qcow2 image.qcow2
}

# Runs a command that may not do more than the file's mode says, although it is root's.
bound_by_mode() { # COMMAND...
    if [ "$(id -u)" -eq 0 ]; then
        setpriv --bounding-set -dac_override,-dac_read_search \
            --inh-caps -dac_override,-dac_read_search "$@"
    else
        "$@"
    fi
}

@test "--dry-run of a file that may only be read" {
    recipe reference-outside.lost
    chmod 0444 image.qcow2
    must_exit 2 bound_by_mode "$QCOW2" check -r all --dry-run image.qcow2
    must_exit 2 bound_by_mode "$QCOW2" check -r all --dry-run --undo-file undo image.qcow2
    # The mode does hold a repair off.
    must_exit 1 bound_by_mode "$QCOW2" check -r all image.qcow2
    bound_by_mode "$QCOW2" check -r all image.qcow2 2>err || true
    grep -q 'Permission denied' err
    absent undo
    same_bytes damaged.qcow2 image.qcow2
}

@test "--dry-run locks as readers do: beside another one, which keeps writers out" {
    recipe reference-outside.lost
    hold_open_to_read image.qcow2
    must_exit 2 qemu-img check -r all --dry-run image.qcow2
    must_exit 1 qemu-img check -r all image.qcow2
    qemu-img check -r all image.qcow2 2>err || true
    grep -q 'Failed to get "write" lock' err
    let_go
    same_bytes damaged.qcow2 image.qcow2
    must qemu-img check -r all image.qcow2
}

@test "--dry-run of a sound image plans nothing" {
    base
    qemu-img check -r all --dry-run image.qcow2 >out 2>err
    diff -u <(qemu-img check image.qcow2) out
    [ ! -s err ]
}

@test "with -q nothing is printed as JSON either, as by QEMU" {
    base
    must_exit 0 qemu-img check -q --output=json image.qcow2
    [ "$(qemu-img check -q --output=json image.qcow2)" = "$(oracle check -q --output=json image.qcow2)" ]
    truncate -s +4k image.qcow2
    imgtool refcount image.qcow2 $(($(stat -c %s image.qcow2) - 4096)) 1
    must_exit 3 qemu-img check -q --output=json --details image.qcow2
    [ -z "$(qemu-img check -q --output=json --details image.qcow2 2>/dev/null)" ]
}

@test "options that do not go together" {
    base
    cp image.qcow2 before
    one_misuse --dry-run image.qcow2
    one_misuse --undo-file u image.qcow2
    one_misuse --undo u -r all image.qcow2
    one_misuse -r leaks --undo u image.qcow2
    one_misuse -r all --undo-file u --backing-chain image.qcow2
    one_misuse --undo u --backing-chain image.qcow2
    one_error 1 qemu-img check --clear-feature 64 image.qcow2
    one_error 1 qemu-img check -T bogus image.qcow2
    [ "$message" = 'qemu-img: Invalid source cache option: bogus' ]
    one_error 1 qemu-img check -U -r all image.qcow2
    [ "$message" = "qemu-img: Could not open 'image.qcow2': force-share=on can only be used with read-only images" ]
    absent u
    same_bytes before image.qcow2
}

one_misuse() {
    must_exit 1 qemu-img check "$@"
    qemu-img check "$@" 2>err || true
    [ "$(wc -l <err)" -eq 2 ]
    [ "$(tail -n 1 err)" = "Try 'qemu-img check --help' for more information" ]
}

# --- more than one thing is damaged -------------------------------------------------------

wipe() { # HOST-OFFSET: the cluster there was in a bad sector, and reads as zeros
    dd if=/dev/zero of=image.qcow2 bs=4k count=1 seek="$1" oflag=seek_bytes conv=notrunc status=none
}

@test "compressed data that was wiped stays lost, and does not read as zeros" {
    local at
    base
    printf 'write -q -c -P %d %dk 4k\n' 7 6144 8 6148 9 6152 | qemu_io qcow2 image.qcow2
    take_snapshot one
    at=$(imgtool l2 image.qcow2 6M)
    wipe $((at & 0xfffffffff000))
    # A repair with nothing else to do would leave it alone.
    imgtool l2 image.qcow2 12k 0
    must qemu-img check -r all image.qcow2
    must oracle check image.qcow2
    for at in 6144k 6148k 6152k; do
        must_exit 1 "$QCOW2" io -c "read $at 4k" image.qcow2
    done
    must "$QCOW2" io -c 'read -P 1 0 4k' -c 'read -P 5 16k 4k' image.qcow2
}

@test "a snapshot's table that was wiped gets back what the disk shares with it" {
    local table way
    base
    take_snapshot one
    fill_clusters 2M 99 1
    cp image.qcow2 good.qcow2
    table=$(($(imgtool snapshot image.qcow2 0 l1_offset) + 8))
    table=$((0x$(xxd -s "$table" -l 8 -p image.qcow2) & 0x00fffffffffffe00))
    for way in zeros hole; do
        cp good.qcow2 image.qcow2
        wipe "$table"
        [ "$way" = zeros ] || fallocate -p -o "$table" -l 4096 image.qcow2 || skip "no holes here"
        must_exit 2 qemu-img check image.qcow2
        qemu-img check -r all --undo-file undo.$way image.qcow2 >out 2>err || fail "$(cat out err)"
        # Its first cluster is its own: who would know of it?
        grep -q "snapshot 'one' (table entry 0): 4096 bytes at guest offset 2097152" out ||
            fail "$(cat out)"
        both_checks 0
        must oracle snapshot -a one image.qcow2
        must "$QCOW2" io -c 'read -P 0 2M 4k' -c 'read -P 34 2052k 4k' -c 'read -P 38 2068k 4k' \
            -c 'read -P 1 0 4k' image.qcow2
    done
    # With more missing than that it is not known what the table held.
    cp good.qcow2 image.qcow2
    wipe "$table"
    imgtool refcount image.qcow2 $(($(imgtool l2 image.qcow2 4M) & 0xfffffffff000)) 3
    must_exit 3 qemu-img check image.qcow2
}

@test "a lost table is told where the refcounts are lost, too" {
    local at
    base
    at=$(($(imgtool l1 image.qcow2 2M) & 0x00fffffffffffe00))
    yes 'not an L2 table' | head -c 4096 | dd of=image.qcow2 bs=4k seek="$at" \
        oflag=seek_bytes conv=notrunc status=none
    # Of all but the table's own cluster.
    wipe "$(($(imgtool block image.qcow2 0) & 0xfffffffff000))"
    imgtool refcount image.qcow2 "$at" 1
    qemu-img check -r all image.qcow2 >out 2>err || fail "$(cat out err)"
    grep -q 'active state: 2097152 bytes at guest offset 2097152' out || fail "$(cat out)"
    must oracle check image.qcow2
}

# Both checks, each the same exit code.
both_checks() { # CODE
    local code=0
    "$QCOW2" check image.qcow2 >ours 2>&1 || code=$?
    [ "$code" -eq "$1" ] || fail "exit $code: $(cat ours)"
    code=0
    oracle check image.qcow2 >theirs 2>&1 || code=$?
    [ "$code" -eq "$1" ] || fail "qemu-img: exit $code: $(cat theirs)"
}

@test "version 2: what shares a cluster of zeros above a backing file can be written, and snapshotted" {
    local i
    head -c 256k /dev/urandom >back.raw
    must oracle create -q -f qcow2 -o compat=0.10,cluster_size=512 -b back.raw -F raw image.qcow2
    printf 'write -q -P 5 %s 4k\n' 0 32k | qemu_io qcow2 image.qcow2
    imgtool l1 image.qcow2 0 0x8000000000fffe00
    qemu-img check -r all image.qcow2 >out 2>err || fail "$(cat out err)"
    grep -q 'active state: 32768 bytes at guest offset 0' out
    both_checks 0
    # All but two of the 64 entries.
    for ((i = 0; i < 62; i++)); do echo "write -q -P 7 $((i * 512)) 512"; done |
        qemu_io qcow2 image.qcow2
    both_checks 0
    must oracle snapshot -c one image.qcow2
    both_checks 0
    must "$QCOW2" io -c 'write -P 7 31k 512' image.qcow2
    both_checks 0
    must qemu-img snapshot -d one image.qcow2
    both_checks 0
    # The same without a snapshot between: the last one has no COPIED flag for a moment.
    must qemu-img check -r all image.qcow2
    imgtool l1 image.qcow2 32k 0x8000000000fffe00
    qemu-img check -r all image.qcow2 >out 2>err || fail "$(cat out err)"
    for ((i = 0; i < 63; i++)); do echo "write -q -P 7 $((32768 + i * 512)) 512"; done |
        qemu_io qcow2 image.qcow2
    both_checks 2
    [ "$(grep -c '^ERROR OFLAG_COPIED data cluster' ours)" -eq 1 ]
    must "$QCOW2" io -c 'write -P 7 65024 512' image.qcow2
    both_checks 0
    must "$QCOW2" io -c 'read -P 7 0 32256' -c 'read -P 0 32256 512' -c 'read -P 7 32k 32k' image.qcow2
}

# --- undo -------------------------------------------------------------------------------

# image.qcow2 repaired, with the undo file "undo"; damaged.qcow2 is what it was.
repaired() {
    recipe reference-outside.lost
    must qemu-img check -r all --undo-file undo image.qcow2
    cp image.qcow2 repaired.qcow2
}

undo_refused() { # PATTERN...
    local before
    before=$(hash_of image.qcow2)
    one_error 1 qemu-img check --undo undo image.qcow2
    message_has "$@"
    [ "$(hash_of image.qcow2)" = "$before" ]
}

@test "--undo gives the damaged image back, once" {
    repaired
    must qemu-img check --undo undo image.qcow2
    same_bytes damaged.qcow2 image.qcow2
    undo_refused 'is what it was before that repair'
    # And the same repair again.
    must qemu-img check -r all image.qcow2
    same_bytes repaired.qcow2 image.qcow2
}

# As the repair left it when it was cut off; before its first write there is nothing to do.
undo_cut() {
    if cmp -s damaged.qcow2 image.qcow2; then
        undo_refused 'is what it was before that repair'
    else
        must qemu-img check --undo undo image.qcow2
    fi
    same_bytes damaged.qcow2 image.qcow2
}

@test "--undo goes on where a repair was cut off" {
    local n
    for n in 4096 20480 40960 90112; do
        repaired
        # The old image with the new one's first bytes, and the other way around.
        cp damaged.qcow2 image.qcow2
        head -c $n repaired.qcow2 | dd of=image.qcow2 conv=notrunc status=none
        undo_cut
        cp repaired.qcow2 image.qcow2
        head -c $n damaged.qcow2 | dd of=image.qcow2 conv=notrunc status=none
        undo_cut
        rm undo
    done
}

@test "--undo refuses another image, and one that was written since" {
    repaired
    echo 'write -q -P 9 4k 4k' | qemu_io qcow2 image.qcow2
    undo_refused 'not this image.s, or the image was changed'
    must oracle create -q -f qcow2 image.qcow2 8M
    undo_refused 'not this image'
    truncate -s 100M image.qcow2
    undo_refused 'not this image'
    : >image.qcow2
    undo_refused 'not this image'
    # What somebody else put behind the old end is not cut off.
    rm undo
    repaired
    echo more >>image.qcow2
    undo_refused 'not this image'
}

# A file of N records that says of itself what it likes, with the right sum.
forge() { # SIZE-BEFORE SIZE-AFTER N-RECORDS [RECORDS, a Python expression]
    must python3 -S - "$@" <<'EOF'
import struct, sys, zlib
before, after, n = (int(word) % 2**64 for word in sys.argv[1:4])
def record(offset, n_bytes, n_steps, content=b""):
    return struct.pack(">QII", offset, n_bytes, n_steps) + content
file = b"Q2UNDO\r\n" + struct.pack(">IIQQQ", 2, 0, before, after, n)
file += eval(sys.argv[4]) if len(sys.argv) > 4 else b""
with open("undo", "wb") as out:
    out.write(file + struct.pack(">I", zlib.crc32(file)))
EOF
}

@test "--undo refuses a file that a stranger made, whatever its sum is" {
    local row size
    recipe reference-outside.lost
    size=$(stat -c %s image.qcow2)
    # Nothing is known of the image but its length: it would be cut off, or grow.
    forge 0 "$size" 0
    undo_refused 'not this image'
    forge 512 "$size" 1 'record(0, 512, 0, bytes(1024))'
    undo_refused 'not this image'
    forge "$size" $((1 << 62)) 1 'record(1 << 61, 512, 0, bytes(1024))'
    undo_refused 'there is nothing to take back'
    forge "$size" "$size" 0
    undo_refused 'there is nothing to take back'
    for row in "0 -1 0" "$size -1 0" "$size $size -1" "$size $size 1" \
        "$size $size 1 record(0,0,0)" "$size $size 1 record(0,513,0,bytes(1026))" \
        "$size $size 1 record(512,512,0,bytes(1023))" \
        "$size $size 1 record(512,512,0,bytes(1025))" \
        "$size $size 1 record(-1%2**64,512,0,bytes(1024))" \
        "$size $size 1 record(1<<40,512,0,bytes(1024))" \
        "$size $size 1 record(0,2<<20,0,bytes(4<<20))" \
        "$size $size 2 record(512,512,0,bytes(1024))*2" \
        "$size $size 1 record(512,512,1,bytes(1024))" \
        "$size $size 1 record(512,1024,1,bytes(2048)+bytes(4))" \
        "$size $size 1 record(512,512,1,bytes(1024)+bytes([2,1,0,0]))" \
        "$size $size 1 record(512,512,1,bytes(1024)+bytes([1,0,1,1])+bytes(257))"; do
        # shellcheck disable=SC2086
        forge $row
        undo_refused "Undo file 'undo' is damaged"
    done
    # A sum of a hole of a terabyte is not made.
    forge "$size" "$size" 1
    truncate -s 1T undo
    undo_refused "Undo file 'undo' is damaged"
}

# The first step of the sector that is written in several, done to image.qcow2; with a byte
# of the rest of it changed, where one is named.
first_step() { # [BYTE]
    must python3 -S - "$@" <<'EOF'
import struct, sys
with open("undo", "rb") as file:
    undo = file.read()
image = open("image.qcow2", "r+b")
at = 40
for _ in range(struct.unpack_from(">Q", undo, 32)[0]):
    offset, n_bytes, n_steps = struct.unpack_from(">QII", undo, at)
    at += 16 + 2 * n_bytes
    if n_steps:
        start, n = struct.unpack_from(">HH", undo, at)
        image.seek(offset + start)
        image.write(undo[at + 4:at + 4 + n])
        if len(sys.argv) > 1:
            image.seek(offset + int(sys.argv[1]))
            image.write(b"\xa5")
        sys.exit(0)
sys.exit("no sector is written in several steps")
EOF
}

@test "a sector that is written in steps is undone from each, another's sector is refused" {
    recipe l1-entry-without-offset.two
    must qemu-img check -r all --undo-file undo image.qcow2
    cp damaged.qcow2 image.qcow2
    first_step
    must_exit 1 cmp -s image.qcow2 damaged.qcow2
    must qemu-img check --undo undo image.qcow2
    same_bytes damaged.qcow2 image.qcow2
    first_step 500
    undo_refused 'not this image'
}

@test "--undo refuses a file that is damaged, cut off, or something else" {
    local at n
    repaired
    cp undo whole
    n=$(stat -c %s undo)
    for at in 0 9 17 33 41 60 $((n / 2)) $((n - 5)) $((n - 1)); do
        cp whole undo
        printf '\xa5' | dd of=undo bs=1 seek="$at" conv=notrunc status=none
        undo_refused 'undo'
    done
    for at in 0 1 43 44 100 $((n - 1)); do
        head -c "$at" whole >undo
        undo_refused 'undo'
    done
    cp image.qcow2 undo
    undo_refused 'is no undo file'
    rm undo
    undo_refused "'undo'" 'No such file or directory'
}

@test "an undo file that cannot be written stops the repair before it begins" {
    recipe reference-outside.lost-v2
    echo mine >undo
    must_exit 1 qemu-img check -r all --undo-file undo image.qcow2
    [ "$(cat undo)" = mine ]
    must_exit 1 qemu-img check -r all --undo-file no/such/folder image.qcow2
    same_bytes damaged.qcow2 image.qcow2
    in_tmpfs 4k "$QCOW2" check -r all --undo-file small/undo image.qcow2
    [ "$(cat code)" -eq 1 ]
    grep -q 'small/undo.*No space left on device' err
    [ ! -s left ]
    same_bytes damaged.qcow2 image.qcow2
    # The image itself is no place for it.
    must_exit 1 qemu-img check -r all --undo-file image.qcow2 image.qcow2
    same_bytes damaged.qcow2 image.qcow2
}

@test "without a repair there is no undo file" {
    base
    must qemu-img check -r all --undo-file undo image.qcow2
    absent undo
    recipe reference-outside
    must_exit 2 qemu-img check -r all --dry-run --undo-file undo image.qcow2
    absent undo
}

# --- locks, progress, layers ------------------------------------------------------------

@test "beside a writer: check refuses, -U reads, nothing is repaired or undone" {
    local text
    repaired
    text="Is another process using the image [image.qcow2]?"
    hold_open image.qcow2
    one_lock() {
        must_exit 1 qemu-img check "$@" image.qcow2
        qemu-img check "$@" image.qcow2 2>err || true
        [ "$(tail -n 1 err)" = "$text" ]
    }
    one_lock
    one_lock -r all
    one_lock -r leaks
    one_lock -r all --dry-run
    one_lock --undo undo
    must qemu-img check -U image.qcow2
    must qemu-img check -U -r all --dry-run image.qcow2
    let_go
    must qemu-img check image.qcow2
}

@test "-p tells how far it is, -q only what is wrong" {
    base
    qemu-img check -p image.qcow2 >out
    grep -qF '(0.00/100%)' out
    grep -qF '(100.00/100%)' out
    [ "$(qemu-img check -p image.qcow2 | tail -n 1)" = "$(qemu-img check image.qcow2 | tail -n 1)" ]
    recipe refcount-too-high
    qemu-img check -q image.qcow2 >out 2>err || [ $? -eq 3 ]
    [ ! -s out ]
    [ "$(wc -l <err)" -eq 2 ]
    qemu-img check -q -r all image.qcow2 >out 2>err
    [ ! -s out ]
    clean image.qcow2
}

# The percentages that were shown, at least so many, go up; they are left in "percent".
goes_up() { # FILE LEAST
    tr '\r' '\n' <"$1" | sed -nE 's/^ +\(([0-9]+\.[0-9]{2})\/100%\)$/\1/p' >percent
    sort -n percent | diff -u - percent
    [ "$(wc -l <percent)" -ge "$2" ] || fail "only $(cat percent)"
}

from_0_to_100() { # FILE LEAST
    goes_up "$@"
    [ "$(head -n 1 percent)" = 0.00 ]
    [ "$(tail -n 1 percent)" = 100.00 ]
}

# 128 MiB in 64 L2 tables, with clusters of 4 KiB.
many_tables() {
    must oracle create -q -f qcow2 -o cluster_size=4k image.qcow2 128M
    for ((i = 0; i < 64; i++)); do
        echo "write -q -P 1 $((i * 2))M 64k"
    done | qemu_io qcow2 image.qcow2
}

@test "-p goes up from 0 to 100: tables, data, and all rounds of a repair" {
    many_tables
    qemu-img check -p image.qcow2 >out
    from_0_to_100 out 5
    qemu-img check -p --read-data image.qcow2 >out
    from_0_to_100 out 40
    qemu-img check -p -r all image.qcow2 >out
    from_0_to_100 out 8
    recipe reference-outside.lost-v2
    qemu-img check -p -r all --dry-run image.qcow2 >out 2>err || [ $? -eq 2 ]
    from_0_to_100 out 5
    qemu-img check -p -r all image.qcow2 >out 2>err
    from_0_to_100 out 8
    # Not of a check that fails.
    with_signal pread 3 15 "$QCOW2" check -p image.qcow2
    [ "$code" -eq 143 ]
    [ "$(grep -cF '(100.00/100%)' out)" -eq 0 ]
}

@test "SIGUSR1 asks how far it is, without -p" {
    local usr1
    usr1=$(kill -l USR1)
    many_tables
    with_signal pread 10 "$usr1" "$QCOW2" check --read-data image.qcow2
    [ "$code" -eq 0 ]
    goes_up err 1
    [ "$(wc -l <err)" -eq 1 ]
    [ "$(grep -cF '/100%' out)" -eq 0 ]
    with_signal pread 0 "$usr1" "$QCOW2" check --read-data image.qcow2
    [ "$code" -eq 0 ]
    goes_up err 40
}

# After a repair that got a signal: the image is either what it was, or wholly repaired, and
# then the undo file is there.
stopped_well() {
    if cmp -s damaged.qcow2 image.qcow2; then
        absent undo
        grep -qx '[^ ]*: Stopped by signal SIG\(TERM\|INT\)' err
        stopped_before=$((stopped_before + 1))
    else
        same_bytes repaired.qcow2 image.qcow2
        must qemu-img check --undo undo image.qcow2
        same_bytes damaged.qcow2 image.qcow2
        rm undo
        stopped_after=$((stopped_after + 1))
    fi
}

@test "SIGTERM and SIGINT stop a repair before its first write or after its last" {
    local n stopped_before=0 stopped_after=0
    repaired
    # A third table is to be written.
    imgtool l1 damaged.qcow2 0 "$(($(imgtool l1 damaged.qcow2 0) & 0x00fffffffffffe00))"
    cp damaged.qcow2 repaired.qcow2
    must qemu-img check -r all repaired.qcow2
    rm undo
    for ((n = 1; n < 999; n += 2)); do
        cp damaged.qcow2 image.qcow2
        with_signal pread "$n" 15 "$QCOW2" check -r all --undo-file undo image.qcow2
        [ "$code" -ne 0 ] || break # there are fewer reads
        [ "$code" -eq 143 ] || fail "exit $code: $(cat err)"
        stopped_well
    done
    rm undo
    # Both cases were there.
    [ "$stopped_before" -ge 5 ]
    [ "$stopped_after" -ge 2 ]
    # Between its writes it is not stopped, not even by a second one.
    stopped_before=0
    for ((n = 1; n < 999; n++)); do
        cp damaged.qcow2 image.qcow2
        signal_times=2 with_signal pwrite "$n" 2 "$QCOW2" check -r all --undo-file undo image.qcow2
        [ "$code" -ne 0 ] || break
        [ "$code" -eq 130 ] || fail "exit $code: $(cat err)"
        grep -q 'warning: The repair is done; the check after it was stopped$' err
        stopped_well
    done
    [ "$n" -gt 3 ]
    [ "$stopped_before" -eq 0 ]
    # A check, too, is stopped, also between the clusters of one table.
    cp damaged.qcow2 image.qcow2
    with_signal pread 3 15 "$QCOW2" check image.qcow2
    [ "$code" -eq 143 ]
    many_tables
    with_signal pread 12 15 "$QCOW2" check --read-data image.qcow2
    [ "$code" -eq 143 ]
}

@test "a backing file is not opened without --backing-chain" {
    recipe reference-outside.lost
    rm back.qcow2
    must_exit 2 qemu-img check image.qcow2
    must qemu-img check -r all image.qcow2
    must_exit 0 qemu-img check image.qcow2
    one_error 1 qemu-img check -q --backing-chain image.qcow2
    [ "$message" = "qemu-img: Could not open 'image.qcow2': Could not open backing file: Could not open 'back.qcow2': No such file or directory" ]
}

@test "--backing-chain checks and repairs every layer" {
    base
    mv image.qcow2 low.qcow2
    base backing_file=low.qcow2,backing_fmt=qcow2
    must qemu-img check --backing-chain image.qcow2
    # A leak in the upper layer, a corruption in the lower one: the worse one tells.
    truncate -s 128k image.qcow2
    imgtool refcount image.qcow2 96k 1
    must_exit 3 qemu-img check --backing-chain image.qcow2
    imgtool l1 low.qcow2 2M ^0x8000000000000000
    must_exit 3 qemu-img check image.qcow2
    must_exit 2 qemu-img check --backing-chain image.qcow2
    must qemu-img check --backing-chain -r all image.qcow2
    clean image.qcow2
    clean low.qcow2
    # A raw file at the bottom is no error.
    truncate -s 8M bottom.raw
    must oracle create -f qcow2 -b bottom.raw -F raw top.qcow2 8M
    must qemu-img check --backing-chain top.qcow2
}

@test "--backing-chain --output=json is one list, of the layers that were checked" {
    base
    mv image.qcow2 low.qcow2
    base backing_file=low.qcow2,backing_fmt=qcow2
    imgtool l1 low.qcow2 2M ^0x8000000000000000
    must_exit 2 qemu-img check --backing-chain --output=json --details image.qcow2
    qemu-img check --backing-chain --output=json --details image.qcow2 >json 2>err || true
    [ "$(jq -c '[.[] | [.filename, .corruptions, (.findings | length)]]' json)" = \
        '[["image.qcow2",null,0],["low.qcow2",1,1]]' ]
    must_exit 2 qemu-img check --backing-chain --output=json -r all --dry-run image.qcow2
    qemu-img check --backing-chain --output=json -r all --dry-run image.qcow2 >json 2>err ||
        true
    [ "$(jq -c '[.[] | .plan.edits | length > 0]' json)" = '[false,true]' ]
    must qemu-img check --backing-chain --output=json -r all image.qcow2
    # One layer is a list, too; without the option it is none.
    qemu-img check --backing-chain --output=json low.qcow2 >json
    [ "$(jq -c '[.[].filename]' json)" = '["low.qcow2"]' ]
    qemu-img check --output=json low.qcow2 >json
    [ "$(jq -r .filename json)" = low.qcow2 ]
}

@test "--backing-chain: what stops it is one error, below what was found" {
    local text
    must oracle create -q -f qcow2 low.qcow2 8M
    must oracle create -q -f qcow2 -b low.qcow2 -F qcow2 image.qcow2
    stops() { # ERROR
        must_exit 1 qemu-img check --backing-chain --output=json image.qcow2
        qemu-img check --backing-chain --output=json image.qcow2 >json 2>err || true
        [ "$(cat err)" = "qemu-img: $1" ] || fail "$(cat err)"
        [ "$(jq -r '.[0].filename' json)" = image.qcow2 ]
        must_exit 1 qemu-img check --backing-chain image.qcow2
    }
    text="Could not open 'image.qcow2': Could not open backing file"
    rm low.qcow2
    stops "$text: Could not open 'low.qcow2': No such file or directory"
    echo 'no image' >low.qcow2
    stops "$text: Could not open 'low.qcow2': Image is not in qcow2 format"
    must oracle create -q -f qcow2 -u -b image.qcow2 -F qcow2 low.qcow2 8M
    stops "Backing file 'image.qcow2' creates an infinite loop"
    must oracle create -q -f qcow2 -u -b nbd://localhost/ -F raw image.qcow2 8M
    stops "$text 'nbd://localhost/': Unknown protocol 'nbd'"
    must oracle create -q -f qcow2 -u -b low.qcow2 -F vmdk image.qcow2 8M
    stops "$text: Could not open 'low.qcow2': Unknown driver 'vmdk'"
    # Nothing at all is printed when the image itself is at fault.
    rm image.qcow2
    one_error 1 qemu-img check --backing-chain --output=json image.qcow2
}

@test "--clear-feature clears an unknown bit, and no other" {
    base
    cp image.qcow2 good.qcow2
    imgtool field image.qcow2 incompatible_features 0x8000000000000000
    must_exit 1 qemu-img check image.qcow2
    must_exit 1 qemu-img check -r all --clear-feature 62 image.qcow2
    must_exit 1 qemu-img check -r all --clear-feature 3 image.qcow2
    [ "$(imgtool field image.qcow2 incompatible_features)" = 9223372036854775808 ]
    must qemu-img check -r all --clear-feature 63 image.qcow2
    same_bytes good.qcow2 image.qcow2
}

@test "--details lists findings with their values" {
    recipe reference-outside
    qemu-img check --output=json --details image.qcow2 >json 2>err || [ $? -eq 2 ]
    diff -u - <(jq -S '.findings[0]' json) <<'END'
{
  "entry": "0x8000010000006000",
  "guest-bytes": 4096,
  "guest-offset": 4096,
  "host-offset": 1099511652352,
  "index": 1,
  "lossy": false,
  "problem": "reference-outside",
  "repair": "lossy",
  "severity": "corruption",
  "size": 4096
}
END
    # Findings are QEMU's keys' sum.
    [ "$(jq '[.findings[] | select(.severity == "corruption")] | length' json)" -eq \
        "$(jq .corruptions json)" ]
    [ "$(jq '[.findings[] | select(.severity == "leak") | .count] | add' json)" -eq \
        "$(jq .leaks json)" ]
    # Not without the option.
    qemu-img check --output=json image.qcow2 >json 2>err || true
    [ "$(jq 'has("findings")' json)" = false ]
}

# --- hostile ----------------------------------------------------------------------------

# 64 MiB.
little_memory() {
    (
        if is_bare_program; then ulimit -v 65536; fi
        exec timeout -k 5 300 "$@"
    )
}

@test "a file that claims 256 GiB and holds nothing is checked in 64 MiB of memory" {
    local kind option code
    for kind in $(rows 'empty holes scattered shared snapshots' 'empty holes snapshots'); do
        imgtool hostile h.qcow2 "$kind"
        for option in '' '-r all --dry-run'; do
            echo "$kind $option"
            code=0
            # shellcheck disable=SC2086
            little_memory "$QCOW2" check $option h.qcow2 >out 2>err || code=$?
            # A refcount table for all of it would be too large: refused, in words.
            [ "$code" -eq 2 ] || {
                [ "$code" -eq 1 ] && [ -n "$option" ] && grep -q 'refcount table would be' err
            } || fail "$kind $option: exit $code: $(tail -n 2 err)"
            # What is told of it is bounded, too.
            [ "$(wc -l <err)" -le 400000 ] || fail "$kind $option: $(wc -l <err) lines"
        done
        rm h.qcow2
    done
}

@test "65535 bitmaps whose tables are nowhere cost no memory" {
    imgtool hostile-bitmaps h.qcow2
    must_exit 2 little_memory "$QCOW2" check h.qcow2
    must_exit 1 "$QCOW2" check -q -r all h.qcow2
    "$QCOW2" check -q -r all h.qcow2 2>err || true
    grep -q 'New bitmap tables would be larger' err
}

# --- other kinds of image ---------------------------------------------------------------

@test "images of every feature are checked as QEMU checks them, and left alone" {
    local name
    must oracle create -f qcow2 --object secret,id=sec0,data=passw0rd -o \
        encrypt.format=aes,encrypt.key-secret=sec0 aes.qcow2 8M
    luks_image luks.qcow2
    must oracle create -f qcow2 -o compression_type=zstd zstd.qcow2 8M
    must oracle create -f qcow2 -o lazy_refcounts=on lazy.qcow2 8M
    must oracle create -f qcow2 -o extended_l2=on extended.qcow2 8M
    must oracle create -f qcow2 -o data_file=data.raw data-file.qcow2 8M
    must oracle create -f qcow2 -o data_file=raw.raw,data_file_raw=on,extended_l2=on \
        data-file-raw.qcow2 8M
    must oracle create -f qcow2 bitmaps.qcow2 8M
    must oracle bitmap --add bitmaps.qcow2 b0
    for name in zstd lazy extended data-file data-file-raw bitmaps; do
        printf '%s\n' 'write -q -P 7 0 64k' 'write -q -P 8 100k 3k' 'write -q -z 64k 2k' \
            'write -q -z 1M 64k' | qemu_io qcow2 $name.qcow2
    done
    for name in zstd extended; do
        echo 'write -q -c -P 7 2M 64k' | qemu_io qcow2 $name.qcow2
        must oracle snapshot -c one $name.qcow2
        echo 'write -q -P 9 10k 64k' | qemu_io qcow2 $name.qcow2
    done
    must oracle bitmap --add --disable -g 512 bitmaps.qcow2 'a second one'
    for name in aes luks zstd lazy extended data-file data-file-raw bitmaps; do
        cp $name.qcow2 before
        qemu-img check $name.qcow2 >got
        if [ $name != aes ] && [ $name != luks ]; then
            oracle check $name.qcow2 >want
            same_text want got
        fi
        must qemu-img check -r all $name.qcow2
        same_bytes before $name.qcow2
    done
    # The data file is not needed for that.
    rm data.raw
    must qemu-img check data-file.qcow2
}

@test "--read-data reads the data file, and says which one is missing" {
    base_with_data_file
    must qemu-img check --read-data image.qcow2
    make_unreadable $((2 << 20))
    mv data.raw other.raw
    one_error 1 qemu-img check --read-data image.qcow2
    [ "$message" = "qemu-img: Could not open 'image.qcow2': Could not open 'data.raw': No such file or directory" ]
    must qemu-img check image.qcow2
    must qemu-img check --read-data --image-opts \
        driver=qcow2,file.filename=image.qcow2,data-file.filename=other.raw
    mv other.raw data.raw
    must_exit 2 with_bad_disk qemu-img check --read-data image.qcow2
    # What an image names is opened only as a plain path.
    imgtool extension image.qcow2 data_file --data 6e62643a2f2f612f # nbd://a/
    one_error 1 qemu-img check --read-data image.qcow2
    message_has "Unknown protocol 'nbd'"
}

@test "--read-data inflates zstd, with extended entries, too" {
    must oracle create -q -f qcow2 -o compression_type=zstd,extended_l2=on image.qcow2 8M
    printf '%s\n' 'write -q -c -P 5 0 64k' 'write -q -c -P 6 64k 64k' |
        qemu_io qcow2 image.qcow2
    must qemu-img check --read-data image.qcow2
    imgtool spoil image.qcow2
    must qemu-img check image.qcow2
    must_exit 2 qemu-img check --read-data image.qcow2
    [ "$(qemu-img check --read-data image.qcow2 2>&1 | grep -c 'does not inflate')" -eq 1 ]
}

@test "a dirty image of every feature is repaired by who opens it for writing" {
    local options
    for options in extended_l2=on data_file=data.raw compression_type=zstd; do
        rm -f image.qcow2 data.raw
        must oracle create -q -f qcow2 -o "lazy_refcounts=on,$options" image.qcow2 8M
        printf '%s\n' 'write -q -P 5 0 128k' 'write -q -z 1M 4k' | qemu_io qcow2 image.qcow2
        keep_contents
        # The L2 table's count was not written when the program died.
        imgtool refcount image.qcow2 "$(($(imgtool l1 image.qcow2 0) & 0xfffffffffe00))" 0
        imgtool field image.qcow2 incompatible_features \
            $(($(imgtool field image.qcow2 incompatible_features) | 1))
        must qemu-img amend -o lazy_refcounts=off image.qcow2
        clean image.qcow2
        same_contents
    done
}

@test "a lazy image whose refcounts were never written is healed" {
    local guest
    base lazy_refcounts=on
    keep_contents
    # What a crash leaves: data and tables are there, their counts are not.
    for guest in 0 4k 2M; do
        imgtool refcount image.qcow2 "$(($(imgtool l2 image.qcow2 $guest) & 0xfffffe00))" 0
    done
    imgtool field image.qcow2 incompatible_features 1
    must_exit 2 qemu-img check image.qcow2
    must qemu-img check -r all image.qcow2
    [ "$(imgtool field image.qcow2 incompatible_features)" -eq 0 ]
    [ "$(imgtool field image.qcow2 compatible_features)" -eq 1 ]
    clean image.qcow2
    same_contents
}
