#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# check: what it promises of dry runs, of more than one damage, and of undo files.

load helpers
load recipes

setup() {
    q2_setup
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
    table=$((0x$(od -An -tx1 -j "$table" -N 8 image.qcow2 | tr -d " ") & 0x00fffffffffffe00))
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

@test "a table that snapshots know in part is lost up to the end of the disk, no further" {
    local l2
    "$QCOW2" create -q -f qcow2 image.qcow2 63500k
    "$QCOW2" io -f qcow2 -c 'write -q -P 1 0 1M' image.qcow2
    "$QCOW2" snapshot -c one image.qcow2
    "$QCOW2" io -f qcow2 -c 'write -q -P 2 1M 64k' image.qcow2
    l2=$((0x$(od -An -tx1 -j 196608 -N 8 image.qcow2 | tr -d " ") & 0x00fffffffffffe00))
    yes 333 | head -c 65536 | dd of=image.qcow2 bs=64k seek="$l2" oflag=seek_bytes conv=notrunc status=none
    qemu-img check -r all image.qcow2 >out 2>err || fail "$(cat out err)"
    grep '^    active state:' out | diff -u - <(echo '    active state: 63975424 bytes at guest offset 1048576')
    must oracle check image.qcow2
    must "$QCOW2" io -c 'read -P 1 0 1M' image.qcow2
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
